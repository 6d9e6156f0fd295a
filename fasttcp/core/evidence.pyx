"""What a segment proves of the connection that it belongs to: each host's half is brought into the states that it must have by
now, as far as the machine has them.

What must stand here: what is believed, what is inferred because it was not captured, what is suspect. What must not: which
connection it is, its timer, its counters (observer.pyx); what comes of an event (spec.py).

Each function but the first returns the verdict's flags. `s` is the sender's side, `r` the receiver's.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

from fasttcp.core.layout cimport (
    ACK, FIN, ROW_PARTIAL, ROW_SHIFT_0, ROW_SYN_PENDING, SYN, Half, Observed, Row, Segment, row_t, seq_le, seq_lt,
    seq_t,
)
from fasttcp.core.names cimport (
    E_ABORT, E_CLOSE, E_CROSSED_FIN, E_CROSSED_SYN, E_OPEN_ACTIVE, E_OPEN_PASSIVE, E_PICKED_UP, E_RCV_ACK_OF_FIN,
    E_RCV_ACK_OF_SYN, E_RCV_FIN, E_RCV_FIN_AGAIN, E_RCV_RST, E_RCV_SYN, E_RCV_SYN_ACK, S_CLOSED, S_CLOSE_WAIT,
    S_CLOSING, S_ESTABLISHED, S_FIN_WAIT_1, S_FIN_WAIT_2, S_LAST_ACK, S_LISTEN, S_SYN_RCVD, S_SYN_SENT, S_TIME_WAIT,
)
from fasttcp.core.seat cimport fire
from fasttcp.core.tap cimport (
    CLAIM, MAX_SHIFT, NO_SHIFT, ROW_BLANK, ROW_ONE_ISN, Observer, is_isn, learn_scale, observed,
    observer_set_originator, opening, syn_seen,
)
from fasttcp.core.verdicts cimport V_CHANGED, V_GAP, V_RETRANSMITTED, V_SUSPECT

cdef enum:
    ASTRAY = 1 << 20            # bytes beyond the window that may be missing in a capture without anybody's confirmation
    WIDEST = 1 << 24            # a window that counts for more could not be told from a forged number

# The rest of a claim in Row.aux, see see_far.
cdef enum:
    CLAIM_STREAM = 0x4000       # it is of side 1's stream
    CLAIM_SPEAKER = 0x2000      # side 1 has said it
    CLAIM_PLACE = 0x0FFF        # the upper bits of the sequence number
    CLAIM_GRAIN = 20            # the others: 1 MiB


cdef inline uint32_t window_of(const Row *row, int side) noexcept nogil:
    """The last window that `side` advertised, in bytes; as wide as it may be while the scale is not known."""
    cdef uint32_t mine = (row.flags >> (ROW_SHIFT_0 + 4 * side)) & 15
    cdef uint32_t other = (row.flags >> (ROW_SHIFT_0 + 4 * (1 - side))) & 15
    if not (syn_seen(row, 0) and syn_seen(row, 1)):
        return <uint32_t>row.seat.half[side].window << MAX_SHIFT
    if mine == NO_SHIFT or other == NO_SHIFT:       # both must have offered it (RFC 7323 section 2.2)
        return row.seat.half[side].window
    return <uint32_t>row.seat.half[side].window << mine


cdef inline uint32_t reach(const Row *row, int side) noexcept nogil:
    """How far beyond what was seen data towards `side` may lie, and be believed without more."""
    return min(window_of(row, side), <uint32_t>WIDEST) + ASTRAY


cdef inline bint fin_received(uint8_t state) noexcept nogil:
    """A RST one below RCV.NXT is believed: its sender has not counted its own FIN (case 20; tcp_reset_check)."""
    return state == S_CLOSE_WAIT or state == S_CLOSING or state == S_LAST_ACK


# ---- the first segment -----------------------------------------------------------------------------------------------

cdef void evidence_first(Observer *o, row_t row, int s, const Segment *segment) noexcept nogil:
    """The first segment that means something (SYN, SYN+ACK, ACK) brings a blank row into the states that it proves."""
    cdef Row *line = &o.engine.table.rows[row]
    cdef Observed *cold = observed(o, row)
    cdef int r = 1 - s
    cdef seq_t ack = segment.ack if segment.flags & ACK else 0
    line.flags &= ~<uint16_t>(ROW_BLANK | ROW_PARTIAL)
    cold.isn[s] = segment.seq
    cold.isn[r] = ack - 1
    line.seat.half[s].snd_nxt = segment.seq
    line.seat.half[r].snd_nxt = ack
    line.seat.half[s].rcv_nxt = ack
    line.seat.half[r].rcv_nxt = segment.seq
    if not segment.flags & SYN:
        cold.isn[s] = segment.seq - 1               # right if this is the third segment and the SYN comes late
        line.flags |= ROW_PARTIAL
        fire(&o.engine, row, 0, E_PICKED_UP, segment, segment.time_ns)
        fire(&o.engine, row, 1, E_PICKED_UP, segment, segment.time_ns)
        return
    learn_syn(line, s, segment)
    if segment.flags & ACK:                         # SYN+ACK: its sender is the responder (case 53)
        if not o.watch.names_originator:
            observer_set_originator(o, row, r)
        fire(&o.engine, row, r, E_OPEN_ACTIVE, segment, segment.time_ns)
        fire(&o.engine, row, s, E_OPEN_PASSIVE, segment, segment.time_ns)
        fire(&o.engine, row, s, E_RCV_SYN, segment, segment.time_ns)
        fire(&o.engine, row, r, E_RCV_SYN_ACK, segment, segment.time_ns)
    else:
        line.flags |= ROW_ONE_ISN
        if not o.watch.names_originator:
            observer_set_originator(o, row, s)
        fire(&o.engine, row, s, E_OPEN_ACTIVE, segment, segment.time_ns)
        fire(&o.engine, row, r, E_OPEN_PASSIVE, segment, segment.time_ns)
        fire(&o.engine, row, r, E_RCV_SYN, segment, segment.time_ns)


cdef void learn_syn(Row *line, int side, const Segment *segment) noexcept nogil:
    """What a SYN says once: the sequence number, the window and its scale."""
    learn_scale(line, side, segment)
    line.seat.half[side].snd_nxt = segment.seq + 1 + segment.payload
    line.seat.half[1 - side].rcv_nxt = segment.seq  # what the other acknowledges is told apart from here on


# ---- one segment on a known connection -------------------------------------------------------------------------------

cdef uint16_t evidence_rst(Observer *o, row_t row, int s, const Segment *segment) noexcept nogil:
    cdef Row *line = &o.engine.table.rows[row]
    cdef int r = 1 - s
    cdef Half *sender = &line.seat.half[s]
    cdef Half *receiver = &line.seat.half[r]
    cdef uint32_t window
    cdef bint believed
    if line.state[0] == S_CLOSED and line.state[1] == S_CLOSED:
        return V_RETRANSMITTED
    if o.any_rst:
        believed = True
    elif line.state[r] == S_SYN_SENT:               # only an ACK of its SYN convinces it (cases 5 and 6)
        believed = (
            (segment.flags & ACK) != 0
            and seq_lt(observed(o, row).isn[r], segment.ack) and seq_le(segment.ack, receiver.snd_nxt)
        )
    elif line.state[s] == S_SYN_SENT and not syn_seen(line, r):
        believed = segment.seq == sender.snd_nxt    # it backs out of its own opening
    else:
        window = window_of(line, r)
        believed = (
            segment.seq == sender.snd_nxt
            or segment.seq - receiver.rcv_nxt <= window
            or segment.seq + 1 == receiver.rcv_nxt and fin_received(line.state[r])
        )
    if not believed:
        return V_SUSPECT
    line.aux = E_RCV_RST
    if line.state[r] != S_CLOSED:
        if line.state[r] != S_LISTEN:
            fire(&o.engine, row, r, E_RCV_RST, segment, segment.time_ns)
        else:
            fire(&o.engine, row, r, E_ABORT, segment, segment.time_ns)
    if line.state[s] != S_CLOSED:
        fire(&o.engine, row, s, E_ABORT, segment, segment.time_ns)
    return V_CHANGED


cdef uint16_t see_syn(Observer *o, row_t row, int s, const Segment *segment) noexcept nogil:
    """SYN without ACK on a connection that lives (a new one has been told apart before)."""
    cdef Row *line = &o.engine.table.rows[row]
    cdef Observed *cold = observed(o, row)
    cdef int r = 1 - s
    if is_isn(o, row, s, segment.seq):
        if not syn_seen(line, s):                   # it was overtaken by the SYN+ACK, or by its own ACK (case 53)
            learn_syn_late(line, s, segment)
            return 0
        return V_RETRANSMITTED
    if line.state[s] == S_SYN_RCVD and line.state[r] == S_SYN_SENT and not syn_seen(line, s):
        cold.isn[s] = segment.seq
        learn_syn(line, s, segment)
        fire(&o.engine, row, s, E_CROSSED_SYN, segment, segment.time_ns)
        fire(&o.engine, row, r, E_RCV_SYN, segment, segment.time_ns)
        return V_CHANGED
    line.flags |= ROW_SYN_PENDING                   # only the other side's SYN+ACK proves it (case 52)
    return V_SUSPECT


cdef void learn_syn_late(Row *line, int s, const Segment *segment) noexcept nogil:
    cdef seq_t snd_nxt = line.seat.half[s].snd_nxt
    cdef seq_t rcv_nxt = line.seat.half[1 - s].rcv_nxt
    learn_syn(line, s, segment)
    line.seat.half[1 - s].rcv_nxt = rcv_nxt
    if seq_lt(line.seat.half[s].snd_nxt, snd_nxt):
        line.seat.half[s].snd_nxt = snd_nxt


cdef uint16_t see_syn_ack(Observer *o, row_t row, int s, const Segment *segment) noexcept nogil:
    cdef Row *line = &o.engine.table.rows[row]
    cdef Observed *cold = observed(o, row)
    cdef int r = 1 - s
    cdef Half *receiver = &line.seat.half[r]
    cdef bint late = not syn_seen(line, s)
    if line.state[r] == S_SYN_SENT:
        # All that was sent: the usual case, which spares the cold record of the initial sequence number.
        if segment.ack != receiver.snd_nxt:
            if not seq_lt(cold.isn[r], segment.ack) or seq_lt(receiver.snd_nxt, segment.ack):
                return V_SUSPECT                    # it will be answered by a RST (case 4)
        cold.isn[s] = segment.seq
        learn_syn(line, s, segment)
        line.seat.half[s].rcv_nxt = segment.ack
        fire(&o.engine, row, r, E_RCV_SYN_ACK, segment, segment.time_ns)
        return V_CHANGED
    if not is_isn(o, row, s, segment.seq):
        return V_SUSPECT
    if late:
        learn_syn_late(line, s, segment)
    if line.state[s] == S_SYN_SENT and line.state[r] == S_SYN_RCVD and not syn_seen(line, r):
        # It answers a SYN that was not captured: they have crossed.
        cold.isn[r] = segment.ack - 1
        receiver.snd_nxt = segment.ack
        line.flags &= ~<uint16_t>ROW_ONE_ISN
        fire(&o.engine, row, r, E_CROSSED_SYN, segment, segment.time_ns)
        fire(&o.engine, row, s, E_RCV_SYN, segment, segment.time_ns)
    if line.state[r] == S_SYN_RCVD and segment.ack == receiver.snd_nxt:     # simultaneous open, figure 7
        line.seat.half[s].rcv_nxt = segment.ack
        fire(&o.engine, row, r, E_RCV_ACK_OF_SYN, segment, segment.time_ns)
        return V_CHANGED
    return 0 if late else V_RETRANSMITTED


cdef bint infer_handshake(Observer *o, row_t row, int s, const Segment *segment) noexcept nogil:
    """`s` sends an ACK while a SYN of either side is open: what must have happened? 0: this ACK proves nothing."""
    cdef Row *line = &o.engine.table.rows[row]
    cdef Observed *cold = observed(o, row)
    cdef int r = 1 - s
    if line.state[s] == S_SYN_SENT:                 # it has received a SYN+ACK that was not captured
        cold.isn[r] = segment.ack - 1
        line.flags &= ~<uint16_t>ROW_ONE_ISN
        line.seat.half[r].snd_nxt = segment.ack
        line.seat.half[s].rcv_nxt = segment.ack
        fire(&o.engine, row, s, E_RCV_SYN_ACK, segment, segment.time_ns)
    elif line.state[r] == S_SYN_SENT:               # the responder speaks, its SYN+ACK was not captured ...
        if segment.ack != line.seat.half[r].snd_nxt:
            return False                            # ... or it challenges a SYN that hit an old connection
        cold.isn[s] = segment.seq - 1
        line.flags &= ~<uint16_t>ROW_ONE_ISN
        line.seat.half[s].snd_nxt = segment.seq
        line.seat.half[r].rcv_nxt = segment.seq
        fire(&o.engine, row, r, E_RCV_SYN_ACK, segment, segment.time_ns)
    if line.state[r] == S_SYN_RCVD and (
        segment.ack == line.seat.half[r].snd_nxt or seq_lt(cold.isn[r], segment.ack)
    ):
        fire(&o.engine, row, r, E_RCV_ACK_OF_SYN, segment, segment.time_ns)
    if line.state[s] == S_SYN_RCVD and segment.payload != 0 and syn_seen(line, s):
        # It sends data: the third segment is missing.
        fire(&o.engine, row, s, E_RCV_ACK_OF_SYN, segment, segment.time_ns)
    return True


# A number far beyond what was seen is either the far side of a hole in the capture or forged. Two mouths decide: the
# host whose stream it is, by the sequence number of a segment, and its peer, by an acknowledgment. What one of them said
# last is kept; when the other says the same, it is true. A peer that was never captured cannot be heard: then the same
# host must say it twice.

cdef inline bint claimed(const Row *line, int stream, int speaker, seq_t at) noexcept nogil:
    """Whether `speaker` has said that the stream of side `stream` is about there."""
    cdef uint32_t here = (at >> CLAIM_GRAIN) - (line.aux & CLAIM_PLACE) & CLAIM_PLACE
    cdef uint32_t most = (reach(line, 1 - stream) >> CLAIM_GRAIN) + 1
    return line.aux & ~CLAIM_PLACE == claim_by(stream, speaker) and (here <= most or CLAIM_PLACE + 1 - here <= most)


cdef inline uint16_t claim_by(int stream, int speaker) noexcept nogil:
    return <uint16_t>(CLAIM | CLAIM_STREAM * stream | CLAIM_SPEAKER * speaker)


cdef bint see_far(Observer *o, row_t row, int s, const Segment *segment, bint far_seq) noexcept nogil:
    """A segment with a number far beyond what was seen: its own if far_seq, else its ACK. Whether it is true."""
    cdef Row *line = &o.engine.table.rows[row]
    cdef int r = 1 - s
    cdef Half *sender = &line.seat.half[s]
    cdef Half *receiver = &line.seat.half[r]
    cdef bint alone = receiver.packets == 0 and observed(o, row).packets_high[r] == 0
    cdef int stream = s if far_seq else r
    cdef seq_t at = segment.seq if far_seq else segment.ack
    if not (
        claimed(line, r, r, segment.ack) or far_seq and claimed(line, s, r, segment.seq)
        or alone and claimed(line, stream, s, at)
    ):
        line.aux = claim_by(stream, s) | <uint16_t>(at >> CLAIM_GRAIN)
        return False
    line.aux = 0
    if far_seq:
        o.tallies.missed_bytes += segment.seq - sender.snd_nxt
        sender.snd_nxt = segment.seq
    return True


cdef inline uint16_t see_ack(Observer *o, row_t row, int s, const Segment *segment, uint32_t *actions) noexcept nogil:
    """ACK, data and FIN: the common path."""
    cdef Row *line = &o.engine.table.rows[row]
    cdef int r = 1 - s
    cdef Half *sender = &line.seat.half[s]
    cdef Half *receiver = &line.seat.half[r]
    cdef seq_t end = segment.seq + segment.payload + (segment.flags & FIN)
    cdef int32_t beyond = <int32_t>(segment.ack - receiver.snd_nxt)
    cdef int32_t fresh = <int32_t>(segment.seq - sender.snd_nxt)
    cdef uint16_t verdict = 0
    cdef uint8_t state
    cdef bint closes

    if fresh > 0 and <uint32_t>fresh > reach(line, r):
        if not see_far(o, row, s, segment, True):
            return V_SUSPECT
        verdict = V_GAP

    # The ACK part: what does it say of the receiver's half?
    if beyond > 0:
        # Nobody sent that much: no host takes anything of it (RFC 5961 section 5.2).
        if verdict == 0 and <uint32_t>beyond > reach(line, s) and not see_far(o, row, s, segment, False):
            return V_SUSPECT
        o.tallies.missed_bytes += beyond            # acknowledged, never captured (case 55)
        receiver.snd_nxt = segment.ack
        verdict |= V_GAP
    state = line.state[r]
    if beyond >= 0 and (state == S_FIN_WAIT_1 or state == S_CLOSING or state == S_LAST_ACK):
        actions[0] |= fire(&o.engine, row, r, E_RCV_ACK_OF_FIN, segment, segment.time_ns)
        verdict |= V_CHANGED
    if seq_lt(sender.rcv_nxt, segment.ack):
        sender.rcv_nxt = segment.ack

    # The data part.
    if end == segment.seq:
        return verdict
    fresh = <int32_t>(end - sender.snd_nxt)
    closes = segment.flags & FIN and (
        line.state[s] == S_ESTABLISHED or line.state[s] == S_CLOSE_WAIT or line.state[s] == S_SYN_RCVD
    )
    if fresh > 0:
        if <uint32_t>fresh > end - segment.seq:     # the segment before it was not seen
            o.tallies.missed_bytes += <uint32_t>fresh - (end - segment.seq)
            verdict |= V_GAP
        sender.snd_nxt = end
    elif fresh < 0 or not closes:                   # a FIN that was acknowledged before it was seen is the exception
        verdict |= V_RETRANSMITTED
        if segment.flags & FIN and line.state[r] == S_TIME_WAIT:
            actions[0] |= fire(&o.engine, row, r, E_RCV_FIN_AGAIN, segment, segment.time_ns)
        return verdict
    if not segment.flags & FIN:
        return verdict

    # The FIN: the sender's CLOSE, and RCV_FIN at the other end.
    if not closes:
        return verdict | V_SUSPECT
    if line.state[s] == S_CLOSE_WAIT and seq_lt(segment.ack, receiver.snd_nxt):
        fire(&o.engine, row, s, E_CROSSED_FIN, segment, segment.time_ns)
    else:
        fire(&o.engine, row, s, E_CLOSE, segment, segment.time_ns)
    state = line.state[r]
    if state == S_ESTABLISHED or state == S_FIN_WAIT_1 or state == S_FIN_WAIT_2:
        actions[0] |= fire(&o.engine, row, r, E_RCV_FIN, segment, segment.time_ns)
    if end == receiver.rcv_nxt:                     # the exception: nobody acknowledges more than was sent
        actions[0] |= fire(&o.engine, row, s, E_RCV_ACK_OF_FIN, segment, segment.time_ns)
    return verdict | V_CHANGED


cdef uint16_t evidence_opened(
    Observer *o, row_t row, int s, const Segment *segment, uint32_t *actions
) noexcept nogil:
    """A segment without SYN and RST: what it proves of the handshake, then what it says."""
    cdef const Row *line = &o.engine.table.rows[row]
    if not opening(line.state[0]) and not opening(line.state[1]):
        return see_ack(o, row, s, segment, actions)
    if not infer_handshake(o, row, s, segment):
        return V_SUSPECT
    return V_CHANGED | see_ack(o, row, s, segment, actions)


cdef uint16_t evidence_known(Observer *o, row_t row, int s, const Segment *segment, uint32_t *actions) noexcept nogil:
    """A segment without RST on a row that has its states."""
    if not segment.flags & SYN:
        return evidence_opened(o, row, s, segment, actions)
    return see_syn_ack(o, row, s, segment) if segment.flags & ACK else see_syn(o, row, s, segment)
