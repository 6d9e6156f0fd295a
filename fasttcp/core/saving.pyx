"""What of an engine is saved: the rows and all that cannot be derived from them.

What must stand here: which memory goes into which section, for both seats. What must not: files, and the form of the
bytes (snapshot.pyx).

    section  data
    rows     Row, `high` of them
    cold     the cold records, of the size that the seat has
    addr6    32 bytes a row, as far as an IPv6 row ever stood
    order    numbers of the rows that may be evicted, by class, oldest first
    steps    the ring of recorded transitions as it lies in memory
    ended    summaries of ended connections that nobody has taken
    output   endpoint: segments that wait to be sent

The index, the wheel, the counts and the lists of eviction are made anew from the rows. Nothing of the data is believed:
sizes must agree, states and steps must be the machine's, the free list and the keys must hold together.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from fasttcp.core.address cimport whole
from fasttcp.core.layout cimport NO_ROW, Row, Segment, row_t
from fasttcp.core.machine cimport EVENT_SLOTS, machine_actions
from fasttcp.core.names cimport A_NEVER, N_STATES
from fasttcp.core.output cimport output_copy, output_put
from fasttcp.core.snapshot cimport snapshot_next, snapshot_put, snapshot_take
from fasttcp.core.store cimport (
    EVICT_CLASSES, EVICT_NONE, STORE_OK, Table, store_grow_addr6, store_in_use, store_oldest, store_rebuild,
    store_reclass,
)
from fasttcp.core.summary cimport Summary
from fasttcp.core.tcb cimport Counts
from fasttcp.core.trace cimport Step, Trace

import sys


cdef dict _sizes():
    """How the data are to be read; another machine or build may differ."""
    return {
        "byteorder": sys.byteorder, "row": sizeof(Row), "step": sizeof(Step), "summary": sizeof(Summary),
        "segment": sizeof(Segment),
    }


cdef dict saved_head(const Engine *engine, const EndLog *ended):
    """What load_engine must know before the sections come, in types that JSON has."""
    cdef const Table *t = &engine.table
    return _sizes() | {
        "cold": t.cold_stride, "secret": (<const char *>t.secret)[:sizeof(t.secret)].hex(), "tick_ns": t.tick_ns,
        "capacity": t.capacity, "max_capacity": t.max_rows, "high": t.high, "free": t.free, "started": bool(t.started),
        "epoch_ns": t.epoch_ns, "now_ns": t.now_ns, "never": engine.never,
        "trace": engine.trace.capacity, "written": engine.trace.written, "ended": ended.count, "ended_lost": ended.lost,
    }


cdef int check_head(dict head) except -1:
    """ValueError when the data are those of another machine or build."""
    for name, size in _sizes().items():
        if head[name] != size:
            raise ValueError(f"{name} is {head[name]!r} there and {size!r} here")
    return 0


cdef int save_engine(const Engine *engine, const EndLog *ended, write) except -1:
    cdef const Table *t = &engine.table
    cdef const Trace *trace = &engine.trace
    cdef row_t row
    cdef uint32_t i
    snapshot_put(write, "rows", t.rows, t.high * sizeof(Row))
    snapshot_put(write, "cold", t.cold, t.high * t.cold_stride)
    snapshot_put(write, "addr6", t.addr6, min(t.addr6_block.usable, t.high * 32))
    order = bytearray()
    for i in range(1, <uint32_t>EVICT_CLASSES if t.links != NULL else 0):
        row = store_oldest(t, i)
        while row != NO_ROW:
            order += (<char *>&row)[:sizeof(row)]
            row = store_oldest(t, row + EVICT_CLASSES)
    snapshot_put(write, "order", <const char *>order, len(order))
    snapshot_put(write, "steps", trace.steps, min(trace.written, trace.capacity) * sizeof(Step))
    snapshot_put(write, "ended", ended.data, ended.count * sizeof(Summary))
    return 0


cdef int _expect(SnapshotReader reader, str name, size_t length) except -1:
    """The next section must have this name and length."""
    cdef size_t found = snapshot_next(reader, name)
    if found != length:
        raise ValueError(f"section {name!r} has {found} bytes, not {length}")
    return 0


cdef int load_engine(Engine *engine, EndLog *ended, bint keep_ended, SnapshotReader reader) except -1:
    """Fill an engine that was opened as the head says, and has seen nothing yet. ValueError, KeyError,
    SnapshotError."""
    cdef dict head = reader.head
    cdef Table *t = &engine.table
    cdef Trace *trace = &engine.trace
    cdef size_t high, length, i
    cdef row_t row
    cdef uint64_t written
    cdef bytearray order
    high = whole("high", head["high"], 0, t.capacity)
    if head["cold"] != t.cold_stride:
        raise ValueError(f"cold is {head['cold']!r} there and {t.cold_stride} here")
    written = whole("written", head["written"], 0, (1 << 64) - 1)
    engine.never = whole("never", head["never"], 0, (1 << 64) - 1)
    ended.lost = whole("ended_lost", head["ended_lost"], 0, (1 << 64) - 1)

    _expect(reader, "rows", high * sizeof(Row))
    snapshot_take(reader, "rows", t.rows, high * sizeof(Row))
    _expect(reader, "cold", high * t.cold_stride)
    snapshot_take(reader, "cold", t.cold, high * t.cold_stride)
    length = snapshot_next(reader, "addr6")
    if length > high * 32:
        raise ValueError(f"section 'addr6' has {length} bytes for {high} rows")
    if length and store_grow_addr6(t, <row_t>(high - 1)) != STORE_OK:
        raise MemoryError(f"no memory for {length} bytes of addresses")
    snapshot_take(reader, "addr6", t.addr6, length)
    if head["started"]:
        store_rebuild(
            t, high, whole("free", head["free"], 0, (1 << 32) - 1),
            whole("epoch_ns", head["epoch_ns"], INT64_MIN, INT64_MAX),
            whole("now_ns", head["now_ns"], INT64_MIN, INT64_MAX),
        )
    elif high:
        raise ValueError(f"{high} rows, and the clock was never seen")

    length = snapshot_next(reader, "order")
    if length > high * sizeof(row) or length % sizeof(row):
        raise ValueError(f"section 'order' has {length} bytes for {high} rows")
    order = bytearray(length)
    snapshot_take(reader, "order", <char *>order, length)
    for i in range(length // sizeof(row)):
        memcpy(&row, <char *>order + i * sizeof(row), sizeof(row))
        move_to_newest(t, row)

    length = min(written, trace.capacity)
    _expect(reader, "steps", length * sizeof(Step))
    snapshot_take(reader, "steps", trace.steps, length * sizeof(Step))
    for i in range(length):
        if not is_step(&trace.steps[i]):
            raise ValueError(f"step {i} is none of the machine's")
    trace.written = written

    length = whole("ended", head["ended"], 0, 1 << 32 if keep_ended else 0) * sizeof(Summary)
    _expect(reader, "ended", length)
    ended.data = <Summary *>malloc(length + 1)
    if ended.data == NULL:
        raise MemoryError(f"no memory for {length} bytes of ended connections")
    snapshot_take(reader, "ended", ended.data, length)
    ended.count = ended.capacity = length // sizeof(Summary)
    return 0


cdef int move_to_newest(Table *t, row_t row) except -1:
    """Put a row at the newest end of its eviction list."""
    cdef uint32_t kind = EVICT_NONE
    if t.links != NULL and row < t.high and store_in_use(t, row):
        kind = t.class_of[t.rows[row].state[0] * 16 + t.rows[row].state[1]]
    if kind == EVICT_NONE:
        raise ValueError(f"row {row} is in the order of eviction and cannot be evicted")
    store_reclass(t, row, kind)
    return 0


cdef bint is_step(const Step *step) noexcept nogil:
    return step.state < N_STATES and step.event < EVENT_SLOTS and not machine_actions(step.state, step.event) & A_NEVER


# ---- what only an endpoint has ---------------------------------------------------------------------------------------

cdef dict saved_endpoint_head(const Endpoint *e):
    return {
        "accept_all": bool(e.auto_accept), "read_all": bool(e.auto_read), "output_limit": e.output.limit,
        "output": e.output.count, "next_port": e.next_port, "tallies": dict(e.counts),
    }


cdef int save_output(const Endpoint *e, write) except -1:
    cdef size_t n = e.output.count
    cdef bytearray waiting = bytearray(n * sizeof(Segment))
    output_copy(&e.output, <Segment *><char *>waiting)
    return snapshot_put(write, "output", <const char *>waiting, n * sizeof(Segment))


cdef int load_endpoint(Endpoint *e, SnapshotReader reader) except -1:
    """What stands behind the engine's sections. ValueError, KeyError, SnapshotError, MemoryError."""
    cdef dict head = reader.head
    cdef Counts counts = head["tallies"]
    cdef size_t n = whole("output", head["output"], 0, e.output.limit), i
    cdef bytearray waiting
    e.counts = counts
    e.next_port = whole("next_port", head["next_port"], 0, (1 << 32) - 1)
    _expect(reader, "output", n * sizeof(Segment))
    waiting = bytearray(n * sizeof(Segment))
    snapshot_take(reader, "output", <char *>waiting, n * sizeof(Segment))
    for i in range(n):
        if not output_put(&e.output, <const Segment *>(<char *>waiting + i * sizeof(Segment))):
            raise MemoryError(f"no memory for {n} segments that wait to be sent")
    return 0
