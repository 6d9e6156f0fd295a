"""When each row is to be looked at: a timer wheel of one level.

What it stores: for every armed row one entry, in the slot of the tick at which the wheel will look at it. What must not
stand here: what a timer means, nanoseconds beyond ticks_of, any clock.

    head[slot] = chunk * 16 + place of the newest entry ---> chunk: next | - ... row[place] ... row[14]
                 0: none                                     next ---> chunk, full ---> chunk, full ---> 0
    Row.parked = 0x8000 | slot              Row.deadline: when the timer is due, in ticks modulo 2^32
    Cold.timer_at = chunk * 16 + place, while the row is parked; afterwards it says nothing

    slots    reach at 10 ms a tick    a timer further away
    32768    327 s                    is parked at the horizon and looked at again there: one visit for every 327 s

Workload assumed: most timers are set anew, later, many times before they are due (every segment moves the idle
timeout), and most of the rest are one constant, 2MSL. So moving a timer LATER moves nothing: the entry stays, and when
its slot comes the wheel sees that the row is not due and parks it again. Moving it EARLIER than where it is parked
moves the entry at once. With the horizon set to 2MSL (store_set_horizon) entering TIME_WAIT is never earlier, so it is
one store in the row.

Invariants: an armed row has exactly one entry, parked no later than its deadline; all chunks of a slot but the first
are full; the entries of all slots lie within the 32768 ticks from `cursor`; a chunk is in one slot or on the free list.
There are at most rows / 15 + 32768 chunks, so the pool, which holds as many, cannot run out.

Cost: arming a row that is armed already 1 store in the row's line; arming 3 lines (row, cold record, chunk) and a slot
head; disarming 5 (the slot's newest entry moves into the hole). Advancing: the row of each entry looked at, prefetched
two chunks ahead, and the cold record of those that are parked again; an empty slot is one look at its head. Memory: 4.3
bytes a row, and half a chunk a slot in use; the heads are 128 KB.

Roads not taken: entries that are left behind and validated when their slot comes (no cold record touched, but a row can
leave any number of them behind: memory without bound); intrusive lists (10 times longer bursts: every link is a cache
miss); levels (a timer moves at every level; one level and the horizon move it once in 327 s).
"""

from libc.string cimport memset

from fasttcp.core.memory cimport block_close, block_commit, block_open, pages_touch, pages_use

from fasttcp.errors import InvariantError


cdef inline size_t _chunks_for(size_t rows) noexcept nogil:
    """Chunks that hold so many rows in the worst distribution, with number 0, and with the one that a row leaves last: it is
    given back when the row has its new place."""
    return min(rows, rows // CHUNK_ROWS + WHEEL_SLOTS) + 2


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
    """Put an empty chunk before those of a slot, and answer the place behind its last; the caller sets the head. Cannot
    fail: wheel_reserve made room for the worst distribution."""
    cdef uint32_t at = w.chunk_free
    cdef Chunk *c
    if at:
        w.chunk_free = w.chunk[at].next
        prefetch_write(&w.chunk[w.chunk_free])      # the next one to be taken: given back long ago, so far away
    else:
        at = w.chunk_high
        w.chunk_high += 1
    c = &w.chunk[at]
    c.next = w.head[slot] >> 4
    w.chunks_used += 1
    return at << 4 | CHUNK_ROWS


cdef inline uint32_t _give_chunk(Wheel *w, uint32_t at) noexcept nogil:
    """Take the first chunk of a slot, now empty, and answer the new head: the next one is full."""
    cdef Chunk *c = &w.chunk[at]
    cdef uint32_t following = c.next
    c.next = w.chunk_free
    w.chunk_free = at
    w.chunks_used -= 1
    return following << 4


cdef void wheel_take(Wheel *w, row_t row) noexcept nogil:
    """Remove the entry of an armed row; its slot's newest entry fills the hole. `parked` is the caller's."""
    cdef uint32_t slot = w.rows[row].parked & (WHEEL_SLOTS - 1)
    cdef uint32_t at = wheel_cold(w, row).timer_at
    cdef uint32_t newest = w.head[slot]
    cdef row_t other = w.chunk[newest >> 4].row[newest & 15]
    if other != row:
        w.chunk[at >> 4].row[at & 15] = other
        wheel_cold(w, other).timer_at = at
    newest += 1
    w.head[slot] = newest if newest & 15 != CHUNK_ROWS else _give_chunk(w, newest >> 4)


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
            c = &w.chunk[at >> 4]
            for i in range(at & 15, <uint32_t>CHUNK_ROWS):
                r = &w.rows[c.row[i]]
                if <int64_t>before + <int32_t>(r.deadline - <uint32_t>before) < <int64_t>oldest:
                    r.deadline = <uint32_t>oldest
            at = c.next << 4
    w.drained = oldest
    w.newest = now_tick
    w.cursor = max(w.cursor, now_tick - (WHEEL_SLOTS - 1))


cdef enum:
    IS_DUE = WHEEL_SLOTS        # of a plan, which else holds slots

# Where each row of a chunk, by its place, is to go next.
ctypedef uint32_t[15] plan_t


cdef inline void _fetch_rows(const Wheel *w, uint32_t at) noexcept nogil:
    """Ask for the rows from this place on to the end of its chunk, and for the chunk behind."""
    cdef const Chunk *c = &w.chunk[at >> 4]
    cdef uint32_t i
    for i in range(at & 15, <uint32_t>CHUNK_ROWS):
        prefetch_write(&w.rows[c.row[i]])
    prefetch_write(&w.chunk[c.next])


cdef inline void _plan(const Wheel *w, uint32_t at, uint64_t now_tick, uint32_t *plan) noexcept nogil:
    """Which rows from this place on are due, and where the others are parked again; ask for what that will write to."""
    cdef const Chunk *c = &w.chunk[at >> 4]
    # Counted from now: a late cursor would meet them again and again.
    cdef uint32_t furthest = min(w.horizon, <uint32_t>(w.cursor + (WHEEL_SLOTS - 1) - now_tick))
    cdef uint32_t i, slot
    cdef int32_t wait
    for i in range(at & 15, <uint32_t>CHUNK_ROWS):
        wait = <int32_t>(w.rows[c.row[i]].deadline - <uint32_t>now_tick)
        plan[i] = IS_DUE
        if wait > 0:
            slot = (<uint32_t>now_tick + min(<uint32_t>wait, furthest)) & (WHEEL_SLOTS - 1)
            plan[i] = slot
            prefetch_write(&w.chunk[w.head[slot] >> 4])
            prefetch_write(wheel_cold(w, c.row[i]))


cdef size_t _drain(
    Wheel *w, uint32_t slot, uint64_t now_tick, size_t *left, row_t *due, size_t n
) noexcept nogil:
    """Look at the rows of a slot that is not empty, the newest first; what is left of it stays. How many were due."""
    cdef plan_t plans[2]
    cdef uint32_t at = w.head[slot]
    cdef uint32_t turn = 0, following, upto, i
    cdef size_t found = 0, before
    cdef const Chunk *c = &w.chunk[at >> 4]
    cdef row_t row
    if at >> 4 != w.fetched:
        _fetch_rows(w, at)
    if c.next:
        _fetch_rows(w, c.next << 4)
    _plan(w, at, now_tick, plans[0])
    while at and left[0] and found < n:
        c = &w.chunk[at >> 4]
        following = c.next
        if following:               # rows two chunks ahead, what they come to one ahead
            if w.chunk[following].next:
                _fetch_rows(w, w.chunk[following].next << 4)
            _plan(w, following << 4, now_tick, plans[turn ^ 1])
        upto = <uint32_t>min((at & 15) + min(left[0], n - found), <size_t>CHUNK_ROWS)
        before = found
        for i in range(at & 15, upto):
            row = c.row[i]
            if plans[turn][i] == IS_DUE:
                w.rows[row].parked = 0
                due[found] = row
                found += 1
            else:
                wheel_put(w, row, plans[turn][i])
        w.entries -= found - before
        left[0] -= upto - (at & 15)
        at = (at & ~<uint32_t>15) + upto
        if upto == CHUNK_ROWS:
            at = _give_chunk(w, at >> 4)
            turn ^= 1
        w.head[slot] = at
    return found


cdef void wheel_fetch(Wheel *w) noexcept nogil:
    """Ask for what the slot of the cursor will look at first, and where the one after it will begin."""
    cdef uint32_t slot = <uint32_t>w.cursor & (WHEEL_SLOTS - 1)
    if w.head[slot]:
        _fetch_rows(w, w.head[slot])
        w.fetched = w.head[slot] >> 4
    prefetch_write(&w.chunk[w.head[(slot + 1) & (WHEEL_SLOTS - 1)] >> 4])


cdef size_t wheel_advance(Wheel *w, uint64_t now_tick, size_t *budget, row_t *due, size_t n) noexcept nogil:
    """Look at the slots up to now_tick: write up to n rows that are due to `due`, disarmed, and answer how many.

    budget: how many entries may be looked at; what is left of it comes back. Stops when n or the budget is used up, in
    the middle of a slot if need be, and the next call goes on from there: cursor > now_tick when all is done. An entry
    that is not due is parked again. Rows come in the order of their slots, within a slot in none.

    However far now_tick has jumped, a slot is looked at once (the first of a jump beyond 32767 ticks: perhaps twice);
    such a jump begins somewhere in the wheel, so rows come in the order of slots but not of deadlines.
    """
    cdef size_t found = 0
    cdef uint32_t slot
    w.newest = max(w.newest, now_tick)
    if now_tick < w.cursor:
        return 0
    if now_tick - w.cursor >= WHEEL_SLOTS:
        w.cursor = now_tick - (WHEEL_SLOTS - 1)
    while w.cursor <= now_tick:
        slot = <uint32_t>w.cursor & (WHEEL_SLOTS - 1)
        if w.head[slot]:
            found += _drain(w, slot, now_tick, budget, due + found, n - found)
            if w.head[slot]:
                w.fetched = w.head[slot] >> 4
                return found
        elif w.entries == 0:
            w.cursor = now_tick
        w.cursor += 1
    w.drained = w.cursor
    wheel_fetch(w)
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
            if at >> 4 >= w.chunk_high:
                raise InvariantError(f"wheel: slot {slot} leads to chunk {at >> 4}, beyond the {w.chunk_high} ever used")
            if at >> 4 == 0 or at & 15 == CHUNK_ROWS:
                raise InvariantError(f"wheel: slot {slot} begins at place {at & 15} of chunk {at >> 4}")
            used += 1
            if used > w.chunks_used:
                raise InvariantError(f"wheel: slot {slot} runs in a circle")
            c = &w.chunk[at >> 4]
            for i in range(at & 15, <uint32_t>CHUNK_ROWS):
                row = c.row[i]
                if row >= rows_high:
                    raise InvariantError(f"wheel: slot {slot} holds row {row}, beyond the {rows_high} ever used")
                if seen[row]:
                    raise InvariantError(f"wheel: row {row} has two entries")
                seen[row] = 1
                r = &w.rows[row]
                if r.parked != PARKED | slot:
                    raise InvariantError(f"wheel: row {row} is in slot {slot} and says {r.parked:#x}")
                if wheel_cold(w, row).timer_at != at & ~<uint32_t>15 | i:
                    raise InvariantError(f"wheel: row {row} does not know its place")
                # One that is overdue already is parked at the cursor, or in a slot that is to be looked at now.
                if not (
                        ((slot - <uint32_t>w.cursor) & (WHEEL_SLOTS - 1))
                        <= max(0, <int32_t>(r.deadline - <uint32_t>w.cursor), <int64_t>(w.newest - w.cursor))
                ):
                    raise InvariantError(f"wheel: row {row} is parked after its deadline")
            entries += CHUNK_ROWS - (at & 15)
            at = c.next << 4
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
