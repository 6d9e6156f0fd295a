"""What the application does to a connection.

Each call is one event (two, where it stands in for two), decided by the table: a row with REJECT is answered with
CALL_REJECTED and changes nothing. The engine counts bytes and holds none: SEND says how many, segments that go out
say which (by their sequence numbers), and Outcome.delivered says how many arrived in order.

CLOSE has two forms, as hosts have them. `half` is RFC 9293's: no more to send, still reading (shutdown). Without
`half` the application lets go of both directions (close): from now on the connection is an orphan, and what arrives
is unwanted.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fasttcp.core.actions cimport finish, leave_accept_queue, open_sequence, step, take_row
from fasttcp.core.expiry cimport endpoint_expired
from fasttcp.core.hash cimport Key, is_mapped, key_endpoint
from fasttcp.core.isn cimport initial_sequence, next_sequence, timestamp_offset
from fasttcp.core.layout cimport NO_ROW, ROW_ORPHAN, Row, ns_t, row_t, seq_t
from fasttcp.core.listening cimport one_host
from fasttcp.core.machine cimport machine_actions
from fasttcp.core.names cimport (
    A_REJECT, A_SEND_ACK, E_ABORT, E_CLOSE, E_CLOSE_UNREAD, E_OPEN_ACTIVE, E_OPEN_PASSIVE, E_OPEN_REUSE, E_RELEASE,
    E_REPLACED, E_SEND, E_SEND_UNSPECIFIED, S_CLOSED, S_ESTABLISHED, S_FIN_WAIT_1, S_FIN_WAIT_2, S_LISTEN, S_SYN_SENT,
    S_TIME_WAIT,
)
from fasttcp.core.ports cimport ports_choose, time_wait_reusable
from fasttcp.core.seat cimport fire
from fasttcp.core.store cimport STORE_FULL, STORE_OK, store_find, store_handle, store_remove, store_see
from fasttcp.core.tcb cimport (
    TCB_ACCEPT, TCB_KEEPALIVE, Endpoint, ListenerCold, Outcome, Work, addresses_of, listener_of, local_shift,
    outcome_clear, work_begin,
)
from fasttcp.core.verdicts cimport OUT_NEW

cdef enum:
    QUEUE_LIMIT = 0x7FFFFFFF    # bytes queued to be sent: half of the sequence space
    DUE_BATCH = 64


cdef void _begin(Work *w, Endpoint *e, row_t row, ns_t now_ns, Outcome *out) noexcept nogil:
    outcome_clear(out)
    store_see(&e.engine.table, now_ns)
    work_begin(w, e, row, NULL, e.engine.table.now_ns, out)


cdef int _end(Work *w) noexcept nogil:
    if not w.gone:
        w.out.after = w.r.state[0]
        if w.out.after != S_LISTEN:     # a listener's cold record is another, and it sends nothing
            finish(w)
    return CALL_OK


cdef int _call(Work *w, int event) noexcept nogil:
    if step(w, event) & A_REJECT:
        return CALL_REJECTED
    return _end(w)


cdef inline int _no_row(int answer) noexcept nogil:
    return CALL_FULL if answer == STORE_FULL else CALL_NO_MEMORY


# ---- OPEN ------------------------------------------------------------------------------------------------------------

cdef bint _unspecified(const uint8_t *address) noexcept nogil:
    cdef int i
    for i in range(12 if is_mapped(address) else 0, 16):
        if address[i] != 0:
            return False
    return True


cdef int endpoint_listen(
    Endpoint *e, const uint8_t *local, uint16_t port, uint32_t backlog, ns_t now_ns, row_t *row, Outcome *out
) noexcept nogil:
    """Passive OPEN at (local, port); an address of zero is every local address of its family. backlog 0 counts as 1."""
    cdef Key key
    cdef Work w
    cdef ListenerCold *gate
    cdef int answer
    cdef uint8_t any[16]
    cdef int i
    outcome_clear(out)
    if port == 0 or not (one_host(local) or _unspecified(local)):
        return CALL_BAD_LOCAL
    for i in range(16):
        any[i] = 0xFF if is_mapped(local) and (i == 10 or i == 11) else 0
    store_see(&e.engine.table, now_ns)
    key_endpoint(&key, local, port, any, 0, &e.engine.table.hash_key)
    if store_find(&e.engine.table, &key, row):
        _begin(&w, e, row[0], now_ns, out)
        return _call(&w, E_OPEN_PASSIVE)
    answer = take_row(e, &key, row)
    if answer != STORE_OK:
        return _no_row(answer)
    _begin(&w, e, row[0], now_ns, out)
    out.flags |= OUT_NEW
    e.listeners += 1
    gate = listener_of(e, row[0])
    gate.backlog = backlog if backlog < e.policy.somaxconn else e.policy.somaxconn
    if gate.backlog == 0:
        gate.backlog = 1
    gate.first = gate.last = NO_ROW
    return _call(&w, E_OPEN_PASSIVE)


cdef void _active(Work *w, const uint8_t *local, const uint8_t *remote, seq_t iss) noexcept nogil:
    """A fresh control block for an active OPEN on this row."""
    open_sequence(w, iss)
    if w.e.policy.tcp_timestamps == 1:
        w.c.ts_offset = timestamp_offset(w.e, local, remote)
    w.out.flags |= OUT_NEW


cdef int endpoint_open(
    Endpoint *e, const uint8_t *local, uint16_t lport, const uint8_t *remote, uint16_t rport, ns_t now_ns, row_t *row,
    Outcome *out
) noexcept nogil:
    """Active OPEN. lport 0: an ephemeral port is chosen. A row in TIME_WAIT that tcp_tw_reuse allows is taken over;
    handles of the old connection are void then."""
    cdef Key key
    cdef Work w
    cdef int answer
    cdef seq_t iss
    outcome_clear(out)
    if not one_host(local) or is_mapped(local) != is_mapped(remote):
        return CALL_BAD_LOCAL
    if rport == 0 or not one_host(remote):
        return CALL_BAD_REMOTE
    store_see(&e.engine.table, now_ns)
    if lport == 0:
        if not ports_choose(e, local, remote, rport, &lport, row):
            return CALL_NO_PORT
        key_endpoint(&key, local, lport, remote, rport, &e.engine.table.hash_key)
    else:
        key_endpoint(&key, local, lport, remote, rport, &e.engine.table.hash_key)
        if not store_find(&e.engine.table, &key, row) or endpoint_expired(e, row[0]):
            row[0] = NO_ROW
    if row[0] != NO_ROW:
        _begin(&w, e, row[0], now_ns, out)
        if not time_wait_reusable(e, row[0]):
            return _call(&w, E_OPEN_ACTIVE)         # the machine says why not
        if e.watch.ended != NULL:
            e.watch.ended(e.watch.context, e, row[0], E_REPLACED, w.now)
        iss = next_sequence(e, local, lport, remote, rport, w.r.seat.tcb.snd_nxt)
        w.c.head.generation += 2
        w.c.head.first_ns = w.now
        out.handle = store_handle(&e.engine.table, row[0])
        _active(&w, local, remote, iss)
        w.r.last_ns = w.now
        return _call(&w, E_OPEN_REUSE)
    answer = take_row(e, &key, row)
    if answer != STORE_OK:
        return _no_row(answer)
    _begin(&w, e, row[0], now_ns, out)
    _active(&w, local, remote, initial_sequence(e, local, lport, remote, rport))
    return _call(&w, E_OPEN_ACTIVE)


cdef int endpoint_open_listener(
    Endpoint *e, row_t listener, const uint8_t *remote, uint16_t rport, ns_t now_ns, row_t *row, Outcome *out
) noexcept nogil:
    """OPEN that turns a passive OPEN active (RFC 9293 section 3.10.1): the listener becomes a connection to this
    remote end, with a new handle. Who waits in its accept queue is reset."""
    cdef uint8_t local[16]
    cdef uint8_t nobody[16]
    cdef Key key
    cdef Work w
    cdef int answer
    _begin(&w, e, listener, now_ns, out)
    if w.r.state[0] != S_LISTEN:
        return _call(&w, E_OPEN_ACTIVE)
    addresses_of(&e.engine.table, listener, local, nobody)
    if not one_host(local) or is_mapped(local) != is_mapped(remote):
        return CALL_BAD_LOCAL
    if rport == 0 or not one_host(remote):
        return CALL_BAD_REMOTE
    key_endpoint(&key, local, w.r.port[0], remote, rport, &e.engine.table.hash_key)
    if store_find(&e.engine.table, &key, row):
        _begin(&w, e, row[0], now_ns, out)
        return _call(&w, E_OPEN_ACTIVE)
    answer = take_row(e, &key, row)
    if answer != STORE_OK:
        return _no_row(answer)
    _reset_accept_queue(e, listener)
    store_remove(&e.engine.table, listener)
    e.listeners -= 1
    _begin(&w, e, row[0], now_ns, out)
    fire(&e.engine, row[0], 0, E_OPEN_PASSIVE, NULL, w.now)
    out.before = S_LISTEN
    _active(&w, local, remote, initial_sequence(e, local, w.r.port[0], remote, rport))
    return _call(&w, E_OPEN_ACTIVE)


cdef int endpoint_accept(Endpoint *e, row_t listener, row_t *row) noexcept nogil:
    """The oldest established connection that waits for the application, or CALL_NOTHING."""
    if e.engine.table.rows[listener].state[0] != S_LISTEN or listener_of(e, listener).first == NO_ROW:
        return CALL_NOTHING
    row[0] = listener_of(e, listener).first
    leave_accept_queue(e, row[0])
    return CALL_OK


cdef void _reset_accept_queue(Endpoint *e, row_t listener) noexcept nogil:
    """Nobody will accept these connections: their peers are told (kernel inet_csk_listen_stop)."""
    cdef Work w
    cdef Outcome told
    while listener_of(e, listener).first != NO_ROW:
        outcome_clear(&told)
        work_begin(&w, e, listener_of(e, listener).first, NULL, e.engine.table.now_ns, &told)
        step(&w, E_ABORT)


# ---- SEND, RECEIVE, CLOSE, ABORT -------------------------------------------------------------------------------------

cdef int endpoint_send(Endpoint *e, row_t row, uint32_t nbytes, ns_t now_ns, Outcome *out) noexcept nogil:
    cdef Work w
    _begin(&w, e, row, now_ns, out)
    if w.r.state[0] == S_LISTEN:
        return _call(&w, E_SEND_UNSPECIFIED)
    if nbytes > QUEUE_LIMIT or w.c.snd_queued > QUEUE_LIMIT - nbytes:
        return CALL_TOO_MUCH
    w.nbytes = nbytes
    return _call(&w, E_SEND)


cdef int endpoint_read(Endpoint *e, row_t row, uint32_t nbytes, ns_t now_ns, Outcome *out) noexcept nogil:
    """RECEIVE: the application has taken nbytes of what was delivered. The window opens when that is worth a segment
    (silly window, RFC 9293 section 3.8.6.2.2)."""
    cdef Work w
    cdef uint32_t size, room
    _begin(&w, e, row, now_ns, out)
    if w.r.state[0] == S_LISTEN or nbytes > w.c.rcv_unread:
        return CALL_TOO_MUCH
    w.c.rcv_unread -= nbytes
    size = receive_buffer(e, w.r)
    room = size - w.c.rcv_unread
    if room - w.r.seat.tcb.rcv_wnd >= (size // 2 if size // 2 < w.r.seat.tcb.mss else w.r.seat.tcb.mss) and nbytes != 0:
        w.r.seat.tcb.rcv_wnd = room
        if w.r.state[0] == S_ESTABLISHED or w.r.state[0] == S_FIN_WAIT_1 or w.r.state[0] == S_FIN_WAIT_2:
            w.owes |= A_SEND_ACK
    return _end(&w)


cdef uint32_t receive_buffer(const Endpoint *e, const Row *r) noexcept nogil:
    """The receive window when nothing waits unread."""
    cdef uint32_t largest = <uint32_t>0xFFFF << local_shift(r)
    return e.policy.rcv_wnd if e.policy.rcv_wnd < largest else largest


cdef int endpoint_close(Endpoint *e, row_t row, bint half, ns_t now_ns, Outcome *out) noexcept nogil:
    """CLOSE of the sending direction (half), or of both."""
    cdef Work w
    cdef int event = E_CLOSE
    _begin(&w, e, row, now_ns, out)
    if w.r.state[0] == S_LISTEN:
        _reset_accept_queue(e, row)
        return _call(&w, E_CLOSE)
    if w.r.flags & ROW_ORPHAN or half:
        return _call(&w, E_CLOSE)
    if machine_actions(w.r.state[0], E_CLOSE) & A_REJECT and w.r.state[0] != S_CLOSED:
        event = E_RELEASE               # closed halfway before
    if w.c.rcv_unread != 0 and w.r.state[0] != S_TIME_WAIT:
        return _call(&w, E_CLOSE_UNREAD)
    if w.r.state[0] != S_SYN_SENT and w.r.state[0] != S_TIME_WAIT and e.orphans >= e.policy.tcp_max_orphans:
        e.counts.orphans_reset += 1
        return _call(&w, E_ABORT)
    if w.r.aux & TCB_ACCEPT:
        leave_accept_queue(e, row)
    w.r.flags |= ROW_ORPHAN             # before the step: a row that goes away with it is counted out again
    if w.r.state[0] != S_TIME_WAIT:
        e.orphans += 1
    return _call(&w, event)


cdef int endpoint_abort(Endpoint *e, row_t row, ns_t now_ns, Outcome *out) noexcept nogil:
    cdef Work w
    _begin(&w, e, row, now_ns, out)
    if w.r.state[0] == S_LISTEN:
        _reset_accept_queue(e, row)
    return _call(&w, E_ABORT)


cdef void endpoint_keepalive(Endpoint *e, row_t row, bint on, ns_t now_ns) noexcept nogil:
    """SO_KEEPALIVE of one connection."""
    cdef Work w
    cdef Outcome out
    _begin(&w, e, row, now_ns, &out)
    if w.r.state[0] != S_LISTEN:
        w.r.aux = (w.r.aux & ~TCB_KEEPALIVE) | (TCB_KEEPALIVE if on else 0)
        _end(&w)
