"""From a connection's key to its row, in one cache line.

What it stores: row numbers, each beside 8 bits of its key's hash. What must not stand here: keys (they are in the
rows), the rows' lives, time.

    bucket[home(hash)]                                                         overflow[next]
    +---------------------------+-----------+---------------------------+      +-----------------
    | tag[0] ... tag[11] 1 byte | next      | row[0] ... row[11] 4 byte | ---> | the same shape
    +---------------------------+-----------+---------------------------+      +-----------------

The bucket array grows by linear hashing (Litwin, VLDB 1980): bucket after bucket is split in two, one split for every
6 insertions, in place. There is no rehash, so no pause, and a bucket never moves. `base` may be any number, so the
array of a table with a known maximum ends exactly as large as that maximum wants it, with all buckets split alike.

    buckets 0 .. span-1 of this level; those below buckets-span are split, their other half is at +span

Invariants: every row in use is in exactly one chain, that of its hash, with its tag; tags are packed from the front of
the chain: every bucket but the last of a chain is full, the last is not empty unless it is the first; buckets of the
overflow pool are in one chain or on the free list. Deleting moves the last entry of the chain into the hole: there are
no tombstones, and after any amount of churn the chains are those of a table filled afresh.

Cost, one row of 10 million: find 1 line here and 1 in the rows (prefetch both, see store.pxd), 1.02 chain steps at full
load on average; insert and delete the same; 10.8 bytes a row of a full table. P(chain longer than 1) is 1 % at 6 rows a
bucket. Growing: one split reads some ten rows, which were prefetched two insertions before.

Worst case: all rows in one chain. Nobody who does not know the secret can bring that about (hash.pyx); memory for it is
reserved all the same, so an insertion cannot fail half way.
"""

from libc.string cimport memset

from fasttcp.core.hash cimport hash_of_row
from fasttcp.core.memory cimport block_close, block_commit, block_open, pages_touch, pages_use

from fasttcp.errors import InvariantError

cdef size_t STEP = 1 << 16      # bytes by which the bucket array grows: few enough to be zeroed between two segments
cdef enum:
    MAX_LEVEL = 24              # the hash bits below the tag's


cdef int index_open(
    Index *x, const Row *rows, const uint8_t *addr6, const HashKey *hash_key, size_t rows_now, size_t rows_max,
    int block_flags, bint touch
) except -1 nogil:
    """An empty index for rows_now rows that may grow to rows_max; MemoryError."""
    cdef size_t last = (rows_max + BUCKET_LOAD - 1) // BUCKET_LOAD
    # Not fewer than two pages of buckets: base * 2^level then meets the last size within 1.6 %.
    cdef size_t first = min(max((rows_now + BUCKET_LOAD - 1) // BUCKET_LOAD, <size_t>128), last)
    cdef int level = 0
    memset(x, 0, sizeof(Index))
    x.rows = rows
    x.addr6 = addr6
    x.hash_key = hash_key
    x.touch = touch
    while level < MAX_LEVEL and ((last - 1) >> level) + 1 > first:
        level += 1
    x.base = <uint32_t>(((last - 1) >> level) + 1)
    x.max_buckets = x.base << level
    x.span = x.base
    # Empty, so all the splits that rows_now asks for are done by counting them.
    x.mask = 1 if level else 0
    while level and <size_t>x.span * 2 <= first:
        x.span *= 2
        x.mask = x.mask * 2 + 1
    x.buckets = <uint32_t>first if first > x.span else x.span
    if x.buckets > x.max_buckets:
        x.buckets = x.max_buckets
    # The last split is due when the last row comes.
    x.load = <uint32_t>(<uint64_t>rows_max * 256 // x.max_buckets)
    x.overflow_high = 1
    block_open(&x.main, <size_t>x.max_buckets * sizeof(Bucket), block_flags)
    # A chain of n rows has at most (n - 1) / 12 overflow buckets, whatever the distribution; and two while it is split.
    block_open(&x.spill, (rows_max // BUCKET_ROWS + 4) * sizeof(Bucket), block_flags)
    x.bucket = <Bucket *>x.main.base
    x.overflow = <Bucket *>x.spill.base
    block_commit(&x.main, <size_t>x.buckets * sizeof(Bucket), touch)
    block_commit(&x.spill, (rows_now // BUCKET_ROWS + 4) * sizeof(Bucket), False)
    if touch:   # one bucket in a hundred overflows at full load
        block_commit(&x.spill, (rows_now // BUCKET_LOAD // 80 + 1) * sizeof(Bucket), True)
    return 0


cdef void index_close(Index *x) noexcept nogil:
    block_close(&x.main)
    block_close(&x.spill)
    memset(x, 0, sizeof(Index))


cdef int index_reserve(Index *x, size_t rows) noexcept nogil:
    """Make sure that `rows` rows fit, however they are distributed: 0, or -1 when the system refuses the memory."""
    return pages_use(&x.spill, (rows // BUCKET_ROWS + 4) * sizeof(Bucket))


cdef uint32_t _take_overflow(Index *x) noexcept nogil:
    """An overflow bucket, not cleared. Cannot fail: index_reserve made room for the worst distribution."""
    cdef uint32_t at = x.overflow_free
    if at:
        x.overflow_free = x.overflow[at].next
    else:
        at = x.overflow_high
        x.overflow_high += 1
    x.overflow_used += 1
    return at


cdef void _give_overflow(Index *x, uint32_t at) noexcept nogil:
    x.overflow[at].next = x.overflow_free
    x.overflow_free = at
    x.overflow_used -= 1


cdef void index_spill(Index *x, Bucket *b, uint8_t tag, row_t row) noexcept nogil:
    """Append to a chain whose first bucket is full."""
    cdef uint32_t n = BUCKET_ROWS
    cdef uint32_t at
    while b.next:
        b = &x.overflow[b.next]
    n = tags_count(b.tag)
    if n == BUCKET_ROWS:
        at = _take_overflow(x)
        b.next = at
        b = &x.overflow[at]
        memset(b, 0, sizeof(Bucket))
        n = 0
    b.tag[n] = tag
    b.row[n] = row


cdef bint index_delete(Index *x, uint64_t hash, row_t row) noexcept nogil:
    """Take a row out; the last entry of its chain fills the hole. Answers whether it was there."""
    cdef Bucket *first = &x.bucket[index_home(x, hash)]
    cdef Bucket *b = first
    cdef Bucket *last
    cdef Bucket *before = NULL
    cdef uint8_t tag = index_tag(hash)
    cdef uint32_t match, place, n
    while True:
        match = tags_match(b.tag, tag)
        while match:
            place = lowest_bit(match)
            if b.row[place] == row:
                break
            match &= match - 1
        if match:
            break
        if b.next == 0:
            return False
        before = b
        b = &x.overflow[b.next]
    last = b
    while last.next:
        before = last
        last = &x.overflow[last.next]
    n = tags_count(last.tag) - 1
    b.tag[place] = last.tag[n]
    b.row[place] = last.row[n]
    last.tag[n] = 0
    if n == 0 and last != first:
        _give_overflow(x, before.next)
        before.next = 0
    x.count -= 1
    return True


cdef inline int _grow_main(Index *x, size_t wanted) noexcept nogil:
    """Room for that many bytes of buckets: 0, or -1 when the system refuses."""
    if wanted <= (x.main.touched if x.touch else x.main.usable):
        return 0
    wanted = min((wanted + STEP - 1) // STEP * STEP, <size_t>x.max_buckets * sizeof(Bucket))
    return pages_touch(&x.main, wanted) if x.touch else pages_use(&x.main, wanted)


cdef void index_prefetch_split(const Index *x) noexcept nogil:
    """Fetch the rows whose hashes the next split will ask for."""
    cdef const Bucket *b = &x.bucket[x.buckets - x.span]
    cdef uint32_t i
    for i in range(tags_count(b.tag)):
        prefetch_read(&x.rows[b.row[i]])
    prefetch_write(&x.bucket[x.buckets])


cdef void index_split(Index *x) noexcept nogil:
    """Divide the next bucket of this level between itself and a new one at the end of the array.

    When the system refuses the memory for more buckets, nothing happens: chains grow longer, and the next insertion
    asks again.
    """
    cdef Bucket *read
    cdef Bucket *keep           # where the next entry that stays goes: never ahead of read
    cdef Bucket *move           # the last bucket of the new chain
    cdef uint32_t i, at, spare, kept = 0, moved = 0, n
    cdef uint64_t hash
    if _grow_main(x, (<size_t>x.buckets + 1) * sizeof(Bucket)):
        return
    read = keep = &x.bucket[x.buckets - x.span]
    move = &x.bucket[x.buckets]
    memset(move, 0, sizeof(Bucket))
    while True:
        n = tags_count(read.tag)
        for i in range(n):
            hash = hash_of_row(x.hash_key, &x.rows[read.row[i]])
            # The new bit of this level is the highest of the mask.
            if hash & (x.mask ^ (x.mask >> 1)):
                if moved == BUCKET_ROWS:
                    at = _take_overflow(x)
                    move.next = at
                    move = &x.overflow[at]
                    memset(move, 0, sizeof(Bucket))
                    moved = 0
                move.tag[moved] = read.tag[i]
                move.row[moved] = read.row[i]
                moved += 1
            else:
                if kept == BUCKET_ROWS:
                    keep = &x.overflow[keep.next]
                    kept = 0
                keep.tag[kept] = read.tag[i]
                keep.row[kept] = read.row[i]
                kept += 1
        if read.next == 0:
            break
        read = &x.overflow[read.next]
    for i in range(kept, <uint32_t>BUCKET_ROWS):
        keep.tag[i] = 0
    at = keep.next
    keep.next = 0
    while at:
        spare = x.overflow[at].next
        _give_overflow(x, at)
        at = spare
    x.buckets += 1
    if x.buckets == x.span * 2:
        x.span *= 2
        x.mask = x.mask * 2 + 1


cdef size_t index_bytes(const Index *x) noexcept nogil:
    """Bytes of memory behind the index."""
    cdef size_t spill = <size_t>x.overflow_high * sizeof(Bucket)
    return max(x.main.touched, <size_t>x.buckets * sizeof(Bucket)) + max(x.spill.touched, spill)


cdef int index_check(const Index *x, size_t rows_high) except -1:
    """Walk everything; InvariantError names the first thing that does not hold. Cost: all buckets and rows."""
    cdef const Bucket *b
    cdef uint32_t home, at, n, i, free = 0
    cdef uint64_t hash, entries = 0, overflows = 0
    cdef bytearray seen = bytearray(rows_high)
    if not (x.span <= x.buckets <= 2 * x.span and x.buckets <= x.max_buckets):
        raise InvariantError(f"index: {x.buckets} buckets at span {x.span}, at most {x.max_buckets}")
    if not (x.buckets == x.span or x.mask + 1 == 2 * (x.span // x.base)):
        raise InvariantError(f"index: mask {x.mask:#x} at span {x.span}")
    for home in range(x.buckets):
        b = &x.bucket[home]
        while True:
            n = tags_count(b.tag)
            if not (n == BUCKET_ROWS or b.next == 0):
                raise InvariantError(f"index: chain {home} goes on behind a bucket of {n} rows")
            for i in range(<uint32_t>BUCKET_ROWS):
                if not ((i < n) == (b.tag[i] != 0)):
                    raise InvariantError(f"index: chain {home} has a hole at place {i}")
            for i in range(n):
                if b.row[i] >= rows_high:
                    raise InvariantError(f"index: chain {home} holds row {b.row[i]}, beyond the {rows_high} ever used")
                if seen[b.row[i]]:
                    raise InvariantError(f"index: row {b.row[i]} is entered twice")
                seen[b.row[i]] = 1
                hash = hash_of_row(x.hash_key, &x.rows[b.row[i]])
                if index_home(x, hash) != home:
                    raise InvariantError(
                        f"index: row {b.row[i]} is in chain {home}, its key belongs to {index_home(x, hash)}"
                    )
                if index_tag(hash) != b.tag[i]:
                    raise InvariantError(f"index: row {b.row[i]} has tag {b.tag[i]}, its key {index_tag(hash)}")
            entries += n
            if b.next == 0:
                break
            overflows += 1
            if not (0 < b.next < x.overflow_high):
                raise InvariantError(f"index: chain {home} leads to overflow bucket {b.next}")
            if overflows > x.overflow_used:
                raise InvariantError(f"index: chain {home} runs in a circle")
            b = &x.overflow[b.next]
            if not b.tag[0]:
                raise InvariantError(f"index: chain {home} ends in an empty overflow bucket")
    if entries != x.count:
        raise InvariantError(f"index: {entries} entries found, {x.count} counted")
    if overflows != x.overflow_used:
        raise InvariantError(f"index: {overflows} overflow buckets found, {x.overflow_used} counted")
    at = x.overflow_free
    while at:
        free += 1
        if not (at < x.overflow_high and free < x.overflow_high):
            raise InvariantError(f"index: the list of free overflow buckets breaks at {at}")
        at = x.overflow[at].next
    if overflows + free + 1 != x.overflow_high:
        raise InvariantError(f"index: {x.overflow_high - 1} overflow buckets, {overflows} in use, {free} free")
    return 0
