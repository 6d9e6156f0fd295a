"""LoadClient: real connections from one process, each a row of an endpoint table, through a TUN device.

    one turn:   open what is due -> write -> read many -> apply one batch -> what it meant -> timers -> write
                                                                                                  -> sleep

The loop runs without the GIL. It is the only place of the load's client that reads a clock (CLOCK_MONOTONIC).
Thread rule: one thread at a time, and nobody else calls the table meanwhile.
"""

import os
from operator import index

from libc.stdint cimport INT64_MAX, UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from fasttcp.core.address cimport parse_address, parse_number, whole
from fasttcp.core.arrivals cimport endpoint_batch
from fasttcp.core.expiry cimport endpoint_advance
from fasttcp.core.layout cimport ns_t
from fasttcp.core.policy cimport port_reserved
from fasttcp.core.table cimport ConnectionTable, table_endpoint
from fasttcp.core.tcb cimport Outcome
from fasttcp.load.answer cimport END_BYTES, END_CLOSE, END_HTTP, END_LINE, END_NOTHING
from fasttcp.load.due cimport due_close, due_open
from fasttcp.load.flows cimport (
    CLOSING, CUT_OFF, DONE, LOGNORMAL, N_OUTCOMES, OK, PARETO, REFUSED, RESET, TIMED_OUT, Client, Draw, Flow, Pair,
    client_data, client_due, client_heard, client_icmp, client_opens, client_sweeps, client_tells, flow_ended,
)
from fasttcp.load.histogram cimport Histogram
from fasttcp.load.system cimport sys_cpu_ns, sys_have_linux, sys_now_ns, sys_regex_free, sys_regex_new, sys_wait
from fasttcp.load.uring cimport uring_close
from fasttcp.load.wire cimport WIRE_BATCH, wire_close, wire_open, wire_read, wire_send
from fasttcp.packets.icmp cimport ICMP_FORBIDDEN, ICMP_HOST, ICMP_NETWORK, ICMP_PORT, ICMP_TOO_LARGE

from fasttcp.errors import StateError
from fasttcp.spec import TRANSITIONS, Event

__all__ = ["COUNTS", "OUTCOMES", "LoadClient"]

#: What can become of a connection, in the order in which they are counted.
OUTCOMES = (
    "ok", "refused", "unreachable", "reset", "timed_out", "unexpected", "left", "cut_off", "port_pool_empty", "table_full",
)
_ENDS = {
    "nothing": END_NOTHING, "bytes": END_BYTES, "line": END_LINE, "close": END_CLOSE, "content-length": END_HTTP,
    "http": END_HTTP,
}
_CLOSES = ("fin", "rst", "peer")
_DRAWS = ("fixed", "exponential", "pareto", "lognormal", "forever")

cdef enum:
    TIMERS = 64                         # of one call of endpoint_advance
    TIMER_BUDGET = 4096                 # in one turn: bounds the pause when many are due at once
    LONGEST_SLEEP_NS = 5000000          # half a tick of the table's wheel
    CALENDAR_SLEEP_NS = 1000000         # a tick of the calendar


cdef void _timers(Client *c, ns_t now) noexcept nogil:
    cdef Outcome outcomes[TIMERS]
    cdef size_t budget = TIMER_BUDGET
    if now < c.next_timers_ns:
        return
    while endpoint_advance(c.e, now, &budget, outcomes, TIMERS) == TIMERS:
        pass
    # The wheel has new work only when its next tick begins, or when the budget ended first.
    c.next_timers_ns = c.e.engine.table.tick_end_ns if budget != 0 else now


cdef void _turn(Client *c, ns_t until) noexcept nogil:
    cdef ns_t now = sys_now_ns(), wake
    cdef size_t n, i
    cdef uint64_t opened = c.opened
    c.now = now
    c.turns += 1
    client_opens(c, now)
    if c.ending:
        client_sweeps(c, now)
    wire_send(&c.wire, c.e, client_data, c)
    n = wire_read(&c.wire, WIRE_BATCH, now)
    if n != 0:
        c.now = now = sys_now_ns()
        c.in_batch = True
        endpoint_batch(c.e, c.wire.segment, n, c.wire.outcome)
        c.in_batch = False
        client_heard(c, n, now)
        client_tells(c)
    for i in range(c.wire.quotes):
        client_icmp(c, &c.wire.quoted[i], now)
    client_due(c, now)
    _timers(c, now)
    wire_send(&c.wire, c.e, client_data, c)
    if n != 0 or not c.wire.drained or c.opened != opened or c.wire.error != 0:
        return
    wake = min(until, now + (CALENDAR_SLEEP_NS if c.due.count != 0 else LONGEST_SLEEP_NS))
    if c.plan.opening and not c.ending:
        if c.plan.rate > 0:
            wake = min(wake, c.next_open_ns)
        if c.plan.hold > 0 and c.plan.churn > 0 and c.filled and c.ring_head != c.ring_tail:
            wake = min(wake, c.next_churn_ns)
    now = sys_now_ns()
    if wake > now:
        sys_wait(c.wire.fd, wake - now)
        c.asleep_ns += sys_now_ns() - now


cdef int _draw(str name, object given, Draw *d) except -1:
    """(kind, mean in ns, shape) into a Draw."""
    kind, mean_ns, shape = given
    if kind not in _DRAWS:
        raise ValueError(f"{name} is {kind!r}; it can be {', '.join(_DRAWS)}")
    d.kind = _DRAWS.index(kind)
    d.mean_ns = float(mean_ns)
    d.shape = float(shape)
    if not 0 <= d.mean_ns < 9e18:
        raise ValueError(f"{name}: a mean of {mean_ns} ns cannot be")
    if d.kind == PARETO and not d.shape > 1:
        raise ValueError(f"{name}: a Pareto distribution has a mean only with a shape above 1, not {shape}")
    if d.kind == LOGNORMAL and not 0 < d.shape < 10:
        raise ValueError(f"{name}: sigma is {shape}; it must be above 0 and below 10")
    return 0


cdef class LoadClient:
    """Opens, holds, churns and closes connections of an endpoint table through a TUN device.

    Parameters
    ----------
    table : ConnectionTable
        In the endpoint seat, nobody else's. Rows in TIME_WAIT count, so its max_capacity bounds the rate.
    fd : int
        A TUN device as `device.open_tun` makes it; it stays the caller's.
    sources, targets : list
        Packed addresses of 16 bytes (IPv4 mapped); pairs of a packed address and a port. Each source goes with each
        target, in turn.
    request : bytes
        What each connection sends, `{n}` standing for its number; may be empty.
    end, nbytes, line
        Where an answer ends: "nothing", "bytes" (after nbytes), "line", "close", "http" (RFC 9112 section 6.3; its older name
        is "content-length"); and a POSIX extended regular expression that its first line must match, or None.
    close : "fin", "rst" or "peer"
        Who closes, and how.
    life, think : (kind, mean_ns, shape)
        How long a connection stays open after the last answer, and between two requests: "fixed", "exponential",
        "pareto", "lognormal", "forever".
    numbers : (first, step)
        What `{n}` is for its connections, so that several clients number theirs without one that two have.
    plain : bool
        Write to the device packet by packet, even where an io_uring could do it in batches.
    """

    cdef Client c
    cdef readonly ConnectionTable table
    cdef readonly Histogram connect         # from the scheduled time to ESTABLISHED
    cdef readonly Histogram first_byte      # ... to the first byte of the answer
    cdef readonly Histogram close           # from when it was to be closed to TIME_WAIT, or CLOSED
    cdef bytes _request

    def __cinit__(self, *_arguments, **_named):
        self.c.wire.fd = -1

    def __init__(
        self, ConnectionTable table, fd, sources, targets, *, bytes request=b"", end="nothing", nbytes=0, line=None,
        requests=1, close="fin", half_close=False, life=("forever", 0, 0), think=("fixed", 0, 0), timeout_ns=0,
        connecting_limit=512, seed=1, numbers=(0, 1), plain=False,
    ):
        cdef Client *c = &self.c
        cdef uint32_t port
        if not sys_have_linux():
            raise OSError("a TUN device needs Linux")
        if c.e != NULL:
            raise StateError("this client was made before")
        if close not in _CLOSES:
            raise ValueError(f"close is {close!r}; it can be {', '.join(_CLOSES)}")
        if end not in _ENDS:
            raise ValueError(f"end is {end!r}; it can be {', '.join(_ENDS)}")
        self.table = table
        self.connect, self.first_byte, self.close = Histogram(), Histogram(), Histogram()
        c.connect, c.first_byte, c.close = &self.connect.h, &self.first_byte.h, &self.close.h
        c.close_by = _CLOSES.index(close)
        c.half_close = bool(half_close)
        c.expect.end = _ENDS[end]
        c.expect.nbytes = whole("nbytes", nbytes, 1 if end == "bytes" else 0, 1 << 56)
        c.expect.bodiless = request.startswith(b"HEAD ")
        c.rounds = whole("requests", requests, 1, 1000)
        c.timeout_ns = whole("timeout_ns", timeout_ns, 0, INT64_MAX // 4)
        c.connecting_limit = whole("connecting_limit", connecting_limit, 1, 1 << 30)
        c.first_number = whole("numbers[0]", numbers[0], 0, UINT32_MAX)
        c.number_step = whole("numbers[1]", numbers[1], 1, UINT32_MAX)
        _draw("life", life, &c.life)
        _draw("think", think, &c.think)
        if line is not None:
            c.expect.line = sys_regex_new(line.encode())
            if c.expect.line == NULL:
                raise ValueError(f"expect_line: {line!r} is no POSIX extended regular expression")
        c.random[0] = (<uint64_t>(index(seed) & 0xFFFFFFFFFFFFFFFF) ^ <uint64_t>0x9E3779B97F4A7C15) | 1
        c.random[1] = 0xD1B54A32D192ED03
        _set_request(self, request)
        _set_pairs(self, list(sources), list(targets))
        wire_open(&c.wire, whole("fd", fd, 0, 1 << 30), bool(plain))
        c.flow = <Flow *>calloc(table_endpoint(table).engine.table.max_rows, sizeof(Flow))
        if c.flow == NULL:
            raise MemoryError("no memory for the connections of a load")
        for transition in TRANSITIONS.values():
            c.end_of[transition.state][transition.event] = _outcome(transition)
        c.e = table_endpoint(table)
        for port in range(c.e.policy.port_first, <uint32_t>c.e.policy.port_last + 1):
            c.ports += not port_reserved(&c.e.policy, <unsigned short>port)
        c.e.watch.context = c
        c.e.watch.ended = flow_ended
        due_open(&c.due, sys_now_ns())

    def __dealloc__(self):
        if self.c.e != NULL:
            self.c.e.watch.ended = NULL
        wire_close(&self.c.wire)
        due_close(&self.c.due)
        sys_regex_free(self.c.expect.line)
        free(self.c.flow)
        free(self.c.pair)
        free(self.c.scratch)
        free(self.c.ring)
        free(self.c.told)

    def release(self):
        """Give back what it has of the system beside memory, its io_uring: what it may still send goes packet by packet. Twice is
        harmless. Not while `run` is under way."""
        uring_close(&self.c.wire.ring)

    def plan(self, *, rate=0.0, poisson=False, hold=0, churn=0.0, opening=True, fewer=False, delay_ns=0):
        """What to do from now on: `rate` connections a second (open model), and `hold` of them open of which `churn`
        a second are replaced, the oldest first (closed model). fewer: what is open beyond `hold` is closed, the oldest first.
        A rate that begins begins after `delay_ns`."""
        cdef ns_t now = sys_now_ns()
        cdef ns_t delay = whole("delay_ns", delay_ns, 0, 1 << 60)
        if not (0 <= rate <= 1e9 and 0 <= churn <= 1e9):
            raise ValueError(f"rate is {rate} and churn {churn}: each must be from 0 to 1e9 a second")
        if self.c.plan.rate <= 0 or not self.c.plan.opening or self.c.next_open_ns == 0:
            self.c.next_open_ns = now + delay
        if self.c.plan.churn <= 0:
            self.c.next_churn_ns = now
        if <uint64_t>hold > self.c.plan.hold:
            self.c.filled = False
        self.c.plan.rate = rate
        self.c.plan.poisson = bool(poisson)
        self.c.plan.hold = whole("hold", hold, 0, 1 << 40)
        self.c.plan.churn = churn
        self.c.plan.opening = bool(opening)
        self.c.plan.fewer = bool(fewer)

    def run(self, for_ns):
        """Work for so long, ns, without the GIL. OSError when the device fails, MemoryError."""
        cdef Client *c = &self.c
        cdef ns_t begin, cpu
        cdef ns_t until = whole("for_ns", for_ns, 0, 1 << 60)
        with nogil:
            begin = sys_now_ns()
            cpu = sys_cpu_ns()
            until += begin
            while True:
                _turn(c, until)
                if sys_now_ns() >= until or c.wire.error != 0 or c.no_memory:
                    break
                if c.ending and c.live == 0 and c.closing == 0:
                    break
            c.ran_ns += sys_now_ns() - begin
            c.cpu_ns += sys_cpu_ns() - cpu
        if c.wire.error != 0:
            raise OSError(c.wire.error, f"the TUN device: {os.strerror(c.wire.error)}")
        if c.no_memory:
            raise MemoryError("no memory for what the connections wait for")

    def end(self):
        """Open nothing more, and close what is open, as `run` goes on."""
        self.c.ending = True

    def cut(self):
        """Reset everything, as `run` goes on."""
        self.c.ending = self.c.cutting = True

    @property
    def over(self):
        """Whether no connection is open or closing; what is in TIME_WAIT does not count."""
        return self.c.live == 0 and self.c.closing == 0

    @property
    def filled(self):
        """Whether the connections to be held were all open once."""
        return self.c.filled

    def counts(self):
        """All counters by name; a dict of ints."""
        cdef Client *c = &self.c
        cdef int i
        told = {name: c.outcome[i] for i, name in enumerate(OUTCOMES)}
        told.update(
            opened=c.opened, established=c.established, answered=c.answered, syn_retransmitted=c.syn_again,
            late=c.late, time_wait_reused=c.reused, ports_ran_out=c.ports_ran_out, rows_ran_out=c.rows_ran_out,
            live=c.live, connecting=c.connecting, closing=c.closing,
            payload_in=c.bytes_in, packets_in=c.wire.packets_in, packets_out=c.wire.packets_out,
            bytes_in=c.wire.bytes_in, bytes_out=c.wire.bytes_out, reads=c.wire.reads, writes=c.wire.writes,
            other_packets=c.wire.other, icmp_network=c.wire.icmp[ICMP_NETWORK], icmp_host=c.wire.icmp[ICMP_HOST],
            icmp_port=c.wire.icmp[ICMP_PORT], icmp_forbidden=c.wire.icmp[ICMP_FORBIDDEN],
            icmp_too_large=c.wire.icmp[ICMP_TOO_LARGE], lost_out=c.wire.lost_out,
            acks_merged=c.wire.merged, retransmitted=c.e.counts.retransmitted if c.e != NULL else 0,
            http_2xx=c.statuses[2], http_3xx=c.statuses[3], http_4xx=c.statuses[4], http_5xx=c.statuses[5],
            io_uring=<int>c.wire.ring.there, turns=c.turns, ran_ns=c.ran_ns, cpu_ns=c.cpu_ns, asleep_ns=c.asleep_ns,
        )
        return told

    def ports(self):
        """(local ports in use, TIME_WAIT included; local ports of the whole pool)."""
        cdef uint64_t used = 0
        cdef uint32_t i
        for i in range(self.c.pairs):
            used += self.c.pair[i].used
        return used, <uint64_t>self.c.pairs * self.c.ports

    def check(self):
        """The table's invariants and this client's; cost: a pass over all rows. Raises AssertionError."""
        cdef Client *c = &self.c
        cdef uint64_t live = 0, closing = 0, row, told = 0
        cdef int i
        self.table.check_invariants()
        for row in range(c.e.engine.table.high):
            if c.flow[row].phase == CLOSING:
                closing += 1
            elif c.flow[row].phase != DONE:
                live += 1
        for i in range(N_OUTCOMES - 2):
            told += c.outcome[i]
        if live != c.live or closing != c.closing or told + live + closing != c.opened:
            raise AssertionError(
                f"{live} live and {closing} closing flows, counted as {c.live} and {c.closing}; {told} of {c.opened} "
                "told of"
            )
        used, _ = self.ports()
        if used != len(self.table):
            raise AssertionError(f"{used} ports are counted as in use, {len(self.table)} rows are")


#: The names of all counters, in the order of counts().
COUNTS = tuple(LoadClient.__new__(LoadClient).counts())


cdef int _outcome(transition) except -1:
    """What became of a connection that this transition ends."""
    if transition.outcome == "refused":
        return REFUSED
    if transition.outcome == "timeout":
        return TIMED_OUT
    if transition.outcome == "reset" or transition.event == Event.RCV_DATA_UNWANTED:
        return RESET
    if transition.outcome in ("evicted", "replaced", "idle"):
        return CUT_OFF
    return OK


cdef int _set_request(LoadClient self, bytes request) except -1:
    cdef Client *c = &self.c
    parts = request.split(b"{n}")
    if len(request) > 1 << 20 or len(parts) > 17:
        raise ValueError(f"a request of {len(request)} bytes with {len(parts) - 1} places: at most 1 MiB and 16")
    self._request = b"".join(parts)
    c.request.bytes = self._request
    c.request.length = <uint32_t>len(self._request)
    c.request.holes = <uint32_t>(len(parts) - 1)
    at = 0
    for i, part in enumerate(parts[: len(parts) - 1]):
        at += len(part)
        c.request.hole[i] = <uint32_t>at
    # One request, and what a segment that runs into the next one needs.
    c.scratch_capacity = <uint64_t>c.request.length + 160 + 65536
    c.scratch = <uint8_t *>malloc(c.scratch_capacity)
    if c.scratch == NULL:
        raise MemoryError("no memory for a request")
    return 0


cdef int _set_pairs(LoadClient self, list sources, list targets) except -1:
    cdef Client *c = &self.c
    cdef Pair *p
    if not 1 <= len(sources) * len(targets) <= 65536:
        raise ValueError(f"{len(sources)} sources and {len(targets)} targets: from 1 to 65536 pairs can be")
    c.pair = <Pair *>calloc(len(sources) * len(targets), sizeof(Pair))
    if c.pair == NULL:
        raise MemoryError("no memory for the source pool")
    for source in sources:
        for target, port in targets:
            p = &c.pair[c.pairs]
            if parse_address("source", source, p.source) != parse_address("target", target, p.target):
                raise ValueError("sources and targets are not all of one IP version")
            p.port = parse_number("port", port, 1, 65535)
            c.pairs += 1
    return 0
