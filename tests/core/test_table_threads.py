"""The thread rule: one caller at a time, first come, first served; nothing torn, nobody left waiting."""

import signal
import sys
import threading
import time

import numpy as np
import pytest
from table_traffic import MS, A, B, S, batch_of, clients, closing, observer, opening

from fasttcp import SegmentError, StateError, Verdict


def run_all(*workers, timeout=60):
    """Each in a thread of its own; what one of them raised is raised here."""
    faults = []

    def guarded(work):
        try:
            work()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
    if faults:
        raise faults[0]


def lives(ends):
    return batch_of(*(s for a in ends for s in opening(0, a) + closing(3 * MS, a)))


def test_batches_of_many_threads_are_whole():
    """Each thread opens and closes its own connections; every verdict is as if it were alone,
    only that one thread's clock is behind another's."""
    table = observer(1, max_capacity=4096, trace=1 << 14)
    expected = np.asarray(observer(1, max_capacity=4096).apply(lives(clients(250))))
    parts = [lives(clients(250, f"10.{i}")) for i in range(1, 5)]
    results = [[] for _ in parts]

    def feeder(i):
        return lambda: results[i].append(np.asarray(table.apply(parts[i])))

    run_all(*(feeder(i) for i in range(4)))
    assert len(table) == 1000
    for (result,) in results:
        assert ((result["flags"] & ~Verdict.LATE) == (expected["flags"] & ~Verdict.LATE)).all()
        assert (result[["state_0", "state_1"]] == expected[["state_0", "state_1"]]).all()
        assert len(np.unique(result["row"])) == 250
    table.check_invariants()


def test_every_call_waits_for_its_turn():
    """Two threads send batches, one moves the clock, the others look: nothing that they see is torn."""
    table = observer(64, max_capacity=20_000, trace=4096, keep_ended=True)
    segments = [lives(clients(2000, f"10.{i}")) for i in range(2)]
    stop = threading.Event()

    def feeder(batch):
        def work():
            array = np.array(np.asarray(batch))
            for _ in range(60):
                table.apply(array)
                array["time_ns"] += 30 * S
            stop.set()

        return work

    def clock():
        while not stop.is_set():
            table.advance(table.now_ns + S, budget=100)

    def reader():
        while not stop.is_set():
            for record in np.asarray(table.summaries())[:50]:
                assert record["orig_port"] >= 1024
                assert record["resp_port"] == 80
                assert 0 < record["orig_packets"] < 10_000
            handle = table.find("10.0.0.0", 1024, *B)
            if handle is not None:
                steps = table.explain(handle)
                assert [step.time_ns for step in steps] == sorted(step.time_ns for step in steps)
            for handle in list(table)[:20]:
                assert handle >> 32 & 1
            assert sum(table.counts().values()) % 2 == 0
            for record in table.take_ended()[:20]:
                assert record["resp_port"] == 80

    def checker():
        while not stop.is_set():
            table.check_invariants()
            time.sleep(0.001)

    run_all(*(feeder(batch) for batch in segments), clock, reader, reader, checker)
    table.check_invariants()
    assert table.tallies()["segments"] == 2 * 60 * 12_000


def test_thread_that_sends_batch_after_batch_keeps_nobody_out():
    """200 look-ups beside an endless stream of batches, with the switch interval out of the way."""
    table = observer(20_000)
    batch = lives(clients(3000))
    table.apply(batch)
    took = time.perf_counter()
    table.apply(batch)
    took = time.perf_counter() - took
    stop = threading.Event()
    waits = []

    def feeder():
        while not stop.is_set():
            table.apply(batch)

    def looker():
        for _ in range(200):
            began = time.perf_counter()
            table.find(*A, *B)
            waits.append(time.perf_counter() - began)
        stop.set()

    run_all(feeder, feeder, looker)
    # Two batches at the most are before it: the one that runs and the one that waits already.
    assert sorted(waits)[len(waits) // 2] < 20 * took + 0.05


def test_fault_in_a_call_leaves_the_table_free():
    table = observer(2, trace=8)
    batch = lives(clients(1))

    class Bad:
        def __index__(self):
            raise ZeroDivisionError

    def fault(error, call, *arguments):
        with pytest.raises(error):
            call(*arguments)
        done = []
        run_all(lambda: done.append(len(table.apply(batch))))
        assert done == [6]

    fault(SegmentError, table.apply, b"x")
    fault(SegmentError, table.receive, batch)
    fault(ZeroDivisionError, table.advance, Bad())
    fault(ZeroDivisionError, table.find, *A, B[0], Bad())
    fault(ZeroDivisionError, table.explain, Bad())
    fault(StateError, table.take_ended)


def test_thread_that_ends_leaves_the_table_free():
    """Made and used in a thread that is gone: the table belongs to no thread."""
    made = []

    def maker():
        table = observer(64)
        table.apply(lives(clients(10)))
        made.append(table)

    run_all(maker)
    (table,) = made
    assert len(table) == 10
    assert table.advance(1000 * S) is True
    table.check_invariants()


def test_table_is_kept_alive_by_the_batch_that_runs_in_it():
    tables = [observer(300_000)]
    batch = lives(clients(20_000))
    run_all(lambda: tables[0].apply(batch), tables.clear)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGALRM")
def test_signal_handler_may_use_the_table_between_calls():
    table = observer(20_000)
    batch = lives(clients(3000))
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(len(table.summaries())))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        deadline = time.perf_counter() + 5
        while len(seen) < 20 and time.perf_counter() < deadline:
            table.apply(batch)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 20
    assert set(seen) <= {0, 3000}
