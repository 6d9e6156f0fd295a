"""Two tables on a simulated link that loses, repeats and reorders: every connection comes to an end that both agree
on."""

import random

import pytest

from fasttcp import ConnectionTable, Event, OutcomeFlag, State, profile
from fasttcp.endpoint.link import Link

SECOND = 1_000_000_000
MS = 1_000_000
A, B = "10.0.0.1", "192.0.2.7"
A6, B6 = "2001:db8::1", "2001:db8::2"


def ordinary(end):
    """Closed on both sides. A duplicate that comes after the end can draw a RST, which ends TIME_WAIT early (RFC
    1337)."""
    event = Event(end["ended_by"])
    assassinated = event == Event.RCV_RST and end["orig_state"] == State.TIME_WAIT
    return assassinated or event in (Event.RCV_ACK_OF_FIN, Event.TIMEOUT_2MSL)


def link_of(*tables, **options):
    return Link(*tables, **{"uniform": random.Random(1).random, **options})


def pair(seed=1, first="linux", second="linux", **options):
    return tuple(
        ConnectionTable(16, profile=name, seed=seed + i, keep_ended=True, **options)
        for i, name in enumerate((first, second))
    )


def flags(batches):
    names = {0x02: "S", 0x12: "SA", 0x10: "A", 0x18: "A", 0x11: "FA", 0x19: "FA", 0x04: "R", 0x14: "RA"}
    return [(segment.src, names[segment.flags]) for batch in batches for segment in batch]


def test_a_connection_from_open_to_nothing():
    a, b = pair()
    link = link_of(a, b, delay_ns=(10 * MS, 10 * MS), tap=0.0)
    b.listen(B, 80, 0)
    handle = a.open(A, 0, B, 80, 0)
    first = link.settle(25 * MS)
    assert flags(first) == [(A, "S"), (B, "SA"), (A, "A")]
    assert [segment.time_ns for batch in first for segment in batch] == [0, 20 * MS, 20 * MS]
    assert (a.state(handle), a.counts()[State.ESTABLISHED], b.counts()[State.SYN_RCVD]) == (State.ESTABLISHED, 1, 1)
    link.settle(30 * MS)
    assert b.counts()[State.ESTABLISHED] == 1
    a.send(handle, 3000, link.now_ns)
    a.close(handle, link.now_ns)
    (other,) = [each for each in b if b.state(each) != State.LISTEN]
    link.at(100 * MS, lambda now: b.close(other, now))
    rest = link.settle()
    assert [name for source, name in flags(rest) if source == A] == ["A", "A", "A", "FA", "A"]
    assert link.now_ns == pytest.approx(60 * SECOND, abs=SECOND)
    assert (len(a), len(b), link.lost) == (0, 1, 0)
    told, heard = a.take_ended()[0], b.take_ended()[0]
    assert (Event(told["ended_by"]), Event(heard["ended_by"])) == (Event.TIMEOUT_2MSL, Event.RCV_ACK_OF_FIN)
    assert (told["orig_bytes"], heard["resp_bytes"]) == (3000, 3000)
    assert (told["orig_addr"], told["resp_port"], heard["orig_port"]) == (A, 80, 80)


def test_a_table_that_talks_to_itself():
    table = ConnectionTable(16, seed=3)
    link = link_of(table)
    table.listen("127.0.0.1", 80, 0)
    handle = table.open("127.0.0.1", 0, "127.0.0.1", 80, 0)
    link.settle(SECOND)
    assert table.counts()[State.ESTABLISHED] == 2
    table.close(handle, link.now_ns)
    link.settle(2 * SECOND)
    assert (table.counts()[State.FIN_WAIT_2], table.counts()[State.CLOSE_WAIT]) == (1, 1)


def test_connecting_to_oneself_over_a_link():
    table = ConnectionTable(16, seed=3)
    link = link_of(table)
    handle = table.open("127.0.0.1", 4000, "127.0.0.1", 4000, 0)
    link.settle(SECOND)
    assert table.state(handle) == State.ESTABLISHED
    table.close(handle, link.now_ns)
    link.settle(2 * SECOND)
    assert table.state(handle) == State.TIME_WAIT  # its FIN crosses itself


def test_simultaneous_open_and_close():
    a, b = pair()
    link = link_of(a, b)
    one, two = a.open(A, 4000, B, 5000, 0), b.open(B, 5000, A, 4000, 0)
    assert sorted(flags(link.settle(SECOND))) == [(A, "S"), (A, "SA"), (B, "S"), (B, "SA")]
    assert (a.state(one), b.state(two)) == (State.ESTABLISHED, State.ESTABLISHED)
    link.at(link.now_ns, lambda now: (a.close(one, now), b.close(two, now)))
    link.settle(2 * SECOND)
    assert (a.state(one), b.state(two)) == (State.TIME_WAIT, State.TIME_WAIT)


@pytest.mark.parametrize(("tap", "seen"), [(0.0, 6), (1.0, 0)])
def test_where_the_tap_is(tap, seen):
    a, b = pair(first=profile("linux").replace(tcp_syn_retries=5, tcp_syn_linear_timeouts=0))
    link = link_of(a, b, loss=1.0, tap=tap)
    a.open(A, 0, B, 80, 0)
    assert len(flags(link.settle())) == seen
    assert (link.lost, len(a)) == (6, 0)
    assert Event(a.take_ended()[0]["ended_by"]) == Event.GIVE_UP


def test_batches_are_in_the_order_of_the_wire():
    a, b = pair()
    link = link_of(a, b, delay_ns=(0, 50 * MS), duplicate=0.3, batch=7)
    b.listen(B, 80, 0)
    handle = a.open(A, 0, B, 80, 0)
    link.at(SECOND, lambda now: a.send(handle, 30000, now))
    batches = link.settle(5 * SECOND)
    times = [segment.time_ns for batch in batches for segment in batch]
    assert times == sorted(times) and len(times) > 30
    assert {len(batch) for batch in batches[:-1]} == {7}


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": 1.5},
        {"duplicate": -0.1},
        {"tap": 2},
        {"delay_ns": (5, 1)},
        {"delay_ns": (-1, 1)},
        {"batch": 0},
    ],
)
def test_bad_arguments_say_which(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        link_of(*pair(), **wrong)


def life(seed, *, loss, duplicate, spread_ms, first, second, tap=0.5, sink=None):
    """One connection with random data both ways and random closes. Returns what both tables tell of its end."""
    rng = random.Random(seed)
    a, b = pair(seed, first, second)
    v6 = rng.random() < 0.3
    here, there = (A6, B6) if v6 else (A, B)
    to_send = rng.choice((0, 1, 500, 4000)), rng.choice((0, 1, 700, 9000))
    crossing = rng.random() < 0.15  # both open
    closes_first = rng.choice("ab")
    ends: dict = {}

    def heard(table, outcome, now):
        if outcome.flags & OutcomeFlag.ESTABLISHED:
            which = "a" if table is a else "b"
            ends[which] = outcome.handle
            link.at(now + rng.randrange(100 * MS), lambda now: run(which, "send", now))
            if which == closes_first or crossing:
                link.at(now + rng.randrange(3 * SECOND), lambda now: run(which, "close", now))
        if Event.RCV_FIN in outcome.events and outcome.after != State.CLOSED:
            which = "a" if table is a else "b"
            link.at(now + rng.randrange(2 * SECOND), lambda now: run(which, "close", now))

    def run(which, call, now):
        table, handle = (a if which == "a" else b), ends[which]
        if handle not in table:
            return
        if call == "send" and table.state(handle) in (State.ESTABLISHED, State.CLOSE_WAIT):
            table.send(handle, to_send[which == "b"], now)
        elif call == "close" and table.state(handle) in (State.ESTABLISHED, State.CLOSE_WAIT):
            table.close(handle, now, half=True)

    link = link_of(
        a,
        b,
        uniform=rng.random,
        loss=loss,
        duplicate=duplicate,
        delay_ns=(5 * MS, (5 + spread_ms) * MS),
        tap=tap,
        heard=heard,
    )
    if crossing:
        a.open(here, 4000, there, 5000, 0)
        b.open(there, 5000, here, 4000, 0)
    else:
        b.listen(there, 5000, 0)
        a.open(here, 0, there, 5000, 0)
    for batch in link.run(24 * 3600 * SECOND):
        if sink is not None:
            sink(batch)
    for table in (a, b):
        table.check_invariants()
    return a, b, crossing, to_send


@pytest.mark.parametrize(
    ("loss", "duplicate", "spread_ms", "runs"),
    [
        (0.0, 0.0, 0, 150),
        (0.0, 0.3, 100, 250),
        (0.1, 0.1, 50, 400),
        (0.3, 0.2, 300, 250),
    ],
)
@pytest.mark.parametrize(("first", "second"), [("linux", "linux"), ("rfc9293", "linux"), ("bsd", "rfc9293")])
def test_random_lives_end_and_leave_nothing(loss, duplicate, spread_ms, runs, first, second):
    normal = 0
    for seed in range(runs):
        a, b, crossing, to_send = life(
            seed, loss=loss, duplicate=duplicate, spread_ms=spread_ms, first=first, second=second
        )
        left = len(a) + len(b) - (0 if crossing else 1)
        ends = [*a.take_ended(), *b.take_ended()]
        how = [(State(end["orig_state"]).name, Event(end["ended_by"]).name) for end in ends]
        if loss == 0:
            assert all(map(ordinary, ends)), (seed, how)
        if all(map(ordinary, ends)) and len(ends) == 2:
            normal += 1
            told, seen = ends
            assert told["orig_isn"] == seen["resp_isn"] and told["resp_isn"] == seen["orig_isn"], seed
            assert (told["orig_bytes"], told["resp_bytes"]) == (seen["resp_bytes"], seen["orig_bytes"]), seed
            assert told["orig_bytes"] <= to_send[0] and told["resp_bytes"] <= to_send[1]
        assert left == 0, (seed, how, a.counts(), b.counts())
    assert normal >= runs * (1 if loss == 0 else 0.7 if loss < 0.2 else 0.1)
