"""One step of the machine, and what it asks for, carried out.

`step` is the only way from an event to a new state in this seat: it asks spec.py's table (through seat.fire) and
does what the Action bits say. `finish` ends an input: what may be sent is sent, one ACK at most, and the timer is
settled. So a segment whose data and FIN both ask for an ACK gets one, and data that go out carry it.

Must not live here: what a segment means (arrivals.pyx), how long a timer runs (timeouts.pyx).
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from fasttcp.core.crowds cimport crowd_row_left, crowd_row_taken
from fasttcp.core.hash cimport Key
from fasttcp.core.hosts cimport hosts_remember
from fasttcp.core.layout cimport (
    ACK, FIN, NO_ROW, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WSCALE, PSH, ROW_IPV6, ROW_ORPHAN, ROW_PASSIVE,
    ROW_SHIFT_0, ROW_SHIFT_1, RST, SYN, Cold, Tcb, row_t, seq_le, seq_lt, seq_t,
)
from fasttcp.core.machine cimport machine_actions
from fasttcp.core.names cimport (
    A_DELETE, A_DELIVER, A_NEVER, A_QUEUE, A_REJECT, A_RESEND, A_SEND_ABORT_RST, A_SEND_ACK, A_SEND_CHALLENGE_ACK,
    A_SEND_DATA, A_SEND_FIN, A_SEND_PROBE, A_SEND_RST, A_SEND_SYN, A_SEND_SYN_ACK, A_START_2MSL, A_START_FIN_WAIT_2,
    A_START_KEEPALIVE, A_START_RETRANSMIT, E_EVICTED, E_RCV_DATA_UNWANTED, E_RCV_UNACCEPTABLE, E_RETRANSMIT,
    E_TIME_WAIT_OVERFLOW, S_CLOSED, S_CLOSE_WAIT, S_CLOSING, S_ESTABLISHED, S_FIN_WAIT_1, S_LAST_ACK, S_LISTEN,
    S_SYN_RCVD, S_TIME_WAIT,
)
from fasttcp.core.output cimport emit
from fasttcp.core.seat cimport fire
from fasttcp.core.store cimport (
    EVICT_CLOSING, EVICT_HALF_OPEN, EVICT_TIME_WAIT, STORE_OK, store_evict_candidate, store_insert, store_remove,
)
from fasttcp.core.tcb cimport (
    RUNS, TCB_ACCEPT, TCB_AHEAD, TCB_AHEAD_BITS, TCB_FIN_QUEUED, TCB_FIN_SENT, TCB_HALF_OPEN, TCB_KEEPALIVE,
    TCB_RECOVERING, TCB_SACK, TCB_SCALED, TCB_TIMED, TCB_TIMESTAMPS, TCB_TS_RECENT, Endpoint, EndpointCold,
    ListenerCold, Outcome, Work, clock_ms, clock_s, cold_of, listener_of, outcome_clear, work_begin,
)
from fasttcp.core.timeouts cimport settle, start_rto, time_segment
from fasttcp.core.verdicts cimport OUT_ACCEPTED, OUT_ENDED, OUT_ESTABLISHED

cdef enum:
    STARTS = A_START_RETRANSMIT | A_START_FIN_WAIT_2 | A_START_2MSL | A_START_KEEPALIVE
    SENDS = A_SEND_SYN | A_SEND_SYN_ACK | A_RESEND | A_SEND_PROBE | A_SEND_RST | A_SEND_ABORT_RST
    SENDING_STATES = 1 << S_ESTABLISHED | 1 << S_FIN_WAIT_1 | 1 << S_CLOSE_WAIT | 1 << S_CLOSING | 1 << S_LAST_ACK
    TIMESTAMP_BYTES = 12        # in every segment of a connection that uses them
    EVICTABLE = 1 << EVICT_TIME_WAIT | 1 << EVICT_HALF_OPEN | 1 << EVICT_CLOSING
    LEAST_MSS = 48              # with less, every few bytes would cost a header (kernel tcp_min_snd_mss)
    MAX_SHIFT = 14              # RFC 7323 section 2.3


cdef uint32_t step(Work *w, int event) noexcept nogil:
    """Take the row for (state, event); returns its Action bits. After A_DELETE the row is gone: w.gone."""
    cdef Endpoint *e = w.e
    cdef uint8_t state = w.r.state[0]
    cdef uint8_t following
    cdef uint32_t actions = machine_actions(state, event)
    if actions & A_NEVER:
        e.engine.never += 1
        return actions
    e.counts.event[event] += 1
    w.out.events |= <uint64_t>1 << event
    if actions & A_REJECT:
        w.out.origin = state
        w.out.last = <uint8_t>event
        return actions
    if actions & A_DELETE and e.watch.ended != NULL:    # before the step: its last state is the result
        e.watch.ended(e.watch.context, e, w.row, event, w.when)
    fire(&e.engine, w.row, 0, event, w.s, w.now)
    following = w.r.state[0]
    if following != state or actions & A_DELETE:
        w.out.origin = state
        w.out.last = <uint8_t>event
        w.out.after = following

    if actions & (A_QUEUE | A_SEND_DATA):
        w.c.snd_queued += w.nbytes
    if actions & A_SEND_FIN:
        w.r.aux |= TCB_FIN_QUEUED
    if actions & A_DELIVER:
        _take_data(w)
    if actions & A_SEND_ACK:
        w.owes |= A_SEND_ACK
    if actions & A_SEND_CHALLENGE_ACK:
        # Who sends data or a FIN again did not get our ACK. No loop of ACKs can come of it, and waiting for the next
        # retransmission would cost the peer seconds: not limited (kernel tcp_oow_rate_limited).
        if event == E_RCV_UNACCEPTABLE and (w.s.payload != 0 or w.s.flags & FIN) and not w.s.flags & SYN:
            w.owes |= A_SEND_ACK
        else:
            w.owes |= A_SEND_CHALLENGE_ACK
    if actions & STARTS:
        w.restart = True
    if actions & SENDS:
        _send(w, actions, event, following == state)
    if actions & A_DELETE:
        _drop(w, state)
        return actions
    if following != state:
        if state == S_TIME_WAIT and e.n_crowds != 0:
            crowd_row_taken(e, w.row)       # the row begins another life
        if w.r.aux & TCB_HALF_OPEN and following != S_SYN_RCVD:
            leave_backlog(e, w.row)
        if following == S_ESTABLISHED:
            _established(w)
        elif following == S_TIME_WAIT:
            _time_wait(w)
    return actions


cdef void _send(Work *w, uint32_t actions, int event, bint again) noexcept nogil:
    """The segments that a step names. `again`: the state stayed, so the sequence number is used for a second time."""
    cdef Tcb *b = &w.r.seat.tcb
    if event == E_RETRANSMIT:
        w.r.aux |= TCB_RECOVERING
        w.c.recover = b.snd_nxt
    if actions & A_SEND_ABORT_RST:
        # In answer to a segment it stands where the peer waits for us: our FIN may be lost, and a RST after it would
        # only be challenged (RFC 5961 section 3.2).
        emit(w, RST, w.s.ack if event == E_RCV_DATA_UNWANTED else b.snd_nxt, 0)
    elif actions & A_SEND_RST:
        emit(w, RST, w.s.ack, 0)
    elif actions & A_SEND_PROBE:
        emit(w, ACK, b.snd_nxt - 1, 0)
    elif actions & A_RESEND:
        _resend(w)
    else:
        emit(w, SYN if actions & A_SEND_SYN else SYN | ACK, w.c.iss, 0)
        if again:
            _sent_again(w)
        else:
            time_segment(w, w.c.iss + 1)


cdef void _sent_again(Work *w) noexcept nogil:
    w.r.aux &= ~TCB_TIMED                   # an ACK could be for either of them (Karn's rule)
    w.c.retransmitted += w.c.retransmitted != 0xFFFF
    w.e.counts.retransmitted += 1


cdef void _resend(Work *w) noexcept nogil:
    """The segment that starts at SND.UNA."""
    cdef Tcb *b = &w.r.seat.tcb
    cdef uint32_t data = b.snd_nxt - b.snd_una - (w.r.aux & TCB_FIN_SENT != 0)
    cdef uint32_t n = data if data < b.mss else b.mss
    cdef uint16_t flags = ACK
    if b.snd_una == w.c.iss:                # closed in SYN_RCVD: our SYN is not acknowledged yet
        emit(w, SYN | ACK, w.c.iss, 0)
    else:
        if n == data and w.r.aux & TCB_FIN_SENT:
            flags |= FIN
        if n == data and n != 0:
            flags |= PSH
        emit(w, flags, b.snd_una, n)
        w.owes &= ~<uint32_t>(A_SEND_ACK | A_SEND_CHALLENGE_ACK)
    _sent_again(w)


cdef void _push(Work *w) noexcept nogil:
    """Send what the peer's window allows of the queued data, then the FIN. There is no congestion control: the window
    is the only limit, as in RFC 9293."""
    cdef Tcb *b = &w.r.seat.tcb
    cdef int32_t usable
    cdef uint32_t n
    cdef uint16_t flags
    if not (1 << w.r.state[0]) & SENDING_STATES:
        return
    usable = <int32_t>(b.snd_una + b.snd_wnd - b.snd_nxt)
    while usable > 0 and (w.c.snd_queued != 0 or w.r.aux & TCB_FIN_QUEUED):
        n = w.c.snd_queued if w.c.snd_queued < b.mss else b.mss
        if n > <uint32_t>usable:
            n = <uint32_t>usable
            # Small pieces wait for an ACK, if one is to come (silly window, RFC 9293 section 3.8.6.2.1).
            if n < w.c.snd_queued and n < b.mss and b.snd_nxt != b.snd_una:
                return
        flags = ACK
        if n == w.c.snd_queued:
            if n != 0:
                flags |= PSH
            if w.r.aux & TCB_FIN_QUEUED and n < <uint32_t>usable:
                flags |= FIN
                w.r.aux = (w.r.aux & ~TCB_FIN_QUEUED) | TCB_FIN_SENT
        emit(w, flags, b.snd_nxt, n)
        w.owes &= ~<uint32_t>(A_SEND_ACK | A_SEND_CHALLENGE_ACK)
        w.c.snd_queued -= n
        b.snd_nxt += n + (flags & FIN)
        usable -= <int32_t>n + (flags & FIN)
        time_segment(w, b.snd_nxt)


cdef bint _may_challenge(Work *w) noexcept nogil:
    """One for each connection in tcp_invalid_ratelimit (RFC 5961 section 7, kernel), tcp_challenge_ack_limit for
    all."""
    cdef Endpoint *e = w.e
    cdef uint32_t now_ms = clock_ms(e) + 1
    cdef uint64_t passed_ns = <uint64_t>(now_ms - w.c.challenged_ms) * 1000000
    cdef uint32_t now_s
    if w.c.challenged_ms != 0 and passed_ns < <uint64_t>e.policy.tcp_invalid_ratelimit_ns:
        return False
    now_s = clock_s(e)
    if e.challenge_s != now_s:
        e.challenge_s = now_s
        e.challenges = 0
    if e.challenges >= e.policy.tcp_challenge_ack_limit:
        return False
    e.challenges += 1
    w.c.challenged_ms = now_ms if now_ms != 0 else 1
    return True


cdef void finish(Work *w) noexcept nogil:
    """The end of one input on a row."""
    if w.gone:
        return
    if w.owes & A_RESEND:
        _resend(w)
    if w.c.snd_queued != 0 or w.r.aux & TCB_FIN_QUEUED:
        _push(w)
    if w.owes & A_SEND_ACK:
        emit(w, ACK, w.r.seat.tcb.snd_nxt, 0)
    elif w.owes & A_SEND_CHALLENGE_ACK:
        if _may_challenge(w):
            emit(w, ACK, w.r.seat.tcb.snd_nxt, 0)
        else:
            w.e.counts.limited += 1
    settle(w)


# ---- beginnings and ends ---------------------------------------------------------------------------------------------

cdef int take_row(Endpoint *e, const Key *key, row_t *row) noexcept nogil:
    """A row for a key that the table does not hold: STORE_OK, STORE_FULL or STORE_NO_MEMORY. A full table that may
    evict lets the oldest row in TIME_WAIT go, then a half-open, then a closing one."""
    cdef Work victim
    cdef Outcome told
    cdef int answer = store_insert(&e.engine.table, key, e.engine.table.now_ns, row)
    if answer != STORE_OK and e.evict and store_evict_candidate(&e.engine.table, EVICTABLE, row):
        outcome_clear(&told)
        work_begin(&victim, e, row[0], NULL, e.engine.table.now_ns, &told)
        e.counts.evicted += 1
        step(&victim, E_EVICTED)
        answer = store_insert(&e.engine.table, key, e.engine.table.now_ns, row)
    if answer != STORE_OK:
        e.counts.table_full += 1
    elif e.n_crowds != 0:
        crowd_row_taken(e, row[0])
    return answer


cdef void open_sequence(Work *w, seq_t iss) noexcept nogil:
    """The row begins a life with this ISS: its control block and cold record are as new, but for the name of the
    row."""
    cdef EndpointCold *c = w.c
    cdef Tcb *b = &w.r.seat.tcb
    memset(<char *>c + sizeof(Cold), 0, sizeof(EndpointCold) - sizeof(Cold))
    memset(b, 0, sizeof(Tcb))
    c.next = NO_ROW
    c.previous = NO_ROW
    c.iss = iss
    b.snd_una = iss
    b.snd_nxt = iss + 1
    b.rcv_wnd = w.e.policy.rcv_wnd
    w.r.flags &= ROW_IPV6
    w.r.aux = TCB_KEEPALIVE if w.e.policy.so_keepalive else 0
    start_rto(w)


cdef void take_syn(Work *w) noexcept nogil:
    """What the peer's SYN, w.s, says once: its sequence number, its window, its options."""
    cdef Tcb *b = &w.r.seat.tcb
    cdef EndpointCold *c = w.c
    cdef uint32_t v6 = w.r.flags & ROW_IPV6
    cdef uint32_t mss = w.s.mss if w.s.options & OPT_MSS else w.e.policy.mss_default[v6]
    cdef uint32_t shift
    c.irs = w.s.seq
    b.rcv_nxt = w.s.seq + 1
    b.snd_wl1 = w.s.seq
    b.snd_wl2 = b.snd_una
    b.snd_wnd = w.s.window
    c.snd_max_wnd = w.s.window
    if mss > w.e.policy.advmss[v6]:
        mss = w.e.policy.advmss[v6]         # no path is wider than ours
    if mss < LEAST_MSS:
        mss = LEAST_MSS
    w.r.aux &= ~(TCB_TIMESTAMPS | TCB_TS_RECENT | TCB_SCALED | TCB_SACK)
    w.r.flags &= (1 << ROW_SHIFT_0) - 1
    if w.s.options & OPT_TIMESTAMPS and w.e.policy.tcp_timestamps:
        w.r.aux |= TCB_TIMESTAMPS | TCB_TS_RECENT
        c.ts_recent = w.s.tsval
        c.ts_recent_s = clock_s(w.e)
        mss -= TIMESTAMP_BYTES
    if w.s.options & OPT_WSCALE and w.e.policy.tcp_window_scaling:
        shift = w.s.wscale if w.s.wscale < MAX_SHIFT else MAX_SHIFT
        w.r.aux |= TCB_SCALED
        w.r.flags |= <uint16_t>(<uint32_t>w.e.policy.rcv_wscale << ROW_SHIFT_0 | shift << ROW_SHIFT_1)
    elif b.rcv_wnd > 0xFFFF:
        b.rcv_wnd = 0xFFFF
    if w.s.options & OPT_SACK_PERMITTED and w.e.policy.tcp_sack:
        w.r.aux |= TCB_SACK
    b.mss = <uint16_t>mss


cdef void _established(Work *w) noexcept nogil:
    cdef row_t parent
    cdef ListenerCold *gate
    w.out.flags |= OUT_ESTABLISHED
    if not w.r.flags & ROW_PASSIVE:
        return
    w.out.flags |= OUT_ACCEPTED
    if w.e.auto_accept or not parent_of(w.e, w.row, &parent):
        return
    gate = listener_of(w.e, parent)
    w.r.aux |= TCB_ACCEPT
    w.c.next = NO_ROW
    w.c.previous = gate.last
    if gate.last == NO_ROW:
        gate.first = w.row
    else:
        cold_of(w.e, gate.last).next = w.row
    gate.last = w.row
    gate.accept_queued += 1


cdef void _time_wait(Work *w) noexcept nogil:
    cdef Endpoint *e = w.e
    if w.r.flags & ROW_ORPHAN:
        e.orphans -= 1
    if e.hosts != NULL:
        hosts_remember(w)
    if e.n_crowds != 0:
        crowd_row_left(e, w.row, True)
    if e.engine.table.pairs[S_TIME_WAIT << 4 | S_CLOSED] > e.policy.tcp_max_tw_buckets:
        if w.owes & A_SEND_ACK:             # the peer gets its ACK all the same
            emit(w, ACK, w.r.seat.tcb.snd_nxt, 0)
        step(w, E_TIME_WAIT_OVERFLOW)


cdef void _drop(Work *w, uint8_t state) noexcept nogil:
    """Free the row of a connection that was in `state`."""
    cdef Endpoint *e = w.e
    if w.r.aux & TCB_HALF_OPEN:
        leave_backlog(e, w.row)
    if w.r.aux & TCB_ACCEPT:
        leave_accept_queue(e, w.row)
    if w.r.flags & ROW_ORPHAN and state != S_TIME_WAIT:
        e.orphans -= 1
    if state == S_LISTEN:
        e.listeners -= 1
    if e.n_crowds != 0:
        crowd_row_left(e, w.row, False)
    store_remove(&e.engine.table, w.row)
    w.out.after = S_CLOSED
    w.out.flags |= OUT_ENDED
    w.gone = True


# ---- the queues of a listener ----------------------------------------------------------------------------------------

cdef bint parent_of(Endpoint *e, row_t row, row_t *parent) noexcept nogil:
    """Whether the listener that this row came out of still listens, and its row."""
    cdef EndpointCold *c = cold_of(e, row)
    parent[0] = c.parent
    return c.parent_generation & 1 and listener_of(e, c.parent).head.generation == c.parent_generation


cdef void leave_backlog(Endpoint *e, row_t row) noexcept nogil:
    cdef row_t parent
    e.engine.table.rows[row].aux &= ~TCB_HALF_OPEN
    if parent_of(e, row, &parent):
        listener_of(e, parent).half_open -= 1


cdef void leave_accept_queue(Endpoint *e, row_t row) noexcept nogil:
    cdef EndpointCold *c = cold_of(e, row)
    cdef ListenerCold *gate
    cdef row_t parent
    e.engine.table.rows[row].aux &= ~TCB_ACCEPT
    if not parent_of(e, row, &parent):
        return
    gate = listener_of(e, parent)
    if c.previous == NO_ROW:
        gate.first = c.next
    else:
        cold_of(e, c.previous).next = c.next
    if c.next == NO_ROW:
        gate.last = c.previous
    else:
        cold_of(e, c.next).previous = c.previous
    gate.accept_queued -= 1


# ---- data that arrive ------------------------------------------------------------------------------------------------

cdef void _deliver_up_to(Work *w, seq_t end) noexcept nogil:
    """Everything before `end` has arrived: take it, and the runs that now follow without a hole."""
    cdef Tcb *b = &w.r.seat.tcb
    cdef EndpointCold *c = w.c
    cdef seq_t begin = b.rcv_nxt
    b.rcv_nxt = end
    while w.r.aux & TCB_AHEAD_BITS and seq_le(c.ahead[0][0], b.rcv_nxt):
        if seq_lt(b.rcv_nxt, c.ahead[0][1]):
            b.rcv_nxt = c.ahead[0][1]
        c.ahead[0][0] = c.ahead[1][0]
        c.ahead[0][1] = c.ahead[1][1]
        w.r.aux -= TCB_AHEAD
    w.out.delivered += b.rcv_nxt - begin
    if not w.e.auto_read:
        c.rcv_unread += b.rcv_nxt - begin
        b.rcv_wnd -= b.rcv_nxt - begin


cdef void _remember(Work *w, seq_t begin, seq_t end) noexcept nogil:
    """Keep a run beyond a hole, joined with those it touches. Where there is no room, the furthest one goes."""
    cdef EndpointCold *c = w.c
    cdef seq_t run[3][2]
    cdef int n = 0, i, at = 0
    for i in range((w.r.aux & TCB_AHEAD_BITS) // TCB_AHEAD):
        if seq_le(begin, c.ahead[i][1]) and seq_le(c.ahead[i][0], end):
            if seq_lt(c.ahead[i][0], begin):
                begin = c.ahead[i][0]
            if seq_lt(end, c.ahead[i][1]):
                end = c.ahead[i][1]
            continue
        run[n][0] = c.ahead[i][0]
        run[n][1] = c.ahead[i][1]
        n += 1
    while at < n and seq_lt(run[at][0], begin):
        at += 1
    for i in range(n, at, -1):
        run[i][0] = run[i - 1][0]
        run[i][1] = run[i - 1][1]
    run[at][0] = begin
    run[at][1] = end
    n += 1
    if n > RUNS:
        n = RUNS
        w.e.counts.run_dropped += 1
    for i in range(n):
        c.ahead[i][0] = run[i][0]
        c.ahead[i][1] = run[i][1]
    w.r.aux = <uint16_t>((w.r.aux & ~TCB_AHEAD_BITS) | (n * TCB_AHEAD))


cdef void _take_data(Work *w) noexcept nogil:
    """The part of w.s that lies in the window (RFC 9293 section 3.10.7.4: "trim")."""
    cdef Tcb *b = &w.r.seat.tcb
    cdef seq_t begin = w.s.seq
    cdef seq_t end = begin + w.s.payload
    cdef seq_t edge = b.rcv_nxt + b.rcv_wnd
    if seq_lt(edge, end):
        end = edge
    if seq_lt(begin, b.rcv_nxt):
        begin = b.rcv_nxt
    if seq_le(end, begin):
        return
    if begin == b.rcv_nxt:
        _deliver_up_to(w, end)
    else:
        _remember(w, begin, end)
