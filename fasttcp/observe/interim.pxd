# Rows for connections that still live; see interim.pyx.

from libc.stdint cimport int64_t, uint64_t

from fasttcp.core.layout cimport Segment, row_t
from fasttcp.core.tap cimport Observer, Verdict
from fasttcp.observe.page cimport Journal

cdef struct Interim:
    int64_t  every_ns           # 0: no interim rows
    int64_t  next_ns            # the next mark; 0 before the first segment
    int64_t  mark_ns            # the one at hand
    row_t    row                # where the pass over the table has got to ...
    bint     passing            # ... while it is under way

cdef size_t interim_apply(
    Interim *m, Journal *j, Observer *o, const Segment *segments, size_t n, Verdict *verdicts, size_t entries
) noexcept nogil
