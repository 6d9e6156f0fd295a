# One frame into one Segment: the short way for plain Ethernet, IP, TCP; the long way (decode.pyx) for everything
# else.
#
# The short way makes no decision of its own: whatever is not exactly as expected goes the long way and is judged there.
# Tests run every plain frame through both.
#
# It is written for few instructions: a number is loaded where it is stored, since gcc keeps loads and stores in their
# order and would have to put aside what is loaded early; neighbours are loaded and stored together; and only what is
# rare has a branch.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.layout cimport INFO_BAD_CHECKSUM, INFO_IPV6, Segment
from fasttcp.core.prefetch cimport likely, load32, load64, net32, store32, store64
from fasttcp.packets.bytes cimport be16, first_number, sum_ahead, sum_five, sum_four, sum_number, sum_three
from fasttcp.packets.layers cimport Decoder
from fasttcp.packets.tcp cimport read_usual
from fasttcp.packets.tunnel cimport PROTOCOL_TCP


cdef enum:
    AHEAD = 64                      # bytes behind a frame: SUM_TURN of checksum.h, and what read_usual looks at
    PLAIN_HEADERS = 14 + 20 + 20
    PLAIN_HEADERS_6 = 14 + 40 + 20
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    ETHERTYPE_VLAN = 0x8100         # IEEE 802.1Q


cdef void start_decoder(Decoder* d, bint validate, bint tunnels) noexcept nogil
cdef void stop_decoder(Decoder* d) noexcept nogil

# The long way; the verdict is counted. After a segment, d.resume != 0 says that this frame may hold another: call
# again.
cdef int decode_layers(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil

# The rest of the short way for what read_usual leaves: cut short by the capture, or with other options. captured, wire:
# bytes at p, IP's padding too; length: of the TCP segment, as IP says; addresses: the sum of both. False: nothing was
# decided.
cdef bint read_unusual(
    Decoder* d, Segment* s, const uint8_t* p, uint32_t captured, uint32_t length, uint32_t wire, uint64_t addresses,
) noexcept nogil


cdef inline void map_ip4(uint8_t* into, uint32_t address) noexcept nogil:
    """::ffff:a.b.c.d (RFC 4291 section 2.5.5.2), of the address as it lies in memory."""
    store64(into, 0)
    store32(into + 8, net32(0xFFFF))
    store32(into + 12, address)


cdef inline bint decode_plain(
    Decoder* d, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s, bint validate,
) noexcept nogil:
    """Ethernet II; IPv4 without options or fragments, or IPv6 without extensions; TCP. False: nothing was decided.

    At least PLAIN_HEADERS bytes are captured, and AHEAD behind the frame are readable. validate: d.validate, held by
    the caller. A segment is not counted in d.counts: the caller does that, for many at once.
    """
    cdef const uint8_t* ip = frame + 14
    cdef const uint8_t* p
    cdef uint32_t total, length, info
    cdef uint64_t addresses, bad
    if likely(
        load32(frame + 12) & net32(0xFFFFFF00) == net32(ETHERTYPE_IPV4 << 16 | 0x4500)
        and load32(ip + 6) & net32(0x3FFF00FF) == net32(PROTOCOL_TCP)
    ):
        addresses = load64(ip + 12)
        if sum_three(addresses, load64(ip), load32(ip + 8)) % 0xFFFF and validate:
            return False
        total = be16(ip + 2)
        length = total - 20
        map_ip4(s.src, first_number(addresses))
        map_ip4(s.dst, load32(ip + 16))
        info = 0
        p = ip + 20
    elif (
        load32(frame + 12) & net32(0xFFFFF000) == net32(<uint32_t>ETHERTYPE_IPV6 << 16 | 0x6000)
        and ip[6] == PROTOCOL_TCP and captured >= PLAIN_HEADERS_6
    ):
        addresses = sum_four(load64(ip + 8), load64(ip + 16), load64(ip + 24), load64(ip + 32))
        length = be16(ip + 4)
        total = length + 40
        memcpy(s.src, ip + 8, 16)
        memcpy(s.dst, ip + 24, 16)
        info = INFO_IPV6
        p = ip + 40
    else:
        return False
    s.time_ns = time_ns
    s.ip_bytes = total
    if total + 14 > captured or not read_usual(s, p, length):
        s.info = info
        total = 14 + 40 if info else 14 + 20
        return read_unusual(d, s, p, captured - total, length, max(captured, wire) - total, addresses)
    if likely(validate):
        bad = sum_five(
            addresses, load64(p), load64(p + 8), sum_number(PROTOCOL_TCP + length), sum_ahead(p + 16, length - 16),
        ) % 0xFFFF != 0
        info += INFO_BAD_CHECKSUM * <uint32_t>bad
        d.bad_checksum += bad
    s.info = info
    return True


# The verdict on a frame; IS_SEGMENT: `s` is filled, all of it. ahead: AHEAD bytes behind it are readable.
cdef int decode(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, bint ahead,
    Segment* s,
) noexcept nogil
