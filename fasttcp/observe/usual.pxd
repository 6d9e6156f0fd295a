# The usual segment: what it adds to a page, found and written without a branch that depends on which one it is.
#
# A SYN that opens, its SYN+ACK, or the RST that refuses it, an ACK with data or without by which nothing is missed or
# repeated, and the FIN or RST that ends a side in order: of most captures nineteen segments in twenty. What is next on
# the wire cannot be predicted, and a wrong guess costs as much as fifty instructions. So every function here asks all
# its questions, adds the answers up, and has one branch on that. False, and nothing was changed: the segment is not
# usual, and notes.pyx takes it step by step. Nothing is decided here that is not decided there; random exchanges
# against the model of the tests hold both to the same answers.
#
# What changes seldom is asked once, when a segment has gone the long way, and kept in a bit of the page: P_USUAL.
#
# Questions whose answer is a difference are told by the upmost bit of a word (negative: odd), questions for equality by
# any bit of another: one "or" for each. That -2^31 stays negative whichever way it is turned, and that a limit is asked
# where it need not be, only sends a segment that has it the long way.
#
# The caller has made sure of: an ordinary verdict (no V_VOID, V_LATE, V_SUSPECT, V_ILLEGAL), the flags that the function
# is for and none of SYN, FIN, RST, ACK beside them, a window above 0 (a RST may have any), a page.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.layout cimport ACK, ROW_SIDE_1_OPENED, Row, Segment, ns_t, row_t
from fasttcp.observe.lapse cimport after
from fasttcp.observe.page cimport (
    M_ACK, M_ACK_WRAPPED, M_CLOSED, M_DATA, M_ENDS, M_EOF, M_FIN, M_GIVEN_UP, M_LAST_WRAPPED, M_RANGES, M_RST, M_SPOKEN,
    M_SYN, P_ATTEMPT, P_DEFERRED, P_DELETE, P_FIN_LETTER, P_INACTIVE, P_OLD_TIME, P_PARTIAL, P_PAST_HANDSHAKE,
    P_PORT_IDLE, P_TOLD, P_USUAL, SHORT_HISTORY, Z_CLOSED, Z_ESTABLISHED, Z_INACTIVE, Z_PARTIAL, Z_RESET, Z_SYN_SENT,
    Journal, Page, Sender, idles,
)

cdef enum:
    SPECIAL = M_GIVEN_UP | M_RANGES | M_LAST_WRAPPED | M_ACK_WRAPPED
    UPMOST = 31


# ---- P_USUAL ---------------------------------------------------------------------------------------------------------

cdef inline bint in_order(const Page *p, int s) noexcept nogil:
    """A side that talks, or has ended and was told so. All it has sent was seen and delivered: `last` is `reach`, or is
    its FIN that follows that; what was acknowledged lies between `start` and `last`; and none of its numbers needs more
    than 31 bits. `trim` tells whether anything of it was acknowledged, as `acked` does."""
    cdef const Sender *side = &p.side[s]
    cdef bint ended = side.marks & M_ENDS != 0
    if (
        side.marks & (M_SPOKEN | SPECIAL) != M_SPOKEN or side.reach >= 0x7FFFFFFF or side.trim > side.reach
        or side.last - side.start != <uint32_t>side.reach + ended
        or side.last < side.start or side.acked - side.start > side.last - side.start
        or (side.trim > 1 and side.acked - side.start <= 1)
    ):
        return False
    if ended:
        return side.state == Z_CLOSED and side.marks & M_EOF and p.fin[s] == side.reach + 1
    return side.state == Z_ESTABLISHED or side.state == Z_PARTIAL


cdef inline uint32_t letters_to_come(const Sender *side) noexcept nogil:
    """D and A, if it has not had them yet."""
    return <uint32_t>(side.marks & M_DATA == 0) + <uint32_t>(side.marks & M_ACK == 0)


cdef inline void settle(Page *p) noexcept nogil:
    """After a segment that has gone the long way: may the next one go the short way? With P_USUAL both sides are
    `in_order`, no close is deferred, the time of the page is that of the row, and there is room for every D and A that
    may still come."""
    p.flags &= ~<uint16_t>P_USUAL
    if (
        in_order(p, 0) and in_order(p, 1) and not p.flags & (P_OLD_TIME | P_DEFERRED) and p.letters >= 2
        and p.letters + letters_to_come(&p.side[0]) + letters_to_come(&p.side[1]) <= SHORT_HISTORY
    ):
        p.flags |= P_USUAL


# ---- questions -------------------------------------------------------------------------------------------------------

cdef inline uint32_t odd_ack(const Sender *peer, const Segment *g) noexcept nogil:
    """Below what was acknowledged before, or beyond what was seen. (Between them the number circle does not end.)"""
    return (g.ack - peer.acked) | (peer.last - g.ack)


cdef inline uint32_t odd_data(const Journal *j, const Sender *me, const Segment *g, uint32_t reach) noexcept nogil:
    """More than is kept: acknowledged by nobody at all, or not yet. reach: with them."""
    return (
        g.payload | (j.most_unacknowledged + me.trim - reach) | ((me.trim - 2) & (j.most_initial - reach))
    )


cdef inline uint32_t small_letter(const Row *line, int s) noexcept nogil:
    """The bit that makes a letter the responder's."""
    return (<uint32_t>line.flags * (32 // ROW_SIDE_1_OPENED) ^ <uint32_t>s * 32) & 32


# A Sender's marks and states, or a page's flags, how many letters, and the first: four bytes that are asked at once.
cdef struct Standing:
    uint16_t marks
    uint8_t  state
    uint8_t  before


cdef inline uint32_t word_of(const uint16_t *marks) noexcept nogil:
    cdef uint32_t word
    memcpy(&word, marks, sizeof(Standing))
    return word


cdef inline uint32_t standing(uint16_t marks, uint8_t state, uint8_t before) noexcept nogil:
    cdef Standing them
    them.marks = marks
    them.state = state
    them.before = before
    return word_of(&them.marks)


cdef inline void add_usual_letter(Page *p, uint32_t letter, uint32_t fresh) noexcept nogil:
    """fresh: 1, or 0 for a letter that was given before. There is room, even for that."""
    p.history[p.letters] = <char>letter
    p.letters += <uint8_t>fresh


# ---- segments --------------------------------------------------------------------------------------------------------

cdef inline bint usual_ack(const Journal *j, Page *p, const Row *line, int s, const Segment *g) noexcept nogil:
    """An ACK, with data or without, of a page with P_USUAL."""
    cdef Sender *me = &p.side[<uint32_t>s]
    cdef Sender *peer = &p.side[<uint32_t>s ^ 1]
    cdef uint32_t data = 0 - <uint32_t>(g.payload != 0)         # all its bits, or none
    cdef uint32_t mark = M_ACK ^ (data & (M_ACK ^ M_DATA))
    cdef uint32_t marks = me.marks
    cdef uint32_t last = me.last + g.payload
    cdef uint32_t reach = <uint32_t>me.reach + g.payload
    cdef uint32_t ip_bytes = me.ip_bytes
    cdef uint32_t ahead = me.last - g.seq
    cdef uint32_t odd = (
        ahead | odd_ack(peer, g) | odd_data(j, me, g, reach) | reach | (me.last & ~last)
        | ip_bytes | g.ip_bytes
    )
    if odd >> UPMOST << UPMOST | ((ahead | (marks & M_ENDS) | (g.info & j.cut_info)) & data):
        return False
    add_usual_letter(p, (c"A" + (data & (c"D" - c"A"))) | small_letter(line, s), ((marks | mark) ^ marks) != 0)
    me.marks = <uint16_t>(marks | mark)
    me.last = last
    me.reach = reach
    me.ip_bytes = ip_bytes + g.ip_bytes
    peer.acked = g.ack
    # A FIN is no data: its own number is not forgotten.
    peer.trim = max(<int32_t>peer.trim, min(<int32_t>(g.ack - peer.start), <int32_t>peer.reach))
    return True


cdef inline bint usual_fin(
    const Journal *j, Page *p, const Row *line, int s, const Segment *g, ns_t *answer
) noexcept nogil:
    """The FIN (and ACK) of a side that talks, to a peer that talks or has ended, of a page with P_USUAL. It acknowledges
    all data of the peer, else the close would be deferred."""
    cdef Sender *me = &p.side[<uint32_t>s]
    cdef Sender *peer = &p.side[<uint32_t>s ^ 1]
    cdef uint32_t last = me.last + g.payload + 1
    cdef uint32_t reach = <uint32_t>me.reach + g.payload
    cdef uint32_t ip_bytes = me.ip_bytes
    cdef uint32_t second
    cdef ns_t wait
    cdef uint64_t end_ns
    cdef uint32_t odd = (
        odd_ack(peer, g) | (g.ack - peer.start - <uint32_t>peer.reach) | odd_data(j, me, g, reach) | (reach + 1)
        | (me.last & ~last) | ip_bytes | g.ip_bytes | (SHORT_HISTORY - 5 - <uint32_t>p.letters)
    )
    if (
        odd >> UPMOST << UPMOST | (g.seq ^ me.last) | (g.info & j.cut_info)
        | (me.marks & (M_ENDS | M_FIN | M_EOF | M_CLOSED))
        | ((p.flags ^ P_PAST_HANDSHAKE) & (P_PAST_HANDSHAKE | P_PORT_IDLE | P_FIN_LETTER | P_TOLD | P_DELETE))
    ):
        return False
    second = <uint32_t>((peer.marks & M_CLOSED) != 0)
    wait = j.after_fin[second]
    end_ns = <uint64_t>line.last_ns + <uint64_t>wait
    if <int64_t>end_ns < 0:
        return False
    add_usual_letter(p, c"F" | small_letter(line, s), 1)
    peer.acked = g.ack
    peer.trim = <uint32_t>peer.reach
    me.marks |= M_FIN | M_ENDS | M_EOF | M_CLOSED
    me.last = last
    me.reach = reach
    me.ip_bytes = ip_bytes + g.ip_bytes
    me.before = me.state
    me.state = Z_CLOSED
    p.fin[<uint32_t>s] = reach + 1
    p.flags |= (0 - second) & (P_INACTIVE | P_DELETE)
    p.end_ns = line.last_ns + (wait & -<ns_t>second)
    answer[0] = <ns_t>end_ns
    return True


cdef inline bint usual_syn(const Journal *j, Page *p, Row *line, int s, const Segment *g, ns_t *answer) noexcept nogil:
    """The SYN with which a connection begins; its page holds what was there before."""
    cdef Sender *me = &p.side[<uint32_t>s]
    cdef Sender *peer = &p.side[<uint32_t>s ^ 1]
    if g.payload or (not j.zeek and small_letter(line, s)):
        return False
    me.reach = 1
    me.start = me.acked = g.seq
    me.last = g.seq + 1
    me.ip_bytes = g.ip_bytes
    me.trim = 1
    me.marks = M_SYN | M_SPOKEN
    me.state = Z_SYN_SENT
    me.before = Z_INACTIVE
    peer.reach = 1
    peer.start = peer.last = peer.acked = peer.ip_bytes = 0
    peer.trim = 1
    peer.marks = 0
    peer.state = peer.before = Z_INACTIVE
    p.fin[0] = p.fin[1] = 0
    p.end_ns = p.rtt_ns = 0
    p.rst[0] = p.rst[1] = 0
    p.flags = P_ATTEMPT
    p.letters = 1
    p.history[0] = c"S"
    if j.zeek:
        line.flags = <uint16_t>((line.flags & ~ROW_SIDE_1_OPENED) | (ROW_SIDE_1_OPENED if s else 0))
        answer[0] = after(g.time_ns, min(j.handshake_idle_ns, j.attempt_ns))
    return True


cdef inline bint usual_syn_ack(const Journal *j, Page *p, const Row *line, int s, const Segment *g) noexcept nogil:
    """The answer to that SYN, and to nothing else."""
    cdef Sender *me = &p.side[<uint32_t>s]
    cdef Sender *peer = &p.side[<uint32_t>s ^ 1]
    if (
        (me.reach ^ 1) | (peer.reach ^ 1) | g.payload | word_of(&me.marks)
        | (word_of(&peer.marks) ^ standing(M_SYN | M_SPOKEN, Z_SYN_SENT, Z_INACTIVE))
        | (word_of(&p.flags) ^ standing(P_ATTEMPT, 1, c"S"))
        | (g.ack ^ (peer.start + 1)) | (g.ack ^ peer.last) | (peer.acked ^ peer.start)
        | (small_letter(line, s) ^ 32) | ((me.ip_bytes | g.ip_bytes) >> UPMOST)
        | <uint32_t>(g.ack == 0) | <uint32_t>(~g.seq == 0)
    ):
        return False
    me.start = me.acked = g.seq
    me.last = g.seq + 1
    me.ip_bytes += g.ip_bytes
    me.marks = M_SYN | M_SPOKEN
    me.state = Z_ESTABLISHED
    me.before = Z_INACTIVE
    peer.acked = g.ack
    peer.state = Z_ESTABLISHED
    peer.before = Z_SYN_SENT
    p.flags = <uint16_t>(P_ATTEMPT | P_PAST_HANDSHAKE | P_USUAL | idles(j, g.sport) * P_PORT_IDLE)
    p.letters = 2
    p.history[1] = c"h"
    return True


cdef inline bint usual_refusal(
    const Journal *j, Page *p, const Row *line, int s, const Segment *g, ns_t *answer
) noexcept nogil:
    """The RST (and ACK) that answers such a SYN."""
    cdef Sender *me = &p.side[<uint32_t>s]
    cdef Sender *peer = &p.side[<uint32_t>s ^ 1]
    cdef uint64_t end_ns = <uint64_t>line.last_ns + <uint64_t>j.close_ns
    if (
        (me.reach ^ 1) | g.payload | word_of(&me.marks)
        | (word_of(&peer.marks) ^ standing(M_SYN | M_SPOKEN, Z_SYN_SENT, Z_INACTIVE))
        | (word_of(&p.flags) ^ standing(P_ATTEMPT, 1, c"S"))
        | (g.ack ^ (peer.start + 1)) | (g.ack ^ peer.last) | (peer.acked ^ peer.start) | (peer.trim ^ 1)
        | (small_letter(line, s) ^ 32) | ((me.ip_bytes | g.ip_bytes | <uint32_t>(end_ns >> 32)) >> UPMOST)
        | <uint32_t>(g.ack == 0)
    ):
        return False
    me.start = me.acked = g.seq - 1
    me.last = g.seq
    me.ip_bytes += g.ip_bytes
    me.marks = M_RST | M_SPOKEN | M_EOF | M_CLOSED
    me.state = Z_RESET
    me.before = Z_INACTIVE
    p.flags = P_ATTEMPT | P_PARTIAL | P_PAST_HANDSHAKE | P_DELETE
    p.letters = 2
    p.history[1] = c"r"
    p.rst[<uint32_t>s] = 1
    p.end_ns = answer[0] = <ns_t>end_ns
    return True


cdef inline bint usual_reset(
    const Journal *j, Page *p, const Row *line, int s, const Segment *g, ns_t *answer
) noexcept nogil:
    """The RST, with an ACK or without, of a side that talks, of a page with P_USUAL."""
    cdef Sender *me = &p.side[<uint32_t>s]
    cdef Sender *peer = &p.side[<uint32_t>s ^ 1]
    cdef uint32_t acks = 0 - <uint32_t>(g.flags & ACK != 0)     # all its bits, or none
    cdef uint32_t ip_bytes = me.ip_bytes
    cdef uint64_t end_ns = <uint64_t>line.last_ns + <uint64_t>j.close_ns
    if (
        ((odd_ack(peer, g) & acks) | ip_bytes | g.ip_bytes | (SHORT_HISTORY - 1 - <uint32_t>p.letters)
         | <uint32_t>(end_ns >> 32)) >> UPMOST
        | (g.seq ^ me.last) | g.payload | (me.marks & (M_RST | M_ENDS | M_EOF | M_CLOSED))
    ):
        return False
    add_usual_letter(p, c"R" | small_letter(line, s), 1)
    # Its ACK is not to be trusted: `acked` stays.
    peer.trim = max(
        <int32_t>peer.trim, min(<int32_t>((g.ack - peer.start) & acks), <int32_t>peer.reach))
    me.marks |= M_RST | M_EOF | M_CLOSED
    me.ip_bytes = ip_bytes + g.ip_bytes
    me.before = me.state
    me.state = Z_RESET
    p.flags ^= P_USUAL
    p.flags |= P_INACTIVE | P_DELETE
    p.rst[<uint32_t>s] = <uint32_t>me.reach
    p.end_ns = answer[0] = <ns_t>end_ns
    return True
