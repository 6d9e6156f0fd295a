"""For tests only: the compiled parts of the load tester that have no Python face."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from fasttcp.core.layout cimport Segment as SegmentRecord
from fasttcp.core.segments cimport SegmentBatch
from fasttcp.load.answer cimport Answer, Expect, answer_begin, answer_closed, answer_drop, answer_segment
from fasttcp.load.due cimport Due, due_add, due_close, due_open, due_pop
from fasttcp.load.serving cimport Peer, peer_acknowledged, peer_keep
from fasttcp.load.system cimport sys_regex_free, sys_regex_new
from fasttcp.load.uring cimport URING_MOST, Uring, UringPacket, uring_close, uring_open, uring_write
from fasttcp.load.wire cimport wire_offset
from fasttcp.packets.bare cimport read_bare
from fasttcp.packets.bytes cimport sum_ahead, sum_ahead_portable, sum_bytes
from fasttcp.packets.encode cimport LARGEST_HEADERS, encode_headers
from fasttcp.packets.icmp cimport ICMP_NOTHING, read_unreachable

__all__ = ["AnswerReader", "Calendar", "Echo", "Ring", "checksums", "encode", "offset", "read", "unreachable"]


def encode(SegmentBatch batch, bytes data, bint partial=False):
    """The first segment of a batch as an IP packet with this payload."""
    cdef SegmentRecord *s = &batch.records[0]
    cdef uint8_t *room = <uint8_t *>malloc(LARGEST_HEADERS)
    cdef const uint8_t *p = data
    cdef uint32_t n
    if room == NULL:
        raise MemoryError
    s.payload = <uint32_t>len(data)
    n = encode_headers(s, room, p, partial)
    packet = <bytes>room[:n] + data
    free(room)
    return packet


def read(bytes packet, bint validate=True):
    """(batch of one segment, payload) of a bare IP packet; None when it holds no TCP segment."""
    cdef SegmentBatch batch = SegmentBatch(1)
    cdef const uint8_t *p = packet
    cdef const uint8_t *payload = NULL
    if not read_bare(p, <uint32_t>len(packet), validate, 7, &batch.records[0], &payload):
        return None
    batch.count = 1
    return batch, packet[payload - p:payload - p + batch.records[0].payload] if payload - p <= len(packet) else b""


def unreachable(bytes packet):
    """(what is out of reach, a batch with the segment that is quoted) of a bare IP packet; None when ICMP says no such thing."""
    cdef SegmentBatch batch = SegmentBatch(1)
    cdef int what = read_unreachable(packet, <uint32_t>len(packet), &batch.records[0])
    batch.count = 1
    return (what, batch) if what != ICMP_NOTHING else None


def checksums(bytes data, uint32_t n):
    """The sum of the first n bytes in its three forms, as remainders by 65,535; 64 bytes more must be there."""
    cdef const uint8_t *p = data
    if not 1 <= n <= len(data) - 64:
        raise ValueError(f"n is {n}, of {len(data)} bytes")
    return sum_bytes(p, n) % 0xFFFF, sum_ahead(p, n) % 0xFFFF, sum_ahead_portable(p, n) % 0xFFFF


cdef class AnswerReader:
    """One connection's answer, fed segment by segment; RCV.NXT begins at `begin`."""

    cdef Answer answer
    cdef Expect expect

    def __init__(self, int end, *, uint64_t nbytes=0, line=None, uint32_t begin=0, bodiless=False):
        self.expect.end = end
        self.expect.bodiless = bodiless
        self.expect.nbytes = nbytes
        if line is not None:
            self.expect.line = sys_regex_new(line.encode())
        self.answer.next = begin

    def __dealloc__(self):
        answer_drop(&self.answer)
        sys_regex_free(self.expect.line)

    def segment(self, uint32_t seq, bytes data, uint32_t delivered):
        cdef const uint8_t *p = data
        return answer_segment(&self.answer, &self.expect, seq, p, <uint32_t>len(data), delivered)

    def closed(self):
        return answer_closed(&self.answer, &self.expect)

    def begin(self):
        answer_begin(&self.answer)

    @property
    def keeps(self):
        return self.answer.stash != NULL

    @property
    def status(self):
        return self.answer.status


def offset(uint32_t base, uint32_t una, uint32_t seq, uint32_t length):
    """(which byte of a message sent again and again, base from now on)."""
    at = wire_offset(&base, una, seq, length)
    return at, base


cdef class Echo:
    """What the server keeps of one connection that is sent back what it sends."""

    cdef Peer peer

    def __init__(self, uint32_t begin):
        self.peer.base = begin

    def __dealloc__(self):
        free(self.peer.bytes)

    def keep(self, uint32_t una, bytes data):
        if not peer_keep(&self.peer, una, data, <uint32_t>len(data)):
            raise MemoryError

    def acknowledged(self, uint32_t una):
        return peer_acknowledged(&self.peer, una)

    @property
    def kept(self):
        """(sequence number of the first byte, the bytes)."""
        return self.peer.base, <bytes>self.peer.bytes[:self.peer.n]


cdef class Calendar:
    cdef Due *due

    def __init__(self, long long now_ns):
        self.due = <Due *>malloc(sizeof(Due))
        if self.due == NULL:
            raise MemoryError
        memset(self.due, 0, sizeof(Due))
        due_open(self.due, now_ns)

    def __dealloc__(self):
        if self.due != NULL:
            due_close(self.due)
            free(self.due)

    def add(self, uint64_t handle, long long when_ns):
        return due_add(self.due, handle, when_ns)

    def pop(self, long long now_ns):
        cdef uint64_t handle
        found = []
        while due_pop(self.due, now_ns, &handle):
            found.append(handle)
        return found

    def __len__(self):
        return self.due.count


cdef class Ring:
    """An io_uring that writes to a file. `code`: why there is none, an errno; else 0."""

    cdef Uring ring
    cdef readonly int code

    def __init__(self, int fd):
        uring_close(&self.ring)
        self.code = uring_open(&self.ring, fd)

    def __dealloc__(self):
        uring_close(&self.ring)

    def write(self, packets):
        """(system calls, for each packet its bytes or -errno), at most URING_MOST packets."""
        cdef UringPacket packet[URING_MOST]
        cdef list kept = list(packets)
        cdef int i
        if not self.ring.there or len(kept) > URING_MOST:
            raise ValueError(f"{len(kept)} packets: at most {URING_MOST}, and with a ring")
        for i in range(len(kept)):
            packet[i].at = kept[i]
            packet[i].n = <uint32_t>len(kept[i])
        calls = uring_write(&self.ring, packet, <uint32_t>len(kept))
        return calls, [packet[i].done for i in range(len(kept))]
