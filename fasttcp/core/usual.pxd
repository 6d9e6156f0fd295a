# The usual segment: the short way for what most segments are, on a connection that is known and in a state that has been
# met before.
#
# What a segment changes is found here in one load, from a table that `usual_learn` in observer.pyx fills when the module
# is imported: it lets the general path (see_ack, see_syn_ack, enter) loose on every pair of states and writes down what
# came of it. So nothing is decided here, no state, no event, no rule: this file may only ask whether a segment is usual,
# and then do the same as the general path with fewer branches. Whatever is odd (a number that is not the next one, a RST,
# a hole, a repetition, a timer that must move in the wheel, a carry) is told by False, with nothing changed.
#
# Direction and kind of the next segment cannot be predicted, and a wrong guess costs as much as all the rest: there is
# one branch on "SYN or not", one on "odd", and no other that depends on the segment.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t

from fasttcp.core.hash cimport Key
from fasttcp.core.index cimport key_is_of
from fasttcp.core.layout cimport (
    ACK, FIN, NO_ROW, ROW_SCALED_0, RST, SYN, Half, Observed, Row, Segment, ns_t, row_t, seq_max, seq_t, tick_t,
)
from fasttcp.core.observer cimport KEEP_TIMER, ROW_BLANK, Observer, Verdict, learn_scale
from fasttcp.core.store cimport (
    Table, store_arm_ns, store_cold, store_in_use, store_set_states, store_tick_after,
)
from fasttcp.core.wheel cimport PARKED, WHEEL_SLOTS, wheel_distance

# An index of the table: evidence << 9 | sender's side << 8 | pair of states
cdef enum:
    EV_COVERS = 1                   # the ACK covers all that the receiver has sent
    EV_FIN = 2
    EV_SYN_ACK = 4                  # SYN+ACK that covers the SYN
    EVIDENCE = 5                    # 0 to 4

# An entry: the pair of states afterwards, and
cdef enum:
    USUAL = 0x0100                  # there is one; else the general path must see it
    USUAL_ARMS = 0x0200             # silence, or 2MSL, is counted from now on
    USUAL_ASKS_SYN = 0x0400         # only if the receiver's own SYN was seen
    USUAL_VERDICT = 16              # where the verdict's flags begin


cdef inline uint32_t usual_at(uint32_t evidence, int s, uint32_t pair) noexcept nogil:
    return evidence << 9 | <uint32_t>s << 8 | pair


cdef inline bint usual_row(const Table *t, const Key *key, row_t row) noexcept nogil:
    """Whether the row that was fetched for this key is the one that has it."""
    return row != NO_ROW and store_in_use(t, row) and key_is_of(&t.index, key, row)


cdef inline bint usual_apply(
    Observer *o, row_t row, int s, const Segment *g, uint32_t entry, uint32_t odd,
    seq_t snd_nxt, seq_t rcv_nxt, bint syn, Verdict *out
) noexcept nogil:
    """What every usual segment does: states, numbers of its sender, counters, times, the verdict. False, and nothing is
    changed, when `odd`, or anything found here, says that it is not usual. syn: a constant of the caller."""
    cdef Table *t = &o.engine.table
    cdef Row *line = &t.rows[row]
    cdef Half *sender = &line.seat.half[s]
    cdef uint32_t after = entry & 0xFF
    cdef uint32_t arms = (entry & USUAL_ARMS) != 0
    cdef uint16_t packets = <uint16_t>(sender.packets + 1)
    cdef uint32_t bytes = sender.bytes + g.payload
    cdef tick_t deadline = store_tick_after(t, o.timeout[after])
    cdef uint32_t parked = line.parked
    cdef uint32_t stands = (parked - <uint32_t>t.wheel.cursor) & (WHEEL_SLOTS - 1)
    cdef ns_t later
    odd |= (
        <uint32_t>((entry & USUAL) == 0)
        | (g.info & o.void_info)
        | <uint32_t>(g.time_ns < t.now_ns)
        | (line.flags & ROW_BLANK)
        # A timer that is due within the next tick is asked first; one that would have to move in the wheel is moved.
        | <uint32_t>(<int32_t>(line.deadline - <tick_t>t.now_tick) <= 1)
        | <uint32_t>((parked & PARKED) == 0)
        | (arms & <uint32_t>(stands > wheel_distance(&t.wheel, deadline)))
        | <uint32_t>(packets == 0)
        | <uint32_t>(bytes < g.payload)
    )
    if odd:
        return False
    if syn:
        learn_scale(line, s, g)
        line.seat.half[s ^ 1].rcv_nxt = g.seq       # what the other acknowledges is told apart from here on
        (<Observed *>store_cold(t, row)).isn[s] = g.seq
    store_set_states(t, row, <uint8_t>(after >> 4), after & 0xF)
    sender.snd_nxt = snd_nxt
    sender.rcv_nxt = rcv_nxt
    sender.window = g.window
    sender.packets = packets
    sender.bytes = bytes
    line.last_ns = max(line.last_ns, g.time_ns)
    out.row = row
    out.flags = <uint16_t>(entry >> USUAL_VERDICT)
    out.state[0] = <uint8_t>(after >> 4)
    out.state[1] = after & 0xF
    if o.watch.seen != NULL:
        later = o.watch.seen(o.watch.context, o, row, s, g, out.flags)
        if later != 0:
            if later != KEEP_TIMER:
                store_arm_ns(t, row, later)
            return True
    line.deadline = deadline if arms else line.deadline
    return True


cdef inline bint usual_ack(
    Observer *o, const uint32_t *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    """ACK, data and FIN (neither SYN nor RST is set, ACK is): everything of the sender's that came before is known, and
    nothing is acknowledged that was not seen."""
    cdef Table *t = &o.engine.table
    cdef row_t row = key.hint
    cdef int s = key.side
    cdef const Row *line
    cdef const Half *sender
    cdef const Half *receiver
    cdef uint32_t fin, length, odd, entry
    cdef int32_t beyond, fresh
    if not usual_row(t, key, row):
        return False
    line = &t.rows[row]
    sender = &line.seat.half[s]
    receiver = &line.seat.half[s ^ 1]
    fin = g.flags & FIN
    length = g.payload + fin
    beyond = <int32_t>(g.ack - receiver.snd_nxt)
    fresh = <int32_t>(g.seq - sender.snd_nxt)
    entry = usual[usual_at(fin << 1 | <uint32_t>(beyond == 0), s, <uint32_t>line.state[0] << 4 | line.state[1])]
    odd = (
        <uint32_t>(beyond > 0)
        | <uint32_t>(fresh > 0)
        | (<uint32_t>(length != 0) & <uint32_t>(fresh != 0))
        # A FIN that was acknowledged before it was seen.
        | (fin & <uint32_t>(<int32_t>(g.seq + length - receiver.rcv_nxt) <= 0))
        | (<uint32_t>((entry & USUAL_ASKS_SYN) != 0) & <uint32_t>((line.flags & (ROW_SCALED_0 << (s ^ 1))) == 0))
    )
    return usual_apply(o, row, s, g, entry, odd, sender.snd_nxt + length, seq_max(sender.rcv_nxt, g.ack), False, out)


cdef inline bint usual_syn_ack(
    Observer *o, const uint32_t *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    """SYN+ACK of a responder that has just received the SYN, acknowledging all of it."""
    cdef Table *t = &o.engine.table
    cdef row_t row = key.hint
    cdef int s = key.side
    cdef const Row *line
    cdef uint32_t entry, odd
    if not usual_row(t, key, row):
        return False
    line = &t.rows[row]
    entry = usual[usual_at(EV_SYN_ACK, s, <uint32_t>line.state[0] << 4 | line.state[1])]
    odd = g.ack ^ line.seat.half[s ^ 1].snd_nxt
    return usual_apply(o, row, s, g, entry, odd, g.seq + 1 + g.payload, g.ack, True, out)


cdef inline bint usual_segment(
    Observer *o, const uint32_t *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    cdef uint32_t kind = g.flags & (SYN | RST | ACK)
    if kind == ACK:
        return usual_ack(o, usual, key, g, out)
    return kind == SYN | ACK and not g.flags & FIN and usual_syn_ack(o, usual, key, g, out)
