"""Zeek's view of a connection's two endpoints: what each segment adds to the journal, when a connection is over for Zeek.

What must not stand here: a transition of our own machine (that is the observer's, before this is asked), formats of a log.
The steps for one segment stand in Zeek's order (TCPSessionAdapter.cc, Process), because many of them look at what the ones
before them have changed: numbers, letters, the ACK, the highest number, the state, what the ACK reveals, the data, the close.

Timers: Zeek runs several for a connection, the table has one a row. It is armed for the earliest, and what fires asks again;
so it may be early, never late, and no segment but the first and a closing one touches it. Expiry checks run from the first
segment on at tcp_SYN_timeout, then each tcp_session_timer; between them a connection whose checks can find nothing is not
visited, and the next check is computed when it begins to matter.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from fasttcp.core.layout cimport (
    ACK, FIN, INFO_BAD_CHECKSUM, INFO_BAD_HEADER, INFO_CUT, ROW_SIDE_1_OPENED, RST, SYN, Observed, Row, Segment, ns_t, row_t,
)
from fasttcp.core.names cimport S_ESTABLISHED
from fasttcp.core.observer cimport (
    KEEP_TIMER, V_CHANGED, V_ILLEGAL, V_LATE, V_NEW, V_SUSPECT, V_VOID, Observer, observer_set_originator,
)
from fasttcp.core.store cimport store_cold
from fasttcp.observe.page cimport (
    M_ACK, M_ACK_WRAPPED, M_CLOSED, M_DATA, M_ENDS, M_EOF, M_FIN, M_FIN_RST, M_GIVEN_UP, M_LAST_WRAPPED, M_MULTI, M_RANGES,
    M_RST, M_SPOKEN, M_SYN, P_ATTEMPT, P_CHECKED, P_DEFERRED, P_DELETE, P_FIN_LETTER, P_INACTIVE, P_MANY_WRAPS, P_MARGIN, P_OLD_TIME, P_PARTIAL,
    P_PAST_HANDSHAKE, P_PORT_IDLE, P_TOLD, Z_CLOSED, Z_ESTABLISHED, Z_INACTIVE, Z_PARTIAL, Z_RESET, Z_SYN_ACK_SENT,
    Z_SYN_SENT, Journal, Margin, Page, Sender, ack_wraps, add_counted, add_letter, is_originator, journal_grow,
    last_wraps, margin_of, relative,
)
from fasttcp.observe.stream cimport may_be_at_end, stream_ack, stream_data, stream_pending

cdef enum:
    FAR = 1 << 20               # a SYN or RST this far from the highest number says nothing about it
    UNUSUAL = V_NEW | V_VOID | V_LATE | V_SUSPECT | V_ILLEGAL
    SPECIAL = M_GIVEN_UP | M_RANGES | M_LAST_WRAPPED | M_ACK_WRAPPED
    DO_CLOSE = 1                # answers of the state machine
    DO_TELL = 2                 # ... and Zeek would call it a finished connection


cdef inline ns_t began(Observer *o, row_t row) noexcept nogil:
    return store_cold(&o.engine.table, row).first_ns


cdef inline ns_t last_time(const Journal *j, const Observer *o, row_t row) noexcept nogil:
    if j.pages[row].flags & P_OLD_TIME:
        return j.margins[row].last_ns
    return o.engine.table.rows[row].last_ns


# ---- who is the originator -------------------------------------------------------------------------------------------

cdef inline bint serves(const Journal *j, uint16_t port) noexcept nogil:
    return (j.server_ports[port >> 6] >> (port & 63)) & 1


cdef bint sent_by_responder(const Journal *j, const Segment *g) noexcept nogil:
    """The first segment is no SYN: was it sent by a server (TCP.cc, WantConnection)?"""
    cdef int i
    cdef bint broadcast = True
    if g.flags & (SYN | ACK) == SYN or not serves(j, g.sport):
        return False
    if serves(j, g.dport) and (g.flags & SYN or g.sport >= g.dport):
        return False
    for i in range(12, 16):
        broadcast &= g.dst[i] == 0xFF
    return not (broadcast and g.dst[10] == 0xFF and g.dst[0] == 0)


cdef void turn_round(Journal *j, Observer *o, row_t row) noexcept nogil:
    """The originator was the responder all along."""
    j.pages[row].flags &= ~<uint16_t>P_PARTIAL
    observer_set_originator(o, row, 1 if is_originator(o, row, 0) else 0)


# ---- numbers ---------------------------------------------------------------------------------------------------------

cdef inline void number_from(Sender *side, uint32_t start, uint32_t last) noexcept nogil:
    side.start = start
    side.acked = start
    side.last = last


cdef void begin_numbers(Sender *me, const Segment *g, uint32_t end) noexcept nogil:
    """The first segment of a side, or a SYN, says where its numbers begin."""
    if g.flags & SYN:
        if me.state == Z_CLOSED or (me.state == Z_RESET and me.before != Z_INACTIVE):
            return
        if me.state == Z_INACTIVE or g.seq != me.start or me.state == Z_ESTABLISHED or me.state == Z_PARTIAL:
            number_from(me, g.seq, end)
    elif me.state == Z_INACTIVE:
        number_from(me, g.seq - 1, g.seq)           # as if there had been a SYN before it


cdef void wrapped(Journal *j, row_t row, int s, uint16_t mark) noexcept nogil:
    """`last` or `acked` of a side has passed the end of the number circle, once more."""
    cdef Page *p = &j.pages[row]
    cdef Margin *m
    cdef int i
    if not p.side[s].marks & mark and not p.flags & P_MANY_WRAPS:
        p.side[s].marks |= mark
        return
    m = margin_of(j, row)
    if not p.flags & P_MANY_WRAPS:
        for i in range(2):
            m.last_wraps[i] = (p.side[i].marks & M_LAST_WRAPPED) != 0
            m.ack_wraps[i] = (p.side[i].marks & M_ACK_WRAPPED) != 0
        p.flags |= P_MANY_WRAPS
    p.side[s].marks |= mark
    if mark == M_LAST_WRAPPED:
        m.last_wraps[s] += 1
    else:
        m.ack_wraps[s] += 1


cdef inline void move_last(Journal *j, row_t row, int s, uint32_t number) noexcept nogil:
    cdef Sender *side = &j.pages[row].side[s]
    cdef uint32_t before = side.last
    side.last = number
    if number < before:
        wrapped(j, row, s, M_LAST_WRAPPED)


cdef inline void move_acked(Journal *j, row_t row, int s, uint32_t number) noexcept nogil:
    cdef Sender *side = &j.pages[row].side[s]
    cdef uint32_t before = side.acked
    cdef int32_t delta = <int32_t>(number - before)
    if delta <= 0 or (number == 0 and delta > FAR):     # an ACK of 0 is more likely broken than there by chance
        return
    side.acked = number
    if number < before:
        wrapped(j, row, s, M_ACK_WRAPPED)


# ---- letters ---------------------------------------------------------------------------------------------------------

cdef inline char cased(char letter, bint orig) noexcept nogil:
    return letter if orig else letter | 0x20


cdef inline void once(Journal *j, row_t row, Sender *me, uint16_t mark, char letter) noexcept nogil:
    if not me.marks & mark:
        me.marks |= mark
        add_letter(j, row, letter)


cdef void control_letters(
    Journal *j, row_t row, int s, const Segment *g, uint64_t number, bint orig
) noexcept nogil:
    """S, H, F, R again only with another number; two of them in one segment: I or Q."""
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef uint16_t control = g.flags & (SYN | FIN | RST)
    cdef char letter
    cdef uint32_t former
    if control & (control - 1):
        if control & FIN and not p.flags & P_FIN_LETTER and (me.marks | p.side[1 - s].marks) & M_FIN:
            margin_of(j, row).fin_letter[0] = <uint32_t>(p.fin[0] - 1)  # before this FIN, which has no F, takes its place
            margin_of(j, row).fin_letter[1] = <uint32_t>(p.fin[1] - 1)
            p.flags |= P_FIN_LETTER
        if control & (FIN | RST) == FIN | RST:
            once(j, row, me, M_FIN_RST, cased(c"I", orig))
        else:
            once(j, row, me, M_MULTI, cased(c"Q", orig))
    elif control == SYN:
        letter = cased(c"H" if g.flags & ACK else c"S", orig)
        former = j.margins[row].syn[s] if p.flags & P_MARGIN else 0
        if not me.marks & M_SYN or <uint32_t>number != former:
            add_letter(j, row, letter)
        me.marks |= M_SYN
        if <uint32_t>number != former:
            margin_of(j, row).syn[s] = <uint32_t>number
    elif control == FIN:
        former = j.margins[row].fin_letter[s] if p.flags & P_FIN_LETTER else <uint32_t>(p.fin[s] - 1)
        if not me.marks & M_FIN or <uint32_t>number + g.payload != former:
            add_letter(j, row, cased(c"F", orig))
        me.marks |= M_FIN
        if p.flags & P_FIN_LETTER:
            margin_of(j, row).fin_letter[s] = <uint32_t>number + g.payload
    else:
        if not me.marks & M_RST or <uint32_t>number != p.rst[s]:
            add_letter(j, row, cased(c"R", orig))
        me.marks |= M_RST
        p.rst[s] = <uint32_t>number


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
    cdef uint32_t i, port = line.port[0 if line.flags & ROW_SIDE_1_OPENED else 1]
    for i in range(j.n_port_idle):
        if j.port_idle[i].port == port:
            j.pages[row].flags |= P_PORT_IDLE


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
                me.marks |= M_SPOKEN
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


cdef inline void at_end(Journal *j, Observer *o, row_t row, int s) noexcept nogil:
    """Side `s` may have delivered all that it ever will: a close that waited for that happens now."""
    cdef Page *p = &j.pages[row]
    if may_be_at_end(&p.side[s]) and not stream_pending(j, row, s):
        p.side[s].marks |= M_EOF
        if p.flags & P_DEFERRED:
            close_side(j, o, row, s, (p.flags & P_TOLD) != 0)
            p.flags &= ~<uint16_t>P_DEFERRED


# ---- when a connection is over ---------------------------------------------------------------------------------------

cdef inline ns_t after(ns_t start, ns_t wait) noexcept nogil:
    return start + wait if wait < INT64_MAX - start else INT64_MAX


cdef inline ns_t idle_limit(const Journal *j, const Observer *o, row_t row) noexcept nogil:
    cdef const Page *p = &j.pages[row]
    cdef const Row *line = &o.engine.table.rows[row]
    cdef uint32_t i, port
    if not p.flags & P_PAST_HANDSHAKE:
        return j.handshake_idle_ns
    if p.flags & P_PORT_IDLE:
        port = line.port[0 if line.flags & ROW_SIDE_1_OPENED else 1]
        for i in range(j.n_port_idle):
            if j.port_idle[i].port == port:
                return j.port_idle[i].idle_ns
    return j.idle_ns


cdef inline bint check_matters(const Page *p) noexcept nogil:
    """Can an expiry check remove this connection?"""
    cdef bint silent = p.side[0].state == Z_INACTIVE or p.side[1].state == Z_INACTIVE
    if p.flags & P_INACTIVE:
        return False
    if (p.side[0].marks | p.side[1].marks) & M_CLOSED:
        return silent or p.side[0].state == Z_RESET or p.side[1].state == Z_RESET
    return p.side[0].state == Z_INACTIVE and p.side[1].state == Z_INACTIVE


cdef ns_t following_check(const Journal *j, ns_t first, ns_t now) noexcept nogil:
    if first > now:
        return first
    return first + ((now - first) // j.check_ns + 1) * j.check_ns


cdef ns_t next_look(Journal *j, Observer *o, row_t row, ns_t now) noexcept nogil:
    """When the row's timer is to fire: the earliest of what Zeek's would do."""
    cdef Page *p = &j.pages[row]
    cdef Margin *m
    cdef ns_t due, check
    if p.flags & P_DELETE:
        return p.end_ns
    due = after(last_time(j, o, row), idle_limit(j, o, row))
    if p.flags & (P_ATTEMPT | P_INACTIVE) == P_ATTEMPT and waiting(p, o, row):
        due = min(due, after(began(o, row), j.attempt_ns))
    if check_matters(p):
        m = margin_of(j, row)
        if not p.flags & P_CHECKED:
            p.flags |= P_CHECKED
            m.check_ns = following_check(j, after(began(o, row), j.first_check_ns), now)
            if p.end_ns != 0:
                check = following_check(j, after(p.end_ns, j.check_ns), now)
                m.check_ns = min(m.check_ns, check)
        due = min(due, m.check_ns)
    return due


cdef inline bint waiting(const Page *p, const Observer *o, row_t row) noexcept nogil:
    """An attempt without any answer."""
    cdef int first = 0 if is_originator(o, row, 0) else 1
    return (
        (p.side[first].state == Z_SYN_SENT or p.side[first].state == Z_SYN_ACK_SENT)
        and p.side[1 - first].state == Z_INACTIVE
    )


cdef ns_t journal_due(void *context, Observer *o, row_t row, ns_t now_ns) noexcept nogil:
    """A Watch.due: the attempt, expiry, inactivity and deletion timers of TCPSessionAdapter.cc and Session.cc."""
    cdef Journal *j = <Journal *>context
    cdef Page *p
    cdef ns_t last
    if row >= j.capacity:
        return 0
    p = &j.pages[row]
    if p.flags & P_DELETE:
        return 0 if p.end_ns <= now_ns else p.end_ns
    last = last_time(j, o, row)
    if after(last, idle_limit(j, o, row)) <= now_ns:
        return 0
    if (
        p.flags & (P_ATTEMPT | P_INACTIVE) == P_ATTEMPT and waiting(p, o, row)
        and after(began(o, row), j.attempt_ns) <= now_ns
    ):
        return 0
    if p.flags & P_CHECKED and j.margins[row].check_ns <= now_ns:
        if check_matters(p) and after(last, j.linger_ns) < now_ns:
            return 0
        j.margins[row].check_ns = now_ns + j.check_ns
    return max(next_look(j, o, row, now_ns), now_ns + 1)


cdef bint journal_splits(void *context, Observer *o, row_t row, int s, const Segment *g) noexcept nogil:
    """A Watch.splits: does a segment with SYN belong to a new connection (TCPSessionAdapter.cc, IsReuse)?"""
    cdef Journal *j = <Journal *>context
    cdef Page *p
    cdef int first
    if row >= j.capacity or g.info & INFO_BAD_HEADER:
        return False
    p = &j.pages[row]
    first = 0 if is_originator(o, row, 0) else 1
    if g.flags & ACK and p.side[first].state != Z_INACTIVE:
        return False
    if (p.side[0].marks | p.side[1].marks) & M_CLOSED:
        return True
    if g.seq == p.side[1 - first if g.flags & ACK else first].start:
        return False
    return not (                                    # the SYN that its SYN+ACK has overtaken
        not g.flags & ACK and p.side[first].state == Z_SYN_ACK_SENT and p.side[1 - first].state == Z_INACTIVE
        and g.seq == p.side[1 - first].start
    )


# ---- one segment -----------------------------------------------------------------------------------------------------

cdef inline void add_ip_bytes(Journal *j, row_t row, int s, uint32_t n) noexcept nogil:
    cdef Sender *side = &j.pages[row].side[s]
    side.ip_bytes += n
    if side.ip_bytes < n:
        margin_of(j, row).ip_carry[s] += 1


cdef inline bint cut(const Journal *j, const Segment *g) noexcept nogil:
    """Zeek puts data together, so what the capture has cut short was never there; for us its numbers are enough."""
    return j.zeek and g.info & INFO_CUT != 0


cdef inline bint plain(Journal *j, const Observer *o, row_t row, int s, const Segment *g) noexcept nogil:
    """An ACK, with data or without, by which nothing is missed, closed or repeated: all that `note` would do with it.

    False, and nothing is done: it is no such one. Random exchanges against the model hold both ways to the same answers.
    """
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[1 - s]
    cdef uint32_t number = g.seq - me.start
    cdef uint32_t acked = g.ack - peer.start
    cdef uint32_t last = me.last + g.payload
    if (me.marks | peer.marks) & SPECIAL or not me.marks & M_SPOKEN or p.flags & (P_OLD_TIME | P_DEFERRED):
        return False
    if me.state == Z_INACTIVE or peer.state == Z_INACTIVE or p.letters < 2:
        return False
    if <int32_t>(number | acked) < 0 or peer.reach > 0x7FFFFFFF:      # too far from the start for 32 bits
        return False
    if may_be_at_end(me) or may_be_at_end(peer) or (g.payload != 0 and me.state == Z_RESET):
        return False
    if g.payload == 0:
        if <int32_t>(g.seq - me.last) > 0:
            return False
    elif (
        g.seq != me.last or last < me.last or me.reach != number or <int32_t>(number - me.trim) < 0
        or (me.acked - me.start <= 1 and number + g.payload > j.max_initial_window)
        or number + g.payload - me.trim > j.max_unacknowledged or cut(j, g)
    ):
        return False
    if peer.marks & M_ENDS and acked >= p.fin[1 - s]:
        if p.fin[1 - s] - 1 > 0x7FFFFFFF:
            return False
        acked = <uint32_t>(p.fin[1 - s] - 1)
    if g.ack != peer.acked:
        if g.ack < peer.acked or <int32_t>(g.ack - peer.acked) < 0 or acked > peer.reach:
            return False
        peer.acked = g.ack
        if <int32_t>(acked - peer.trim) > 0:
            peer.trim = acked
    elif <int32_t>(acked - peer.trim) > 0:
        return False
    if g.payload != 0:
        if not me.marks & M_DATA:
            once(j, row, me, M_DATA, cased(c"D", is_originator(o, row, s)))
    elif not me.marks & M_ACK:
        once(j, row, me, M_ACK, cased(c"A", is_originator(o, row, s)))
    me.last = last
    me.reach += g.payload
    add_ip_bytes(j, row, s, g.ip_bytes)
    return True


cdef ns_t journal_seen(
    void *context, Observer *o, row_t row, int s, const Segment *g, uint16_t verdict
) noexcept nogil:
    """A Watch.seen: write one segment into the page of its row."""
    cdef Journal *j = <Journal *>context
    cdef Page *p
    cdef uint32_t number
    cdef uint16_t deleting
    cdef ns_t end_ns
    if row >= j.capacity and not journal_grow(j, row):
        return 0
    p = &j.pages[row]
    if verdict & V_NEW:
        memset(p, 0, sizeof(Page))
        p.side[0].reach = p.side[1].reach = 1
        p.side[0].trim = p.side[1].trim = 1
        if j.zeek:
            observer_set_originator(o, row, s)
            if sent_by_responder(j, g):
                observer_set_originator(o, row, 1 - s)
                add_letter(j, row, c"^")
    if (
        not verdict & UNUSUAL and not g.flags & (SYN | FIN | RST) and g.flags & ACK and g.window != 0
        and plain(j, o, row, s, g)
    ):
        if verdict & V_CHANGED and p.rtt_ns == 0 and is_originator(o, row, s):
            measure(o, row, p, g)
        return KEEP_TIMER if j.zeek else 0
    end_ns = p.end_ns
    deleting = p.flags & P_DELETE
    if not verdict & V_VOID and (j.zeek or not verdict & (V_SUSPECT | V_ILLEGAL)):
        note(j, o, row, s, g, verdict)
    elif not verdict & V_VOID:                      # the observer did not believe it: it leaves a letter
        number = g.seq - p.side[s].start
        add_ip_bytes(j, row, s, g.ip_bytes)
        if g.flags & (SYN | FIN | RST):
            control_letters(j, row, s, g, number, is_originator(o, row, s))
    elif g.info & (INFO_BAD_CHECKSUM | INFO_BAD_HEADER) == INFO_BAD_CHECKSUM:
        add_counted(j, row, cased(c"C", is_originator(o, row, s)), &margin_of(j, row).bad_checksums[s])
    if not j.zeek:
        return 0 if not verdict & V_VOID or verdict & V_NEW else KEEP_TIMER
    if verdict & V_NEW or p.end_ns != end_ns or p.flags & P_DELETE != deleting or (
        not p.flags & (P_CHECKED | P_DELETE) and check_matters(p)
    ):
        return next_look(j, o, row, o.engine.table.now_ns)
    return KEEP_TIMER


cdef inline void note(
    Journal *j, Observer *o, row_t row, int s, const Segment *g, uint16_t verdict
) noexcept nogil:
    cdef Page *p = &j.pages[row]
    cdef Sender *me = &p.side[s]
    cdef Sender *peer = &p.side[1 - s]
    cdef uint32_t length = g.payload + ((g.flags & SYN) >> 1) + (g.flags & FIN)
    cdef int64_t number, acked = 0
    cdef int32_t ahead
    cdef bint orig = is_originator(o, row, s)
    cdef int answer

    if not me.marks & M_SPOKEN and (orig or not p.flags & P_PARTIAL):
        p.flags &= ~<uint16_t>P_PARTIAL
        if not g.flags & SYN or (orig and g.flags & ACK):
            p.flags |= P_PARTIAL
    if g.flags & RST:
        length -= g.payload                         # what a RST carries is no data

    if me.state == Z_INACTIVE or g.flags & SYN:
        begin_numbers(me, g, g.seq + length)
    number = relative(g.seq, me.last, me.start, last_wraps(j, row, s))

    if g.flags & (SYN | FIN | RST):
        control_letters(j, row, s, g, <uint64_t>number, orig)
    elif g.payload != 0 or g.flags & ACK:
        if p.letters == 1 and p.history[0] == c"H" and j.zeek:
            turn_round(j, o, row)                   # it began with a SYN+ACK, and now the handshake goes on
            p.history[0] = c"^"
            add_letter(j, row, c"h")
            orig = not orig
        if g.payload != 0:
            once(j, row, me, M_DATA, cased(c"D", orig))
        else:
            once(j, row, me, M_ACK, cased(c"A", orig))
    if g.window == 0 and not g.flags & RST and peer.state != Z_CLOSED and me.state != Z_RESET:
        add_counted(j, row, cased(c"W", orig), &margin_of(j, row).zero_windows[s])

    if not (me.marks & peer.marks & M_CLOSED):
        if verdict & V_LATE and g.time_ns < o.engine.table.rows[row].last_ns:
            margin_of(j, row).last_ns = g.time_ns
            p.flags |= P_OLD_TIME
        else:
            p.flags &= ~<uint16_t>P_OLD_TIME
    add_ip_bytes(j, row, s, g.ip_bytes)

    if g.flags & FIN:
        me.marks |= M_ENDS
        p.fin[s] = <uint64_t>number + length
    if g.flags & ACK:
        if peer.state == Z_INACTIVE:
            acked = 1
            number_from(peer, g.ack - 1, g.ack - 1)
        else:
            acked = relative(g.ack, peer.acked, peer.start, ack_wraps(j, row, 1 - s))
            if acked < 0:
                acked = 0
            elif not g.flags & RST:                 # its ACK is not to be trusted
                move_acked(j, row, 1 - s, g.ack)

    ahead = <int32_t>(g.seq + length - me.last)
    if g.flags & (SYN | RST) and (ahead > FAR or ahead < -FAR):
        pass
    elif g.flags & FIN and me.last == me.start + 1:
        move_last(j, row, s, g.seq + length)        # only SYN and FIN were seen: any distance may lie between them
    elif me.state == Z_RESET:
        pass
    elif ahead > 0:
        move_last(j, row, s, g.seq + length)
    elif g.payload != 0:
        add_counted(j, row, cased(c"T", orig), &margin_of(j, row).retransmitted[s])

    answer = 0
    if me.state == Z_INACTIVE or g.flags & (SYN | FIN | RST):
        answer = next_state(j, o, row, s, g)
    if verdict & V_CHANGED and p.rtt_ns == 0 and orig:
        measure(o, row, p, g)

    if g.flags & ACK and stream_ack(j, o, row, 1 - s, <uint64_t>acked):
        at_end(j, o, row, 1 - s)
    me.marks |= M_SPOKEN
    if g.payload != 0 and number >= 0 and not g.flags & RST and not cut(j, g):
        stream_data(j, row, s, <uint64_t>number + ((g.flags & SYN) >> 1), g.payload)
    at_end(j, o, row, s)
    if answer & DO_CLOSE:
        close_side(j, o, row, s, (answer & DO_TELL) != 0)


cdef void measure(Observer *o, row_t row, Page *p, const Segment *g) noexcept nogil:
    """The round trip of a handshake, if it was seen whole and nothing of it was repeated (Karn: else it is ambiguous)."""
    cdef const Row *line = &o.engine.table.rows[row]
    cdef const Observed *cold = <const Observed *>store_cold(&o.engine.table, row)
    if (
        line.state[0] == S_ESTABLISHED and line.state[1] == S_ESTABLISHED and g.flags & (SYN | ACK) == ACK
        and p.side[0].marks & p.side[1].marks & M_SYN and cold.retransmitted[0] + cold.retransmitted[1] == 0
    ):
        p.rtt_ns = g.time_ns - cold.head.first_ns
