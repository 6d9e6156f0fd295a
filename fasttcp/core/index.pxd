# From a key to its row in one cache line. See index.pyx for the drawing, the invariants and the costs.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from fasttcp.core.hash cimport HashKey, Key
from fasttcp.core.layout cimport NO_ROW, ROW_IPV6, Row, row_t
from fasttcp.core.memory cimport Block
from fasttcp.core.prefetch cimport load32, load64, prefetch_read, prefetch_write

cdef extern from "tags.h" nogil:
    uint32_t tags_match(const uint8_t *tag, uint8_t wanted) noexcept
    uint32_t tags_count(const uint8_t *tag) noexcept
    uint32_t lowest_bit(uint32_t mask) noexcept

cdef enum:
    BUCKET_ROWS = 12
    BUCKET_LOAD = 6         # rows a bucket when the table is full


cdef struct Bucket:         # 64 bytes, one cache line
    uint8_t  tag[12]        # 8 bits of the hash, 1 to 255; 0 is empty; packed from the front
    uint32_t next           # overflow bucket of the same chain, 0 for none
    row_t    row[12]


cdef struct Index:
    Bucket  *bucket             # (buckets,)
    Bucket  *overflow           # (overflow_high,), number 0 unused
    const Row *rows
    const uint8_t *addr6        # (rows, 32): the two addresses of IPv6 rows
    const HashKey *hash_key
    uint32_t base               # buckets before the first split: any number
    uint32_t buckets            # now
    uint32_t span               # base * 2^level: buckets before this level's first split; span <= buckets <= 2 * span
    uint32_t mask               # hash bits that choose among the copies of a base bucket: 2^(level + 1) - 1
    uint32_t max_buckets
    uint32_t load               # rows a bucket that call for a split, times 256
    uint32_t overflow_free      # first of the overflow buckets given back, 0 for none
    uint32_t overflow_high      # overflow buckets ever used, with number 0
    uint32_t overflow_used
    uint64_t count              # rows in the index
    bint     touch              # back new buckets with memory before they are used
    Block    main
    Block    spill


cdef inline uint32_t index_home(const Index *x, uint64_t hash) noexcept nogil:
    """The number of the bucket where a chain begins. No branch: the upper half of the hash chooses a base bucket, its
    lowest bits one of the copies, and a copy that is not split off yet is still in the one below. (A comparison becomes one,
    for some compilers, and half of its guesses are wrong while a table grows.)"""
    cdef uint32_t at = <uint32_t>((hash >> 32) * x.base >> 32) + x.base * (<uint32_t>hash & x.mask)
    cdef uint64_t beyond = <uint64_t>at - x.buckets         # of two numbers of 32 bits: its sign tells which is the larger
    return at - (x.span & (<uint32_t>(beyond >> 63) - 1))


cdef inline uint8_t index_tag(uint64_t hash) noexcept nogil:
    """Bits 24 to 31, which index_home never uses; 0 is taken for 1."""
    cdef uint8_t tag = <uint8_t>(hash >> 24)
    return tag + (tag == 0)


cdef inline void index_prefetch(const Index *x, uint64_t hash) noexcept nogil:
    prefetch_write(&x.bucket[index_home(x, hash)])


cdef inline bint key_is_of(const Index *x, const Key *k, row_t row) noexcept nogil:
    """The row, which must be in use, has exactly this key."""
    cdef const Row *r = &x.rows[row]
    if ((load64(r.addr) ^ load64(k.addr)) | <uint64_t>(load32(r.port) ^ load32(k.port))
            | (<uint32_t>r.flags & <uint32_t>ROW_IPV6 ^ k.v6)):
        return False
    if k.v6:
        return (memcmp(x.addr6 + <size_t>row * 32, k.wide[0], 16) == 0
                and memcmp(x.addr6 + <size_t>row * 32 + 16, k.wide[1], 16) == 0)
    return True


cdef inline row_t index_peek(const Index *x, uint64_t hash, uint32_t home) noexcept nogil:
    """The likeliest row, unchecked; prefetches it, and what else the look-up may need. Some row that there is or was,
    most likely number 0, where the bucket knows none.

    home: index_home of the hash, now or some insertions ago; an older one may miss the row, no more.
    """
    cdef const Bucket *b = &x.bucket[home]
    cdef uint32_t match = tags_match(b.tag, index_tag(hash))
    # Whether it is there cannot be predicted where many connections open: no branch on it. Without a match the last place
    # answers, which few buckets have ever filled.
    cdef row_t first = b.row[lowest_bit(match | 1 << (BUCKET_ROWS - 1))]
    prefetch_write(&x.rows[first])
    if b.next:
        prefetch_read(&x.overflow[b.next])
    match &= match - 1
    while match:
        prefetch_write(&x.rows[b.row[lowest_bit(match)]])
        match &= match - 1
    return first


cdef inline bint index_find(const Index *x, const Key *k, row_t *row) noexcept nogil:
    cdef const Bucket *b = &x.bucket[index_home(x, k.hash)]
    cdef uint8_t tag = index_tag(k.hash)
    cdef uint32_t match
    cdef row_t candidate
    while True:
        match = tags_match(b.tag, tag)
        while match:
            candidate = b.row[lowest_bit(match)]
            if key_is_of(x, k, candidate):
                row[0] = candidate
                return True
            match &= match - 1
        if b.next == 0:
            return False
        b = &x.overflow[b.next]


cdef inline void index_insert(Index *x, uint64_t hash, row_t row) noexcept nogil:
    """Enter a row that is not in the index; its key must stand in the row already. Splits at most one bucket."""
    cdef Bucket *b = &x.bucket[index_home(x, hash)]
    cdef uint32_t n = tags_count(b.tag)
    x.count += 1
    if n < BUCKET_ROWS:
        b.tag[n] = index_tag(hash)
        b.row[n] = row
    else:
        index_spill(x, b, index_tag(hash), row)
    if x.buckets < x.max_buckets:
        index_grow(x)


cdef inline void index_grow(Index *x) noexcept nogil:
    """Split one bucket for some six insertions; its line and its rows are fetched a few insertions before."""
    cdef uint64_t due = <uint64_t>x.buckets * x.load >> 8
    if x.count > due:
        index_split(x)
    elif x.count + 4 == due:
        prefetch_write(&x.bucket[x.buckets - x.span])
    elif x.count + 2 == due:
        index_prefetch_split(x)


# (0, or MemoryError) rows: how many there are to be now and at most; equal: a table of fixed size, never splits.
cdef int index_open(
    Index *x, const Row *rows, const uint8_t *addr6, const HashKey *hash_key, size_t rows_now, size_t rows_max,
    int block_flags, bint touch
) except -1 nogil
cdef void index_close(Index *x) noexcept nogil
cdef int index_reserve(Index *x, size_t rows) noexcept nogil        # room for that many rows; 0, or -1: no memory
cdef void index_spill(Index *x, Bucket *b, uint8_t tag, row_t row) noexcept nogil
cdef void index_split(Index *x) noexcept nogil
cdef void index_prefetch_split(const Index *x) noexcept nogil
cdef bint index_delete(Index *x, uint64_t hash, row_t row) noexcept nogil    # whether it was there
cdef int index_check(const Index *x, size_t rows_high) except -1            # InvariantError; rows_high: rows ever used
cdef size_t index_bytes(const Index *x) noexcept nogil
