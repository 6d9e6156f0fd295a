# The observer's hooks: Zeek's view of both endpoints, and what its rules decide. See endpoints.pyx.

from libc.stdint cimport uint16_t

from fasttcp.core.layout cimport Segment, ns_t, row_t
from fasttcp.core.observer cimport Observer

cdef ns_t journal_seen(
    void *context, Observer *o, row_t row, int s, const Segment *segment, uint16_t verdict
) noexcept nogil
cdef bint journal_splits(void *context, Observer *o, row_t row, int s, const Segment *segment) noexcept nogil
cdef ns_t journal_due(void *context, Observer *o, row_t row, ns_t now_ns) noexcept nogil
