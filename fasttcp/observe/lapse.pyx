"""When a connection is over for Zeek: its timers, and the SYN that begins another (TCPSessionAdapter.cc, Session.cc).

Zeek runs several timers for a connection, the table has one a row. It is armed for the earliest, and what fires asks
again; so it may be early, never late, and no segment but the first and a closing one touches it. Expiry checks run from
the first segment on at tcp_SYN_timeout, then each tcp_session_timer; between them a connection whose checks can find
nothing is not visited, and the next check is computed when it begins to matter.

What must not stand here: what a segment adds to a page.
"""

from fasttcp.core.layout cimport ACK, Segment, ns_t, row_t
from fasttcp.core.store cimport store_cold
from fasttcp.core.tap cimport Observer
from fasttcp.observe.page cimport (
    M_CLOSED, P_ATTEMPT, P_CHECKED, P_DELETE, P_INACTIVE, P_OLD_TIME, Z_INACTIVE, Z_SYN_ACK_SENT, Z_SYN_SENT, Journal, Margin, Page,
    is_originator, last_time, margin_of,
)


cdef inline ns_t began(Observer *o, row_t row) noexcept nogil:
    return store_cold(&o.engine.table, row).first_ns


cdef ns_t following_check(const Journal *j, ns_t first, ns_t now) noexcept nogil:
    if first > now:
        return first
    return first + ((now - first) // j.check_ns + 1) * j.check_ns


cdef ns_t idle_end(Journal *j, Observer *o, row_t row) noexcept nogil:
    """When silence ends it. A time that went back does not take back the timer."""
    cdef ns_t due = after(last_time(j, o, row), idle_limit(j, o, row))
    return max(due, j.margins[row].idle_ns) if j.pages[row].flags & P_OLD_TIME else due


cdef ns_t next_look(Journal *j, Observer *o, row_t row, ns_t now) noexcept nogil:
    """When the row's timer is to fire: the earliest of what Zeek's would do."""
    cdef Page *p = &j.pages[row]
    cdef Margin *m
    cdef ns_t due, check
    if p.flags & P_DELETE:
        return p.end_ns
    due = idle_end(j, o, row)
    if p.flags & (P_ATTEMPT | P_INACTIVE) == P_ATTEMPT and waiting(p, o, row):
        due = min(due, after(began(o, row), j.attempt_ns))
    if check_matters(p):
        m = margin_of(j, row)
        if not p.flags & P_CHECKED or m.check_ns <= now:
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
    cdef ns_t last, check
    if row >= j.capacity:
        return 0
    p = &j.pages[row]
    if p.flags & P_DELETE:
        return 0 if p.end_ns <= now_ns else p.end_ns
    last = last_time(j, o, row)
    if idle_end(j, o, row) <= now_ns:
        return 0
    if (
        p.flags & (P_ATTEMPT | P_INACTIVE) == P_ATTEMPT and waiting(p, o, row)
        and after(began(o, row), j.attempt_ns) <= now_ns
    ):
        return 0
    if p.flags & P_CHECKED and j.margins[row].check_ns <= now_ns:
        if check_matters(p) and after(last, j.linger_ns) < now_ns:
            return 0
        check = after(p.end_ns, j.check_ns)         # the close of the first side has begun checks of its own
        j.margins[row].check_ns = min(now_ns + j.check_ns, check) if check > now_ns else now_ns + j.check_ns
    return max(next_look(j, o, row, now_ns), now_ns + 1)


cdef bint journal_splits(void *context, Observer *o, row_t row, int s, const Segment *g) noexcept nogil:
    """A Watch.splits: does a segment with SYN belong to a new connection (TCPSessionAdapter.cc, IsReuse)? Even one that
    counts for nothing else, because its checksum is wrong or its options were cut off."""
    cdef Journal *j = <Journal *>context
    cdef Page *p
    cdef int first
    if row >= j.capacity:
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
