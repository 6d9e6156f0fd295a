# IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200), fragments put together on the way.
#
# What is a datagram and what is thrown away follows Zeek (src/packet_analysis/protocol/ip/IP.cc), so that a connection
# log made from these segments has the same packets: a wrong header checksum, a total length beyond the wire, or 0 while
# checksums are validated, drop the datagram; one that claims no payload carries whatever was captured behind its header
# (segmentation offload, but also padding); a fragment that the capture cut short cannot be reassembled, but the first one
# still shows the TCP header. A reassembled datagram has the header length of the fragment that came first.

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from fasttcp.packets.bytes cimport be16, be32, sum_bytes, sums_up
from fasttcp.packets.fragments cimport PIECE_COMPLETES, PIECE_HELD, Piece, Whole, add_piece
from fasttcp.packets.layers cimport (
    ENCRYPTED, FRAGMENT_HELD, FRAGMENT_LOST, IP_CHECKSUM, IP_LENGTH, IP_MALFORMED, IP_TRUNCATED, IP_ZERO_LENGTH,
    Cursor, Datagram, Decoder, advance,
)

cdef enum:
    HOP_BY_HOP = 0
    ROUTING = 43
    FRAGMENT = 44
    ESP = 50
    AUTHENTICATION = 51
    NO_NEXT = 59
    DESTINATION = 60
    OPTION_PAD1 = 0
    OPTION_JUMBO = 0xC2             # RFC 2675
    OPTION_HOME_ADDRESS = 201       # RFC 6275 section 6.3
    ROUTING_SOURCE = 0              # RFC 2460 section 4.4, deprecated by RFC 5095
    ROUTING_MOBILE = 2              # RFC 6275 section 6.4
    ROUTING_SEGMENTS = 4            # RFC 8754


cdef int _reassemble(Decoder* d, Piece* piece, Datagram* g) noexcept nogil:
    cdef Whole whole
    cdef int outcome
    # This header may itself lie in a reassembled datagram (a tunnel), which is let go when this one is complete.
    cdef uint32_t width = 4 if g.version == 4 else 16
    memcpy(g.addresses, g.src, width)
    memcpy(g.addresses + 16, g.dst, width)
    piece.src = g.src = g.addresses
    piece.dst = g.dst = g.addresses + 16
    piece.version = g.version
    outcome = add_piece(&d.fragments, piece, &whole)
    if outcome == PIECE_HELD:
        return FRAGMENT_HELD
    if outcome != PIECE_COMPLETES:
        return FRAGMENT_LOST
    g.payload.p = whole.data
    g.payload.captured = g.payload.wire = whole.length
    g.protocol = whole.protocol
    g.ip_bytes = whole.header + whole.length
    return 0


cdef int _read_ip4(Decoder* d, Cursor c, int64_t time_ns, Datagram* g) noexcept nogil:
    cdef uint32_t total = be16(c.p + 2)
    cdef uint32_t header = (c.p[0] & 15) * 4
    cdef uint32_t offset = be16(c.p + 6)
    cdef Piece piece
    g.ip_bytes = total
    if total == 0:
        if d.validate:
            return IP_ZERO_LENGTH
        total = c.captured
    if total > c.wire:
        return IP_LENGTH
    if header < 20 or header > total:
        return IP_MALFORMED
    g.empty = total == header and offset & 0x3FFF == 0
    if g.empty:
        total = max(header, c.captured)
    if header > c.captured:
        return IP_TRUNCATED
    if d.validate and not sums_up(sum_bytes(c.p, header)):
        return IP_CHECKSUM
    if c.p[9] == ESP:
        return ENCRYPTED
    g.version = 4
    g.src = c.p + 12
    g.dst = c.p + 16
    g.protocol = c.p[9]
    c.wire = total
    c.captured = min(c.captured, total)
    g.payload = c
    advance(&g.payload, header)
    if offset & 0x3FFF == 0:                    # no offset, no "more fragments"
        return 0
    if c.captured < c.wire:
        return FRAGMENT_LOST if offset & 0x1FFF else 0
    piece.identification = be16(c.p + 4)
    piece.protocol = g.protocol
    piece.offset = (offset & 0x1FFF) * 8
    piece.more = offset & 0x2000
    piece.header = header
    piece.data = g.payload.p
    piece.length = g.payload.captured
    piece.time_ns = time_ns
    return _reassemble(d, &piece, g)


# The first routing header and the first home address that say something count.
cdef bint _read_routing(const uint8_t* p, uint32_t length, Datagram* g) noexcept nogil:
    """Where the datagram finally goes, which is what the TCP checksum covers (RFC 8200 section 8.1)."""
    cdef uint32_t kind = p[2]
    if p[3] == 0:                               # segments left
        return False
    if kind == ROUTING_SOURCE and p[1] >= 2 and p[1] % 2 == 0:
        g.dst = p + length - 16
    elif kind == ROUTING_MOBILE and p[1] == 2:
        g.dst = p + length - 16
    elif kind == ROUTING_SEGMENTS and p[1] >= 2:
        g.dst = p + 8                           # segments are listed from the last one
    else:
        return False
    return True


cdef bint _read_home_address(const uint8_t* p, uint32_t length, Datagram* g) noexcept nogil:
    cdef uint32_t at = 2
    while at + 2 <= length:
        if p[at] == OPTION_PAD1:
            at += 1
            continue
        if at + 2 + p[at + 1] > length:
            return False
        if p[at] == OPTION_HOME_ADDRESS and p[at + 1] == 16:
            g.src = p + at + 2
            return True
        at += 2 + p[at + 1]
    return False


cdef uint32_t _jumbo(const Cursor* c) noexcept nogil:
    """The payload length in a jumbo option right after the IPv6 header, or 0."""
    cdef uint32_t at = 42
    cdef uint32_t end
    if c.captured < 48 or c.p[6] != HOP_BY_HOP:
        return 0
    end = min(c.captured, 40 + (c.p[41] + 1) * 8)
    while at + 6 <= end:
        if c.p[at] == OPTION_JUMBO and c.p[at + 1] == 4:
            return be32(c.p + at + 2)
        at += 1 if c.p[at] == OPTION_PAD1 else 2 + c.p[at + 1]
    return 0


cdef int _read_ip6(Decoder* d, Cursor c, int64_t time_ns, Datagram* g) noexcept nogil:
    cdef uint32_t length = be16(c.p + 4)
    cdef uint32_t next_header = c.p[6]
    cdef uint32_t before = 40                   # bytes of headers passed, the fragment header's not counted
    cdef uint32_t here
    cdef uint32_t offset
    cdef bint whole
    cdef bint routed = False
    cdef bint at_home = False
    cdef Piece piece
    cdef int verdict
    g.version = 6
    g.src = c.p + 8
    g.dst = c.p + 24
    g.ip_bytes = 40 + length
    g.empty = False
    if length == 0 and next_header != NO_NEXT:
        length = _jumbo(&c)
        if length == 0:
            if next_header in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, AUTHENTICATION):
                return IP_MALFORMED
            length = c.captured - 40            # segmentation offload
            g.empty = True
        elif length > c.wire:
            return IP_LENGTH
        else:
            g.ip_bytes = 40 + length
    if length > c.wire - 40:
        return IP_LENGTH
    advance(&c, 40)
    whole = c.captured >= length
    c.wire = length
    c.captured = min(c.captured, length)

    while True:
        if next_header == ESP:
            return ENCRYPTED
        if next_header not in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, AUTHENTICATION):
            g.protocol = next_header
            g.payload = c
            return 0
        if c.captured < 8:
            return IP_TRUNCATED
        if next_header == FRAGMENT:
            here = 8
        elif next_header == AUTHENTICATION:
            here = (c.p[1] + 2) * 4             # RFC 4302 section 2.2
        else:
            here = (c.p[1] + 1) * 8
        if here > c.captured:
            return IP_TRUNCATED if here <= c.wire else IP_MALFORMED
        if next_header == ROUTING and not routed:
            routed = _read_routing(c.p, here, g)
        elif next_header == DESTINATION and not at_home:
            at_home = _read_home_address(c.p, here, g)
        elif next_header == FRAGMENT:
            offset = be16(c.p + 2)
            piece.protocol = c.p[0]
            piece.identification = be32(c.p + 4)
            advance(&c, 8)
            next_header = piece.protocol
            g.ip_bytes -= 8
            if offset & 0xFFF9 == 0 and whole:  # a fragment that is all there is (RFC 6946)
                continue
            if not whole:
                if offset & 0xFFF8:
                    return FRAGMENT_LOST
                g.ip_bytes += 8
                continue
            piece.offset = offset & 0xFFF8
            piece.more = offset & 1
            piece.header = before
            piece.data = c.p
            piece.length = c.captured
            piece.time_ns = time_ns
            verdict = _reassemble(d, &piece, g)
            if verdict:
                return verdict
            c = g.payload
            next_header = g.protocol
            continue
        next_header = c.p[0]
        before += here
        advance(&c, here)


cdef int read_ip(Decoder* d, const Cursor* c, int64_t time_ns, Datagram* g) noexcept nogil:
    if c.captured < 20:
        return IP_TRUNCATED
    if c.p[0] >> 4 == 4:
        return _read_ip4(d, c[0], time_ns, g)
    if c.p[0] >> 4 != 6:
        return IP_MALFORMED
    if c.captured < 40:
        return IP_TRUNCATED
    return _read_ip6(d, c[0], time_ns, g)
