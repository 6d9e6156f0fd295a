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
from libc.string cimport memcmp, memcpy

from fasttcp.core.hash cimport Key
from fasttcp.core.layout cimport (
    ACK, FIN, ROW_IPV6, RST, SYN, Half, Observed, Row, Segment, ns_t, row_t, seq_max, tick_t,
)
from fasttcp.core.prefetch cimport load32, load64, settle, settle_pointer, store64
from fasttcp.core.store cimport Table, store_arm_ns, store_cold, store_move_states
from fasttcp.core.tap cimport KEEP_TIMER, ROW_BLANK, Observer, Verdict, learn_scale
from fasttcp.core.wheel cimport WHEEL_SLOTS

cdef extern from *:
    """
    /* Half.window, packets and bytes as one number: so they are counted by one addition, and a carry is seen in it. */
    #define HALF_PACKETS (FASTTCP_BIG_ENDIAN ? 32 : 16)
    #define HALF_BYTES (FASTTCP_BIG_ENDIAN ? 0 : 32)
    #define HALF_WINDOW (FASTTCP_BIG_ENDIAN ? 48 : 0)
    #define HALF_CARRIES (FASTTCP_BIG_ENDIAN ? 16 : 32)     /* from the upper one of both signs to the lower one */
    """
    const int HALF_PACKETS, HALF_BYTES, HALF_WINDOW, HALF_CARRIES

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
    USUAL_BEFORE = 8                # the bit from which on stands the pair of states before
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


cdef inline bint usual_row(const Table *t, const Key *key, const Row *line) noexcept nogil:
    """Whether the row that was fetched for this key is the one that has it, and is not blank. What is left to be asked:
    whether it is in use. (A free row has no timer: it is odd.)"""
    if (
        (load64(line.addr) ^ load64(key.addr)) | <uint64_t>(load32(line.port) ^ load32(key.port))
        | <uint64_t>((line.flags ^ key.v6) & (ROW_IPV6 | ROW_BLANK))
    ):
        return False
    return not key.v6 or (
        memcmp(t.addr6 + <size_t>key.hint * 32, key.wide[0], 16) == 0
        and memcmp(t.addr6 + <size_t>key.hint * 32 + 16, key.wide[1], 16) == 0
    )


# What is odd is told by the upmost bit of a word: one "or" for each question, and no branch. Differences of sequence
# numbers and of ticks have it when they are negative; that -2^31 stays negative whichever way it is turned only sends a
# segment that has it to the general path.

cdef inline bint usual_apply(
    Observer *o, const Key *key, Row *line, const Segment *g, const Usual *entry, uint32_t odd, bint syn, Verdict *out
) noexcept nogil:
    """What every usual segment does: states, numbers of its sender, counters, times, the verdict. False, and nothing is
    changed, when `odd`, or anything found here, says that it is not usual. syn: a constant of the caller."""
    cdef Table *t = &o.engine.table
    cdef Half *sender = &line.seat.half[key.side]
    cdef uint32_t after = entry.what & 0xFF
    cdef uint32_t arms = <uint32_t>(<int32_t>(entry.what << 1) >> 31)          # all its bits, or none
    cdef tick_t deadline = <tick_t>(t.now_tick + (g.time_ns != t.tick_start_ns) + o.timeout[after])
    cdef uint32_t cursor = <uint32_t>t.wheel.cursor
    cdef uint64_t counters = load64(&sender.window)
    cdef uint64_t carries = counters
    cdef ns_t later
    odd |= entry.what | g.payload                           # (so many bytes no packet holds)
    settle(odd)
    odd |= 0 - (g.info & o.void_info)
    odd |= line.deadline - <tick_t>t.now_tick - 2           # a timer that is due within the next tick is asked first
    settle(odd)
    # A timer that would have to move in the wheel is moved. It stands no further ahead than the horizon, so that a deadline
    # beyond that is no question of its own.
    odd |= ~(<uint32_t>line.parked << 16)                   # not PARKED
    odd |= arms & (deadline - cursor - ((line.parked - cursor) & (WHEEL_SLOTS - 1)))
    settle(odd)
    counters += (<uint64_t>1 << HALF_PACKETS) + (<uint64_t>g.payload << HALF_BYTES)
    carries &= ~counters
    odd |= <uint32_t>(carries | carries >> HALF_CARRIES)
    if <int32_t>odd < 0:
        return False
    settle_pointer(g)                                               # from here on its fields are read again, not kept
    if syn:
        learn_scale(line, key.side, g)
        line.seat.half[key.side ^ 1].rcv_nxt = g.seq        # what the other acknowledges is told apart from here on
        (<Observed *>store_cold(t, key.hint)).isn[key.side] = g.seq
        sender.snd_nxt = g.seq + 1
        sender.rcv_nxt = g.ack
    else:
        sender.rcv_nxt = seq_max(sender.rcv_nxt, g.ack)
    sender.snd_nxt += g.payload + (0 if syn else g.flags & FIN)
    store64(&sender.window, (counters & ~(<uint64_t>0xFFFF << HALF_WINDOW)) | <uint64_t>g.window << HALF_WINDOW)
    t.now_ns = g.time_ns
    line.last_ns = g.time_ns
    store_move_states(t, key.hint, entry.what >> USUAL_BEFORE & 0xFF, after)
    memcpy(line.state, entry.state, 2)
    out.row = key.hint
    memcpy(&out.flags, entry, 4)
    if o.watch.seen != NULL:
        later = o.watch.seen(o.watch.context, o, key.hint, key.side, g, entry.verdict)
        if later != 0:
            if later != KEEP_TIMER:
                store_arm_ns(t, key.hint, later)
            return True
    line.deadline ^= (line.deadline ^ deadline) & arms
    return True


cdef inline bint usual_ack(
    Observer *o, const Usual *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    """ACK, data and FIN (neither SYN nor RST is set, ACK is): everything of the sender's that came before is known, and
    nothing is acknowledged that was not seen."""
    cdef Row *line = &o.engine.table.rows[key.hint]
    cdef const Half *sender = &line.seat.half[key.side]
    cdef const Half *receiver = &line.seat.half[key.side ^ 1]
    cdef uint32_t fin, length, covered, fresh, odd
    if not usual_row(&o.engine.table, key, line):
        return False
    fin = g.flags & FIN
    length = g.payload + fin
    covered = receiver.snd_nxt - g.ack
    fresh = g.seq - sender.snd_nxt
    odd = covered | 0 - fresh                               # it acknowledges what was not seen; something is missing before it,
    odd |= fresh & (0 - length)                             # or it brings again what is known
    settle(odd)
    return usual_apply(o, key, line, g, &usual[
        usual_at(fin << 1 | <uint32_t>(covered == 0), key.side, <uint32_t>line.state[0] << 4 | line.state[1])
    ], odd, False, out)


cdef inline bint usual_syn_ack(
    Observer *o, const Usual *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    """SYN+ACK of a responder that has just received the SYN, acknowledging all of it."""
    cdef Row *line = &o.engine.table.rows[key.hint]
    if not usual_row(&o.engine.table, key, line) or g.ack != line.seat.half[key.side ^ 1].snd_nxt:
        return False
    return usual_apply(
        o, key, line, g, &usual[usual_at(EV_SYN_ACK, key.side, <uint32_t>line.state[0] << 4 | line.state[1])], 0, True, out
    )


cdef inline bint usual_segment(
    Observer *o, const Usual *usual, const Key *key, const Segment *g, Verdict *out
) noexcept nogil:
    """Whether it was usual, and has been applied. It must not be late, and the record of steps must be off."""
    cdef uint32_t kind = g.flags & (SYN | RST | ACK)
    if kind == ACK:
        return usual_ack(o, usual, key, g, out)
    return kind == SYN | ACK and not g.flags & FIN and usual_syn_ack(o, usual, key, g, out)
