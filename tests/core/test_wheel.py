"""The wheel against a dict of deadlines: never early, at most one tick late, each armed row exactly once."""

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttcp.core import _testing as core

TICK = 10_000_000
SLOTS = core.SLOTS


def name(n):
    return bytes(10) + b"\xff\xff" + n.to_bytes(4, "big"), 1, bytes(10) + b"\xff\xff\x0a\x00\x00\x01", 2


class Pair:
    """A store with rows 0 .. n-1 in use, and for each armed row its deadline in whole ticks since the epoch."""

    def __init__(self, rows, *, horizon=None, start=0):
        self.store = core.Store(rows, tick_ns=TICK)
        self.start = start
        self.store.see(start)
        if horizon:
            self.store.set_horizon(horizon * TICK)
        assert [self.store.insert(name(i), start) for i in range(rows)] == list(range(rows))
        self.model = {}
        self.passed = {}
        self.now = 0

    def arm(self, row, timeout):
        # For a tick that the wheel has looked at already: due at once, so at the next one.
        self.passed[row] = self.now if timeout == 0 and self.store.info["cursor"] > self.now else None
        self.store.arm_after(row, timeout)
        self.model[row] = self.now + timeout

    def disarm(self, row):
        self.store.disarm(row)
        self.model.pop(row, None)

    def advance(self, to, budget=1 << 60, n=1 << 20):
        """To that tick; everything handed out must be due. Answers the rows."""
        self.now = to
        before = self.store.behind() or to >= self.store.info["cursor"]
        due, left = self.store.advance(self.start + to * TICK, budget, n)
        assert len(due) <= min(n, budget) and 0 <= left <= budget and (before or not due)
        for row in due:
            assert self.model.pop(row) <= to
            assert not self.store.armed(row)
        return due

    def drained(self):
        """After a complete advance nothing that is due may be left."""
        assert not self.store.behind()
        assert all(deadline > self.now or self.passed[row] == self.now for row, deadline in self.model.items())

    def check(self):
        self.store.check()
        assert self.store.info["entries"] == len(self.model)
        for row in range(self.store.info["high"]):
            assert self.store.armed(row) == (row in self.model)
            if row in self.model:
                # One that nobody has looked at for months may be brought nearer to now.
                due = max(self.model[row], self.now - core.LONGEST_TIMEOUT // 2)
                assert self.model[row] * TICK <= self.store.deadline_ns(row) - self.start <= due * TICK


# ---------------------------------------------------------------------------------------------------------------- ticks

@given(st.integers(0, 2**64 - 1), st.integers(1, 2**40))
def test_deadlines_round_up_and_now_rounds_down(ns, tick):
    assert core.ticks(ns, tick, False) == ns // tick
    assert core.ticks(ns, tick, True) == -(-ns // tick)


@pytest.mark.parametrize("start", [0, -5, 2**50, 1_700_000_000_123_456_789, -(2**63), 2**63 - 10**12])
def test_never_early_and_at_most_one_tick_late(start):
    """Every offset of now and deadline within a tick, on clocks of any epoch."""
    rng = random.Random(6)
    store = core.Store(4, tick_ns=1000)
    row = store.insert(name(1), start)
    now = start
    for _ in range(2000):
        now += rng.choice([0, 1, 999, 1000, rng.randrange(5000)])
        deadline = now + rng.choice([0, 1, 999, 1000, 1001, rng.randrange(9000)])
        store.see(now)
        store.arm_ns(row, deadline)
        while store.armed(row):
            now += rng.choice([1, 300, 999])
            due, _ = store.advance(now)
            assert (due == [row]) == (not store.armed(row))
            if due:
                assert deadline <= now
            else:
                assert now < deadline + 1000


@pytest.mark.parametrize("start", [0, -5000, 2**63 - 1 - 1000 * 40, -(2**63)])
def test_a_clock_that_goes_tick_by_tick_comes_to_what_a_jump_comes_to(start):
    """Empty, the wheel follows the clock, so that nothing is walked over when a timer comes; at the end of time as well."""
    slow = core.Store(4, tick_ns=1000)
    for offset in range(0, 1000 * 40, 333):
        slow.see(start + offset)
        jump = core.Store(4, tick_ns=1000)
        jump.see(start)
        jump.see(start + offset)
        for what in ("now_ns", "now_tick", "cursor", "drained", "epoch_ns"):
            assert slow.info[what] == jump.info[what], what
        assert slow.info["cursor"] == offset // 1000


def test_arm_after_is_the_deadline_rounded_up():
    store = core.Store(4, tick_ns=1000)
    row = store.insert(name(1), 10**15)
    for offset in (0, 1, 500, 999, 1000, 1001, 12345):
        store.see(10**15 + offset)
        store.arm_after(row, 7)
        assert store.deadline_ns(row) == 10**15 + -(-(offset + 7000) // 1000) * 1000
        store.arm_ns(row, 10**15 + offset + 7000)
        assert store.deadline_ns(row) == 10**15 + -(-(offset + 7000) // 1000) * 1000


def test_an_older_now_is_the_newest_seen():
    pair = Pair(2)
    pair.arm(0, 10)
    assert pair.advance(9) == []
    assert pair.store.advance(0)[0] == [] and pair.store.info["now_ns"] == 9 * TICK
    assert pair.advance(10) == [0]
    pair.store.arm_ns(0, 3 * TICK)      # long past: due at the next tick
    assert pair.store.advance(5 * TICK)[0] == []
    assert pair.store.advance(11 * TICK)[0] == [0]


# ------------------------------------------------------------------------------------------------- against the dict

step = st.one_of(
    st.tuples(st.just("arm"), st.integers(0, 19), st.one_of(
        st.integers(0, 40),
        st.sampled_from([0, SLOTS - 2, SLOTS - 1, SLOTS, 2 * SLOTS, 100_000, core.LONGEST_TIMEOUT - 1]))),
    st.tuples(st.just("disarm"), st.integers(0, 19), st.just(0)),
    st.tuples(st.just("advance"), st.one_of(
        st.integers(0, 20), st.sampled_from([SLOTS - 1, SLOTS, SLOTS + 1, 2**16, 3 * SLOTS + 7])), st.just(0)),
    st.tuples(st.just("part"), st.one_of(
        st.integers(0, 30), st.sampled_from([SLOTS, 2**29, 2**29 + 1, core.LONGEST_TIMEOUT, 2**32, 2**33 + 3])),
        st.integers(0, 4)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=60), st.sampled_from([None, 1, 6, 6000, SLOTS - 1]))
def test_any_operations_agree_with_a_dict_at_every_step(operations, horizon):
    pair = Pair(20, horizon=horizon)
    for what, a, b in operations:
        if what == "arm":
            pair.arm(a, b)
        elif what == "disarm":
            pair.disarm(a)
        elif what == "advance":
            pair.advance(pair.now + a)
            pair.drained()
        else:
            pair.advance(pair.now + a, budget=b, n=b % 3 + 1)
        pair.check()
    pair.advance(pair.now + core.LONGEST_TIMEOUT)
    pair.drained()
    pair.check()
    assert not pair.model and pair.store.info["chunks_used"] == 0


@pytest.mark.parametrize("horizon", [None, 500, 6000])
@pytest.mark.parametrize("seed", range(3))
def test_long_random_run_agrees_with_a_heap(seed, horizon):
    """Thousands of rows, ticks of a real clock, deadlines moved to and fro; a heap with lazy deletion is the model."""
    rng = random.Random(seed)
    pair = Pair(3000, horizon=horizon, start=2**50)
    heap = []
    for turn in range(600):
        for _ in range(40):
            row = rng.randrange(3000)
            if rng.random() < 0.1:
                pair.disarm(row)
            else:
                pair.arm(row, int(rng.expovariate(1 / 800)) + 1)
                heapq.heappush(heap, (pair.model[row], row))
        to = pair.now + rng.choice([1, 1, 1, 2, 30, 300])
        expected = set()
        while heap and heap[0][0] <= to:
            deadline, row = heapq.heappop(heap)
            if pair.model.get(row) == deadline:
                expected.add(row)
        assert set(pair.advance(to)) == expected
        pair.drained()
        if turn % 100 == 0:
            pair.check()
    pair.check()


# ------------------------------------------------------------------------------------------------- wrap-around, jumps

@pytest.mark.parametrize("jump", [2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**16 + 1, 2**29, core.LONGEST_TIMEOUT])
def test_ticks_wrap_around(jump):
    """Past 2^16 (slots), 2^31 and 2^32 (deadlines), with timers standing on both sides of the seam."""
    pair = Pair(64)
    rng = random.Random(jump)
    for _ in range(8):
        for row in range(64):
            pair.arm(row, rng.choice([1, 5, 100, SLOTS - 1, SLOTS, 200_000, jump - 1, jump]))
        pair.check()
        for to in sorted(rng.choice([1, 4, 5, 99, 101, SLOTS, 150_000]) for _ in range(4)):
            pair.advance(max(pair.now, pair.now + to - 1))
            pair.drained()
            pair.check()
        pair.advance(pair.now + jump)
        pair.drained()
        pair.check()
        assert not pair.model or jump < 200_000


def test_the_seam_at_2_32_ticks_itself():
    pair = Pair(8)
    while pair.now < 2**32 - 50:
        pair.arm(0, 1)
        pair.advance(min(pair.now + 2**30 - 1, 2**32 - 50))
    assert pair.now == 2**32 - 50
    for row in range(8):
        pair.arm(row, 10 * row + 20)
    fired = {}
    for to in range(2**32 - 50, 2**32 + 60):
        for row in pair.advance(to):
            fired[row] = to
        pair.check()
    assert fired == {row: 2**32 - 30 + 10 * row for row in range(8)}


@pytest.mark.parametrize("years", [1, 10, 290])
def test_a_jump_of_years_makes_everything_due_and_time_goes_on(years):
    store = core.Store(16, tick_ns=TICK)
    rows = [store.insert(name(i), 0) for i in range(16)]
    for i, row in enumerate(rows):
        store.arm_after(row, 1 + i * 5_000_000)
    there = years * 365 * 86400 * 10**9
    assert sorted(store.advance(there)[0]) == rows and not store.behind()
    store.check()
    for row in rows:
        store.arm_ns(row, there + 60 * 10**9)
        assert 0 <= store.deadline_ns(row) - (there + 60 * 10**9) < TICK
    assert store.advance(there + 60 * 10**9 - 1)[0] == []
    assert sorted(store.advance(there + 60 * 10**9 + TICK)[0]) == rows
    store.check()


def test_a_jump_of_years_with_a_budget():
    """The timers set between two parts of the work count from the new time, the old ones are due all the same."""
    store = core.Store(100, tick_ns=TICK)
    rows = [store.insert(name(i), 0) for i in range(100)]
    for i, row in enumerate(rows):
        store.arm_after(row, 1 + i * 777)
    there = 5 * 365 * 86400 * 10**9
    seen = []
    while store.behind() or not seen:
        due, _ = store.advance(there, budget=7)
        seen += due
        store.check()
        if len(seen) < 50:
            for row in due:
                store.arm_ns(row, there + 10**9)
    assert sorted(seen) == rows
    again = [row for row in rows if store.armed(row)]
    assert again and store.advance(there + 10**9 - TICK)[0] == []
    assert sorted(store.advance(there + 10**9 + TICK)[0]) == again


@pytest.mark.parametrize("part", [0.3, 0.6, 0.99, 1.0, 1.7, 40])
def test_a_timer_set_during_a_backlog_is_on_time_however_far_the_clock_jumps(part):
    """The wheel is never drained between the jumps; each timer set after one of them outlasts the next, or does not."""
    longest = core.LONGEST_TIMEOUT
    pair = Pair(40)
    for row in range(10):
        pair.arm(row, 1)
    for turn in range(10, 30):
        pair.advance(pair.now + int(part * longest), budget=1)
        pair.arm(turn, longest - 5)
        pair.arm(turn - 9, longest // 3)
        pair.check()
    assert pair.store.behind()
    for to in (pair.now, pair.now + longest // 3 - 1, pair.now + longest // 3, pair.now + longest):
        pair.advance(to)
        pair.drained()
        pair.check()
    assert not pair.model


def test_a_jump_looks_at_each_entry_once():
    pair = Pair(1000)
    for row in range(1000):
        pair.arm(row, 30 * row + 1)
    for row in range(0, 1000, 2):
        pair.arm(row, 10_000_000)       # later: they stay where they are parked
    pair.now = 40_000
    due, left = pair.store.advance(40_000 * TICK, 10_000)
    assert sorted(due) == list(range(1, 1000, 2)) and 10_000 - left == 1000


# --------------------------------------------------------------------------------------------- moving, budget, memory

def test_moving_a_timer_later_does_not_touch_the_wheel():
    pair = Pair(3)
    pair.arm(0, 100)
    parked = pair.store.row(0)["parked"]
    for timeout in (101, 500, 100, 10**6):
        pair.arm(0, timeout)
        assert pair.store.row(0)["parked"] == parked
    pair.arm(0, 99)
    assert pair.store.row(0)["parked"] == parked - 1
    pair.check()


def test_a_later_timer_is_parked_again_when_its_slot_comes():
    pair = Pair(1)
    pair.arm(0, 10)
    pair.arm(0, 1000)
    assert pair.advance(10) == []
    assert pair.store.row(0)["parked"] == 0x8000 | 1000
    assert pair.advance(999) == [] and pair.advance(1000) == [0]


def test_the_horizon_bounds_how_far_a_timer_is_parked():
    pair = Pair(1, horizon=6000)
    pair.arm(0, 100_000)
    visits = 0
    while pair.model:
        before = pair.store.row(0)["parked"]
        pair.advance(pair.now + 1)
        visits += bool(pair.model) and pair.store.row(0)["parked"] != before
        assert pair.now <= 100_000
    assert pair.now == 100_000 and visits == 100_000 // 6000


@pytest.mark.parametrize("budget", [1, 5, 14, 15, 1000])
def test_a_budget_bounds_a_call_and_loses_nothing(budget):
    pair = Pair(500)
    for row in range(500):
        pair.arm(row, 3 + (row % 7 == 0))
    for row in range(0, 500, 5):
        pair.arm(row, 900)              # looked at, not due
    seen = []
    calls = 0
    while True:
        due = pair.advance(4, budget=budget)
        seen += due
        pair.check()
        calls += 1
        if not pair.store.behind():
            break
    assert sorted(seen) == [row for row in range(500) if row % 5]
    assert calls <= 500 // budget + 2
    pair.drained()


def test_the_due_array_bounds_a_call_too():
    pair = Pair(100)
    for row in range(100):
        pair.arm(row, 2)
    parts = [pair.advance(2, n=33) for _ in range(4)]
    assert [len(part) for part in parts] == [33, 33, 33, 1]
    assert sorted(row for part in parts for row in part) == list(range(100))


def test_rows_are_armed_and_removed_while_a_slot_is_half_done():
    pair = Pair(60)
    for row in range(60):
        pair.arm(row, 5)
    first = pair.advance(5, n=20)
    for row in first[:10]:
        pair.arm(row, 0)                # due in the very tick that is being looked at
    for row in [r for r in range(60) if r in pair.model and r not in first][:15]:
        pair.disarm(row)
    pair.check()
    rest = pair.advance(5)
    assert len(rest) == 60 - 20 - 15 + 10
    pair.drained()


def test_an_empty_wheel_jumps_in_no_time_and_keeps_its_budget():
    pair = Pair(1)
    pair.now = 10**8
    assert pair.store.advance(10**8 * TICK, 5) == ([], 5)
    assert pair.store.info["cursor"] == 10**8 + 1


def test_disarming_what_is_not_armed_is_harmless():
    pair = Pair(2)
    pair.disarm(0)
    pair.arm(0, 3)
    pair.disarm(0)
    pair.disarm(0)
    pair.check()
    assert pair.advance(50) == []


@pytest.mark.parametrize("rows", [1, 14, 15, 16, 31, 1000])
def test_chunks_suffice_in_the_worst_distribution(rows):
    """Each row in a slot of its own; then all in one; then each in its own again."""
    pair = Pair(rows)
    for _ in range(2):
        for row in range(rows):
            pair.arm(row, 2 * SLOTS - 1 - row if row < SLOTS else 1)
        for row in range(rows):
            pair.disarm(row)
            pair.arm(row, row % SLOTS + 1)
        pair.check()
        assert pair.store.info["chunks_used"] == rows
        for row in range(rows):
            pair.disarm(row)
            pair.arm(row, 7)
        pair.check()
        assert pair.store.info["chunks_used"] == -(-rows // 15)
        for row in range(rows):
            pair.disarm(row)
    assert pair.store.info["chunks_used"] == 0 and pair.store.info["chunk_high"] <= rows // 14 + rows + 1


def test_no_chunk_is_lost_in_long_churn():
    """TIME_WAIT churn: every row armed for 2MSL, fired, armed again; the pool stays at what one round needs."""
    pair = Pair(2000, horizon=600)
    rng = random.Random(8)
    high = 0
    for row in range(2000):
        pair.arm(row, rng.randrange(1, 1200))
    for turn in range(3000):
        for row in pair.advance(pair.now + 3):
            pair.arm(row, rng.choice([5, 600, 1200]))
        if turn == 1000:
            high = pair.store.info["chunk_high"]
    pair.check()
    assert pair.store.info["chunk_high"] < 1.2 * high
