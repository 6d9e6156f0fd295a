"""ConnectionTable: the thin Python shell around the engine. It parses arguments, raises errors and decides nothing.

Thread rule: calls are serialized. Under the GIL each call is whole; `apply` and `advance` release it while they run, and a
call that comes from another thread meanwhile waits for them. Views made by `column` are windows on live memory: read
them while no batch runs, or copy them under the same rule.
"""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fasttcp.core.address cimport parse_address, parse_number
from fasttcp.core.hash cimport Key, key_observed
from fasttcp.core.layout cimport NO_ROW, Cold, Observed, Row, Segment, ns_t, row_t
from fasttcp.core.observer cimport (
    V_FULL, Observer, Verdict, observe, observe_batch, observer_advance, observer_end,
)
from fasttcp.core.records cimport Records, column_new, records_new
from fasttcp.core.seat cimport Engine
from fasttcp.core.store cimport (
    SEAT_OBSERVER, STORE_EVICT, Table, store_behind, store_bytes, store_check, store_close, store_find, store_handle,
    store_in_use, store_open, store_row_of, store_see, store_set_horizon,
)
from fasttcp.core.summary cimport LIVE, EndLog, Summary, endlog_close, endlog_observed, summarize_observed
from fasttcp.core.trace cimport Step, trace_close, trace_open
from fasttcp.core.wheel cimport TIMEOUT_TICKS

import hashlib
import os
from typing import NamedTuple

from fasttcp.core.silence import silence_ns
from fasttcp.errors import InvariantError, ProfileError, SegmentError, StaleHandle, StateError, TableFull
from fasttcp.profiles import profile as find_profile
from fasttcp.spec import Event, State, transition

__all__ = ["ConnectionTable", "TraceStep"]

cdef extern from "pythread.h" nogil:
    void *PyThread_allocate_lock()
    void PyThread_free_lock(void *lock)
    int PyThread_acquire_lock(void *lock, int wait)
    void PyThread_release_lock(void *lock)

cdef bytes VERDICT_LAYOUT = b"T{I:row:H:flags:B:state_0:B:state_1:}"
cdef bytes SUMMARY_LAYOUT = (
    b"T{Q:handle:q:first_ns:q:last_ns:q:ended_ns:16s:orig_addr:16s:resp_addr:Q:orig_packets:Q:resp_packets:Q:orig_bytes:"
    b"Q:resp_bytes:I:orig_isn:I:resp_isn:I:orig_retransmitted:I:resp_retransmitted:H:orig_port:H:resp_port:B:orig_state:"
    b"B:resp_state:B:ended_by:B:flags:}"
)


class TraceStep(NamedTuple):
    """One transition of one half, as `ConnectionTable.explain` tells it."""

    time_ns: int
    side: int           # 0 or 1, as in the columns
    state: State
    event: Event
    next: State
    seq: int            # of the segment that caused it; 0 for calls and timers
    ack: int
    flags: int
    source: str         # the RFC section or kernel file that asks for it
    why: str

    def __str__(self):
        return f"{self.time_ns} side {self.side}: {self.state.name} --{self.event.name}--> {self.next.name}  [{self.source}] {self.why}"


# ---- inside ----------------------------------------------------------------------------------------------------------

cdef Engine *table_engine(ConnectionTable table) noexcept:
    return table.engine


cdef int table_apply(ConnectionTable table, const Segment *segments, size_t n, Verdict *verdicts) except -1 nogil:
    """Apply n segments, writing one verdict for each."""
    observe_batch(table.observer, segments, n, verdicts)
    return 0


cdef int wait_turn(ConnectionTable table) except -1:
    """Return, with the GIL, when no batch of another thread is in the table. Refuses a table that was never opened."""
    if table.engine == NULL:
        raise StateError("this table is not open")
    while table.running:
        with nogil:
            PyThread_acquire_lock(table.lock, 1)
            PyThread_release_lock(table.lock)
    return 0


cdef int begin_running(ConnectionTable table) except -1:
    wait_turn(table)
    table.running = True
    PyThread_acquire_lock(table.lock, 1)            # free: whoever held it has cleared `running` under the GIL
    return 0


cdef void end_running(ConnectionTable table) noexcept:
    table.running = False
    PyThread_release_lock(table.lock)


cdef row_t row_of(ConnectionTable table, handle) except? NO_ROW:
    cdef row_t row
    wait_turn(table)
    if not isinstance(handle, int) or not 0 <= handle < 1 << 64 or not store_row_of(&table.engine.table, handle, &row):
        raise StaleHandle(f"handle {handle!r} names no live connection")
    return row


cdef _count(str name, value, low, high):
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: it must be an int")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}: it must be from {low} to {high}")
    return value


cdef int _secret(seed, uint64_t *secret) except -1:
    """32 secret bytes: from the system, or from the seed by BLAKE2 so that neighbouring seeds have nothing in common."""
    cdef bytes drawn
    if seed is None:
        drawn = os.urandom(32)
    else:
        drawn = hashlib.blake2b(str(_count("seed", seed, -(1 << 63), (1 << 64) - 1)).encode(), digest_size=32).digest()
    memcpy(secret, <const char *>drawn, 32)
    return 0


cdef uint32_t _ticks(ns, tick_ns) except? 0:
    """A time-out in whole ticks, rounded up: never early."""
    ticks = -(-ns // tick_ns)
    if ticks > TIMEOUT_TICKS:
        raise ProfileError(
            f"a time-out of {ns} ns is {ticks} ticks of {tick_ns} ns: the wheel reaches {TIMEOUT_TICKS}; use a larger tick_ns"
        )
    return ticks


cdef dict _columns():
    """name -> (array, offset, format, item size). Sides are 0 and 1 as stored; `flags` says which one opened."""
    cdef dict found = {}
    cdef int side
    for name, offset, layout, size in (
        ("state_{}", <size_t>&(<Row *>NULL).state, b"B", 1),
        ("addr_{}", <size_t>&(<Row *>NULL).addr, b"I", 4),
        ("port_{}", <size_t>&(<Row *>NULL).port, b"H", 2),
    ):
        for side in range(2):
            found[name.format(side)] = ("row", offset + side * size, layout, size)
    found["flags"] = ("row", <size_t>&(<Row *>NULL).flags, b"H", 2)
    found["deadline"] = ("row", <size_t>&(<Row *>NULL).deadline, b"I", 4)
    found["last_ns"] = ("row", <size_t>&(<Row *>NULL).last_ns, b"q", 8)
    for side in range(2):
        for name, offset, layout, size in (
            ("snd_nxt_{}", <size_t>&(<Row *>NULL).seat.half[side].snd_nxt, b"I", 4),
            ("rcv_nxt_{}", <size_t>&(<Row *>NULL).seat.half[side].rcv_nxt, b"I", 4),
            ("window_{}", <size_t>&(<Row *>NULL).seat.half[side].window, b"H", 2),
            ("packets_low_{}", <size_t>&(<Row *>NULL).seat.half[side].packets, b"H", 2),
            ("bytes_low_{}", <size_t>&(<Row *>NULL).seat.half[side].bytes, b"I", 4),
        ):
            found[name.format(side)] = ("row", offset, layout, size)
        for name, offset, layout, size in (
            ("isn_{}", <size_t>&(<Observed *>NULL).isn[side], b"I", 4),
            ("retransmitted_{}", <size_t>&(<Observed *>NULL).retransmitted[side], b"I", 4),
            ("packets_high_{}", <size_t>&(<Observed *>NULL).packets_high[side], b"H", 2),
            ("bytes_high_{}", <size_t>&(<Observed *>NULL).bytes_high[side], b"H", 2),
        ):
            found[name.format(side)] = ("cold", offset, layout, size)
    found["generation"] = ("cold", <size_t>&(<Cold *>NULL).generation, b"I", 4)
    found["first_ns"] = ("cold", <size_t>&(<Cold *>NULL).first_ns, b"q", 8)
    return found


_OBSERVER_COLUMNS = _columns()


# ---- the class -------------------------------------------------------------------------------------------------------

cdef class ConnectionTable:
    """The state of many TCP connections: rows of 64 bytes, a hash index over them, one timer wheel.

    capacity: connections that find room at once. max_capacity: how far the table may grow, step by step and without moving
    anything; None keeps it at `capacity`. profile: a name or a `fasttcp.Profile`. seat: "endpoint" or "observer".
    seed: an int makes the hash secret and all else reproducible; None takes a random secret. on_full: "raise" refuses the
    connection, "evict" lets go of the oldest TIME_WAIT first, then the oldest half-open, then the oldest closing one.
    tick_ns: the grain of the timer wheel; a timer fires never early and at most one tick late. trace: how many
    transitions `explain` may look back on, over the whole table. keep_ended: collect ended connections for `take_ended`.

    Raises ValueError for arguments out of range, MemoryError when the system refuses the memory. Opening touches the memory
    of `capacity` rows, about 0.2 s a GB.
    """

    def __cinit__(self, *args, **kwargs):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("no memory for a lock")

    def __init__(
        self, capacity, *, max_capacity=None, profile="linux", seat="endpoint", seed=None, on_full="raise",
        tick_ns=10_000_000, trace=0, keep_ended=False,
    ):
        cdef uint64_t secret[4]
        cdef int i
        if self.engine != NULL:
            raise StateError("this table was opened before")
        if seat != "observer":
            raise ValueError(f"seat is {seat!r}; it can be 'endpoint' or 'observer'")
        if on_full not in ("raise", "evict"):
            raise ValueError(f"on_full is {on_full!r}; it can be 'raise' or 'evict'")
        capacity = _count("capacity", capacity, 1, 1 << 31)
        most = capacity if max_capacity is None else _count("max_capacity", max_capacity, capacity, 1 << 31)
        _count("tick_ns", tick_ns, 1, 10**12)
        self.profile = find_profile(profile)
        self.seat = seat
        self.on_full = on_full
        self.seed = seed
        _secret(seed, secret)
        self.observer = <Observer *>calloc(1, sizeof(Observer))
        if self.observer == NULL:
            raise MemoryError("no memory for a table")
        self.engine = &self.observer.engine
        store_open(
            &self.engine.table, SEAT_OBSERVER, capacity, most, sizeof(Observed), tick_ns, secret,
            STORE_EVICT if on_full == "evict" else 0,
        )
        store_set_horizon(&self.engine.table, self.profile.time_wait_ns)
        trace_open(&self.engine.trace, _count("trace", trace, 0, 1 << 32))
        self.observer.evict = on_full == "evict"
        self.observer.pick_up = 1 if self.profile.nf_conntrack_tcp_loose else 0
        for i, ns in enumerate(silence_ns(self.profile)):
            self.observer.timeout[i] = _ticks(ns, tick_ns)
        self.keep_ended = keep_ended
        if keep_ended:
            self.observer.watch.context = &self.ended
            self.observer.watch.ended = endlog_observed

    def __dealloc__(self):
        if self.engine != NULL:
            trace_close(&self.engine.trace)
            store_close(&self.engine.table)
        free(self.observer)
        endlog_close(&self.ended)
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    # -- batches -------------------------------------------------------------------------------------------------------

    def apply(self, segments):
        """Apply a batch of segments in their order; the GIL is released meanwhile.

        segments: a `SegmentBatch` or any contiguous buffer of 80-byte records of that layout (`SEGMENT_FIELDS`); their
        time_ns is the clock, and due timers fire as it goes. Returns records (n,) of row uint32 (0xFFFFFFFF: none), flags
        uint16 (`Verdict`), and both sides' states afterwards, uint8. Raises SegmentError when the buffer has another layout.
        Cost: about 3 us a call and the random memory of two cache lines a segment.
        """
        cdef Py_buffer view
        cdef Records out
        cdef size_t n
        PyObject_GetBuffer(segments, &view, PyBUF_FORMAT | PyBUF_ND)
        try:
            if view.len % sizeof(Segment) != 0 or (view.itemsize != sizeof(Segment) and view.itemsize != 1):
                raise SegmentError(
                    f"a buffer of {view.len} bytes in items of {view.itemsize}: segments are records of {sizeof(Segment)} bytes"
                )
            n = view.len // sizeof(Segment)
            out = records_new(n, sizeof(Verdict), VERDICT_LAYOUT)
            begin_running(self)
            with nogil:
                table_apply(self, <const Segment *>view.buf, n, <Verdict *>out.data)
            end_running(self)
            return out
        finally:
            PyBuffer_Release(&view)

    def advance(self, now_ns, budget=None):
        """Let the time be `now_ns` (int, ns, the clock of the segments) and fire what is due; the GIL is released.

        budget: how many timers one call may look at, about; None: all. Returns True when everything due has fired, False
        when the budget ended first and the next call goes on. An older time is taken for the newest seen.
        """
        cdef ns_t now = now_ns
        cdef size_t most = <size_t>-1 if budget is None else _count("budget", budget, 1, 1 << 62)
        begin_running(self)
        with nogil:
            observer_advance(self.observer, now, most)
        end_running(self)
        return not store_behind(&self.engine.table)

    # -- one at a time -------------------------------------------------------------------------------------------------

    def receive(self, segment):
        """Apply one segment: 80 bytes of the layout of `SegmentBatch`. Returns (handle or None, flags)."""
        cdef Py_buffer view
        cdef Verdict verdict
        wait_turn(self)
        PyObject_GetBuffer(segment, &view, PyBUF_SIMPLE)
        if view.len != sizeof(Segment):
            PyBuffer_Release(&view)
            raise SegmentError(f"{view.len} bytes: one segment is a record of {sizeof(Segment)} bytes")
        observe(self.observer, <const Segment *>view.buf, &verdict)
        PyBuffer_Release(&view)
        if verdict.row == NO_ROW:
            if verdict.flags & V_FULL and self.on_full == "raise":
                raise TableFull(f"all {self.engine.table.max_rows} rows are in use")
            return None, verdict.flags
        return store_handle(&self.engine.table, verdict.row), verdict.flags

    def find(self, src, sport, dst, dport):
        """The handle of the connection between two ends, None if there is none. Observer: in either order."""
        cdef Segment ends
        cdef Key key
        cdef row_t row
        wait_turn(self)
        memset(&ends, 0, sizeof(ends))
        parse_address("src", src, ends.src)
        parse_address("dst", dst, ends.dst)
        ends.sport = parse_number("sport", sport, 0, 65535)
        ends.dport = parse_number("dport", dport, 0, 65535)
        key_observed(&key, &ends, &self.engine.table.hash_key)
        if not store_find(&self.engine.table, &key, &row):
            return None
        return store_handle(&self.engine.table, row)

    def handle(self, row):
        """The handle of the connection in this row now (rows are what `apply` returns)."""
        cdef uint64_t at = _count("row", row, 0, (1 << 32) - 1)
        wait_turn(self)
        if at >= self.engine.table.high or not store_in_use(&self.engine.table, <row_t>at):
            raise StaleHandle(f"row {row} holds no connection")
        return store_handle(&self.engine.table, <row_t>at)

    def summary(self, handle):
        """All that is told of one connection, as a dict (the fields of `summaries`). Raises StaleHandle."""
        cdef Records out = records_new(1, sizeof(Summary), SUMMARY_LAYOUT)
        summarize_observed(self.observer, row_of(self, handle), LIVE, 0, <Summary *>out.data)
        return out[0]

    def state(self, handle):
        """Both halves' states: (originator's, responder's) in the observer seat. Raises StaleHandle."""
        cdef Summary out
        summarize_observed(self.observer, row_of(self, handle), LIVE, 0, &out)
        return State(out.state[0]), State(out.state[1])

    def explain(self, handle):
        """What happened to this connection, oldest first: a list of `TraceStep`.

        Needs a table made with `trace`; steps that the ring has overwritten are missing. Works for ended connections too.
        Cost: one pass over the ring.
        """
        cdef uint64_t wanted = handle
        cdef uint64_t at, first = 0
        cdef const Step *step
        cdef list steps = []
        wait_turn(self)
        if self.engine.trace.steps == NULL:
            raise StateError("nothing was recorded: make the table with trace=N to keep the last N transitions")
        if self.engine.trace.written > self.engine.trace.capacity:
            first = self.engine.trace.written - self.engine.trace.capacity
        for at in range(first, self.engine.trace.written):
            step = &self.engine.trace.steps[at & (self.engine.trace.capacity - 1)]
            if step.handle == wanted:
                row = transition(step.state, step.event)
                steps.append(TraceStep(
                    step.time_ns, step.side, row.state, row.event, row.next, step.seq, step.ack, step.segment_flags,
                    row.source, row.why,
                ))
        return steps

    # -- the table as a whole ------------------------------------------------------------------------------------------

    def __len__(self):
        return self.engine.table.used

    def __contains__(self, handle):
        cdef row_t row
        wait_turn(self)
        return isinstance(handle, int) and 0 <= handle < 1 << 64 and store_row_of(&self.engine.table, handle, &row)

    def __iter__(self):
        """The handles of all connections, in the order of their rows; those that end meanwhile are left out."""
        cdef size_t row = 0
        while row < self.engine.table.high:
            wait_turn(self)
            if store_in_use(&self.engine.table, <row_t>row):
                yield store_handle(&self.engine.table, <row_t>row)
            row += 1

    def counts(self):
        """How many halves are in each state: {State: int}. O(1): nothing is scanned.

        In the observer seat every connection counts twice, once for each host.
        """
        cdef int a, b
        cdef list totals = [0] * 11
        wait_turn(self)
        for a in range(11):
            for b in range(11):
                totals[a] += self.engine.table.pairs[a * 16 + b]
                totals[b] += self.engine.table.pairs[a * 16 + b]
        return {state: totals[state] for state in State}

    def tallies(self):
        """What has been counted since the table was made: {name: int}."""
        wait_turn(self)
        return dict(self.observer.tallies)

    def summaries(self):
        """Summaries of all live connections: records (n,), see `SUMMARY_FIELDS`. A copy; costs one pass over the rows."""
        cdef Records out
        cdef size_t row, at = 0
        wait_turn(self)
        out = records_new(self.engine.table.used, sizeof(Summary), SUMMARY_LAYOUT)
        for row in range(self.engine.table.high):
            if store_in_use(&self.engine.table, <row_t>row):
                summarize_observed(self.observer, <row_t>row, LIVE, 0, &(<Summary *>out.data)[at])
                at += 1
        return out

    def take_ended(self):
        """Summaries of the connections that ended since the last call, in the order of their ends: records (n,).

        Needs a table made with keep_ended=True; until they are taken they cost 120 bytes each.
        """
        cdef Records out
        wait_turn(self)
        if not self.keep_ended:
            raise StateError("ended connections are not kept: make the table with keep_ended=True")
        out = records_new(self.ended.count, sizeof(Summary), SUMMARY_LAYOUT)
        memcpy(out.data, self.ended.data, self.ended.count * sizeof(Summary))
        self.ended.count = 0
        return out

    @property
    def columns(self):
        """The names that `column` knows."""
        return tuple(_OBSERVER_COLUMNS)

    def column(self, name):
        """A zero-copy, read-only view of one field of every row, (capacity,): ``numpy.asarray(table.column("state_0"))``.

        The memory never moves, so a view stays valid, and live, while the table grows; its length is that of the day it was
        made. Row r holds a connection where ``generation[r]`` is odd.
        """
        cdef Table *t = &self.engine.table
        cdef char *base
        cdef Py_ssize_t stride
        try:
            where, offset, layout, size = _OBSERVER_COLUMNS[name]
        except KeyError:
            raise KeyError(f"no column {name!r}; there are {', '.join(_OBSERVER_COLUMNS)}") from None
        if where == "row":
            base, stride = <char *>t.rows, sizeof(Row)
        else:
            base, stride = t.cold, t.cold_stride
        return memoryview(column_new(self, base + <Py_ssize_t>offset, layout, size, t.capacity, stride))

    @property
    def capacity(self):
        """Rows that can be used without growing."""
        return self.engine.table.capacity

    @property
    def max_capacity(self):
        """Rows that the table may grow to."""
        return self.engine.table.max_rows

    @property
    def now_ns(self):
        """The newest time seen, ns."""
        return self.engine.table.now_ns

    @property
    def nbytes(self):
        """Bytes of memory behind the table: rows, cold records, addresses, index, wheel."""
        return store_bytes(&self.engine.table)

    def check_invariants(self):
        """Check index, rows, free list, wheel and counts against each other. Raises AssertionError naming the first fault.

        Beyond the structure: a connection has exactly one armed timer, and no event came that classification rules out.
        Cost: some passes over all rows; meant for tests and for doubt.
        """
        wait_turn(self)
        store_check(&self.engine.table)
        if self.engine.table.wheel.entries != self.engine.table.used:
            raise InvariantError(f"{self.engine.table.used} connections have {self.engine.table.wheel.entries} timers")
        if self.engine.never:
            raise InvariantError(f"{self.engine.never} events came that classification rules out")
