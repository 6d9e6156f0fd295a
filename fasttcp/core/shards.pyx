"""A table in several shards, each with a thread of its own.

What must stand here: which shard a segment belongs to, and the merging of what the shards say. What must not: anything that a
shard decides; each is a `ConnectionTable` that knows nothing of the others.

    segments ---> shard_of(ends): one number for both directions
                  part p:   counts the segments of each shard in its stretch of the batch
                  part p:   writes their numbers down, in their order, shard after shard
                  shard s:  applies its own
                  part p:   puts the verdicts where the segments of its stretch stand

Each step runs on all threads at once, the GIL released. Segments of one connection are always in one shard, so their order is
kept; segments of different connections have none. A shard's clock is the time of its own segments, and of `advance`.

Invariants: a connection is only ever in the shard of its ends; the number of a row, here, is row * shards + shard.

Cost beside the shards' own: some 8 ns a segment to find its shard and 3 to sort it and to bring its verdict back, shared by
the threads, and waking them, up to 50 us a batch. So give large batches: 65,536 segments are 2 ms of work for two threads.

Road not taken: one lock for each shard and a batch for each thread. The order of two segments of one connection in two batches
would then be anybody's guess.
"""

from operator import index

from cpython.buffer cimport PyBuffer_Release
from libc.math cimport sqrt
from libc.stdint cimport INT64_MAX, INT64_MIN, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from fasttcp.core.address cimport parse_address, parse_number, whole
from fasttcp.core.crew cimport Crew, crew_hire, crew_ready, crew_run
from fasttcp.core.layout cimport NO_ROW, Segment, ns_t
from fasttcp.core.observer cimport observer_advance
from fasttcp.core.pipeline cimport AHEAD, observe_some
from fasttcp.core.prefetch cimport load64, prefetch_read
from fasttcp.core.records cimport Records, records_new, records_take
from fasttcp.core.segments cimport segments_shown
from fasttcp.core.store cimport store_behind
from fasttcp.core.summary cimport Summary
from fasttcp.core.table cimport SUMMARY_LAYOUT, VERDICT_LAYOUT, ConnectionTable, table_engine
from fasttcp.core.tap cimport Observer, Verdict
from fasttcp.core.turn cimport Turn, turn_give, turn_take, turn_wait

from fasttcp.errors import InvariantError, SegmentError, StaleHandle, StateError
from fasttcp.spec import State

__all__ = ["ShardedTable"]

cdef enum:
    MOST = 64               # shards


cdef struct Work:           # one call of apply or advance, as all threads see it
    Observer *observers[64]
    int       shards
    uint64_t  secret[4]
    const Segment *segments
    size_t    n
    uint8_t  *which         # (n,) the shard of each segment
    uint32_t *order         # (n + AHEAD,) the numbers of the segments, sorted by shard
    size_t    begin[4097]   # [s * shards + p]: where in it those of shard s out of stretch p begin; before, how many they are
    Verdict  *told          # (n,) what is said of them, in that order
    Verdict  *verdicts      # (n,) the same in the order of the batch
    ns_t      now_ns
    size_t    budget


# ---- which shard -----------------------------------------------------------------------------------------------------

cdef inline uint64_t hash_end(const uint64_t *secret, const uint8_t *address, uint16_t port) noexcept nogil:
    cdef uint64_t x = (load64(address + 8) ^ secret[0]) * (secret[1] | 1)
    x ^= x >> 32
    return (x + load64(address) + port) * (secret[2] | 1)


cdef inline int shard_of(const uint64_t *secret, int shards, const Segment *s) noexcept nogil:
    """Symmetric: the two ends are hashed alone and added. Keyed, so nobody outside can fill one shard on purpose."""
    cdef uint64_t x = hash_end(secret, s.src, s.sport) + hash_end(secret, s.dst, s.dport)
    x = (x ^ (x >> 29)) * (secret[3] | 1)
    return <int>((x >> 32) * <uint64_t>shards >> 32)


# ---- what the threads do ---------------------------------------------------------------------------------------------

cdef inline size_t stretch(const Work *w, int part) noexcept nogil:
    """Where in the batch a part begins."""
    return w.n * part // w.shards


cdef void count_part(void *context, int part) noexcept nogil:
    cdef Work *w = <Work *>context
    cdef size_t count[64]
    cdef size_t i
    cdef int shard
    memset(count, 0, sizeof(count))
    for i in range(stretch(w, part), stretch(w, part + 1)):
        prefetch_read(&w.segments[i + AHEAD])
        w.which[i] = <uint8_t>shard_of(w.secret, w.shards, &w.segments[i])
        count[w.which[i]] += 1
    for shard in range(w.shards):
        w.begin[shard * w.shards + part] = count[shard]


cdef void sum_up(Work *w) noexcept nogil:
    """Make beginnings of the counts."""
    cdef size_t at = 0, count
    cdef int i
    for i in range(w.shards * w.shards):
        count = w.begin[i]
        w.begin[i] = at
        at += count
    w.begin[w.shards * w.shards] = at


cdef void sort_part(void *context, int part) noexcept nogil:
    """No branch on whose a segment is: it cannot be predicted."""
    cdef Work *w = <Work *>context
    cdef size_t next[64]
    cdef size_t i
    cdef int shard
    for shard in range(w.shards):
        next[shard] = w.begin[shard * w.shards + part]
    for i in range(stretch(w, part), stretch(w, part + 1)):
        shard = w.which[i]
        w.order[next[shard]] = <uint32_t>i
        next[shard] += 1


cdef void apply_shard(void *context, int shard) noexcept nogil:
    cdef Work *w = <Work *>context
    cdef size_t first = w.begin[shard * w.shards], end = w.begin[(shard + 1) * w.shards]
    observe_some(w.observers[shard], w.segments, w.order + first, end - first, w.told + first)


cdef void merge_part(void *context, int part) noexcept nogil:
    """A step of its own, because eight verdicts lie in one line: two threads that write to one line wait for each other."""
    cdef Work *w = <Work *>context
    cdef Verdict verdict
    cdef size_t i
    cdef int shard
    for shard in range(w.shards):
        for i in range(w.begin[shard * w.shards + part], w.begin[shard * w.shards + part + 1]):
            verdict = w.told[i]
            verdict.row = verdict.row if verdict.row == NO_ROW else verdict.row * <uint32_t>w.shards + <uint32_t>shard
            w.verdicts[w.order[i]] = verdict


cdef void advance_shard(void *context, int shard) noexcept nogil:
    cdef Work *w = <Work *>context
    observer_advance(w.observers[shard], w.now_ns, w.budget)


# ---- the class -------------------------------------------------------------------------------------------------------

cdef class ShardedTable:
    """A `ConnectionTable` of the observer seat in `shards` parts, each worked on by its own thread.

    shards: 1 to 64; as many threads work on a batch, one of them the caller's. capacity and max_capacity are those of all shards
    together; each gets a little more than its share, since chance fills them unevenly, and a shard that is full is full even
    if others have room. Everything else is as for `ConnectionTable`; trace and the eviction order are each shard's own.

    Calls are serialized as they are there. The shards themselves are in `tables`: read them, but send them no segments.
    """

    cdef Work work
    cdef Crew crew
    cdef Turn turn
    cdef size_t room                    # segments that work.which, .order and .told have room for
    cdef readonly tuple tables          # the shards, ConnectionTable each
    cdef object __weakref__

    def __init__(self, capacity, *, shards, max_capacity=None, seed=None, **options):
        cdef ConnectionTable table
        cdef int i
        if self.tables is not None:
            raise StateError("this table was opened before")
        n = whole("shards", shards, 1, MOST)
        capacity = whole("capacity", capacity, 1, 1 << 31)
        most = capacity if max_capacity is None else whole("max_capacity", max_capacity, capacity, 1 << 31)
        if options.pop("seat", "observer") != "observer":
            raise ValueError("a table in shards sits in the observer seat")
        if seed is not None:
            seed = whole("seed", seed, -(1 << 57), (1 << 57) - 1)
        tables = tuple([
            ConnectionTable(
                _share(capacity, n), max_capacity=max(_share(most, n), _share(capacity, n)), seat="observer",
                seed=None if seed is None else seed * MOST + i, **options,
            )
            for i in range(n)
        ])
        self.work.shards = n
        for i in range(n):
            table = tables[i]
            self.work.observers[i] = table.observer
        memcpy(self.work.secret, table_engine(tables[0]).table.secret, sizeof(self.work.secret))
        self.crew = crew_hire(n)
        self.tables = tables

    def __dealloc__(self):
        free(self.work.which)
        free(self.work.order)
        free(self.work.told)

    def __repr__(self):
        if self.tables is None:
            return f"<{type(self).__name__}, not open>"
        return f"<{type(self).__name__}: {len(self)} of {self.max_capacity} connections in {len(self.tables)} shards>"

    @property
    def shards(self):
        """How many there are."""
        return len(self.tables)

    # -- batches -------------------------------------------------------------------------------------------------------

    def apply(self, segments):
        """Apply a batch of segments on all threads, the GIL released: see `ConnectionTable.apply`.

        Returns the same records; `row` is what `handle` of this class understands.
        """
        cdef Py_buffer view
        cdef size_t n = segments_shown(segments, &view)
        cdef Records out
        try:
            if n > <uint32_t>-1:
                raise SegmentError(f"a batch of {n} segments; a table in shards takes {<uint32_t>-1} at once")
            out = records_new(n, sizeof(Verdict), VERDICT_LAYOUT)
            enter(self)
            try:
                if self.room < n:
                    hold(self, n)
                self.work.segments = <const Segment *>view.buf
                self.work.n = n
                self.work.verdicts = <Verdict *>out.data
                with nogil:
                    crew_run(self.crew, count_part, &self.work)
                    sum_up(&self.work)
                    crew_run(self.crew, sort_part, &self.work)
                    crew_run(self.crew, apply_shard, &self.work)
                    crew_run(self.crew, merge_part, &self.work)
            finally:
                leave(self)
            return out
        finally:
            PyBuffer_Release(&view)

    def advance(self, now_ns, budget=None):
        """Let the time be `now_ns` in every shard: see `ConnectionTable.advance`. The budget is each shard's own."""
        cdef bint behind = False
        cdef int i
        now = whole("now_ns", now_ns, INT64_MIN, INT64_MAX)
        most = (1 << 62) if budget is None else whole("budget", budget, 1, 1 << 62)
        enter(self)
        self.work.now_ns = now
        self.work.budget = most
        with nogil:
            crew_run(self.crew, advance_shard, &self.work)
        for i in range(self.work.shards):
            behind |= store_behind(&self.work.observers[i].engine.table)
        leave(self)
        return not behind

    # -- one at a time -------------------------------------------------------------------------------------------------

    def receive(self, segment):
        """Apply one segment to its shard: see `ConnectionTable.receive`."""
        cdef Py_buffer view
        cdef int shards = opened(self)
        cdef int shard
        packed = memoryview(segment) if not hasattr(segment, "_asdict") else _packed(segment)
        if segments_shown(packed, &view) != 1:
            PyBuffer_Release(&view)
            raise SegmentError("receive takes one segment")
        shard = shard_of(self.work.secret, shards, <const Segment *>view.buf)
        PyBuffer_Release(&view)
        handle, flags = self.tables[shard].receive(packed)
        return (None if handle is None else outward(self, handle, shard)), flags

    def shard_of(self, src, sport, dst, dport):
        """The number of the shard in which a connection between two ends is, or would be; in either order."""
        cdef Segment ends
        memset(&ends, 0, sizeof(ends))
        if parse_address("src", src, ends.src) != parse_address("dst", dst, ends.dst):
            raise SegmentError(f"dst: {dst!r} and src {src!r} are not of one IP version")
        ends.sport = parse_number("sport", sport, 0, 65535)
        ends.dport = parse_number("dport", dport, 0, 65535)
        return shard_of(self.work.secret, opened(self), &ends)

    def find(self, src, sport, dst, dport):
        """The handle of the connection between two ends, in either order; None if there is none."""
        shard = self.shard_of(src, sport, dst, dport)
        handle = self.tables[shard].find(src, sport, dst, dport)
        return None if handle is None else outward(self, handle, shard)

    def handle(self, row):
        """The handle of the connection in this row now (rows are what `apply` returns). Raises StaleHandle if it is free."""
        row = whole("row", row, 0, (1 << 32) - 1)
        shard = row % opened(self)
        try:
            return outward(self, self.tables[shard].handle(row // self.work.shards), shard)
        except StaleHandle:
            raise StaleHandle(f"row {row} holds no connection") from None

    def summary(self, handle):
        """All that is told of one connection: see `ConnectionTable.summary`."""
        shard, inner = inward(self, handle)
        told = self.tables[shard].summary(inner)
        told["handle"] = handle
        return told

    def state(self, handle):
        """Both halves' states: (originator's, responder's). Raises StaleHandle."""
        shard, inner = inward(self, handle)
        return self.tables[shard].state(inner)

    def explain(self, handle):
        """What happened to this connection: see `ConnectionTable.explain`."""
        shard, inner = inward(self, handle)
        return self.tables[shard].explain(inner)

    # -- the table as a whole ------------------------------------------------------------------------------------------

    def __len__(self):
        opened(self)
        return sum([len(table) for table in self.tables])

    def __contains__(self, handle):
        try:
            shard, inner = inward(self, handle)
        except (TypeError, StaleHandle):
            return False
        return inner in self.tables[shard]

    def __iter__(self):
        """The handles of all connections, shard after shard; those that end meanwhile are left out."""
        opened(self)
        for shard, table in enumerate(self.tables):
            for handle in table:
                yield outward(self, handle, shard)

    def counts(self):
        """How many halves are in each state: {State: int}, over all shards. O(shards)."""
        opened(self)
        counts = [table.counts() for table in self.tables]
        return {state: sum([one[state] for one in counts]) for state in State}

    def tallies(self):
        """What has been counted since the table was made, over all shards: {name: int}."""
        opened(self)
        tallies = [table.tallies() for table in self.tables]
        return {name: sum([one[name] for one in tallies]) for name in tallies[0]}

    def summaries(self):
        """Summaries of all live connections, shard after shard: see `ConnectionTable.summaries`."""
        opened(self)
        return merged(self, [table.summaries() for table in self.tables])

    def __arrow_c_stream__(self, requested_schema=None):
        """The live connections of all shards as an Arrow stream: see `ConnectionTable.__arrow_c_stream__`."""
        return self.summaries().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self):
        """Its schema."""
        opened(self)
        return self.tables[0].__arrow_c_schema__()

    def take_ended(self):
        """Summaries of the connections that ended since the last call, in the order of their ends within each shard."""
        opened(self)
        return merged(self, [table.take_ended() for table in self.tables])

    @property
    def columns(self):
        """The names that `column` knows."""
        opened(self)
        return self.tables[0].columns

    def column(self, name):
        """One zero-copy view for each shard, a tuple: see `ConnectionTable.column`. Row r of shard s is row r * shards + s."""
        opened(self)
        return tuple([table.column(name) for table in self.tables])

    @property
    def capacity(self):
        """Rows that can be used without growing, in all shards."""
        opened(self)
        return sum([table.capacity for table in self.tables])

    @property
    def max_capacity(self):
        """Rows that the shards may grow to."""
        opened(self)
        return sum([table.max_capacity for table in self.tables])

    @property
    def now_ns(self):
        """The newest time that any shard has seen, ns."""
        opened(self)
        return max([table.now_ns for table in self.tables])

    @property
    def nbytes(self):
        """Bytes of memory behind the shards."""
        opened(self)
        return sum([table.nbytes for table in self.tables])

    def check_invariants(self):
        """Check every shard: see `ConnectionTable.check_invariants`; and that its connections belong to it."""
        opened(self)
        for shard, table in enumerate(self.tables):
            table.check_invariants()
            check_home(self, table.summaries(), shard)


# ---- inside ----------------------------------------------------------------------------------------------------------

cdef int opened(ShardedTable table) except -1:
    """How many shards; StateError for a table that was never opened. Waits for a batch of another thread."""
    if table.tables is None:
        raise StateError("this table is not open")
    turn_wait(&table.turn)
    return table.work.shards


cdef int hold(ShardedTable table, size_t n) except -1:
    """Room to sort a batch of n segments: 13 bytes a segment."""
    cdef Work *w = &table.work
    free(w.which)
    free(w.order)
    free(w.told)
    table.room = 0
    w.which = <uint8_t *>malloc(n)
    w.order = <uint32_t *>calloc(n + AHEAD, sizeof(uint32_t))
    w.told = <Verdict *>malloc(n * sizeof(Verdict))
    if w.which == NULL or w.order == NULL or w.told == NULL:
        raise MemoryError(f"no memory to sort {n} segments")
    table.room = n
    return 0


cdef int enter(ShardedTable table) except -1:
    """Be alone in all shards until `leave`."""
    cdef ConnectionTable one
    cdef int taken = 0
    if table.tables is None:
        raise StateError("this table is not open")
    turn_take(&table.turn)
    try:
        crew_ready(table.crew)
        for one in table.tables:
            turn_take(&one.turn)
            taken += 1
    except BaseException:
        for one in table.tables[:taken]:
            turn_give(&one.turn)
        turn_give(&table.turn)
        raise
    return 0


cdef void leave(ShardedTable table) noexcept:
    cdef ConnectionTable one
    for one in table.tables:
        turn_give(&one.turn)
    turn_give(&table.turn)


cdef uint64_t outward(ShardedTable table, uint64_t handle, int shard) noexcept:
    """A shard's handle as this table's: the row's number becomes row * shards + shard."""
    return (handle >> 32) << 32 | <uint32_t>(<uint32_t>handle * <uint32_t>table.work.shards + <uint32_t>shard)


cdef tuple inward(ShardedTable table, handle):
    """(shard, the shard's handle). TypeError for what is no int, StaleHandle for what cannot be a handle."""
    cdef uint32_t shards = opened(table)
    cdef uint64_t named
    try:
        number = index(handle)
    except TypeError:
        raise TypeError(f"handle is {handle!r}: it must be an int") from None
    if not 0 <= number < 1 << 64:
        raise StaleHandle(f"handle {number} names no live connection")
    named = number
    return <uint32_t>named % shards, (named >> 32) << 32 | <uint32_t>named // shards


cdef Records merged(ShardedTable table, list parts):
    """The shards' summaries as one array, with this table's handles."""
    cdef Records part
    cdef Py_ssize_t total = sum([len(part) for part in parts])
    cdef Summary *data = <Summary *>malloc((total + 1) * sizeof(Summary))
    cdef Py_ssize_t at = 0, i
    cdef int shard = 0
    if data == NULL:
        raise MemoryError(f"no memory for {total} summaries")
    for part in parts:
        memcpy(&data[at], part.data, part.count * sizeof(Summary))
        for i in range(part.count):
            data[at + i].handle = outward(table, data[at + i].handle, shard)
        at += part.count
        shard += 1
    return records_take(<char *>data, total, sizeof(Summary), SUMMARY_LAYOUT)


cdef int check_home(ShardedTable table, Records live, int shard) except -1:
    cdef Summary *data = <Summary *>live.data
    cdef Segment ends
    cdef Py_ssize_t i
    memset(&ends, 0, sizeof(ends))
    for i in range(live.count):
        memcpy(ends.src, data[i].addr[0], 16)
        memcpy(ends.dst, data[i].addr[1], 16)
        ends.sport = data[i].port[0]
        ends.dport = data[i].port[1]
        if shard_of(table.work.secret, table.work.shards, &ends) != shard:
            raise InvariantError(f"handle {data[i].handle} of shard {shard} belongs to another shard")
    return 0


cdef _share(rows, shards):
    """Rows for one shard: six standard deviations above its share, so that chance does not fill it first."""
    margin = 0 if shards == 1 else <size_t>(6 * sqrt(rows / <double>shards)) + 16
    return min(-(-rows // shards) + margin, ((1 << 32) - 1) // shards)


cdef _packed(segment):
    from fasttcp.core.segments import SegmentBatch

    batch = SegmentBatch(1)
    batch.append(**segment._asdict())
    return batch
