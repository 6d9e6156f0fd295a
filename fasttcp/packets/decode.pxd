# One frame into one Segment: the short way for plain Ethernet, IPv4, TCP; the long way (decode.pyx) for everything
# else.
#
# The short way makes no decision of its own: whatever is not exactly as expected goes the long way and is judged there.
# Tests run every plain frame through both.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.layout cimport INFO_BAD_CHECKSUM, INFO_BAD_HEADER, Segment
from fasttcp.packets.bytes cimport be16, in_sum, sum_bytes, sums_up
from fasttcp.packets.layers cimport IS_SEGMENT, LINK, Decoder
from fasttcp.packets.link cimport LINKTYPE_ETHERNET
from fasttcp.packets.tcp cimport read_tcp


cdef enum:
    PLAIN_HEADERS = 14 + 20 + 20


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
    """Ethernet II, IPv4 without options or fragments, TCP. False: nothing was decided."""
    cdef const uint8_t* ip = frame + 14
    cdef uint32_t total
    cdef uint64_t pseudo = 0
    if captured < PLAIN_HEADERS or be16(frame + 12) != 0x0800 or ip[0] != 0x45 or ip[9] != 6 or be16(ip + 6) & 0x3FFF:
        return False
    total = be16(ip + 2)
    if total < 40 or total > wire - 14:
        return False
    if d.validate:
        if not sums_up(sum_bytes(ip, 20)):
            return False
        pseudo = sum_bytes(ip + 12, 8) + in_sum(6) + in_sum(total - 20)
    s.time_ns = time_ns
    map_ip4(s.src, ip + 12)
    map_ip4(s.dst, ip + 16)
    s.ip_bytes = total
    s.info = 0
    captured -= 14
    if captured > total:
        captured = total
    read_tcp(s, ip + 20, captured - 20, total - 20, d.validate, pseudo)
    d.counts[IS_SEGMENT] += 1
    if s.info:
        d.bad_checksum += s.info & INFO_BAD_CHECKSUM != 0
        d.bad_header += s.info & INFO_BAD_HEADER != 0
    return True


cdef inline int decode(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil:
    """The verdict on a frame; IS_SEGMENT: `s` is filled, all of it."""
    if link == LINKTYPE_ETHERNET and decode_plain(d, frame, captured, wire, time_ns, s):
        return IS_SEGMENT
    return decode_layers(d, link, frame, captured, wire, time_ns, s)
