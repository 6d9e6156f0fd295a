# When a connection is over for Zeek; see lapse.pyx.

from fasttcp.core.layout cimport Segment, ns_t, row_t
from fasttcp.core.observer cimport Observer
from fasttcp.observe.page cimport M_CLOSED, P_INACTIVE, Z_INACTIVE, Z_RESET, Journal, Page


cdef inline bint check_matters(const Page *p) noexcept nogil:
    """Can an expiry check remove this connection?"""
    cdef bint silent = p.side[0].state == Z_INACTIVE or p.side[1].state == Z_INACTIVE
    if p.flags & P_INACTIVE:
        return False
    if (p.side[0].marks | p.side[1].marks) & M_CLOSED:
        return silent or p.side[0].state == Z_RESET or p.side[1].state == Z_RESET
    return p.side[0].state == Z_INACTIVE and p.side[1].state == Z_INACTIVE


cdef ns_t next_look(Journal *j, Observer *o, row_t row, ns_t now) noexcept nogil
cdef ns_t journal_due(void *context, Observer *o, row_t row, ns_t now_ns) noexcept nogil
cdef bint journal_splits(void *context, Observer *o, row_t row, int s, const Segment *segment) noexcept nogil
