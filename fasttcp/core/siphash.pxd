# SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed 64-bit function whose output tells nobody the key.
#
# For what goes on the wire and must not be guessed: initial sequence numbers, SYN cookies, timestamp offsets, the
# order of ephemeral ports. The table's own index uses a cheaper function (hash.pxd), whose output nobody ever sees.
# Cost: about 20 ns for five words. The message is a run of 8-byte words as they lie in memory.

from libc.stdint cimport uint64_t


cdef inline uint64_t _turn(uint64_t x, int by) noexcept nogil:
    return (x << by) | (x >> (64 - by))


cdef inline void _round(uint64_t *v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = _turn(v[1], 13) ^ v[0]
    v[3] = _turn(v[3], 16) ^ v[2]
    v[0] = _turn(v[0], 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = _turn(v[1], 17) ^ v[2]
    v[3] = _turn(v[3], 21) ^ v[0]
    v[2] = _turn(v[2], 32)


cdef inline uint64_t siphash(const uint64_t *key, const uint64_t *word, int words) noexcept nogil:
    """SipHash-2-4 of `words` 8-byte words under the two words of `key`."""
    cdef uint64_t v[4]
    cdef uint64_t m
    cdef int i
    v[0] = key[0] ^ <uint64_t>0x736f6d6570736575
    v[1] = key[1] ^ <uint64_t>0x646f72616e646f6d
    v[2] = key[0] ^ <uint64_t>0x6c7967656e657261
    v[3] = key[1] ^ <uint64_t>0x7465646279746573
    for i in range(words + 1):
        m = word[i] if i < words else <uint64_t>(words * 8 & 0xFF) << 56
        v[3] ^= m
        _round(v)
        _round(v)
        v[0] ^= m
    v[2] ^= 0xFF
    _round(v)
    _round(v)
    _round(v)
    _round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
