"""The table as its users meet it: batches, time, single calls, several mixes and sizes."""

from __future__ import annotations

import time

import pytest
from fasttcp.core._timing import Empty

from fasttcp import ConnectionTable, ShardedTable
from fasttcp.load.churn import SEGMENT_BYTES, ChurnStream

BATCHES = (1, 64, 1_024, 4_096, 65_536)


def observer(rows):
    return ConnectionTable(rows, seat="observer", seed=1)


@pytest.mark.benchmark(group="churn")
@pytest.mark.parametrize("mix", ["ipv4", "ipv6", "both", "heavy", "flood", "reset", "reuse", "all"])
def test_churn_of_a_mix(measure, churned, connections, mix):
    churn = churned(observer, connections, mix)
    table, n = churn.table, len(churn.piece) // SEGMENT_BYTES

    def apply(segments):
        view = memoryview(segments)
        for at in range(0, len(view), 4_096 * SEGMENT_BYTES):
            table.apply(view[at : at + 4_096 * SEGMENT_BYTES])

    measure(apply, n, setup=lambda: ((churn.next(),), {}))
    table.check_invariants()


@pytest.mark.benchmark(group="churn by size")
@pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
def test_churn_of_a_size(measure, churned, connections, share):
    churn = churned(observer, max(1_000, int(connections * share)))
    measure(churn.table.apply, len(churn.piece) // SEGMENT_BYTES, setup=lambda: ((churn.next(),), {}))


@pytest.mark.benchmark(group="churn by threads")
@pytest.mark.parametrize("shards", [1, 2])
def test_churn_in_shards(measure, churned, connections, shards):
    churn = churned(lambda rows: ShardedTable(rows, shards=shards, seed=1), connections)
    measure(churn.table.apply, len(churn.piece) // SEGMENT_BYTES, setup=lambda: ((churn.next(),), {}))


@pytest.mark.benchmark(group="apply by batch")
@pytest.mark.parametrize("batch", BATCHES)
def test_apply_in_batches_of(measure, churned, batch):
    """100,000 connections, so that what differs is the call and not the memory."""
    churn = churned(observer, 100_000, batch=65_536)
    apply = churn.table.apply

    def cut(segments):
        view = memoryview(segments)
        pieces = [view[at : at + batch * SEGMENT_BYTES] for at in range(0, len(view), batch * SEGMENT_BYTES)]
        return (pieces,), {}

    def run(pieces):
        for piece in pieces:
            apply(piece)

    measure(run, 65_536, setup=lambda: cut(churn.next()))


@pytest.mark.benchmark(group="advance")
def test_advance_one_tick(measure, churned, connections):
    """Time passes and nothing else does: what is due in some 10 ms of a table in steady state, in the table's own order."""
    churn = churned(observer, connections)
    table = churn.table
    start = table.now_ns

    def setup():
        nonlocal start
        start += 10_000_000
        return (start,), {}

    measure(table.advance, 1, setup=setup, rounds=200)


@pytest.mark.benchmark(group="advance")
def test_advance_when_everything_falls_due_at_once(measure, connections):
    """All connections in one tick, in calls of 4,096 timers each: the worst call, against the median."""
    worst = []

    def setup():
        table = observer(connections + 1024)
        stream = ChurnStream(max(64, connections), seed=1)
        view = memoryview(bytearray(65_536 * SEGMENT_BYTES))
        while len(table) < connections * 0.95:
            stream.write_into(view)
            table.apply(view)
        return (table, len(table)), {}

    def run(table, live):
        times = []
        begin = time.thread_time_ns()
        now = table.now_ns + 432_000 * 10**9 + 10**9
        while not table.advance(now, 4_096):
            times.append(time.thread_time_ns() - begin)
            begin = time.thread_time_ns()
        assert len(table) == 0 and live > 0
        worst.append(max(times) / sorted(times)[len(times) // 2])

    measure(run, connections, setup=setup, rounds=3)
    assert min(worst) < 10


@pytest.mark.benchmark(group="single calls")
def test_receive_one_at_a_time(measure, churned, connections):
    churn = churned(observer, connections, batch=65_536)
    receive = churn.table.receive

    def cut(segments):
        view = memoryview(bytes(segments))
        return ([view[at : at + SEGMENT_BYTES] for at in range(0, len(view), SEGMENT_BYTES)],), {}

    def run(pieces):
        for piece in pieces:
            receive(piece)

    measure(run, 65_536, setup=lambda: cut(churn.next()))


@pytest.mark.benchmark(group="single calls")
@pytest.mark.parametrize("what", ["receive", "an empty method"])
def test_receive_in_the_cache(measure, what):
    """One connection, always the same segment (the last ACK of an open connection)."""
    table = observer(64)
    segments = memoryview(ChurnStream(64, seed=1).take(400))
    table.apply(segments)
    last = bytes(segments[:SEGMENT_BYTES])
    call = table.receive if what == "receive" else Empty().receive

    def run():
        for _ in range(100_000):
            call(last)

    measure(run, 100_000)
