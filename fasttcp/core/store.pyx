"""The table without its rules: rows, index, timers and counts kept as one.

What it stores: a 64-byte Row and a cold record for each connection, the index over their keys, one timer each, how many
there are in each pair of states. What must not stand here: any rule of TCP (which state follows which, what a timer
means), packets, a clock, a source of randomness.

    block      bytes a row          written
    rows       64                   by every event
    cold       40 (observer)        at the beginning and the end of a connection, and when its timer moves
    index      10.8 when full       at the beginning and the end
    wheel      4.3 + slots          when a timer is armed, parked again, disarmed
    addr6      32                   IPv6 only; never touched by IPv4
    links      8                    only with STORE_EVICT

Invariants, all verified by store_check: a row below `high` is in use (odd generation) or on the free list (even
generation, parked = ROW_FREE); one in use is in the index once, under its key, and has at most one timer; `used`,
`pairs` and the lists agree with the rows; rows at and beyond `high` have never been written. Nothing ever moves: a row
keeps its number and its address from insertion to removal, and growing only appends, so exported views stay valid.

Time: now_ns never goes back, an older value is taken for the newest seen. Tick 0 begins at the first value seen.

Cost at 10 million rows, prefetched as store.pxd says: find 2 lines, insert 4, remove 5. Growing is done in steps of at
most STEP_ROWS rows and of small pages, so that no insertion waits for the system's zeroing of a huge one; store_settle
turns what has grown into huge pages (1.2 to 1.9 times faster) when there is time for it.

Threads: none of this locks. One thread at a time for one table.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN

from fasttcp.core.hash cimport hash_expand, hash_wide
from fasttcp.core.index cimport index_bytes, index_check, index_close, index_open, index_reserve
from fasttcp.core.memory cimport (
    BLOCK_HUGE, BLOCK_PLAIN, Block, block_close, block_open, pages_settle, pages_touch, pages_use,
)
from fasttcp.core.names cimport N_STATES, S_FIN_WAIT_1, S_LAST_ACK, S_SYN_RCVD, S_SYN_SENT, S_TIME_WAIT
from fasttcp.core.prefetch cimport net32
from fasttcp.core.wheel cimport (
    WHEEL_SLOTS, wheel_bytes, wheel_check, wheel_close, wheel_open, wheel_reserve, wheel_see,
)

from fasttcp.errors import InvariantError

cdef enum:
    STEP_ROWS = 1024            # 26 pages of 4 KB: about what a batch of segments may wait for
    STEP_ADDR6 = 16384
    MAX_ROWS = 0x80000000       # 2^31, so that a chunk number and a place fit in Cold.timer_at


# ------------------------------------------------------------------------------------------------ opening and growing

cdef int store_open(
    Table *t, int seat, size_t rows, size_t max_rows, size_t cold_stride, uint64_t tick_ns, const uint64_t *secret,
    int flags
) except -1 nogil:
    """An empty table. On error it is as if it had never been opened."""
    with gil:
        if seat != SEAT_ENDPOINT and seat != SEAT_OBSERVER:
            raise ValueError(f"seat must be {SEAT_ENDPOINT} (endpoint) or {SEAT_OBSERVER} (observer), not {seat}")
        if not 1 <= max_rows <= <size_t>MAX_ROWS:
            raise ValueError(f"max_rows must be 1 to {<size_t>MAX_ROWS}, not {max_rows}")
        if not 1 <= rows <= max_rows:
            raise ValueError(f"rows must be 1 to max_rows ({max_rows}), not {rows}")
        if cold_stride < sizeof(Cold) or cold_stride % 8 or cold_stride > 4096:
            raise ValueError(f"cold_stride must be a multiple of 8 from {sizeof(Cold)} to 4096, not {cold_stride}")
        if not 1 <= tick_ns <= 1 << 40:
            raise ValueError(f"tick_ns must be 1 to 2^40, not {tick_ns}")
        if max_rows > (<size_t>-1 >> 2) // max(sizeof(Row), cold_stride):
            raise MemoryError(f"a table of {max_rows} rows does not fit this machine's addresses")
    memset(t, 0, sizeof(Table))
    t.cold_stride = cold_stride
    t.max_rows = max_rows
    t.seat = seat
    t.flags = flags
    t.tick_ns = tick_ns
    memcpy(t.secret, secret, sizeof(t.secret))
    hash_expand(&t.hash_key, secret)
    t.free = NO_ROW
    t.tick_end_ns = INT64_MIN           # so that the first store_see finds a new tick
    with gil:
        try:
            with nogil:
                _open_blocks(t, rows)
        except BaseException:
            store_close(t)
            raise
    _fill_classes(t)
    return 0


cdef int _open_blocks(Table *t, size_t rows) except -1 nogil:
    cdef int kind = 0
    cdef bint touch = not t.flags & STORE_LAZY
    cdef int i
    if t.flags & STORE_PLAIN_MEMORY:
        kind |= BLOCK_PLAIN
    elif not t.flags & STORE_SMALL_PAGES:
        kind |= BLOCK_HUGE
    block_open(&t.rows_block, t.max_rows * sizeof(Row), kind)
    t.rows = <Row *>t.rows_block.base
    block_open(&t.cold_block, t.max_rows * t.cold_stride, kind)
    t.cold = t.cold_block.base
    block_open(&t.addr6_block, t.max_rows * 32, kind)
    t.addr6 = <uint8_t *>t.addr6_block.base
    t.for_family[0].base = t.for_kind[0].base = <char *>t.rows
    t.for_family[0].stride = t.for_kind[0].stride = sizeof(Row)
    t.for_family[1].base = <char *>t.addr6
    t.for_family[1].stride = 32
    t.for_kind[1].base = t.cold + sizeof(Cold)         # a SYN writes what stands first behind it
    t.for_kind[1].stride = t.cold_stride
    if t.flags & STORE_EVICT:
        block_open(&t.links_block, (EVICT_CLASSES + t.max_rows) * sizeof(Links), kind)
        t.links = <Links *>t.links_block.base
    index_open(&t.index, t.rows, t.addr6, &t.hash_key, rows, t.max_rows, kind, touch)
    wheel_open(&t.wheel, t.rows, t.cold, t.cold_stride, t.max_rows, kind)
    if _grow_to(t, rows):
        with gil:
            raise MemoryError(f"no memory for a table of {rows} rows")
    for i in range(EVICT_CLASSES if t.links != NULL else 0):
        t.links[i].older = t.links[i].newer = i
    return 0


cdef int _grow_to(Table *t, size_t rows) noexcept nogil:
    """Make so many rows usable: 0, or -1 when the system refuses; what was usable stays so."""
    cdef bint touch = not t.flags & STORE_LAZY
    if _extend(&t.rows_block, rows * sizeof(Row), touch) or _extend(&t.cold_block, rows * t.cold_stride, touch):
        return -1
    if t.flags & STORE_IPV6 and _extend(&t.addr6_block, rows * 32, touch):
        return -1
    if t.flags & STORE_EVICT and _extend(&t.links_block, (EVICT_CLASSES + rows) * sizeof(Links), touch):
        return -1
    if index_reserve(&t.index, rows) or wheel_reserve(&t.wheel, rows, touch):
        return -1
    t.capacity = rows
    return 0


cdef inline int _extend(Block *b, size_t upto, bint touch) noexcept nogil:
    return pages_touch(b, upto) if touch else pages_use(b, upto)


cdef int store_grow(Table *t) noexcept nogil:
    """Some more rows, at the end: STORE_OK, STORE_FULL or STORE_NO_MEMORY. Small tables double, large ones step."""
    cdef size_t step = min(max(t.capacity, <size_t>16), <size_t>STEP_ROWS)
    if t.capacity == t.max_rows:
        return STORE_FULL
    return STORE_NO_MEMORY if _grow_to(t, min(t.capacity + step, t.max_rows)) else STORE_OK


cdef int store_grow_addr6(Table *t, row_t row) noexcept nogil:
    """Room for the addresses of IPv6 rows up to this one; memory comes with their first use."""
    cdef size_t rows = min((<size_t>row // STEP_ADDR6 + 1) * STEP_ADDR6, t.max_rows)
    return STORE_NO_MEMORY if pages_use(&t.addr6_block, rows * 32) else STORE_OK


cdef void store_settle(Table *t) noexcept nogil:
    """Put huge pages behind a table that has grown. Takes about 0.1 s a gigabyte; does nothing where there are none."""
    pages_settle(&t.rows_block)
    pages_settle(&t.cold_block)
    pages_settle(&t.addr6_block)
    pages_settle(&t.links_block)
    pages_settle(&t.index.main)
    pages_settle(&t.wheel.chunks)


cdef void store_close(Table *t) noexcept nogil:
    index_close(&t.index)
    wheel_close(&t.wheel)
    block_close(&t.rows_block)
    block_close(&t.cold_block)
    block_close(&t.addr6_block)
    block_close(&t.links_block)
    memset(t, 0, sizeof(Table))


cdef size_t store_bytes(const Table *t) noexcept nogil:
    """Bytes of memory behind the table: what was backed in advance, or has been used since."""
    cdef size_t total = index_bytes(&t.index) + wheel_bytes(&t.wheel)
    total += max(t.rows_block.touched, t.high * sizeof(Row))
    total += max(t.cold_block.touched, t.high * t.cold_stride)
    total += max(t.addr6_block.touched, min(t.addr6_block.usable, t.high * 32))
    total += max(t.links_block.touched, (EVICT_CLASSES + t.high) * sizeof(Links) if t.links != NULL else 0)
    return total


# ---------------------------------------------------------------------------------------------------------------- time

cdef void store_new_tick(Table *t, ns_t now_ns) noexcept nogil:
    """The slow half of store_see: the first value, or one beyond the current tick."""
    cdef uint64_t since, whole
    if (
        t.started and <uint64_t>now_ns - <uint64_t>t.tick_end_ns < t.tick_ns
        and <uint64_t>INT64_MAX - <uint64_t>now_ns > t.tick_ns
    ):
        t.now_ns = now_ns               # the very next one, which is the usual case: no division
        t.tick_start_ns = t.tick_end_ns
        t.tick_end_ns += <ns_t>t.tick_ns
        whole = t.now_tick + 1
        if t.wheel.entries == 0 or whole > t.wheel.drained + TIMEOUT_TICKS:
            wheel_see(&t.wheel, t.now_tick, whole)
        t.now_tick = whole
        return
    if not t.started:
        t.started = True
        t.epoch_ns = now_ns
    elif now_ns <= t.now_ns:
        return
    t.now_ns = now_ns
    # The difference of two int64 that are in order always fits uint64.
    since = <uint64_t>now_ns - <uint64_t>t.epoch_ns
    whole = ticks_of(since, t.tick_ns, False)
    t.tick_start_ns = <ns_t>(<uint64_t>t.epoch_ns + whole * t.tick_ns)
    if <uint64_t>INT64_MAX - <uint64_t>t.tick_start_ns < t.tick_ns:
        t.tick_end_ns = INT64_MAX
    else:
        t.tick_end_ns = t.tick_start_ns + <ns_t>t.tick_ns
    wheel_see(&t.wheel, t.now_tick, whole)
    t.now_tick = whole


cdef void store_set_horizon(Table *t, uint64_t horizon_ns) noexcept nogil:
    """Look at every timer at least once in horizon_ns. With 2MSL, entering TIME_WAIT never has to move an entry."""
    cdef uint64_t ticks = ticks_of(horizon_ns, t.tick_ns, False)
    t.wheel.horizon = <uint32_t>min(max(ticks, <uint64_t>1), <uint64_t>WHEEL_SLOTS - 1)


cdef tick_t store_tick_up(const Table *t, ns_t deadline_ns) noexcept nogil:
    """The first tick that begins at or after deadline_ns; the present one for a deadline that has passed, and one
    TIMEOUT_TICKS away for any beyond."""
    cdef uint64_t tick
    if deadline_ns <= t.now_ns:
        return <tick_t>t.now_tick
    tick = ticks_of(<uint64_t>deadline_ns - <uint64_t>t.epoch_ns, t.tick_ns, True)
    return <tick_t>min(tick, t.now_tick + TIMEOUT_TICKS)


cdef void store_arm_ns(Table *t, row_t row, ns_t deadline_ns) noexcept nogil:
    wheel_arm(&t.wheel, row, store_tick_up(t, deadline_ns))


# ------------------------------------------------------------------------------------------------------ eviction lists

cdef void _fill_classes(Table *t) noexcept nogil:
    cdef int a, b
    for a in range(16):
        for b in range(16):
            if a == S_TIME_WAIT or b == S_TIME_WAIT:
                t.class_of[a << 4 | b] = EVICT_TIME_WAIT
            elif S_FIN_WAIT_1 <= a <= S_LAST_ACK or S_FIN_WAIT_1 <= b <= S_LAST_ACK:
                t.class_of[a << 4 | b] = EVICT_CLOSING
            elif a <= S_SYN_RCVD and b <= S_SYN_RCVD and (a >= S_SYN_SENT or b >= S_SYN_SENT):
                t.class_of[a << 4 | b] = EVICT_HALF_OPEN
    t.class_of[0] = EVICT_TIME_WAIT                 # both CLOSED


cdef bint store_evict_candidate(const Table *t, uint32_t classes, row_t *row) noexcept nogil:
    """The row that entered its class first, of the lowest-numbered class that is asked for and not empty."""
    cdef uint32_t i
    for i in range(1, <uint32_t>EVICT_CLASSES):
        row[0] = store_oldest(t, i) if classes >> i & 1 else NO_ROW
        if row[0] != NO_ROW:
            return True
    return False


# ------------------------------------------------------------------------------------------------- restoring, checking

cdef int store_rebuild(Table *t, size_t high, row_t free, ns_t epoch_ns, ns_t now_ns) except -1 nogil:
    """Make a table of rows that were copied in: everything else is derived from them.

    Before: the table is open and empty, with room for `high` rows; rows, cold records and (for IPv6, after
    store_grow_addr6) addr6 of another table have been copied to [0, high), and free, epoch_ns and now_ns are what they were
    there. The secret may be another. After: as if the connections had been inserted here; handles,
    deadlines and the order in which free rows will be used hold; rows of one eviction class stand in the order of their
    numbers. ValueError names a row that cannot be; the table is then of no use but to be closed.
    """
    cdef size_t i, spare = 0
    cdef uint64_t pair
    cdef row_t row, other
    cdef Row *r
    cdef Cold *c
    cdef Key key
    with gil:
        if t.used or t.high:
            raise ValueError(f"only an empty table can be rebuilt, this one has had {t.high} rows")
        if high > t.capacity:
            raise ValueError(f"{high} rows do not fit a table with room for {t.capacity}")
        if now_ns < epoch_ns:
            raise ValueError(f"a clock at {now_ns} ns cannot have begun at {epoch_ns} ns")
    t.started = False
    store_new_tick(t, epoch_ns)
    store_new_tick(t, now_ns)
    t.high = high
    t.free = row = free
    while row != NO_ROW:
        if row >= high or store_cold(t, row).generation & 1 or spare == high:
            with gil:
                raise ValueError(f"the list of free rows breaks at row {row}")
        spare += 1
        t.rows[row].parked = ROW_FREE
        row = t.rows[row].deadline
    for i in range(high):
        row = <row_t>i
        r = &t.rows[row]
        c = store_cold(t, row)
        if not c.generation & 1:
            continue
        if r.state[0] >= N_STATES or r.state[1] >= N_STATES:
            with gil:
                raise ValueError(f"row {row}: no such pair of states: {r.state[0]}, {r.state[1]}")
        key.v6 = r.flags & ROW_IPV6
        key.wide[0] = t.addr6 + i * 32
        key.wide[1] = t.addr6 + i * 32 + 16
        if key.v6:
            if (i + 1) * 32 > t.addr6_block.usable:
                with gil:
                    raise ValueError(f"row {row}: IPv6, and its addresses are missing")
            pair = hash_wide(&t.hash_key, key.wide[0], key.wide[1])
            r.addr[0] = net32(<uint32_t>(pair >> 32))
            r.addr[1] = net32(<uint32_t>pair)
        memcpy(key.addr, r.addr, sizeof(r.addr))
        memcpy(key.port, r.port, sizeof(r.port))
        key.hash = hash_of_row(&t.hash_key, r)
        if index_find(&t.index, &key, &other):
            with gil:
                raise ValueError(f"rows {other} and {row} have the same key")
        index_insert(&t.index, key.hash, row)
        t.used += 1
        pair = <uint64_t>r.state[0] << 4 | r.state[1]
        t.pairs[pair] += 1
        if t.links != NULL:
            store_class(t, row, t.class_of[pair])
        if r.parked & PARKED:
            r.parked = 0
            wheel_arm(&t.wheel, row, r.deadline)
        else:
            r.parked = 0
    if t.used + spare != high:
        with gil:
            raise ValueError(f"{high} rows, {t.used} of them in use and {spare} on the list of free rows")
    return 0


cdef int store_check(const Table *t) except -1:
    """Walk everything; InvariantError names the first thing that does not hold. Cost: some visits to every row."""
    cdef uint64_t pairs[256]
    cdef uint64_t used = 0, free = 0, listed = 0
    cdef size_t i
    cdef row_t row
    cdef uint32_t older
    cdef const Row *r
    cdef const Cold *c
    cdef const char *p
    cdef Key key
    if not (t.high <= t.capacity <= t.max_rows):
        raise InvariantError(f"store: high {t.high}, capacity {t.capacity}, max_rows {t.max_rows}")
    memset(pairs, 0, sizeof(pairs))
    for i in range(t.high):
        r = &t.rows[i]
        c = store_cold(t, <row_t>i)
        if not ((c.generation & 1) == (r.parked != ROW_FREE)):
            raise InvariantError(f"store: row {i} has generation {c.generation} and parked {r.parked:#x}")
        if r.parked == ROW_FREE:
            continue
        used += 1
        if not (r.parked == 0 or r.parked & PARKED):
            raise InvariantError(f"store: row {i} has parked {r.parked:#x}")
        if not (r.state[0] < N_STATES and r.state[1] < N_STATES):
            raise InvariantError(f"store: row {i} has states {r.state[0]}, {r.state[1]}")
        pairs[<uint32_t>r.state[0] << 4 | r.state[1]] += 1
        key.v6 = r.flags & ROW_IPV6
        memcpy(key.addr, r.addr, sizeof(r.addr))
        memcpy(key.port, r.port, sizeof(r.port))
        key.wide[0] = t.addr6 + i * 32
        key.wide[1] = t.addr6 + i * 32 + 16
        if key.v6:
            if not (
                    <uint64_t>net32(r.addr[0]) << 32 | net32(r.addr[1])
                    == hash_wide(&t.hash_key, key.wide[0], key.wide[1])
            ):
                raise InvariantError(f"store: row {i} does not hold the hash of its addresses")
        key.hash = hash_of_row(&t.hash_key, r)
        if not index_find(&t.index, &key, &row):
            raise InvariantError(f"store: row {i} is in use and not in the index")
        if row != i:
            raise InvariantError(f"store: rows {row} and {i} have the same key")
    if not (used == t.used == t.index.count):
        raise InvariantError(f"store: {used} rows in use, {t.used} counted, {t.index.count} in the index")
    for i in range(256):
        if pairs[i] != t.pairs[i]:
            raise InvariantError(f"store: {pairs[i]} rows in states {i >> 4}, {i & 15}, {t.pairs[i]} counted")
    row = t.free
    while row != NO_ROW:
        free += 1
        if not (row < t.high and t.rows[row].parked == ROW_FREE and free <= t.high):
            raise InvariantError(f"store: the list of free rows breaks at row {row}")
        row = t.rows[row].deadline
    if used + free != t.high:
        raise InvariantError(f"store: {t.high} rows, {used} in use, {free} on the free list")
    if t.high < t.capacity:
        p = <const char *>&t.rows[t.high]
        for i in range(sizeof(Row)):
            if p[i] != 0:
                raise InvariantError(f"store: row {t.high} was never used and is not zero")
    for i in range(1, <size_t>EVICT_CLASSES if t.links != NULL else 1):
        older = <uint32_t>i
        row = store_oldest(t, older)
        while row != NO_ROW:
            if not (row < t.high and t.rows[row].parked != ROW_FREE):
                raise InvariantError(f"store: free row {row} is in eviction list {i}")
            r = &t.rows[row]
            if t.class_of[<uint32_t>r.state[0] << 4 | r.state[1]] != i:
                raise InvariantError(f"store: row {row} is in eviction list {i}")
            if t.links[row + EVICT_CLASSES].older != older:
                raise InvariantError(f"store: row {row} of eviction list {i} has lost the one before it")
            listed += 1
            if listed > used:
                raise InvariantError(f"store: eviction list {i} runs in a circle at row {row}")
            older = row + EVICT_CLASSES
            row = store_oldest(t, older)
        if t.links[i].older != older:
            raise InvariantError(f"store: eviction list {i} ends at place {older}, not {t.links[i].older}")
    for i in range(<size_t>256 if t.links != NULL else 0):
        if t.class_of[i] != EVICT_NONE:
            listed -= pairs[i]
    if listed != 0:
        raise InvariantError("store: the eviction lists do not hold all rows of their classes")
    index_check(&t.index, t.high)
    wheel_check(&t.wheel, t.high)
    return 0
