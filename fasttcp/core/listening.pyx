"""Segments that belong to no row, and how LISTEN makes rows of them.

A listener is a row whose remote end is all zero: (address, port) or, for any local address of its family, (zero,
port). RFC 9293 lets a passive OPEN itself become the connection; here, as in every host, a SYN makes a new row, which
takes the steps of the table from LISTEN on, and the listener goes on listening. What a listener bounds:

    SYN --> half-open rows (SYN_RCVD), at most `backlog` --> ESTABLISHED --> accept queue, at most `backlog`

The accept queue exists only where the application calls accept (Endpoint.auto_accept is off). When the backlog is
full a SYN is dropped, or answered with a cookie: then there is no row until the cookie comes back.

Order of looking, RFC 9293 section 3.10.7.1 and 2: RST, then ACK, then SYN.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.actions cimport finish, open_sequence, step, take_row, take_syn
from fasttcp.core.hash cimport Key, is_mapped, key_endpoint
from fasttcp.core.hosts cimport hosts_reject
from fasttcp.core.isn cimport Cookie, cookie_check, cookie_make, initial_sequence, next_sequence, timestamp_offset
from fasttcp.core.layout cimport (
    ACK, FIN, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WSCALE, ROW_PASSIVE, RST, SYN, Segment, row_t, seq_lt,
    seq_t,
)
from fasttcp.core.machine cimport machine_actions
from fasttcp.core.names cimport (
    A_NEVER, A_SEND_COOKIE, A_SEND_RST, A_SEND_RST_ACK, E_OPEN_PASSIVE, E_RCV_BAD_ACK, E_RCV_COOKIE_ACK, E_RCV_ILLEGAL,
    E_RCV_RST_DROPPED, E_RCV_STRAY, E_RCV_SYN, E_RCV_SYN_COOKIE, E_RCV_SYN_DROPPED, E_RCV_SYN_NEW, E_REPLACED, S_CLOSED,
    S_LISTEN,
)
from fasttcp.core.output cimport emit_reply, set_length, timestamp_clock
from fasttcp.core.policy cimport REOPEN_NEVER, REOPEN_SEQ_OR_TIMESTAMP
from fasttcp.core.prefetch cimport load32, load64
from fasttcp.core.seat cimport fire
from fasttcp.core.store cimport STORE_OK, store_find, store_handle
from fasttcp.core.tcb cimport (
    TCB_HALF_OPEN, TCB_TS_RECENT, Endpoint, ListenerCold, Outcome, Work, clock_ms, listener_of, remote_shift,
    work_begin,
)
from fasttcp.core.verdicts cimport OUT_DROPPED, OUT_FULL, OUT_NEW

cdef enum:
    # What a cookie cannot hold travels in the low bits of our timestamp (kernel cookie_init_timestamp does likewise)
    ECHO_BITS = 6
    ECHO_WSCALE = 0x0F          # the peer's shift; 15: it offered none
    ECHO_SACK = 0x10

cdef uint64_t COOKIE_LIFE_MS = 120000
cdef uint8_t[16] ANY_V6 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
cdef uint8_t[16] ANY_V4 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0]


cdef bint illegal(const Segment *s) noexcept nogil:
    """SYN with FIN or RST, or no flag at all."""
    return (s.flags & SYN and s.flags & (FIN | RST)) or s.flags & 0x3F == 0


cdef bint one_host(const uint8_t *address) noexcept nogil:
    """An address that a host can have: specified, no multicast, no broadcast (RFC 9293 sections 3.9.2.3, MUST-57 and
    -63)."""
    if is_mapped(address):
        return address[12] < 224 and load32(address + 12) != 0
    return address[0] != 0xFF and load64(address) | load64(address + 8) != 0


cdef bint find_listener(const Endpoint *e, const uint8_t *local, uint16_t port, row_t *row) noexcept nogil:
    """Whether somebody listens at this address and port, and who: the exact address first, then any of its family."""
    cdef Key key
    cdef const uint8_t *any = &ANY_V4[0] if is_mapped(local) else &ANY_V6[0]
    if e.listeners == 0:
        return False
    key_endpoint(&key, local, port, any, 0, &e.engine.table.hash_key)
    if store_find(&e.engine.table, &key, row):
        return True
    key_endpoint(&key, any, port, any, 0, &e.engine.table.hash_key)
    return store_find(&e.engine.table, &key, row)


cdef inline bint _backlog_full(const Endpoint *e, row_t parent) noexcept nogil:
    cdef ListenerCold *gate = listener_of(<Endpoint *>e, parent)
    return gate.half_open >= gate.backlog or gate.half_open >= e.policy.tcp_max_syn_backlog


cdef bint accept_queue_full(const Endpoint *e, row_t parent) noexcept nogil:
    cdef ListenerCold *gate = listener_of(<Endpoint *>e, parent)
    return not e.auto_accept and gate.accept_queued >= gate.backlog


cdef void _answer(Endpoint *e, const Segment *s, int state, row_t listener, int event, Outcome *out) noexcept nogil:
    """One step of a state that no segment can change: CLOSED, or LISTEN as the listener itself sees it."""
    cdef uint32_t actions = machine_actions(state, event)
    cdef ListenerCold *gate
    if actions & A_NEVER:
        e.engine.never += 1
        return
    e.counts.event[event] += 1
    out.events |= <uint64_t>1 << event
    if state == S_LISTEN:
        fire(&e.engine, listener, 0, event, s, e.engine.table.now_ns)
    if actions & A_SEND_RST:
        if emit_reply(e, s, e.engine.table.now_ns, RST, s.ack, 0) != NULL:
            out.sent += 1
    elif actions & A_SEND_RST_ACK:
        if emit_reply(
            e, s, e.engine.table.now_ns, RST | ACK, 0, s.seq + s.payload + (s.flags & FIN) + (s.flags & SYN != 0)
        ) != NULL:
            out.sent += 1
    elif actions & A_SEND_COOKIE:
        gate = listener_of(e, listener)
        gate.cookie_ms = clock_ms(e) + 1
        _send_cookie(e, s, out)


cdef bint for_nobody(Endpoint *e, const Segment *s, const Key *key, Outcome *out, Work *w) noexcept nogil:
    cdef row_t listener
    cdef Cookie cookie
    cdef int state = S_CLOSED
    out.before = out.after = S_CLOSED
    if not one_host(s.src) or not one_host(s.dst):
        e.counts.dropped += 1
        out.flags |= OUT_DROPPED
        return False
    if find_listener(e, s.dst, s.dport, &listener):
        state = S_LISTEN
    if illegal(s):
        _answer(e, s, state, listener, E_RCV_ILLEGAL, out)
    elif s.flags & RST:
        _answer(e, s, state, listener, E_RCV_RST_DROPPED, out)
    elif s.flags & ACK:
        if state == S_LISTEN and not s.flags & SYN and _cookie_possible(e, listener):
            if cookie_check(e, s, &cookie):
                return _take_cookie(e, s, key, listener, &cookie, out, w)
            e.counts.cookies_failed += 1
        _answer(e, s, state, listener, E_RCV_BAD_ACK, out)
    elif s.flags & SYN and state == S_LISTEN:
        _listen(e, s, key, listener, out)
    else:
        _answer(e, s, state, listener, E_RCV_STRAY, out)
    return False


cdef void _listen(Endpoint *e, const Segment *s, const Key *key, row_t listener, Outcome *out) noexcept nogil:
    """A SYN for a listener."""
    cdef bint full = _backlog_full(e, listener)
    cdef row_t row
    cdef Work w
    if e.hosts != NULL and hosts_reject(e, s):
        e.counts.recycle_rejected += 1
        _answer(e, s, S_LISTEN, listener, E_RCV_SYN_DROPPED, out)
        return
    if accept_queue_full(e, listener):
        _answer(e, s, S_LISTEN, listener, E_RCV_SYN_DROPPED, out)
        return
    if e.policy.tcp_syncookies == 2 or (full and e.policy.tcp_syncookies == 1):
        _answer(e, s, S_LISTEN, listener, E_RCV_SYN_COOKIE, out)
        return
    if full:
        _answer(e, s, S_LISTEN, listener, E_RCV_SYN_DROPPED, out)
        return
    if take_row(e, key, &row) != STORE_OK:
        out.flags |= OUT_FULL
        _answer(e, s, S_LISTEN, listener, E_RCV_SYN_DROPPED, out)
        return
    work_begin(&w, e, row, s, e.engine.table.now_ns, out)
    _begin(&w, initial_sequence(e, s.dst, s.dport, s.src, s.sport), listener)
    take_syn(&w)
    step(&w, E_RCV_SYN)
    out.after = w.r.state[0]
    finish(&w)


cdef void _begin(Work *w, seq_t iss, row_t listener) noexcept nogil:
    """A new row stands where its listener stands: in LISTEN, counted in the backlog."""
    fire(&w.e.engine, w.row, 0, E_OPEN_PASSIVE, w.s, w.now)
    open_sequence(w, iss)
    if w.e.policy.tcp_timestamps == 1:
        w.c.ts_offset = timestamp_offset(w.e, w.s.dst, w.s.src)
    _adopt(w, listener)
    w.c.segments[1] = 1
    w.out.flags |= OUT_NEW


cdef void _adopt(Work *w, row_t listener) noexcept nogil:
    cdef ListenerCold *gate = listener_of(w.e, listener)
    w.r.flags |= ROW_PASSIVE
    w.r.aux |= TCB_HALF_OPEN
    w.c.parent = listener
    w.c.parent_generation = gate.head.generation
    gate.half_open += 1


# ---- TIME_WAIT opened again ------------------------------------------------------------------------------------------

cdef bint may_reopen(Work *w, row_t *parent) noexcept nogil:
    """Whether the SYN w.s may open the connection w anew, which is in TIME_WAIT (RFC 9293 section 3.6.1 MAY-2, RFC
    6191): it begins above all that was received, or its timestamp is newer; and somebody listens and has room."""
    cdef bint dated = w.r.aux & TCB_TS_RECENT and w.s.options & OPT_TIMESTAMPS
    cdef int32_t newer = <int32_t>(w.s.tsval - w.c.ts_recent) if dated else 0
    if w.e.policy.time_wait_syn_reopens == REOPEN_NEVER or newer < 0:
        return False
    if not seq_lt(w.r.seat.tcb.rcv_nxt, w.s.seq):
        if w.e.policy.time_wait_syn_reopens != REOPEN_SEQ_OR_TIMESTAMP or newer == 0:
            return False
    if not find_listener(w.e, w.s.dst, w.s.dport, parent):
        return False
    return not _backlog_full(w.e, parent[0]) and not accept_queue_full(w.e, parent[0])


cdef void reopen(Work *w, row_t parent) noexcept nogil:
    """TIME_WAIT -> SYN_RCVD: another connection in the same row. Handles of the old one are void."""
    cdef seq_t iss = next_sequence(w.e, w.s.dst, w.s.dport, w.s.src, w.s.sport, w.r.seat.tcb.snd_nxt)
    cdef uint32_t offset = w.c.ts_offset
    if w.e.watch.ended != NULL:
        w.e.watch.ended(w.e.watch.context, w.e, w.row, E_REPLACED, w.now)
    w.c.head.generation += 2
    w.c.head.first_ns = w.now
    w.out.handle = store_handle(&w.e.engine.table, w.row)
    w.out.flags |= OUT_NEW
    open_sequence(w, iss)
    w.c.ts_offset = offset
    w.c.segments[1] = 1
    _adopt(w, parent)
    take_syn(w)
    step(w, E_RCV_SYN_NEW)


# ---- SYN cookies -----------------------------------------------------------------------------------------------------

cdef bint _cookie_possible(Endpoint *e, row_t listener) noexcept nogil:
    """Whether this listener can have sent a cookie that is still good. Else an ACK is not worth a hash."""
    cdef ListenerCold *gate = listener_of(e, listener)
    return (
        e.policy.tcp_syncookies != 0 and gate.cookie_ms != 0 and clock_ms(e) + 1 - gate.cookie_ms <= COOKIE_LIFE_MS
        and not accept_queue_full(e, listener)
    )


cdef void _send_cookie(Endpoint *e, const Segment *s, Outcome *out) noexcept nogil:
    """SYN+ACK whose sequence number is the state. Window scale and SACK need the peer's timestamps to come back."""
    cdef uint32_t v6 = not (is_mapped(s.src) and is_mapped(s.dst))
    cdef uint32_t mss = s.mss if s.options & OPT_MSS else e.policy.mss_default[v6]
    cdef uint32_t now, hidden = ECHO_WSCALE
    cdef Segment *reply = emit_reply(e, s, e.engine.table.now_ns, SYN | ACK, cookie_make(e, s, mss), s.seq + 1)
    if reply == NULL:
        return
    out.sent += 1
    reply.window = <uint16_t>(e.policy.rcv_wnd if e.policy.rcv_wnd < 0xFFFF else 0xFFFF)
    reply.options = OPT_MSS
    reply.mss = e.policy.advmss[v6]
    if s.options & OPT_TIMESTAMPS and e.policy.tcp_timestamps:
        reply.options |= OPT_TIMESTAMPS
        if s.options & OPT_WSCALE and e.policy.tcp_window_scaling:
            reply.options |= OPT_WSCALE
            reply.wscale = e.policy.rcv_wscale
            hidden = s.wscale if s.wscale < 14 else 14
        if s.options & OPT_SACK_PERMITTED and e.policy.tcp_sack:
            reply.options |= OPT_SACK_PERMITTED
            hidden |= ECHO_SACK
        now = timestamp_clock(e) + (timestamp_offset(e, s.dst, s.src) if e.policy.tcp_timestamps == 1 else 0)
        reply.tsval = now & ~<uint32_t>((1 << ECHO_BITS) - 1) | hidden
        if seq_lt(now, reply.tsval):
            reply.tsval -= 1 << ECHO_BITS           # never ahead of the clock
        reply.tsecr = s.tsval
    set_length(reply)


cdef bint _take_cookie(
    Endpoint *e, const Segment *s, const Key *key, row_t listener, const Cookie *cookie, Outcome *out, Work *w
) noexcept nogil:
    """The ACK of a cookie: the SYN is read again as it must have been, and the row begins ESTABLISHED."""
    cdef Segment syn = s[0]
    cdef row_t row
    if take_row(e, key, &row) != STORE_OK:
        out.flags |= OUT_FULL
        return False
    syn.flags = SYN
    syn.seq = cookie.irs
    syn.payload = 0
    syn.mss = <uint16_t>cookie.mss
    syn.options = OPT_MSS
    if s.options & OPT_TIMESTAMPS and e.policy.tcp_timestamps:
        syn.options |= OPT_TIMESTAMPS
        if s.tsecr & ECHO_WSCALE != ECHO_WSCALE:
            syn.options |= OPT_WSCALE
            syn.wscale = s.tsecr & ECHO_WSCALE
        if s.tsecr & ECHO_SACK:
            syn.options |= OPT_SACK_PERMITTED
    work_begin(w, e, row, &syn, e.engine.table.now_ns, out)
    _begin(w, s.ack - 1, listener)
    take_syn(w)
    w.s = s
    w.r.seat.tcb.snd_una = s.ack
    w.r.seat.tcb.snd_nxt = s.ack
    w.r.seat.tcb.snd_wnd = <uint32_t>s.window << remote_shift(w.r)
    w.c.snd_max_wnd = w.r.seat.tcb.snd_wnd
    step(w, E_RCV_COOKIE_ACK)
    return True
