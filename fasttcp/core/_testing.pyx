"""Lets tests reach the core's free functions. Not part of the public face: nothing else may import it.

Every method calls the function of the same name and checks only what would crash the interpreter (row numbers).
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free as c_free, malloc
from libc.string cimport memcpy, memset

from fasttcp.core.hash cimport HashKey, Key, chacha_block, hash_expand, hash_of_row, key_endpoint, key_observed, wide_t
from fasttcp.core.index cimport Bucket, index_home, index_tag
from fasttcp.core.layout cimport Row, Segment, row_t
from fasttcp.core.memory cimport BLOCK_HUGE, BLOCK_PLAIN, Block, block_close, block_commit, block_open
from fasttcp.core.store cimport (
    EVICT_CLASSES, STORE_EVICT, STORE_IPV6, STORE_LAZY, STORE_OK, STORE_PLAIN_MEMORY, STORE_SMALL_PAGES, Table,
    store_advance, store_arm, store_arm_after, store_arm_ns, store_armed, store_behind, store_bytes, store_check,
    store_close, store_cold, store_deadline_ns, store_disarm, store_evict_candidate, store_find, store_grow_addr6,
    store_handle, store_in_use, store_insert, store_open, store_peek, store_prefetch, store_prefetch_remove,
    store_rebuild, store_remove, store_row_of, store_see, store_set_horizon, store_set_state, store_settle, store_tick_up,
)
from fasttcp.core.wheel cimport TIMEOUT_TICKS, WHEEL_SLOTS, ticks_of

cdef extern from "tags.h" nogil:
    uint32_t tags_match(const uint8_t *tag, uint8_t wanted) noexcept
    uint32_t tags_match_portable(const uint8_t *tag, uint8_t wanted) noexcept
    uint32_t tags_count(const uint8_t *tag) noexcept

cdef extern from "mul128.h" nogil:
    wide_t mul64(uint64_t a, uint64_t b) noexcept
    wide_t mul64_portable(uint64_t a, uint64_t b) noexcept
    wide_t dot128(wide_t plus, wide_t a, uint64_t x, wide_t b, uint64_t y) noexcept

EVICT, PLAIN_MEMORY, SMALL_PAGES, LAZY, IPV6 = STORE_EVICT, STORE_PLAIN_MEMORY, STORE_SMALL_PAGES, STORE_LAZY, STORE_IPV6
HUGE, PLAIN = BLOCK_HUGE, BLOCK_PLAIN
SLOTS, LONGEST_TIMEOUT = WHEEL_SLOTS, TIMEOUT_TICKS


# ---------------------------------------------------------------------------------------------------- small functions

def tags(bytes bucket, int wanted):
    """(the form this machine uses, the portable form, the count) for the first 16 bytes of a bucket."""
    cdef Bucket b
    if not (len(bucket) == 16):
        raise AssertionError()
    memcpy(&b, <const char *>bucket, 16)
    # The processor's form wants the alignment that buckets have.
    cdef Bucket *aligned = <Bucket *>malloc(sizeof(Bucket))
    aligned[0] = b
    try:
        return (tags_match(aligned.tag, <uint8_t>wanted), tags_match_portable(aligned.tag, <uint8_t>wanted),
                tags_count(aligned.tag))
    finally:
        c_free(aligned)


def multiply(uint64_t a, uint64_t b):
    """The 128-bit product: (this machine's form, the portable form)."""
    cdef wide_t native = mul64(a, b)
    cdef wide_t portable = mul64_portable(a, b)
    return (<object>native.hi << 64) | native.lo, (<object>portable.hi << 64) | portable.lo


cdef wide_t _wide(number):
    cdef wide_t w
    w.lo, w.hi = number & (2**64 - 1), number >> 64
    return w


def dot(plus, a, uint64_t x, b, uint64_t y):
    """plus + a * x + b * y modulo 2^128."""
    cdef wide_t r = dot128(_wide(plus), _wide(a), x, _wide(b), y)
    return (<object>r.hi << 64) | r.lo


def chacha(list words):
    cdef uint32_t state[16]
    cdef uint32_t out[16]
    cdef int i
    for i in range(16):
        state[i] = words[i]
    chacha_block(out, state)
    return [out[i] for i in range(16)]


def expand(tuple secret):
    """The 16 words of a HashKey in the order of its fields."""
    cdef uint64_t words[4]
    cdef HashKey h
    cdef int i
    for i in range(4):
        words[i] = secret[i]
    hash_expand(&h, words)
    return [(<uint64_t *>&h)[i] for i in range(16)]


def ticks(uint64_t since_epoch_ns, uint64_t tick_ns, bint up):
    return ticks_of(since_epoch_ns, tick_ns, up)


cdef int _observed(Key *k, Segment *s, bytes src, int sport, bytes dst, int dport, const HashKey *h) except -1:
    if not (len(src) == len(dst) == 16):
        raise AssertionError()
    memset(s, 0, sizeof(Segment))
    memcpy(s.src, <const char *>src, 16)
    memcpy(s.dst, <const char *>dst, 16)
    s.sport = <uint16_t>sport
    s.dport = <uint16_t>dport
    key_observed(k, s, h)
    return 0


cdef dict _key_dict(const Key *k):
    return {
        "hash": k.hash, "side": k.side, "v6": k.v6 != 0, "port": (k.port[0], k.port[1]),
        "addr": (<const char *>&k.addr[0])[:8],
        "wide": ((<const char *>k.wide[0])[:16], (<const char *>k.wide[1])[:16]) if k.v6 else None,
    }


def observed(tuple secret, bytes src, int sport, bytes dst, int dport):
    """key_observed of a segment, as a dict."""
    cdef uint64_t words[4]
    cdef HashKey h
    cdef Key k
    cdef Segment s
    for i in range(4):
        words[i] = secret[i]
    hash_expand(&h, words)
    _observed(&k, &s, src, sport, dst, dport, &h)
    return _key_dict(&k)


def endpoint(tuple secret, bytes local, int lport, bytes remote, int rport):
    """key_endpoint, as a dict."""
    cdef uint64_t words[4]
    cdef HashKey h
    cdef Key k
    if not (len(local) == len(remote) == 16):
        raise AssertionError()
    for i in range(4):
        words[i] = secret[i]
    hash_expand(&h, words)
    key_endpoint(&k, local, <uint16_t>lport, remote, <uint16_t>rport, &h)
    return _key_dict(&k)


# ------------------------------------------------------------------------------------------------------------- memory

cdef class Memory:
    """A Block."""
    cdef Block b

    def __init__(self, size_t reserve, int flags=0):
        block_open(&self.b, reserve, flags)

    @property
    def plain(self):
        """Whether it came from calloc, by wish or because this build knows nothing else."""
        return bool(self.b.flags & BLOCK_PLAIN)

    def __dealloc__(self):
        block_close(&self.b)

    def commit(self, size_t upto, bint touch=True):
        block_commit(&self.b, upto, touch)

    def close(self):
        block_close(&self.b)

    def write(self, size_t at, bytes data):
        if not (at + len(data) <= self.b.usable):
            raise AssertionError()
        memcpy(self.b.base + at, <const char *>data, len(data))

    def read(self, size_t at, size_t n):
        if not (at + n <= self.b.usable):
            raise AssertionError()
        return self.b.base[at:at + n]

    @property
    def sizes(self):
        return self.b.reserved, self.b.usable, self.b.touched

    @property
    def base(self):
        return <size_t>self.b.base


# -------------------------------------------------------------------------------------------------------------- store

cdef class Store:
    """A Table. A key is (src, sport, dst, dport), addresses of 16 bytes; in the endpoint seat src is the local one."""
    cdef Table t
    cdef readonly bint is_open

    def __init__(self, size_t rows, max_rows=None, *, int seat=1, size_t stride=40, uint64_t tick_ns=10_000_000,
                 tuple secret=(1, 2, 3, 4), int flags=0):
        cdef uint64_t words[4]
        for i in range(4):
            words[i] = secret[i]
        store_open(&self.t, seat, rows, rows if max_rows is None else max_rows, stride, tick_ns, words, flags)
        self.is_open = True

    def __dealloc__(self):
        store_close(&self.t)

    def close(self):
        store_close(&self.t)
        self.is_open = False

    cdef int key(self, Key *k, Segment *s, tuple name) except -1:
        src, sport, dst, dport = name
        _observed(k, s, src, sport, dst, dport, &self.t.hash_key)
        if self.t.seat == 0:
            key_endpoint(k, s.src, sport, s.dst, dport, &self.t.hash_key)
        return 0

    cdef row_t used(self, row) except? 0xFFFFFFFF:
        if not (self.is_open and 0 <= row < self.t.high and store_in_use(&self.t, row)):
            raise AssertionError(f"row {row} is not in use")
        return row

    def find(self, tuple name, bint staged=False):
        """(row, side), or None."""
        cdef Key k
        cdef Segment s
        cdef row_t row
        self.key(&k, &s, name)
        if staged:
            store_prefetch(&self.t, &k)
            store_peek(&self.t, &k, True)
        return (row, k.side) if store_find(&self.t, &k, &row) else None

    def find_with_hint(self, tuple name, row_t hint):
        cdef Key k
        cdef Segment s
        cdef row_t row
        if not (hint < self.t.high):
            raise AssertionError()
        self.key(&k, &s, name)
        k.hint = hint
        return row if store_find(&self.t, &k, &row) else None

    def insert(self, tuple name, int64_t now_ns=0):
        """The row, or the reason as a negative number."""
        cdef Key k
        cdef Segment s
        cdef row_t row
        cdef int answer
        self.key(&k, &s, name)
        if not (not store_find(&self.t, &k, &row)):
            raise AssertionError("already there")
        answer = store_insert(&self.t, &k, now_ns, &row)
        return row if answer == STORE_OK else -answer

    def remove(self, row):
        store_prefetch_remove(&self.t, self.used(row))
        store_remove(&self.t, row)

    def set_state(self, row, int side, int state):
        store_set_state(&self.t, self.used(row), side & 1, <uint8_t>state)

    def arm(self, row, uint32_t tick):
        store_arm(&self.t, self.used(row), tick)

    def arm_after(self, row, uint32_t timeout_ticks):
        store_arm_after(&self.t, self.used(row), timeout_ticks)

    def arm_ns(self, row, int64_t deadline_ns):
        store_arm_ns(&self.t, self.used(row), deadline_ns)

    def disarm(self, row):
        store_disarm(&self.t, self.used(row))

    def armed(self, row):
        return store_armed(&self.t, self.used(row))

    def deadline_ns(self, row):
        return store_deadline_ns(&self.t, self.used(row))

    def tick_up(self, int64_t deadline_ns):
        return store_tick_up(&self.t, deadline_ns)

    def see(self, int64_t now_ns):
        store_see(&self.t, now_ns)

    def advance(self, int64_t now_ns, size_t budget=1 << 62, size_t n=1 << 20):
        """(rows that are due, what is left of the budget)."""
        cdef row_t *due = <row_t *>malloc((n + 1) * sizeof(row_t))
        cdef size_t found
        if due == NULL:
            raise MemoryError
        try:
            with nogil:
                found = store_advance(&self.t, now_ns, &budget, due, n)
            return [due[i] for i in range(found)], budget
        finally:
            c_free(due)

    def behind(self):
        return store_behind(&self.t)

    def set_horizon(self, uint64_t ns):
        store_set_horizon(&self.t, ns)

    def handle(self, row):
        return store_handle(&self.t, self.used(row))

    def row_of(self, uint64_t handle):
        cdef row_t row
        return row if store_row_of(&self.t, handle, &row) else None

    def candidate(self, classes):
        cdef uint32_t mask = 0
        cdef row_t row
        for c in classes:
            mask |= 1 << c
        return row if store_evict_candidate(&self.t, mask, &row) else None

    def settle(self):
        store_settle(&self.t)

    def check(self):
        store_check(&self.t)

    def rebuilt(self, rows=None, max_rows=None, *, tuple secret=(5, 6, 7, 8), int flags=0):
        """Another table, made of a copy of this one's rows."""
        cdef Store other = Store(
            rows or self.t.capacity, max_rows or self.t.max_rows, seat=self.t.seat, stride=self.t.cold_stride,
            tick_ns=self.t.tick_ns, secret=secret, flags=flags)
        cdef size_t n = self.t.high
        if n <= other.t.capacity:
            memcpy(other.t.rows, self.t.rows, n * sizeof(Row))
            memcpy(other.t.cold, self.t.cold, n * self.t.cold_stride)
            if n and self.t.addr6_block.usable:
                if not (store_grow_addr6(&other.t, <row_t>(n - 1)) == STORE_OK):
                    raise AssertionError()
                memcpy(other.t.addr6, self.t.addr6, min(n * 32, self.t.addr6_block.usable))
        store_rebuild(&other.t, n, self.t.free, self.t.epoch_ns, self.t.now_ns)
        return other

    def pairs(self):
        """{(state, state): rows}, without zeros."""
        return {(i >> 4, i & 15): self.t.pairs[i] for i in range(256) if self.t.pairs[i]}

    def row(self, row):
        cdef Row *r = &self.t.rows[self.used(row)]
        return {
            "state": (r.state[0], r.state[1]), "parked": r.parked, "deadline": r.deadline, "flags": r.flags,
            "last_ns": r.last_ns, "first_ns": store_cold(&self.t, row).first_ns, "aux": r.aux,
            "seat": (<const char *>&r.seat)[:32], "generation": store_cold(&self.t, row).generation,
            "rest": (<const char *>store_cold(&self.t, row) + 16)[:self.t.cold_stride - 16],
        }

    def scribble(self, row):
        """Fill what the machine would: nothing of it may be left for the next connection in this row."""
        cdef Row *r = &self.t.rows[self.used(row)]
        memset(&r.seat, 0xAA, sizeof(r.seat))
        r.aux = 0xAAAA
        memset(<char *>store_cold(&self.t, row) + 16, 0xAA, self.t.cold_stride - 16)

    def home(self, tuple name):
        """(number of the bucket where its chain begins, tag, hash)."""
        cdef Key k
        cdef Segment s
        self.key(&k, &s, name)
        return index_home(&self.t.index, k.hash), index_tag(k.hash), k.hash

    def chains(self):
        """{buckets in a chain: how many chains}."""
        lengths = {}
        for i in range(self.t.index.buckets):
            n = 1
            at = self.t.index.bucket[i].next
            while at:
                n += 1
                at = self.t.index.overflow[at].next
            lengths[n] = lengths.get(n, 0) + 1
        return lengths

    @property
    def info(self):
        t = &self.t
        return {
            "capacity": t.capacity, "max_rows": t.max_rows, "high": t.high, "used": t.used, "bytes": store_bytes(t),
            "epoch_ns": t.epoch_ns, "now_ns": t.now_ns, "now_tick": t.now_tick, "free": t.free,
            "buckets": t.index.buckets, "overflow_used": t.index.overflow_used, "overflow_high": t.index.overflow_high,
            "entries": t.wheel.entries, "cursor": t.wheel.cursor, "drained": t.wheel.drained,
            "horizon": t.wheel.horizon, "chunks_used": t.wheel.chunks_used, "chunk_high": t.wheel.chunk_high,
            "base": (<size_t>t.rows, <size_t>t.cold, <size_t>t.addr6, <size_t>t.index.bucket, <size_t>t.wheel.chunk),
        }

    def spoil(self, str what, row):
        """Break one invariant, so that a test can see it named."""
        cdef Row *r = &self.t.rows[self.used(row)]
        cdef Bucket *b = &self.t.index.bucket[index_home(&self.t.index, hash_of_row(&self.t.hash_key, r))]
        if what == "port":
            r.port[0] ^= 1
        elif what == "state":
            r.state[0] ^= 1
        elif what == "parked":
            r.parked ^= 1
        elif what == "unpark":
            r.parked = 0
        elif what == "deadline":
            r.deadline -= 1000
        elif what == "timer_at":
            store_cold(&self.t, row).timer_at ^= 1
        elif what == "generation":
            store_cold(&self.t, row).generation += 1
        elif what == "tag":
            b.tag[0] ^= 0x80
        elif what == "entry":
            b.tag[0] = 0
        elif what == "twice":
            b.tag[1] = b.tag[0]
            b.row[1] = b.row[0]
        elif what == "used":
            self.t.used += 1
        elif what == "free":
            self.t.free = row
        elif what == "list":
            self.t.links[row + EVICT_CLASSES].older = row
        else:
            raise KeyError(what)
