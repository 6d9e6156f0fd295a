"""Zeek's state of each endpoint, and when one has closed for good (TCPSessionAdapter.cc).

What must not stand here: a transition of our own machine (that is the observer's), letters but for ^, time-outs. These
states are a view for the log: nothing in the table depends on them but the rules of Zeek's profile.
"""

from libc.stdint cimport INT64_MAX, uint8_t, uint16_t, uint32_t

from fasttcp.core.layout cimport ACK, FIN, ROW_SIDE_1_OPENED, RST, SYN, Row, Segment, row_t
from fasttcp.core.tap cimport Observer, observer_set_originator
from fasttcp.observe.page cimport (
    M_CLOSED, M_LETTERS, M_SPOKEN, P_ATTEMPT, P_DEFERRED, P_DELETE, P_INACTIVE, P_PARTIAL, P_PAST_HANDSHAKE,
    P_PORT_IDLE, P_TOLD, Z_CLOSED, Z_ESTABLISHED, Z_INACTIVE, Z_PARTIAL, Z_RESET, Z_SYN_ACK_SENT, Z_SYN_SENT, Journal,
    Page, Sender, add_letter, idles, is_originator, last_time,
)
from fasttcp.observe.stream cimport stream_pending


cdef void turn_round(Journal *j, Observer *o, row_t row) noexcept nogil:
    """The originator was the responder all along. Which letters were given is remembered by role, not by host, and stays
    with the role; neither side's next segment counts as its first."""
    cdef Page *p = &j.pages[row]
    cdef uint16_t letters = (p.side[0].marks ^ p.side[1].marks) & M_LETTERS
    p.side[0].marks = (p.side[0].marks ^ letters) | M_SPOKEN
    p.side[1].marks = (p.side[1].marks ^ letters) | M_SPOKEN
    p.flags &= ~<uint16_t>P_PARTIAL
    observer_set_originator(o, row, 1 if is_originator(o, row, 0) else 0)


# ---- states ----------------------------------------------------------------------------------------------------------

cdef inline bint handshaking(uint8_t state) noexcept nogil:
    return state <= Z_SYN_ACK_SENT


cdef void to_state(Page *p, int s, uint8_t state) noexcept nogil:
    cdef Sender *side = &p.side[s]
    if state == side.state:
        return
    if not handshaking(state) and handshaking(side.state) and handshaking(p.side[1 - s].state):
        p.flags |= P_PAST_HANDSHAKE
    side.before = side.state
    side.state = state


cdef void established(Journal *j, Observer *o, row_t row) noexcept nogil:
    """A responder has answered: some ports are known for long silences (policy of protocols/conn/inactivity.zeek)."""
    cdef const Row *line = &o.engine.table.rows[row]
    cdef uint32_t port = line.port[0 if line.flags & ROW_SIDE_1_OPENED else 1]
    j.pages[row].flags |= P_PORT_IDLE * <uint16_t>idles(j, port)


cdef int from_inactive(Journal *j, Observer *o, row_t row, int s, const Segment *g) noexcept nogil:
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[1 - s]
    cdef bint orig = is_originator(o, row, s), rejects
    cdef int answer = 0
    if g.flags & SYN:
        if orig:
            to_state(p, s, Z_SYN_ACK_SENT if g.flags & ACK else Z_SYN_SENT)
            p.flags |= P_ATTEMPT
        else:
            if not g.flags & ACK and peer.state == Z_SYN_ACK_SENT and g.seq == me.start and j.zeek:
                turn_round(j, o, row)               # the SYN+ACK had overtaken this SYN
                add_letter(j, row, c"^")
                to_state(p, 1 - s, Z_ESTABLISHED)
            if peer.state == Z_SYN_SENT:
                to_state(p, 1 - s, Z_ESTABLISHED)
            to_state(p, s, Z_ESTABLISHED)
            if peer.state != Z_PARTIAL:
                established(j, o, row)
    if g.flags & FIN:
        to_state(p, s, Z_CLOSED)
        answer = DO_CLOSE | DO_TELL
    if g.flags & RST:
        to_state(p, s, Z_RESET)
        if orig:
            rejects = peer.state == Z_ESTABLISHED
        else:
            rejects = peer.state == Z_SYN_SENT or peer.state == Z_SYN_ACK_SENT
        answer = DO_CLOSE if rejects else DO_CLOSE | DO_TELL
    if me.state != Z_INACTIVE:
        return answer
    if not orig and g.payload == 0 and peer.state == Z_SYN_SENT:
        pass                                        # some acknowledge the SYN before they answer it
    elif g.flags & ACK and peer.state == Z_ESTABLISHED:
        to_state(p, s, Z_ESTABLISHED)               # only its SYN was not captured
        p.flags &= ~<uint16_t>P_PARTIAL
        me.marks |= M_SPOKEN
    else:
        to_state(p, s, Z_PARTIAL)
    return answer


cdef int next_state(Journal *j, Observer *o, row_t row, int s, const Segment *g) noexcept nogil:
    """Take the sender's endpoint on; DO_... says what is to be done about it."""
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[1 - s]
    cdef int answer = 0
    if me.state == Z_INACTIVE:
        return from_inactive(j, o, row, s, g)
    if me.state == Z_SYN_SENT or me.state == Z_SYN_ACK_SENT:
        if g.flags & FIN:
            to_state(p, s, Z_CLOSED)
            answer = DO_CLOSE | DO_TELL
        if g.flags & RST:
            to_state(p, s, Z_RESET)
            p.flags |= P_INACTIVE
            answer |= DO_CLOSE
    elif me.state == Z_ESTABLISHED or me.state == Z_PARTIAL:
        if g.flags & (SYN | ACK) == SYN and me.state == Z_PARTIAL and peer.state == Z_INACTIVE:
            to_state(p, s, Z_SYN_SENT)
        if g.flags & (FIN | RST) == FIN:
            to_state(p, s, Z_CLOSED)
            if peer.state == Z_RESET and peer.before == Z_CLOSED:
                to_state(p, 1 - s, Z_CLOSED)        # FIN, then RST, now this FIN: an orderly end after all
            answer = DO_CLOSE | DO_TELL
        if g.flags & RST:
            to_state(p, s, Z_RESET)
            answer = DO_CLOSE
            if peer.state != Z_RESET or peer.before != Z_ESTABLISHED:
                p.flags |= P_INACTIVE
    elif me.state == Z_CLOSED:
        if g.flags & RST and peer.state != Z_CLOSED:
            to_state(p, s, Z_RESET)
            if not me.marks & M_CLOSED:
                answer = DO_CLOSE
    return answer


# ---- closing ---------------------------------------------------------------------------------------------------------

cdef void close_side(Journal *j, Observer *o, row_t row, int s, bint tell) noexcept nogil:
    """Side `s` has closed, unless data are still to come or to be acknowledged; then that is put off."""
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[1 - s]
    if stream_pending(j, row, s):
        p.flags |= P_DEFERRED
        if tell:
            p.flags |= P_TOLD
        return
    p.flags &= ~<uint16_t>P_DEFERRED
    if me.marks & M_CLOSED:
        return
    me.marks |= M_CLOSED
    if me.state == Z_RESET or peer.marks & M_CLOSED or peer.state == Z_INACTIVE:
        if (me.before != Z_INACTIVE or peer.state != Z_INACTIVE) and (tell or p.flags & P_TOLD):
            p.flags |= P_INACTIVE
        p.flags |= P_DELETE
        if j.close_ns < INT64_MAX - last_time(j, o, row):
            p.end_ns = last_time(j, o, row) + j.close_ns
    elif me.before != Z_INACTIVE:
        p.end_ns = last_time(j, o, row)
