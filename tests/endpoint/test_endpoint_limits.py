"""What is bounded: backlog and cookies, accept queue, ports, rows, output; and what must not be guessed."""

import pytest
from exchange import (
    CALL_FULL,
    CALL_NO_PORT,
    LOCAL,
    OUT_ACCEPTED,
    OUT_ESTABLISHED,
    OUT_FULL,
    REMOTE,
    SECOND,
    Exchange,
    ip4,
    outcome,
    unpack,
)
from fasttcp.core._testing_endpoint import SIZES, siphash_words

from fasttcp.spec import Event, State


def flood(x, n, *, first=10000):
    """n SYNs from n ports: the events of each."""
    return [x.gets("S 0 mss 1400", sport=first + i).events for i in range(n)]


def drain(x):
    found, x.sent = x.sent, []
    return found


# ---- case 14: the backlog --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backlog", "changes", "room"),
    [
        (3, {}, 3),
        (100, {"tcp_max_syn_backlog": 4}, 4),
        (100, {"somaxconn": 5}, 5),
        (0, {}, 1),
    ],
)
def test_case_14_a_full_backlog_drops_and_counts(backlog, changes, room):
    x = Exchange(tcp_syncookies=0, **changes)
    listener = x.listen(backlog)
    events = flood(x, room + 3)
    assert events == [[Event.RCV_SYN]] * room + [[Event.RCV_SYN_DROPPED]] * 3
    assert len(drain(x)) == room
    assert x.seat.counts()["event"][Event.RCV_SYN_DROPPED] == 3
    assert x.seat.listener(listener)["half_open"] == room


@pytest.mark.parametrize("leaves", ["R 1", "A 1 ack 1"])
def test_case_14_who_leaves_makes_room(leaves):
    x = Exchange(tcp_syncookies=0)
    x.listen(1)
    x.gets("S 0")
    assert flood(x, 1) == [[Event.RCV_SYN_DROPPED]]
    x.gets(leaves)
    assert flood(x, 1) == [[Event.RCV_SYN]]


def test_case_14_so_does_a_timeout():
    x = Exchange(tcp_syncookies=0)
    x.listen(1)
    x.gets("S 0")
    x.wait(70)
    assert flood(x, 1) == [[Event.RCV_SYN]]


# ---- case 14: cookies ------------------------------------------------------------------------------------------------


SYNS = ["S 0", "S 0 mss 1400", "S 0 mss 1460 ws 9 ts 5000:0 sack", "S 0 mss 300 ts 5000:0", "S 0 mss 9000 ws 0 ts 7:0"]


@pytest.mark.parametrize("syn", SYNS)
@pytest.mark.parametrize("address", [REMOTE, b"\x20\x01" + bytes(13) + b"\x01"])
def test_case_14_a_cookie_keeps_no_row_and_gives_everything_back(syn, address):
    local = LOCAL if address == REMOTE else b"\x20\x01" + bytes(13) + b"\x02"
    x = Exchange(tcp_syncookies=2, local=local, remote=address)
    x.listen()
    assert x.gets(syn).events == [Event.RCV_SYN_COOKIE]
    assert len(x.seat) == 1
    (cookie,) = drain(x)
    assert cookie["flags"] == 0x12
    x.ours = cookie["seq"]
    ts = f" ts 5001:{cookie['tsval']}" if "ts" in syn else ""
    result = x.gets("A 1 ack 1 win 200 len 30" + ts)
    assert result.events[:1] == [Event.RCV_ACK] and Event.RCV_COOKIE_ACK in result.events
    assert result.flags & OUT_ACCEPTED and result.delivered == 30
    x.handle = result.handle
    normal = Exchange(tcp_syncookies=0, local=local, remote=address)
    normal.listen()
    normal.gets(syn)
    want, got = normal.seat.fields(normal.handle), x.seat.fields(x.handle)
    for name in ("irs", "rcv_wnd"):
        assert got[name] == want[name]
    steps = [216, 536, 1220, 1360, 1440, 1452, 1460, 8960]
    overhead = 12 if ts else 0
    assert got["mss"] + overhead == max([s for s in steps if s <= want["mss"] + overhead], default=216)
    if ts:
        assert (got["local_shift"], got["remote_shift"]) == (want["local_shift"], want["remote_shift"])
    else:
        assert (got["local_shift"], got["remote_shift"]) == (0, 0)  # nothing could carry them
    assert got["snd_wnd"] == 200 << got["remote_shift"]
    assert x.state == State.ESTABLISHED


def test_case_14_cookies_only_when_the_backlog_is_full():
    x = Exchange(tcp_syncookies=1)
    x.listen(2)
    assert flood(x, 3) == [[Event.RCV_SYN], [Event.RCV_SYN], [Event.RCV_SYN_COOKIE]]


def cookie_exchange(**changes):
    x = Exchange(tcp_syncookies=2, **changes)
    x.listen()
    x.gets("S 0 mss 1400")
    x.ours = drain(x)[0]["seq"]
    return x


@pytest.mark.parametrize(
    "wrong",
    [
        {"ack": 12345},
        {"sport": 9},
        {"src": ip4("192.0.2.8")},
        {"seq": 99},
        {"dport": 40000, "sport": 444},
    ],
)
def test_case_14_a_wrong_cookie_is_reset(wrong):
    x = cookie_exchange()
    result = x.gets("A 1 ack 1", **wrong)
    assert result.events == [Event.RCV_BAD_ACK]
    assert drain(x)[0]["flags"] == 0x04
    assert (len(x.seat), x.seat.counts()["cookies_failed"]) == (1, 1)


def test_case_14_one_bit_off_is_wrong():
    for bit in range(32):
        x = cookie_exchange()
        x.ours ^= 1 << bit
        assert x.gets("A 1 ack 1").events == [Event.RCV_BAD_ACK], bit


@pytest.mark.parametrize(("seconds", "good"), [(0, True), (59, True), (125, False), (32 * 60, False)])
def test_case_14_a_cookie_becomes_stale(seconds, good):
    x = cookie_exchange()
    x.now += seconds * SECOND
    assert (Event.RCV_COOKIE_ACK in x.gets("A 1 ack 1").events) == good


def test_case_14_no_cookie_is_believed_that_nobody_sent():
    x = cookie_exchange()
    other = Exchange(tcp_syncookies=2)
    other.listen()
    other.ours = x.ours
    assert other.gets("A 1 ack 1").events == [Event.RCV_BAD_ACK]  # this listener sent none
    assert other.seat.counts()["cookies_failed"] == 0


# ---- the accept queue ------------------------------------------------------------------------------------------------


def accepting(**changes):
    x = Exchange(seat={"auto_accept": False}, **changes)
    return x, x.listen(2)


def connect(x, port):
    x.rport = port
    x.gets("S 0")
    return x.gets("A 1 ack 1")


def test_connections_wait_to_be_accepted_in_order():
    x, listener = accepting()
    first = connect(x, 1)
    second = connect(x, 2)
    assert first.flags & OUT_ESTABLISHED and x.seat.listener(listener)["accept_queued"] == 2
    assert [x.seat.accept(listener) for _ in range(3)] == [first.handle, second.handle, None]


@pytest.mark.parametrize(("abort", "events"), [(False, [Event.RCV_ACK_DROPPED]), (True, [Event.ABORT])])
def test_a_full_accept_queue(abort, events):
    x, listener = accepting(tcp_abort_on_overflow=abort)
    x.rport = 3
    x.gets("S 0")  # half-open before the queue fills
    late = x.handle
    connect(x, 1)
    connect(x, 2)
    x.rport, x.handle = 3, late
    drain(x)
    x.ours = x.iss
    assert x.gets("A 1 ack 1").events == events
    assert x.state == (State.CLOSED if abort else State.SYN_RCVD)
    assert [one["flags"] for one in drain(x)] == ([0x04] if abort else [])
    assert x.gets("S 0", sport=4).events == [Event.RCV_SYN_DROPPED]
    assert x.seat.accept(listener)
    if not abort:
        assert x.gets("A 1 ack 1").events == [Event.RCV_ACK_OF_SYN]


def test_who_dies_in_the_accept_queue_leaves_it():
    x, listener = accepting()
    for port in (1, 2):
        connect(x, port)
    x.rport = 1
    drain(x)
    x.gets("R 1")
    assert x.seat.listener(listener)["accept_queued"] == 1
    assert x.seat.accept(listener) == x.handle and x.seat.accept(listener) is None


def test_closing_the_listener_resets_who_waits():
    x, listener = accepting()
    connect(x, 1)
    connect(x, 2)
    drain(x)
    x.call("close", listener, False, x.now)
    assert [one["flags"] for one in drain(x)] == [0x04, 0x04]
    assert len(x.seat) == 0


# ---- ports -----------------------------------------------------------------------------------------------------------


def opened(x, n, **where):
    ports = []
    for _ in range(n):
        answer, told = x.seat.open(
            where.get("local", LOCAL), 0, where.get("remote", REMOTE), where.get("rport", 443), x.now
        )
        if answer:
            return ports, answer
        x.seat.check()
        ports.append(x.seat.fields(told["handle"])["lport"])
    return ports, 0


def test_every_port_of_the_range_once():
    x = Exchange(ip_local_port_range=(5000, 5099), seat={"rows": 300})
    ports, answer = opened(x, 101)
    assert (sorted(ports), answer) == (list(range(5000, 5100)), CALL_NO_PORT)
    assert (x.seat.counts()["ports_exhausted"], len(x.seat)) == (1, 100)
    assert opened(x, 100, rport=444)[1] == 0  # another remote port: a range of its own
    assert opened(x, 100, remote=ip4("192.0.2.8"))[1] == 0


def test_reserved_and_listening_ports_are_left_alone():
    x = Exchange(ip_local_port_range=(5000, 5009), ip_local_reserved_ports=(5003, 5007))
    x.call("listen", LOCAL, 5005, 5, x.now)
    ports, answer = opened(x, 10)
    assert (sorted(ports), answer) == ([5000, 5001, 5002, 5004, 5006, 5008, 5009], CALL_NO_PORT)


def test_a_port_that_was_freed_is_found_again():
    x = Exchange(ip_local_port_range=(5000, 5003))
    opened(x, 4)
    handle = x.seat.handles()[2]
    port = x.seat.fields(handle)["lport"]
    x.seat.abort(handle, x.now)
    assert opened(x, 2) == ([port], CALL_NO_PORT)


def test_the_order_of_ports_is_secret_and_reproducible():
    def order(seed):
        return opened(Exchange(ip_local_port_range=(5000, 5999), seat={"seed": seed}), 3)[0]

    assert order(1) == order(1) != order(2)
    x = Exchange(ip_local_port_range=(5000, 5999))
    assert len({opened(x, 1, rport=port)[0][0] for port in range(400, 420)}) > 15  # offsets differ by destination


# ---- rows and output -------------------------------------------------------------------------------------------------


def test_a_full_table():
    x = Exchange(seat={"rows": 3})
    x.listen()
    flood(x, 2)
    result = x.gets("S 0", sport=9)
    assert result.events == [Event.RCV_SYN_DROPPED] and result.flags & OUT_FULL
    assert x.seat.open(LOCAL, 0, REMOTE, 80, x.now)[0] == CALL_FULL
    assert x.seat.listen(LOCAL, 81, 5, x.now)[0] == CALL_FULL
    assert x.seat.counts()["table_full"] == 3


def test_a_full_table_that_evicts():
    x = Exchange(seat={"rows": 3, "evict": True})
    listener = x.listen()
    x.in_state(State.TIME_WAIT)
    first = x.handle
    flood(x, 1)
    flood(x, 1, first=11000)
    assert first not in x.seat and listener in x.seat  # TIME_WAIT goes first, a listener never
    flood(x, 5, first=12000)
    assert (len(x.seat), x.seat.counts()["evicted"]) == (3, 6)
    assert x.seat.listener(listener)["half_open"] == 2


def test_a_full_output_queue_is_loss_and_nothing_worse():
    x = Exchange(seat={"output_limit": 2}).established()
    answer, told = x.seat.send(x.handle, 5000, x.now)
    assert answer == 0
    assert x.seat.counts()["output_full"] == 8 and x.seat.counts()["output"] == 2
    x._after(told)
    drain(x)
    assert x.nxt() == 5001  # as if sent and lost
    assert [text for _, text in x.wait(0.22)] == ["A 1 ack 1 len 536"]


def test_output_keeps_its_order_over_many_chunks():
    x = Exchange(rcv_wnd=65535).established(options="mss 48 ws 7", window=65535)
    x.seat.send(x.handle, 48 * 2000, x.now)
    records, seqs = [], []
    while block := x.seat.take(333):
        records += [unpack(block[at : at + 80]) for at in range(0, len(block), 80)]
    seqs = [(one["seq"] - x.ours) % 2**32 for one in records]
    assert len(seqs) >= 1300 and seqs == [1 + 48 * i for i in range(len(seqs))]
    assert x.seat.counts()["output"] == 0


# ---- what must not be guessed ----------------------------------------------------------------------------------------


def test_siphash_is_siphash():
    """The test value of the paper's appendix A needs 15 bytes; of whole words, the reference implementation's vectors
    for messages of 0, 8 and 16 bytes 00 01 02 ..., under the key 00 01 ... 0f."""
    key = [int.from_bytes(bytes(range(at, at + 8)), "little") for at in (0, 8)]
    word = [int.from_bytes(bytes(range(at, at + 8)), "little") for at in (0, 8)]
    vectors = [0x726FDB47DD0E0E31, 0x93F5F5799A932462, 0x3F2ACC7F57C29BDB]
    assert [siphash_words(*key, word[:n]) for n in range(3)] == vectors


def test_initial_sequence_numbers_depend_on_tuple_secret_and_clock():
    def isn(seed=1, lport=1000, now=0):
        x = Exchange(now=SECOND, seat={"seed": seed})
        x.seat.listen(LOCAL, 1, 1, SECOND)  # the clock of the table begins here
        x.seat.advance(SECOND + now)
        return x.seat.isn(LOCAL, lport, REMOTE, 80)

    assert isn() == isn()
    assert len({isn(), isn(seed=2), isn(lport=1001)}) == 3
    assert (isn(now=640) - isn()) % 2**32 == 10  # linux: 64 ns
    assert len({isn(lport=port) >> 20 for port in range(1000)}) > 800


def test_records_have_the_size_that_is_promised():
    assert SIZES == {"segment": 80, "cold": 128, "listener": 40, "outcome": 32}


def test_a_batch_does_what_single_segments_do():
    one, many = Exchange(seat={"rows": 500}), Exchange(seat={"rows": 500})
    segments = []
    for x in (one, many):
        x.listen(1000)
    for i in range(200):
        segments.append(one.segment("S 0 mss 1400", sport=1000 + i))
        segments.append(one.segment("S 0 mss 1400", sport=1000 + i // 2))
        segments.append(one.segment("RA 1 ack 77", sport=1000 + i // 3))
        segments.append(one.segment("R 1", sport=1000 + i // 3))
    singles = [one.seat.receive(segment, one.now) for segment in segments]
    raw = many.seat.batch(b"".join(segments))
    masks = [int.from_bytes(raw[at + 8 : at + 16], "little") for at in range(0, len(raw), 32)]
    assert masks == [told["events"] for told in singles]
    assert one.seat.take() == many.seat.take()
    assert outcome(singles[0]).events == [Event.RCV_SYN]
    assert one.seat.handles() == many.seat.handles()
    many.seat.check()
