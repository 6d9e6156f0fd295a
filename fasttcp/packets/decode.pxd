# One frame into one Segment: the short way for plain Ethernet, IP, TCP; the long way (decode.pyx) for everything
# else.
#
# The short way makes no decision of its own: whatever is not exactly as expected goes the long way and is judged there.
# Tests run every plain frame through both.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.layout cimport INFO_BAD_CHECKSUM, INFO_BAD_HEADER, INFO_IPV6, Segment
from fasttcp.packets.bytes cimport be16, be32, in_sum, sum_bytes, sums_up
from fasttcp.packets.layers cimport IS_SEGMENT, LINK, Decoder
from fasttcp.packets.link cimport LINKTYPE_ETHERNET
from fasttcp.packets.tcp cimport read_tcp
from fasttcp.packets.tunnel cimport PROTOCOL_TCP


cdef enum:
    PLAIN_HEADERS = 14 + 20 + 20
    PLAIN_HEADERS_6 = 14 + 40 + 20
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD


cdef void start_decoder(Decoder* d, bint validate, bint tunnels) noexcept nogil
cdef void stop_decoder(Decoder* d) noexcept nogil

# The long way; the verdict is counted. After a segment, d.resume != 0 says that this frame may hold another: call
# again.
cdef int decode_layers(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil


cdef inline void map_ip4(uint8_t* into, const uint8_t* address) noexcept nogil:
    """::ffff:a.b.c.d (RFC 4291 section 2.5.5.2)."""
    cdef uint64_t zero = 0
    cdef uint16_t ones = 0xFFFF
    memcpy(into, &zero, 8)
    memcpy(into + 8, &zero, 2)
    memcpy(into + 10, &ones, 2)
    memcpy(into + 12, address, 4)


cdef inline bint decode_plain(
    Decoder* d, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil:
    """Ethernet II; IPv4 without options or fragments, or IPv6 without extensions; TCP. False: nothing was decided.

    A segment is not counted in d.counts: the caller does that, for many at once.
    """
    cdef const uint8_t* ip = frame + 14
    cdef uint32_t total
    cdef uint64_t pseudo = 0
    if captured < PLAIN_HEADERS:
        return False
    if be32(frame + 12) >> 8 != ETHERTYPE_IPV4 << 8 | 0x45 or be32(ip + 6) & 0x3FFF00FF != PROTOCOL_TCP:
        return decode_plain_6(d, frame, captured, wire, time_ns, s)
    total = be16(ip + 2)
    if total < 40 or total > wire - 14:
        return False
    if d.validate:
        if not sums_up(sum_bytes(ip, 20)):
            return False
        pseudo = sum_bytes(ip + 12, 8) + in_sum(PROTOCOL_TCP) + in_sum(total - 20)
    s.time_ns = time_ns
    map_ip4(s.src, ip + 12)
    map_ip4(s.dst, ip + 16)
    s.ip_bytes = total
    s.info = 0
    captured -= 14
    if captured > total:
        captured = total
    read_tcp(s, ip + 20, captured - 20, total - 20, d.validate, pseudo)
    if s.info:
        d.bad_checksum += s.info & INFO_BAD_CHECKSUM != 0
        d.bad_header += s.info & INFO_BAD_HEADER != 0
    return True


cdef inline bint decode_plain_6(
    Decoder* d, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil:
    cdef const uint8_t* ip = frame + 14
    cdef uint32_t length
    cdef uint64_t pseudo = 0
    if captured < PLAIN_HEADERS_6 or be16(frame + 12) != ETHERTYPE_IPV6 or ip[0] >> 4 != 6 or ip[6] != PROTOCOL_TCP:
        return False
    length = be16(ip + 4)
    if length < 20 or length > wire - 54:
        return False
    if d.validate:
        pseudo = sum_bytes(ip + 8, 32) + in_sum(PROTOCOL_TCP) + in_sum(length)
    s.time_ns = time_ns
    memcpy(s.src, ip + 8, 16)
    memcpy(s.dst, ip + 24, 16)
    s.ip_bytes = 40 + length
    s.info = INFO_IPV6
    captured -= 54
    if captured > length:
        captured = length
    read_tcp(s, ip + 40, captured, length, d.validate, pseudo)
    d.bad_checksum += s.info & INFO_BAD_CHECKSUM != 0
    d.bad_header += s.info & INFO_BAD_HEADER != 0
    return True


cdef inline int decode(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil:
    """The verdict on a frame; IS_SEGMENT: `s` is filled, all of it."""
    if link == LINKTYPE_ETHERNET and decode_plain(d, frame, captured, wire, time_ns, s):
        d.counts[IS_SEGMENT] += 1
        return IS_SEGMENT
    return decode_layers(d, link, frame, captured, wire, time_ns, s)
