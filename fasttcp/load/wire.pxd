# A TUN device as segments in and segments out; see wire.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport Segment, ns_t, seq_lt, seq_t
from fasttcp.core.tcb cimport Endpoint, Outcome
from fasttcp.load.uring cimport Uring, UringPacket
from fasttcp.packets.icmp cimport N_ICMP

cdef enum:
    WIRE_BATCH = 256            # segments of one batch at most
    WIRE_ARENA = 1 << 20        # bytes of packets of one batch: 16 of the largest, or 256 small ones many times over


cdef struct Wire:
    int       fd
    bint      drained           # the device had nothing more at the last wire_read
    int       error             # errno of a device that is broken; 0
    uint8_t  *arena             # (WIRE_ARENA,)
    Uring     ring              # writes packets in batches, where there is one
    uint8_t  *frame             # (FRAMES,) packets on their way out
    size_t    framed            # bytes of them
    size_t    waiting           # how many
    UringPacket *packet         # (URING_MOST,) where they are
    uint16_t *many              # (URING_MOST,) segments in each
    Segment  *segment           # (WIRE_BATCH,) read
    Segment  *out               # (WIRE_BATCH,) to be written
    Outcome  *outcome           # (WIRE_BATCH,) what became of `segment`
    const uint8_t **payload     # (WIRE_BATCH,) data of `segment`, in the arena
    Segment  *quoted            # (WIRE_BATCH,) what ICMP says of our segments; see packets/icmp.pxd
    size_t    quotes            # how many, at the last wire_read
    uint64_t  packets_in
    uint64_t  packets_out       # segments; several may go by one write
    uint64_t  bytes_in          # of IP datagrams
    uint64_t  bytes_out
    uint64_t  reads             # system calls
    uint64_t  writes
    uint64_t  other             # packets that hold no TCP segment: ICMP, neighbour discovery, fragments
    uint64_t  icmp[N_ICMP]      # of them those about our segments, by what is out of reach
    uint64_t  lost_out          # writes that the device refused, as if lost on the wire
    uint64_t  merged            # ACKs that a later segment carried
    uint16_t  carrier[1024]     # wire_merge: 1 + the last segment in w.out that could carry an ACK, by a hash of its ends

# The bytes that a segment which goes out carries; NULL: its connection is gone.
ctypedef const uint8_t *(*wire_data_t)(void *context, const Segment *s) noexcept nogil

# MemoryError. plain: without an io_uring, even where there is one.
cdef int wire_open(Wire *w, int fd, bint plain) except -1
cdef void wire_close(Wire *w) noexcept nogil            # the file stays the caller's
# Reads up to `most` segments, WIRE_BATCH at most, into w.segment, with this time; how many.
cdef size_t wire_read(Wire *w, size_t most, ns_t now_ns) noexcept nogil
# Of n segments in w.out: an empty ACK goes where a later one of the same connection says as much. ip_bytes of those
# that need not be written becomes 0.
cdef void wire_merge(Wire *w, size_t n) noexcept nogil
# Everything that an endpoint wants to send, onto the wire; `data` is asked, with `context`, for the bytes of segments
# that carry some.
cdef void wire_send(Wire *w, Endpoint *e, wire_data_t data, void *context) noexcept nogil


cdef inline uint32_t wire_offset(seq_t *base, seq_t una, seq_t seq, uint32_t length) noexcept nogil:
    """Which byte of a message of `length` bytes, sent again and again, has this sequence number.

    base: where some message began, at most 2^31 before SND.UNA; moved to where the one begins that SND.UNA lies in. It has to
    follow: sequence numbers wrap, and most lengths do not divide 2^32. Every segment with data asks, so it does.
    """
    if seq_lt(base[0], una):
        base[0] += (una - base[0]) // length * length
    if seq_lt(seq, base[0]):                # acknowledged since it was to be sent
        return length - 1 - (base[0] - seq - 1) % length
    return (seq - base[0]) % length
