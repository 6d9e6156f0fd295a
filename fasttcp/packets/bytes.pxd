# Numbers out of network bytes, and the Internet checksum. Everything here is inline and cannot fail: the caller has
# checked that the bytes are there. No protocol is known here.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.prefetch cimport load64, rest_of_word


# checksum.h: sums of which only the remainder by 0xFFFF counts.
cdef extern from "checksum.h" nogil:
    uint64_t sum_number(uint32_t x) noexcept                        # a 16-bit number, as if it stood in the packet
    uint64_t sum_three(uint64_t a, uint64_t b, uint64_t c) noexcept
    uint64_t sum_four(uint64_t a, uint64_t b, uint64_t c, uint64_t d) noexcept
    uint64_t sum_five(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) noexcept
    # n bytes, n from 0 to 128 KB, behind which 64 more may be read
    uint64_t sum_ahead(const uint8_t* p, uint32_t n) noexcept
    uint64_t sum_ahead_portable(const uint8_t* p, uint32_t n) noexcept


# words.h
cdef extern from "words.h" nogil:
    uint32_t first_number(uint64_t x) noexcept  # the first of two of 32 bits, as it lies in memory
    uint64_t two_numbers(uint64_t x) noexcept   # two of 32 bits, each to the machine's order, as they lie in memory
    uint32_t two_fields(uint32_t first, uint32_t second) noexcept   # of 16 bits, side by side in memory
    uint32_t lower_first(uint32_t x) noexcept   # the same two as the halves of a number


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


# The checksum of RFC 1071 does not care for byte order nor for the width of the words (its section 2(B) and (C)), so
# they are added as the machine reads them, eight bytes at a time, with the carry added back in. What is left is read as
# the end of the last eight bytes and shifted, without a branch on its length: that cannot be predicted.
cdef inline uint64_t sum_bytes(const uint8_t* p, size_t n) noexcept nogil:
    """At most 33 bits, so that some of them may be added up."""
    cdef uint64_t total = 0
    cdef uint64_t word
    cdef const uint8_t* end = p + n
    if n < 8:
        memcpy(&total, p, n)                    # padded with zeros (RFC 1071 section 1)
        return <uint32_t>total + (total >> 32)
    while end - p >= 16:
        word = load64(p)
        total += word
        total += total < word
        word = load64(p + 8)
        total += word
        total += total < word
        p += 16
    if end - p >= 8:
        word = load64(p)
        total += word
        total += total < word
        p += 8
    # half the bits that have been added already; twice, because a shift by 64 is not defined
    word = rest_of_word(load64(end - 8), <uint32_t>(8 - (end - p)) * 4)
    total += word
    total += total < word
    return <uint32_t>total + (total >> 32)


cdef inline bint sums_up(uint64_t total) noexcept nogil:
    """Whether a sum that took in the checksum itself is right: all ones when it is folded into 16 bits.

    Folding keeps the remainder by 2^16 - 1, and only 0 folds to 0; compilers make a multiplication of this.
    """
    return total % 0xFFFF == 0 and total != 0


cdef inline uint64_t in_sum(uint32_t value) noexcept nogil:
    """A 16-bit value as it adds to a sum of words in the machine's own byte order: as if it stood in the packet."""
    cdef uint8_t octets[2]
    cdef uint16_t word
    octets[0] = <uint8_t>(value >> 8)
    octets[1] = <uint8_t>value
    memcpy(&word, octets, 2)
    return word
