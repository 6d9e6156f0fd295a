# The name of a connection as the index wants it: its 12 bytes in a settled order, and their keyed hash. See hash.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

from fasttcp.core.layout cimport NO_ROW, ROW_IPV6, Row, Segment, row_t
from fasttcp.core.prefetch cimport likely, load32, load64, net32, net64, settle_pointer

cdef extern from "mul128.h" nogil:
    ctypedef struct wide_t:
        uint64_t lo
        uint64_t hi

    wide_t dot128(wide_t plus, wide_t a, uint64_t x, wide_t b, uint64_t y) noexcept


cdef struct HashKey:
    wide_t ends[2]      # multipliers for the two (address, port) words
    wide_t plus
    wide_t wide[4]      # multipliers for the four 8-byte words of two IPv6 addresses
    wide_t wide_plus


cdef struct Key:
    uint64_t hash
    uint32_t addr[2]            # as in Row.addr: IPv4 in network order; IPv6: 64 bits of the pair's keyed hash
    uint16_t port[2]            # host order
    uint8_t  side               # which side sent the segment: 0 or 1; endpoint keys: 0
    uint8_t  v6                 # ROW_IPV6, or 0
    row_t    hint               # set by store_peek: the row that this key may have; before that NO_ROW
    uint32_t home               # set by store_prefetch: the bucket its chain began with then
    const uint8_t *wide[2]      # IPv6 only: the 16-byte addresses in the order of the sides, in the caller's memory


cdef inline uint64_t hash_words(const HashKey *h, uint64_t x, uint64_t y) noexcept nogil:
    """64 bits of a x + b y + c, stirred by a bijection so that every part of them may be used alone."""
    cdef uint64_t r = dot128(h.plus, h.ends[0], x, h.ends[1], y).hi
    r ^= r >> 32
    r *= <uint64_t>0x9E3779B97F4A7C15
    return r ^ (r >> 32)


cdef inline uint64_t hash_ends(const HashKey *h, const uint32_t *addr, const uint16_t *port) noexcept nogil:
    return hash_words(h, <uint64_t>net32(addr[0]) << 16 | port[0], <uint64_t>net32(addr[1]) << 16 | port[1])


cdef inline uint64_t hash_of_row(const HashKey *h, const Row *r) noexcept nogil:
    """The hash that found this row: Key.hash of its key, for both seats and both families."""
    return hash_ends(h, r.addr, r.port)


cdef inline uint64_t hash_wide(const HashKey *h, const uint8_t *a, const uint8_t *b) noexcept nogil:
    """64 bits of the keyed hash of a pair of IPv6 addresses, in this order."""
    cdef wide_t first = dot128(h.wide_plus, h.wide[0], net64(load64(a)), h.wide[1], net64(load64(a + 8)))
    return dot128(first, h.wide[2], net64(load64(b)), h.wide[3], net64(load64(b + 8))).hi


cdef inline bint is_mapped(const uint8_t *a) noexcept nogil:
    """An IPv4 address in its 16-byte form, ::ffff:a.b.c.d."""
    return (load64(a) | (load32(a + 8) ^ net32(0xFFFF))) == 0


cdef inline void _key_wide(Key *k, const HashKey *h) noexcept nogil:
    cdef uint64_t pair = hash_wide(h, k.wide[0], k.wide[1])
    k.addr[0] = net32(<uint32_t>(pair >> 32))
    k.addr[1] = net32(<uint32_t>pair)
    k.v6 = ROW_IPV6
    k.hash = hash_ends(h, k.addr, k.port)


cdef inline void _order_wide(Key *k, const uint8_t *src, const uint8_t *dst, uint8_t turned) noexcept nogil:
    cdef uintptr_t swap = (<uintptr_t>src ^ <uintptr_t>dst) & (0 - <uintptr_t>turned)
    k.wide[0] = <const uint8_t *>(<uintptr_t>src ^ swap)
    k.wide[1] = <const uint8_t *>(<uintptr_t>dst ^ swap)


cdef inline void key_observed(Key *k, const Segment *s, const HashKey *h) noexcept nogil:
    """The key of a segment seen on the wire: side 0 is the lower (address, port), so both directions have one key."""
    cdef const uint8_t *src = &s.src[0]
    cdef const uint8_t *dst = &s.dst[0]
    # The last eight bytes of an IPv4 address in its 16-byte form are 0xFFFF and the address; of both, nothing else is left.
    cdef uint64_t x = net64(load64(src + 8)) ^ <uint64_t>0xFFFF << 32
    cdef uint64_t y = net64(load64(dst + 8)) ^ <uint64_t>0xFFFF << 32
    cdef uint64_t swap
    cdef uint8_t turned
    k.hint = NO_ROW
    if likely(load64(src) | load64(dst) | (x | y) >> 32 == 0):
        x = x << 16 | s.sport
        y = y << 16 | s.dport
        # The direction of the next segment cannot be predicted: no branch on it. A comparison might become one; the sign of
        # a difference of two numbers of 48 bits does not.
        turned = <uint8_t>(y - x >> 63)
        swap = (x ^ y) & (0 - <uint64_t>turned)
        x ^= swap
        y ^= swap
        k.addr[0] = net32(<uint32_t>(x >> 16))
        k.addr[1] = net32(<uint32_t>(y >> 16))
        k.port[0] = <uint16_t>x
        k.port[1] = <uint16_t>y
        k.side = turned
        k.v6 = 0
        k.hash = hash_words(h, x, y)
        return
    settle_pointer(s)           # all that follows is for IPv6: the usual way is to compute none of it
    src = &s.src[0]
    dst = &s.dst[0]
    x = net64(load64(src))
    y = net64(load64(dst))
    if x == y:
        x = net64(load64(src + 8))
        y = net64(load64(dst + 8))
        if x == y:
            x = s.sport
            y = s.dport
    turned = y < x
    _order_wide(k, src, dst, turned)
    swap = (s.sport ^ s.dport) & (0 - <uint64_t>turned)
    k.port[0] = <uint16_t>(s.sport ^ swap)
    k.port[1] = <uint16_t>(s.dport ^ swap)
    k.side = turned
    _key_wide(k, h)


cdef inline void key_endpoint(
    Key *k, const uint8_t *local, uint16_t lport, const uint8_t *remote, uint16_t rport, const HashKey *h
) noexcept nogil:
    """The key of one host's half: side 0 is the local end, so two ends of one loopback connection are two keys."""
    k.port[0] = lport
    k.port[1] = rport
    k.side = 0
    k.hint = NO_ROW
    if is_mapped(local) and is_mapped(remote):
        k.addr[0] = load32(local + 12)
        k.addr[1] = load32(remote + 12)
        k.v6 = 0
        k.hash = hash_ends(h, k.addr, k.port)
        return
    k.wide[0] = local
    k.wide[1] = remote
    _key_wide(k, h)


cdef void hash_expand(HashKey *h, const uint64_t *secret) noexcept nogil
cdef void chacha_block(uint32_t *out, const uint32_t *state) noexcept nogil     # 16 words each, RFC 8439 section 2.3
