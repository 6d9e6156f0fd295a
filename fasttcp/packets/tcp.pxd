# The TCP header and its options into a Segment (RFC 9293 section 3.1, RFC 7323 for window scale and timestamps, RFC
# 2018).
#
# The caller has filled time_ns, src, dst and ip_bytes, and has at least 20 captured bytes at `p`. Options are read as
# far as they make sense: what follows a broken one is not looked at, and a known option of the wrong length is as if
# absent.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport (
    INFO_BAD_CHECKSUM, INFO_BAD_HEADER, INFO_CUT, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WSCALE, Segment,
)
from fasttcp.core.prefetch cimport load32, load64, net32, net64, store32, store64
from fasttcp.packets.bytes cimport be16, be32, lower_first, sum_bytes, sums_up, two_fields, two_numbers


cdef enum:
    TCP_HEADER = 20
    TIMESTAMPS_ALONE = 0x0101080A   # NOP NOP timestamps(10): what nearly every segment after the handshake carries


# layouts.h
cdef extern from "layouts.h" nogil:
    ctypedef struct Layout:
        uint8_t care[8]
        uint8_t those[8]
        uint8_t care_scale[4]
        uint8_t those_scale[4]
        uint64_t stamps
        uint32_t header
        uint32_t syn
        uint8_t options
        uint8_t stamps_at
    const Layout* layout_of(uint32_t word) noexcept


cdef inline void read_options(Segment* s, const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef uint32_t kind
    cdef uint32_t length
    while p < end:
        kind = p[0]
        if kind == 0:
            return
        if kind == 1:
            p += 1
            continue
        if end - p < 2:
            return
        length = p[1]
        if length < 2 or length > <uint32_t>(end - p):
            return
        if kind == 8 and length == 10:
            s.tsval = be32(p + 2)
            s.tsecr = be32(p + 6)
            s.options |= OPT_TIMESTAMPS
        elif kind == 2 and length == 4:
            s.mss = be16(p + 2)
            s.options |= OPT_MSS
        elif kind == 3 and length == 3:
            s.wscale = p[2]
            s.options |= OPT_WSCALE
        elif kind == 4 and length == 2:
            s.options |= OPT_SACK_PERMITTED
        p += length


# Which of the usual layouts a segment has cannot be predicted, so their values are taken without a branch.
cdef inline bint read_usual(Segment* s, const uint8_t* p, uint32_t length) noexcept nogil:
    """What read_tcp reads of a segment that is there whole, but for `info` and the checksum. False: its header or its
    options are not usual, and what has been written means nothing.

    60 bytes at p can be read, whatever they are.
    """
    cdef const uint8_t* o = p + TCP_HEADER
    cdef uint32_t ports
    cdef uint64_t word = net64(load64(p + 8))        # acknowledgment, data offset, flags, window
    cdef const Layout* usual = layout_of(<uint32_t>word)
    cdef uint32_t payload = length - usual.header
    s.payload = payload
    if <int32_t>payload < 0 or (
            ((load64(o) & load64(usual.care)) ^ load64(usual.those))
            | ((load32(o + 16) & load32(usual.care_scale)) ^ load32(usual.those_scale))):
        return False
    s.ack = <uint32_t>(word >> 32)
    store32(&s.window, lower_first(<uint32_t>word & 0xFFFFFF))
    ports = net32(load32(p))
    store32(&s.sport, two_fields(ports >> 16, ports & 0xFFFF))
    s.seq = net32(load32(p + 4))
    store64(&s.tsval, two_numbers(load64(o + usual.stamps_at)) & usual.stamps)
    s.mss = <uint16_t>(be16(o + 2) & usual.syn)
    s.wscale = <uint8_t>(o[19] & usual.syn)
    s.options = usual.options
    return True


# `captured` and `length` are bytes of the TCP segment, header and all: those at hand, and those on the wire
# (captured <= length).
cdef inline bint read_header(Segment* s, const uint8_t* p, uint32_t captured, uint32_t length) noexcept nogil:
    """All but the options. False: the header is bad."""
    cdef uint32_t header = (p[12] >> 4) * 4
    s.sport = be16(p)
    s.dport = be16(p + 2)
    s.tsval = 0
    s.tsecr = 0
    s.mss = 0
    s.wscale = 0
    s.options = 0
    s.seq = be32(p + 4)
    s.ack = be32(p + 8)
    s.flags = p[13]
    if header < TCP_HEADER or header > captured:
        s.payload = 0
        s.window = 0
        s.info |= INFO_BAD_HEADER
        return False
    s.window = be16(p + 14)
    s.payload = length - header
    return True


# `pseudo` is the sum of the pseudo-header (RFC 9293 section 3.1), or 0 with `validate` false.
cdef inline void read_tcp(
    Segment* s, const uint8_t* p, uint32_t captured, uint32_t length, bint validate, uint64_t pseudo,
) noexcept nogil:
    cdef uint32_t header = (p[12] >> 4) * 4
    if not read_header(s, p, captured, length):
        return
    if header != TCP_HEADER:
        if header == 32 and be32(p + 20) == TIMESTAMPS_ALONE:
            s.tsval = be32(p + 24)
            s.tsecr = be32(p + 28)
            s.options = OPT_TIMESTAMPS
        else:
            read_options(s, p + TCP_HEADER, p + header)
    # Cut short by the snapshot length, a checksum can be neither right nor wrong.
    if captured != length:
        s.info |= INFO_CUT
    elif validate and not sums_up(pseudo + sum_bytes(p, length)):
        s.info |= INFO_BAD_CHECKSUM
