"""ShardedTable: whatever it is asked, it answers what one table answers."""

import gc
import os
import signal
import sys
import threading

import numpy as np
import pytest
from table_traffic import TICK, A, B, S, batch_of, clients, closing, opening

from fasttcp import ConnectionTable, SegmentError, ShardedTable, StaleHandle, State, StateError
from fasttcp.core.segments import INFO_BAD_HEADER, SegmentBatch
from fasttcp.load.churn import ChurnStream

NO_ROW = 0xFFFFFFFF


def churned(table, mix="all", n=30_000, batch=5_000, connections=2000):
    stream = ChurnStream(connections, mix=mix, seed=11)
    verdicts = [np.array(table.apply(stream.take(batch))) for _ in range(n // batch)]
    table.advance(stream.now_ns)
    return np.concatenate(verdicts)


def facts(summaries):
    """Everything but handles, in an order of its own: what must be equal, and when the connections ended.

    An end by timer is on a tick, and each shard counts its ticks from the first segment that it saw.
    """
    records = np.array(summaries)
    records["handle"] = 0
    ends = records["ended_ns"].copy()
    records["ended_ns"] = 0
    order = sorted(range(len(records)), key=lambda i: (records[i].tobytes(), ends[i]))
    return [records[i].tobytes() for i in order], ends[order]


@pytest.mark.parametrize("shards", [1, 2, 3, 8, 64])
def test_one_table_and_its_shards_agree(shards):
    one = ConnectionTable(5000, seat="observer", seed=1, keep_ended=True)
    many = ShardedTable(5000, shards=shards, seed=1, keep_ended=True)
    expected, got = churned(one), churned(many)
    for field in ("flags", "state_0", "state_1"):
        assert (expected[field] == got[field]).all()
    assert ((expected["row"] == NO_ROW) == (got["row"] == NO_ROW)).all()
    assert len(one) == len(many) and one.counts() == many.counts()
    assert one.tallies() == many.tallies()
    for summaries in ("summaries", "take_ended"):
        records, ends = facts(getattr(one, summaries)())
        others, their_ends = facts(getattr(many, summaries)())
        assert records == others
        assert abs(ends - their_ends).max() <= TICK
    many.check_invariants()
    assert all(len(table) for table in many.tables)


def test_shards_share_evenly():
    table = ShardedTable(8000, shards=4, seed=2)
    churned(table, "both", 40_000, connections=4000)
    sizes = [len(shard) for shard in table.tables]
    assert max(sizes) - min(sizes) < 6 * (sum(sizes) / 4) ** 0.5


def test_both_directions_are_one_shard_and_the_seed_decides_which():
    ends = [(client, B) for client in clients(64)]
    shards = []
    for seed in range(6):
        table = ShardedTable(64, shards=8, seed=seed)
        shards.append([table.shard_of(*a, *b) for a, b in ends])
        assert shards[-1] == [table.shard_of(*b, *a) for a, b in ends]
        assert len(set(shards[-1])) > 4
    assert len({tuple(one) for one in shards}) == 6
    assert table.shard_of("2001:db8::1", 1, "2001:db8::2", 2) == table.shard_of("2001:db8::2", 2, "2001:db8::1", 1)


def test_rows_and_handles_lead_back():
    table = ShardedTable(300, shards=3, seed=5, trace=1000)
    peers = clients(100)
    verdicts = np.asarray(table.apply(batch_of(*(s for i, peer in enumerate(peers) for s in opening(i * TICK, peer, B)))))
    for peer, row in zip(peers, verdicts["row"][::3], strict=True):
        handle = table.find(*peer, *B)
        assert table.find(*B, *peer) == handle == table.handle(int(row))
        assert handle in table
        assert table.state(handle) == (State.ESTABLISHED, State.ESTABLISHED)
        assert table.summary(handle)["orig_port"] == peer[1] and table.summary(handle)["handle"] == handle
        assert next(step.event.name for step in table.explain(handle)) == "OPEN_ACTIVE"
        for name in ("port_0", "port_1"):
            assert table.column(name)[row % 3][row // 3] in (peer[1], B[1])
    assert sorted(table) == sorted(np.asarray(table.summaries())["handle"].tolist())
    assert len(set(table)) == len(table) == 100


def test_a_handle_of_an_ended_connection_is_stale():
    table = ShardedTable(8, shards=2, seed=5)
    table.apply(batch_of(*opening()))
    handle = table.find(*A, *B)
    table.apply(batch_of(*closing()))
    assert table.advance(100 * S)
    assert handle not in table and len(table) == 0
    with pytest.raises(StaleHandle):
        table.state(handle)
    with pytest.raises(StaleHandle, match="holds no connection"):
        table.handle(handle & 0xFFFFFFFF)
    assert "x" not in table and -1 not in table
    with pytest.raises(TypeError, match="must be an int"):
        table.state("x")


def test_single_segments():
    table = ShardedTable(8, shards=2, seed=5)
    for segment in opening():
        handle, _ = table.receive(memoryview(batch_of(segment)))
    assert handle == table.find(*A, *B)
    assert table.state(handle) == (State.ESTABLISHED, State.ESTABLISHED)
    assert table.receive(batch_of(closing()[0])[0])[0] == handle
    with pytest.raises(SegmentError, match="one segment"):
        table.receive(memoryview(batch_of(*opening())))


def test_a_segment_of_no_connection_has_no_row():
    table = ShardedTable(8, shards=3, seed=5)
    batch = SegmentBatch(1)
    batch.append(src="10.0.0.1", dst="10.0.0.2", sport=1, dport=2, info=INFO_BAD_HEADER)
    assert np.asarray(table.apply(batch))["row"].tolist() == [NO_ROW]


@pytest.mark.parametrize("shard", [0, 1])
def test_one_shard_that_is_behind_is_told(shard):
    table = ShardedTable(500, shards=2, seed=5)
    peers = [peer for peer in clients(100) if table.shard_of(*peer, *B) == shard]
    table.apply(batch_of(*(opening(0, peer, B)[0] for peer in peers)))
    assert not table.advance(10**6 * S, budget=1)
    assert table.advance(10**6 * S)


def test_a_segment_that_is_refused_is_let_go():
    segment = bytearray(memoryview(batch_of(*opening()[:1])))
    with pytest.raises(StateError, match="not open"):
        ShardedTable.__new__(ShardedTable).receive(segment)
    segment.append(0)  # BufferError as long as it is shown


def test_sizes_add_up():
    table = ShardedTable(1000, shards=4, max_capacity=2000, seed=1)
    assert table.shards == 4 == len(table.tables)
    assert 1000 <= table.capacity <= 1000 + 4 * (6 * 16 + 17)
    assert table.max_capacity >= 2000
    assert table.nbytes == sum(one.nbytes for one in table.tables)
    assert table.columns == table.tables[0].columns
    assert repr(table).startswith("<ShardedTable: 0 of ")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"shards": 0}, ValueError, "shards is 0"),
        ({"shards": 65}, ValueError, "shards is 65"),
        ({"shards": 1.0}, TypeError, "shards is 1.0"),
        ({"shards": 2, "capacity": 0}, ValueError, "capacity is 0"),
        ({"shards": 2, "seat": "endpoint"}, ValueError, "observer seat"),
        ({"shards": 2, "colour": "red"}, TypeError, "colour"),
        ({"shards": 2, "profile": "windows"}, ValueError, "windows"),
    ],
)
def test_argument_out_of_range_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        ShardedTable(**{"capacity": 10, **arguments})


def test_a_buffer_that_holds_no_segments_is_refused_and_changes_nothing():
    table = ShardedTable(10, shards=2)
    with pytest.raises(SegmentError):
        table.apply(bytes(81))
    with pytest.raises(SegmentError):
        table.apply(None)
    assert len(table.apply(b"")) == 0
    assert table.tallies()["segments"] == 0


def test_helpers_go_home_with_their_table():
    def helpers():
        return {thread for thread in threading.enumerate() if thread.name.startswith("fasttcp shard")}

    before = helpers()  # those of other tests may still be on their way
    tables = [ShardedTable(10, shards=3) for _ in range(3)]
    for table in tables:
        table.apply(batch_of(*opening()))
    threads = helpers() - before
    assert len(threads) == 6
    del table
    tables.clear()
    gc.collect()
    for thread in threads:
        thread.join(5)
    assert not threads & helpers()


def test_callers_from_many_threads_take_turns():
    table = ShardedTable(3000, shards=2, seed=3)
    streams = [ChurnStream(100, seed=i) for i in range(4)]

    def work(stream):
        for _ in range(20):
            table.apply(stream.take(500))
            len(table), table.counts()

    threads = [threading.Thread(target=work, args=(stream,)) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table.check_invariants()
    assert table.tallies()["segments"] == 4 * 20 * 500


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_helpers_of_its_own():
    table = ShardedTable(100, shards=2, seed=3)
    table.apply(batch_of(*opening()))
    child = os.fork()
    if child == 0:
        try:
            table.apply(batch_of(*closing()))
            os._exit(0 if table.counts()[State.TIME_WAIT] == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert table.counts()[State.ESTABLISHED] == 2
    sys.stdout.flush()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_hires_again_after_a_helper_did_not_come(monkeypatch):
    """A helper that is missing must be an error once and hired the next time: to wait for it would be forever."""
    table = ShardedTable(100, shards=3, seed=3)
    table.apply(batch_of(*opening()))
    begin = threading.Thread.start
    comes = iter([True, False])

    def start(thread):
        if not next(comes, True):
            raise RuntimeError("can't start new thread")
        begin(thread)

    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            monkeypatch.setattr(threading.Thread, "start", start)
            try:
                table.apply(batch_of(*closing()))
            except RuntimeError:
                table.apply(batch_of(*closing()))
                os._exit(0 if table.counts()[State.TIME_WAIT] == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
