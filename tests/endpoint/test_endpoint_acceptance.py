"""What synchronized states take, doubt and drop: sequence numbers, RST, SYN, ACK, timestamps, and the limit on
answers."""

import pytest
from exchange import OURS, SECOND, THEIRS, Exchange

from fasttcp.spec import SYNCHRONIZED, Event, State

PROFILES = ("linux", "bsd", "rfc9293")
AFTER_FIN = (State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK, State.TIME_WAIT)
OPEN = (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2)


def parts(x):
    """RCV.NXT and SND.NXT in the relative numbers of the test's language, and a window to reckon with."""
    return x.rcv(), x.nxt(), x.rcv_wnd


# ---- case 15: the four cases of RFC 9293 section 3.4 -----------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_case_15_four_cases_with_an_open_window(profile, state):
    x = Exchange(profile).in_state(state)
    rcv, nxt, wnd = parts(x)
    cases = [  # offset of SEQ from RCV.NXT, length, acceptable
        (0, 0, True),
        (wnd - 1, 0, True),
        (-1, 0, False),
        (wnd, 0, False),
        (1 << 31, 0, False),
        (-10, 10, False),
        (-10, 11, True),
        (wnd - 1, 10, True),
        (wnd, 1, False),
        (-(1 << 30), 100, False),
    ]
    for offset, length, acceptable in cases:
        x = Exchange(profile).in_state(state)
        result = x.gets(f"A {rcv + offset} ack {nxt} len {length}")
        assert (Event.RCV_UNACCEPTABLE not in result.events) == acceptable, (offset, length)
        if not acceptable:
            assert result.events == [Event.RCV_UNACCEPTABLE]
            x.sends(f"A {nxt} ack {rcv}")
            x.quiet()
            assert (x.state, x.rcv()) == (state, rcv)


@pytest.mark.parametrize("profile", PROFILES)
def test_case_15_four_cases_with_a_shut_window(profile):
    for offset, length, acceptable in [(0, 0, True), (1, 0, False), (-1, 0, False), (0, 1, False), (-1, 2, False)]:
        x = Exchange(profile, rcv_wnd=1000, seat={"auto_read": False}).established()
        x.gets("A 1 ack 1 len 1000")
        x.sends("A 1 ack 1001 win 0")
        assert x.rcv_wnd == 0
        result = x.gets(f"A {1001 + offset} ack 1 len {length}")
        assert (Event.RCV_UNACCEPTABLE not in result.events) == acceptable, (offset, length)
        if not acceptable:
            x.sends("A 1 ack 1001 win 0")
        x.quiet()
        assert x.rcv() == 1001


def test_case_15_the_ack_of_a_window_probe_counts():
    x = Exchange(rcv_wnd=1000, seat={"auto_read": False}).established()
    x.send(50)
    x.sends("A 1 ack 1 len 50")
    x.gets("A 1 ack 1 len 1000")
    x.sends("A 51 ack 1001 win 0")
    assert x.gets("A 1001 ack 51 len 1").events == [Event.RCV_ACK, Event.RCV_UNACCEPTABLE]
    assert x.una() == 51
    assert x.gets("R 1001").end == "reset"  # RSTs are looked at with a shut window too


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_case_15_reset_outside_the_window_is_dropped_without_an_answer(state):
    for offset in (-2, -100000, 70000):
        x = Exchange("rfc9293").in_state(state)
        assert x.gets(f"R {x.rcv() + offset}").events == [Event.RCV_RST_DROPPED]
        x.quiet()
        assert x.state == state


# ---- case 16, 17: sequence numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("ours", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("theirs", [0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_case_16_every_comparison_holds_through_the_wrap(profile, ours, theirs):
    x = Exchange(profile)
    x.open()
    x.seat.preset_sequence(x.handle, ours)
    x.ours, x.theirs = ours, theirs
    x.sent.clear()
    x.gets("SA 0 ack 1 mss 1460 win 60000")
    x.sends("A 1 ack 1")
    for n in range(5):
        x.send(1000)
        x.sends(f"A {1 + 1000 * n} ack {1 + 300 * n} len 1000")
        x.gets(f"A {1 + 300 * n} ack {1 + 1000 * n} len 300")  # their data, before they see ours
        x.sends(f"A {1001 + 1000 * n} ack {301 + 300 * n}")
        x.gets(f"A {301 + 300 * n} ack {1001 + 1000 * n}")
        assert (x.una(), x.rcv()) == (1001 + 1000 * n, 301 + 300 * n)
    x.close()
    x.sends("FA 5001 ack 1501")
    x.gets("FA 1501 ack 5002")
    x.sends("A 5002 ack 1502")
    assert x.state == State.TIME_WAIT


def test_case_17_syn_and_fin_take_one_number_each():
    x = Exchange().established()
    assert (x.una(), x.nxt(), x.rcv()) == (1, 1, 1)
    x.send(10)
    x.close()
    x.sends("A 1 ack 1 len 10")
    x.sends("FA 11 ack 1")
    assert x.nxt() == 12
    x.gets("FA 1 ack 12 len 5")
    x.sends("A 12 ack 7")


@pytest.mark.parametrize("passive", [False, True])
def test_case_17_the_window_of_a_syn_is_never_scaled(passive):
    x = Exchange("linux", rcv_wnd=300_000).established(passive=passive, options="ws 9", window=100)
    y = Exchange("linux", rcv_wnd=300_000)
    if passive:
        y.listen()
        y.gets("S 0 ws 9 win 100")
        assert y.snd_wnd == 100
        y.sends("SA 0 ack 1 win 65535 ws 7")
        assert x.snd_wnd == 100 << 9
    else:
        y.open()
        y.sends("S 0 win 65535 ws 7")
        y.gets("SA 0 ack 1 ws 9 win 100")
        assert y.snd_wnd == 100
        y.sends(f"A 1 ack 1 win {300_000 >> 7}")


@pytest.mark.parametrize(("offered", "used"), [(14, 14), (15, 14), (255, 14), (0, 0), (13, 13)])
def test_case_17_a_shift_above_14_means_14(offered, used):
    x = Exchange("linux").established(options=f"ws {offered}")
    assert x.remote_shift == used
    x.gets("A 1 ack 1 win 65535")
    assert x.snd_wnd == 65535 << used


def test_without_the_peers_window_scale_ours_is_not_used():
    x = Exchange("linux", rcv_wnd=300_000).established()
    assert (x.rcv_wnd, x.local_shift) == (65535, 0)
    x.gets("A 1 ack 1 len 1")
    x.sends("A 1 ack 2 win 65535")


# ---- cases 18 to 20: RST ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_case_18_reset_at_rcv_nxt(profile, state):
    x = Exchange(profile, tcp_rfc1337=False).in_state(state)
    result = x.gets(f"R {x.rcv()}")
    closing = (State.CLOSING, State.LAST_ACK, State.TIME_WAIT)
    assert (result.events, result.end) == ([Event.RCV_RST], "closed" if state in closing else "reset")
    x.quiet()
    assert len(x.seat) == 0


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", [State.SYN_RCVD, *SYNCHRONIZED])
def test_case_19_reset_in_the_window_is_challenged(profile, state):
    for offset in (1, 1000, 65534):
        x = Exchange(profile, tcp_rfc1337=False).in_state(state)
        rcv, nxt, _ = parts(x)
        assert x.gets(f"R {rcv + offset}").events == [Event.RCV_RST_SUSPECT]
        x.sends(f"A {nxt} ack {rcv}")
        assert x.state == state
        assert x.gets(f"R {rcv}").end  # the answer of a true peer to the challenge


def test_case_19_without_rfc_5961_any_reset_in_the_window_is_believed():
    x = Exchange(rfc5961=False).established()
    assert x.gets("R 1000").end == "reset"
    x.quiet()


@pytest.mark.parametrize("state", AFTER_FIN)
@pytest.mark.parametrize("profile", PROFILES)
def test_case_20_reset_that_does_not_count_the_fin(profile, state):
    x = Exchange(profile).in_state(state)
    result = x.gets(f"R {x.rcv() - 1}")
    if profile == "linux" and state != State.TIME_WAIT:
        assert result.end in ("reset", "closed")
    else:
        assert (result.events, x.state) == ([Event.RCV_RST_DROPPED], state)
    x.quiet()


@pytest.mark.parametrize("state", OPEN)
def test_case_20_only_after_the_peers_fin(state):
    x = Exchange("linux").in_state(state)
    assert x.gets(f"R {x.rcv() - 1}").events == [Event.RCV_RST_DROPPED]
    x.quiet()


# ---- case 21: SYN ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", SYNCHRONIZED)
@pytest.mark.parametrize("flags", ["S", "SA"])
def test_case_21_syn_is_challenged_wherever_it_stands(profile, state, flags):
    for offset in (0, 1, -1, 5000, -5000, 1 << 31):
        x = Exchange(profile, time_wait_syn_reopens="never").in_state(state)
        rcv, nxt, _ = parts(x)
        assert x.gets(f"{flags} {rcv + offset} ack {nxt}").events == [Event.RCV_SYN_SUSPECT]
        x.sends(f"A {nxt} ack {rcv}")
        x.quiet()
        assert x.state == state


def test_case_21_another_syn_in_syn_rcvd():
    x = Exchange().in_state(State.SYN_RCVD, passive=True)
    assert x.gets("S 77").events == [Event.RCV_SYN_SUSPECT]
    x.sends("A 1 ack 1")


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_case_21_without_rfc_5961_syn_in_the_window_is_fatal(state):
    x = Exchange(rfc5961=False, time_wait_syn_reopens="never").in_state(state)
    rcv, nxt, _ = parts(x)
    assert x.gets(f"S {rcv - 100000}").events == [Event.RCV_UNACCEPTABLE]
    x.sends(f"A {nxt} ack {rcv}")
    assert x.gets(f"S {rcv + 5}").end == "reset"
    x.sends(f"R {nxt}")
    assert len(x.seat) == 0


# ---- case 22: ACK ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_case_22_ack_of_what_was_never_sent(profile, state):
    x = Exchange(profile).in_state(state)
    rcv, nxt, _ = parts(x)
    assert x.gets(f"A {rcv} ack {nxt + 1} len 50").events == [Event.RCV_ACK_SUSPECT]
    x.sends(f"A {nxt} ack {rcv}")
    x.quiet()
    assert (x.state, x.rcv()) == (state, rcv)


def test_case_22_ack_that_is_too_old():
    x = Exchange().established(window=5000)
    x.gets("A 1 ack 1 win 2000")  # MAX.SND.WND stays 5000
    assert x.snd_max_wnd == 5000
    for n in (1, 2, 3):
        x.send(2000)
        x.gets(f"A 1 ack {1 + 2000 * n} win 2000")
    x.sent.clear()
    assert x.gets("A 1 ack 1001 len 10").events == [Event.RCV_ACK, Event.RCV_DATA]  # just within
    x.sends("A 6001 ack 11")
    assert x.una() == 6001
    assert x.gets("A 11 ack 1000 len 10").events == [Event.RCV_ACK_SUSPECT]
    x.sends("A 6001 ack 11")
    old = Exchange(rfc5961=False).established(window=5000)
    assert old.gets("A 1 ack -100000 len 10").events == [Event.RCV_ACK, Event.RCV_DATA]


@pytest.mark.parametrize(("passive", "oldest"), [(False, 0), (True, 1)])
def test_case_22_nothing_older_than_the_first_byte_is_an_ack(passive, oldest):
    x = Exchange().established(passive=passive, window=60000)
    assert Event.RCV_ACK_SUSPECT not in x.gets(f"A 1 ack {oldest}").events
    x.quiet()
    assert x.gets(f"A 1 ack {oldest - 1}").events == [Event.RCV_ACK_SUSPECT]
    x.sends("A 1 ack 1")


@pytest.mark.parametrize("state", SYNCHRONIZED)
def test_case_21_a_syn_with_fin_or_rst_is_looked_at_in_the_usual_order(state):
    x = Exchange("rfc9293").in_state(state)
    rcv, nxt, _ = parts(x)
    assert x.gets(f"SF {rcv}").events == [Event.RCV_SYN_SUSPECT]
    x.sends(f"A {nxt} ack {rcv}")
    assert x.gets(f"SR {rcv}").events[0] in (Event.RCV_RST, Event.RCV_RST_DROPPED)


def test_segment_without_ack_is_dropped():
    x = Exchange().established()
    assert x.gets("P 1 len 10").events == [Event.RCV_STRAY]
    assert x.gets("F 1").events == [Event.RCV_STRAY]
    x.quiet()
    assert x.rcv() == 1


# ---- case 23: the limit ----------------------------------------------------------------------------------------------


SUSPICIOUS = ["R 1000", "S 1", "S 99999", "A 1 ack 5", "A -5 ack 1", "A 99999 ack 1", "SA 1 ack 1"]


@pytest.mark.parametrize("text", SUSPICIOUS)
@pytest.mark.parametrize(("profile", "limit"), [("linux", 0.5), ("bsd", 0.2), ("rfc9293", 0.5)])
def test_case_23_answers_to_what_does_not_fit_are_limited(profile, limit, text):
    x = Exchange(profile).established()
    for _ in range(10):
        x.gets(text)
    x.sends("A 1 ack 1")
    x.quiet()
    x.now += round((limit - 0.002) * SECOND)
    x.gets(text)
    x.quiet()
    x.now += 4_000_000
    x.gets(text)
    x.sends("A 1 ack 1")
    assert (x.state, x.seat.counts()["limited"]) == (State.ESTABLISHED, 10)


def test_case_23_one_limit_for_all_kinds():
    x = Exchange().established()
    for text in SUSPICIOUS:
        x.gets(text)
    x.sends("A 1 ack 1")
    x.quiet()


def test_case_23_the_limit_is_each_connections_own():
    x = Exchange().established()
    x.gets("R 1000")
    x.sends("A 1 ack 1")
    x.lport += 1
    x.established()
    x.gets("R 1000")
    x.sends("A 1 ack 1")


def test_case_23_who_sends_again_what_we_have_is_always_answered():
    """kernel tcp_oow_rate_limited: data and FINs cannot make a loop of ACKs, and the peer waits for each of them."""
    x = Exchange("linux").established()
    x.gets("A 1 ack 1 len 100")
    x.sends("A 1 ack 101")
    for _ in range(5):
        x.gets("A 1 ack 1 len 100")
        x.sends("A 1 ack 101")


def test_case_23_no_limit_and_a_limit_for_the_host():
    x = Exchange(tcp_invalid_ratelimit=0).established()
    for _ in range(5):
        x.gets("R 1000")
        x.sends("A 1 ack 1")
    y = Exchange(tcp_invalid_ratelimit=0, tcp_challenge_ack_limit=3).established()
    for _ in range(5):
        y.gets("R 1000")
    assert len(y.sent) == 3
    y.now += SECOND
    y.gets("R 1000")
    assert len(y.sent) == 4


# ---- case 24: timestamps ---------------------------------------------------------------------------------------------


TS = "mss 1460 ts 1000:0"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", [State.SYN_RCVD, *SYNCHRONIZED])
def test_case_24_an_old_timestamp_is_answered_and_dropped(profile, state):
    x = Exchange(profile).in_state(state, options=TS)
    rcv, nxt, _ = parts(x)
    assert x.gets(f"A {rcv} ack {nxt} len 10 ts 999:0").events == [Event.RCV_PAWS]
    x.sends(f"A {nxt} ack {rcv}")
    assert (x.state, x.rcv()) == (state, rcv)
    assert Event.RCV_PAWS not in x.gets(f"A {rcv} ack {nxt} ts 1000:0").events


def test_case_24_timestamps_compare_modulo_2_32():
    x = Exchange().established(options="ts 4294967290:0")
    assert x.gets("A 1 ack 1 len 5 ts 3:0").events == [Event.RCV_ACK, Event.RCV_DATA]
    assert x.ts_recent == 3
    assert x.gets("A 6 ack 1 len 5 ts 4294967295:0").events == [Event.RCV_PAWS]


@pytest.mark.parametrize("profile", PROFILES)
def test_case_24_a_reset_is_exempt(profile):
    x = Exchange(profile).established(options=TS)
    assert x.gets("RA 1 ack 1 ts 5:0").end == "reset"


@pytest.mark.parametrize(("profile", "days"), [("rfc9293", 24), ("bsd", 24), ("linux", 2147 / 86400)])
def test_case_24_a_stored_timestamp_becomes_void(profile, days):
    x = Exchange(profile).established(options=TS)
    x.now += int((days * 86400 - 2) * SECOND)
    assert x.gets("A 1 ack 1 len 5 ts 999:0").events == [Event.RCV_PAWS]
    x.now += 4 * SECOND
    assert x.gets("A 1 ack 1 len 5 ts 999:0").events == [Event.RCV_ACK, Event.RCV_DATA]
    assert (x.ts_recent, x.rcv()) == (999, 6)


def test_ts_recent_follows_only_what_reaches_the_left_edge():
    x = Exchange().established(options=TS)
    x.gets("A 101 ack 1 len 100 ts 2000:0")  # beyond a hole (RFC 7323 section 4.3)
    assert x.ts_recent == 1000
    x.gets("A 1 ack 1 len 100 ts 1500:0")
    assert x.ts_recent == 1500


def test_our_timestamps_echo_and_advance():
    x = Exchange(tcp_timestamps=2)
    x.now = 1_000 * SECOND
    x.established(options=TS)
    x.now += 250_000_000
    x.gets("A 1 ack 1 len 5 ts 1700:0")
    x.sends("A 1 ack 6 ts 250:1700")
    random = Exchange(tcp_timestamps=1).established(options=TS)
    random.gets("A 1 ack 1 len 5 ts 1700:0")
    assert random.sent[0]["tsval"] == random.ts_offset != 0


def test_timestamps_only_when_both_want_them():
    x = Exchange().established()
    x.gets("A 1 ack 1 len 5 ts 9:9")
    assert x.sent[0]["options"] == 0
    y = Exchange(tcp_timestamps=0).established(options=TS)
    y.gets("A 1 ack 1 len 5 ts 9:9")
    assert y.sent[0]["options"] == 0
    assert y.gets("A 6 ack 1 len 5 ts 3:9").delivered == 5


def test_constants_wrap_early():
    """The numbers of this language cross 2^32 and 2^31 within a few segments, or these tests would prove little."""
    assert OURS + 200 > 1 << 32 and THEIRS < 1 << 31 < THEIRS + 100
