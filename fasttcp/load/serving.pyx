"""LoadServer: the endpoint seat as the server behind a TUN device, for clients, proxies and load balancers.

What an application does with each connection: answer every request by the same bytes, send back what comes, throw it
away, or read it slowly. Must not live here: TCP's rules, addresses, options of the command.

One turn: read many -> apply each -> what it meant -> timers -> write. A segment is applied by itself, since a batch
could give the row of a connection that ends in it to another one. Data that come ahead of a hole are taken for lost,
as their bytes would have to be kept: the peer sends them again.

Invariant: for an echo, Peer.bytes holds every byte from `base`, the sequence number of its first one, to the end of what is to
be sent, and `base` is SND.UNA or before it. When bytes are added, fewer than half of those there are acknowledged, or none: so
for each byte sent back one is moved at most, and there are never more than twice those that wait for their ACK.
"""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from fasttcp.core.address cimport whole
from fasttcp.core.arrivals cimport endpoint_receive
from fasttcp.core.calls cimport endpoint_abort, endpoint_close, endpoint_read, endpoint_send
from fasttcp.core.expiry cimport endpoint_advance
from fasttcp.core.hash cimport Key, key_endpoint
from fasttcp.core.layout cimport FIN, RST, SYN, Segment, ns_t, row_t, seq_lt, seq_t
from fasttcp.core.names cimport E_RCV_FIN, S_CLOSE_WAIT, S_ESTABLISHED, S_LISTEN
from fasttcp.core.store cimport store_find, store_handle, store_row_of
from fasttcp.core.table cimport ConnectionTable, table_endpoint
from fasttcp.core.tcb cimport Endpoint, Outcome, cold_of
from fasttcp.core.verdicts cimport OUT_ACCEPTED
from fasttcp.load.due cimport Due, due_add, due_close, due_open, due_pop
from fasttcp.load.system cimport sys_cpu_ns, sys_have_linux, sys_now_ns, sys_wait
from fasttcp.load.wire cimport WIRE_BATCH, Wire, wire_close, wire_offset, wire_open, wire_read, wire_send

from fasttcp.errors import StateError

__all__ = ["LoadServer"]

cdef enum:
    ANSWER = 0
    ECHO = 1
    SINK = 2
    SLOW = 3
    ECHO_LIMIT = 1 << 24        # bytes of one connection that wait for their ACK; what comes beyond is taken for lost
    READ_NS = 10000000          # a slow reader reads so often
    TIMERS = 64
    TIMER_BUDGET = 4096
    LONGEST_SLEEP_NS = 5000000
    ROOM = 65536                # of data in one segment


cdef struct Server:
    Endpoint *e
    Wire      wire
    Due       due
    Peer     *peer              # (max_rows,)
    int       mode
    bint      close             # after one answer
    uint8_t  *answer            # its bytes again and again, length + ROOM of them
    uint32_t  length
    uint32_t  quantum           # bytes that a slow reader reads each time
    bint      no_memory
    uint64_t  accepted
    uint64_t  ended
    uint64_t  answers
    uint64_t  bytes_in
    uint64_t  ahead             # segments ahead of a hole, taken for lost
    ns_t      ran_ns
    ns_t      cpu_ns


cdef void _ended(void *context, Endpoint *e, row_t row, int event, ns_t when_ns) noexcept nogil:
    cdef Server *v = <Server *>context
    if e.engine.table.rows[row].state[0] == S_LISTEN or v.peer[row].handle == 0:
        return
    v.ended += 1
    free(v.peer[row].bytes)
    memset(&v.peer[row], 0, sizeof(Peer))


cdef int _requests(Peer *p, const uint8_t *data, uint32_t n) noexcept nogil:
    """How many blank lines (CR LF CR LF) end in these bytes."""
    cdef uint32_t i
    cdef int found = 0
    for i in range(n):
        if data[i] == 13:
            p.seen = 3 if p.seen == 2 else 1
        elif data[i] == 10:
            if p.seen == 3:
                found += 1
                p.seen = 0
            else:
                p.seen = 2 if p.seen == 1 else 0
        else:
            p.seen = 0
    return found


cdef uint32_t peer_acknowledged(const Peer *p, seq_t una) noexcept nogil:
    cdef uint32_t gone = una - p.base
    return gone if gone <= p.n else 0       # nothing is kept yet, or our FIN is acknowledged too


cdef bint peer_keep(Peer *p, seq_t una, const uint8_t *data, uint32_t n) noexcept nogil:
    cdef uint32_t gone = peer_acknowledged(p, una)
    cdef uint8_t *more
    if gone != 0 and gone >= p.n - gone:
        memmove(p.bytes, p.bytes + gone, p.n - gone)
        p.n -= gone
        p.base = una
    if p.n + n > p.capacity:
        more = <uint8_t *>realloc(p.bytes, (p.n + n) * 2)
        if more == NULL:
            return False
        p.bytes = more
        p.capacity = (p.n + n) * 2
    memcpy(p.bytes + p.n, data, n)
    p.n += n
    return True


cdef const uint8_t *_data(void *context, const Segment *s) noexcept nogil:
    """A wire_data_t."""
    cdef Server *v = <Server *>context
    cdef Key key
    cdef row_t row
    cdef Peer *p
    key_endpoint(&key, s.src, s.sport, s.dst, s.dport, &v.e.engine.table.hash_key)
    if not store_find(&v.e.engine.table, &key, &row):
        return NULL
    p = &v.peer[row]
    if v.mode == ANSWER:
        return v.answer + wire_offset(&p.base, v.e.engine.table.rows[row].seat.tcb.snd_una, s.seq, v.length)
    if s.seq - p.base > p.n or s.payload > p.n - (s.seq - p.base):
        return NULL
    return p.bytes + (s.seq - p.base)


cdef void _apply(Server *v, Segment *s, const uint8_t *data, ns_t now) noexcept nogil:
    """One segment, and what the application does about it."""
    cdef Outcome out, told
    cdef Key key
    cdef Peer *p
    cdef row_t row
    cdef seq_t before = s.seq               # no row yet: a SYN cookie's ACK may bring data
    cdef uint32_t known, waiting
    cdef int _i, requests
    if s.payload != 0 and not s.flags & (SYN | RST):
        key_endpoint(&key, s.dst, s.dport, s.src, s.sport, &v.e.engine.table.hash_key)
        if store_find(&v.e.engine.table, &key, &row):
            before = v.e.engine.table.rows[row].seat.tcb.rcv_nxt
            p = &v.peer[row]
            waiting = p.n - peer_acknowledged(p, v.e.engine.table.rows[row].seat.tcb.snd_una)
            if v.mode != SINK and v.mode != SLOW and (seq_lt(before, s.seq) or waiting + s.payload > ECHO_LIMIT):
                v.ahead += 1
                s.payload = 0
                s.flags &= ~<uint32_t>FIN
    endpoint_receive(v.e, s, now, &out)
    if out.handle == 0 or not store_row_of(&v.e.engine.table, out.handle, &row):
        return
    p = &v.peer[row]
    if out.flags & OUT_ACCEPTED:
        free(p.bytes)
        memset(p, 0, sizeof(Peer))
        p.handle = out.handle
        p.base = cold_of(v.e, row).iss + 1
        v.accepted += 1
        if v.mode == SLOW and due_add(&v.due, p.handle, now + READ_NS) != 0:
            v.no_memory = True
    if p.handle != out.handle:
        return
    if out.delivered != 0:
        v.bytes_in += out.delivered
        known = before - s.seq              # bytes of it that were there before
        if known > s.payload or out.delivered > s.payload - known:
            known = 0                       # the row was another's, whose time was up
            if out.delivered > s.payload:
                endpoint_abort(v.e, row, now, &told)
                return
        data += known
        if v.mode == ECHO:
            if peer_keep(p, v.e.engine.table.rows[row].seat.tcb.snd_una, data, out.delivered):
                endpoint_send(v.e, row, out.delivered, now, &told)
            else:
                v.no_memory = True
        elif v.mode == ANSWER:
            requests = _requests(p, data, out.delivered)
            for _i in range(requests):
                endpoint_send(v.e, row, v.length, now, &told)
                v.answers += 1
                if v.close:
                    endpoint_close(v.e, row, False, now, &told)
                    return
    if out.events & <uint64_t>1 << E_RCV_FIN and store_row_of(&v.e.engine.table, out.handle, &row):
        p.closes = True
        if cold_of(v.e, row).rcv_unread == 0 and v.e.engine.table.rows[row].state[0] == S_CLOSE_WAIT:
            endpoint_close(v.e, row, False, now, &told)


cdef void _read_slowly(Server *v, ns_t now) noexcept nogil:
    cdef uint64_t handle
    cdef uint32_t n
    cdef row_t row
    cdef Outcome told
    while due_pop(&v.due, now, &handle):
        if not store_row_of(&v.e.engine.table, handle, &row) or v.peer[row].handle != handle:
            continue
        if v.e.engine.table.rows[row].state[0] not in (S_ESTABLISHED, S_CLOSE_WAIT):
            continue
        n = cold_of(v.e, row).rcv_unread
        if n != 0:
            endpoint_read(v.e, row, n if n < v.quantum else v.quantum, now, &told)
        if v.peer[row].closes and cold_of(v.e, row).rcv_unread == 0:
            endpoint_close(v.e, row, False, now, &told)
        elif due_add(&v.due, handle, now + READ_NS) != 0:
            v.no_memory = True


cdef void _turn(Server *v, ns_t until) noexcept nogil:
    cdef Outcome outcomes[TIMERS]
    cdef size_t n, i, budget = TIMER_BUDGET
    cdef ns_t now = sys_now_ns(), wake
    n = wire_read(&v.wire, WIRE_BATCH, now)
    for i in range(n):
        _apply(v, &v.wire.segment[i], v.wire.payload[i], now)
    if v.mode == SLOW:
        _read_slowly(v, now)
    while endpoint_advance(v.e, now, &budget, outcomes, TIMERS) == TIMERS:
        pass
    wire_send(&v.wire, v.e, _data, v)
    if n == 0 and v.wire.drained and v.wire.error == 0:
        now = sys_now_ns()
        wake = min(until, now + LONGEST_SLEEP_NS)
        if wake > now:
            sys_wait(v.wire.fd, wake - now)


cdef class LoadServer:
    """Serves the connections of an endpoint table through a TUN device.

    Parameters
    ----------
    table : ConnectionTable
        In the endpoint seat, its listeners made by `listen`; with read_all=False for "slow", else True.
    fd : int
        A TUN device; it stays the caller's.
    mode : "answer", "echo", "sink" or "slow"
        Answer each request that ends with a blank line; send back what comes; throw it away; read `rate` bytes a
        second of each connection.
    answer : bytes
        The answer; close: close after the first one.
    """

    cdef Server v
    cdef readonly ConnectionTable table

    def __cinit__(self, *_arguments, **_named):
        self.v.wire.fd = -1

    def __init__(self, ConnectionTable table, fd, *, mode="answer", bytes answer=b"", close=False, rate=65536):
        cdef Server *v = &self.v
        cdef uint32_t i
        modes = ("answer", "echo", "sink", "slow")
        if not sys_have_linux():
            raise OSError("a TUN device needs Linux")
        if v.e != NULL:
            raise StateError("this server was made before")
        if mode not in modes:
            raise ValueError(f"mode is {mode!r}; it can be {', '.join(modes)}")
        if mode == "answer" and not 1 <= len(answer) <= 1 << 24:
            raise ValueError(f"an answer of {len(answer)} bytes: it must have 1 to 2^24")
        v.mode = modes.index(mode)
        v.close = bool(close)
        v.quantum = max(1, whole("rate", rate, 1, 1 << 40) * READ_NS // 1000000000)
        v.length = <uint32_t>len(answer)
        if v.length != 0:
            v.answer = <uint8_t *>malloc(<size_t>v.length + ROOM)
            if v.answer == NULL:
                raise MemoryError("no memory for an answer")
            for i in range(v.length + ROOM):
                v.answer[i] = (<const uint8_t *>answer)[i % v.length]
        self.table = table
        wire_open(&v.wire, whole("fd", fd, 0, 1 << 30), False)
        v.peer = <Peer *>calloc(table_endpoint(table).engine.table.max_rows, sizeof(Peer))
        if v.peer == NULL:
            raise MemoryError("no memory for the connections of a server")
        v.e = table_endpoint(table)
        v.e.watch.context = v
        v.e.watch.ended = _ended
        due_open(&v.due, sys_now_ns())

    def __dealloc__(self):
        cdef size_t row
        if self.v.e != NULL:
            self.v.e.watch.ended = NULL
            for row in range(self.v.e.engine.table.high):
                free(self.v.peer[row].bytes)
        wire_close(&self.v.wire)
        due_close(&self.v.due)
        free(self.v.peer)
        free(self.v.answer)

    def run(self, for_ns):
        """Serve for so long, ns, without the GIL. OSError when the device fails, MemoryError."""
        cdef Server *v = &self.v
        cdef ns_t until = whole("for_ns", for_ns, 0, 1 << 60)
        cdef ns_t begin, cpu
        with nogil:
            begin = sys_now_ns()
            cpu = sys_cpu_ns()
            until += begin
            while True:
                _turn(v, until)
                if sys_now_ns() >= until or v.wire.error != 0 or v.no_memory:
                    break
            v.ran_ns += sys_now_ns() - begin
            v.cpu_ns += sys_cpu_ns() - cpu
        if v.wire.error != 0:
            raise OSError(v.wire.error, f"the TUN device: {os.strerror(v.wire.error)}")
        if v.no_memory:
            raise MemoryError("no memory for what is to be sent back")

    def reset_all(self):
        """Reset every connection; the listeners stay."""
        cdef row_t row
        cdef Outcome told
        for row in range(<row_t>self.v.e.engine.table.high):
            if self.v.peer[row].handle != 0 and self.v.peer[row].handle == store_handle(&self.v.e.engine.table, row):
                endpoint_abort(self.v.e, row, sys_now_ns(), &told)
        wire_send(&self.v.wire, self.v.e, _data, &self.v)

    def counts(self):
        """All counters by name; a dict of ints."""
        cdef Server *v = &self.v
        return {
            "accepted": v.accepted, "ended": v.ended, "answers": v.answers, "payload_in": v.bytes_in,
            "ahead": v.ahead, "packets_in": v.wire.packets_in, "packets_out": v.wire.packets_out,
            "other_packets": v.wire.other, "lost_out": v.wire.lost_out, "acks_merged": v.wire.merged,
            "retransmitted": v.e.counts.retransmitted, "io_uring": <int>v.wire.ring.there,
            "ran_ns": v.ran_ns, "cpu_ns": v.cpu_ns,
        }
