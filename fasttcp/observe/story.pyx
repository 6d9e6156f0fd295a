"""One 4-tuple's segments out of a capture, each with what it did: the loop behind `explain`.

The segments of one pair of ends go through an observer of their own; those of others are passed over, as they cannot
touch its state. A segment is told if something came of it: a step of the machine, a verdict, a flag that opens or
closes, a window that is shut. What lies between is counted.

What must not stand here: words. Cost: a comparison for each segment of the capture, some microseconds for each that is
told.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp

from fasttcp.core.address cimport parse_address, whole
from fasttcp.core.hash cimport Key, key_observed
from fasttcp.core.layout cimport FIN, INFO_BAD_CHECKSUM, INFO_BAD_HEADER, RST, SYN, Segment
from fasttcp.core.pipeline cimport observe
from fasttcp.core.tap cimport Observer, Verdict
from fasttcp.core.trace cimport Step, Trace
from fasttcp.core.verdicts cimport V_NEW
from fasttcp.observe.tracker cimport Tracker
from fasttcp.packets.reader cimport CaptureReader, Place, read_segments, reader_look

from fasttcp.core.steps import read_steps

__all__ = ["Teller"]

cdef enum:
    AT_ONCE = 512
    STEPS = 256                         # of one segment: never more than a handful

cdef struct Quiet:                      # segments of which nothing came, by the side that sent them
    uint64_t segments[2]
    uint64_t payload[2]
    int64_t  first_ns
    int64_t  last_ns


cdef class Teller:
    """Follows one pair of ends. `feed` returns what happened, in order, as tuples:

    ("quiet", first_ns, last_ns, segments of side 0 and 1, payload of side 0 and 1)
    ("segment", packet, offset, time_ns, side, flags, seq, ack, payload, window, info, verdict, before, after, steps)

    `side` is the sender's, 0 or 1 as the table orders them; `before` and `after` are the states of both sides; `steps` is
    a list of TraceStep. `ends` are ((address, port), (address, port)).
    """

    cdef Tracker tracker
    cdef Segment *segments
    cdef Place *places
    cdef uint8_t addr[2][16]
    cdef uint16_t port[2]
    cdef uint8_t state[2]
    cdef Quiet quiet
    cdef readonly uint64_t found        # segments of the pair
    cdef readonly int first_side        # side of ends[0]

    def __cinit__(self):
        self.segments = <Segment *>PyMem_Calloc(AT_ONCE, sizeof(Segment))
        self.places = <Place *>PyMem_Calloc(AT_ONCE, sizeof(Place))
        if self.segments == NULL or self.places == NULL:
            raise MemoryError("no memory for a batch of segments")

    def __dealloc__(self):
        PyMem_Free(self.segments)
        PyMem_Free(self.places)

    def __init__(self, profile, ends):
        cdef Segment probe
        cdef Key key
        cdef int i
        for i, (address, port) in enumerate(ends):
            parse_address("address", address, self.addr[i])
            self.port[i] = whole("port", port, 0, 65535)
        self.tracker = Tracker(profile, max_connections=16, seed=0, trace=STEPS)
        probe.src = self.addr[0]
        probe.dst = self.addr[1]
        probe.sport, probe.dport = self.port[0], self.port[1]
        probe.info = 0
        key_observed(&key, &probe, &self.tracker.table.observer.engine.table.hash_key)
        self.first_side = key.side

    def feed(self, CaptureReader reader not None):
        """The next piece of the capture. None: there is no more of it."""
        cdef list told = []
        cdef Py_ssize_t n, i
        reader_look(reader)
        with nogil:
            n = read_segments(reader, self.segments, self.places, AT_ONCE)
        if n == 0:
            return None
        for i in range(n):
            if self.belongs(&self.segments[i]):
                self.tell(told, &self.segments[i], &self.places[i])
        return told

    def finish(self):
        """What is left to tell, and the connections there were, in their order: (list, list of Connection)."""
        cdef list told = []
        self.break_quiet(told)
        self.tracker.finish()
        return told, self.tracker.take()

    cdef bint belongs(self, const Segment *g) noexcept:
        if g.sport == self.port[0] and g.dport == self.port[1]:
            if memcmp(g.src, self.addr[0], 16) == 0 and memcmp(g.dst, self.addr[1], 16) == 0:
                return True
        return (
            g.sport == self.port[1] and g.dport == self.port[0]
            and memcmp(g.src, self.addr[1], 16) == 0 and memcmp(g.dst, self.addr[0], 16) == 0
        )

    cdef int tell(self, list told, const Segment *g, const Place *place) except -1:
        cdef Observer *o = self.tracker.table.observer
        cdef Trace *trace = &o.engine.trace
        cdef uint64_t begun = trace.written
        cdef Verdict verdict
        cdef Key key
        cdef int side
        self.found += 1
        key_observed(&key, g, &o.engine.table.hash_key)
        side = key.side
        observe(o, g, &verdict)
        if verdict.flags & V_NEW:
            self.state[0] = self.state[1] = 0
        if (
            verdict.flags == 0 and trace.written == begun and not g.flags & (SYN | FIN | RST) and g.window != 0
            and not g.info & (INFO_BAD_CHECKSUM | INFO_BAD_HEADER)
        ):
            if self.quiet.segments[0] + self.quiet.segments[1] == 0:
                self.quiet.first_ns = g.time_ns
            self.quiet.last_ns = g.time_ns
            self.quiet.segments[side] += 1
            self.quiet.payload[side] += g.payload
        else:
            self.break_quiet(told)
            told.append((
                "segment", place.packet, place.offset, g.time_ns, side, g.flags, g.seq, g.ack, g.payload, g.window, g.info,
                verdict.flags, (self.state[0], self.state[1]), (verdict.state[0], verdict.state[1]),
                self.steps_since(begun),
            ))
        self.state[0], self.state[1] = verdict.state[0], verdict.state[1]
        return 0

    cdef list steps_since(self, uint64_t begun):
        """The machine's steps from number `begun` on; the last 256 if there were more."""
        cdef Trace *trace = &self.tracker.table.observer.engine.trace
        cdef list packed = []
        cdef uint64_t at = max(begun, trace.written - trace.capacity if trace.written > trace.capacity else 0)
        while at < trace.written:
            packed.append((<char *>&trace.steps[at & (trace.capacity - 1)])[:sizeof(Step)])
            at += 1
        return read_steps(b"".join(packed))

    cdef int break_quiet(self, list told) except -1:
        cdef Quiet *q = &self.quiet
        if q.segments[0] + q.segments[1]:
            told.append((
                "quiet", q.first_ns, q.last_ns, (q.segments[0], q.segments[1]), (q.payload[0], q.payload[1]),
            ))
        q.segments[0] = q.segments[1] = q.payload[0] = q.payload[1] = 0
        return 0
