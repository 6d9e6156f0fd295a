"""The wire: a TUN device that hands over and takes bare IP packets, each behind a virtio_net header.

What must stand here: bytes to Segment records and back, and the checksum offload. What must not: what a segment does
to a connection.

The device leaves checksums to whoever is last (IFF_VNET_HDR with TUN_F_CSUM): inside one machine no byte of payload is
ever summed. A packet read with neither flag below was checked by nobody, so its checksum is. On the way out the
device is told that the checksum is still to be made: a local receiver takes that for right (as from its own loopback),
a real interface completes it.

One read and one write a packet: TUN knows no more. Reading goes on until the device is empty or the batch is full.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from fasttcp.core.layout cimport ACK, FIN, INFO_IPV6, RST, SYN, Segment, ns_t, seq_le
from fasttcp.core.output cimport output_take
from fasttcp.core.prefetch cimport load32
from fasttcp.core.tcb cimport Endpoint, Outcome
from fasttcp.load.system cimport sys_read, sys_write
from fasttcp.packets.bare cimport read_bare
from fasttcp.packets.encode cimport LARGEST_HEADERS, encode_headers

__all__: list[str] = []

cdef enum:
    LARGEST = 10 + 65535 + 6            # the largest packet, up to the next multiple of 8
    NEEDS_CSUM = 1                      # linux/virtio_net.h
    DATA_VALID = 2


cdef packed struct VnetHeader:          # linux/virtio_net.h, struct virtio_net_hdr
    uint8_t  flags
    uint8_t  gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset


cdef int wire_open(Wire *w, int fd) except -1:
    memset(w, 0, sizeof(Wire))
    w.fd = fd
    w.arena = <uint8_t *>malloc(WIRE_ARENA)
    w.frame = <uint8_t *>malloc(sizeof(VnetHeader) + LARGEST_HEADERS + 65536)
    w.segment = <Segment *>calloc(WIRE_BATCH, sizeof(Segment))
    w.out = <Segment *>calloc(WIRE_BATCH, sizeof(Segment))
    w.outcome = <Outcome *>calloc(WIRE_BATCH, sizeof(Outcome))
    w.payload = <const uint8_t **>calloc(WIRE_BATCH, sizeof(uint8_t *))
    if (
        w.arena == NULL or w.frame == NULL or w.segment == NULL or w.out == NULL or w.outcome == NULL
        or w.payload == NULL
    ):
        wire_close(w)
        raise MemoryError("no memory for the batches of a wire")
    return 0


cdef void wire_close(Wire *w) noexcept nogil:
    free(w.arena)
    free(w.frame)
    free(w.segment)
    free(w.out)
    free(w.outcome)
    free(w.payload)
    memset(w, 0, sizeof(Wire))
    w.fd = -1


cdef size_t wire_read(Wire *w, size_t most, ns_t now_ns) noexcept nogil:
    cdef size_t n = 0, at = 0
    cdef int64_t got
    cdef const VnetHeader *head
    w.drained = False
    if most > WIRE_BATCH:
        most = WIRE_BATCH
    while n < most and at + LARGEST <= WIRE_ARENA:
        got = sys_read(w.fd, w.arena + at, LARGEST)
        w.reads += 1
        if got < 0:
            if errno == EINTR:
                continue
            w.drained = True
            if errno != EAGAIN:
                w.error = errno
            break
        if got <= <int64_t>sizeof(VnetHeader):
            w.drained = got == 0
            break
        head = <const VnetHeader *>(w.arena + at)
        if not read_bare(
            w.arena + at + sizeof(VnetHeader), <uint32_t>(got - sizeof(VnetHeader)),
            head.flags & (NEEDS_CSUM | DATA_VALID) == 0, now_ns, &w.segment[n], &w.payload[n],
        ):
            w.other += 1
            continue
        w.packets_in += 1
        w.bytes_in += w.segment[n].ip_bytes
        n += 1
        at += <size_t>(got + 7) & ~<size_t>7
    return n


cdef void wire_write(Wire *w, const Segment *s, const uint8_t *data) noexcept nogil:
    cdef VnetHeader *head = <VnetHeader *>w.frame
    cdef uint8_t *packet = w.frame + sizeof(VnetHeader)
    cdef uint32_t ip = 40 if s.info & INFO_IPV6 else 20
    cdef uint32_t headers = encode_headers(s, packet, data, True)
    cdef size_t n = sizeof(VnetHeader) + headers + s.payload
    memset(head, 0, sizeof(VnetHeader))
    head.flags = NEEDS_CSUM
    head.csum_start = <uint16_t>ip
    head.csum_offset = 16
    if s.payload != 0:
        memcpy(packet + headers, data, s.payload)
    while sys_write(w.fd, w.frame, n) < 0:
        if errno != EINTR:
            w.lost_out += 1
            break
    w.writes += 1
    w.packets_out += 1
    w.bytes_out += headers + s.payload


cdef inline uint32_t _slot(const Segment *s) noexcept nogil:
    return (s.sport * <uint32_t>40503 ^ s.dport ^ load32(s.src + 12) * <uint32_t>2654435761 ^ load32(s.dst + 12)) >> 3 & 1023


cdef void wire_merge(Wire *w, size_t n) noexcept nogil:
    """An ACK may wait for data to carry it (RFC 9293 section 3.8.6.3), here only until the batch is written: the seat
    answers each segment before the application has looked at it, and half of all packets would be such ACKs."""
    cdef size_t i
    cdef const Segment *later
    cdef Segment *s
    for i in range(n):
        s = &w.out[i]
        if s.flags & (ACK | SYN | RST) == ACK and (s.payload != 0 or s.flags & FIN):
            w.carrier[_slot(s)] = <uint16_t>(i + 1)
    for i in range(n):
        s = &w.out[i]
        if s.flags != ACK or s.payload != 0 or w.carrier[_slot(s)] <= i + 1:
            continue
        later = &w.out[w.carrier[_slot(s)] - 1]
        if (
            later.sport == s.sport and later.dport == s.dport and seq_le(s.ack, later.ack)
            and memcmp(later.src, s.src, 32) == 0
        ):
            s.ip_bytes = 0
            w.merged += 1
    for i in range(n):
        w.carrier[_slot(&w.out[i])] = 0


cdef void wire_send(Wire *w, Endpoint *e, wire_data_t data, void *context) noexcept nogil:
    cdef size_t n, i
    cdef const uint8_t *carried
    while True:
        n = output_take(&e.output, w.out, WIRE_BATCH)
        wire_merge(w, n)
        for i in range(n):
            if w.out[i].ip_bytes == 0:
                continue
            carried = NULL
            if w.out[i].payload != 0:
                carried = data(context, &w.out[i])
                if carried == NULL:
                    continue
            wire_write(w, &w.out[i], carried)
        if n < WIRE_BATCH:
            return
