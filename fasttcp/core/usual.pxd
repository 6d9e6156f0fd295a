# The usual segment: the short way for what most segments are, on a connection that is known and in a state that has been
# met before.
#
# What a segment changes is found here in one load, from a table that `usual_learn` in pipeline.pyx fills when that is
# imported: it lets the general path (observer_see) loose on every pair of states and writes down what came of it. So
# nothing is decided here, no state, no event, no rule: this file may only ask whether a segment is usual, and then do
# the same as the general path with fewer branches. Whatever is odd (a number that is not the next one, a RST, a hole, a
# repetition, a timer that must move in the wheel, a carry) is told by False, with nothing changed.
#
# Direction and kind of the next segment cannot be predicted, and a wrong guess costs as much as all the rest: there is
# one branch on "SYN or not", one on "odd", and no other that depends on the segment.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.hash cimport Key
from fasttcp.core.index cimport key_is_of
from fasttcp.core.layout cimport (
    ACK, FIN, NO_ROW, RST, SYN, Half, Observed, Row, Segment, ns_t, row_t, seq_max, seq_t, tick_t,
)
from fasttcp.core.observer cimport KEEP_TIMER, Observer, Verdict, learn_scale
from fasttcp.core.store cimport Table, store_arm_ns, store_cold, store_move_states
from fasttcp.core.wheel cimport WHEEL_SLOTS

# An index of the table: evidence << 9 | sender's side << 8 | pair of states
cdef enum:
    EV_COVERS = 1                   # the ACK covers all that the receiver has sent
    EV_FIN = 2
    EV_SYN_ACK = 4                  # SYN+ACK that covers the SYN
    EVIDENCE = 5                    # 0 to 4

cdef struct Usual:                  # an entry, 8 bytes
    uint16_t verdict                # V_...
    uint8_t  state[2]               # afterwards
    uint32_t what                   # the pair of states afterwards, and USUAL_...

cdef enum:
    USUAL_ASKS_SYN = 1 << 29        # only if the receiver's own SYN was seen
    USUAL_ARMS = 1 << 30            # silence, or 2MSL, is counted from now on
    UNUSUAL_BIT = 31                # the upmost: the general path must see it


cdef inline uint32_t usual_at(uint32_t evidence, int s, uint32_t pair) noexcept nogil:
    return evidence << 9 | <uint32_t>s << 8 | pair


cdef inline bint usual_time(const Table *t, ns_t now_ns) noexcept nogil:
    """Nothing but this segment is to be looked at: the clock does not go back, no new tick begins, no timer waits."""
    return (
        <uint64_t>now_ns - <uint64_t>t.now_ns < <uint64_t>t.tick_end_ns - <uint64_t>t.now_ns
        and t.wheel.cursor > t.now_tick
    )


cdef inline bint usual_row(const Table *t, const Key *key, row_t row) noexcept nogil:
    """Whether the row that was fetched for this key is the one that has it. (A free row has no timer: it is odd.)"""
    return row != NO_ROW and key_is_of(&t.index, key, row)


# What is odd is told by the upmost bit of a word: one "or" for each question, and no branch. Differences of sequence
# numbers and of ticks have it when they are negative; that -2^31 stays negative whichever way it is turned only sends a
# segment that has it to the general path.

cdef inline bint usual_apply(
    Observer *o, row_t row, int s, const Segment *g, const Usual *entry, uint32_t odd,
    seq_t snd_nxt, seq_t rcv_nxt, bint syn, Verdict *out
) noexcept nogil:
    """What every usual segment does: states, numbers of its sender, counters, times, the verdict. False, and nothing is
    changed, when `odd`, or anything found here, says that it is not usual. syn: a constant of the caller."""
    cdef Table *t = &o.engine.table
    cdef Row *line = &t.rows[row]
    cdef Half *sender = &line.seat.half[s]
    cdef uint32_t before = <uint32_t>line.state[0] << 4 | line.state[1]
    cdef uint32_t after = entry.what & 0xFF
    cdef uint32_t arms = <uint32_t>(<int32_t>(entry.what << 1) >> 31)          # all its bits, or none
    cdef uint16_t packets = <uint16_t>(sender.packets + 1)
    cdef uint32_t bytes = sender.bytes + g.payload
    cdef uint32_t parked = line.parked
    cdef int32_t stands = (parked - <uint32_t>t.wheel.cursor) & (WHEEL_SLOTS - 1)
    cdef tick_t deadline = <tick_t>(t.now_tick + (g.time_ns != t.tick_start_ns) + o.timeout[after])
    cdef ns_t later
    odd |= (
        entry.what
        | 0 - (g.info & o.void_info)
        | <uint32_t>line.flags << 25                        # ROW_BLANK
        # A timer that is due within the next tick is asked first; one that would have to move in the wheel is moved.
        | line.deadline - <tick_t>t.now_tick - 2
        | ~(parked << 16)                                   # not PARKED
        | arms & <uint32_t>(min(<int32_t>(deadline - <tick_t>t.wheel.cursor), <int32_t>t.wheel.horizon) - stands)
        | <uint32_t>packets - 1                             # a carry
        | sender.bytes & ~bytes | g.payload                 # a carry, or nothing that any packet holds
    )
    if <int32_t>odd < 0:
        return False
    if syn:
        learn_scale(line, s, g)
        line.seat.half[s ^ 1].rcv_nxt = g.seq       # what the other acknowledges is told apart from here on
        (<Observed *>store_cold(t, row)).isn[s] = g.seq
    t.now_ns = g.time_ns
    o.tallies.segments += 1
    memcpy(line.state, entry.state, 2)
    store_move_states(t, row, before, after)
    sender.snd_nxt = snd_nxt
    sender.rcv_nxt = rcv_nxt
    sender.window = g.window
    sender.packets = packets
    sender.bytes = bytes
    line.last_ns = g.time_ns
    out.row = row
    memcpy(&out.flags, entry, 4)
    if o.watch.seen != NULL:
        later = o.watch.seen(o.watch.context, o, row, s, g, entry.verdict)
        if later != 0:
            if later != KEEP_TIMER:
                store_arm_ns(t, row, later)
            return True
    line.deadline ^= (line.deadline ^ deadline) & arms
    return True


cdef inline bint usual_ack(
    Observer *o, const Usual *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    """ACK, data and FIN (neither SYN nor RST is set, ACK is): everything of the sender's that came before is known, and
    nothing is acknowledged that was not seen."""
    cdef Table *t = &o.engine.table
    cdef row_t row = key.hint
    cdef int s = key.side
    cdef const Row *line
    cdef const Half *sender
    cdef const Half *receiver
    cdef const Usual *entry
    cdef uint32_t fin, length, seq, covered, fresh, odd
    if not usual_row(t, key, row):
        return False
    line = &t.rows[row]
    sender = &line.seat.half[s]
    receiver = &line.seat.half[s ^ 1]
    fin = g.flags & FIN
    length = g.payload + fin
    seq = sender.snd_nxt
    covered = receiver.snd_nxt - g.ack
    fresh = g.seq - seq
    entry = &usual[usual_at(fin << 1 | <uint32_t>(covered == 0), s, <uint32_t>line.state[0] << 4 | line.state[1])]
    odd = (
        covered                                             # it acknowledges what was not seen
        | 0 - fresh                                         # something is missing before it
        | fresh & (0 - <uint32_t>(length != 0))             # or it brings again what is known
        # A FIN that was acknowledged before it was seen.
        | ~(receiver.rcv_nxt - (g.seq + length)) & (0 - fin)
        | (entry.what << 2) & ~(<uint32_t>line.flags << (27 + s))               # USUAL_ASKS_SYN, ROW_SCALED of the other
    )
    return usual_apply(o, row, s, g, entry, odd, seq + length, seq_max(sender.rcv_nxt, g.ack), False, out)


cdef inline bint usual_syn_ack(
    Observer *o, const Usual *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    """SYN+ACK of a responder that has just received the SYN, acknowledging all of it."""
    cdef Table *t = &o.engine.table
    cdef row_t row = key.hint
    cdef int s = key.side
    cdef const Row *line
    if not usual_row(t, key, row):
        return False
    line = &t.rows[row]
    return g.ack == line.seat.half[s ^ 1].snd_nxt and usual_apply(
        o, row, s, g, &usual[usual_at(EV_SYN_ACK, s, <uint32_t>line.state[0] << 4 | line.state[1])], 0,
        g.seq + 1 + g.payload, g.ack, True, out
    )


cdef inline bint usual_segment(
    Observer *o, const Usual *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    """Whether it was usual, and has been applied. It must not be late, and the record of steps must be off."""
    cdef uint32_t kind = g.flags & (SYN | RST | ACK)
    if kind == ACK:
        return usual_ack(o, usual, key, g, out)
    return kind == SYN | ACK and not g.flags & FIN and usual_syn_ack(o, usual, key, g, out)
