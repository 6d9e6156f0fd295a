"""The wire: a TUN device that hands over and takes bare IP packets, each behind a virtio_net header.

What must stand here: bytes to Segment records and back, and the checksum offload. What must not: what a segment does
to a connection.

The device leaves checksums to whoever is last (IFF_VNET_HDR with TUN_F_CSUM): inside one machine no byte of payload is
ever summed. A packet read with neither flag below was checked by nobody, so its checksum is. On the way out the
device is told that the checksum is still to be made: a local receiver takes that for right (as from its own loopback),
a real interface completes it.

TUN takes one packet a write, but a batch of writes goes by one system call where there is an io_uring; elsewhere, and for a
few packets, each is one. wire_open looks for it, _flush alone knows. Reading is one system call a packet, until the device
is empty or the batch is full: an io_uring gained nothing there. Data segments that follow each other are written as one,
which the kernel cuts up if it has to (segmentation offload): a twentieth of the cost a byte (docs/load.md).
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from fasttcp.core.layout cimport ACK, FIN, INFO_IPV6, PSH, RST, SYN, Segment, ns_t, seq_le
from fasttcp.core.output cimport output_take
from fasttcp.core.prefetch cimport load32
from fasttcp.core.tcb cimport Endpoint, Outcome
from fasttcp.load.system cimport sys_read, sys_write
from fasttcp.load.uring cimport URING_MOST, UringPacket, uring_close, uring_open, uring_write
from fasttcp.packets.bare cimport read_bare
from fasttcp.packets.encode cimport LARGEST_HEADERS, encode_headers
from fasttcp.packets.icmp cimport ICMP_NOTHING, read_unreachable

__all__: list[str] = []

cdef enum:
    LARGEST = 10 + 65535 + 6            # the largest packet, up to the next multiple of 8
    LARGEST_RUN = 65535 - LARGEST_HEADERS   # bytes of data in one IP packet
    LARGEST_FRAME = LARGEST + LARGEST_HEADERS
    FRAMES = 2 * LARGEST_FRAME          # bytes of a batch on its way out; more would only leave the processor's cache
    RING_FROM = 8                       # packets; fewer cost as much or less by writes (docs/load.md)
    NEEDS_CSUM = 1                      # linux/virtio_net.h
    DATA_VALID = 2
    GSO_TCPV4 = 1
    GSO_TCPV6 = 4


cdef packed struct VnetHeader:          # linux/virtio_net.h, struct virtio_net_hdr
    uint8_t  flags
    uint8_t  gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset


cdef int wire_open(Wire *w, int fd, bint plain) except -1:
    memset(w, 0, sizeof(Wire))
    w.fd = fd
    if not plain:
        uring_open(&w.ring, fd)         # why there is none (an old kernel, a container, a sysctl) does not matter
    w.arena = <uint8_t *>malloc(WIRE_ARENA)
    w.frame = <uint8_t *>malloc(FRAMES)
    w.packet = <UringPacket *>calloc(URING_MOST, sizeof(UringPacket))
    w.many = <uint16_t *>calloc(URING_MOST, sizeof(uint16_t))
    w.segment = <Segment *>calloc(WIRE_BATCH, sizeof(Segment))
    w.out = <Segment *>calloc(WIRE_BATCH, sizeof(Segment))
    w.outcome = <Outcome *>calloc(WIRE_BATCH, sizeof(Outcome))
    w.payload = <const uint8_t **>calloc(WIRE_BATCH, sizeof(uint8_t *))
    w.quoted = <Segment *>calloc(WIRE_BATCH, sizeof(Segment))
    if (
        w.arena == NULL or w.frame == NULL or w.packet == NULL or w.many == NULL or w.segment == NULL or w.out == NULL
        or w.outcome == NULL or w.payload == NULL or w.quoted == NULL
    ):
        wire_close(w)
        raise MemoryError("no memory for the batches of a wire")
    return 0


cdef void wire_close(Wire *w) noexcept nogil:
    uring_close(&w.ring)
    free(w.arena)
    free(w.frame)
    free(w.packet)
    free(w.many)
    free(w.segment)
    free(w.out)
    free(w.outcome)
    free(w.payload)
    free(w.quoted)
    memset(w, 0, sizeof(Wire))
    w.fd = -1


cdef size_t wire_read(Wire *w, size_t most, ns_t now_ns) noexcept nogil:
    cdef size_t n = 0, at = 0
    cdef int64_t got
    cdef int what
    cdef const VnetHeader *head
    w.drained = False
    w.quotes = 0
    if most > WIRE_BATCH:
        most = WIRE_BATCH
    while n < most and w.quotes < WIRE_BATCH and at + LARGEST <= WIRE_ARENA:
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
            what = read_unreachable(w.arena + at + sizeof(VnetHeader), <uint32_t>(got - sizeof(VnetHeader)), &w.quoted[w.quotes])
            w.icmp[what] += 1
            w.quotes += what != ICMP_NOTHING
            continue
        w.packets_in += 1
        w.bytes_in += w.segment[n].ip_bytes
        n += 1
        at += <size_t>(got + 7) & ~<size_t>7
    return n


cdef bint _goes_on(const Segment *first, const Segment *last, const Segment *s) noexcept nogil:
    """Whether s continues the run from `first` to `last`: nothing in its headers but the number differs from what a device
    writes when it cuts one large segment up. Only the last of a run may be shorter, or carry a FIN."""
    return (
        s.ip_bytes != 0 and s.payload != 0 and s.payload <= first.payload and last.payload == first.payload
        and s.seq == last.seq + last.payload
        and (last.flags & ~<uint32_t>PSH) == ACK and (s.flags & ~<uint32_t>(PSH | FIN)) == ACK
        and s.sport == first.sport and s.dport == first.dport and s.ack == first.ack and s.window == first.window
        and s.options == first.options and s.tsval == first.tsval and s.tsecr == first.tsecr
        and memcmp(s.src, first.src, 32) == 0
    )


cdef void _flush(Wire *w) noexcept nogil:
    """The packets in w.frame onto the device, in their order."""
    cdef size_t i
    cdef UringPacket *p = w.packet
    if w.ring.there and w.waiting >= RING_FROM:
        w.writes += uring_write(&w.ring, p, <uint32_t>w.waiting)
    else:
        for i in range(w.waiting):
            p[i].done = 0
            while sys_write(w.fd, p[i].at, p[i].n) < 0:
                if errno != EINTR:
                    p[i].done = -errno
                    break
        w.writes += w.waiting
    for i in range(w.waiting):
        if p[i].done < 0:
            w.lost_out += w.many[i]
    w.waiting = w.framed = 0


cdef void _write(Wire *w, size_t i, size_t many, uint32_t payload, wire_data_t data, void *context) noexcept nogil:
    """The segments of w.out from i on, with `payload` bytes together, as one packet of the batch."""
    cdef uint8_t *begin = w.frame + w.framed
    cdef VnetHeader *head = <VnetHeader *>begin
    cdef uint8_t *at = begin + sizeof(VnetHeader)
    cdef Segment whole = w.out[i]
    cdef const uint8_t *carried
    cdef uint32_t headers
    cdef size_t k
    whole.payload = payload
    whole.flags = w.out[i + many - 1].flags
    headers = encode_headers(&whole, at, NULL, True)
    at += headers
    if payload != 0:
        for k in range(i, i + many):
            carried = data(context, &w.out[k])
            if carried == NULL:
                return
            memcpy(at, carried, w.out[k].payload)
            at += w.out[k].payload
    memset(head, 0, sizeof(VnetHeader))
    head.flags = NEEDS_CSUM
    head.csum_start = 40 if whole.info & INFO_IPV6 else 20
    head.csum_offset = 16
    if many > 1:
        head.gso_type = GSO_TCPV6 if whole.info & INFO_IPV6 else GSO_TCPV4
        head.gso_size = <uint16_t>w.out[i].payload
        head.hdr_len = <uint16_t>headers
    w.packet[w.waiting].at = begin
    w.packet[w.waiting].n = <uint32_t>(at - begin)
    w.many[w.waiting] = <uint16_t>many
    w.waiting += 1
    w.framed += <size_t>(at - begin + 7) & ~<size_t>7
    w.packets_out += many
    w.bytes_out += headers * many + payload
    if w.waiting == URING_MOST or w.framed + LARGEST_FRAME > FRAMES:
        _flush(w)


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
    cdef size_t n, i, many
    cdef uint32_t payload
    while True:
        n = output_take(&e.output, w.out, WIRE_BATCH)
        wire_merge(w, n)
        i = 0
        while i < n:
            many = 1
            if w.out[i].ip_bytes != 0:
                payload = w.out[i].payload
                while (
                    payload != 0 and i + many < n and payload + w.out[i + many].payload <= LARGEST_RUN
                    and _goes_on(&w.out[i], &w.out[i + many - 1], &w.out[i + many])
                ):
                    payload += w.out[i + many].payload
                    many += 1
                _write(w, i, many, payload, data, context)
            i += many
        if n < WIRE_BATCH:
            break
    _flush(w)
