# When a connection is over for Zeek; see lapse.pyx.

from libc.stdint cimport INT64_MAX, uint32_t

from fasttcp.core.layout cimport ROW_SIDE_1_OPENED, Row, Segment, ns_t, row_t
from fasttcp.core.tap cimport Observer
from fasttcp.observe.page cimport (
    M_CLOSED, P_INACTIVE, P_PAST_HANDSHAKE, P_PORT_IDLE, Z_INACTIVE, Z_RESET, Journal, Page,
)


cdef inline bint check_matters(const Page *p) noexcept nogil:
    """Can an expiry check remove this connection?"""
    cdef bint silent = p.side[0].state == Z_INACTIVE or p.side[1].state == Z_INACTIVE
    if p.flags & P_INACTIVE:
        return False
    if (p.side[0].marks | p.side[1].marks) & M_CLOSED:
        return silent or p.side[0].state == Z_RESET or p.side[1].state == Z_RESET
    return p.side[0].state == Z_INACTIVE and p.side[1].state == Z_INACTIVE


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


cdef ns_t next_look(Journal *j, Observer *o, row_t row, ns_t now) noexcept nogil
cdef ns_t journal_due(void *context, Observer *o, row_t row, ns_t now_ns) noexcept nogil
cdef bint journal_splits(void *context, Observer *o, row_t row, int s, const Segment *segment) noexcept nogil
