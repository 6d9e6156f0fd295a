# Link layers: from the first byte of a frame to its IP header.
#
# Each function takes off one header and names the next kind (layers.pxd). None looks into IP, and none keeps anything
# between frames. Numbers: tcpdump.org/linktypes.html, EtherTypes of IEEE 802 numbers (IANA).

from libc.stdint cimport uint8_t, uint32_t

from fasttcp.packets.bytes cimport be16, be32, le16, le32
from fasttcp.packets.layers cimport (
    ENCRYPTED, INNER_IP, INNER_LLC, INNER_SUBFRAME, LINK, LINK_MALFORMED, LINK_TRUNCATED, LINK_UNKNOWN, NOT_IP, STOP,
    Cursor, Decoder, advance,
)

cdef enum:
    TYPE_IPV4 = 0x0800
    TYPE_IPV6 = 0x86DD
    TYPE_VLAN = 0x8100              # IEEE 802.1Q
    TYPE_QINQ = 0x88A8              # IEEE 802.1ad
    TYPE_QINQ_OLD_1 = 0x9100        # before 802.1ad, by several vendors
    TYPE_QINQ_OLD_2 = 0x9200
    TYPE_QINQ_OLD_3 = 0x9300
    TYPE_MPLS = 0x8847              # RFC 3032
    TYPE_MPLS_UPSTREAM = 0x8848     # RFC 5332
    TYPE_PPPOE_SESSION = 0x8864     # RFC 2516
    TYPE_PBB = 0x88E7               # IEEE 802.1ah, the I-TAG
    TYPE_BRIDGED = 0x6558           # a whole Ethernet frame (RFC 1701)
    TYPE_VNTAG = 0x8926             # IEEE 802.1Qbh
    TYPE_FABRICPATH = 0x8903        # Cisco
    PPP_IPV4 = 0x0021               # RFC 1332
    PPP_IPV6 = 0x0057               # RFC 5072
    PPP_MPLS = 0x0281               # RFC 3032
    NFLOG_PAYLOAD = 9               # the TLV that holds the packet


cdef bint link_is_known(uint32_t linktype) noexcept nogil:
    return linktype in (
        LINKTYPE_NULL, LINKTYPE_ETHERNET, LINKTYPE_PPP, LINKTYPE_FDDI, LINKTYPE_RAW_12, LINKTYPE_RAW_14,
        LINKTYPE_PPP_HDLC, LINKTYPE_PPP_ETHER, LINKTYPE_RAW, LINKTYPE_C_HDLC, LINKTYPE_IEEE802_11, LINKTYPE_LOOP,
        LINKTYPE_LINUX_SLL, LINKTYPE_IEEE802_11_PRISM, LINKTYPE_IEEE802_11_RADIOTAP, LINKTYPE_IEEE802_11_AVS,
        LINKTYPE_PPI, LINKTYPE_IPV4, LINKTYPE_IPV6, LINKTYPE_NFLOG, LINKTYPE_LINUX_SLL2,
    )


cdef uint32_t _ethernet(Cursor* c) noexcept nogil:
    cdef uint32_t kind
    if c.captured < 14:
        return STOP | LINK_TRUNCATED
    kind = be16(c.p + 12)
    if kind == TYPE_FABRICPATH:         # a header in the shape of Ethernet's and a tag; the real frame follows
        if c.captured < 16 + 14:
            return STOP | LINK_TRUNCATED
        advance(c, 16)
        kind = be16(c.p + 12)
    advance(c, 14)
    if kind >= 0x0600:
        return kind
    if kind > 1500:
        return STOP | LINK_MALFORMED
    c.captured = min(c.captured, kind)      # a length: what is behind it is padding
    return INNER_LLC


cdef uint32_t _llc(Cursor* c) noexcept nogil:
    """IEEE 802.2: SNAP with an EtherType, or the rare SAP of IP itself (RFC 948)."""
    if c.captured < 3:
        return STOP | LINK_TRUNCATED
    if c.p[0] == 0xAA and c.p[1] == 0xAA:
        if c.captured < 8:
            return STOP | LINK_TRUNCATED
        if c.p[2] != 3 or c.p[3] or c.p[4] or c.p[5]:       # another organisation's protocol
            return STOP | NOT_IP
        advance(c, 8)
        return be16(c.p - 2) if be16(c.p - 2) >= 0x0600 else STOP | NOT_IP
    if c.p[0] == 0x06 and c.p[1] == 0x06 and c.p[2] == 3:
        advance(c, 3)
        return INNER_IP
    return STOP | NOT_IP


cdef uint32_t _tag(Cursor* c, uint32_t length) noexcept nogil:
    """A tag of `length` bytes that ends with the EtherType, or a length, of what follows."""
    cdef uint32_t kind
    if c.captured < length:
        return STOP | LINK_TRUNCATED
    advance(c, length)
    kind = be16(c.p - 2)
    if kind >= 0x0600:
        return kind
    c.captured = min(c.captured, kind)
    return INNER_LLC


cdef uint32_t _mpls(Cursor* c) noexcept nogil:
    """Labels to the bottom of the stack. What follows has no name: an IP version, or 0 for a control word."""
    cdef bint bottom = False
    while not bottom:
        if c.captured < 4:
            return STOP | LINK_TRUNCATED
        bottom = c.p[2] & 1
        advance(c, 4)
    if c.captured < 1:
        return STOP | LINK_TRUNCATED
    if c.p[0] >> 4 in (4, 6):
        return INNER_IP
    if c.p[0] >> 4 == 0 and c.captured >= 4:                # RFC 4448 section 4.6
        advance(c, 4)
        return LINK | LINKTYPE_ETHERNET
    return STOP | NOT_IP


cdef uint32_t _ppp(Cursor* c) noexcept nogil:
    """RFC 1661, with or without HDLC's address and control (RFC 1662), with or without a compressed protocol field."""
    cdef uint32_t protocol
    if c.captured >= 2 and c.p[0] == 0xFF and c.p[1] == 0x03:
        advance(c, 2)
    if c.captured < 2:
        return STOP | LINK_TRUNCATED
    if c.p[0] & 1:
        protocol = c.p[0]
        advance(c, 1)
    else:
        protocol = be16(c.p)
        advance(c, 2)
    if protocol == PPP_IPV4 or protocol == PPP_IPV6:
        return INNER_IP
    return TYPE_MPLS if protocol == PPP_MPLS else STOP | NOT_IP


cdef uint32_t _pppoe(Cursor* c) noexcept nogil:
    # How long the datagram was IP says; but what lies behind the length here is not taken for a part of it. So does Zeek.
    cdef uint32_t length
    if c.captured < 6:
        return STOP | LINK_TRUNCATED
    if c.p[0] != 0x11:
        return STOP | LINK_MALFORMED
    if c.p[1] != 0:                     # discovery
        return STOP | NOT_IP
    length = be16(c.p + 4)
    advance(c, 6)
    c.captured = min(c.captured, length)
    return LINK | LINKTYPE_PPP


cdef uint32_t _null(Cursor* c) noexcept nogil:
    """Four bytes of address family: in the writing host's byte order (NULL), or in network order (OpenBSD's LOOP)."""
    cdef uint32_t family
    if c.captured < 4:
        return STOP | LINK_TRUNCATED
    family = le32(c.p) if le32(c.p) < 0x10000 else be32(c.p)
    advance(c, 4)
    # AF_INET is 2 everywhere; AF_INET6 is 10, 24, 28 or 30, depending on the system
    return INNER_IP if family in (2, 10, 23, 24, 28, 30) else STOP | NOT_IP


cdef uint32_t _sll(Cursor* c) noexcept nogil:
    cdef uint32_t kind
    if c.captured < 16:
        return STOP | LINK_TRUNCATED
    kind = be16(c.p + 14)
    advance(c, 16)
    if kind >= 0x0600:
        return kind
    return INNER_LLC if kind == 4 else STOP | NOT_IP       # 4: LINUX_SLL_P_802_2


cdef uint32_t _sll2(Cursor* c) noexcept nogil:
    cdef uint32_t kind
    if c.captured < 20:
        return STOP | LINK_TRUNCATED
    kind = be16(c.p)
    advance(c, 20)
    if kind >= 0x0600:
        return kind
    return INNER_LLC if kind == 4 else STOP | NOT_IP


cdef uint32_t _cisco_hdlc(Cursor* c) noexcept nogil:
    if c.captured < 4:
        return STOP | LINK_TRUNCATED
    advance(c, 4)
    return be16(c.p - 2) if be16(c.p - 2) >= 0x0600 else STOP | NOT_IP


cdef uint32_t _skip_to(Cursor* c, uint32_t header, uint32_t least, uint32_t kind) noexcept nogil:
    """A header that says its own length."""
    if header < least:
        return STOP | LINK_MALFORMED
    if header > c.captured:
        return STOP | LINK_TRUNCATED
    advance(c, header)
    return kind


cdef uint32_t _radiotap(Cursor* c, bint* padded) noexcept nogil:
    """radiotap.org: little-endian. The first present word says where the flags are, those whether padding follows."""
    cdef uint32_t length
    cdef uint32_t present
    cdef uint32_t at = 4
    if c.captured < 8:
        return STOP | LINK_TRUNCATED
    length = le16(c.p + 2)
    present = le32(c.p + 4)
    if length < 8:
        return STOP | LINK_MALFORMED
    if length > c.captured:
        return STOP | LINK_TRUNCATED
    while at + 4 <= length and le32(c.p + at) >> 31:        # more present words
        at += 4
    at += 4
    if present & 1:                                         # TSFT, aligned to 8
        at = ((at + 7) & ~7) + 8
    padded[0] = present & 2 and at < length and c.p[at] & 0x20
    advance(c, length)
    return LINK | LINKTYPE_IEEE802_11


cdef uint32_t _wifi(Cursor* c, bint padded) noexcept nogil:
    """An 802.11 data frame that holds data (IEEE 802.11 section 9.3.2)."""
    cdef uint32_t header = 24
    cdef uint8_t control
    cdef uint8_t flags
    cdef bint subframes = False
    if c.captured < 2:
        return STOP | LINK_TRUNCATED
    control = c.p[0]
    flags = c.p[1]
    if (control >> 2) & 3 != 2 or control & 0x40:           # not data, or a subtype without any
        return STOP | NOT_IP
    if flags & 3 == 3:                                      # four addresses
        header += 6
    if control & 0x80:                                      # QoS
        if c.captured < header + 2:
            return STOP | LINK_TRUNCATED
        subframes = c.p[header] & 0x80
        header += 2
        if flags & 0x80:                                    # HT control
            header += 4
    if flags & 0x40:
        return STOP | ENCRYPTED
    if padded:
        header = (header + 3) & ~3
    if c.captured < header:
        return STOP | LINK_TRUNCATED
    advance(c, header)
    return INNER_SUBFRAME if subframes else INNER_LLC


cdef uint32_t _subframe(Decoder* d, Cursor* c) noexcept nogil:
    """One subframe of an A-MSDU: addresses, length, LLC.

    The next begins on a multiple of four bytes from this one's start. Zeek pads by the remainder of the length instead,
    which some senders may do as well: where that leads to LLC with SNAP, it is right.

    It is returned to (`resume`) unless it lies in a reassembled datagram, which this one may replace.
    """
    cdef uint32_t length
    cdef uint32_t whole
    cdef uint32_t other
    if c.captured < 14:
        return STOP | LINK_TRUNCATED
    length = be16(c.p + 12)
    if length > c.captured - 14:
        return STOP | LINK_TRUNCATED
    whole = (14 + length + 3) & ~3
    other = 14 + length + length % 4
    if other != whole and other + 17 <= c.captured and (
            be16(c.p + other + 14) == 0xAAAA and c.p[other + 16] == 3):
        whole = other
    if whole < c.captured and d.frame <= c.p < d.frame + d.frame_captured:
        d.resume = <uint32_t>(c.p - d.frame) + whole
        d.resume_captured = c.captured - whole
        d.resume_depth = d.depth
    advance(c, 14)
    c.wire = c.captured = length
    return INNER_LLC


cdef uint32_t _ppi(Cursor* c) noexcept nogil:
    if c.captured < 8:
        return STOP | LINK_TRUNCATED
    cdef uint32_t linktype = le32(c.p + 4)
    if linktype == LINKTYPE_PPI or not link_is_known(linktype):
        return STOP | NOT_IP
    return _skip_to(c, le16(c.p + 2), 8, LINK | linktype)


cdef uint32_t _prism(Cursor* c) noexcept nogil:
    """144 bytes of Prism header, unless an AVS header stands in its place (told by its magic)."""
    if c.captured < 8:
        return STOP | LINK_TRUNCATED
    if be32(c.p) >> 12 == 0x80211:
        return _skip_to(c, be32(c.p + 4), 8, LINK | LINKTYPE_IEEE802_11)
    return _skip_to(c, 144, 144, LINK | LINKTYPE_IEEE802_11)


cdef uint32_t _nflog(Cursor* c) noexcept nogil:
    """TLVs in the writing host's byte order, which the file does not tell; little-endian is taken for granted."""
    cdef uint32_t length
    if c.captured < 4:
        return STOP | LINK_TRUNCATED
    if c.p[1] != 0:                     # version
        return STOP | LINK_MALFORMED
    advance(c, 4)
    while c.captured >= 4:
        length = le16(c.p)
        if length < 4:
            return STOP | LINK_MALFORMED
        if le16(c.p + 2) == NFLOG_PAYLOAD:
            advance(c, 4)
            return INNER_IP
        length = (length + 3) & ~3
        if length > c.captured:
            return STOP | LINK_TRUNCATED
        advance(c, length)
    return STOP | LINK_TRUNCATED


cdef int find_ip(Decoder* d, uint32_t kind, Cursor* c) noexcept nogil:
    cdef bint padded = False
    while True:
        if kind == TYPE_IPV4 or kind == TYPE_IPV6 or kind == INNER_IP:
            return 0
        elif kind & STOP:
            return <int>(kind & ~<uint32_t>STOP)
        elif kind == LINK | LINKTYPE_ETHERNET or kind == TYPE_BRIDGED:
            kind = _ethernet(c)
        elif kind in (TYPE_VLAN, TYPE_QINQ, TYPE_QINQ_OLD_1, TYPE_QINQ_OLD_2, TYPE_QINQ_OLD_3):
            kind = _tag(c, 4)
        elif kind == TYPE_VNTAG:
            kind = _tag(c, 6)
        elif kind in (
                LINK | LINKTYPE_RAW, LINK | LINKTYPE_RAW_12, LINK | LINKTYPE_RAW_14, LINK | LINKTYPE_IPV4,
                LINK | LINKTYPE_IPV6):
            kind = INNER_IP
        elif kind == LINK | LINKTYPE_LINUX_SLL:
            kind = _sll(c)
        elif kind == LINK | LINKTYPE_LINUX_SLL2:
            kind = _sll2(c)
        elif kind == LINK | LINKTYPE_NULL or kind == LINK | LINKTYPE_LOOP:
            kind = _null(c)
        elif kind == INNER_LLC:
            kind = _llc(c)
        elif kind == TYPE_MPLS or kind == TYPE_MPLS_UPSTREAM:
            kind = _mpls(c)
        elif kind == TYPE_PPPOE_SESSION or kind == LINK | LINKTYPE_PPP_ETHER:
            kind = _pppoe(c)
        elif kind == LINK | LINKTYPE_PPP or kind == LINK | LINKTYPE_PPP_HDLC:
            kind = _ppp(c)
        elif kind == TYPE_PBB:          # the rest of the I-TAG, then the customer's frame
            kind = _skip_to(c, 4, 4, LINK | LINKTYPE_ETHERNET)
        elif kind == LINK | LINKTYPE_FDDI:
            kind = _skip_to(c, 13, 13, INNER_LLC)
        elif kind == LINK | LINKTYPE_C_HDLC:
            kind = _cisco_hdlc(c)
        elif kind == LINK | LINKTYPE_IEEE802_11_RADIOTAP:
            kind = _radiotap(c, &padded)
        elif kind == LINK | LINKTYPE_IEEE802_11:
            kind = _wifi(c, padded)
        elif kind == INNER_SUBFRAME:
            kind = _subframe(d, c)
        elif kind == LINK | LINKTYPE_IEEE802_11_AVS or kind == LINK | LINKTYPE_IEEE802_11_PRISM:
            kind = _prism(c)
        elif kind == LINK | LINKTYPE_PPI:
            kind = _ppi(c)
        elif kind == LINK | LINKTYPE_NFLOG:
            kind = _nflog(c)
        elif kind & LINK:
            return LINK_UNKNOWN
        else:
            return NOT_IP
