# Rows, their index and their timers as one thing: the table without its rules. See store.pyx.
#
# Order of the calls for one segment, spread over a batch so that each waits for no memory:
#   1  key_observed (or key_endpoint), store_prefetch      the bucket's line
#   2  store_peek                                          the row's line
#   3  store_find, or store_insert                         the answer; always right, whatever happened since the peek
# In groups of 8: step 1 for one group, step 2 for the group before it, step 3 for the one before that. On the churn
# of 1 million connections, against all three steps on 32 segments at a time: 1.2 times faster (groups of 16: 1.1).
# Rows that are due, likewise: advance for at most 32, store_prefetch_remove for all of them, then store_remove.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fasttcp.core.hash cimport HashKey, Key, hash_of_row
from fasttcp.core.index cimport (
    Index, index_delete, index_find, index_home, index_insert, index_peek, index_prefetch, key_is_of,
)
from fasttcp.core.layout cimport NO_ROW, ROW_IPV6, Cold, Row, ns_t, row_t, tick_t
from fasttcp.core.memory cimport Block
from fasttcp.core.prefetch cimport prefetch_write
from fasttcp.core.wheel cimport (
    PARKED, ROW_FREE, TIMEOUT_TICKS, Wheel, ticks_of, wheel_advance, wheel_arm, wheel_disarm,
)

cdef enum:
    SEAT_ENDPOINT = 0
    SEAT_OBSERVER = 1

# Flags of store_open
cdef enum:
    STORE_EVICT = 0x01          # keep the lists from which a full table may choose its victim: 8 bytes a row
    STORE_PLAIN_MEMORY = 0x02   # no mmap, no huge pages: everything from calloc
    STORE_SMALL_PAGES = 0x04    # do not ask for huge pages
    STORE_LAZY = 0x08           # let pages appear at their first use; default: back all of `rows` with memory at once
    STORE_IPV6 = 0x10           # most connections will be IPv6: back their 32 bytes a row as well

# What a full table may sacrifice
cdef enum:
    EVICT_NONE = 0
    EVICT_TIME_WAIT = 1         # it is over: one side in TIME_WAIT, or both CLOSED (reset, and lingering)
    EVICT_HALF_OPEN = 2         # SYN_SENT or SYN_RCVD on one side, nothing further on the other
    EVICT_CLOSING = 3           # a FIN seen, not yet TIME_WAIT
    EVICT_CLASSES = 4

# Answers of store_insert
cdef enum:
    STORE_OK = 0
    STORE_FULL = 1              # max_rows are in use
    STORE_NO_MEMORY = 2         # the system gives no more


# The eviction lists are rings of places: place c, below EVICT_CLASSES, is the end of the list of class c, the place of a
# row is its number + EVICT_CLASSES, and a row of no class is a ring of its own. So nothing that is done to them has a case.
cdef struct Links:              # 8 bytes: the places of both neighbours
    uint32_t older
    uint32_t newer


# Records that stand beside the rows, one for each.
cdef struct Beside:
    char  *base
    size_t stride


cdef struct Table:
    Row     *rows               # (capacity,)
    char    *cold               # (capacity,) records of cold_stride bytes that begin with Cold
    uint8_t *addr6              # (capacity, 32) both addresses of rows with ROW_IPV6, side 0 first
    Links   *links              # (EVICT_CLASSES + capacity,) or NULL without STORE_EVICT
    size_t   cold_stride
    size_t   capacity           # rows usable now
    size_t   max_rows
    size_t   high               # rows ever used; those from here to capacity are all zero
    size_t   used               # rows in use
    row_t    free               # the row given back last, linked by Row.deadline; NO_ROW for none
    int      seat
    int      flags
    bint     started            # the clock has been seen, so epoch_ns holds
    ns_t     epoch_ns           # the first now_ns seen: tick 0
    ns_t     now_ns             # the newest seen
    ns_t     tick_start_ns      # when now_tick began; the last one of int64 when nothing more can be told
    ns_t     tick_end_ns        # when the next one begins
    uint64_t tick_ns
    uint64_t now_tick           # in the wheel's count
    uint64_t pairs[256]         # rows in use by state[0] * 16 + state[1]
    uint8_t  class_of[256]      # EVICT_... of each pair of states
    uint64_t secret[4]
    HashKey  hash_key           # from secret; must not move while the table is open
    Index    index
    Wheel    wheel
    Beside   for_family[2]      # what a look-up reads besides: of IPv4 rows nothing (the row itself), of IPv6 rows addr6
    Beside   for_kind[2]        # what a segment touches besides: nothing, or the cold record when it has a SYN
    Block    rows_block
    Block    cold_block
    Block    addr6_block
    Block    links_block


cdef inline Cold *store_cold(const Table *t, row_t row) noexcept nogil:
    return <Cold *>(t.cold + <size_t>row * t.cold_stride)


# ---------------------------------------------------------------------------------------------------------------- time

cdef inline void store_see(Table *t, ns_t now_ns) noexcept nogil:
    """The clock is now_ns, or stays where it was if that is older. A division only where a new tick begins."""
    if now_ns >= t.tick_end_ns:         # as the first value is
        store_new_tick(t, now_ns)
    elif now_ns > t.now_ns:
        t.now_ns = now_ns


cdef inline tick_t store_tick_after(const Table *t, uint32_t timeout_ticks) noexcept nogil:
    """The first tick that begins when a timeout of so many whole ticks, counted from now_ns, has passed."""
    return <tick_t>(t.now_tick + (t.now_ns != t.tick_start_ns) + timeout_ticks)


# ------------------------------------------------------------------------------------------------------------- look-up

cdef inline void store_prefetch(const Table *t, Key *k) noexcept nogil:
    k.home = index_home(&t.index, k.hash)
    prefetch_write(&t.index.bucket[k.home])


cdef inline void store_prefetch_beside(const Beside *of, row_t row) noexcept nogil:
    prefetch_write(of.base + row * of.stride)


cdef inline row_t store_peek(const Table *t, Key *k, uint32_t syn) noexcept nogil:
    """The row that the look-up will meet first, whose lines are fetched. syn: 1 for a segment with SYN, else 0.

    No branch on family and kind, which cannot be predicted in a mix: others ask for their row once more.
    """
    k.hint = index_peek(&t.index, k.hash, k.home)
    if t.addr6_block.usable:            # a table that has seen IPv6 goes on seeing it
        store_prefetch_beside(&t.for_family[k.v6], k.hint)
    store_prefetch_beside(&t.for_kind[syn], k.hint)
    return k.hint


cdef inline bint store_find(const Table *t, const Key *k, row_t *row) noexcept nogil:
    """Whether a row has this key, and which. A hint that still holds spares the bucket."""
    if k.hint != NO_ROW and t.rows[k.hint].parked != ROW_FREE and key_is_of(&t.index, k, k.hint):
        row[0] = k.hint
        return True
    return index_find(&t.index, k, row)


cdef inline uint64_t store_handle(const Table *t, row_t row) noexcept nogil:
    return <uint64_t>store_cold(t, row).generation << 32 | row


cdef inline bint store_row_of(const Table *t, uint64_t handle, row_t *row) noexcept nogil:
    """Whether the connection that this handle was made for is still in the table, and its row."""
    row[0] = <row_t>handle
    return row[0] < t.high and (handle >> 32) & 1 and store_cold(t, row[0]).generation == handle >> 32


cdef inline bint store_in_use(const Table *t, row_t row) noexcept nogil:
    """row must be below Table.high. Reads the row, not the cold record."""
    return t.rows[row].parked != ROW_FREE


# -------------------------------------------------------------------------------------------------------------- states

cdef inline void store_reclass(Table *t, row_t row, uint32_t after) noexcept nogil:
    """Move a row from the list of its class to the newest end of another's."""
    cdef uint32_t here = row + EVICT_CLASSES
    cdef Links *l = &t.links[here]
    cdef uint32_t end = here if after == EVICT_NONE else after
    cdef uint32_t last
    t.links[l.older].newer = l.newer
    t.links[l.newer].older = l.older
    l.older = l.newer = here
    last = t.links[end].older
    l.older = last
    l.newer = end
    t.links[last].newer = here
    t.links[end].older = here


cdef inline void store_class(Table *t, row_t row, uint32_t first) noexcept nogil:
    """The class of a row that had none, and whose links mean nothing."""
    t.links[row + EVICT_CLASSES].older = t.links[row + EVICT_CLASSES].newer = row + EVICT_CLASSES
    store_reclass(t, row, first)


cdef inline row_t store_oldest(const Table *t, uint32_t place) noexcept nogil:
    """The row that entered a class first (place: EVICT_...), or the next one after another's place. NO_ROW: no more."""
    place = t.links[place].newer
    return NO_ROW if place < EVICT_CLASSES else place - EVICT_CLASSES


cdef inline void store_move_states(Table *t, row_t row, uint32_t before, uint32_t after) noexcept nogil:
    """The counts and lists follow a row from one pair of states to another. No branch on whether they differ: nobody could
    predict it."""
    t.pairs[before] -= 1
    t.pairs[after] += 1
    if t.links != NULL and t.class_of[before] != t.class_of[after]:
        store_reclass(t, row, t.class_of[after])


cdef inline void store_set_states(Table *t, row_t row, uint8_t state_0, uint8_t state_1) noexcept nogil:
    """Give a row its states."""
    cdef Row *r = &t.rows[row]
    cdef uint32_t before = <uint32_t>r.state[0] << 4 | r.state[1]
    r.state[0] = state_0
    r.state[1] = state_1
    store_move_states(t, row, before, <uint32_t>state_0 << 4 | state_1)


cdef inline void store_set_state(Table *t, row_t row, int side, uint8_t state) noexcept nogil:
    cdef const Row *r = &t.rows[row]
    store_set_states(t, row, r.state[0] if side else state, state if side else r.state[1])


# -------------------------------------------------------------------------------------------------------------- timers

cdef inline void store_arm(Table *t, row_t row, tick_t deadline_tick) noexcept nogil:
    wheel_arm(&t.wheel, row, deadline_tick)


cdef inline void store_arm_after(Table *t, row_t row, uint32_t timeout_ticks) noexcept nogil:
    """Due when timeout_ticks have passed since now_ns; the common way, without a division."""
    wheel_arm(&t.wheel, row, store_tick_after(t, timeout_ticks))


cdef inline void store_disarm(Table *t, row_t row) noexcept nogil:
    wheel_disarm(&t.wheel, row)


cdef inline bint store_armed(const Table *t, row_t row) noexcept nogil:
    return t.rows[row].parked & PARKED != 0


cdef inline bint store_behind(const Table *t) noexcept nogil:
    """Whether a call of store_advance at now_ns would still have slots to look at."""
    return t.wheel.cursor <= t.now_tick


cdef inline bint store_overdue(const Table *t, row_t row) noexcept nogil:
    """Whether the timer of this row is due and waits for store_advance to come round to it."""
    return store_behind(t) and store_armed(t, row) and <int32_t>(t.rows[row].deadline - <tick_t>t.now_tick) <= 0


cdef inline ns_t store_deadline_ns(const Table *t, row_t row) noexcept nogil:
    """When the timer of an armed row is due, on the caller's clock: up to a tick after what was asked for."""
    cdef uint64_t tick = t.now_tick + <int64_t><int32_t>(t.rows[row].deadline - <tick_t>t.now_tick)
    return <ns_t>(<uint64_t>t.epoch_ns + tick * t.tick_ns)


cdef inline size_t store_advance(Table *t, ns_t now_ns, size_t *budget, row_t *due, size_t n) noexcept nogil:
    """Up to n rows whose timers are due, handed out disarmed; see wheel_advance. Complete when not store_behind(t)."""
    store_see(t, now_ns)
    return wheel_advance(&t.wheel, t.now_tick, budget, due, n)


# --------------------------------------------------------------------------------------------------- rows come and go

cdef inline bint store_has_room(const Table *t, const Key *k) noexcept nogil:
    """Whether a row for this key is at hand, without growing."""
    cdef size_t at = t.high if t.free == NO_ROW else t.free
    return at < t.capacity and (not k.v6 or (at + 1) * 32 <= t.addr6_block.usable)


cdef inline int store_make_room(Table *t, const Key *k) noexcept nogil:
    """Grow if need be: STORE_OK, STORE_FULL or STORE_NO_MEMORY."""
    cdef int answer
    if t.free == NO_ROW and t.high == t.capacity:
        answer = store_grow(t)
        if answer != STORE_OK:
            return answer
    if not store_has_room(t, k):
        return store_grow_addr6(t, <row_t>t.high if t.free == NO_ROW else t.free)
    return STORE_OK


cdef inline row_t store_take(Table *t) noexcept nogil:
    """A row that is free; there must be room. The caller writes all of it, its key by store_set_key, and of its cold record,
    where the generation goes on by one; then it calls store_enter."""
    cdef row_t at = t.free
    if at == NO_ROW:
        at = <row_t>t.high
        t.high += 1
        return at
    t.free = t.rows[at].deadline
    if t.free != NO_ROW:        # the next one to come will want them
        prefetch_write(&t.rows[t.free])
        prefetch_write(store_cold(t, t.free))
        prefetch_write(<char *>store_cold(t, t.free) + t.cold_stride - 1)
    return at


cdef inline void store_set_key(Table *t, row_t row, const Key *k) noexcept nogil:
    """Addresses and ports, but for the flag of IPv6."""
    cdef Row *r = &t.rows[row]
    memcpy(r.addr, k.addr, sizeof(r.addr))
    memcpy(r.port, k.port, sizeof(r.port))
    if k.v6:
        memcpy(t.addr6 + <size_t>row * 32, k.wide[0], 16)
        memcpy(t.addr6 + <size_t>row * 32 + 16, k.wide[1], 16)


cdef inline void store_enter(Table *t, const Key *k, row_t row, uint32_t pair) noexcept nogil:
    """Index, counts and lists learn of a row that was taken, and is in this pair of states."""
    index_insert(&t.index, k.hash, row)
    t.used += 1
    t.pairs[pair] += 1
    if t.links != NULL:
        store_class(t, row, t.class_of[pair])


cdef inline int store_insert(Table *t, const Key *k, ns_t now_ns, row_t *row) noexcept nogil:
    """A row for a key that the table does not hold: STORE_OK, STORE_FULL or STORE_NO_MEMORY.

    The row is all zero (both sides CLOSED, no timer) but for its key and last_ns, its cold record all zero but for
    generation and first_ns.
    """
    cdef row_t at
    cdef Row *r
    cdef Cold *c
    cdef uint32_t generation
    cdef int answer
    store_see(t, now_ns)
    answer = store_make_room(t, k)
    if answer != STORE_OK:
        return answer
    at = store_take(t)
    r = &t.rows[at]
    c = store_cold(t, at)
    generation = c.generation + 1
    memset(c, 0, t.cold_stride)
    c.generation = generation
    c.first_ns = t.now_ns
    memset(r, 0, sizeof(Row))
    store_set_key(t, at, k)
    r.flags = k.v6
    r.last_ns = t.now_ns
    store_enter(t, k, at, 0)
    row[0] = at
    return STORE_OK


cdef inline uint64_t store_prefetch_remove(const Table *t, row_t row) noexcept nogil:
    """Fetch the bucket of a row that is about to be removed; reads the row. Returns its hash."""
    cdef uint64_t hash = hash_of_row(&t.hash_key, &t.rows[row])
    index_prefetch(&t.index, hash)
    return hash


cdef inline void store_remove(Table *t, row_t row) noexcept nogil:
    """Let go of a row in use: its index entry, its timer, its place in the lists and counts. Its handles are void."""
    store_remove_hashed(t, row, hash_of_row(&t.hash_key, &t.rows[row]))


cdef inline void store_remove_hashed(Table *t, row_t row, uint64_t hash) noexcept nogil:
    """The same for a caller that has the row's hash."""
    cdef Row *r = &t.rows[row]
    cdef uint32_t pair = <uint32_t>r.state[0] << 4 | r.state[1]
    index_delete(&t.index, hash, row)
    wheel_disarm(&t.wheel, row)
    if t.links != NULL and t.class_of[pair] != EVICT_NONE:
        store_reclass(t, row, EVICT_NONE)
    t.pairs[pair] -= 1
    t.used -= 1
    store_cold(t, row).generation += 1
    memset(r, 0, sizeof(Row))
    r.parked = ROW_FREE
    r.deadline = t.free
    t.free = row


# ---------------------------------------------------------------------------------------------------------------- cold

# rows: usable at once; max_rows: 1 to 2^31. cold_stride: a multiple of 8, at least sizeof(Cold). tick_ns: 1 or more.
# secret: 4 words. ValueError, MemoryError. The table must be zeroed or closed, and must not move while it is open.
cdef int store_open(
    Table *t, int seat, size_t rows, size_t max_rows, size_t cold_stride, uint64_t tick_ns, const uint64_t *secret,
    int flags
) except -1 nogil
cdef void store_close(Table *t) noexcept nogil                              # twice, or on a zeroed table: harmless
cdef void store_set_horizon(Table *t, uint64_t horizon_ns) noexcept nogil   # before the first timer; see wheel.pyx
cdef void store_new_tick(Table *t, ns_t now_ns) noexcept nogil
cdef int store_grow(Table *t) noexcept nogil
cdef void store_settle(Table *t) noexcept nogil     # huge pages behind what has grown; 0.1 s a gigabyte
cdef int store_grow_addr6(Table *t, row_t row) noexcept nogil
cdef tick_t store_tick_up(const Table *t, ns_t deadline_ns) noexcept nogil
cdef void store_arm_ns(Table *t, row_t row, ns_t deadline_ns) noexcept nogil
cdef bint store_evict_candidate(const Table *t, uint32_t classes, row_t *row) noexcept nogil    # bit 1 << EVICT_...
cdef int store_rebuild(Table *t, size_t high, row_t free, ns_t epoch_ns, ns_t now_ns) except -1 nogil
cdef size_t store_bytes(const Table *t) noexcept nogil                      # bytes of memory behind all of it
cdef int store_check(const Table *t) except -1                              # InvariantError names what is broken
