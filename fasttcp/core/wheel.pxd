# When each row is to be looked at. See wheel.pyx for the drawing, the invariants and the costs.

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport Cold, Row, row_t, tick_t
from fasttcp.core.memory cimport Block
from fasttcp.core.prefetch cimport prefetch_write

cdef enum:
    WHEEL_SLOTS = 32768
    CHUNK_ROWS = 15
    PARKED = 0x8000             # Row.parked: the row has an entry; the slot is in the other 15 bits
    ROW_FREE = 0x7FFF           # Row.parked of a row that is on the free list
    TIMEOUT_TICKS = 0x3FFFFFFF  # the longest timeout: 2^30 - 1 ticks, 124 days of 10 ms


cdef struct Chunk:              # 64 bytes, one cache line
    uint32_t next               # the next chunk of the slot, or of the free list; 0 for none
    row_t    row[15]            # filled from the end: 0 to 14 unless it is the first of its slot


cdef struct Wheel:
    uint32_t *head              # (WHEEL_SLOTS,) place of the newest entry of each slot, 0 for none
    Chunk    *chunk             # (chunk_high,), number 0 unused
    Row      *rows
    char     *cold              # records that begin with Cold, stride bytes apart
    size_t   stride
    uint64_t cursor             # the first tick whose slot is not drained; every entry lies within 32767 ticks of it
    uint64_t drained            # no deadline is more than a tick before it; now is within TIMEOUT_TICKS of it
    uint64_t newest             # the latest tick that wheel_advance was called for
    uint64_t entries            # rows armed
    uint32_t horizon            # park no further ahead than this many ticks, 1 to 32767
    uint32_t chunk_free         # first of the chunks given back, 0 for none
    uint32_t chunk_high         # chunks ever used, with number 0
    uint32_t chunks_used
    uint32_t fetched            # the chunk whose rows were asked for ahead of their tick
    Block    heads
    Block    chunks


cdef inline uint64_t ticks_of(uint64_t since_epoch_ns, uint64_t tick_ns, bint up) noexcept nogil:
    """Nanoseconds since the epoch in ticks. A deadline is rounded up, now is rounded down: so nothing fires early, and
    nothing more than one tick late."""
    cdef uint64_t whole = since_epoch_ns // tick_ns
    return whole + (up and whole * tick_ns != since_epoch_ns)


cdef inline Cold *wheel_cold(const Wheel *w, row_t row) noexcept nogil:
    return <Cold *>(w.cold + <size_t>row * w.stride)


cdef inline uint32_t wheel_distance(const Wheel *w, tick_t deadline) noexcept nogil:
    """How many ticks from the cursor a timer with this deadline may be parked; one that is past due: 0."""
    cdef int32_t ahead = <int32_t>(deadline - <uint32_t>w.cursor)
    if ahead < 0:
        return 0
    return w.horizon if <uint32_t>ahead > w.horizon else <uint32_t>ahead


cdef inline void wheel_put(Wheel *w, row_t row, uint32_t slot) noexcept nogil:
    """Make the entry of a row that has none."""
    cdef uint32_t at = w.head[slot]
    if at & 15 == 0:                # its chunk is full, or there is none
        at = wheel_new_chunk(w, slot)
    at -= 1
    # Nothing is read of the chunk, which is far away: so nothing waits for it.
    w.chunk[at >> 4].row[at & 15] = row
    w.head[slot] = at
    wheel_cold(w, row).timer_at = at
    w.rows[row].parked = <uint16_t>(PARKED | slot)


cdef inline void wheel_arm(Wheel *w, row_t row, tick_t deadline) noexcept nogil:
    """Set, or set anew, the one timer of a row. Later than where its entry is parked, the usual case: one store.

    deadline is in ticks modulo 2^32, at most TIMEOUT_TICKS ahead of now; one in the past is due at once.
    """
    cdef Row *r = &w.rows[row]
    cdef uint32_t ahead = wheel_distance(w, deadline)
    r.deadline = deadline
    if r.parked & PARKED:
        if ((r.parked - <uint32_t>w.cursor) & (WHEEL_SLOTS - 1)) <= ahead:
            return
        wheel_take(w, row)
    else:
        w.entries += 1
    wheel_put(w, row, <uint32_t>(w.cursor + ahead) & (WHEEL_SLOTS - 1))


cdef inline void wheel_disarm(Wheel *w, row_t row) noexcept nogil:
    """Take the timer of a row away; without one, nothing happens."""
    if w.rows[row].parked & PARKED:
        wheel_take(w, row)
        w.rows[row].parked = 0
        w.entries -= 1


cdef inline bint wheel_pass(Wheel *w, uint64_t now_tick) noexcept nogil:
    """What wheel_advance comes to when nothing is left but the slot of now_tick, and that is empty. False: it is not so."""
    cdef uint32_t slot = <uint32_t>now_tick & (WHEEL_SLOTS - 1)
    if w.cursor != now_tick or w.head[slot] != 0:
        return False
    w.newest = max(w.newest, now_tick)
    w.cursor = w.drained = now_tick + 1
    wheel_fetch(w)
    return True


cdef int wheel_open(
    Wheel *w, Row *rows, char *cold, size_t stride, size_t rows_max, int block_flags
) except -1 nogil
cdef void wheel_close(Wheel *w) noexcept nogil
cdef int wheel_reserve(Wheel *w, size_t rows, bint touch) noexcept nogil    # chunks for that many rows; 0, or -1
cdef uint32_t wheel_new_chunk(Wheel *w, uint32_t slot) noexcept nogil      # the place behind its last
cdef void wheel_take(Wheel *w, row_t row) noexcept nogil
cdef void wheel_see(Wheel *w, uint64_t before, uint64_t now_tick) noexcept nogil
cdef void wheel_fetch(Wheel *w) noexcept nogil
cdef size_t wheel_advance(Wheel *w, uint64_t now_tick, size_t *budget, row_t *due, size_t n) noexcept nogil
cdef int wheel_check(const Wheel *w, size_t rows_high) except -1            # InvariantError
cdef size_t wheel_bytes(const Wheel *w) noexcept nogil
