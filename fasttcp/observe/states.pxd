# Zeek's state of each endpoint; see states.pyx.

from libc.stdint cimport uint16_t

from fasttcp.core.layout cimport Segment, row_t
from fasttcp.core.tap cimport Observer
from fasttcp.observe.page cimport M_EOF, P_DEFERRED, P_TOLD, Journal, Page
from fasttcp.observe.stream cimport may_be_at_end, stream_pending

cdef enum:
    DO_CLOSE = 1                # answers of next_state: the sender has closed
    DO_TELL = 2                 # ... and Zeek would call it a finished connection


cdef inline void at_end(Journal *j, Observer *o, row_t row, int s) noexcept nogil:
    """Side `s` may have delivered all that it ever will: a close that waited for that happens now."""
    cdef Page *p = &j.pages[row]
    if may_be_at_end(&p.side[s]) and not stream_pending(j, row, s):
        p.side[s].marks |= M_EOF
        if p.flags & P_DEFERRED:
            close_side(j, o, row, s, (p.flags & P_TOLD) != 0)
            p.flags &= ~<uint16_t>P_DEFERRED


cdef void established(Journal *j, Observer *o, row_t row) noexcept nogil
cdef void turn_round(Journal *j, Observer *o, row_t row) noexcept nogil
cdef int next_state(Journal *j, Observer *o, row_t row, int s, const Segment *g) noexcept nogil
cdef void close_side(Journal *j, Observer *o, row_t row, int s, bint tell) noexcept nogil
