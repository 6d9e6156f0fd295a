# The usual segment: what it adds to a page, found and written without a branch that depends on which one it is.
#
# A SYN that opens, its SYN+ACK, an ACK with data or without by which nothing is missed or repeated, and the FIN that
# ends a side in order: of most captures nine segments in ten. What is next on the wire cannot be predicted, and a wrong
# guess costs as much as fifty instructions. So every function here asks all its questions, adds the answers up in `odd`,
# and has one branch on that. False, and nothing was changed: the segment is not usual, and notes.pyx takes it step by
# step. Nothing is decided here that is not decided there; random exchanges against the model of the tests hold both to
# the same answers.
#
# The caller has made sure of: an ordinary verdict (no V_VOID, V_LATE, V_SUSPECT, V_ILLEGAL), a window above 0, a page.

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport FIN, INFO_CUT, ROW_SIDE_1_OPENED, RST, Row, Segment, ns_t, row_t
from fasttcp.core.observer cimport KEEP_TIMER, Observer
from fasttcp.core.store cimport store_cold
from fasttcp.observe.lapse cimport after, idle_limit
from fasttcp.observe.page cimport (
    M_ACK, M_ACK_WRAPPED, M_CLOSED, M_DATA, M_ENDS, M_EOF, M_FIN, M_GIVEN_UP, M_LAST_WRAPPED, M_RANGES, M_SPOKEN, M_SYN,
    P_ATTEMPT, P_DEFERRED, P_DELETE, P_FIN_LETTER, P_INACTIVE, P_OLD_TIME, P_PAST_HANDSHAKE, P_TOLD, SHORT_HISTORY,
    Z_CLOSED, Z_ESTABLISHED, Z_INACTIVE, Z_PARTIAL, Z_RESET, Z_SYN_SENT, Journal, Page, Sender,
)
from fasttcp.observe.states cimport established

cdef enum:
    SPECIAL = M_GIVEN_UP | M_RANGES | M_LAST_WRAPPED | M_ACK_WRAPPED


cdef inline uint32_t sent_by_originator(const Observer *o, row_t row, int s) noexcept nogil:
    return <uint32_t>((o.engine.table.rows[row].flags & ROW_SIDE_1_OPENED) != 0) ^ <uint32_t>s ^ 1


# A side of which nothing more is to come: its FIN was seen, or its state is closed.
cdef inline uint32_t at_its_end(const Sender *side) noexcept nogil:
    return (
        <uint32_t>((side.marks & M_EOF) == 0)
        & (<uint32_t>((side.marks & M_ENDS) != 0) | <uint32_t>(side.state >= Z_CLOSED))
    )


# stream_pending without SPECIAL marks: are data of this side still to come, or data of its peer to be acknowledged?
cdef inline uint32_t awaits(int64_t ahead, uint8_t state, uint32_t peer_reach, uint32_t peer_trim) noexcept nogil:
    return <uint32_t>(ahead > 1) | (
        <uint32_t>(ahead >= 0) & <uint32_t>(state != Z_RESET) & <uint32_t>(<int32_t>(peer_reach - peer_trim) > 0)
    )


cdef inline int64_t ahead_of(uint32_t last, uint32_t start, uint64_t reach) noexcept nogil:
    return <int64_t>last - <int64_t>start - <int64_t>reach


# What the acknowledgment in a segment makes of its receiver.
cdef struct Acked:
    uint32_t odd
    uint32_t news               # it goes beyond what was acknowledged
    uint32_t trim


cdef inline Acked acknowledge(const Page *p, int s, const Segment *g, bint ending) noexcept nogil:
    """ending: a constant of the caller; without it no FIN of the receiver was seen."""
    cdef const Sender *peer = &p.side[s ^ 1]
    cdef uint32_t acked = g.ack - peer.start
    cdef uint64_t fin
    cdef uint32_t beyond
    cdef Acked a
    a.odd = (
        <uint32_t>(peer.reach > 0x7FFFFFFF) | <uint32_t>(g.ack < peer.acked)
        | <uint32_t>(<int32_t>(g.ack - peer.acked) < 0)
    )
    if ending:
        fin = p.fin[s ^ 1] - 1
        beyond = <uint32_t>((peer.marks & M_ENDS) != 0) & <uint32_t>(acked > fin)
        a.odd |= (beyond & <uint32_t>(fin > 0x7FFFFFFF)) | <uint32_t>(<int32_t>acked < 0)
        acked = <uint32_t>fin if beyond else acked
    a.odd |= <uint32_t>(acked > peer.reach)
    a.news = <uint32_t>(<int32_t>(acked - peer.trim) > 0)
    a.trim = acked if a.news else peer.trim
    return a


cdef inline uint32_t out_of_order(const Journal *j, const Sender *me, const Segment *g, uint32_t last) noexcept nogil:
    """Data, or a FIN, that do not simply go on; or more of them than are kept. last: where they end."""
    cdef uint32_t number = g.seq - me.start
    cdef uint32_t end = number + g.payload
    return (
        (g.seq ^ me.last) | <uint32_t>(last < me.last) | <uint32_t>(me.reach != number)
        | <uint32_t>(number > 0x7FFFFFFF)
        | <uint32_t>(<int32_t>(number - me.trim) < 0)
        | (<uint32_t>(me.acked - me.start <= 1) & <uint32_t>(end > j.max_initial_window))
        | <uint32_t>(end - me.trim > j.max_unacknowledged)
        | (<uint32_t>j.zeek & <uint32_t>((g.info & INFO_CUT) != 0))
    )


cdef inline void put_letter(Page *p, uint32_t fresh, uint32_t letter) noexcept nogil:
    """A letter if it is fresh; the caller knows that there is room for it."""
    cdef uint32_t at = p.letters if p.letters < SHORT_HISTORY else SHORT_HISTORY - 1
    cdef uint32_t former = p.history[at]
    p.history[at] = <char>(former ^ ((former ^ letter) & (0 - fresh)))
    p.letters += <uint8_t>fresh


cdef inline bint usual_ack(
    Journal *j, const Observer *o, row_t row, int s, const Segment *g, bint data
) noexcept nogil:
    """An ACK while both talk. data: a constant of the caller, whether it carries any."""
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[s ^ 1]
    cdef uint32_t mark = M_DATA if data else M_ACK
    cdef uint32_t fresh = <uint32_t>((me.marks & mark) == 0)
    cdef uint32_t last = me.last + g.payload
    cdef uint32_t ip_bytes = me.ip_bytes + g.ip_bytes
    cdef Acked a = acknowledge(p, s, g, False)
    cdef uint32_t odd = (
        a.odd | (out_of_order(j, me, g, last) if data else <uint32_t>(<int32_t>(g.seq - me.last) > 0))
        | ((me.marks ^ M_SPOKEN) & (M_SPOKEN | M_ENDS | SPECIAL)) | (peer.marks & (M_ENDS | SPECIAL))
        | (me.state ^ Z_ESTABLISHED) | (peer.state ^ Z_ESTABLISHED) | (p.flags & (P_OLD_TIME | P_DEFERRED))
        | <uint32_t>(p.letters < 2) | (fresh & <uint32_t>(p.letters >= SHORT_HISTORY))
        | <uint32_t>(ip_bytes < g.ip_bytes)
    )
    if odd:
        return False
    put_letter(p, fresh, (<uint32_t>c"D" if data else <uint32_t>c"A") | (sent_by_originator(o, row, s) ^ 1) << 5)
    me.marks |= <uint16_t>mark
    me.ip_bytes = ip_bytes
    peer.acked = g.ack
    peer.trim = a.trim
    if data:
        me.last = last
        me.reach += g.payload
    return True


cdef inline bint usual_last_ack(Journal *j, const Observer *o, row_t row, int s, const Segment *g) noexcept nogil:
    """An ACK without data at any time: it may be what the end of a side has waited for."""
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[s ^ 1]
    cdef uint32_t fresh = <uint32_t>((me.marks & M_ACK) == 0)
    cdef uint32_t ip_bytes = me.ip_bytes + g.ip_bytes
    cdef uint32_t my_end = at_its_end(me)
    cdef uint32_t peer_end = at_its_end(peer)
    cdef Acked a = acknowledge(p, s, g, True)
    cdef uint32_t odd = (
        a.odd | <uint32_t>(<int32_t>(g.seq - me.last) > 0)
        | ((me.marks ^ M_SPOKEN) & (M_SPOKEN | SPECIAL)) | (peer.marks & SPECIAL)
        | <uint32_t>(me.state == Z_INACTIVE) | <uint32_t>(peer.state == Z_INACTIVE)
        | (p.flags & (P_OLD_TIME | P_DEFERRED))
        | <uint32_t>(p.letters < 2) | (fresh & <uint32_t>(p.letters >= SHORT_HISTORY))
        | <uint32_t>(ip_bytes < g.ip_bytes)
    )
    if odd:
        return False
    peer_end &= a.news & (
        awaits(ahead_of(peer.last, peer.start, peer.reach), peer.state, <uint32_t>me.reach, me.trim) ^ 1)
    my_end &= awaits(ahead_of(me.last, me.start, me.reach), me.state, <uint32_t>peer.reach, a.trim) ^ 1
    put_letter(p, fresh, <uint32_t>c"A" | (sent_by_originator(o, row, s) ^ 1) << 5)
    me.marks |= <uint16_t>(M_ACK | my_end * M_EOF)
    me.ip_bytes = ip_bytes
    peer.marks |= <uint16_t>(peer_end * M_EOF)
    peer.acked = g.ack
    peer.trim = a.trim
    return True


cdef inline bint usual_fin(
    Journal *j, const Observer *o, row_t row, int s, const Segment *g, ns_t *answer
) noexcept nogil:
    """The FIN (and ACK) of a side that talks, to a peer that talks or has sent its own."""
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[s ^ 1]
    cdef uint32_t last = me.last + g.payload + 1
    cdef uint32_t ip_bytes = me.ip_bytes + g.ip_bytes
    cdef uint32_t peer_end = at_its_end(peer)
    cdef uint32_t second = <uint32_t>((peer.marks & M_CLOSED) != 0)
    cdef uint64_t reach = me.reach + g.payload
    cdef Acked a = acknowledge(p, s, g, True)
    cdef uint32_t odd = (
        a.odd | out_of_order(j, me, g, last)
        | ((me.marks | peer.marks) & SPECIAL) | (me.marks & (M_ENDS | M_FIN | M_EOF | M_CLOSED))
        | <uint32_t>((me.marks & M_SPOKEN) == 0)
        | (p.flags & (P_OLD_TIME | P_DEFERRED | P_FIN_LETTER | P_TOLD | P_DELETE))
        | <uint32_t>(p.letters < 2) | <uint32_t>(p.letters >= SHORT_HISTORY)
        | <uint32_t>(reach > 0x7FFFFFFF)
        | <uint32_t>(<uint32_t>me.state - Z_PARTIAL > Z_ESTABLISHED - Z_PARTIAL)
        | <uint32_t>(<uint32_t>peer.state - Z_PARTIAL > Z_CLOSED - Z_PARTIAL)
        | <uint32_t>(ip_bytes < g.ip_bytes)
    )
    cdef ns_t now, end_ns
    if odd:
        return False
    peer_end &= a.news & (
        awaits(ahead_of(peer.last, peer.start, peer.reach), peer.state, <uint32_t>me.reach, me.trim) ^ 1)
    put_letter(p, 1, <uint32_t>c"F" | (sent_by_originator(o, row, s) ^ 1) << 5)
    peer.acked = g.ack
    peer.trim = a.trim
    peer.marks |= <uint16_t>(peer_end * M_EOF)
    me.last = last
    me.reach = reach
    me.ip_bytes = ip_bytes
    me.before = me.state
    me.state = Z_CLOSED
    p.fin[s] = <uint32_t>(last - me.start)
    answer[0] = KEEP_TIMER
    if awaits(ahead_of(last, me.start, reach), Z_CLOSED, <uint32_t>peer.reach, a.trim):
        me.marks |= M_FIN | M_ENDS
        p.flags |= P_DEFERRED | P_TOLD
        return True
    me.marks |= M_FIN | M_ENDS | M_EOF | M_CLOSED
    now = o.engine.table.rows[row].last_ns
    end_ns = p.end_ns
    if second:
        p.flags |= P_INACTIVE | P_DELETE
        p.end_ns = now + j.close_ns if j.close_ns < INT64_MAX - now else end_ns
        answer[0] = p.end_ns
    else:
        p.end_ns = now
        if now != end_ns:
            answer[0] = after(now, idle_limit(j, o, row))
    return True


cdef inline bint usual_syn(Journal *j, Observer *o, row_t row, int s, const Segment *g, ns_t *answer) noexcept nogil:
    """The SYN with which a connection begins; its page holds what was there before."""
    cdef Page *p = &j.pages[row]
    cdef Row *line = &o.engine.table.rows[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[s ^ 1]
    if g.payload | (<uint32_t>g.flags & (FIN | RST)) | (<uint32_t>(not j.zeek) & (sent_by_originator(o, row, s) ^ 1)):
        return False
    me.reach = peer.reach = 1
    me.start = me.acked = g.seq
    me.last = g.seq + 1
    me.ip_bytes = g.ip_bytes
    me.trim = peer.trim = 1
    me.marks = M_SYN | M_SPOKEN
    me.state = Z_SYN_SENT
    me.before = Z_INACTIVE
    peer.start = peer.last = peer.acked = peer.ip_bytes = 0
    peer.marks = 0
    peer.state = peer.before = Z_INACTIVE
    p.fin[0] = p.fin[1] = 0
    p.end_ns = p.rtt_ns = 0
    p.rst[0] = p.rst[1] = 0
    p.flags = P_ATTEMPT
    p.letters = 1
    if j.zeek:
        line.flags = <uint16_t>((line.flags & ~ROW_SIDE_1_OPENED) | (ROW_SIDE_1_OPENED if s else 0))
        answer[0] = min(
            after(line.last_ns, j.handshake_idle_ns), after(store_cold(&o.engine.table, row).first_ns, j.attempt_ns))
    p.history[0] = c"S"
    return True


cdef inline bint usual_syn_ack(Journal *j, Observer *o, row_t row, int s, const Segment *g) noexcept nogil:
    """The answer to that SYN, and to nothing else."""
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[s ^ 1]
    cdef uint32_t ip_bytes = me.ip_bytes + g.ip_bytes
    cdef uint32_t odd = (
        g.payload | (<uint32_t>g.flags & (FIN | RST)) | me.marks | <uint32_t>(me.state != Z_INACTIVE)
        | (<uint32_t>p.flags ^ P_ATTEMPT) | (<uint32_t>p.letters ^ 1) | (<uint32_t>p.history[0] ^ c"S")
        | (<uint32_t>peer.marks ^ (M_SYN | M_SPOKEN)) | <uint32_t>(peer.state != Z_SYN_SENT)
        | (g.ack ^ (peer.start + 1)) | (g.ack ^ peer.last) | (peer.acked ^ peer.start) | <uint32_t>(g.ack == 0)
        | sent_by_originator(o, row, s) | <uint32_t>(ip_bytes < g.ip_bytes)
    )
    if odd:
        return False
    me.start = me.acked = g.seq
    me.last = g.seq + 1
    me.ip_bytes = ip_bytes
    me.marks = M_SYN | M_SPOKEN
    me.before = Z_INACTIVE
    me.state = Z_ESTABLISHED
    peer.acked = g.ack
    peer.before = Z_SYN_SENT
    peer.state = Z_ESTABLISHED
    p.flags = P_ATTEMPT | P_PAST_HANDSHAKE
    p.letters = 2
    p.history[1] = c"h"
    if j.n_port_idle:
        established(j, o, row)
    return True
