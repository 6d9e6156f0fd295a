"""TIME_WAIT: 2MSL, its end, its reuse, and the policies that shorten it."""

import pytest
from exchange import CALL_NO_PORT, OUT_NEW, SECOND, TICK, Exchange, ip4, outcome, pack, unpack

from fasttcp.spec import Event, State

PROFILES = ("linux", "bsd", "rfc9293")
TS = "mss 1460 ts 1000:0"
LOOPBACK = ip4("127.0.0.1")


@pytest.mark.parametrize("profile", PROFILES)
def test_case_40_the_peers_fin_again_restarts_2msl(profile):
    x = Exchange(profile).in_state(State.TIME_WAIT)
    x.now += 20 * SECOND
    result = x.gets("FA 1 ack 2")
    assert result.events == [Event.RCV_ACK, Event.RCV_FIN_AGAIN]
    x.sends("A 2 ack 2")
    assert 0 <= x.deadline_ns - x.now - x.profile.time_wait_ns < TICK


def test_case_40_also_with_the_data_before_it():
    x = Exchange().established()
    x.gets("A 1 ack 1 len 50")
    x.close()
    x.gets("A 51 ack 2")
    x.gets("FA 51 ack 2 len 50")
    assert x.state == State.TIME_WAIT
    x.sent.clear()
    x.now += SECOND
    assert Event.RCV_FIN_AGAIN in x.gets("FA 51 ack 2 len 50").events
    x.sends("A 2 ack 102")
    assert x.deadline_ns >= x.now + x.profile.time_wait_ns


@pytest.mark.parametrize("text", ["A 1 ack 2 len 5", "A 2 ack 2", "A 2 ack 2 len 50", "A 500 ack 2", "R 99", "S 1"])
def test_case_40_nothing_else_restarts_2msl(text):
    x = Exchange("linux", time_wait_syn_reopens="seq").in_state(State.TIME_WAIT)
    due = x.deadline_ns
    x.now += 20 * SECOND
    x.gets(text)
    assert (x.state, x.deadline_ns) == (State.TIME_WAIT, due)


# ---- case 41: a SYN --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("offset", [1, 1000, (1 << 31) - 1])
def test_case_41_a_syn_above_rcv_nxt_reopens(profile, offset):
    x = Exchange(profile)
    x.in_state(State.TIME_WAIT, passive=True)
    old, rows, above = x.handle, len(x.seat), x.snd_nxt
    result = x.gets(f"S {2 + offset}")
    assert result.events == [Event.RCV_SYN_NEW] and result.flags & OUT_NEW
    assert (result.before, result.after, len(x.seat)) == (State.TIME_WAIT, State.SYN_RCVD, rows)
    assert old not in x.seat and x.handle in x.seat  # a handle of the old connection names nobody
    syn = x.sent.pop()
    assert syn["flags"] == 0x12 and syn["ack"] == (x.theirs + 3 + offset) % 2**32
    assert above is not None


@pytest.mark.parametrize("profile", PROFILES)
def test_case_41_the_new_isn_is_above_the_old_snd_nxt(profile):
    for seed in range(20):
        x = Exchange(profile, seat={"seed": seed})
        x.in_state(State.TIME_WAIT, passive=True)
        above = x.snd_nxt
        record = unpack(x.segment("S 1000"))
        x.seat.receive(pack(**record), x.now)
        new = x.seat.fields(x.seat.handles()[-1])
        assert 0 < (new["iss"] - above) % 2**32 < 1 << 31


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("offset", [0, -1, -5000, -(1 << 31) + 5])
def test_case_41_a_syn_that_is_not_above_is_answered_and_2msl_runs_on(profile, offset):
    x = Exchange(profile).in_state(State.TIME_WAIT, passive=True)
    due = x.deadline_ns
    x.now += SECOND
    assert x.gets(f"S {2 + offset}").events == [Event.RCV_SYN_SUSPECT]
    x.sends("A 2 ack 2")
    assert (x.state, x.deadline_ns) == (State.TIME_WAIT, due)


@pytest.mark.parametrize(("profile", "reopens"), [("linux", True), ("rfc9293", True), ("bsd", False)])
def test_case_41_a_newer_timestamp_reopens(profile, reopens):
    x = Exchange(profile).in_state(State.TIME_WAIT, passive=True, options=TS)
    result = x.gets("S -5000 mss 1460 ts 1001:0")
    assert (Event.RCV_SYN_NEW in result.events) == reopens


@pytest.mark.parametrize("profile", PROFILES)
def test_case_41_an_older_timestamp_forbids_it(profile):
    x = Exchange(profile).in_state(State.TIME_WAIT, passive=True, options=TS)
    assert x.gets("S 5000 mss 1460 ts 999:0").events == [Event.RCV_PAWS]
    assert x.gets("S -5000 mss 1460 ts 1000:0").events == [Event.RCV_SYN_SUSPECT]


@pytest.mark.parametrize("how", ["never", "nobody", "full"])
def test_case_41_where_nobody_would_take_it_time_wait_stays(how):
    x = Exchange(time_wait_syn_reopens="never" if how == "never" else "seq", tcp_max_syn_backlog=1, tcp_syncookies=0)
    x.in_state(State.TIME_WAIT, passive=how != "nobody")
    if how == "full":
        x.seat.receive(x.segment("S 0", sport=7), x.now)
        x.sent.clear()
        x.seat.take()
    assert x.gets("S 1000").events == [Event.RCV_SYN_SUSPECT]
    assert x.state == State.TIME_WAIT


def test_case_41_the_reopened_connection_goes_its_whole_way():
    x = Exchange().in_state(State.TIME_WAIT, passive=True)
    x.gets("S 1000 mss 1460")
    x.theirs = (x.theirs + 1000) % 2**32
    x.sends("SA 0 ack 1")
    x.gets("A 1 ack 1")
    assert x.state == State.ESTABLISHED
    x.gets("FA 1 ack 1")
    x.sends("A 1 ack 2")
    x.close(half=False)
    x.sends("FA 1 ack 2")
    assert x.gets("A 2 ack 2").end == "closed"
    assert len(x.seat) == 1  # the listener


# ---- case 42, 43 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "ignored"), [("linux", False), ("rfc9293", False), ("bsd", True)])
def test_case_42_reset_in_time_wait(profile, ignored):
    for option, expected in ((None, ignored), (True, True), (False, False)):
        changes = {} if option is None else {"tcp_rfc1337": option}
        x = Exchange(profile, **changes).in_state(State.TIME_WAIT)
        result = x.gets("R 2")
        assert (result.events == [Event.RCV_RST_DROPPED]) == expected
        assert x.state == (State.TIME_WAIT if expected else State.CLOSED)
        x.quiet()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("odd", [0, 1, 4_999_999, 9_999_999])
def test_case_43_2msl_never_early_and_at_most_one_tick_late(profile, odd):
    x = Exchange(profile)
    x.open()
    x.gets("SA 0 ack 1")
    x.close()
    x.gets("A 1 ack 2")
    x.now += odd
    x.gets("FA 1 ack 2")
    x.sent.clear()
    x.now += x.profile.time_wait_ns - 1
    assert x.seat.advance(x.now)[0] == [] and x.state == State.TIME_WAIT
    x.now += TICK
    (told,) = x.seat.advance(x.now)[0]
    assert (outcome(told).end, outcome(told).events) == ("closed", [Event.TIMEOUT_2MSL])
    assert len(x.seat) == 0


def test_case_43_both_ways_into_time_wait_arm_it():
    x = Exchange().in_state(State.CLOSING)
    x.gets("A 2 ack 2")
    assert x.wait(61) == [] and [one.end for one in x.ended] == ["closed"]


# ---- case 44: tcp_tw_reuse -------------------------------------------------------------------------------------------


def closed_first(x, options=TS):
    """x is in TIME_WAIT, opened by us; ports and addresses are x's."""
    return x.in_state(State.TIME_WAIT, options=options)


def reopen(x):
    answer, told = x.seat.open(x.local, x.lport, x.remote, x.rport, x.now)
    x.sent.clear()
    x.seat.take()
    x.seat.check()
    return answer, outcome(told)


def test_case_44_reuse_after_a_second_with_timestamps():
    x = closed_first(Exchange("linux", tcp_tw_reuse=1))
    old, above = x.handle, x.snd_nxt
    x.now += SECOND - 1
    assert reopen(x)[0] != 0 and x.state == State.TIME_WAIT
    x.now += 1
    answer, result = reopen(x)
    assert (answer, result.events, result.after) == (0, [Event.OPEN_REUSE], State.SYN_SENT)
    assert old not in x.seat
    assert 0 < (x.seat.fields(result.handle)["iss"] - above) % 2**32 < 1 << 31
    assert x.seat.fields(result.handle)["timer"] == 1


def test_case_44_never_without_timestamps():
    x = closed_first(Exchange("linux", tcp_tw_reuse=1), options="mss 1460")
    x.now += 30 * SECOND
    assert reopen(x)[1].events == [Event.OPEN_ACTIVE]
    assert x.refuses("open", x.local, x.lport, x.remote, x.rport, x.now) == "connection already exists"


def test_case_44_never_in_fin_wait_2():
    x = Exchange("linux", tcp_tw_reuse=1).in_state(State.FIN_WAIT_2, orphan=True, options=TS)
    x.now += 10 * SECOND
    assert x.refuses("open", x.local, x.lport, x.remote, x.rport, x.now) == "connection already exists"


@pytest.mark.parametrize(
    ("reuse", "where", "allowed"),
    [
        (0, LOOPBACK, False),
        (1, LOOPBACK, True),
        (2, LOOPBACK, True),
        (2, ip4("192.0.2.9"), False),
        (2, bytes(15) + b"\x01", True),
        (2, b"\xfe\x80" + bytes(13) + b"\x01", False),
    ],
)
def test_case_44_modes(reuse, where, allowed):
    x = closed_first(Exchange("linux", tcp_tw_reuse=reuse, local=where, remote=where))
    x.now += 2 * SECOND
    assert (reopen(x)[0] == 0) == allowed


def test_case_44_decides_how_soon_a_range_of_ports_is_exhausted():
    """What the user asks of a simulation: two connections a second from four ports, 2MSL of 60 s."""

    def opened(**changes):
        x = Exchange("linux", ip_local_port_range=(5000, 5003), **changes)
        done = 0
        for _ in range(40):
            x.seat.advance(x.now)
            answer, told = x.seat.open(x.local, 0, x.remote, x.rport, x.now)
            if answer == CALL_NO_PORT:
                break
            assert answer == 0
            x.handle = told["handle"]
            x.sent.clear()
            x._after(told)
            x._rebase(False)
            x.lport = x.seat.fields(x.handle)["lport"]
            x.sent.clear()
            x.gets("SA 0 ack 1 ts 1000:0")
            x.close()
            x.gets("FA 1 ack 2 ts 1000:0")
            assert x.state == State.TIME_WAIT
            x.now += SECOND // 2
            done += 1
        return done, x.seat.counts()["ports_exhausted"]

    assert opened(tcp_tw_reuse=0) == (4, 1)
    assert opened(tcp_tw_reuse=1) == (40, 0)
    assert opened(tcp_tw_reuse=0, msl=0.9) == (40, 0)


# ---- case 45: tcp_tw_recycle -----------------------------------------------------------------------------------------


@pytest.fixture
def recycling():
    with pytest.warns(UserWarning, match="NAT"):
        yield Exchange("linux", tcp_tw_recycle=True)


def test_case_45_time_wait_lasts_three_and_a_half_rto(recycling):
    x = recycling.in_state(State.TIME_WAIT, options=TS)
    assert 0 <= x.deadline_ns - x.now - 3.5 * x.rto_us * 1000 < TICK
    x.wait(5)
    assert len(x.seat) == 0


def test_case_45_not_without_timestamps(recycling):
    x = recycling.in_state(State.TIME_WAIT)
    assert x.deadline_ns - x.now >= 60 * SECOND


def test_case_45_clients_behind_one_nat_are_lost(recycling):
    x = recycling
    listener = x.listen()
    x.gets("S 0 mss 1460 ts 500000:0", sport=1001)
    x.sends_any = x.sent.pop()
    x.rport = 1001
    x.gets("A 1 ack 1 ts 500000:0")
    x.close()
    x.gets("FA 1 ack 2 ts 500001:0")
    assert x.state == State.TIME_WAIT
    x.sent.clear()
    # Another host behind the same address, started later: its clock is behind.
    x.now += SECOND
    assert x.gets("S 0 mss 1460 ts 77:0", sport=1002).events == [Event.RCV_SYN_DROPPED]
    x.quiet()
    assert x.seat.counts()["recycle_rejected"] == 1
    assert x.gets("S 0 mss 1460", sport=1003).events == [Event.RCV_SYN]  # without timestamps
    x.sent.clear()
    assert x.gets("S 0 ts 77:0", sport=1004, src=ip4("192.0.2.8")).events == [Event.RCV_SYN]  # another address
    x.now += 60 * SECOND
    assert x.gets("S 0 mss 1460 ts 77:0", sport=1002).events == [Event.RCV_SYN]  # a minute later nobody remembers
    assert x.seat.state(listener) == State.LISTEN


# ---- case 46: tcp_max_tw_buckets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_case_46_one_too_many_is_freed_at_once_and_counted(limit):
    x = Exchange(tcp_max_tw_buckets=limit)
    for i in range(limit + 2):
        x.lport = 40000 + i
        x.in_state(State.FIN_WAIT_2)
        result = x.gets("FA 1 ack 2")
        x.sends("A 2 ack 2")  # the peer gets its ACK all the same
        assert (Event.TIME_WAIT_OVERFLOW in result.events) == (i >= limit)
        assert (result.end is None) == (i < limit)
    assert (len(x.seat), x.seat.counts()["event"][Event.TIME_WAIT_OVERFLOW]) == (limit, 2)
