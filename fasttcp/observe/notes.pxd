# What one segment adds to the journal; see notes.pyx.

from libc.stdint cimport uint16_t

from fasttcp.core.layout cimport Segment, ns_t, row_t
from fasttcp.core.tap cimport Observer
from fasttcp.observe.page cimport Journal

cdef ns_t journal_seen(
    void *context, Observer *o, row_t row, int s, const Segment *segment, uint16_t verdict
) noexcept nogil

cdef void usual_prepare(Journal *j) noexcept nogil
