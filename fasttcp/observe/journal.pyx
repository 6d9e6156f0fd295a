"""Opening and closing a journal, and the entries that come out of it: what a log tells of a connection that has ended.

Cost: addresses for 280 bytes a row are reserved at once, memory is taken as the table grows. An entry is filled when a
connection ends; it touches its row, its page and, if there is one, its margin.
"""

from libc.stdint cimport INT64_MAX, UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from fasttcp.core.layout cimport ROW_SIDE_1_OPENED, Row, ns_t, row_t
from fasttcp.core.memory cimport BLOCK_HUGE, block_close, block_open
from fasttcp.core.names cimport E_EVICTED, E_RCV_RST, E_REPLACED, S_CLOSED, S_TIME_WAIT
from fasttcp.core.prefetch cimport prefetch_write
from fasttcp.core.store cimport store_in_use
from fasttcp.core.summary cimport LIVE, summarize_observed
from fasttcp.core.tap cimport ROW_BLANK, Observer
from fasttcp.observe.lapse cimport journal_due, journal_splits
from fasttcp.observe.notes cimport journal_seen, usual_prepare
from fasttcp.observe.page cimport (
    M_CLOSED, M_SYN, P_DELETE, P_MARGIN, P_OLD_TIME, SHORT_HISTORY, Z_CLOSED, Z_ESTABLISHED, Z_INACTIVE, Z_PARTIAL,
    Z_RESET, Z_SYN_ACK_SENT, Z_SYN_SENT, Entry, Journal, Margin, Page, copy_history, side_size,
)
from fasttcp.observe.stream cimport stream_forget

__all__ = ["CONN_STATES", "ENDS"]

#: How connections end, and what each word means.
ENDS = {
    "closed": "both ends closed, in order",
    "reset": "a RST ended it",
    "refused": "a RST answered the SYN",
    "idle": "nothing more was heard for longer than its time-out",
    "replaced": "a new connection on the same 4-tuple proved it dead",
    "evicted": "the table was full and its row was needed",
    "open": "the capture ended before it did",
    "interim": "it has not: a row on the way, and a last one will come",
}

cdef enum:
    MAX_HOSTS = 16

CONN_STATES = ("OTH", "S0", "S1", "S2", "S3", "SF", "REJ", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR")

cdef enum:                      # in the order of CONN_STATES
    C_OTH
    C_S0
    C_S1
    C_S2
    C_S3
    C_SF
    C_REJ
    C_RSTO
    C_RSTR
    C_RSTOS0
    C_RSTRH
    C_SH
    C_SHR

# ---- opening, growing, closing ---------------------------------------------------------------------------------------

cdef ns_t _time(value) except? -1:
    return INT64_MAX if value is None else value


cdef uint64_t _limit(value) except? 0:
    return UINT64_MAX if value is None else value


cdef int journal_open(Journal *j, Observer *o, object profile) except -1:
    """A journal for an observer that has none yet, hung into its watch. The caller closes it before the observer."""
    memset(j, 0, sizeof(Journal))
    j.most = o.engine.table.max_rows
    j.zeek = profile.observer_timeouts == "zeek"
    j.attempt_ns = profile.tcp_attempt_delay_ns
    j.close_ns = profile.tcp_close_delay_ns
    j.first_check_ns = profile.tcp_SYN_timeout_ns
    j.check_ns = profile.tcp_session_timer_ns
    j.linger_ns = profile.tcp_connection_linger_ns
    j.idle_ns = _time(profile.tcp_inactivity_timeout_ns)
    j.handshake_idle_ns = _time(profile.udp_inactivity_timeout_ns)
    j.max_initial_window = _limit(profile.tcp_max_initial_window)
    j.max_above_hole = _limit(profile.tcp_max_above_hole_without_any_acks)
    j.max_unacknowledged = _limit(profile.tcp_excessive_data_without_further_acks)
    j.gaps_for_partial = profile.report_gaps_for_partial
    for port, idle_ns in profile.port_inactivity_timeouts_ns[:64]:
        j.port_idle[j.n_port_idle].port = port
        j.port_idle[j.n_port_idle].idle_ns = idle_ns
        j.n_port_idle += 1
    usual_prepare(j)
    for port in profile.likely_server_ports:
        j.server_ports[<uint32_t>port >> 6] |= <uint64_t>1 << (<uint32_t>port & 63)
    block_open(&j.pages_block, j.most * sizeof(Page), BLOCK_HUGE)
    block_open(&j.margins_block, j.most * sizeof(Margin), 0)
    j.pages = <Page *>j.pages_block.base
    j.margins = <Margin *>j.margins_block.base
    o.watch.context = j
    o.watch.seen = journal_seen
    o.watch.ended = journal_ended
    if j.zeek:
        o.watch.splits = journal_splits
        o.watch.due = journal_due
        o.watch.names_originator = True
        o.pick_up = 2
    o.watch.lines = <char *>j.pages
    o.watch.stride = sizeof(Page)
    return 0


cdef void journal_close(Journal *j) noexcept nogil:
    cdef size_t i
    cdef row_t row
    for row in range(<row_t>j.capacity):
        if j.pages[row].flags & P_MARGIN:
            free(j.margins[row].history)
    for i in range(j.n_entries):
        entry_free(&j.entries[i])
    free(j.entries)
    free(j.ranges)
    block_close(&j.pages_block)
    block_close(&j.margins_block)
    memset(j, 0, sizeof(Journal))


# ---- the end of a connection -----------------------------------------------------------------------------------------

cdef bint lone_syn_then_rst(const char *history, uint32_t letters) noexcept nogil:
    """^ or nothing, S, anything but H A F G I Q, R, anything (scripts/base/protocols/conn/main.zeek)."""
    cdef uint32_t i = 0
    if i < letters and history[i] == c"^":
        i += 1
    if i >= letters or history[i] != c"S":
        return False
    for i in range(i + 1, letters):
        if history[i] == c"R":
            return True
        if (
            history[i] == c"H" or history[i] == c"A" or history[i] == c"F"
            or history[i] == c"G" or history[i] == c"I" or history[i] == c"Q"
        ):
            return False
    return False


cdef uint8_t conn_state(const Entry *e, const char *history) noexcept nogil:
    """Zeek's word for how it went; the order of the questions is part of the rule."""
    cdef uint8_t first = e.zeek[0], second = e.zeek[1]
    cdef bint first_idle = first == Z_INACTIVE or first == Z_PARTIAL
    cdef bint second_idle = second == Z_INACTIVE or second == Z_PARTIAL
    if second == Z_RESET:
        if first == Z_SYN_SENT or first == Z_SYN_ACK_SENT or (first == Z_RESET and e.size[0] == 0 and e.size[1] == 0):
            return C_REJ
        return C_RSTRH if first_idle else C_RSTR
    if first == Z_RESET:
        if not second_idle:
            return C_RSTO
        return C_RSTOS0 if lone_syn_then_rst(history, e.letters) else C_OTH
    if first == Z_CLOSED:
        if second == Z_CLOSED:
            return C_SF
        return C_SH if second_idle else C_S2
    if second == Z_CLOSED:
        return C_SHR if first_idle else C_S3
    if first == Z_SYN_SENT and second == Z_INACTIVE:
        return C_S0
    if first == Z_ESTABLISHED and second == Z_ESTABLISHED:
        return C_S1
    return C_OTH


cdef inline bint over(uint8_t state) noexcept nogil:
    return state == S_CLOSED or state == S_TIME_WAIT


cdef uint8_t why(const Page *p, const Row *line, int first, int event) noexcept nogil:
    """How a connection ended, in one of ENDS; the states it had come to count more than what freed its row."""
    if over(line.state[0]) and over(line.state[1]) and not line.flags & ROW_BLANK:
        if line.aux != E_RCV_RST:
            return END_CLOSED
        if p.side[first].marks & M_SYN and not p.side[1 - first].marks & M_SYN and p.history[0] != c"^":
            return END_REFUSED
        return END_RESET
    if event == LIVE:
        return END_OPEN
    if event == E_REPLACED:
        return END_REPLACED
    return END_EVICTED if event == E_EVICTED else END_IDLE


cdef void journal_entry(Journal *j, Observer *o, row_t row, int event, ns_t when_ns, Entry *e) noexcept nogil:
    """All that is known of a row; a long history is lent, and given away only by journal_ended."""
    cdef Page *p = &j.pages[row]
    cdef const Row *line = &o.engine.table.rows[row]
    cdef const Margin *m = &j.margins[row]
    cdef int first = 1 if line.flags & ROW_SIDE_1_OPENED else 0
    cdef int i, s
    summarize_observed(o, row, event, when_ns, &e.summary)
    e.last_ns = line.last_ns
    if p.side[0].marks & M_CLOSED and p.side[1].marks & M_CLOSED and p.flags & P_DELETE:
        e.last_ns = p.end_ns - j.close_ns           # what comes after both have closed lengthens nothing
    elif p.flags & P_OLD_TIME:
        e.last_ns = m.last_ns
    e.rtt_ns = p.rtt_ns
    e.missed = 0
    e.long_history = NULL
    e.letters = p.letters
    memcpy(e.history, p.history, SHORT_HISTORY)
    for i in range(2):
        s = i ^ first
        e.zeek[i] = p.side[s].state
        e.size[i] = side_size(j, row, s)
        e.ip_bytes[i] = p.side[s].ip_bytes
        e.bad_checksums[i] = 0
    if p.flags & P_MARGIN:
        e.missed = m.missed
        for i in range(2):
            e.ip_bytes[i] += <uint64_t>m.ip_carry[i ^ first] << 32
            e.bad_checksums[i] = m.bad_checksums[i ^ first]
        if m.history != NULL:
            e.long_history = m.history
            e.letters = m.history_size
    if e.long_history != NULL:
        e.conn_state = conn_state(e, e.long_history)
    else:
        e.conn_state = conn_state(e, e.history)
    e.end = why(p, line, first, event)


cdef Entry *new_entry(Journal *j) noexcept nogil:
    cdef size_t room
    cdef Entry *moved
    if j.n_entries == j.entries_room:
        room = j.entries_room * 2 if j.entries_room else 256
        moved = <Entry *>realloc(j.entries, room * sizeof(Entry))
        if moved == NULL:
            j.failed = True
            return NULL
        j.entries = moved
        j.entries_room = room
    j.n_entries += 1
    moved = &j.entries[j.n_entries]                 # the next one's lines: they have left the caches since the last turn
    prefetch_write(moved)
    prefetch_write(<char *>moved + 64)
    prefetch_write(<char *>moved + 128)
    prefetch_write(<char *>moved + 192)
    return moved - 1


cdef void entry_free(Entry *e) noexcept nogil:
    free(e.long_history)
    e.long_history = NULL


cdef void tally_host(Journal *j, const uint8_t *addr, uint64_t wrong, uint64_t right) noexcept nogil:
    cdef uint32_t i = 0
    while i < j.n_hosts and memcmp(j.hosts[i].addr, addr, 16) != 0:
        i += 1
    if i == j.n_hosts:
        if i == MAX_HOSTS:
            return
        memcpy(j.hosts[i].addr, addr, 16)
        j.n_hosts += 1
    j.hosts[i].wrong += wrong
    j.hosts[i].right += right


cdef void tally(Journal *j, Entry *e) noexcept nogil:
    """Number an entry and count it in."""
    cdef int i
    j.ended += 1
    e.number = j.ended
    j.missed += e.missed
    j.ends[e.end] += 1
    for i in range(2):
        j.halves[e.summary.state[i]] += 1
        if e.bad_checksums[i]:
            tally_host(j, e.summary.addr[i], e.bad_checksums[i], e.summary.packets[i])


cdef void journal_ended(void *context, Observer *o, row_t row, int event, ns_t when_ns) noexcept nogil:
    """A Watch.ended: the page becomes an entry."""
    cdef Journal *j = <Journal *>context
    cdef Page *p = &j.pages[row]
    cdef Entry *e
    if row >= j.capacity:
        return
    e = new_entry(j)
    if e == NULL:
        return
    journal_entry(j, o, row, event, when_ns, e)
    tally(j, e)
    if p.flags & P_MARGIN:
        stream_forget(j, row, 0)
        stream_forget(j, row, 1)
        j.margins[row].history = NULL
    p.flags = 0


cdef void journal_flush(Journal *j, Observer *o) noexcept nogil:
    """An entry for every connection that still lives, which goes on living: for the end of a capture."""
    cdef row_t row
    cdef Entry *e
    for row in range(<row_t>min(j.capacity, o.engine.table.high)):
        if not store_in_use(&o.engine.table, row):
            continue
        e = new_entry(j)
        if e == NULL:
            return
        journal_entry(j, o, row, LIVE, o.engine.table.now_ns, e)
        tally(j, e)
        if e.long_history != NULL:
            e.long_history = copy_history(j, row)
            if e.long_history == NULL:
                e.letters = SHORT_HISTORY
