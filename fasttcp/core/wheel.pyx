"""When each row is to be looked at: a timer wheel of one level.

What it stores: for every armed row one entry, in the slot of the tick at which the wheel will look at it. What must not
stand here: what a timer means, nanoseconds beyond ticks_of, any clock.

    head[slot] ---> chunk: next | slot, count | row[0] ... row[13] ---> chunk, full ---> chunk, full ---> 0
                    Row.parked = 0x8000 | slot              Row.deadline: when the timer is due, in ticks modulo 2^32
                    Cold.timer_at = chunk * 16 + place

    slots    reach at 10 ms a tick    a timer further away
    32768    327 s                    is parked at the horizon and looked at again there: one visit for every 327 s

Workload assumed: most timers are set anew, later, many times before they are due (every segment moves the idle
timeout), and most of the rest are one constant, 2MSL. So moving a timer LATER moves nothing: the entry stays, and when
its slot comes the wheel sees that the row is not due and parks it again. Moving it EARLIER than where it is parked
moves the entry at once. With the horizon set to 2MSL (store_set_horizon) entering TIME_WAIT is never earlier, so it is
one store in the row.

Invariants: an armed row has exactly one entry, parked no later than its deadline; all chunks of a slot but the first
are full; the entries of all slots lie within the 32768 ticks from `cursor`; a chunk is in one slot or on the free list.
There are at most rows / 14 + 32768 chunks, so the pool, which holds as many, cannot run out.

Cost: arming a row that is armed already 1 store in the row's line; arming 3 lines (row, cold record, chunk) and a slot
head; disarming 5 (the slot's last entry moves into the hole). Advancing: row and cold record of each entry looked at,
prefetched two chunks ahead. Memory: 4.6 bytes a row, and half a chunk a slot in use; the heads are 128 KB.

Roads not taken: entries that are left behind and validated when their slot comes (no cold record touched, but a row can
leave any number of them behind: memory without bound); intrusive lists (10 times longer bursts: every link is a cache
miss); levels (a timer moves at every level; one level and the horizon move it once in 327 s).
"""

from libc.string cimport memset

from fasttcp.core.memory cimport block_close, block_commit, block_open, pages_touch, pages_use

from fasttcp.errors import InvariantError


cdef inline size_t _chunks_for(size_t rows) noexcept nogil:
    """Chunks that hold so many rows in the worst distribution, with number 0."""
    return min(rows, rows // CHUNK_ROWS + WHEEL_SLOTS) + 1


cdef int wheel_open(
    Wheel *w, Row *rows, char *cold, size_t stride, size_t rows_max, int block_flags
) except -1 nogil:
    """An empty wheel at tick 0 for rows up to rows_max; wheel_reserve makes room for them. MemoryError."""
    memset(w, 0, sizeof(Wheel))
    w.rows = rows
    w.cold = cold
    w.stride = stride
    w.horizon = WHEEL_SLOTS - 1
    w.chunk_high = 1
    block_open(&w.heads, WHEEL_SLOTS * sizeof(uint32_t), 0)
    w.head = <uint32_t *>w.heads.base
    block_commit(&w.heads, WHEEL_SLOTS * sizeof(uint32_t), False)
    block_open(&w.chunks, _chunks_for(rows_max) * sizeof(Chunk), block_flags)
    w.chunk = <Chunk *>w.chunks.base
    return 0


cdef void wheel_close(Wheel *w) noexcept nogil:
    block_close(&w.heads)
    block_close(&w.chunks)
    memset(w, 0, sizeof(Wheel))


cdef int wheel_reserve(Wheel *w, size_t rows, bint touch) noexcept nogil:
    """Chunks for that many armed rows, however they are spread: 0, or -1 when the system refuses the memory.

    touch backs what a good distribution needs with memory now.
    """
    if pages_use(&w.chunks, _chunks_for(rows) * sizeof(Chunk)):
        return -1
    return pages_touch(&w.chunks, (rows // CHUNK_ROWS + 1) * sizeof(Chunk)) if touch else 0


cdef uint32_t wheel_new_chunk(Wheel *w, uint32_t slot) noexcept nogil:
    """Put an empty chunk at the head of a slot. Cannot fail: wheel_reserve made room for the worst distribution."""
    cdef uint32_t at = w.chunk_free
    cdef Chunk *c
    if at:
        w.chunk_free = w.chunk[at].next
        prefetch_write(&w.chunk[w.chunk_free])      # the next one to be taken: given back long ago, so far away
    else:
        at = w.chunk_high
        w.chunk_high += 1
    c = &w.chunk[at]
    c.next = w.head[slot]
    c.slot = <uint16_t>slot
    c.count = 0
    w.head[slot] = at
    w.chunks_used += 1
    return at


cdef inline void _give_head(Wheel *w, uint32_t slot) noexcept nogil:
    """Take the first chunk, now empty, from a slot."""
    cdef uint32_t at = w.head[slot]
    cdef Chunk *c = &w.chunk[at]
    w.head[slot] = c.next
    c.next = w.chunk_free
    w.chunk_free = at
    w.chunks_used -= 1


cdef void wheel_take(Wheel *w, row_t row) noexcept nogil:
    """Remove the entry of an armed row; its slot's last entry fills the hole. timer_at and parked are the caller's."""
    cdef uint32_t slot = w.rows[row].parked & (WHEEL_SLOTS - 1)
    cdef uint32_t at = wheel_cold(w, row).timer_at
    cdef Chunk *first = &w.chunk[w.head[slot]]
    cdef row_t last
    first.count -= 1
    last = first.row[first.count]
    if last != row:
        w.chunk[at >> 4].row[at & 15] = last
        wheel_cold(w, last).timer_at = at
    if first.count == 0:
        _give_head(w, slot)


cdef void wheel_see(Wheel *w, uint64_t before, uint64_t now_tick) noexcept nogil:
    """Now is now_tick; it was `before`. To be called for every new tick before a timer is set in it.

    Deadlines are kept modulo 2^32, so now may not run away from them. Those that time has left too far behind, by a
    jump of months or because the wheel was never drained, are brought after it: they are due all the same, and only the
    answer of when they were due is too late then. Cost of that: a visit to every entry, once in TIMEOUT_TICKS / 2.
    """
    cdef uint64_t oldest
    cdef uint32_t slot, at, i
    cdef const Chunk *c
    cdef Row *r
    if w.entries == 0:
        w.cursor = max(w.cursor, now_tick)
        w.drained = w.cursor
        return
    if now_tick <= w.drained + TIMEOUT_TICKS:
        return
    oldest = now_tick - TIMEOUT_TICKS // 2
    for slot in range(<uint32_t>WHEEL_SLOTS):
        at = w.head[slot]
        while at:
            c = &w.chunk[at]
            for i in range(c.count):
                r = &w.rows[c.row[i]]
                if <int64_t>before + <int32_t>(r.deadline - <uint32_t>before) < <int64_t>oldest:
                    r.deadline = <uint32_t>oldest
            at = c.next
    w.drained = oldest
    w.newest = now_tick
    w.cursor = max(w.cursor, now_tick - (WHEEL_SLOTS - 1))


cdef inline void _prefetch_rows(const Wheel *w, const Chunk *c) noexcept nogil:
    cdef uint32_t i
    for i in range(c.count):
        prefetch_write(&w.rows[c.row[i]])
        prefetch_write(wheel_cold(w, c.row[i]))
    prefetch_write(&w.chunk[c.next])


cdef inline uint32_t _park_again(const Wheel *w, uint64_t now_tick, uint32_t wait) noexcept nogil:
    """The slot for a row that is due in `wait` ticks, counted from now: a late cursor would meet it again and again."""
    cdef uint32_t furthest = <uint32_t>(w.cursor + (WHEEL_SLOTS - 1) - now_tick)
    return <uint32_t>(now_tick + min(wait, w.horizon, furthest)) & (WHEEL_SLOTS - 1)


cdef inline void _prefetch_targets(const Wheel *w, const Chunk *c, uint64_t now_tick) noexcept nogil:
    """Fetch the chunks where the rows of this one will be parked again."""
    cdef uint32_t i
    cdef int32_t wait
    for i in range(c.count):
        wait = <int32_t>(w.rows[c.row[i]].deadline - <uint32_t>now_tick)
        if wait > 0:
            prefetch_write(&w.chunk[w.head[_park_again(w, now_tick, <uint32_t>wait)]])


cdef inline void _prefetch_ahead(const Wheel *w) noexcept nogil:
    """Fetch what the next tick will look at first, and where the one after it will begin."""
    cdef uint32_t slot = <uint32_t>w.cursor & (WHEEL_SLOTS - 1)
    _prefetch_rows(w, &w.chunk[w.head[slot]])
    prefetch_write(&w.chunk[w.head[(slot + 1) & (WHEEL_SLOTS - 1)]])


cdef size_t wheel_advance(Wheel *w, uint64_t now_tick, size_t *budget, row_t *due, size_t n) noexcept nogil:
    """Look at the slots up to now_tick: write up to n rows that are due to `due`, disarmed, and answer how many.

    budget: how many entries may be looked at; what is left of it comes back. Stops when n or the budget is used up, in
    the middle of a slot if need be, and the next call goes on from there: cursor > now_tick when all is done. An entry
    that is not due is parked again. Rows come in the order of their slots, within a slot in none.

    However far now_tick has jumped, a slot is looked at once (the first of a jump beyond 32767 ticks: perhaps twice);
    such a jump begins somewhere in the wheel, so rows come in the order of slots but not of deadlines.
    """
    cdef size_t found = 0
    cdef size_t left = budget[0]
    cdef uint32_t now = <uint32_t>now_tick
    cdef uint32_t slot, at
    cdef int32_t wait
    cdef Chunk *c
    cdef Row *r
    cdef row_t row
    w.newest = max(w.newest, now_tick)
    if now_tick < w.cursor:
        return 0
    if now_tick - w.cursor >= WHEEL_SLOTS:
        w.cursor = now_tick - (WHEEL_SLOTS - 1)
    while w.cursor <= now_tick:
        if w.entries == 0:
            w.cursor = now_tick + 1
            break
        slot = <uint32_t>w.cursor & (WHEEL_SLOTS - 1)
        at = w.head[slot]
        if at:
            _prefetch_rows(w, &w.chunk[at])
            _prefetch_rows(w, &w.chunk[w.chunk[at].next])
            _prefetch_targets(w, &w.chunk[at], now_tick)
        if w.cursor < now_tick:
            prefetch_write(&w.chunk[w.head[(slot + 1) & (WHEEL_SLOTS - 1)]])
        while at:
            if left == 0 or found == n:
                budget[0] = left
                return found
            c = &w.chunk[at]
            # Rows two chunks ahead, the places they go to one ahead. Chunk 0 is empty: nothing follows the last.
            _prefetch_rows(w, &w.chunk[w.chunk[c.next].next])
            _prefetch_targets(w, &w.chunk[c.next], now_tick)
            # Rows are taken from the end of the first chunk, so the wheel is whole after each of them.
            while c.count and left and found < n:
                left -= 1
                c.count -= 1
                row = c.row[c.count]
                r = &w.rows[row]
                wait = <int32_t>(r.deadline - now)
                if wait <= 0:
                    r.parked = 0
                    wheel_cold(w, row).timer_at = NO_TIMER
                    w.entries -= 1
                    due[found] = row
                    found += 1
                else:
                    wheel_put(w, row, _park_again(w, now_tick, <uint32_t>wait))
            if c.count == 0:
                _give_head(w, slot)
            at = w.head[slot]
        w.cursor += 1
    w.drained = w.cursor
    _prefetch_ahead(w)
    budget[0] = left
    return found


cdef size_t wheel_bytes(const Wheel *w) noexcept nogil:
    """Bytes of memory behind the wheel."""
    return w.heads.usable + max(w.chunks.touched, <size_t>w.chunk_high * sizeof(Chunk))


cdef int wheel_check(const Wheel *w, size_t rows_high) except -1:
    """Walk everything; InvariantError names the first thing that does not hold. Cost: a visit to every slot and row."""
    cdef uint32_t slot, at, i, free = 0, used = 0
    cdef uint64_t entries = 0
    cdef const Chunk *c
    cdef const Row *r
    cdef row_t row
    cdef bytearray seen = bytearray(rows_high)
    if not (0 < w.horizon < WHEEL_SLOTS):
        raise InvariantError(f"wheel: horizon {w.horizon}")
    for slot in range(<uint32_t>WHEEL_SLOTS):
        at = w.head[slot]
        while at:
            if at >= w.chunk_high:
                raise InvariantError(f"wheel: slot {slot} leads to chunk {at}, beyond the {w.chunk_high} ever used")
            used += 1
            if used > w.chunks_used:
                raise InvariantError(f"wheel: slot {slot} runs in a circle")
            c = &w.chunk[at]
            if c.slot != slot:
                raise InvariantError(f"wheel: chunk {at} is in slot {slot} and says {c.slot}")
            if not (0 < c.count <= CHUNK_ROWS):
                raise InvariantError(f"wheel: chunk {at} holds {c.count} rows")
            if not (c.count == CHUNK_ROWS or at == w.head[slot]):
                raise InvariantError(f"wheel: chunk {at} is neither full nor first")
            for i in range(c.count):
                row = c.row[i]
                if row >= rows_high:
                    raise InvariantError(f"wheel: slot {slot} holds row {row}, beyond the {rows_high} ever used")
                if seen[row]:
                    raise InvariantError(f"wheel: row {row} has two entries")
                seen[row] = 1
                r = &w.rows[row]
                if r.parked != PARKED | slot:
                    raise InvariantError(f"wheel: row {row} is in slot {slot} and says {r.parked:#x}")
                if wheel_cold(w, row).timer_at != at << 4 | i:
                    raise InvariantError(f"wheel: row {row} does not know its place")
                # One that is overdue already is parked at the cursor, or in a slot that is to be looked at now.
                if not (
                        ((slot - <uint32_t>w.cursor) & (WHEEL_SLOTS - 1))
                        <= max(0, <int32_t>(r.deadline - <uint32_t>w.cursor), <int64_t>(w.newest - w.cursor))
                ):
                    raise InvariantError(f"wheel: row {row} is parked after its deadline")
            entries += c.count
            at = c.next
    if used != w.chunks_used:
        raise InvariantError(f"wheel: {used} chunks found, {w.chunks_used} counted")
    if entries != w.entries:
        raise InvariantError(f"wheel: {entries} entries found, {w.entries} counted")
    for i in range(rows_high):
        if not seen[i]:
            if w.rows[i].parked & PARKED:
                raise InvariantError(f"wheel: row {i} says {w.rows[i].parked:#x} and has no entry")
    at = w.chunk_free
    while at:
        free += 1
        if not (at < w.chunk_high and free < w.chunk_high):
            raise InvariantError(f"wheel: the list of free chunks breaks at {at}")
        at = w.chunk[at].next
    if used + free + 1 != w.chunk_high:
        raise InvariantError(f"wheel: {w.chunk_high - 1} chunks, {used} in use, {free} free")
    return 0
