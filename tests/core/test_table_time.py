"""The clock that the caller hands in: never early, at most one tick late, never going back, budgets that end."""

from itertools import pairwise

import numpy as np
import pytest
from table_traffic import ISN_A, ISN_B, MS, TICK, A, B, S, batch_of, clients, closing, feed, observer, opening, send

from fasttcp import LINUX, StaleHandle, State, StateError, Verdict
from fasttcp.core.silence import silence_ns

LAST = 2**63 - 1


@pytest.mark.parametrize("epoch", [0, 1_700_000_000 * S + 7, -(10**18) - 3, LAST - 10**15])
@pytest.mark.parametrize("tick_ns", [TICK, 7, S])
def test_timeout_is_never_early_and_at_most_one_tick_late(epoch, tick_ns):
    """The time-out itself is rounded up to whole ticks (of 7 ns: by up to 6 ns)."""
    # The wheel reaches 2^30 ticks: with 7 ns no time-out may be longer than 7 s.
    profile = LINUX.replace(msl="1s", **dict.fromkeys(NF_TIMES, "5s")) if tick_ns == 7 else LINUX
    table = observer(profile=profile, tick_ns=tick_ns)
    feed(table, *opening(epoch), *closing(epoch + 3 * MS))
    wait = -(-profile.time_wait_ns // tick_ns) * tick_ns
    due = epoch + 4 * MS + wait  # the second FIN ends the life of the first host's half
    table.advance(due - 1)
    assert len(table) == 1
    table.advance(due + tick_ns)
    assert len(table) == 0


NF_TIMES = [
    f"nf_conntrack_tcp_timeout_{name}"
    for name in ("syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "close")
]


def test_every_pair_of_states_has_its_silence():
    """The states that the exchange passes through, each left alone until it times out."""
    silence = silence_ns(LINUX)
    segments = opening() + closing()
    for length in range(1, 7):
        table = observer()
        last = feed(table, *segments[:length])[-1]
        wait = silence[last["state_0"] * 16 + last["state_1"]]
        began = segments[length - 1]["time_ns"]
        table.advance(began + wait - 1)
        assert len(table) == 1, length
        table.advance(began + wait + TICK)
        assert len(table) == 0, length


def test_traffic_puts_the_timeout_off():
    table = observer()
    feed(table, *opening())
    for day in range(1, 20):
        feed(table, send(day * 86400 * S, A, B, "ACK", ISN_A + 1, ISN_B + 1, payload=1))
        assert len(table) == 1
    table.advance(24 * 86400 * S - TICK)
    assert len(table) == 1
    table.advance(24 * 86400 * S + TICK)
    assert len(table) == 0


def test_time_never_goes_back():
    table = observer()
    feed(table, *opening(100 * S))
    assert table.advance(50 * S) is True
    assert table.now_ns == 100 * S + 2 * MS
    (verdict,) = feed(table, send(10 * S, A, B, "ACK", ISN_A + 1, ISN_B + 1))
    assert verdict["flags"] & Verdict.LATE
    assert table.now_ns == 100 * S + 2 * MS
    assert table.summaries()[0]["last_ns"] == 100 * S + 2 * MS
    assert table.tallies()["late"] == 1
    table.check_invariants()


@pytest.mark.parametrize(
    ("now", "error"), [("now", TypeError), (1.5, TypeError), (None, TypeError), (2**63, ValueError)]
)
def test_bad_time_is_named(now, error):
    table = observer()
    with pytest.raises(error, match="now_ns is"):
        table.advance(now)
    assert table.now_ns == 0


@pytest.mark.parametrize("budget", [0, -1, 1.5, "all"])
def test_bad_budget_is_named(budget):
    with pytest.raises((TypeError, ValueError), match="budget is"):
        observer().advance(0, budget)


def with_backlog(n=1000, **more):
    """n half-open connections whose time is up, and an advance that has come round to none of them but a few."""
    table = observer(2 * n, **more)
    ends = clients(n)
    feed(table, *(opening(i * MS, a)[0] for i, a in enumerate(ends)))
    assert table.advance(1000 * S, budget=10) is False
    assert n - 10 <= len(table) < n
    return table, ends


def test_budget_bounds_one_call_and_the_rest_follows():
    table, _ = with_backlog()
    sizes = [len(table)]
    while not table.advance(1000 * S, budget=100):
        sizes.append(len(table))
        table.check_invariants()
    assert len(table) == 0
    assert all(before - after == 100 for before, after in pairwise(sizes))
    assert 9 <= len(sizes) <= 11


def test_connection_that_waits_for_the_wheel_behaves_as_expired():
    table, ends = with_backlog(trace=8, keep_ended=True)
    generation = np.asarray(table.column("generation"))
    living = np.flatnonzero(generation % 2)
    handles = [int(generation[row]) << 32 | int(row) for row in living]
    size = len(table)
    for call in (table.state, table.summary):
        with pytest.raises(StaleHandle):
            call(handles.pop())
    with pytest.raises(StaleHandle):
        table.handle(handles.pop() & 0xFFFFFFFF)
    assert handles.pop() not in table
    assert len(table) == size - 4, "asked for, it is gone at once"
    rows = dict(zip(ends, range(1000), strict=True))
    a = next(a for a in ends if generation[rows[a]] % 2)
    assert table.find(*a, *B) is None
    assert len(table.summaries()) == 0
    assert list(table) == []
    table.check_invariants()
    ended = table.take_ended()
    assert all(120 * S <= record["ended_ns"] <= 121 * S + 2 * TICK for record in ended)


def test_segment_for_a_connection_that_waits_for_the_wheel_begins_another():
    table = observer(20_000)
    ends = clients(10_000)
    feed(table, *(opening(0, a)[0] for a in ends))
    table.advance(1000 * S, budget=1)
    assert len(table) > 9_000
    # The first of these segments looks at no more timers than its call may; its own connection may be behind them.
    verdicts = feed(table, *(opening(1000 * S, a)[0] for a in reversed(ends)))
    assert {v["flags"] for v in verdicts} == {Verdict.NEW | Verdict.CHANGED}
    assert table.advance(1000 * S) is True
    assert len(table) == 10_000
    assert (table.tallies()["connections"], table.tallies()["ended"]) == (20_000, 10_000)
    table.check_invariants()


def test_a_burst_of_timers_makes_no_call_long():
    """20,000 time-outs in one tick: a call fires 256 and four for each of its segments; the rest waits, unseen."""
    n = 20_000
    ends = [(f"10.0.{i >> 8}.{i & 255}", 1000) for i in range(n)]
    table = observer(n + 1000, keep_ended=True)
    feed(table, *(opening(0, a)[0] for a in ends))
    others = [("10.9.0.1", port) for port in range(1, 1000)]
    sizes = []
    for at, many in ((0, 100), (100, 1), (101, 500)):
        before = len(table)
        feed(table, *(opening(121 * S, a)[0] for a in others[at:at + many]))
        sizes.append(before + many - len(table))
    assert sizes == [256 + 4 * 100, 256 + 4, 256 + 4 * 500]
    before = len(table)
    table.receive(batch_of(opening(121 * S, others[601])[0]))
    assert before + 1 - len(table) == 256
    table.check_invariants()
    assert [a for a in ends[::200] if table.find(*a, *B) is not None] == []
    for _ in range(-(-(len(table) - 602) // (256 + 4))):
        assert len(table) > 602
        feed(table, opening(121 * S, others[601])[0])
    assert len(table) == 602
    assert {record["ended_ns"] for record in table.take_ended()} == {120 * S}
    table.check_invariants()


@pytest.mark.parametrize("jump", [400 * S, 86400 * S, 10**7 * S, 10**9 * S])
def test_jump_of_any_size_fires_everything_once(jump):
    table = observer(4096, keep_ended=True)
    feed(table, *(s for a in clients(500) for s in opening(0, a) + closing(3 * MS, a)))
    feed(table, *(s for a in clients(500, "10.2") for s in opening(0, a)))
    table.advance(jump)
    left = 0 if jump > 432000 * S else 500
    assert len(table) == left
    assert len(table.take_ended()) == 1000 - left
    assert all(count == 0 for state, count in table.counts().items() if state is not State.ESTABLISHED)
    table.check_invariants()
    feed(table, *(opening(jump + S, a)[0] for a in clients(100, "10.3")))
    table.advance(jump + 200 * S)
    assert len(table) == left
    table.check_invariants()


def test_far_timers_cost_no_more_than_near_ones():
    """Five days of ESTABLISHED in steps of a minute: each connection is visited once in 327 s at the most."""
    table = observer(1024)
    feed(table, *(s for a in clients(500) for s in opening(0, a)))
    for minute in range(0, 432_000, 60):
        assert table.advance(minute * S, budget=2 * 500) is True
    assert len(table) == 500
    table.advance(432_001 * S)
    assert len(table) == 0


def test_two_segments_at_one_time_and_the_end_of_time():
    table = observer()
    feed(table, *opening(LAST - 3 * MS))
    table.advance(LAST)
    table.advance(LAST)
    feed(table, send(LAST, A, B, "ACK", ISN_A + 1, ISN_B + 1))
    table.check_invariants()
    assert table.now_ns == LAST
    with pytest.raises(StateError):
        table.explain(0)
    assert table.receive(batch_of(send(-LAST, A, B, "ACK", ISN_A + 1, ISN_B + 1)))[1] & Verdict.LATE
