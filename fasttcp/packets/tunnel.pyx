# Tunnels: what a datagram that is not TCP may carry inside.
#
#   IP in IP        protocol 4, 41              RFC 2003, RFC 4213
#   GRE             protocol 47, UDP 4754       RFC 2784, 2890, 2637 (PPTP), 8086; ERSPAN I, II, III; Aruba's 802.11
#   VXLAN           UDP 4789                    RFC 7348
#   Geneve          UDP 6081                    RFC 8926
#   GTP-U           UDP 2152, 2123              3GPP TS 29.281
#   Teredo          UDP 3544, or told by the 2001::/32 addresses inside, or by an origin indication   RFC 4380
#   AYIYA           UDP 5072, or told by its usual second and third byte    draft-massar-v6ops-ayiya
#
# A datagram on one of these ports that does not look like the tunnel is what it says it is: UDP, no segment. As in Zeek,
# IP in IP, GTP-U and Teredo are opened only if the datagram inside is all that is there, and all of it is.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fasttcp.packets.bytes cimport be16, be32, in_sum, sum_bytes, sums_up
from fasttcp.packets.layers cimport (
    INNER_IP, LINK, NOT_IP, NOT_TCP, STOP, TUNNEL_CHECKSUM, TUNNEL_MALFORMED, Cursor, Datagram, Decoder, advance,
)
from fasttcp.packets.link cimport LINKTYPE_ETHERNET, LINKTYPE_IEEE802_11

cdef enum:
    PORT_GTP_C = 2123
    PORT_GTP_U = 2152
    PORT_TEREDO = 3544
    PORT_GRE = 4754
    PORT_VXLAN = 4789
    PORT_AYIYA = 5072
    PORT_GENEVE = 6081
    GRE_CHECKSUM = 0x8000
    GRE_ROUTING = 0x4000
    GRE_KEY = 0x2000
    GRE_SEQUENCE = 0x1000
    GRE_ACKNOWLEDGMENT = 0x0080     # version 1 only
    TYPE_BRIDGED = 0x6558
    TYPE_PPTP = 0x880B
    TYPE_ERSPAN = 0x88BE            # type I without, type II with a sequence number
    TYPE_ERSPAN_3 = 0x22EB
    TEREDO_PREFIX = 0x20010000
    PPP_IPV4 = 0x0021
    PPP_IPV6 = 0x0057


cdef bint _is_whole(const Cursor* c, uint32_t version) noexcept nogil:
    """An IP datagram of this version, captured to its last byte, and nothing behind it."""
    if c.captured < 20 or c.p[0] >> 4 != version:
        return False
    if version == 4:
        return be16(c.p + 2) == c.captured
    return c.captured >= 40 and be16(c.p + 4) + 40 == c.captured


cdef uint32_t _gre(Cursor* c) noexcept nogil:
    cdef uint32_t flags
    cdef uint32_t inner
    cdef uint32_t header = 4
    if c.captured < 4:
        return STOP | TUNNEL_MALFORMED
    flags = be16(c.p)
    inner = be16(c.p + 2)
    # RFC 1701's routing is gone, and reserved bits are zero. Version 1 is PPTP's.
    if flags & 7 > 1 or flags & (GRE_ROUTING | 0x0078):
        return STOP | TUNNEL_MALFORMED
    if flags & GRE_CHECKSUM:
        header += 4
    if flags & GRE_KEY:
        header += 4
    if flags & GRE_SEQUENCE:
        header += 4
    if flags & GRE_ACKNOWLEDGMENT:
        header += 4
    if flags & 7 == 1:
        if inner != TYPE_PPTP:
            return STOP | TUNNEL_MALFORMED
        if header == c.captured:                            # an acknowledgment
            return STOP | NOT_TCP
        header += 4                                         # PPP in its long form, the only one that Zeek reads
        if header <= c.captured and be16(c.p + header - 2) not in (PPP_IPV4, PPP_IPV6):
            return STOP | NOT_IP
        inner = INNER_IP
    elif inner == TYPE_ERSPAN:
        if flags & GRE_SEQUENCE:
            header += 8
        inner = LINK | LINKTYPE_ETHERNET
    elif inner == TYPE_ERSPAN_3:
        header += 12
        if c.captured >= header and c.p[header - 1] & 1:    # the optional platform header
            header += 8
        inner = LINK | LINKTYPE_ETHERNET
    elif inner == 0x9000 or (inner & 0xFF0F == 0x8200) or (inner & 0xFF0F == 0x8300 and inner <= 0x8370):
        inner = LINK | LINKTYPE_IEEE802_11                  # Aruba access points
    elif inner < 0x0600:
        return STOP | TUNNEL_MALFORMED
    if header >= c.captured:
        return STOP | (NOT_TCP if header == c.captured else TUNNEL_MALFORMED)   # bare: a keepalive
    advance(c, header)
    return inner


cdef uint32_t _vxlan(Cursor* c) noexcept nogil:
    if c.captured < 8 or not c.p[0] & 0x08:                 # the I flag: a VNI is there
        return STOP | TUNNEL_MALFORMED
    advance(c, 8)
    return LINK | LINKTYPE_ETHERNET


cdef uint32_t _geneve(Cursor* c) noexcept nogil:
    cdef uint32_t header
    cdef uint32_t inner
    if c.captured < 8 or c.p[0] >> 6 != 0:                  # version 0
        return STOP | TUNNEL_MALFORMED
    header = 8 + (c.p[0] & 0x3F) * 4
    inner = be16(c.p + 2)
    if header > c.captured or inner < 0x0600:
        return STOP | TUNNEL_MALFORMED
    advance(c, header)
    return inner


cdef uint32_t _gtp(Cursor* c) noexcept nogil:
    cdef uint32_t next_extension
    cdef uint32_t length
    if c.captured < 8 or c.p[0] >> 5 != 1 or not c.p[0] & 0x10:     # version 1, GTP and not GTP'
        return STOP | TUNNEL_MALFORMED
    if c.p[1] != 255:                                       # a message about the tunnel, not a packet in it
        return STOP | NOT_TCP
    if c.p[0] & 7 == 0:
        advance(c, 8)
    else:                                                   # any of E, S, PN brings all four bytes (section 5.1)
        if c.captured < 12:
            return STOP | TUNNEL_MALFORMED
        next_extension = c.p[0] & 4
        advance(c, 12)
        while next_extension:
            if c.captured < 4:
                return STOP | TUNNEL_MALFORMED
            length = c.p[0] * 4
            if length == 0 or length > c.captured:
                return STOP | TUNNEL_MALFORMED
            next_extension = c.p[length - 1]
            advance(c, length)
    return INNER_IP if _is_whole(c, 4) or _is_whole(c, 6) else STOP | TUNNEL_MALFORMED


cdef uint32_t _teredo(Cursor* c) noexcept nogil:
    cdef uint32_t header
    if c.captured >= 4 and be16(c.p) == 1:                  # authentication: client id, value, nonce, confirmation
        header = 4 + c.p[2] + c.p[3] + 9
        if header > c.captured:
            return STOP | TUNNEL_MALFORMED
        advance(c, header)
    if c.captured >= 8 and be16(c.p) == 0:                  # origin indication
        advance(c, 8)
    return INNER_IP if _is_whole(c, 6) else STOP | TUNNEL_MALFORMED


cdef uint32_t _ayiya(Cursor* c) noexcept nogil:
    cdef uint32_t header
    cdef uint32_t inner
    if c.captured < 8:
        return STOP | TUNNEL_MALFORMED
    if c.p[2] & 15 != 1:                                    # not "forward"
        return STOP | NOT_TCP
    inner = c.p[3]
    header = 8 + (<uint32_t>1 << (c.p[0] >> 4)) + (c.p[1] >> 4) * 4
    if header > c.captured or inner not in (PROTOCOL_IPIP, PROTOCOL_6IN4):
        return STOP | TUNNEL_MALFORMED
    advance(c, header)
    return INNER_IP


cdef bint _checksum_is_wrong(Datagram* g) noexcept nogil:
    cdef const uint8_t* p = g.payload.p
    cdef uint32_t width = 4 if g.version == 4 else 16
    cdef uint32_t length = g.payload.wire
    cdef uint64_t pseudo
    if g.payload.captured < length:                         # not all is here
        return False
    if be16(p + 6) == 0:                                    # none was made: IPv6 allows that to VXLAN alone, says Zeek
        return g.version == 6 and be16(p + 2) != PORT_VXLAN
    # Zeek sums by IP's length: a UDP length that differs makes a wrong sum.
    pseudo = sum_bytes(g.src, width) + sum_bytes(g.dst, width) + in_sum(PROTOCOL_UDP) + in_sum(length & 0xFFFF)
    return not sums_up(pseudo + sum_bytes(p, length))


cdef uint32_t _by_port(uint32_t port, Cursor* c, bint* named) noexcept nogil:
    named[0] = True
    if port == PORT_VXLAN:
        return _vxlan(c)
    if port == PORT_GENEVE:
        return _geneve(c)
    if port == PORT_GTP_U or port == PORT_GTP_C:
        return _gtp(c)
    if port == PORT_TEREDO:
        return _teredo(c)
    if port == PORT_AYIYA:
        return _ayiya(c)
    if port == PORT_GRE:
        return _gre(c)
    named[0] = False
    return 0


cdef uint32_t _by_look(Cursor* c) noexcept nogil:
    """Tunnels on any port. Teredo's clients choose theirs."""
    cdef const uint8_t* p = c.p
    cdef uint32_t kind
    if c.captured >= 8 and p[1] == 0x52 and p[2] == 0x11:
        return _ayiya(c)
    if c.captured < 40 or not (
            be16(p) <= 1
            or (p[0] >> 4 == 6 and (be32(p + 8) == TEREDO_PREFIX or be32(p + 24) == TEREDO_PREFIX))):
        return STOP | NOT_TCP
    kind = _teredo(c)
    if kind & STOP or (be16(p) == 1 and c.p == p + 13 + p[2] + p[3]):   # an authentication alone says too little
        return STOP | NOT_TCP
    return kind


cdef uint32_t _udp(Decoder* d, Datagram* g) noexcept nogil:
    cdef Cursor inner = g.payload
    cdef uint32_t kind, port
    cdef bint named
    cdef bint gtp = False
    if inner.captured < 8 or inner.wire < 8:
        return STOP | NOT_TCP
    advance(&inner, 8)
    port = be16(g.payload.p + 2)
    kind = _by_port(port, &inner, &named)
    if not named:
        port = be16(g.payload.p)
        kind = _by_port(port, &inner, &named)
    if named:
        gtp = port == PORT_GTP_U or port == PORT_GTP_C
    else:
        kind = _by_look(&inner)
    if kind & STOP:
        return kind
    if gtp and d.in_gtp:                                    # GTP-U does not carry itself: someone's ordinary UDP
        return STOP | NOT_TCP
    if d.validate and _checksum_is_wrong(g):
        return STOP | TUNNEL_CHECKSUM
    d.in_gtp = gtp
    g.payload = inner
    return kind


cdef uint32_t open_tunnel(Decoder* d, Datagram* g) noexcept nogil:
    if g.protocol == PROTOCOL_UDP:
        return _udp(d, g)
    d.in_gtp = False
    if g.protocol == PROTOCOL_GRE:
        return _gre(&g.payload)
    if g.protocol == PROTOCOL_IPIP or g.protocol == PROTOCOL_6IN4:
        return INNER_IP if _is_whole(&g.payload, 4 if g.protocol == PROTOCOL_IPIP else 6) else STOP | TUNNEL_MALFORMED
    return STOP | NOT_TCP
