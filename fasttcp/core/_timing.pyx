"""Lets benchmarks run the core's free functions in loops of C. Not part of the public face: nothing else may import it.

Each method does the same work every time it is called, on memory that is in the state the method before left it in; the
benchmarks hold the clock.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fasttcp.core.hash cimport Key, key_observed
from fasttcp.core.layout cimport NO_ROW, Observed, Row, Segment, row_t
from fasttcp.core.machine cimport machine_actions, machine_next
from fasttcp.core.memory cimport BLOCK_HUGE, Block, block_close, block_commit, block_open
from fasttcp.core.names cimport N_EVENTS, N_STATES
from fasttcp.core.prefetch cimport prefetch_write
from fasttcp.core.store cimport (
    SEAT_OBSERVER, Table, store_close, store_find, store_insert, store_open, store_peek, store_prefetch,
    store_prefetch_remove, store_remove,
)
from fasttcp.core.wheel cimport (
    WHEEL_SLOTS, Wheel, wheel_advance, wheel_arm, wheel_close, wheel_disarm, wheel_distance, wheel_open, wheel_reserve,
)

cdef enum:
    AHEAD = 16
    GROUP = 32
    DUE = 256


cdef inline uint64_t chance(uint64_t *state) noexcept nogil:
    """SplitMix64."""
    cdef uint64_t z
    state[0] += <uint64_t>0x9E3779B97F4A7C15
    z = state[0]
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef class Timers:
    """The wheel alone, over rows that hold nothing else."""

    cdef Wheel wheel
    cdef Block rows
    cdef Block cold
    cdef uint64_t now
    cdef uint64_t random
    cdef readonly size_t count

    def __cinit__(self, size_t count, uint64_t seed=1):
        self.count = count
        self.random = seed
        block_open(&self.rows, count * sizeof(Row), BLOCK_HUGE)
        block_open(&self.cold, count * sizeof(Observed), BLOCK_HUGE)
        block_commit(&self.rows, count * sizeof(Row), True)
        block_commit(&self.cold, count * sizeof(Observed), True)
        wheel_open(&self.wheel, <Row *>self.rows.base, self.cold.base, sizeof(Observed), count, BLOCK_HUGE)
        if wheel_reserve(&self.wheel, count, True):
            raise MemoryError(f"no memory for {count} timers")

    def __dealloc__(self):
        wheel_close(&self.wheel)
        block_close(&self.rows)
        block_close(&self.cold)

    def insert(self, uint32_t low, uint32_t high):
        """Arm every row, with a time-out of low to high - 1 ticks. They must not be armed. In groups, as segments come in
        batches: the chunks of one group are on their way while its deadlines are still being drawn."""
        cdef uint32_t deadline[GROUP]
        cdef uint32_t slot
        cdef size_t i, k, upto
        with nogil:
            i = 0
            while i < self.count:
                upto = min(<size_t>GROUP, self.count - i)
                for k in range(upto):
                    deadline[k] = <uint32_t>(self.now + low + chance(&self.random) % (high - low))
                    slot = <uint32_t>(self.wheel.cursor + wheel_distance(&self.wheel, deadline[k])) & (WHEEL_SLOTS - 1)
                    prefetch_write(&self.wheel.chunk[self.wheel.head[slot] >> 4])
                for k in range(upto):
                    wheel_arm(&self.wheel, <row_t>(i + k), deadline[k])
                i += upto

    def cancel(self):
        """Disarm every row."""
        cdef size_t i
        with nogil:
            for i in range(self.count):
                wheel_disarm(&self.wheel, <row_t>i)

    def gather(self, size_t some, uint32_t ticks):
        """Arm `some` rows for one and the same tick, scattered over all of them and in a scattered order."""
        cdef size_t i, step = self.count // some
        with nogil:
            for i in range(some):
                wheel_arm(&self.wheel, <row_t>(i * 7919 % some * step + chance(&self.random) % step), <uint32_t>(self.now + ticks))

    def expire(self, uint64_t ticks):
        """Let `ticks` pass, tick by tick; answers how many rows were due. Each is read, as whoever ends it would."""
        cdef row_t due[DUE]
        cdef size_t found = 0, n, budget, i
        cdef uint64_t until = self.now + ticks
        cdef uint64_t last = 0
        cdef const Row *rows = <const Row *>self.rows.base
        with nogil:
            while self.now < until:
                self.now += 1
                while self.wheel.cursor <= self.now:
                    budget = 4096
                    n = wheel_advance(&self.wheel, self.now, &budget, due, DUE)
                    for i in range(n):
                        last += rows[due[i]].deadline
                    found += n
        if last == 0 and found:
            raise AssertionError("rows were due without a deadline")
        return found

    def skip(self, uint64_t ticks):
        """Let time pass while nothing is armed."""
        self.now += ticks
        self.expire(1)


cdef class Rows:
    """Store and index alone: keys that come, are found and go; no timers, no states."""

    cdef Table table
    cdef Key *keys
    cdef Segment *ends
    cdef uint32_t *order
    cdef readonly size_t count

    def __cinit__(self, size_t count, uint64_t seed=1, bint ipv6=False):
        cdef uint64_t secret[4]
        cdef uint64_t random = seed, drawn
        cdef size_t i
        cdef uint32_t other
        cdef int k
        memset(&self.table, 0, sizeof(self.table))
        for k in range(4):
            secret[k] = chance(&random)
        self.count = count
        store_open(&self.table, SEAT_OBSERVER, count, count, sizeof(Observed), 10000000, secret, 0)
        self.ends = <Segment *>calloc(count, sizeof(Segment))
        self.keys = <Key *>calloc(count, sizeof(Key))
        self.order = <uint32_t *>calloc(count, sizeof(uint32_t))
        if self.ends == NULL or self.keys == NULL or self.order == NULL:
            raise MemoryError(f"no memory for {count} keys")
        for i in range(count):
            drawn = chance(&random)
            if not ipv6:
                self.ends[i].src[10] = self.ends[i].src[11] = self.ends[i].dst[10] = self.ends[i].dst[11] = 0xFF
            self.ends[i].src[12] = 10
            self.ends[i].src[13] = <uint8_t>(i >> 16)
            self.ends[i].src[14] = <uint8_t>(i >> 8)
            self.ends[i].src[15] = <uint8_t>i
            self.ends[i].dst[15] = <uint8_t>drawn
            self.ends[i].sport = <uint32_t>(i >> 24) + 1024
            self.ends[i].dport = 80
            key_observed(&self.keys[i], &self.ends[i], &self.table.hash_key)
            self.order[i] = <uint32_t>i
        for i in range(count):              # a random order in which they are looked up
            drawn = i + chance(&random) % (count - i)
            other = self.order[drawn]
            self.order[drawn] = self.order[i]
            self.order[i] = other

    def __dealloc__(self):
        store_close(&self.table)
        free(self.ends)
        free(self.keys)
        free(self.order)

    def insert(self):
        """Insert every key. The table must be empty."""
        cdef size_t i
        cdef row_t row
        cdef int failed = 0
        with nogil:
            for i in range(self.count):
                if i + AHEAD < self.count:
                    store_prefetch(&self.table, &self.keys[self.order[i + AHEAD]])
                failed |= store_insert(&self.table, &self.keys[self.order[i]], 0, &row)
        if failed:
            raise AssertionError("a table for all keys has refused one")

    def find(self, bint ahead=True):
        """Look up every key in a random order; `ahead`: with its memory asked for before."""
        cdef size_t i, found = 0
        cdef row_t row
        cdef Key *key
        with nogil:
            for i in range(self.count + 2 * AHEAD):
                if ahead:
                    if i < self.count:
                        store_prefetch(&self.table, &self.keys[self.order[i]])
                    if i >= AHEAD and i - AHEAD < self.count:
                        store_peek(&self.table, &self.keys[self.order[i - AHEAD]], False)
                if i >= 2 * AHEAD:
                    key = &self.keys[self.order[i - 2 * AHEAD]]
                    found += store_find(&self.table, key, &row)
                    key.hint = NO_ROW
        return found

    def remove(self):
        """Remove every row, in the order of their numbers."""
        cdef size_t i
        with nogil:
            for i in range(self.count):
                if i + AHEAD < self.count:
                    store_prefetch_remove(&self.table, <row_t>(i + AHEAD))
                store_remove(&self.table, <row_t>i)
            # Freed last, used first: without this the next insertion would find them in reverse.
            self.table.free = NO_ROW
            self.table.high = 0
            memset(self.table.rows, 0, self.count * sizeof(Row))


cdef class Empty:
    """What a call costs that does nothing, of a class like the table."""

    def receive(self, segment):
        """Nothing."""


def transitions(size_t n, uint64_t seed=1):
    """Ask the machine n times what a random event does in the state before."""
    cdef uint64_t random = seed
    cdef uint64_t drawn
    cdef uint32_t actions = 0
    cdef int state = 0
    cdef size_t _
    with nogil:
        for _ in range(n):
            drawn = chance(&random)
            actions ^= machine_actions(state, <int>(drawn % N_EVENTS))
            state = machine_next(state, <int>(drawn % N_EVENTS))
            if state == 0:
                state = <int>((drawn >> 32) % N_STATES)
    return actions


cdef class Chain:
    """Lines of memory in a random ring: each read must wait for the one before it."""

    cdef Block block
    cdef uint64_t place
    cdef readonly size_t count

    def __cinit__(self, size_t count, uint64_t seed=1):
        cdef uint64_t *lines
        cdef uint64_t random = seed, other
        cdef size_t i
        self.count = count
        block_open(&self.block, count * 64, BLOCK_HUGE)
        block_commit(&self.block, count * 64, True)
        lines = <uint64_t *>self.block.base
        for i in range(count):
            lines[i * 8] = i
        for i in range(count - 1, 0, -1):       # Sattolo: one cycle through all of them
            other = chance(&random) % i
            lines[i * 8], lines[other * 8] = lines[other * 8], lines[i * 8]

    def __dealloc__(self):
        block_close(&self.block)

    def follow(self, size_t steps):
        """So many reads."""
        cdef const uint64_t *lines = <const uint64_t *>self.block.base
        cdef uint64_t place = self.place
        cdef size_t _
        with nogil:
            for _ in range(steps):
                place = lines[place * 8]
        self.place = place
