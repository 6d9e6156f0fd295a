# Numbers out of network bytes, and the Internet checksum. Everything here is inline and cannot fail: the caller has
# checked that the bytes are there. No protocol is known here.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint32_t be16(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 8) | p[1]


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint32_t le16(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[1] << 8) | p[0]


cdef inline uint32_t le32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[3] << 24) | (<uint32_t>p[2] << 16) | (<uint32_t>p[1] << 8) | p[0]


# A capture's own headers are in the byte order of the machine that wrote it.
cdef inline uint32_t get16(const uint8_t* p, bint big) noexcept nogil:
    return be16(p) if big else le16(p)


cdef inline uint32_t get32(const uint8_t* p, bint big) noexcept nogil:
    return be32(p) if big else le32(p)


# The checksum of RFC 1071 does not care for byte order (its section 2(B)), so words are added as the machine reads
# them. Four bytes at a time into 64 bits need no carry, and compilers turn the loop into vector additions; memcpy
# because packets are not aligned.
cdef inline uint64_t sum_bytes(const uint8_t* p, size_t n) noexcept nogil:
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef size_t i
    cdef size_t words = n >> 2
    for i in range(words):
        memcpy(&word, p + 4 * i, 4)
        total += word
    if n & 3:
        word = 0
        memcpy(&word, p + 4 * words, n & 3)     # the rest, padded with zeros (RFC 1071 section 1)
        total += word
    return total


cdef inline bint sums_up(uint64_t total) noexcept nogil:
    """Whether a sum that took in the checksum itself is right, which is to say all ones."""
    total = <uint32_t>total + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


cdef inline uint64_t in_sum(uint32_t value) noexcept nogil:
    """A 16-bit value as it adds to a sum of words in the machine's own byte order: as if it stood in the packet."""
    cdef uint8_t octets[2]
    cdef uint16_t word
    octets[0] = <uint8_t>(value >> 8)
    octets[1] = <uint8_t>value
    memcpy(&word, octets, 2)
    return word
