# A Segment as IP and TCP headers: the way back from read_tcp (RFC 9293 section 3.1, RFC 791, RFC 8200).
#
# The options stand in the order in which Linux writes them; the bytes they take are those of core/output.pyx,
# set_length. Must not live here: what a segment should say.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.layout cimport (
    INFO_IPV6, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WSCALE, Segment,
)
from fasttcp.packets.bytes cimport in_sum, sum_bytes

cdef enum:
    LARGEST_HEADERS = 40 + 60
    TTL = 64                    # Linux's default, net.ipv4.ip_default_ttl


cdef inline void put16(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 8)
    p[1] = <uint8_t>value


cdef inline void put32(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>(value >> 24)
    p[1] = <uint8_t>(value >> 16)
    p[2] = <uint8_t>(value >> 8)
    p[3] = <uint8_t>value


cdef inline uint16_t folded(uint64_t total) noexcept nogil:
    """The 16-bit one's complement sum, in the machine's byte order."""
    total = <uint32_t>total + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>total


cdef inline uint32_t put_options(const Segment *s, uint8_t *p) noexcept nogil:
    """The options, padded to four bytes; how many bytes."""
    cdef uint8_t *begin = p
    if s.options & OPT_MSS:
        put16(p, 0x0204)
        put16(p + 2, s.mss)
        p += 4
    if s.options & OPT_TIMESTAMPS:
        put16(p, 0x0402 if s.options & OPT_SACK_PERMITTED else 0x0101)
        put16(p + 2, 0x080A)
        put32(p + 4, s.tsval)
        put32(p + 8, s.tsecr)
        p += 12
    elif s.options & OPT_SACK_PERMITTED:
        put32(p, 0x01010402)
        p += 4
    if s.options & OPT_WSCALE:
        put32(p, 0x01030300 | s.wscale)
        p += 4
    return <uint32_t>(p - begin)


# Writes the headers of `s` to `p` (room for LARGEST_HEADERS) and answers how many bytes they have. The payload's
# s.payload bytes stand at `data`. With `partial` the TCP checksum is left to a device: the field holds the sum of the
# pseudo-header, as checksum offload wants it (linux/virtio_net.h VIRTIO_NET_HDR_F_NEEDS_CSUM).
cdef inline uint32_t encode_headers(const Segment *s, uint8_t *p, const uint8_t *data, bint partial) noexcept nogil:
    cdef uint32_t ip = 40 if s.info & INFO_IPV6 else 20
    cdef uint8_t *tcp = p + ip
    cdef uint32_t header = 20 + put_options(s, tcp + 20)
    cdef uint32_t length = header + s.payload
    cdef uint64_t total
    cdef uint16_t sum
    if s.info & INFO_IPV6:
        put32(p, 0x60000000)
        put16(p + 4, length)
        p[6] = 6
        p[7] = TTL
        memcpy(p + 8, s.src, 16)
        memcpy(p + 24, s.dst, 16)
        total = sum_bytes(p + 8, 32)
    else:
        put32(p, 0x45000000 | (ip + length))
        put32(p + 4, 0x00004000)            # never fragmented, so it needs no identification (RFC 6864 section 4.1)
        put32(p + 8, <uint32_t>TTL << 24 | 0x00060000)
        memcpy(p + 12, s.src + 12, 4)
        memcpy(p + 16, s.dst + 12, 4)
        sum = <uint16_t>~folded(sum_bytes(p, 20))
        memcpy(p + 10, &sum, 2)
        total = sum_bytes(p + 12, 8)
    total += in_sum(6) + in_sum(length & 0xFFFF)
    put16(tcp, s.sport)
    put16(tcp + 2, s.dport)
    put32(tcp + 4, s.seq)
    put32(tcp + 8, s.ack)
    tcp[12] = <uint8_t>(header << 2)
    tcp[13] = <uint8_t>s.flags
    put16(tcp + 14, s.window)
    put32(tcp + 16, 0)
    if partial:
        sum = folded(total)
    else:
        sum = <uint16_t>~folded(total + sum_bytes(tcp, header) + sum_bytes(data, s.payload))
    memcpy(tcp + 16, &sum, 2)
    return ip + header
