"""Columns over live memory, growing without moving, and giving everything back."""

import gc
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from table_traffic import ISN_A, ISN_B, MS, B, S, batch_of, clients, closing, feed, observer, opening, send

from fasttcp import State


def test_every_column_is_a_strided_view_of_the_rows():
    table = observer(8)
    a, b = ("10.0.0.9", 50000), ("10.0.0.1", 80)  # the responder is side 0
    feed(table, *opening(5 * S, a, b), send(6 * S, b, a, "ACK", ISN_B + 1, ISN_A + 1, payload=7, window=99))
    seen = {}
    for name in table.columns:
        view = np.asarray(table.column(name))
        assert (view.shape, view.flags.writeable, view.strides[0] % 8) == ((8,), False, 0), name
        seen[name] = int(view[0])
        if name != "deadline":
            assert not view[1:].any(), name
    assert seen.pop("deadline") > 0
    assert seen == {
        "state_0": State.ESTABLISHED, "state_1": State.ESTABLISHED, "addr_0": 0x0A000001, "addr_1": 0x0A000009,
        "port_0": 80, "port_1": 50000, "flags": 0x0002 | 0x0008 | 0x0010 | 15 << 8 | 15 << 12, "last_ns": 6 * S,
        "snd_nxt_0": ISN_B + 8, "snd_nxt_1": ISN_A + 1 & 0xFFFFFFFF, "rcv_nxt_0": ISN_A + 1 & 0xFFFFFFFF,
        "rcv_nxt_1": ISN_B + 1,
        "window_0": 99, "window_1": 0xFFFF, "packets_low_0": 2, "packets_low_1": 2, "bytes_low_0": 7, "bytes_low_1": 0,
        "isn_0": ISN_B, "isn_1": ISN_A, "retransmitted_0": 0, "retransmitted_1": 0, "packets_high_0": 0,
        "packets_high_1": 0,
        "bytes_high_0": 0, "bytes_high_1": 0, "generation": 1, "first_ns": 5 * S,
    }  # fmt: skip


def test_columns_are_windows_on_live_memory_without_a_copy():
    table = observer(4)
    states = np.asarray(table.column("state_0"))
    feed(table, *opening())
    assert State(int(states[0])) is State.ESTABLISHED
    assert np.shares_memory(states, np.asarray(table.column("state_0")))
    assert np.asarray(table.column("state_1")).ctypes.data - states.ctypes.data == 1
    assert states.strides == (64,)


def test_columns_are_read_only():
    view = observer(4).column("port_0")
    assert view.readonly
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        np.asarray(view).flags.writeable = True


def test_column_that_is_not_there_is_named_with_those_that_are():
    table = observer(4)
    for name in ("state", "", None, 3, ["flags"]):
        with pytest.raises(KeyError) as error:
            table.column(name)
        assert f"no column {name!r}; there are state_0, state_1, addr_0" in error.value.args[0]
        assert error.value.__suppress_context__


def test_column_outlives_its_table():
    view = np.asarray(observer(4).column("last_ns"))
    table = observer(4)
    feed(table, *opening())
    kept = np.asarray(table.column("state_0"))
    del table
    assert not view.any()
    assert kept.tolist() == [State.ESTABLISHED, 0, 0, 0]


def test_memory_never_moves_under_a_held_view():
    table = observer(1, max_capacity=50_000)
    first = {name: np.asarray(table.column(name)) for name in table.columns}
    for at in range(0, 50_000, 1000):
        feed(table, *(opening(0, (f"10.{at // 1000}.0.1", 1 + i))[0] for i in range(1000)))
        if at % 10_000 == 0:
            table.check_invariants()
    assert (len(table), table.capacity) == (50_000, 50_000)
    for name, view in first.items():
        now = np.asarray(table.column(name))
        assert view.shape == (1,)
        assert now.shape == (50_000,)
        assert now.ctypes.data == view.ctypes.data, name
        assert now[0] == view[0]
    assert np.asarray(table.column("generation")).all()
    for view in first.values():
        view.sum()
    table.check_invariants()


def test_growing_is_done_in_small_steps():
    """From 1 row to 300,000 in batches of 1,000: no batch doubles the index or copies the rows, as a larger piece of memory
    would show: at the end they have 30 MB."""
    batch = np.asarray(batch_of(*(opening(0, ("10.0.0.1", 1 + i))[0] for i in range(1000))))
    table = observer(1, max_capacity=300_000)
    first_row = np.asarray(table.column("state_0")).ctypes.data
    steps = []
    for at in range(300):
        batch["src"][:, 13] = at >> 8
        batch["src"][:, 14] = at & 255
        before = table.nbytes
        table.apply(batch)
        steps.append(table.nbytes - before)
    assert len(table) == 300_000
    assert table.nbytes > 30_000_000
    assert max(steps) < 1 << 18
    assert np.asarray(table.column("state_0")).ctypes.data == first_row


def test_nbytes_is_what_a_row_costs():
    full = observer(100_000)
    assert 64 + 40 + 8 < full.nbytes / 100_000 < 128
    small = observer(16, max_capacity=1 << 24)
    assert small.nbytes < 1 << 20, "room to grow costs addresses, not memory"
    grown = small.nbytes
    feed(small, *(opening(0, a)[0] for a in clients(1000)))
    assert grown < small.nbytes < grown + (4 << 20)


def test_copying_a_column_while_the_table_grows():
    table = observer(1, max_capacity=20_000)
    for at in range(20):
        feed(table, *(opening(0, (f"10.{at}.0.1", 1 + i))[0] for i in range(1000)))
        copies = [np.array(table.column(f"state_{side}")) for side in range(2)]
        assert sum((copy == State.SYN_SENT).sum() for copy in copies) == (at + 1) * 1000
        assert bytes(table.column("port_1"))[:4] == np.asarray(table.column("port_1"))[:2].tobytes()


LEAKS = """
import gc, resource, sys
sys.path[:0] = sys.argv[1:]
import numpy as np
from table_traffic import MS, S, batch_of, clients, closing, observer, opening
segments = batch_of(*(s for a in clients(200) for s in opening(0, a) + closing(3 * MS, a)))

def life():
    table = observer(100, max_capacity=1000, keep_ended=True, trace=1000, on_full="evict")
    table.apply(segments)
    views = [np.asarray(table.column(name)) for name in table.columns]
    table.summaries()[0], table.explain(table.handle(0)), list(table), table.counts(), table.tallies()
    for bad in (lambda: table.state(1), lambda: table.apply(b"x"), lambda: table.column("x"), lambda: table.find(1, 2)):
        try:
            bad()
        except Exception:
            pass
    table.advance(10**6 * S)
    table.take_ended()
    table.check_invariants()

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

for _ in range(50):
    life()
before = resident()
for _ in range(300):
    life()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_tables_give_everything_back():
    """300 tables of some 200 KB each, with views, records, steps and errors: less than 1 % of that stays."""
    here = __file__.rpartition("/")[0]
    child = subprocess.run([sys.executable, "-c", LEAKS, here], capture_output=True, text=True, check=True, timeout=120)
    assert int(child.stdout) < 600_000


def test_python_objects_are_given_back():
    """What RSS cannot see: a reference kept by each call."""
    table = observer(64, trace=64, keep_ended=True)

    def work():
        for a in clients(10):
            feed(table, *opening(0, a), *closing(3 * MS, a))
        for handle in table:
            table.state(handle), table.summary(handle), table.explain(handle), table.find(*a, *B)
        table.take_ended(), table.summaries(), table.counts(), table.tallies(), table.column("flags")

    for _ in range(5):
        work()
    tracemalloc.start()
    try:
        work()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(50):
            work()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5000
