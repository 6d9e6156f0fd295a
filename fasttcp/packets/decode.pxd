# One frame into one Segment: the short way for plain Ethernet, IP, TCP; the long way (decode.pyx) for everything
# else.
#
# The short way makes no decision of its own: whatever is not exactly as expected goes the long way and is judged there.
# Tests run every plain frame through both.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.layout cimport INFO_BAD_CHECKSUM, INFO_CUT, INFO_IPV6, Segment
from fasttcp.core.prefetch cimport load32, load64
from fasttcp.packets.bytes cimport be16, be32, in_sum, sum_ahead
from fasttcp.packets.layers cimport IS_SEGMENT, LINK, Decoder
from fasttcp.packets.link cimport LINKTYPE_ETHERNET
from fasttcp.packets.tcp cimport read_header, read_options_ahead
from fasttcp.packets.tunnel cimport PROTOCOL_TCP


cdef enum:
    AHEAD = 64                      # bytes behind a frame: SUM_TURN of checksum.h
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

    AHEAD bytes behind the frame must be readable. A segment is not counted in d.counts: the caller does that, for many
    at once.
    """
    cdef const uint8_t* ip = frame + 14
    cdef uint32_t total, length
    cdef uint64_t first, second
    if captured < PLAIN_HEADERS:
        return False
    if be32(frame + 12) >> 8 != ETHERTYPE_IPV4 << 8 | 0x45 or be32(ip + 6) & 0x3FFF00FF != PROTOCOL_TCP:
        return decode_plain_6(d, frame, captured, wire, time_ns, s)
    total = be16(ip + 2)
    if total < 40 or total > wire - 14:
        return False
    if d.validate:
        first = load64(ip)
        second = load64(ip + 8)
        if (<uint32_t>first + (first >> 32) + <uint32_t>second + (second >> 32) + load32(ip + 16)) % 0xFFFF:
            return False
    s.time_ns = time_ns
    map_ip4(s.src, ip + 12)
    map_ip4(s.dst, ip + 16)
    s.ip_bytes = total
    s.info = 0
    length = total - 20
    # The addresses of the pseudo-header stand right in front of the TCP header: they are added in one go.
    _read_plain(d, s, ip + 20, min(captured - 34, length), length, 8)
    return True


cdef inline bint decode_plain_6(
    Decoder* d, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil:
    cdef const uint8_t* ip = frame + 14
    cdef uint32_t length
    if captured < PLAIN_HEADERS_6 or be16(frame + 12) != ETHERTYPE_IPV6 or ip[0] >> 4 != 6 or ip[6] != PROTOCOL_TCP:
        return False
    length = be16(ip + 4)
    if length < 20 or length > wire - 54:
        return False
    s.time_ns = time_ns
    memcpy(s.src, ip + 8, 16)
    memcpy(s.dst, ip + 24, 16)
    s.ip_bytes = 40 + length
    s.info = INFO_IPV6
    _read_plain(d, s, ip + 40, min(captured - 54, length), length, 32)
    return True


cdef inline void _read_plain(
    Decoder* d, Segment* s, const uint8_t* p, uint32_t captured, uint32_t length, uint32_t addresses,
) noexcept nogil:
    """What read_tcp does. addresses: their bytes, in front of p."""
    if not read_header(s, p, captured, length):
        d.bad_header += 1
        return
    read_options_ahead(s, p)
    if captured != length:
        s.info |= INFO_CUT
    elif d.validate and (
        sum_ahead(p - addresses, addresses + length) + in_sum(PROTOCOL_TCP) + in_sum(length)
    ) % 0xFFFF:
        s.info |= INFO_BAD_CHECKSUM
        d.bad_checksum += 1


cdef inline int decode(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, bint ahead,
    Segment* s,
) noexcept nogil:
    """The verdict on a frame; IS_SEGMENT: `s` is filled, all of it. ahead: AHEAD bytes behind it are readable."""
    if link == LINKTYPE_ETHERNET and ahead and decode_plain(d, frame, captured, wire, time_ns, s):
        d.counts[IS_SEGMENT] += 1
        return IS_SEGMENT
    return decode_layers(d, link, frame, captured, wire, time_ns, s)
