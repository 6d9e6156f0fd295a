"""The store as a whole against plain Python: rows, handles, states, timers, lists; its check sees what is broken."""

import random
import struct

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fasttcp.core import _testing as core

TICK = 10_000_000
CLOSED, LISTEN, SYN_SENT, SYN_RCVD, FIN_WAIT_1, LAST_ACK, TIME_WAIT = 0, 1, 2, 3, 5, 9, 10
TIME_WAITS, HALF_OPEN, CLOSERS = 1, 2, 3


def v4(n):
    return bytes(10) + b"\xff\xff" + n.to_bytes(4, "big")


def name(n):
    if n % 3 == 2:
        return bytes.fromhex("20010db8") + bytes(10) + n.to_bytes(2, "big"), 1000, bytes(15) + b"\x01", 80
    return v4(n), 1000, v4(0xC0A80001), 80


def class_of(a, b):
    """Which list a pair of states belongs to, as the docstring of the store says."""
    if TIME_WAIT in (a, b) or (a, b) == (CLOSED, CLOSED):
        return TIME_WAITS
    if any(FIN_WAIT_1 <= s <= LAST_ACK for s in (a, b)):
        return CLOSERS
    if {a, b} <= {CLOSED, LISTEN, SYN_SENT, SYN_RCVD} and {a, b} & {SYN_SENT, SYN_RCVD}:
        return HALF_OPEN
    return 0


class StoreMachine(RuleBasedStateMachine):
    """Everything at once, with store_check after each step."""

    @initialize(
        size=st.sampled_from([(1, 40), (40, 40), (16, 17), (1, 1)]),
        flags=st.sampled_from([0, core.EVICT, core.EVICT | core.PLAIN_MEMORY, core.LAZY, core.IPV6 | core.SMALL_PAGES]),
        start=st.sampled_from([0, -7, 2**50, -(2**63), 2**63 - 10**14]),
        seat=st.integers(0, 1), horizon=st.sampled_from([None, 50, 6000]),
    )
    def begin(self, size, flags, start, seat, horizon):
        self.store = core.Store(*size, flags=flags, seat=seat, tick_ns=TICK)
        if horizon:
            self.store.set_horizon(horizon * TICK)
        self.max_rows, self.flags, self.now, self.start = size[1], flags, start, None
        self.rows, self.states, self.deadlines, self.handles, self.dead = {}, {}, {}, {}, []
        self.lists = {1: [], 2: [], 3: []}

    def see(self):
        self.start = self.now if self.start is None else self.start

    def relist(self, n, before, after):
        if before != after:
            if before:
                self.lists[before].remove(n)
            if after:
                self.lists[after].append(n)

    @rule(n=st.integers(0, 60))
    def insert(self, n):
        if n in self.rows:
            return
        row = self.store.insert(name(n), self.now)
        self.see()
        if len(self.rows) == self.max_rows:
            assert row == -1
            return
        assert row >= 0 and row not in self.rows.values()
        got = self.store.row(row)
        assert got["state"] == (0, 0) and got["parked"] == 0 and got["aux"] == 0 and got["generation"] % 2 == 1
        assert got["seat"] == bytes(32) and got["rest"] == bytes(24)
        assert got["first_ns"] == got["last_ns"] == self.now
        assert got["flags"] == (n % 3 == 2)
        self.store.scribble(row)
        self.rows[n], self.states[n], self.handles[n] = row, (0, 0), self.store.handle(row)
        assert self.handles[n] & 0xFFFFFFFF == row and self.handles[n] not in self.dead
        self.relist(n, 0, class_of(0, 0))

    @rule(pick=st.integers(0, 10**6))
    def remove(self, pick):
        if not self.rows:
            return
        n = sorted(self.rows)[pick % len(self.rows)]
        self.store.remove(self.rows.pop(n))
        self.relist(n, class_of(*self.states.pop(n)), 0)
        self.deadlines.pop(n, None)
        self.dead.append(self.handles.pop(n))

    @rule(pick=st.integers(0, 10**6), side=st.integers(0, 1), state=st.integers(0, 10))
    def set_state(self, pick, side, state):
        if not self.rows:
            return
        n = sorted(self.rows)[pick % len(self.rows)]
        before = self.states[n]
        self.states[n] = (state, before[1]) if side == 0 else (before[0], state)
        self.store.set_state(self.rows[n], side, state)
        self.relist(n, class_of(*before), class_of(*self.states[n]))

    @rule(pick=st.integers(0, 10**6), wait=st.one_of(st.integers(-5 * TICK, 50 * TICK), st.integers(0, 10**12)))
    def arm(self, pick, wait):
        if not self.rows:
            return
        n = sorted(self.rows)[pick % len(self.rows)]
        self.deadlines[n] = min(self.now + wait, 2**63 - 1) if wait > 0 else self.now
        self.store.arm_ns(self.rows[n], self.deadlines[n])

    @rule(pick=st.integers(0, 10**6))
    def disarm(self, pick):
        if not self.rows:
            return
        n = sorted(self.rows)[pick % len(self.rows)]
        self.store.disarm(self.rows[n])
        self.deadlines.pop(n, None)

    @rule(step=st.one_of(st.integers(0, 3 * TICK), st.integers(0, 10**12)), budget=st.sampled_from([0, 1, 3, 10**9]))
    def advance(self, step, budget):
        self.now = min(self.now + step, 2**63 - 1)
        due, _ = self.store.advance(self.now, budget)
        self.see()
        by_row = {row: n for n, row in self.rows.items()}
        for row in due:
            assert self.deadlines.pop(by_row[row]) <= self.now
        if not self.store.behind():
            assert all(self.now < d + TICK for d in self.deadlines.values())

    @rule()
    def rebuild(self):
        if self.start is None:
            return
        before = self.store.pairs()
        self.store = self.store.rebuilt(flags=self.flags)
        assert self.store.pairs() == before
        order = {n: self.rows[n] for n in self.rows}
        for members in self.lists.values():
            members.sort(key=order.get)

    @invariant()
    def agrees(self):
        if not hasattr(self, "store"):
            return
        self.store.check()
        info = self.store.info
        assert info["used"] == len(self.rows) and info["entries"] == len(self.deadlines)
        assert info["capacity"] <= self.max_rows
        counts = {}
        for pair in self.states.values():
            counts[pair] = counts.get(pair, 0) + 1
        assert self.store.pairs() == counts
        for n, row in self.rows.items():
            assert self.store.find(name(n))[0] == row
            assert self.store.row(row)["state"] == self.states[n]
            assert self.store.row_of(self.handles[n]) == row
            assert self.store.armed(row) == (n in self.deadlines)
        for handle in self.dead:
            assert self.store.row_of(handle) is None
        if self.flags & core.EVICT:
            for i, members in self.lists.items():
                assert self.store.candidate([i]) == (self.rows[members[0]] if members else None)
            first = next((m[0] for _, m in sorted(self.lists.items()) if m), None)
            assert self.store.candidate([1, 2, 3]) == (None if first is None else self.rows[first])


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


# ------------------------------------------------------------------------------------------------------------ opening

@pytest.mark.parametrize(("kwargs", "message"), [
    ({"rows": 0}, "rows must be 1 to max_rows .10., not 0"),
    ({"rows": 11}, "rows must be 1 to max_rows .10., not 11"),
    ({"rows": 1, "max_rows": 0}, "max_rows must be 1 to 2147483648, not 0"),
    ({"rows": 1, "max_rows": 2**31 + 1}, "max_rows must be 1 to 2147483648, not 2147483649"),
    ({"stride": 12}, "cold_stride must be a multiple of 8 from 16 to 4096, not 12"),
    ({"stride": 8}, "cold_stride .* not 8"),
    ({"seat": 2}, "seat must be 0 .endpoint. or 1 .observer., not 2"),
    ({"tick_ns": 0}, "tick_ns must be 1 to 2.40, not 0"),
])
def test_arguments_that_cannot_be_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        core.Store(**{"rows": 1, "max_rows": 10, **kwargs})


def test_a_table_too_large_for_the_machine_says_so():
    with pytest.raises(MemoryError, match="block of"):
        core.Store(1, 2**31, stride=4096, flags=core.PLAIN_MEMORY)


def test_closing_twice_and_never_opening_are_harmless():
    store = core.Store(10)
    store.close()
    store.close()
    with pytest.raises(ValueError, match="rows"):
        core.Store(0)


# ------------------------------------------------------------------------------------------------------- rows, memory

@pytest.mark.parametrize("flags", [0, core.PLAIN_MEMORY, core.SMALL_PAGES, core.LAZY, core.EVICT, core.IPV6])
def test_growth_by_steps_reaches_the_last_row(flags):
    store = core.Store(1, 70_001, flags=flags)
    last = 0
    for n in range(70_001):
        assert store.insert((v4(n), n & 65535, v4(1), 1)) == n
        if store.info["capacity"] != last:
            assert store.info["capacity"] <= max(17, min(2 * last, last + 16384))
            last = store.info["capacity"]
    assert store.insert((v4(1 << 24), 1, v4(1), 1)) == -1
    store.check()
    assert store.info["used"] == store.info["capacity"] == 70_001


def test_settling_changes_nothing_but_pages():
    store = core.Store(16, 200_000, flags=core.EVICT)
    for n in range(120_000):
        row = store.insert((v4(n), n & 65535, v4(1), 1))
        store.arm_after(row, n % 5000)
    before = store.info
    store.settle()
    assert store.info == before
    store.check()
    assert store.insert((v4(1 << 24), 1, v4(1), 1)) == 120_000


def test_rows_given_back_are_used_again_last_first():
    store = core.Store(10)
    rows = [store.insert(name(n)) for n in range(10)]
    for row in (3, 7, 5):
        store.remove(row)
    assert [store.insert(name(n)) for n in (20, 21, 22)] == [5, 7, 3]
    assert store.insert(name(23)) == -1
    assert sorted(rows) == list(range(10))


def test_memory_of_a_full_table():
    """All included: rows, cold records, index and wheel with every row armed; IPv6 32 bytes more."""
    n = 200_000
    four = core.Store(n)
    six = core.Store(n, flags=core.IPV6)
    tail = bytes.fromhex("20010db8000000000000")
    for store, make in ((four, v4), (six, lambda i: tail + i.to_bytes(6, "big"))):
        store.set_horizon(60 * 10**9)
        for i in range(n):
            row = store.insert((make(i), 1, make(n), 2), i * 300_000)
            store.arm_after(row, 6000)
        store.check()
    assert four.info["bytes"] <= 128 * n
    assert six.info["bytes"] <= 160 * n


def test_a_handle_kept_too_long_names_nobody():
    store = core.Store(4)
    seen = set()
    for n in range(100):
        row = store.insert(name(n))
        handle = store.handle(row)
        assert row == 0 and handle not in seen and store.row_of(handle) == 0
        seen.add(handle)
        store.remove(row)
        assert store.row_of(handle) is None
        assert store.row_of(handle + (1 << 32)) is None     # the number the free row has now is no handle either
    for stray in (0, 1, 0xFFFFFFFF, 1 << 32 | 3, 2**64 - 1):
        assert store.row_of(stray) is None


def test_loopback_ends_are_two_rows_for_the_endpoint_and_one_for_the_observer():
    lo = v4(0x7F000001)
    endpoint, observer = core.Store(4, seat=0), core.Store(4, seat=1)
    a = endpoint.insert((lo, 40000, lo, 80))
    b = endpoint.insert((lo, 80, lo, 40000))
    assert a != b and endpoint.find((lo, 40000, lo, 80)) == (a, 0) and endpoint.find((lo, 80, lo, 40000)) == (b, 0)
    row = observer.insert((lo, 40000, lo, 80))
    assert observer.find((lo, 40000, lo, 80)) == (row, 1) and observer.find((lo, 80, lo, 40000)) == (row, 0)


# -------------------------------------------------------------------------------------------------- check and rebuild

@pytest.mark.parametrize(("what", "message"), [
    ("port", "not in the index"),
    ("state", "rows in states|eviction list"),
    ("parked", "wheel: row . is in slot"),
    ("unpark", "wheel: row . is in slot"),
    ("deadline", "parked after its deadline"),
    ("timer_at", "does not know its place"),
    ("generation", "has generation"),
    ("tag", "not in the index|tag"),
    ("entry", "hole|not in the index"),
    ("twice", "twice|not in the index"),
    ("used", "rows in use"),
    ("free", "free rows breaks"),
    ("list", "has lost the one before it"),
])
def test_check_names_what_is_broken(what, message):
    store = core.Store(3, flags=core.EVICT)
    rows = [store.insert(name(n)) for n in (0, 1, 3)]
    for row in rows:
        store.arm_after(row, 500 + row)
        store.set_state(row, 0, SYN_SENT)
    store.check()
    store.spoil(what, rows[2])
    with pytest.raises(AssertionError, match=message):
        store.check()


def test_a_rebuilt_table_behaves_like_the_first():
    rng = random.Random(9)
    store = core.Store(16, 5000, flags=core.EVICT)
    live = {}
    now = 1_700_000_000 * 10**9
    for n in range(4000):
        now += rng.randrange(10**8)
        live[n] = store.insert(name(n), now)
        store.set_state(live[n], 0, rng.randrange(11))
        if rng.random() < 0.8:
            store.arm_ns(live[n], now + rng.randrange(10**12))
        if rng.random() < 0.4:
            store.remove(live.pop(rng.choice(list(live))))
        store.advance(now, 3, 3)
    handles = {n: store.handle(row) for n, row in live.items()}
    other = store.rebuilt(flags=core.EVICT)
    other.check()
    assert other.pairs() == store.pairs()
    for n, row in live.items():
        assert other.find(name(n))[0] == row and other.row_of(handles[n]) == row
        assert other.armed(row) == store.armed(row)
        assert not store.armed(row) or other.deadline_ns(row) == store.deadline_ns(row)
    for n in range(10_000, 10_100):
        assert other.insert(name(n), now) == store.insert(name(n), now)
    for step in (10**8, 10**10, 10**11, 10**12):
        now += step
        assert sorted(other.advance(now)[0]) == sorted(store.advance(now)[0])
    other.check()


def test_rebuilding_names_what_cannot_be():
    store = core.Store(20, 40)
    for n in range(20):
        store.insert(name(n))
    with pytest.raises(ValueError, match="20 rows do not fit a table with room for 10"):
        store.rebuilt(10, 40)
    assert store.rebuilt(20, 40).info["used"] == 20
    twin = core.Store(4)
    rows = [twin.insert((v4(1), 10, v4(2), 20)), twin.insert((v4(1), 11, v4(2), 20))]
    twin.spoil("port", rows[1])
    with pytest.raises(ValueError, match="rows 0 and 1 have the same key"):
        twin.rebuilt()
    twin = core.Store(4)
    twin.spoil("generation", twin.insert(name(0)))
    with pytest.raises(ValueError, match="1 rows, 0 of them in use and 0 on the list"):
        twin.rebuilt()


def test_layout_of_names_in_rows():
    """IPv4 addresses stand in network order, as they came."""
    key = core.observed((1, 2, 3, 4), v4(0x0A0B0C0D), 7, v4(0x01020304), 9)
    assert struct.unpack("!II", key["addr"]) == (0x01020304, 0x0A0B0C0D)
    assert key["port"] == (9, 7) and key["side"] == 1
