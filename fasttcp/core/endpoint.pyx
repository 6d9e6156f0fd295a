"""The endpoint seat made ready, let go, and examined; see endpoint.pxd for the whole."""

from libc.stdint cimport uint32_t, uint64_t

from fasttcp.core.crowds cimport crowds_check, crowds_close
from fasttcp.core.hosts cimport hosts_close, hosts_open
from fasttcp.core.layout cimport NO_ROW, ROW_ORPHAN, ROW_PASSIVE, Row, Tcb, row_t, seq_le, seq_lt
from fasttcp.core.names cimport (
    S_CLOSED, S_CLOSING, S_FIN_WAIT_1, S_FIN_WAIT_2, S_LAST_ACK, S_LISTEN, S_SYN_RCVD, S_SYN_SENT, S_TIME_WAIT,
)
from fasttcp.core.output cimport output_close, output_open
from fasttcp.core.policy cimport policy_compile
from fasttcp.core.store cimport store_armed, store_check, store_in_use
from fasttcp.core.tcb cimport (
    TCB_ACCEPT, TCB_AHEAD, TCB_AHEAD_BITS, TCB_FIN_QUEUED, TCB_FIN_SENT, TCB_HALF_OPEN, TIMER_NONE, Endpoint,
    EndpointCold, cold_of, listener_of,
)
from fasttcp.core.actions cimport parent_of
from fasttcp.core.timeouts cimport retry_limit, timer_needed

from fasttcp.errors import InvariantError
from fasttcp.spec import State


cdef int endpoint_init(Endpoint *e, object profile, const uint64_t *secret, size_t output_limit) except -1:
    policy_compile(&e.policy, profile)
    output_open(&e.output, output_limit)
    e.secret[0] = secret[0]
    e.secret[1] = secret[1]
    e.auto_read = True
    e.auto_accept = True
    if e.policy.tcp_tw_recycle and e.hosts == NULL and hosts_open(e) != 0:
        raise MemoryError("no memory for what tcp_tw_recycle remembers of remote addresses")
    return 0


cdef void endpoint_fini(Endpoint *e) noexcept nogil:
    output_close(&e.output)
    hosts_close(e)
    crowds_close(e)


cdef void endpoint_recount(Endpoint *e) noexcept nogil:
    cdef row_t row
    cdef const Row *r
    e.listeners = 0
    e.orphans = 0
    for row in range(<row_t>e.engine.table.high):
        r = &e.engine.table.rows[row]
        if store_in_use(&e.engine.table, row):
            e.listeners += r.state[0] == S_LISTEN
            e.orphans += r.flags & ROW_ORPHAN != 0 and r.state[0] != S_TIME_WAIT


cdef int endpoint_check(Endpoint *e) except -1:
    """Cost: one pass over the rows, and the store's own."""
    cdef row_t row, parent, at
    cdef uint32_t listeners = 0, orphans = 0, waiting
    cdef Row *r
    store_check(&e.engine.table)
    crowds_check(e)
    if e.engine.never != 0:
        raise InvariantError(f"{e.engine.never} events happened that the machine says never do")
    half_open = {}
    queued = {}
    for row in range(<row_t>e.engine.table.high):
        if not store_in_use(&e.engine.table, row):
            continue
        r = &e.engine.table.rows[row]
        if r.state[0] == S_LISTEN:
            listeners += 1
            half_open.setdefault(row, 0)
            queued.setdefault(row, 0)
            if store_armed(&e.engine.table, row):
                raise InvariantError(f"row {row} listens and has a timer")
            continue
        _check_row(e, row)
        orphans += r.flags & ROW_ORPHAN != 0 and r.state[0] != S_TIME_WAIT
        if r.aux & (TCB_HALF_OPEN | TCB_ACCEPT) and parent_of(e, row, &parent):
            if r.aux & TCB_HALF_OPEN:
                half_open[parent] = half_open.get(parent, 0) + 1
            else:
                queued[parent] = queued.get(parent, 0) + 1
    if listeners != e.listeners or orphans != e.orphans:
        raise InvariantError(
            f"{listeners} listeners and {orphans} orphans, counted as {e.listeners} and {e.orphans}"
        )
    for row in half_open:
        if listener_of(e, row).half_open != half_open[row] or listener_of(e, row).accept_queued != queued[row]:
            raise InvariantError(
                f"listener {row} has {half_open[row]} half-open and {queued[row]} waiting connections, counted as "
                f"{listener_of(e, row).half_open} and {listener_of(e, row).accept_queued}"
            )
        waiting = 0
        at = listener_of(e, row).first
        while at != NO_ROW and at < e.engine.table.high and waiting <= queued[row]:
            waiting += 1
            at = cold_of(e, at).next
        if waiting != queued[row]:
            raise InvariantError(f"the accept queue of listener {row} is broken after {waiting} connections")
    return 0


cdef str _name(row_t row, int state):
    return f"row {row} in {State(state).name}"


cdef int _check_row(Endpoint *e, row_t row) except -1:
    cdef Row *r = &e.engine.table.rows[row]
    cdef Tcb *b = &r.seat.tcb
    cdef EndpointCold *c = cold_of(e, row)
    cdef int state = r.state[0]
    cdef bint queued = r.aux & TCB_FIN_QUEUED != 0
    cdef bint sent = r.aux & TCB_FIN_SENT != 0
    cdef uint32_t runs = (r.aux & TCB_AHEAD_BITS) // TCB_AHEAD
    cdef uint32_t i
    if state == S_CLOSED or r.state[1] != S_CLOSED:
        raise InvariantError(f"{_name(row, state)}: in use, with side 1 in state {r.state[1]}")
    if b.timer != timer_needed(e, r, c):
        raise InvariantError(f"{_name(row, state)}: timer {b.timer} runs, timer {timer_needed(e, r, c)} is needed")
    if b.timer != TIMER_NONE and not store_armed(&e.engine.table, row):
        raise InvariantError(f"{_name(row, state)}: timer {b.timer} should run, but the wheel has no entry")
    if not e.policy.retries_are_time and b.retries > max(
        retry_limit(e, r), e.policy.tcp_retries2, e.policy.tcp_keepalive_probes
    ):
        raise InvariantError(f"{_name(row, state)}: {b.retries} retries, more than any limit that it had")
    if seq_lt(b.snd_nxt, b.snd_una):
        raise InvariantError(f"{_name(row, state)}: SND.UNA {b.snd_una} is beyond SND.NXT {b.snd_nxt}")
    if (state == S_SYN_SENT or state == S_SYN_RCVD) and (b.snd_una != c.iss or b.snd_nxt != <uint32_t>(c.iss + 1)):
        raise InvariantError(f"{_name(row, state)}: SND.UNA {b.snd_una}, SND.NXT {b.snd_nxt}, ISS {c.iss}")
    if state == S_FIN_WAIT_1 or state == S_CLOSING or state == S_LAST_ACK:
        if queued == sent:
            raise InvariantError(f"{_name(row, state)}: a FIN must be either queued ({queued}) or sent ({sent})")
    elif state == S_FIN_WAIT_2 or state == S_TIME_WAIT:
        if queued or not sent or b.snd_una != b.snd_nxt or c.snd_queued != 0:
            raise InvariantError(f"{_name(row, state)}: our FIN must be sent and acknowledged")
    elif queued or sent:
        raise InvariantError(f"{_name(row, state)}: a FIN before CLOSE")
    if sent and c.snd_queued != 0:
        raise InvariantError(f"{_name(row, state)}: {c.snd_queued} bytes wait behind the FIN")
    if r.aux & TCB_HALF_OPEN and state != S_SYN_RCVD:
        raise InvariantError(f"{_name(row, state)}: counted as half-open")
    if r.flags & ROW_PASSIVE and c.parent >= e.engine.table.high:
        raise InvariantError(f"{_name(row, state)}: its listener would be row {c.parent}")
    if r.aux & TCB_ACCEPT:
        for at in (c.previous, c.next):
            if at != NO_ROW and at >= e.engine.table.high:
                raise InvariantError(f"{_name(row, state)}: its neighbour in the accept queue would be row {at}")
    if r.aux & (TCB_HALF_OPEN | TCB_ACCEPT) and not r.flags & ROW_PASSIVE:
        raise InvariantError(f"{_name(row, state)}: counted by a listener that it did not come out of")
    if r.aux & TCB_ACCEPT and r.flags & ROW_ORPHAN:
        raise InvariantError(f"{_name(row, state)}: waits for accept, and was let go of")
    for i in range(runs):
        if seq_le(c.ahead[i][1], c.ahead[i][0]) or seq_le(c.ahead[i][0], b.rcv_nxt):
            raise InvariantError(f"{_name(row, state)}: run {i} beyond RCV.NXT is not beyond it")
        if i > 0 and seq_le(c.ahead[i][0], c.ahead[i - 1][1]):
            raise InvariantError(f"{_name(row, state)}: runs {i - 1} and {i} touch")
    return 0
