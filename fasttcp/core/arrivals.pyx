"""A segment becomes events. Every question that RFC 9293 section 3.10.7 asks of a segment is answered here, none
elsewhere.

Order of looking in a connection (the first that fits decides):

    1  a SYN that opens TIME_WAIT anew                    RCV_SYN_NEW
    2  the opening once more, in SYN_RCVD                 RCV_SYN, or the ACK part of a crossed SYN+ACK
    3  an old timestamp                                   RCV_PAWS                    RFC 7323 section 5.3
    4  the peer's FIN once more: goes on at 7
    5  outside the window (four cases, section 3.4)       RCV_UNACCEPTABLE, RCV_RST_DROPPED, RCV_SYN_SUSPECT
    6  RST, then SYN, then no ACK                         RCV_RST..., RCV_SYN_SUSPECT, RCV_STRAY
    7  the ACK part                                       RCV_ACK..., RCV_ACK_SUSPECT, RCV_BAD_ACK
    8  data                                               RCV_DATA, RCV_DATA_UNWANTED
    9  FIN, of this segment or one that waited            RCV_FIN, RCV_FIN_AGAIN

Must not live here: what follows from an event (spec.py), how it is carried out (actions.pyx).
Cost: the row's line, two lines of its cold record, one index line; all are fetched ahead in a batch.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from fasttcp.core.actions cimport finish, parent_of, step, take_syn
from fasttcp.core.expiry cimport endpoint_expired
from fasttcp.core.hash cimport Key, key_endpoint
from fasttcp.core.layout cimport (
    ACK, FIN, INFO_BAD_CHECKSUM, INFO_BAD_HEADER, OPT_TIMESTAMPS, ROW_ORPHAN, ROW_PASSIVE, RST, SYN, Segment, Tcb, ns_t,
    row_t, seq_le, seq_lt, seq_t,
)
from fasttcp.core.listening cimport accept_queue_full, for_nobody, illegal, may_reopen, reopen
from fasttcp.core.names cimport (
    A_RESEND, E_ABORT, E_RCV_ACK, E_RCV_ACK_DROPPED, E_RCV_ACK_OF_FIN, E_RCV_ACK_OF_SYN, E_RCV_ACK_SUSPECT,
    E_RCV_BAD_ACK, E_RCV_DATA, E_RCV_DATA_UNWANTED, E_RCV_FIN, E_RCV_FIN_AGAIN, E_RCV_ILLEGAL, E_RCV_PAWS, E_RCV_RST,
    E_RCV_RST_DROPPED, E_RCV_RST_PASSIVE, E_RCV_RST_SUSPECT, E_RCV_STRAY, E_RCV_SYN, E_RCV_SYN_ACK, E_RCV_SYN_FATAL,
    E_RCV_SYN_SUSPECT, E_RCV_UNACCEPTABLE, S_CLOSE_WAIT, S_CLOSING, S_FIN_WAIT_1, S_FIN_WAIT_2, S_LAST_ACK, S_LISTEN,
    S_SYN_RCVD, S_SYN_SENT, S_TIME_WAIT,
)
from fasttcp.core.prefetch cimport prefetch_write
from fasttcp.core.store cimport Table, store_arm_ns, store_cold, store_find, store_peek, store_prefetch, store_see
from fasttcp.core.tcb cimport (
    TCB_AHEAD_BITS, TCB_FIN_BEYOND, TCB_FIN_SENT, TCB_RECOVERING, TCB_TIMESTAMPS, TCB_TS_RECENT, TIMER_KEEPALIVE,
    TIMER_PERSIST, Endpoint, EndpointCold, Outcome, Work, clock_s, outcome_clear, remote_shift, work_begin,
)
from fasttcp.core.timeouts cimport measure
from fasttcp.core.verdicts cimport OUT_DROPPED

cdef enum:
    AHEAD = 16                  # segments between two stages of a batch
    RING = 64                   # a power of two above 2 * AHEAD
    AFTER_FIN = 1 << S_CLOSE_WAIT | 1 << S_CLOSING | 1 << S_LAST_ACK | 1 << S_TIME_WAIT    # the peer's FIN was received


cdef void endpoint_receive(Endpoint *e, const Segment *s, ns_t now_ns, Outcome *out) noexcept nogil:
    """One segment at `now_ns`."""
    cdef Key key
    key_endpoint(&key, s.dst, s.dport, s.src, s.sport, &e.engine.table.hash_key)
    _receive(e, s, now_ns, &key, out)


cdef void endpoint_batch(Endpoint *e, const Segment *segments, size_t n, Outcome *outcomes) noexcept nogil:
    """Segments in this order, each at its own time_ns. While one is read, the row of the segment AHEAD further on and
    the bucket of the one twice as far are on their way."""
    cdef Table *t = &e.engine.table
    cdef Key keys[RING]
    cdef Key *key
    cdef const Segment *s
    cdef size_t i
    for i in range(n + 2 * AHEAD):
        if i < n:
            s = &segments[i]
            key = &keys[i & (RING - 1)]
            key_endpoint(key, s.dst, s.dport, s.src, s.sport, &t.hash_key)
            store_prefetch(t, key)
        if i >= AHEAD and i - AHEAD < n:
            key = &keys[(i - AHEAD) & (RING - 1)]
            store_peek(t, key, True)
            prefetch_write(<char *>store_cold(t, key.hint) + 64)
        if i >= 2 * AHEAD:
            s = &segments[i - 2 * AHEAD]
            _receive(e, s, s.time_ns, &keys[(i - 2 * AHEAD) & (RING - 1)], &outcomes[i - 2 * AHEAD])


cdef void _receive(Endpoint *e, const Segment *s, ns_t now_ns, const Key *key, Outcome *out) noexcept nogil:
    cdef Work w
    cdef row_t row
    outcome_clear(out)
    store_see(&e.engine.table, now_ns)
    e.counts.segments_in += 1
    if s.info & (INFO_BAD_CHECKSUM | INFO_BAD_HEADER):
        e.counts.dropped += 1
        out.flags |= OUT_DROPPED
        return
    if not store_find(&e.engine.table, key, &row) or endpoint_expired(e, row):
        if for_nobody(e, s, key, out, &w):
            _in_connection(&w)
            out.after = w.r.state[0]
            finish(&w)
        return
    if e.engine.table.rows[row].state[0] == S_LISTEN:   # from address zero, port 0: nobody can be there
        e.counts.dropped += 1
        out.flags |= OUT_DROPPED
        return
    work_begin(&w, e, row, s, e.engine.table.now_ns, out)
    w.r.last_ns = w.now
    w.c.segments[1] += 1
    if w.r.seat.tcb.timer == TIMER_KEEPALIVE:
        w.r.seat.tcb.retries = 0                        # whatever it is, the peer lives
    # In a connection a SYN with RST or FIN is looked at as any other segment: RST, then SYN, then ACK.
    if illegal(s) if w.r.state[0] == S_SYN_SENT else s.flags & 0x3F == 0:
        step(&w, E_RCV_ILLEGAL)
    elif w.r.state[0] == S_SYN_SENT:
        _in_syn_sent(&w)
    else:
        _in_connection(&w)
    if w.gone:
        return
    out.after = w.r.state[0]
    finish(&w)


# ---- SYN_SENT: RFC 9293 section 3.10.7.3 -----------------------------------------------------------------------------

cdef void _in_syn_sent(Work *w) noexcept nogil:
    cdef const Segment *s = w.s
    cdef Tcb *b = &w.r.seat.tcb
    if s.flags & ACK and (seq_le(s.ack, b.snd_una) or seq_lt(b.snd_nxt, s.ack)):
        if s.flags & RST:
            step(w, E_RCV_RST_DROPPED)
            return
        step(w, E_RCV_BAD_ACK)
        if b.retries == 0 and w.e.policy.syn_retry_after_bad_ack_ns != 0:
            store_arm_ns(&w.e.engine.table, w.row, w.now + w.e.policy.syn_retry_after_bad_ack_ns)
    elif s.flags & RST:
        step(w, E_RCV_RST if s.flags & ACK else E_RCV_RST_DROPPED)
    elif not s.flags & SYN:
        step(w, E_RCV_STRAY)
    else:
        take_syn(w)
        if s.flags & ACK:
            _take_ack(w)
            step(w, E_RCV_SYN_ACK)
        else:
            step(w, E_RCV_SYN)


# ---- SYN_RCVD and the synchronized states: section 3.10.7.4 ----------------------------------------------------------

cdef bint _old_timestamp(Work *w) noexcept nogil:
    """PAWS, RFC 7323 section 5.3 R1 and section 5.5: an old timestamp, unless ours is so old itself that it is void."""
    if w.r.aux & TCB_TS_RECENT == 0 or not w.s.options & OPT_TIMESTAMPS or w.s.flags & RST:
        return False
    if <int32_t>(w.s.tsval - w.c.ts_recent) >= 0:
        return False
    if <uint64_t>(clock_s(w.e) - w.c.ts_recent_s) * 1000000000 > <uint64_t>w.e.policy.paws_idle_ns:
        w.r.aux &= ~TCB_TS_RECENT
        return False
    return True


cdef inline bint _acceptable(const Tcb *b, seq_t seq, uint32_t length) noexcept nogil:
    """The four cases of RFC 9293 section 3.4, table 6."""
    if b.rcv_wnd == 0:
        return length == 0 and seq == b.rcv_nxt
    if seq - b.rcv_nxt < b.rcv_wnd:
        return True
    return length != 0 and seq + length - 1 - b.rcv_nxt < b.rcv_wnd


cdef void _in_connection(Work *w) noexcept nogil:
    cdef const Segment *s = w.s
    cdef Tcb *b = &w.r.seat.tcb
    cdef int state = w.r.state[0]
    cdef uint32_t length = s.payload + (s.flags & FIN) + (s.flags & SYN != 0)
    cdef row_t parent
    cdef bint again
    if state == S_TIME_WAIT and s.flags & (SYN | RST | ACK) == SYN and may_reopen(w, &parent):
        reopen(w, parent)
        return
    if state == S_SYN_RCVD and s.flags & (SYN | RST) == SYN and s.seq == w.c.irs:
        if not s.flags & ACK:
            step(w, E_RCV_SYN)
        else:
            _ack_part(w)                # both opened, and this is the peer's answer to our SYN (section 3.5 figure 7)
        return
    if _old_timestamp(w):
        step(w, E_RCV_PAWS)
        return
    again = (1 << state) & AFTER_FIN and s.flags & (FIN | SYN | RST) == FIN and s.seq + length == b.rcv_nxt
    if not again and not _acceptable(b, s.seq, length):
        _refuse(w, state)
        return
    if s.flags & RST:
        _reset(w, state)
        return
    if s.flags & SYN:
        step(w, E_RCV_SYN_SUSPECT if w.e.policy.rfc5961 else E_RCV_SYN_FATAL)
        return
    if not s.flags & ACK:
        step(w, E_RCV_STRAY)
        return
    if not _ack_part(w):
        return
    if w.r.aux & TCB_TIMESTAMPS and s.options & OPT_TIMESTAMPS and seq_le(s.seq, w.c.last_ack_sent):
        w.c.ts_recent = s.tsval             # RFC 7323 section 4.3
        w.c.ts_recent_s = clock_s(w.e)
        w.r.aux |= TCB_TS_RECENT
    if length != 0:
        _data_and_fin(w, again)


cdef void _refuse(Work *w, int state) noexcept nogil:
    """Outside the window."""
    cdef const Segment *s = w.s
    cdef Tcb *b = &w.r.seat.tcb
    if s.flags & RST:
        # A peer that sent its FIN and forgot may count without it (kernel tcp_reset_check)
        if (
            w.e.policy.rst_after_fin_at_rcv_nxt_minus_1 and s.seq + 1 == b.rcv_nxt
            and (1 << state) & (AFTER_FIN & ~(1 << S_TIME_WAIT))
        ):
            step(w, E_RCV_RST)
        else:
            step(w, E_RCV_RST_DROPPED)
        return
    if s.flags & SYN and w.e.policy.rfc5961:
        step(w, E_RCV_SYN_SUSPECT)
        return
    # Data or a FIN against a shut window: their ACK is good all the same (section 3.10.7.4: "special allowance")
    if b.rcv_wnd == 0 and s.seq == b.rcv_nxt and s.flags & (SYN | ACK) == ACK and not _ack_part(w):
        return
    step(w, E_RCV_UNACCEPTABLE)


cdef void _reset(Work *w, int state) noexcept nogil:
    """A RST inside the window."""
    if state == S_TIME_WAIT and w.e.policy.tcp_rfc1337:
        step(w, E_RCV_RST_DROPPED)
    elif w.s.seq != w.r.seat.tcb.rcv_nxt and w.e.policy.rfc5961:
        step(w, E_RCV_RST_SUSPECT)
    elif state == S_SYN_RCVD and w.r.flags & ROW_PASSIVE:
        step(w, E_RCV_RST_PASSIVE)
    else:
        step(w, E_RCV_RST)


cdef inline uint32_t _oldest_ack(const Work *w) noexcept nogil:
    """How far behind SND.UNA an ACK can honestly be: MAX.SND.WND (RFC 5961 section 5.2), but no more than was ever
    acknowledged after the handshake's SYN (kernel tcp_ack, bytes_acked; an active open's SYN counts there)."""
    cdef uint32_t acked = w.r.seat.tcb.snd_una - w.c.iss - (w.r.flags & ROW_PASSIVE != 0)
    return acked if acked < w.c.snd_max_wnd else w.c.snd_max_wnd


cdef bint _ack_part(Work *w) noexcept nogil:
    """The ACK of w.s: its event and what moves with it. False: nothing more of this segment is to be read."""
    cdef Tcb *b = &w.r.seat.tcb
    cdef seq_t ack = w.s.ack
    cdef int event = E_RCV_ACK
    if w.r.state[0] == S_SYN_RCVD:
        event = _completes(w)
        if event != E_RCV_ACK_OF_SYN:
            step(w, event)
            return False
    elif seq_lt(b.snd_nxt, ack) or (w.e.policy.rfc5961 and seq_lt(ack, b.snd_una - _oldest_ack(w))):
        step(w, E_RCV_ACK_SUSPECT)
        return False
    elif w.r.aux & TCB_FIN_SENT and ack == b.snd_nxt and ack != b.snd_una:
        event = E_RCV_ACK_OF_FIN
    _take_ack(w)
    step(w, event)
    return not w.gone


cdef int _completes(Work *w) noexcept nogil:
    """An ACK in SYN_RCVD: its event."""
    cdef Tcb *b = &w.r.seat.tcb
    cdef row_t parent
    if seq_le(w.s.ack, b.snd_una) or seq_lt(b.snd_nxt, w.s.ack):
        return E_RCV_BAD_ACK
    if w.r.flags & ROW_PASSIVE:
        if not parent_of(w.e, w.row, &parent):
            return E_ABORT              # the application stopped listening meanwhile
        if accept_queue_full(w.e, parent):
            return E_ABORT if w.e.policy.tcp_abort_on_overflow else E_RCV_ACK_DROPPED
    return E_RCV_ACK_OF_SYN


cdef void _take_ack(Work *w) noexcept nogil:
    """SND.UNA, the round trip, the send window (RFC 9293 section 3.10.7.4, RFC 6298 section 5)."""
    cdef const Segment *s = w.s
    cdef Tcb *b = &w.r.seat.tcb
    if seq_lt(b.snd_una, s.ack):
        measure(w, s.ack)
        b.snd_una = s.ack
        b.retries = 0
        w.restart = True
        if w.r.aux & TCB_RECOVERING:
            if seq_le(w.c.recover, s.ack):
                w.r.aux &= ~TCB_RECOVERING
            else:
                w.owes |= A_RESEND      # what was sent before the time-out is probably lost too
    elif s.ack != b.snd_una:
        return
    elif b.timer == TIMER_PERSIST:
        b.retries = 0                   # the peer lives; the back-off stays (kernel tcp_ack_probe)
        w.restart = True
    if seq_lt(b.snd_wl1, s.seq) or (b.snd_wl1 == s.seq and seq_le(b.snd_wl2, s.ack)):
        b.snd_wnd = <uint32_t>s.window
        if not s.flags & SYN:
            b.snd_wnd <<= remote_shift(w.r)
        b.snd_wl1 = s.seq
        b.snd_wl2 = s.ack
        if b.snd_wnd > w.c.snd_max_wnd:
            w.c.snd_max_wnd = b.snd_wnd


cdef void _data_and_fin(Work *w, bint again) noexcept nogil:
    """What follows the ACK part. The FIN is first noted where it stands, then met when RCV.NXT gets there."""
    cdef const Segment *s = w.s
    cdef Tcb *b = &w.r.seat.tcb
    cdef EndpointCold *c = w.c
    cdef int state = w.r.state[0]
    cdef seq_t end = s.seq + s.payload
    cdef bint fin = s.flags & FIN
    if (1 << state) & AFTER_FIN:
        if s.payload != 0:
            step(w, E_RCV_DATA)
        if again:
            step(w, E_RCV_FIN_AGAIN)
        return
    if (
        s.payload != 0 and w.r.flags & ROW_ORPHAN and (state == S_FIN_WAIT_1 or state == S_FIN_WAIT_2)
        and seq_lt(b.rcv_nxt, end)
    ):
        step(w, E_RCV_DATA_UNWANTED)
        return
    if fin and end - b.rcv_nxt < b.rcv_wnd:     # beyond the window it is not seen
        w.r.aux |= TCB_FIN_BEYOND
        c.fin_beyond = end
    if s.payload != 0 or (fin and end != b.rcv_nxt):
        step(w, E_RCV_DATA)
    if w.r.aux & TCB_FIN_BEYOND and b.rcv_nxt == c.fin_beyond:
        w.r.aux &= ~(TCB_FIN_BEYOND | TCB_AHEAD_BITS)   # what a peer sent beyond its own FIN is nobody's
        b.rcv_nxt += 1
        step(w, E_RCV_FIN)
