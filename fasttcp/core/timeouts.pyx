"""The one timer of a row.

Which timer a row needs follows from the row alone (`timer_needed`), so no path can forget one: after every input
`settle` compares what runs with what is needed, and endpoint_check does it again for every row.

| timer      | runs while                                            | length
|------------|-------------------------------------------------------|------------------------------------------------
| RETRANSMIT | SYN, SYN+ACK, data or FIN are unacknowledged          | RTO, doubled for each retransmission (RFC 6298)
| PERSIST    | data or FIN wait for a shut window, nothing in flight | the same (RFC 9293 section 3.8.6.1)
| KEEPALIVE  | asked for, the peer may be silent, nothing in flight  | tcp_keepalive_time after the last segment, then
|            |                                                       | tcp_keepalive_intvl after each probe
| FIN_WAIT_2 | an orphan waits for the peer's FIN                    | tcp_fin_timeout; none if that is "for ever"
| 2MSL       | TIME_WAIT                                             | 2 msl; with tcp_tw_recycle 3.5 RTO

LISTEN needs none. Cost: nothing when the needed timer runs already; one store when the wheel would look at the row
before the new deadline, which is the usual case since entries are left to lapse; else a move within the wheel.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from fasttcp.core.layout cimport (
    OPT_TIMESTAMPS, ROW_ORPHAN, ROW_PASSIVE, Row, Tcb, ns_t, seq_le, seq_t,
)
from fasttcp.core.names cimport (
    S_CLOSED, S_CLOSE_WAIT, S_ESTABLISHED, S_FIN_WAIT_2, S_LISTEN, S_SYN_RCVD, S_SYN_SENT, S_TIME_WAIT,
)
from fasttcp.core.output cimport timestamp_clock
from fasttcp.core.store cimport store_arm_ns
from fasttcp.core.tcb cimport (
    TCB_FIN_QUEUED, TCB_KEEPALIVE, TCB_TIMED, TCB_TIMESTAMPS, TIMER_2MSL, TIMER_FIN_WAIT_2, TIMER_KEEPALIVE, TIMER_NONE,
    TIMER_PERSIST, TIMER_RETRANSMIT, Endpoint, EndpointCold, Work, clock_us,
)

cdef uint32_t TIME_BASE_US = 200000         # TCP_RTO_MIN, whatever tcp_rto_min_us says
cdef uint32_t FALLBACK_RTO_US = 3000000     # after a lost SYN, until a round trip was measured (RFC 6298 section 5.7)


cdef int timer_needed(const Endpoint *e, const Row *r, const EndpointCold *c) noexcept nogil:
    cdef int state = r.state[0]
    cdef const Tcb *b = &r.seat.tcb
    if state == S_TIME_WAIT:
        return TIMER_2MSL
    if state == S_LISTEN or state == S_CLOSED:
        return TIMER_NONE
    if b.snd_una != b.snd_nxt:
        return TIMER_RETRANSMIT
    if c.snd_queued != 0 or r.aux & TCB_FIN_QUEUED:
        return TIMER_PERSIST
    if state == S_FIN_WAIT_2 and r.flags & ROW_ORPHAN:
        return TIMER_FIN_WAIT_2 if e.policy.tcp_fin_timeout_ns != 0 else TIMER_NONE
    if r.aux & TCB_KEEPALIVE and (state == S_ESTABLISHED or state == S_CLOSE_WAIT or state == S_FIN_WAIT_2):
        return TIMER_KEEPALIVE
    return TIMER_NONE


cdef uint32_t retry_limit(const Endpoint *e, const Row *r) noexcept nogil:
    """Retransmissions of what stands at SND.UNA before the connection is given up."""
    if r.state[0] == S_SYN_SENT:
        return <uint32_t>e.policy.tcp_syn_retries + e.policy.tcp_syn_linear_timeouts
    if r.state[0] == S_SYN_RCVD:
        return e.policy.tcp_synack_retries if r.flags & ROW_PASSIVE else e.policy.tcp_syn_retries
    return e.policy.orphan_retries if r.flags & ROW_ORPHAN else e.policy.tcp_retries2


cdef uint64_t _waits(uint64_t us, uint32_t begin, uint32_t end, uint64_t most) noexcept nogil:
    """What the waits from back-off `begin` to back-off `end` take together."""
    cdef uint64_t total = 0, wait
    cdef uint32_t i
    for i in range(begin, end + 1):
        wait = us << (i if i < 32 else 32)
        total += wait if wait < most else most
    return total


cdef bint given_up(const Work *w) noexcept nogil:
    """The retransmission or persist timer has fired: was that the last time?

    With retries_are_time a number of retries stands for the time that so many would take if the first came after
    TIME_BASE_US, or after rto_initial for a SYN (kernel retransmits_timed_out, tcp_model_timeout). It is compared with
    the time since the first retransmission, since the first SYN; a little is added, since Linux's own timers are late by
    a 64th at least. SYN+ACKs of a listener and window probes are counted all the same.
    """
    cdef const Tcb *b = &w.r.seat.tcb
    cdef uint64_t most = w.e.policy.rto_max_us, base = TIME_BASE_US, passed
    cdef uint32_t limit = retry_limit(w.e, w.r), backoff = w.c.backoff, linear
    cdef int state = w.r.state[0]
    if b.retries == 255:
        return True
    if not w.e.policy.retries_are_time or b.timer == TIMER_PERSIST or (state == S_SYN_RCVD and w.r.flags & ROW_PASSIVE):
        return b.retries >= limit
    if state == S_SYN_SENT or state == S_SYN_RCVD:
        if b.retries >= limit:
            return True
        limit = w.e.policy.tcp_syn_retries
        base = w.e.policy.rto_initial_us
        linear = b.retries - backoff if b.retries > backoff else 0
        passed = _waits(w.c.rto_us, 0, backoff, most) + linear * <uint64_t>w.c.rto_us
    else:
        passed = _waits(w.c.rto_us, backoff - b.retries + 1 if backoff > b.retries else 1, backoff, most)
        if b.retries > backoff:             # which is not counted beyond 32
            passed += (b.retries - backoff) * most
        passed += min(passed // 64, 2 * <uint64_t>w.c.rto_us)
    return b.retries != 0 and passed >= _waits(base if base < most else most, 0, limit, most)


cdef ns_t _rto(const Work *w) noexcept nogil:
    """RTO with its back-off (RFC 6298 section 5.5)."""
    cdef uint64_t us = <uint64_t>w.c.rto_us << (w.c.backoff if w.c.backoff < 32 else 32)
    return <ns_t>(us if us < w.e.policy.rto_max_us else w.e.policy.rto_max_us) * 1000


cdef ns_t _deadline(const Work *w, int kind) noexcept nogil:
    if kind == TIMER_RETRANSMIT or kind == TIMER_PERSIST:
        return w.now + _rto(w)
    if kind == TIMER_KEEPALIVE:
        if w.r.seat.tcb.retries != 0:
            return w.now + w.e.policy.tcp_keepalive_intvl_ns
        return w.r.last_ns + w.e.policy.tcp_keepalive_time_ns
    if kind == TIMER_FIN_WAIT_2:
        return w.now + w.e.policy.tcp_fin_timeout_ns
    if w.e.policy.tcp_tw_recycle and w.r.aux & TCB_TIMESTAMPS:
        return w.now + <ns_t>w.c.rto_us * 3500      # 3.5 RTO, kernel before 4.12 tcp_time_wait
    return w.now + w.e.policy.time_wait_ns


cdef void settle(Work *w) noexcept nogil:
    """The timer that this row needs runs after this call, and no other: Tcb.timer says which. A row that needs none
    may still have an entry in the wheel, which has lapsed: Tcb.timer is TIMER_NONE, and nothing happens when it
    comes."""
    cdef Tcb *b = &w.r.seat.tcb
    cdef int kind = timer_needed(w.e, w.r, w.c)
    if kind == b.timer and not w.restart and (kind != TIMER_KEEPALIVE or b.retries != 0):
        return
    if kind != b.timer:
        if b.timer == TIMER_PERSIST:
            w.c.backoff = 0                 # probes are no sign of a crowded path; else Karn's rule holds: see _sample
        b.timer = <unsigned char>kind
        b.retries = 0
    # Where none is needed the wheel's entry lapses: taking it out would cost more than a look when it is due.
    if kind != TIMER_NONE:
        store_arm_ns(&w.e.engine.table, w.row, _deadline(w, kind))


cdef void start_rto(Work *w) noexcept nogil:
    w.c.srtt_us = 0
    w.c.rttvar_us = 0
    w.c.rto_us = w.e.policy.rto_initial_us
    w.c.backoff = 0


# ---- round-trip times ------------------------------------------------------------------------------------------------

cdef void time_segment(Work *w, seq_t end) noexcept nogil:
    """Time the segment that ends at `end`, unless another is being timed."""
    if w.r.aux & TCB_TIMED:
        return
    w.r.aux |= TCB_TIMED
    w.c.timed_seq = end
    w.c.timed_at_us = clock_us(w.e)


cdef void _sample(Work *w, uint32_t rtt_us) noexcept nogil:
    """RFC 6298 section 2.2 and 2.3. Only this ends a back-off, not any ACK (Karn's rule, section 5 at its end)."""
    cdef EndpointCold *c = w.c
    cdef uint64_t spread, rto
    cdef uint32_t least = <uint32_t>(w.e.engine.table.tick_ns // 1000)
    if w.e.policy.rto_min_bounds_variance and least < w.e.policy.rto_min_us:
        least = w.e.policy.rto_min_us
    c.backoff = 0
    if rtt_us == 0:
        rtt_us = 1
    if c.srtt_us == 0:
        c.srtt_us = rtt_us
        c.rttvar_us = rtt_us // 2
    else:
        spread = c.srtt_us - rtt_us if c.srtt_us > rtt_us else rtt_us - c.srtt_us
        c.rttvar_us = <uint32_t>((3 * <uint64_t>c.rttvar_us + spread) // 4)
        c.srtt_us = <uint32_t>((7 * <uint64_t>c.srtt_us + rtt_us) // 8)
        if c.srtt_us == 0:
            c.srtt_us = 1
    spread = 4 * <uint64_t>c.rttvar_us
    rto = c.srtt_us + (spread if spread > least else least)
    if rto < w.e.policy.rto_min_us:
        rto = w.e.policy.rto_min_us
    if rto > w.e.policy.rto_max_us:
        rto = w.e.policy.rto_max_us
    c.rto_us = <uint32_t>rto


cdef void measure(Work *w, seq_t ack) noexcept nogil:
    """`ack` is new: what does it tell of the round trip? Karn's rule: nothing, if the segment was sent twice, unless
    the peer's echo of our timestamp says which of them arrived (RFC 6298 section 3)."""
    cdef uint32_t ticks
    cdef uint64_t us
    if w.r.aux & TCB_TIMED:
        if seq_le(w.c.timed_seq, ack):
            w.r.aux &= ~TCB_TIMED
            _sample(w, clock_us(w.e) - w.c.timed_at_us)
    elif w.r.aux & TCB_TIMESTAMPS and w.s.options & OPT_TIMESTAMPS and w.s.tsecr != 0:
        ticks = timestamp_clock(w.e) + w.c.ts_offset - w.s.tsecr
        us = <uint64_t>ticks * <uint64_t>w.e.policy.timestamp_tick_ns // 1000
        if <int32_t>ticks >= 0 and us < w.e.policy.rto_max_us:
            _sample(w, <uint32_t>us)
    elif w.r.state[0] == S_SYN_SENT or w.r.state[0] == S_SYN_RCVD:
        w.c.backoff = 0                     # of the SYN; what follows begins at three seconds instead
        if w.c.retransmitted != 0 and w.c.rto_us < FALLBACK_RTO_US < w.e.policy.rto_max_us:
            w.c.rto_us = FALLBACK_RTO_US
