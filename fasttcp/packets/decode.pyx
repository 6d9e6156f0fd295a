"""Frames into segments: link layers, IP, tunnels and TCP put together.

The C functions are in decode.pxd; this module's Python face is the list of verdicts, and `decode_frame` for one frame at a
time. The machinery holds no state but counters and unfinished fragments.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fasttcp.core.layout cimport INFO_BAD_CHECKSUM, INFO_BAD_HEADER, INFO_IPV6, Segment
from fasttcp.core.segments cimport SegmentBatch
from fasttcp.packets.bytes cimport in_sum, sum_bytes
from fasttcp.packets.fragments cimport free_fragments
from fasttcp.packets.ip cimport read_ip
from fasttcp.packets.layers cimport (
    INNER_SUBFRAME, IS_SEGMENT, LINK, MAX_TUNNELS, N_VERDICTS, NOT_TCP, STOP, TCP_TRUNCATED, TUNNEL_DEPTH, Cursor, Datagram,
    Decoder, advance,
)
from fasttcp.packets.link cimport find_ip
from fasttcp.packets.tcp cimport TCP_HEADER
from fasttcp.packets.tunnel cimport PROTOCOL_TCP, open_tunnel

__all__ = ["VERDICTS", "decode_frame"]

# The names of the verdicts, in the order of `Verdict` in layers.pxd, and what each one means to a reader of a summary.
VERDICTS = {
    "segments": "TCP segments",
    "not_ip": "frames that carry no IP",
    "not_tcp": "IP datagrams that carry no TCP",
    "link_unknown": "frames of interfaces whose link type is not known",
    "link_truncated": "frames that the capture cuts short inside a link header",
    "link_malformed": "frames whose link header contradicts itself",
    "encrypted": "frames or datagrams that are encrypted below TCP",
    "ip_truncated": "datagrams that the capture cuts short inside the IP header",
    "ip_malformed": "datagrams with an impossible IP header",
    "ip_length": "datagrams that claim more bytes than were on the wire",
    "ip_zero_length": "datagrams with length 0, as segmentation offload leaves them (read them with checksums ignored)",
    "ip_checksum": "datagrams with a wrong IPv4 header checksum",
    "fragment_held": "fragments of datagrams that were put together, or still wait for the rest",
    "fragment_lost": "fragments that could not be used",
    "tcp_truncated": "segments with less than a TCP header",
    "tunnel_malformed": "datagrams with an impossible tunnel header",
    "tunnel_checksum": "tunnel datagrams with a wrong UDP checksum",
    "tunnel_depth": "datagrams with too many tunnels inside one another",
}
assert len(VERDICTS) == N_VERDICTS


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
    read_tcp(s, g.payload.p, g.payload.captured, length, d.validate, pseudo)
    d.bad_checksum += s.info & INFO_BAD_CHECKSUM != 0
    d.bad_header += s.info & INFO_BAD_HEADER != 0
    d.tunnelled += d.depth != 0
    return IS_SEGMENT


cdef int _layers(Decoder* d, uint32_t kind, Cursor* c, int64_t time_ns, Segment* s) noexcept nogil:
    cdef Datagram g
    cdef int verdict
    d.depth = 0
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


cdef int decode_layers(
    Decoder* d, uint32_t link, const uint8_t* frame, uint32_t captured, uint32_t wire, int64_t time_ns, Segment* s,
) noexcept nogil:
    cdef Cursor c
    cdef uint32_t kind = LINK | link
    cdef int verdict
    c.p = frame
    c.captured = captured
    c.wire = max(captured, wire)
    d.frame = frame
    if d.resume:
        advance(&c, d.resume)
        d.resume = 0
        kind = INNER_SUBFRAME
    verdict = _layers(d, kind, &c, time_ns, s)
    # A subframe that is no segment does not end the frame: the others are looked at here, one at a time.
    while verdict != IS_SEGMENT and d.resume:
        d.counts[verdict] += 1
        c.p = frame
        c.captured = captured
        c.wire = max(captured, wire)
        advance(&c, d.resume)
        d.resume = 0
        verdict = _layers(d, INNER_SUBFRAME, &c, time_ns, s)
    d.counts[verdict] += 1
    return verdict
