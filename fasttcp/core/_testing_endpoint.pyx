"""The endpoint seat for tests: every call of it, and a row's fields, without a table around it."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from fasttcp.core.arrivals cimport endpoint_batch, endpoint_receive
from fasttcp.core.calls cimport (
    endpoint_abort, endpoint_accept, endpoint_close, endpoint_keepalive, endpoint_listen, endpoint_open,
    endpoint_open_listener, endpoint_read, endpoint_send,
)
from fasttcp.core.crowds cimport crowd_skip
from fasttcp.core.endpoint cimport endpoint_check, endpoint_fini, endpoint_init
from fasttcp.core.expiry cimport endpoint_advance
from fasttcp.core.isn cimport initial_sequence
from fasttcp.core.layout cimport Row, Segment, row_t
from fasttcp.core.output cimport OUTPUT_LIMIT, output_take
from fasttcp.core.siphash cimport siphash
from fasttcp.core.store cimport (
    SEAT_ENDPOINT, STORE_EVICT, STORE_LAZY, store_armed, store_behind, store_close, store_deadline_ns, store_handle,
    store_in_use, store_open, store_row_of,
)
from fasttcp.core.tcb cimport (
    TCB_AHEAD, TCB_AHEAD_BITS, Crowd, Endpoint, EndpointCold, ListenerCold, Outcome, cold_of, listener_of, local_shift,
    remote_shift,
)
from fasttcp.core.trace cimport trace_close, trace_open

SIZES = {
    "segment": sizeof(Segment), "cold": sizeof(EndpointCold), "listener": sizeof(ListenerCold),
    "outcome": sizeof(Outcome),
}


def siphash_words(key0, key1, words):
    cdef uint64_t key[2]
    cdef uint64_t word[16]
    key[0] = key0
    key[1] = key1
    for i, w in enumerate(words):
        word[i] = w
    return siphash(key, word, len(words))


def skip_of(const unsigned char[::1] taken, uint32_t first, uint32_t last, uint32_t port, uint32_t step):
    """crowd_skip, when `taken` has a 1 for each taken one of all 65,536 ports."""
    cdef Crowd c
    cdef uint32_t at
    if not (taken.shape[0] == 65536 and first <= port <= last < 65536 and step in (1, 2)):
        raise AssertionError()
    memset(&c, 0, sizeof(Crowd))
    for at in range(65536):
        c.bit[at >> 6] |= <uint64_t>taken[at] << (at & 63)
    return crowd_skip(&c, first, last, port, step)


cdef class Seat:
    cdef Endpoint *e
    cdef Outcome out

    def __cinit__(self, profile, *, rows=64, seed=1, tick_ns=10_000_000, evict=False, output_limit=OUTPUT_LIMIT,
                  auto_read=True, auto_accept=True, max_rows=None, trace=0):
        cdef uint64_t secret[4]
        cdef int i
        for i in range(4):
            secret[i] = <uint64_t>(seed + 1) * <uint64_t>0x9E3779B97F4A7C15 * (i + 1)
        self.e = <Endpoint *>calloc(1, sizeof(Endpoint))
        if self.e == NULL:
            raise MemoryError("no memory for an endpoint")
        store_open(&self.e.engine.table, SEAT_ENDPOINT, rows, max_rows or rows, sizeof(EndpointCold), tick_ns, secret,
                   STORE_LAZY | (STORE_EVICT if evict else 0))
        endpoint_init(self.e, profile, &secret[2], output_limit)
        trace_open(&self.e.engine.trace, trace)
        self.e.evict = evict
        self.e.auto_read = auto_read
        self.e.auto_accept = auto_accept

    def __dealloc__(self):
        if self.e != NULL:
            endpoint_fini(self.e)
            trace_close(&self.e.engine.trace)
            store_close(&self.e.engine.table)
            free(self.e)

    cdef row_t row(self, handle) except? 0xFFFFFFFF:
        cdef row_t row
        if not store_row_of(&self.e.engine.table, handle, &row):
            raise LookupError(handle)
        return row

    cdef dict told(self):
        cdef dict out = self.out
        return out

    def listen(self, bytes local, port, backlog, now):
        cdef row_t row
        cdef int answer = endpoint_listen(self.e, <const uint8_t *><char *>local, port, backlog, now, &row, &self.out)
        return answer, self.told()

    def open(self, bytes local, lport, bytes remote, rport, now):
        cdef row_t row
        cdef int answer = endpoint_open(
            self.e, <const uint8_t *><char *>local, lport, <const uint8_t *><char *>remote, rport, now, &row, &self.out
        )
        return answer, self.told()

    def open_listener(self, handle, bytes remote, rport, now):
        cdef row_t row
        cdef int answer = endpoint_open_listener(
            self.e, self.row(handle), <const uint8_t *><char *>remote, rport, now, &row, &self.out
        )
        return answer, self.told()

    def accept(self, handle):
        cdef row_t row
        if endpoint_accept(self.e, self.row(handle), &row) != 0:
            return None
        return store_handle(&self.e.engine.table, row)

    def send(self, handle, n, now):
        cdef int answer = endpoint_send(self.e, self.row(handle), n, now, &self.out)
        return answer, self.told()

    def read(self, handle, n, now):
        cdef int answer = endpoint_read(self.e, self.row(handle), n, now, &self.out)
        return answer, self.told()

    def close(self, handle, half, now):
        cdef int answer = endpoint_close(self.e, self.row(handle), half, now, &self.out)
        return answer, self.told()

    def abort(self, handle, now):
        cdef int answer = endpoint_abort(self.e, self.row(handle), now, &self.out)
        return answer, self.told()

    def keepalive(self, handle, on, now):
        endpoint_keepalive(self.e, self.row(handle), on, now)

    def receive(self, segment, now):
        cdef Py_buffer view
        PyObject_GetBuffer(segment, &view, PyBUF_SIMPLE)
        try:
            assert view.len == sizeof(Segment)
            endpoint_receive(self.e, <const Segment *>view.buf, now, &self.out)
        finally:
            PyBuffer_Release(&view)
        return self.told()

    def batch(self, segments):
        """Outcomes as raw 32-byte records."""
        cdef Py_buffer view
        cdef size_t n
        PyObject_GetBuffer(segments, &view, PyBUF_SIMPLE)
        try:
            n = view.len // sizeof(Segment)
            out = PyBytes_FromStringAndSize(NULL, n * sizeof(Outcome))
            endpoint_batch(self.e, <const Segment *>view.buf, n, <Outcome *>PyBytes_AS_STRING(out))
        finally:
            PyBuffer_Release(&view)
        return out

    def advance(self, now, budget=1 << 40):
        """Fire what is due: a list of outcomes, and whether all is done."""
        cdef Outcome outs[64]
        cdef size_t left = budget
        cdef size_t n, i
        told = []
        while True:
            n = endpoint_advance(self.e, now, &left, outs, 64)
            for i in range(n):
                self.out = outs[i]
                told.append(self.told())
            if n < 64:
                return told, not store_behind(&self.e.engine.table)

    def take(self, n=1 << 20):
        """What waits to be sent, as raw records of 80 bytes."""
        cdef size_t many = min(n, self.e.output.count)
        out = PyBytes_FromStringAndSize(NULL, many * sizeof(Segment))
        output_take(&self.e.output, <Segment *>PyBytes_AS_STRING(out), many)
        return out

    def steps(self):
        """(state, event) of each step on a row that the trace still holds, oldest first; emptied."""
        cdef uint64_t at, written = self.e.engine.trace.written
        cdef uint64_t kept = min(written, self.e.engine.trace.capacity)
        found = [(self.e.engine.trace.steps[at & (self.e.engine.trace.capacity - 1)].state,
                  self.e.engine.trace.steps[at & (self.e.engine.trace.capacity - 1)].event)
                 for at in range(written - kept, written)]
        self.e.engine.trace.written = 0
        return found

    def __len__(self):
        return self.e.engine.table.used

    def __contains__(self, handle):
        cdef row_t row
        return bool(store_row_of(&self.e.engine.table, handle, &row))

    def handles(self):
        cdef row_t row
        return [store_handle(&self.e.engine.table, row) for row in range(<row_t>self.e.engine.table.high)
                if store_in_use(&self.e.engine.table, row)]

    def state(self, handle):
        return self.e.engine.table.rows[self.row(handle)].state[0]

    def fields(self, handle):
        """The control block and the cold record of a connection."""
        cdef row_t row = self.row(handle)
        cdef Row *r = &self.e.engine.table.rows[row]
        cdef EndpointCold *c = cold_of(self.e, row)
        cdef uint32_t i
        found = dict(r.seat.tcb)
        found.update(
            state=r.state[0], lport=r.port[0], rport=r.port[1], flags=r.flags, aux=r.aux, last_ns=r.last_ns,
            local_shift=local_shift(r), remote_shift=remote_shift(r), iss=c.iss, irs=c.irs, ts_recent=c.ts_recent,
            ts_offset=c.ts_offset, snd_queued=c.snd_queued, rcv_unread=c.rcv_unread,
            snd_max_wnd=c.snd_max_wnd, srtt_us=c.srtt_us,
            rttvar_us=c.rttvar_us, rto_us=c.rto_us, backoff=c.backoff, retransmitted=c.retransmitted,
            segments=(c.segments[0], c.segments[1]), first_ns=c.head.first_ns,
            ahead=[(c.ahead[i][0], c.ahead[i][1]) for i in range((r.aux & TCB_AHEAD_BITS) // TCB_AHEAD)],
            deadline_ns=(
                store_deadline_ns(&self.e.engine.table, row) if store_armed(&self.e.engine.table, row) else None
            ),
        )
        return found

    def listener(self, handle):
        cdef ListenerCold *gate = listener_of(self.e, self.row(handle))
        return {"backlog": gate.backlog, "half_open": gate.half_open, "accept_queued": gate.accept_queued}

    def counts(self):
        found = dict(self.e.counts)
        found["never"] = self.e.engine.never
        found["orphans"] = self.e.orphans
        found["listeners"] = self.e.listeners
        found["output"] = self.e.output.count
        return found

    def isn(self, bytes local, lport, bytes remote, rport):
        return initial_sequence(self.e, <const uint8_t *><char *>local, lport, <const uint8_t *><char *>remote, rport)

    def preset_sequence(self, handle, uint32_t iss):
        """Test only: let our half begin at `iss`, as if the generator had said so; before anything but the SYN was
        sent."""
        cdef row_t row = self.row(handle)
        cdef Row *r = &self.e.engine.table.rows[row]
        cdef EndpointCold *c = cold_of(self.e, row)
        c.timed_seq += iss - c.iss
        c.iss = iss
        r.seat.tcb.snd_una = iss
        r.seat.tcb.snd_nxt = iss + 1

    def check(self):
        endpoint_check(self.e)
