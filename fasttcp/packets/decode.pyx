# Frames into segments, the long way: link layers, IP, tunnels and TCP put together. The functions are declared in
# decode.pxd; nothing here is seen from Python. State from frame to frame: counters and unfinished fragments, both in
# the Decoder.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fasttcp.core.layout cimport INFO_BAD_CHECKSUM, INFO_BAD_HEADER, INFO_IPV6, Segment
from fasttcp.packets.bytes cimport be16, in_sum, sum_bytes, sum_number
from fasttcp.packets.fragments cimport free_fragments
from fasttcp.packets.ip cimport read_ip
from fasttcp.packets.layers cimport (
    INNER_SUBFRAME, IS_SEGMENT, LINK, MAX_TUNNELS, NOT_TCP, STOP, TCP_TRUNCATED, TUNNEL_DEPTH, Cursor, Datagram,
    Decoder,
)
from fasttcp.packets.link cimport LINKTYPE_ETHERNET, find_ip
from fasttcp.packets.tcp cimport TCP_HEADER, read_tcp
from fasttcp.packets.tunnel cimport PROTOCOL_TCP, open_tunnel


cdef void start_decoder(Decoder* d, bint validate, bint tunnels) noexcept nogil:
    memset(d, 0, sizeof(Decoder))
    d.validate = validate
    d.tunnels = tunnels


cdef void stop_decoder(Decoder* d) noexcept nogil:
    free_fragments(&d.fragments)


cdef int _segment(Decoder* d, const Datagram* g, int64_t time_ns, Segment* s) noexcept nogil:
    cdef uint64_t pseudo = 0
    cdef uint32_t length = g.payload.wire
    cdef uint32_t width = 4 if g.version == 4 else 16
    if g.payload.captured < TCP_HEADER:
        return TCP_TRUNCATED
    s.time_ns = time_ns
    s.ip_bytes = g.ip_bytes
    if g.version == 4:
        memset(s.src, 0, 10)
        memset(s.dst, 0, 10)
        memset(s.src + 10, 0xFF, 2)
        memset(s.dst + 10, 0xFF, 2)
        memcpy(s.src + 12, g.src, 4)
        memcpy(s.dst + 12, g.dst, 4)
        s.info = 0
    else:
        memcpy(s.src, g.src, 16)
        memcpy(s.dst, g.dst, 16)
        s.info = INFO_IPV6
    if d.validate:
        pseudo = (
            sum_bytes(g.src, width) + sum_bytes(g.dst, width) + in_sum(PROTOCOL_TCP) + in_sum(length & 0xFFFF)
            + in_sum(length >> 16)
        )
    # Where IP says that there is nothing, Zeek finds ports and flags, and no whole header.
    read_tcp(s, g.payload.p, 0 if g.empty else g.payload.captured, length, d.validate, pseudo)
    d.bad_checksum += s.info & INFO_BAD_CHECKSUM != 0
    d.bad_header += s.info & INFO_BAD_HEADER != 0
    d.tunnelled += d.depth != 0
    return IS_SEGMENT


cdef int _layers(Decoder* d, uint32_t kind, Cursor* c, uint32_t depth, int64_t time_ns, Segment* s) noexcept nogil:
    cdef Datagram g
    cdef int verdict
    d.depth = depth
    d.in_gtp = False
    while True:
        verdict = find_ip(d, kind, c)
        if verdict:
            return verdict
        verdict = read_ip(d, c, time_ns, &g)
        if verdict:
            return verdict
        if g.protocol == PROTOCOL_TCP:
            return _segment(d, &g, time_ns, s)
        if not d.tunnels:
            return NOT_TCP
        kind = open_tunnel(d, &g)
        if kind & STOP:
            return <int>(kind & ~<uint32_t>STOP)
        if d.depth == MAX_TUNNELS:
            return TUNNEL_DEPTH
        d.depth += 1
        c[0] = g.payload


cdef int _subframe(Decoder* d, int64_t time_ns, Segment* s) noexcept nogil:
    cdef Cursor c
    c.p = d.frame + d.resume
    c.captured = c.wire = d.resume_captured
    d.resume = 0
    return _layers(d, INNER_SUBFRAME, &c, d.resume_depth, time_ns, s)


cdef int decode_layers(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil:
    cdef Cursor c
    cdef int verdict
    d.frame = frame
    d.frame_captured = captured
    if d.resume:
        verdict = _subframe(d, time_ns, s)
    else:
        c.p = frame
        c.captured = captured
        c.wire = max(captured, wire)
        verdict = _layers(d, LINK | link, &c, 0, time_ns, s)
    # A subframe that is no segment does not end the frame: the others are looked at here, one at a time.
    while verdict != IS_SEGMENT and d.resume:
        d.counts[verdict] += 1
        verdict = _subframe(d, time_ns, s)
    d.counts[verdict] += 1
    return verdict


cdef bint read_unusual(
    Decoder* d, Segment* s, const uint8_t* p, uint32_t captured, uint32_t length, uint32_t wire, uint64_t addresses,
) noexcept nogil:
    # An IPv4 total length below that of its header makes `length` larger than any that was on the wire.
    if length < TCP_HEADER or length > wire:
        return False
    read_tcp(
        s, p, min(captured, length), length, d.validate,
        <uint32_t>addresses + (addresses >> 32) + sum_number(PROTOCOL_TCP + length))
    d.bad_checksum += s.info & INFO_BAD_CHECKSUM != 0
    d.bad_header += s.info & INFO_BAD_HEADER != 0
    return True


cdef int decode(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, bint ahead,
    Segment* s,
) noexcept nogil:
    cdef uint32_t tag
    if link == LINKTYPE_ETHERNET and ahead:
        # Nothing in front of the EtherType is looked at: behind a VLAN's tag the frame is as plain as without.
        tag = 4 if be16(frame + 12) == ETHERTYPE_VLAN else 0
        if captured >= PLAIN_HEADERS + tag and (
                decode_plain(d, frame + tag, captured - tag, max(captured, wire) - tag, time_ns, s, d.validate)):
            d.counts[IS_SEGMENT] += 1
            return IS_SEGMENT
    return decode_layers(d, link, frame, captured, wire, time_ns, s)
