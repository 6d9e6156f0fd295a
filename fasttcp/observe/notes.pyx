"""What one segment adds to the journal: numbers, letters, sizes; and for Zeek's profile who opened.

What must not stand here: what follows from it for an endpoint (states.pyx), or for the connection's time (lapse.pyx).
The steps of `note` stand in Zeek's order (TCPSessionAdapter.cc, Process), because many of them look at what the ones
before them have changed: numbers, letters, the ACK, the highest number, the state, what the ACK reveals, the data, the
close.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fasttcp.core.layout cimport (
    ACK, FIN, INFO_BAD_CHECKSUM, INFO_BAD_HEADER, INFO_CUT, ROW_SIDE_1_OPENED, RST, SYN, Observed, Row, Segment, ns_t, row_t,
)
from fasttcp.core.names cimport S_ESTABLISHED
from fasttcp.core.store cimport store_cold
from fasttcp.core.tap cimport KEEP_TIMER, Observer, observer_set_originator
from fasttcp.core.verdicts cimport V_CHANGED, V_ILLEGAL, V_LATE, V_NEW, V_PARTIAL, V_SUSPECT, V_VOID
from fasttcp.observe.lapse cimport after, check_matters, idle_limit, next_look
from fasttcp.observe.page cimport (
    M_ACK, M_ACK_WRAPPED, M_CLOSED, M_DATA, M_ENDS, M_FIN, M_FIN_RST, M_LAST_WRAPPED, M_MULTI,
    M_RST, M_SPOKEN, M_SYN, P_DELETE, P_FIN_LETTER, P_MANY_WRAPS, P_MARGIN, P_OLD_TIME, P_PARTIAL, P_PAST_HANDSHAKE,
    P_PORT_IDLE, P_USUAL, Z_CLOSED, Z_INACTIVE, Z_RESET, Z_SYN_ACK_SENT, Z_SYN_SENT, Journal, Margin, Page, Sender,
    ack_wraps, add_counted, add_letter, is_originator, journal_grow, last_wraps, margin_of, relative,
)
from fasttcp.observe.states cimport DO_CLOSE, DO_TELL, at_end, close_side, next_state, turn_round
from fasttcp.observe.stream cimport stream_ack, stream_data
from fasttcp.observe.usual cimport (
    settle, usual_ack, usual_fin, usual_refusal, usual_reset, usual_syn, usual_syn_ack,
)

cdef enum:
    PATIENCE = P_PAST_HANDSHAKE | P_PORT_IDLE   # how long silence may last
    UNUSUAL = V_PARTIAL | V_VOID | V_LATE | V_SUSPECT | V_ILLEGAL
    FAR = 1 << 20               # a SYN or RST this far from the highest number says nothing about it


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
        if g.seq != me.start or (me.state != Z_SYN_SENT and me.state != Z_SYN_ACK_SENT):
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
    cdef uint64_t former
    cdef uint16_t high
    if control & (control - 1):
        if control & FIN and not p.flags & P_FIN_LETTER and (me.marks | p.side[1 - s].marks) & M_FIN:
            # Before this FIN, which has no F, takes its place.
            margin_of(j, row).fin_letter[0] = p.fin[0] - 1
            margin_of(j, row).fin_letter[1] = p.fin[1] - 1
            p.flags |= P_FIN_LETTER
        if control & (FIN | RST) == FIN | RST:
            once(j, row, me, M_FIN_RST, cased(c"I", orig))
        else:
            once(j, row, me, M_MULTI, cased(c"Q", orig))
    elif control == SYN:
        letter = cased(c"H" if g.flags & ACK else c"S", orig)
        former = j.margins[row].syn[s] if p.flags & P_MARGIN else 0
        if not me.marks & M_SYN or number != former:
            add_letter(j, row, letter)
        me.marks |= M_SYN
        if number != former:
            margin_of(j, row).syn[s] = number
    elif control == FIN:
        former = j.margins[row].fin_letter[s] if p.flags & P_FIN_LETTER else p.fin[s] - 1
        if not me.marks & M_FIN or number + g.payload != former:
            add_letter(j, row, cased(c"F", orig))
        me.marks |= M_FIN
        if p.flags & P_FIN_LETTER:
            margin_of(j, row).fin_letter[s] = number + g.payload
    else:
        high = j.margins[row].rst_high[s] if p.flags & P_MARGIN else 0
        if not me.marks & M_RST or <uint32_t>number != p.rst[s] or <uint16_t>(number >> 32) != high:
            add_letter(j, row, cased(c"R", orig))
        me.marks |= M_RST
        p.rst[s] = <uint32_t>number
        if <uint16_t>(number >> 32) != high:
            margin_of(j, row).rst_high[s] = <uint16_t>(number >> 32)


# ---- one segment -----------------------------------------------------------------------------------------------------

cdef inline void add_ip_bytes(Journal *j, row_t row, int s, uint32_t n) noexcept nogil:
    cdef Sender *side = &j.pages[row].side[s]
    side.ip_bytes += n
    if side.ip_bytes < n:
        margin_of(j, row).ip_carry[s] += 1


cdef inline bint cut(const Journal *j, const Segment *g) noexcept nogil:
    """Zeek puts data together, so what the capture has cut short was never there; for us its numbers are enough."""
    return j.zeek and g.info & INFO_CUT != 0


cdef void usual_prepare(Journal *j) noexcept nogil:
    """What the profile says, once more in the form in which usual.pxd asks it."""
    cdef uint32_t i
    j.timers = KEEP_TIMER if j.zeek else 0
    j.cut_info = INFO_CUT if j.zeek else 0
    j.most_initial = <int32_t>min(j.max_initial_window, <uint64_t>0x7FFFFFFF)
    j.most_unacknowledged = <int32_t>min(j.max_unacknowledged, <uint64_t>0x7FFFFFFF)
    j.after_fin[0] = min(j.idle_ns, <ns_t>1 << 61)
    j.after_fin[1] = j.close_ns
    for i in range(j.n_port_idle):
        j.idle_ports[(j.port_idle[i].port & 0xFFFF) >> 6] |= <uint64_t>1 << (j.port_idle[i].port & 63)


cdef ns_t journal_seen(
    void *context, Observer *o, row_t row, int s, const Segment *g, uint16_t verdict
) noexcept nogil:
    """A Watch.seen: write one segment into the page of its row."""
    cdef Journal *j = <Journal *>context
    cdef Page *p
    cdef Row *line
    cdef uint32_t kind = g.flags & (SYN | FIN | RST | ACK)
    cdef ns_t answer = KEEP_TIMER
    cdef bint usual
    if ((<uint32_t>g.window - 1) >> 16 | verdict) & UNUSUAL or row >= j.capacity:       # a window of 0 has all bits
        return seen_otherwise(j, o, row, s, g, verdict)
    p = &j.pages[row]
    line = &o.engine.table.rows[row]
    if kind & SYN:
        if verdict & V_NEW:
            usual = kind == SYN and usual_syn(j, p, line, s, g, &answer)
        else:
            usual = kind == SYN | ACK and usual_syn_ack(j, p, line, s, g)
        return answer & j.timers if usual else seen_otherwise(j, o, row, s, g, verdict)
    kind |= p.flags & P_USUAL                       # no page has it before its first segment
    if kind == P_USUAL | ACK:
        usual = usual_ack(j, p, line, s, g)
    else:
        usual = kind == P_USUAL | ACK | FIN and usual_fin(j, p, line, s, g, &answer)
    if not usual:
        return seen_otherwise(j, o, row, s, g, verdict)
    if completes_handshake(p, line, s, verdict):
        measure(o, row, p, g)
    return answer & j.timers


cdef ns_t seen_otherwise(Journal *j, Observer *o, row_t row, int s, const Segment *g, uint16_t verdict) noexcept nogil:
    """What is none of these may still be a usual RST, whose window means nothing."""
    cdef Page *p = &j.pages[row]
    cdef Row *line = &o.engine.table.rows[row]
    cdef ns_t answer = 0
    cdef bint usual = False
    if g.flags & (SYN | FIN | RST) == RST and not verdict & (UNUSUAL | V_NEW) and row < j.capacity:
        if p.flags & P_USUAL:
            usual = usual_reset(j, p, line, s, g, &answer)
        elif g.flags & ACK:
            usual = usual_refusal(j, p, line, s, g, &answer)
    return answer & j.timers if usual else seen_whole(j, o, row, s, g, verdict)


cdef ns_t seen_whole(Journal *j, Observer *o, row_t row, int s, const Segment *g, uint16_t verdict) noexcept nogil:
    cdef Page *p
    cdef uint32_t number
    cdef uint16_t before
    cdef bint checked
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
    end_ns = p.end_ns
    before = p.flags
    checked = check_matters(p)
    if not verdict & V_VOID and (j.zeek or not verdict & (V_SUSPECT | V_ILLEGAL)):
        note(j, o, row, s, g, verdict)
    elif not verdict & V_VOID:                      # the observer did not believe it: it leaves a letter
        number = g.seq - p.side[s].start
        add_ip_bytes(j, row, s, g.ip_bytes)
        if g.flags & (SYN | FIN | RST):
            control_letters(j, row, s, g, <uint64_t><int64_t><int32_t>number, is_originator(o, row, s))
    elif g.info & (INFO_BAD_CHECKSUM | INFO_BAD_HEADER) == INFO_BAD_CHECKSUM:
        add_counted(j, row, cased(c"C", is_originator(o, row, s)), &margin_of(j, row).bad_checksums[s])
    settle(p)
    if not j.zeek:
        return 0 if not verdict & V_VOID or verdict & V_NEW else KEEP_TIMER
    if verdict & V_NEW or p.end_ns != end_ns or (p.flags ^ before) & P_DELETE or (
        not p.flags & P_DELETE and not checked and check_matters(p)
    ) or (p.flags & P_OLD_TIME and (p.flags ^ before) & PATIENCE):
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
    cdef Margin *m
    cdef uint16_t patience

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
            m = margin_of(j, row)
            m.last_ns = g.time_ns
            if not p.flags & P_OLD_TIME:
                m.idle_ns = after(o.engine.table.rows[row].last_ns, idle_limit(j, o, row))
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
        patience = p.flags & PATIENCE
        answer = next_state(j, o, row, s, g)
        if p.flags & P_OLD_TIME and p.flags & PATIENCE != patience:
            m = margin_of(j, row)                   # a new timer, from the time that went back
            m.idle_ns = after(m.last_ns, idle_limit(j, o, row))
    if completes_handshake(p, &o.engine.table.rows[row], s, verdict):
        measure(o, row, p, g)

    if g.flags & ACK and stream_ack(j, o, row, 1 - s, <uint64_t>acked):
        at_end(j, o, row, 1 - s)
    me.marks |= M_SPOKEN
    if g.payload != 0 and number >= 0 and not g.flags & RST and not cut(j, g):
        stream_data(j, row, s, <uint64_t>number + ((g.flags & SYN) >> 1), g.payload)
    at_end(j, o, row, s)
    if answer & DO_CLOSE:
        close_side(j, o, row, s, (answer & DO_TELL) != 0)


cdef inline bint completes_handshake(const Page *p, const Row *line, int s, uint16_t verdict) noexcept nogil:
    """After this segment of the originator both are ESTABLISHED, and were not before."""
    cdef uint16_t pair
    cdef uint32_t states
    memcpy(&pair, line.state, 2)
    states = pair
    return (
        (states ^ S_ESTABLISHED * 0x0101) | (~verdict & V_CHANGED) == 0 and p.rtt_ns == 0
        and line.flags & ROW_SIDE_1_OPENED == ROW_SIDE_1_OPENED * s
    )


cdef void measure(Observer *o, row_t row, Page *p, const Segment *g) noexcept nogil:
    """The round trip of a handshake, if it was seen whole and nothing of it twice (else it is ambiguous: Karn)."""
    cdef const Observed *cold = <const Observed *>store_cold(&o.engine.table, row)
    if (
        g.flags & (SYN | ACK) == ACK and p.side[0].marks & p.side[1].marks & M_SYN
        and cold.retransmitted[0] + cold.retransmitted[1] == 0
    ):
        p.rtt_ns = g.time_ns - cold.head.first_ns
