"""Community ID version 1 (github.com/corelight/community-id-spec): one name for a flow in the logs of many tools.

"1:" and the base64 of SHA-1 over seed, both addresses, protocol, a zero, both ports, the smaller end first. SHA-1 is
FIPS 180-4 section 6.1 for a message of at most 55 bytes, one block; it names flows here and protects nothing.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from fasttcp.observe.text cimport write_base64, write_bytes

cdef enum:
    PROTOCOL_TCP = 6

cdef uint8_t[12] MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]


cdef inline uint32_t rotated(uint32_t x, int n) noexcept nogil:
    return (x << n) | (x >> (32 - n))


cdef void sha1_block(const uint8_t *message, uint32_t n, uint8_t *digest) noexcept nogil:
    """digest (20,) of n <= 55 bytes."""
    cdef uint8_t block[64]
    cdef uint32_t w[80]
    cdef uint32_t h[5]
    cdef uint32_t a, b, c, d, e, f, k, mixed
    cdef int i
    memset(block, 0, 64)
    memcpy(block, message, n)
    block[n] = 0x80
    block[62] = <uint8_t>(n * 8 >> 8)
    block[63] = <uint8_t>(n * 8)
    for i in range(16):
        w[i] = (
            (<uint32_t>block[4 * i] << 24) | (<uint32_t>block[4 * i + 1] << 16)
            | (<uint32_t>block[4 * i + 2] << 8) | block[4 * i + 3]
        )
    for i in range(16, 80):
        w[i] = rotated(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1)
    h[0], h[1], h[2], h[3], h[4] = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0
    a, b, c, d, e = h[0], h[1], h[2], h[3], h[4]
    for i in range(80):
        if i < 20:
            f, k = (b & c) | (~b & d), 0x5A827999
        elif i < 40:
            f, k = b ^ c ^ d, 0x6ED9EBA1
        elif i < 60:
            f, k = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
        else:
            f, k = b ^ c ^ d, 0xCA62C1D6
        mixed = rotated(a, 5) + f + e + k + w[i]
        a, b, c, d, e = mixed, a, rotated(b, 30), c, d
    h[0] += a
    h[1] += b
    h[2] += c
    h[3] += d
    h[4] += e
    for i in range(20):
        digest[i] = <uint8_t>(h[i >> 2] >> (24 - 8 * (i & 3)))


cdef char *write_community_id(
    char *p, const uint8_t *addr_a, uint16_t port_a, const uint8_t *addr_b, uint16_t port_b, uint16_t seed
) noexcept nogil:
    cdef uint8_t message[40]
    cdef uint8_t digest[20]
    cdef uint32_t width = 4 if memcmp(addr_a, MAPPED, 12) == 0 and memcmp(addr_b, MAPPED, 12) == 0 else 16
    cdef uint32_t n = 2
    cdef int order = memcmp(addr_a + 16 - width, addr_b + 16 - width, width)
    if order > 0 or (order == 0 and port_a > port_b):
        addr_a, addr_b = addr_b, addr_a
        port_a, port_b = port_b, port_a
    message[0] = <uint8_t>(seed >> 8)
    message[1] = <uint8_t>seed
    memcpy(message + n, addr_a + 16 - width, width)
    memcpy(message + n + width, addr_b + 16 - width, width)
    n += 2 * width
    message[n] = PROTOCOL_TCP
    message[n + 1] = 0
    message[n + 2] = <uint8_t>(port_a >> 8)
    message[n + 3] = <uint8_t>port_a
    message[n + 4] = <uint8_t>(port_b >> 8)
    message[n + 5] = <uint8_t>port_b
    sha1_block(message, n + 6, digest)
    return write_base64(write_bytes(p, b"1:", 2), digest, 20)
