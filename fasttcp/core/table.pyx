"""ConnectionTable: the thin Python shell around the engine. It parses arguments, raises errors and decides nothing.

Thread rule: calls are serialized. Under the GIL each call is whole; `apply`, `advance` and long scans release it
while they run, and a call that comes from another thread meanwhile waits for its turn, first come, first served. So
no Python code may run between `ready` and the end of what a call does to the engine: arguments are parsed before,
results made afterwards. Views made by `column` are windows on live memory: read them while no batch runs, or copy
them under the same rule.
"""

from operator import index

from cpython.buffer cimport PyBuffer_Release
from libc.stdint cimport INT64_MAX, INT64_MIN, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from fasttcp.core.address cimport parse_address, parse_number, whole
from fasttcp.core.application cimport Application, enter, expired, live_row, ready, row_of
from fasttcp.core.arrivals cimport endpoint_batch, endpoint_receive
from fasttcp.core.columns cimport ENDPOINT_COLUMNS, OBSERVER_COLUMNS
from fasttcp.core.endings cimport summarize_endpoint
from fasttcp.core.endpoint cimport endpoint_check, endpoint_recount
from fasttcp.core.expiry cimport endpoint_advance
from fasttcp.core.hash cimport Key, key_endpoint, key_observed
from fasttcp.core.layout cimport NO_ROW, Row, Segment, ns_t, row_t
from fasttcp.core.observer cimport observer_advance
from fasttcp.core.opening cimport close_engine, layout_from, open_endpoint, open_observer, secret_from
from fasttcp.core.output cimport OUTPUT_LIMIT
from fasttcp.core.pipeline cimport observe, observe_batch
from fasttcp.core.records cimport Records, column_new, records_new, records_take
from fasttcp.core.saving cimport (
    check_head, load_endpoint, load_engine, save_engine, save_output, saved_endpoint_head, saved_head,
)
from fasttcp.core.scans cimport live_summaries, steps_of
from fasttcp.core.seat cimport Engine
from fasttcp.core.segments cimport SegmentBatch, segments_shown
from fasttcp.core.shown cimport segment_shown
from fasttcp.core.snapshot cimport SnapshotReader, snapshot_begin, snapshot_done, snapshot_end, snapshot_open
from fasttcp.core.store cimport (
    STORE_LAZY, Table, store_behind, store_bytes, store_check, store_find, store_handle, store_in_use,
)
from fasttcp.core.summary cimport LIVE, EndLog, Summary, endlog_close, summarize_observed
from fasttcp.core.tap cimport Tallies, Verdict
from fasttcp.core.tcb cimport Endpoint, Outcome
from fasttcp.core.trace cimport Step
from fasttcp.core.turn cimport turn_give
from fasttcp.core.verdicts cimport V_FULL, V_VOID

import os

from fasttcp.core.files import replacing
from fasttcp.core.outcomes import read_outcome
from fasttcp.core.segments import Segment as SegmentTuple
from fasttcp.core.steps import read_steps
from fasttcp.errors import InvariantError, SegmentError, SnapshotError, StaleHandle, StateError, TableFull
from fasttcp.profiles import Profile
from fasttcp.profiles import profile as find_profile
from fasttcp.spec import Event, State
from fasttcp.verdicts import Verdict as VerdictFlags

__all__ = ["ConnectionTable"]

cdef bytes VERDICT_LAYOUT = b"T{I:row:H:flags:B:state_0:B:state_1:}"
cdef bytes SUMMARY_LAYOUT = (
    b"T{Q:handle:q:first_ns:q:last_ns:q:ended_ns:(16)B:orig_addr:(16)B:resp_addr:Q:orig_packets:Q:resp_packets:"
    b"Q:orig_bytes:Q:resp_bytes:I:orig_isn:I:resp_isn:I:orig_retransmitted:I:resp_retransmitted:H:orig_port:"
    b"H:resp_port:B:orig_state:B:resp_state:B:ended_by:B:flags:}"
)
cdef bytes OUTCOME_LAYOUT = (
    b"T{Q:handle:Q:events:I:row:I:delivered:H:sent:H:flags:B:before:B:after:B:origin:B:last:}"
)
cdef list VERDICTS = [None] * (2 * V_VOID)      # fasttcp.Verdict by number: making one costs a microsecond


cdef enum:
    DUE_BATCH = 64


# ---- for cimport -----------------------------------------------------------------------------------------------------

cdef Engine *table_engine(ConnectionTable table) noexcept:
    return table.engine


cdef Endpoint *table_endpoint(ConnectionTable table) except NULL:
    if table.endpoint == NULL:
        raise StateError("this table is not open in the endpoint seat")
    return table.endpoint


cdef int table_apply(ConnectionTable table, const Segment *segments, size_t n, Verdict *verdicts) except -1 nogil:
    """Apply n segments, writing one verdict for each. StateError when it is not open in the observer seat."""
    if table.observer == NULL:
        with gil:
            raise StateError(
                "this table is not open" if table.engine == NULL else "this table sits in the endpoint seat"
            )
    observe_batch(table.observer, segments, n, verdicts)
    return 0


# ---- inside ----------------------------------------------------------------------------------------------------------

cdef int open_table(
    ConnectionTable self, capacity, max_capacity, profile, seat, seed, bytes secret, on_full, tick_ns, trace,
    keep_ended, accept_all, read_all, output_limit, int flags,
) except -1:
    """Check every argument, then build the engine; on failure the table stays as it was, not open."""
    cdef EndLog *ended = &self.ended if keep_ended else NULL
    if self.engine != NULL:
        raise StateError("this table was opened before")
    if seat not in ("endpoint", "observer"):
        raise ValueError(f"seat is {seat!r}; it can be 'endpoint' or 'observer'")
    layout = layout_from(
        capacity, max_capacity, profile, on_full, tick_ns, trace, accept_all, read_all, output_limit, flags,
    )
    if seat == "observer":
        self.observer = open_observer(profile, layout, secret, ended)
        self.engine = &self.observer.engine
    else:
        self.endpoint = open_endpoint(profile, layout, secret, ended)
        self.engine = &self.endpoint.engine
    self.keep_ended = bool(keep_ended)
    self.profile, self.seat, self.on_full, self.seed = profile, seat, on_full, seed
    return 0


# ---- what differs between the seats --------------------------------------------------------------------------------

cdef void summarize(ConnectionTable table, row_t row, Summary *out) noexcept:
    if table.endpoint != NULL:
        summarize_endpoint(table.endpoint, row, LIVE, 0, out)
    else:
        summarize_observed(table.observer, row, LIVE, 0, out)


cdef void fire_due(Endpoint *e, ns_t now_ns, size_t budget) noexcept nogil:
    """Fire what is due; what became of each connection is in the output, the ended ones and the counts."""
    cdef Outcome outcomes[DUE_BATCH]
    while endpoint_advance(e, now_ns, &budget, outcomes, DUE_BATCH) == DUE_BATCH:
        pass


cdef inline tuple receive_one(ConnectionTable self, const Segment *segment):
    """(handle or None, Verdict or Outcome). No Python code runs between `ready` and the end of what it does."""
    cdef Verdict verdict
    cdef uint64_t handle
    if self.engine == NULL or self.turn.taken:
        ready(self)
    if self.observer == NULL:
        return receive_endpoint(self, segment)
    observe(self.observer, segment, &verdict)
    if verdict.row == NO_ROW:
        if verdict.flags & V_FULL:
            raise TableFull(f"all {self.max_capacity} rows are in use")
        return None, verdict_flags(verdict.flags)
    handle = store_handle(&self.engine.table, verdict.row)
    # A connection that says the same again, as in a bulk transfer, is told by the same tuple.
    if handle != self.told_handle or verdict.flags != self.told_flags:
        self.told = handle, verdict_flags(verdict.flags)
        self.told_handle, self.told_flags = handle, verdict.flags
    return self.told


cdef inline object verdict_flags(Py_ssize_t flags):
    found = VERDICTS[flags]
    if found is None:
        found = VERDICTS[flags] = VerdictFlags(flags)
    return found


cdef tuple receive_endpoint(ConnectionTable self, const Segment *segment):
    cdef Outcome out
    endpoint_receive(self.endpoint, segment, segment.time_ns, &out)
    told = read_outcome(
        out.handle, out.events, out.before, out.after, out.origin, out.last, out.delivered, out.sent, out.flags
    )
    return told.handle, told


# ---- the class -------------------------------------------------------------------------------------------------------

cdef class ConnectionTable(Application):
    """The state of many TCP connections: rows of 64 bytes, a hash index over them, one timer wheel.

    Parameters
    ----------
    capacity : int
        Connections that find room at once, 1 to 2^31.
    max_capacity : int or None
        How far the table may grow, step by step and without moving anything; None keeps it at `capacity`.
    profile : str or Profile
        The time-outs and policies; a name of one of the built-in profiles.
    seat : "endpoint" or "observer"
        One host's half of each connection, or a tap that sees both.
    seed : int or None
        Makes the hash's secret, and all else, reproducible; None takes a random secret.
    on_full : "raise" or "evict"
        A full table refuses the connection; or it lets go of the oldest that is over (TIME_WAIT, or reset), then of the
        oldest half-open, then of the oldest closing one, never of an established one.
    tick_ns : int
        The grain of the timer wheel, ns: a timer fires never early and at most one tick late.
    trace : int
        How many transitions `explain` may look back on, over the whole table; 32 bytes each.
    keep_ended : bool
        Collect ended connections for `take_ended`.
    accept_all : bool
        Endpoint: an established connection is the application's at once; False: it waits for `accept`.
    read_all : bool
        Endpoint: what is delivered counts as read; False: it fills the window until `read`.
    output_limit : int
        Endpoint: segments that may wait for `take_output`.

    Raises
    ------
    ValueError, TypeError, ProfileError
        An argument that cannot be; the message names it and its range.
    MemoryError
        The system refuses the memory. Opening touches the memory of `capacity` rows, about 0.2 s a GB.
    """

    def __init__(
        self, capacity, *, max_capacity=None, profile="linux", seat="endpoint", seed=None, on_full="raise",
        tick_ns=10_000_000, trace=0, keep_ended=False, accept_all=True, read_all=True, output_limit=OUTPUT_LIMIT,
    ):
        open_table(
            self, capacity, capacity if max_capacity is None else max_capacity, find_profile(profile), seat, seed,
            secret_from(seed), on_full, tick_ns, trace, keep_ended, accept_all, read_all, output_limit, 0,
        )

    def __dealloc__(self):
        close_engine(self.observer, self.endpoint)
        endlog_close(&self.ended)

    def __repr__(self):
        if self.engine == NULL:
            return f"<{type(self).__name__}, not open>"
        return f"<{type(self).__name__} {self.seat}: {len(self)} of {self.max_capacity} connections, {self.profile!r}>"

    # -- batches -------------------------------------------------------------------------------------------------------

    def apply(self, segments):
        """Apply a batch of segments in their order; the GIL is released meanwhile.

        segments: a `SegmentBatch`, or any contiguous buffer of 80-byte records of its layout (`SEGMENT_DTYPE`) on an
        8-byte boundary; nobody may write to it meanwhile. Their time_ns is the clock, and due timers fire as it goes.

        Observer: returns records (n,) of row uint32 (0xFFFFFFFF: none), flags uint16 (`Verdict`), and both sides'
        states afterwards, state_0 and state_1, uint8. A segment that finds the table full has Verdict.FULL; nothing is raised.
        Endpoint: records of handle uint64 (0: none), events uint64 (a bit for each `Event`), row and delivered uint32,
        sent and flags uint16 (`OutcomeFlag`), before, after, origin and last uint8; timers fire in `advance` only.
        Raises SegmentError, before the first segment is looked at, when the buffer is no batch of segments.
        Cost: about 1 us a call and the random memory of two cache lines a segment.
        """
        cdef Py_buffer view
        cdef size_t n = segments_shown(segments, &view)
        cdef Records out
        try:
            if self.endpoint == NULL:
                out = records_new(n, sizeof(Verdict), VERDICT_LAYOUT)
            else:
                out = records_new(n, sizeof(Outcome), OUTCOME_LAYOUT)
            enter(self)
            with nogil:
                if self.endpoint == NULL:
                    observe_batch(self.observer, <const Segment *>view.buf, n, <Verdict *>out.data)
                else:
                    endpoint_batch(self.endpoint, <const Segment *>view.buf, n, <Outcome *>out.data)
            turn_give(&self.turn)
            return out
        finally:
            PyBuffer_Release(&view)

    def advance(self, now_ns, budget=None):
        """Let the time be `now_ns` (int, ns, the clock of the segments) and fire what is due; the GIL is released.

        budget: how many timers one call may look at, about; None: all. Returns True when everything due has fired,
        False when the budget ended first and the next call goes on; until then a connection whose time is up is still
        counted, but no call and no segment finds it any more. An older time is taken for the newest seen.
        """
        cdef ns_t now = whole("now_ns", now_ns, INT64_MIN, INT64_MAX)
        cdef size_t most = <size_t>-1 if budget is None else whole("budget", budget, 1, 1 << 62)
        cdef bint behind
        enter(self)
        with nogil:
            if self.endpoint == NULL:
                observer_advance(self.observer, now, most)
            else:
                fire_due(self.endpoint, now, most)
            behind = store_behind(&self.engine.table)
        turn_give(&self.turn)
        return not behind

    # -- one at a time -------------------------------------------------------------------------------------------------

    def receive(self, segment):
        """Apply one segment: a `Segment`, or 80 bytes of the layout of `SegmentBatch`.

        Observer: returns (handle or None, `Verdict`), and raises TableFull when it needs a row and there is none
        (with on_full="evict": none that may be evicted). Endpoint: returns (handle or None, `Outcome`); its time_ns
        is the time, and a SYN without a row is dropped as a host does. Raises SegmentError for anything else than a
        segment.
        """
        cdef const Segment *record
        cdef Py_buffer view
        if self.engine == NULL or self.turn.taken:
            ready(self)         # may let others run, so before the look at the segment
        record = segment_shown(segment)
        if record != NULL:
            return receive_one(self, record)
        if isinstance(segment, SegmentTuple):
            batch = SegmentBatch(1)
            batch.append(**segment._asdict())
            return receive_one(self, segment_shown(batch))
        if segments_shown(segment, &view) != 1:
            message = f"{view.len} bytes: one segment is a record of {sizeof(Segment)} bytes"
            PyBuffer_Release(&view)
            raise SegmentError(message)
        try:
            return receive_one(self, <const Segment *>view.buf)
        finally:
            PyBuffer_Release(&view)

    def find(self, src, sport, dst, dport):
        """The handle of the connection between two ends, None if there is none.

        Observer: in either order. Endpoint: src is the local end, and dst all zero with dport 0 finds a listener.

        src, dst: addresses as text, packed bytes or ipaddress objects; an IPv4 address and its form ::ffff:a.b.c.d
        are one. sport, dport: 0 to 65535. Raises SegmentError for anything else.
        """
        cdef Segment ends
        cdef Key key
        cdef row_t row
        memset(&ends, 0, sizeof(ends))
        if parse_address("src", src, ends.src) != parse_address("dst", dst, ends.dst):
            raise SegmentError(f"dst: {dst!r} and src {src!r} are not of one IP version")
        ends.sport = parse_number("sport", sport, 0, 65535)
        ends.dport = parse_number("dport", dport, 0, 65535)
        ready(self)
        if self.endpoint != NULL:
            key_endpoint(&key, ends.src, ends.sport, ends.dst, ends.dport, &self.engine.table.hash_key)
        else:
            key_observed(&key, &ends, &self.engine.table.hash_key)
        if not store_find(&self.engine.table, &key, &row) or expired(self, row):
            return None
        return store_handle(&self.engine.table, row)

    def handle(self, row):
        """The handle of the connection in this row now; rows are what `apply` returns. StaleHandle if it is free."""
        cdef uint64_t at = whole("row", row, 0, (1 << 32) - 1)
        ready(self)
        if (
            at >= self.engine.table.high or not store_in_use(&self.engine.table, <row_t>at) or expired(self, <row_t>at)
        ):
            raise StaleHandle(f"row {row} holds no connection")
        return store_handle(&self.engine.table, <row_t>at)

    def summary(self, handle):
        """All that is told of one connection, as a dict of the fields of `summaries`. Raises StaleHandle."""
        cdef Records out = records_new(1, sizeof(Summary), SUMMARY_LAYOUT)
        cdef row_t row
        live_row(self, handle, &row)
        summarize(self, row, <Summary *>out.data)
        return out[0]

    def state(self, handle):
        """Observer: both halves' states, (originator's, responder's). Endpoint: our half's. Raises StaleHandle."""
        cdef Summary out
        cdef row_t row
        live_row(self, handle, &row)
        if self.endpoint != NULL:
            return State(self.engine.table.rows[row].state[0])
        summarize(self, row, &out)
        return State(out.state[0]), State(out.state[1])

    def explain(self, handle):
        """What happened to this connection, oldest first: a list of `TraceStep`.

        Needs a table made with `trace`; steps that the ring has overwritten are missing. Works for ended connections
        too. Raises StateError on a table that records nothing. Cost: one pass over the ring, the GIL released.
        """
        cdef uint64_t wanted = whole("handle", handle, 0, (1 << 64) - 1)
        cdef size_t count = 0
        cdef Step *steps
        enter(self)
        if self.engine.trace.steps == NULL:
            turn_give(&self.turn)
            raise StateError("nothing was recorded: make the table with trace=N to keep the last N transitions")
        with nogil:
            steps = steps_of(&self.engine.trace, wanted, &count)
        turn_give(&self.turn)
        if steps == NULL:
            raise MemoryError("no memory for the steps of a connection")
        try:
            packed = (<char *>steps)[:count * sizeof(Step)]
        finally:
            free(steps)
        return read_steps(packed)

    # -- the table as a whole ------------------------------------------------------------------------------------------

    def __len__(self):
        if self.engine == NULL:
            raise StateError("this table is not open")
        return self.engine.table.used

    def __contains__(self, handle):
        cdef row_t row
        try:
            number = index(handle)
        except TypeError:
            return False
        return row_of(self, number, &row)

    def __iter__(self):
        """The handles of all connections, in the order of their rows; those that end meanwhile are left out."""
        cdef size_t row = 0
        while True:
            ready(self)
            while row < self.engine.table.high and (
                not store_in_use(&self.engine.table, <row_t>row) or expired(self, <row_t>row)
            ):
                row += 1
            if row >= self.engine.table.high:
                return
            yield store_handle(&self.engine.table, <row_t>row)
            row += 1

    def counts(self):
        """How many halves are in each state: {State: int}. O(1): nothing is scanned.

        In the observer seat every connection counts twice, once for each host; an endpoint's listeners count as LISTEN.
        """
        cdef uint64_t totals[16]
        cdef int pair
        memset(totals, 0, sizeof(totals))
        ready(self)
        for pair in range(256):
            totals[pair >> 4] += self.engine.table.pairs[pair]
            if self.endpoint == NULL:
                totals[pair & 15] += self.engine.table.pairs[pair]
        return {state: totals[<int>state.value] for state in State}

    def tallies(self):
        """What has been counted since the table was made: {name: int}. Endpoint: also each `Event`, in lower case."""
        ready(self)
        if self.endpoint != NULL:
            found = dict(self.endpoint.counts)
            steps = found.pop("event")
            found.update({event.name.lower(): steps[<int>event.value] for event in Event})
            found["orphans"] = self.endpoint.orphans
        else:
            found = dict(self.observer.tallies)
        found["ended_lost"] = self.ended.lost
        return found

    def summaries(self):
        """Summaries of all live connections, in the order of their rows: records (n,). A copy.

        Cost: one pass over the rows and 120 bytes a connection; the GIL is released.
        """
        cdef Summary *data
        cdef size_t n = 0
        enter(self)
        with nogil:
            data = live_summaries(self.engine, self.observer, self.endpoint, &n)
        turn_give(&self.turn)
        if data == NULL:
            raise MemoryError("no memory for the summaries of a table")
        return records_take(<char *>data, n, sizeof(Summary), SUMMARY_LAYOUT)

    def __arrow_c_stream__(self, requested_schema=None):
        """The live connections as an Arrow stream, a copy of one moment: `polars.DataFrame(table)`."""
        return self.summaries().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self):
        """The columns of that stream."""
        return records_new(0, sizeof(Summary), SUMMARY_LAYOUT).__arrow_c_schema__()

    def take_ended(self):
        """Summaries of the connections that ended since the last call, in the order in which the table let go of them.

        Records (n,). One that timed out has as ended_ns when it was due, not when `advance` came round to it. Needs a
        table made with keep_ended=True (StateError otherwise). Until they are taken they cost 120 bytes each; those
        for which there was no memory are counted in `tallies` as ended_lost. O(1): the memory changes hands.
        """
        cdef EndLog ended
        ready(self)
        if not self.keep_ended:
            raise StateError("ended connections are not kept: make the table with keep_ended=True")
        ended = self.ended
        self.ended.data = NULL
        self.ended.count = self.ended.capacity = 0
        return records_take(<char *>ended.data, ended.count, sizeof(Summary), SUMMARY_LAYOUT)

    @property
    def columns(self):
        """The names that `column` knows."""
        return tuple(ENDPOINT_COLUMNS if self.endpoint != NULL else OBSERVER_COLUMNS)

    def column(self, name):
        """A zero-copy, read-only view of one field of every row: ``numpy.asarray(table.column("state_0"))``.

        Shape (capacity,). The memory never moves, so a view stays valid while the table grows; its length is that of
        the day it was made. Row r holds a connection where ``generation[r]`` is odd. What each column means:
        `fasttcp.core.columns`. Raises KeyError with the names that there are. O(1).
        """
        cdef Table *t
        cdef char *base
        cdef Py_ssize_t stride
        known = ENDPOINT_COLUMNS if self.endpoint != NULL else OBSERVER_COLUMNS
        try:
            where, offset, layout, size = known[name]
        except (KeyError, TypeError):
            raise KeyError(f"no column {name!r}; there are {', '.join(known)}") from None
        ready(self)
        t = &self.engine.table
        if where == "row":
            base, stride = <char *>t.rows, sizeof(Row)
        else:
            base, stride = t.cold, t.cold_stride
        return memoryview(column_new(self, base + <Py_ssize_t>offset, layout, size, t.capacity, stride))

    @property
    def capacity(self):
        """Rows that can be used without growing."""
        ready(self)
        return self.engine.table.capacity

    @property
    def max_capacity(self):
        """Rows that the table may grow to."""
        ready(self)
        return self.engine.table.max_rows

    @property
    def now_ns(self):
        """The newest time seen, ns; 0 before the first."""
        ready(self)
        return self.engine.table.now_ns

    @property
    def nbytes(self):
        """Bytes of memory behind rows, cold records, addresses, index and wheel; the trace is not counted."""
        ready(self)
        return store_bytes(&self.engine.table)

    def save(self, path):
        """Write the whole table to a file, which takes the place of `path` when it is complete, never before.

        With it: profile, secret, clock, handles, timers, counters, recorded steps, ended connections not yet taken.
        The file is for its owner's eyes only: who knows the secret can choose colliding tuples. Raises OSError. Cost:
        about 110 bytes a connection, 1 GB/s; other threads wait.
        """
        ready(self)
        with replacing(path) as file:
            enter(self)
            try:
                write_table(self, file.write)
            finally:
                turn_give(&self.turn)

    @classmethod
    def load(cls, path):
        """The table that `save` wrote to `path`: every handle, column and timer as it was.

        Raises OSError, and SnapshotError with file and offset for a file that is no saved table, was cut short or
        damaged, or was written by a version or on a machine whose tables cannot be read here.
        """
        cdef ConnectionTable table = cls.__new__(cls)
        with open(path, "rb") as file:
            reader = snapshot_open(file.readinto, os.fspath(path))
            try:
                read_table(table, reader)
            except SnapshotError:
                raise
            except (ValueError, TypeError, LookupError, OverflowError, InvariantError) as fault:
                raise SnapshotError(f"no table can be made of this: {fault}", os.fspath(path), reader.offset) from fault
        return table

    def check_invariants(self):
        """Check index, rows, free list, wheel and counts against each other. InvariantError names the first fault.

        Beyond the structure: a connection has exactly one armed timer (endpoint: the one its state needs, if any),
        and no event came that classification rules out. Cost: some passes over all rows; meant for tests and for
        doubt.
        """
        ready(self)
        if self.endpoint != NULL:
            endpoint_check(self.endpoint)
            return
        store_check(&self.engine.table)
        if self.engine.table.wheel.entries != self.engine.table.used:
            raise InvariantError(f"{self.engine.table.used} connections have {self.engine.table.wheel.entries} timers")
        if self.engine.never:
            raise InvariantError(f"{self.engine.never} events came that classification rules out")


# ---- saving and loading ----------------------------------------------------------------------------------------------

cdef int write_table(ConnectionTable self, write) except -1:
    """Hand the table to `write`, in pieces. The caller has the turn."""
    head = saved_head(self.engine, &self.ended) | {
        "seat": self.seat, "profile": self.profile.to_dict(), "on_full": self.on_full, "seed": self.seed,
        "keep_ended": self.keep_ended,
    }
    if self.endpoint != NULL:
        head |= saved_endpoint_head(self.endpoint)
    else:
        head["tallies"] = dict(self.observer.tallies)
    snapshot_begin(write, head)
    save_engine(self.engine, &self.ended, write)
    if self.endpoint != NULL:
        save_output(self.endpoint, write)
    return snapshot_end(write)


cdef int read_table(ConnectionTable self, SnapshotReader reader) except -1:
    """Open a new table with what a reader finds. On any error it is of no use but to be dropped."""
    cdef dict head = reader.head
    cdef Tallies tallies
    check_head(head)
    secret = bytes.fromhex(head["secret"])
    if len(secret) != 32:
        raise ValueError(f"a secret of {len(secret)} bytes")
    # Pages come with their first use: what the head claims costs no memory before the rows are there.
    open_table(
        self, head["capacity"], head["max_capacity"], Profile.from_dict(head["profile"]), head["seat"], head["seed"],
        secret, head["on_full"], head["tick_ns"], head["trace"], head["keep_ended"], head.get("accept_all", True),
        head.get("read_all", True), head.get("output_limit", OUTPUT_LIMIT), STORE_LAZY,
    )
    load_engine(self.engine, &self.ended, self.keep_ended, reader)
    if self.endpoint != NULL:
        load_endpoint(self.endpoint, reader)
        endpoint_recount(self.endpoint)
        endpoint_check(self.endpoint)
        return snapshot_done(reader)
    tallies = head["tallies"]
    self.observer.tallies = tallies
    if self.engine.table.wheel.entries != self.engine.table.used:
        raise ValueError(f"{self.engine.table.used} connections have {self.engine.table.wheel.entries} timers")
    return snapshot_done(reader)
