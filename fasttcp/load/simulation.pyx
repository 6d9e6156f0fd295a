"""A load between two endpoint tables in virtual time: what `fasttcp plan` runs.

What must stand here: when the applications open and close, the wire between the two tables, counting. What must not:
any rule of TCP. Ports, TIME_WAIT, its reuse, time-outs, retransmissions: all of that the two tables do by themselves,
and this file only reads what came of it.

    script: (at, life, pair, closer), repeated every period
       |
       v  connect()                     segments, each one step on its way                     accept(), close()
    client table  ------------------------------------------------------------------------>  server table
    who opens     <------------------------------------------------------------------------  who listens

Time goes in steps of the one-way delay, so that what one table sent in a step is exactly what the other one receives
in the next: no queue beside the tables' own, and each exchange is one batch. In a step, in this order: timers that are
due, segments for the server, segments for the client, closes that are due, connects. Where nothing is on its way, time
goes on to the next connect, close, sample, or tick of the wheel.

A connection is closed by its closer `life` after its connect (when it is not established by then, `life` later), and
by the other side `answer_ns` after that side received the FIN; never, if that is None: then it stays in CLOSE_WAIT.

Invariants: used[pair] is the number of the client's rows with this name (check_invariants of the tables holds the
rest). Memory: the rows of the two tables, 4 bytes a row and 24 for each close to come; nothing grows with time but the
samples, which are as many as were asked for. Cost: 1 us a connection and both its ends, while the caches hold it.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

from fasttcp.core.address cimport parse_address, parse_number
from fasttcp.core.application cimport Application, enter
from fasttcp.core.arrivals cimport endpoint_batch
from fasttcp.core.calls cimport CALL_NO_PORT, CALL_OK, endpoint_abort, endpoint_close, endpoint_open
from fasttcp.core.expiry cimport endpoint_advance
from fasttcp.core.hash cimport Key, key_endpoint
from fasttcp.core.layout cimport Segment, ns_t, row_t
from fasttcp.core.names cimport (
    E_GIVE_UP, E_OPEN_REUSE, E_RCV_FIN, E_RCV_RST, E_RCV_SYN_NEW, E_TIME_WAIT_OVERFLOW, S_CLOSE_WAIT, S_FIN_WAIT_2,
    S_LISTEN, S_SYN_RCVD, S_SYN_SENT, S_TIME_WAIT,
)
from fasttcp.core.output cimport output_take
from fasttcp.core.store cimport Table, store_find, store_handle, store_row_of
from fasttcp.core.table cimport ConnectionTable, table_endpoint
from fasttcp.core.tcb cimport Endpoint, EndpointWatch, Outcome, addresses_of
from fasttcp.core.turn cimport turn_give

from fasttcp.errors import StateError

__all__ = ["PLANNED", "SAMPLE_FIELDS", "Simulation"]

PLANNED = "=qqII"           # struct format of one connection of a script: at ns, life ns, pair or ANY_PAIR, closer

#: What one sample holds, in this order. Totals count from the start; the others are of that moment.
SAMPLE_FIELDS = (
    "time_ns", "client_time_wait", "server_time_wait", "client_alive", "server_alive", "client_fin_wait_2",
    "server_close_wait", "ports_in_use", "busiest_pair", "opened", "failed", "reused", "overflowed",
)

cdef enum:
    ANY_PAIR = 0xFFFFFFFF   # the pairs take turns
    BY_CLIENT = 0
    BY_SERVER = 1
    BY_RESET = 2            # the client aborts: nobody waits
    BATCH = 256             # segments between two looks at what came of them
    FIELDS = 13
    NS_TICK = 10000000      # how far an idle simulation goes at once


cdef struct Planned:
    int64_t  at_ns          # after the beginning of the period
    int64_t  life_ns
    uint32_t pair
    uint32_t closer         # BY_CLIENT, BY_SERVER, BY_RESET


cdef struct Pair:
    uint8_t  local[16]
    uint8_t  remote[16]
    uint16_t rport


cdef struct Closing:        # a close that is due at a time; in a heap, earliest first
    int64_t  at_ns
    uint64_t handle
    int64_t  life_ns
    uint32_t side           # whose row the handle names
    uint32_t closer         # who calls close


cdef struct Run:
    Endpoint *client
    Endpoint *server
    Pair     *pairs
    uint32_t *used          # by pair: the client's rows with its name, alive, closing, or in TIME_WAIT
    uint32_t *pair_of       # by the client's row
    size_t    rows          # length of pair_of
    uint32_t  n_pairs
    uint32_t  turn          # of the pairs
    const Planned *script
    size_t    n_script
    size_t    next          # in the script
    int64_t   period_ns
    int64_t   began_ns      # of this period
    int64_t   now_ns
    int64_t   step_ns
    int64_t   answer_ns     # below 0: never
    Closing  *heap
    size_t    n_heap
    size_t    heap_room
    int64_t   sample_ns
    int64_t   next_sample_ns
    int64_t  *samples
    size_t    n_samples
    size_t    sample_room
    uint32_t  peak_pair     # the most that any pair has used
    int64_t   first_failure_ns      # -1: none
    uint64_t  opened
    uint64_t  no_port
    uint64_t  refused       # a RST in SYN_SENT
    uint64_t  timed_out     # in SYN_SENT
    uint64_t  closed_early  # gone before its close was due
    int       error         # why the run cannot go on: 1 memory, 2 a call that should not fail


# ---- closes that are due ---------------------------------------------------------------------------------------------

cdef void _later(Run *r, int64_t at_ns, uint64_t handle, int64_t life_ns, uint32_t side, uint32_t closer) noexcept nogil:
    """Remember a close. Times mostly come in order, and then this is one comparison."""
    cdef size_t at = r.n_heap, above
    cdef Closing *grown
    if r.n_heap == r.heap_room:
        grown = <Closing *>realloc(r.heap, (2 * r.heap_room + 1024) * sizeof(Closing))
        if grown == NULL:
            r.error = 1
            return
        r.heap = grown
        r.heap_room = 2 * r.heap_room + 1024
    r.n_heap += 1
    while at > 0:
        above = (at - 1) >> 1
        if r.heap[above].at_ns <= at_ns:
            break
        r.heap[at] = r.heap[above]
        at = above
    r.heap[at].at_ns = at_ns
    r.heap[at].handle = handle
    r.heap[at].life_ns = life_ns
    r.heap[at].side = side
    r.heap[at].closer = closer


cdef Closing _soonest(Run *r) noexcept nogil:
    """Take the earliest close out; there is one."""
    cdef Closing first = r.heap[0]
    cdef Closing last
    cdef size_t at = 0, below
    r.n_heap -= 1
    last = r.heap[r.n_heap]
    while True:
        below = 2 * at + 1
        if below >= r.n_heap:
            break
        if below + 1 < r.n_heap and r.heap[below + 1].at_ns < r.heap[below].at_ns:
            below += 1
        if last.at_ns <= r.heap[below].at_ns:
            break
        r.heap[at] = r.heap[below]
        at = below
    r.heap[at] = last
    return first


# ---- counting --------------------------------------------------------------------------------------------------------

cdef inline void _failed(Run *r) noexcept nogil:
    if r.first_failure_ns < 0:
        r.first_failure_ns = r.now_ns


cdef void _client_ended(void *context, Endpoint *e, row_t row, int event, ns_t when_ns) noexcept nogil:
    """The client's watch: a row goes, or lives again as another connection."""
    cdef Run *r = <Run *>context
    cdef int state = e.engine.table.rows[row].state[0]
    r.used[r.pair_of[row]] -= 1
    if state != S_SYN_SENT:
        return
    if event == E_RCV_RST:
        r.refused += 1
        _failed(r)
    elif event == E_GIVE_UP:
        r.timed_out += 1
        _failed(r)


cdef inline uint64_t _in_state(const Endpoint *e, int state) noexcept nogil:
    return e.engine.table.pairs[state << 4]


cdef void _sample(Run *r) noexcept nogil:
    cdef int64_t *s = &r.samples[r.n_samples * FIELDS]
    cdef const Endpoint *c = r.client
    cdef const Endpoint *v = r.server
    cdef uint32_t i
    if r.n_samples == r.sample_room:
        return
    r.n_samples += 1
    s[0] = r.next_sample_ns
    s[1] = <int64_t>_in_state(c, S_TIME_WAIT)
    s[2] = <int64_t>_in_state(v, S_TIME_WAIT)
    s[3] = <int64_t>(c.engine.table.used - _in_state(c, S_TIME_WAIT))
    s[4] = <int64_t>(v.engine.table.used - _in_state(v, S_TIME_WAIT) - _in_state(v, S_LISTEN))
    s[5] = <int64_t>_in_state(c, S_FIN_WAIT_2)
    s[6] = <int64_t>_in_state(v, S_CLOSE_WAIT)
    s[7] = <int64_t>c.engine.table.used
    s[8] = 0
    for i in range(r.n_pairs):
        s[8] = max(s[8], <int64_t>r.used[i])
    s[9] = <int64_t>r.opened
    s[10] = <int64_t>(r.no_port + r.refused + r.timed_out)
    s[11] = <int64_t>c.counts.event[E_OPEN_REUSE]
    s[12] = <int64_t>(c.counts.event[E_TIME_WAIT_OVERFLOW] + v.counts.event[E_TIME_WAIT_OVERFLOW])
    r.next_sample_ns += r.sample_ns


# ---- what the two applications do ------------------------------------------------------------------------------------

cdef inline bint _peer_row(Run *r, row_t row, row_t *found) noexcept nogil:
    """The server's row of a connection that the client knows by this row."""
    cdef uint8_t local[16]
    cdef uint8_t remote[16]
    cdef Key key
    cdef const Table *t = &r.client.engine.table
    addresses_of(t, row, local, remote)
    key_endpoint(&key, remote, t.rows[row].port[1], local, t.rows[row].port[0], &r.server.engine.table.hash_key)
    return store_find(&r.server.engine.table, &key, found)


cdef void _close(Run *r, const Closing *c) noexcept nogil:
    """One close() whose time has come. A connection that is gone by then needs none."""
    cdef Outcome out
    cdef row_t row, other
    cdef Endpoint *e = r.client if c.side == BY_CLIENT else r.server
    if not store_row_of(&e.engine.table, c.handle, &row):
        r.closed_early += 1
        return
    if c.side == BY_CLIENT:
        if e.engine.table.rows[row].state[0] == S_SYN_SENT:         # connect() has not returned yet
            _later(r, r.now_ns + (c.life_ns if c.life_ns > r.step_ns else r.step_ns), c.handle, c.life_ns, BY_CLIENT, c.closer)
            return
        if c.closer == BY_SERVER:
            if not _peer_row(r, row, &other):
                r.closed_early += 1
                return
            if r.server.engine.table.rows[other].state[0] == S_SYN_RCVD:
                _later(r, r.now_ns + r.step_ns, c.handle, c.life_ns, BY_CLIENT, c.closer)
                return
            e = r.server
            row = other
    if c.closer == BY_RESET:
        endpoint_abort(e, row, r.now_ns, &out)
        return
    endpoint_close(e, row, False, r.now_ns, &out)                   # refused when it is closing already


cdef void _connect(Run *r, const Planned *p) noexcept nogil:
    cdef Outcome out
    cdef row_t row
    cdef uint32_t *grown
    cdef size_t room
    cdef uint32_t number = p.pair
    cdef Pair *pair
    cdef int answer
    if number == ANY_PAIR:
        number = r.turn
        r.turn += 1
        if r.turn == r.n_pairs:
            r.turn = 0
    pair = &r.pairs[number]
    answer = endpoint_open(r.client, pair.local, 0, pair.remote, pair.rport, r.now_ns, &row, &out)
    if answer == CALL_NO_PORT:
        r.no_port += 1
        _failed(r)
        return
    if answer != CALL_OK:
        r.error = 2
        return
    if row >= r.rows:
        room = 2 * <size_t>row + 1024
        grown = <uint32_t *>realloc(r.pair_of, room * sizeof(uint32_t))
        if grown == NULL:
            r.error = 1
            return
        r.pair_of = grown
        r.rows = room
    r.pair_of[row] = number
    r.used[number] += 1
    if r.used[number] > r.peak_pair:
        r.peak_pair = r.used[number]
    r.opened += 1
    _later(r, r.now_ns + p.life_ns, store_handle(&r.client.engine.table, row), p.life_ns, BY_CLIENT, p.closer)


cdef void _heard(Run *r, Endpoint *e, uint32_t side, const Outcome *outcomes, size_t n) noexcept nogil:
    """What a batch did: who received the other's FIN, and now is to close as well."""
    cdef Outcome out
    cdef size_t i
    for i in range(n):
        if outcomes[i].after != S_CLOSE_WAIT or not outcomes[i].events >> E_RCV_FIN & 1:
            continue
        if r.answer_ns == 0:
            endpoint_close(e, outcomes[i].row, False, r.now_ns, &out)
        elif r.answer_ns > 0:
            _later(r, r.now_ns + r.answer_ns, outcomes[i].handle, r.answer_ns, side, side)


# ---- time ------------------------------------------------------------------------------------------------------------

cdef void _carry(Run *r, Endpoint *sender, Endpoint *receiver, uint32_t side, size_t n) noexcept nogil:
    """The oldest n segments that one table has sent arrive at the other."""
    cdef Segment segments[BATCH]
    cdef Outcome outcomes[BATCH]
    cdef size_t many, i
    while n > 0:
        many = output_take(&sender.output, segments, BATCH if n > BATCH else n)
        n -= many
        for i in range(many):
            segments[i].time_ns = r.now_ns
        endpoint_batch(receiver, segments, many, outcomes)
        _heard(r, receiver, side, outcomes, many)


cdef void _due(Endpoint *e, int64_t now_ns) noexcept nogil:
    cdef Outcome outcomes[BATCH]
    cdef size_t budget = <size_t>-1
    while endpoint_advance(e, now_ns, &budget, outcomes, BATCH) == BATCH:
        pass


cdef void _step(Run *r) noexcept nogil:
    cdef size_t to_server, to_client
    cdef Closing closing
    cdef const Planned *p
    _due(r.client, r.now_ns)
    _due(r.server, r.now_ns)
    while r.next_sample_ns <= r.now_ns and r.n_samples < r.sample_room:
        _sample(r)
    to_server = r.client.output.count
    to_client = r.server.output.count
    _carry(r, r.client, r.server, BY_SERVER, to_server)
    _carry(r, r.server, r.client, BY_CLIENT, to_client)
    while r.n_heap > 0 and r.heap[0].at_ns <= r.now_ns and r.error == 0:
        closing = _soonest(r)
        _close(r, &closing)
    while r.error == 0 and r.n_script > 0:
        p = &r.script[r.next]
        if r.began_ns + p.at_ns > r.now_ns:
            break
        _connect(r, p)
        r.next += 1
        if r.next == r.n_script:
            r.next = 0
            r.began_ns += r.period_ns


cdef void _simulate(Run *r, int64_t until_ns) noexcept nogil:
    cdef int64_t to
    while r.now_ns < until_ns and r.error == 0:
        to = r.now_ns + r.step_ns
        if r.client.output.count == 0 and r.server.output.count == 0:
            to = r.now_ns + NS_TICK
            if r.n_heap > 0:
                to = min(to, r.heap[0].at_ns)
            if r.n_script > 0:
                to = min(to, r.began_ns + r.script[r.next].at_ns)
            if r.n_samples < r.sample_room:
                to = min(to, r.next_sample_ns)
            # Steps stand at whole multiples of the delay.
            to = max(r.now_ns + r.step_ns, (to + r.step_ns - 1) // r.step_ns * r.step_ns)
        r.now_ns = min(to, until_ns)
        _step(r)


# ---- the class -------------------------------------------------------------------------------------------------------

cdef class Simulation:
    """A load on two endpoint tables, from time 0 on.

    Parameters
    ----------
    client, server : ConnectionTable
        Empty, in the endpoint seat; made with accept_all and read_all, as they are by default. They must be able to
        grow to what will be alive.
    pairs : sequence of (str, str, int)
        (source address, destination address, destination port) of the connections; the server listens at each
        destination.
    script : buffer of records of the struct format PLANNED
        The connections of one period, ordered by `at`: when (ns after its beginning), how long (ns), between which
        pair (or 2^32 - 1: they take turns), and who closes first (0 client, 1 server, 2 nobody: the client resets it).
    period_ns : int
        After how long the script begins again.
    delay_ns : int
        From one table to the other, 1 or more: half of the round trip, and the step of time.
    answer_ns : int or None
        From receiving a FIN to closing as well; None: never.
    sample_ns, duration_ns : int
        Between two samples, and how long it will run: room for the samples is made beforehand.

    Not to be used by two threads at once. Raises ValueError, SegmentError, StateError, MemoryError.
    """

    cdef Run r
    cdef ConnectionTable client, server
    cdef Py_buffer view
    cdef bint viewed

    def __cinit__(self, *args, **kwargs):
        memset(&self.r, 0, sizeof(Run))

    def __dealloc__(self):
        free(self.r.pairs)
        free(self.r.used)
        free(self.r.pair_of)
        free(self.r.heap)
        free(self.r.samples)
        if self.viewed:
            PyBuffer_Release(&self.view)

    def __init__(
        self, ConnectionTable client not None, ConnectionTable server not None, pairs, script, period_ns, *,
        delay_ns=500_000, answer_ns=0, sample_ns=1_000_000_000, duration_ns,
    ):
        cdef Run *r = &self.r
        cdef size_t i
        if r.pairs != NULL:
            raise StateError("this simulation was begun before")
        if client is server:
            raise ValueError("client and server are one table")
        if len(client) or len(server):
            raise ValueError("the tables must be empty")
        for name, value in (
            ("delay_ns", delay_ns), ("sample_ns", sample_ns), ("duration_ns", duration_ns), ("period_ns", period_ns)
        ):
            if not 1 <= value < 1 << 62:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if not 1 <= len(pairs) < 1 << 31:
            raise ValueError(f"{len(pairs)} pairs: there must be at least one")
        if duration_ns // sample_ns > 10_000_000:
            raise ValueError(f"{duration_ns // sample_ns} samples: take a larger sample_ns")
        self.client, self.server = client, server
        r.client = table_endpoint(client)
        r.server = table_endpoint(server)
        r.answer_ns = -1 if answer_ns is None else answer_ns
        r.step_ns, r.period_ns = delay_ns, period_ns
        r.sample_ns = r.next_sample_ns = sample_ns
        r.first_failure_ns = -1
        r.sample_room = duration_ns // sample_ns
        r.samples = <int64_t *>calloc(r.sample_room + 1, FIELDS * sizeof(int64_t))
        r.n_pairs = len(pairs)
        r.pairs = <Pair *>calloc(r.n_pairs, sizeof(Pair))
        r.used = <uint32_t *>calloc(r.n_pairs, sizeof(uint32_t))
        if r.samples == NULL or r.pairs == NULL or r.used == NULL:
            raise MemoryError("no memory for the pairs and samples of a simulation")
        for i, (source, destination, port) in enumerate(pairs):
            parse_address("source", source, r.pairs[i].local)
            parse_address("destination", destination, r.pairs[i].remote)
            r.pairs[i].rport = parse_number("port", port, 1, 65535)
        self._take_script(script)
        self._listen(pairs)

    cdef int _take_script(self, script) except -1:
        cdef Run *r = &self.r
        cdef int64_t before = 0
        cdef size_t i
        PyObject_GetBuffer(script, &self.view, PyBUF_SIMPLE)
        self.viewed = True
        if self.view.len % sizeof(Planned):
            raise ValueError(f"the script has {self.view.len} bytes: records of {sizeof(Planned)} are wanted")
        r.script = <const Planned *>self.view.buf
        r.n_script = self.view.len // sizeof(Planned)
        for i in range(r.n_script):
            if not before <= r.script[i].at_ns < r.period_ns:
                raise ValueError(f"connection {i} of the script is at {r.script[i].at_ns} ns: out of order, or of the period")
            if not 0 <= r.script[i].life_ns < 1 << 61:
                raise ValueError(f"connection {i} of the script lives {r.script[i].life_ns} ns")
            if r.script[i].closer > BY_RESET or (r.script[i].pair != ANY_PAIR and r.script[i].pair >= r.n_pairs):
                raise ValueError(f"connection {i} of the script has a pair or a closer that there is not")
            before = r.script[i].at_ns
        return 0

    cdef int _listen(self, pairs) except -1:
        for place in dict.fromkeys((destination, port) for _, destination, port in pairs):
            self.server.listen(*place, 0, backlog=1 << 30)
        return 0

    def run(self, until_ns):
        """Go on to this time (ns from the start); what is due at it has happened then. The GIL is released.

        Raises MemoryError, TableFull when a table cannot grow to what is alive.
        """
        cdef int64_t until = until_ns
        cdef Run *r = &self.r
        enter(<Application>self.client)
        try:
            enter(<Application>self.server)
            r.client.watch.context = r
            r.client.watch.ended = _client_ended
            try:
                with nogil:
                    _simulate(r, until)
            finally:
                memset(&r.client.watch, 0, sizeof(EndpointWatch))
                turn_give(&self.server.turn)
        finally:
            turn_give(&self.client.turn)
        if r.error:
            raise MemoryError(
                f"no memory for more connections after {r.now_ns / 1e9:.3f} s: {len(self.client)} on the client's side, "
                f"{len(self.server)} on the server's"
            )

    def samples(self):
        """A tuple of ints for each sample so far, its fields in the order of SAMPLE_FIELDS."""
        cdef size_t i
        cdef int j
        return [
            tuple([self.r.samples[i * FIELDS + j] for j in range(FIELDS)]) for i in range(self.r.n_samples)
        ]

    def counts(self):
        """What has happened so far. first_failure_ns is -1 while no connect has failed."""
        cdef Run *r = &self.r
        return {
            "opened": r.opened, "no_port": r.no_port, "refused": r.refused, "timed_out": r.timed_out,
            "closed_early": r.closed_early, "first_failure_ns": r.first_failure_ns,
            "reused": r.client.counts.event[E_OPEN_REUSE], "reopened": r.server.counts.event[E_RCV_SYN_NEW],
            "client_overflowed": r.client.counts.event[E_TIME_WAIT_OVERFLOW],
            "server_overflowed": r.server.counts.event[E_TIME_WAIT_OVERFLOW],
            "recycle_rejected": r.server.counts.recycle_rejected,
            "retransmitted": r.client.counts.retransmitted + r.server.counts.retransmitted,
            "segments": r.client.counts.segments_out + r.server.counts.segments_out,
        }

    @property
    def now_ns(self):
        """How far it has come."""
        return self.r.now_ns

    @property
    def peak_pair(self):
        """The most ports that any pair has had in use at a time."""
        return self.r.peak_pair

    @property
    def nbytes(self):
        """Bytes of memory of the tables and what stands beside them."""
        return (
            self.client.nbytes + self.server.nbytes + self.r.rows * sizeof(uint32_t) + self.r.heap_room * sizeof(Closing)
            + self.r.n_pairs * (sizeof(Pair) + sizeof(uint32_t)) + self.r.sample_room * FIELDS * sizeof(int64_t)
        )
