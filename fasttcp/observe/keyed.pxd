# A batch of segments with the keys by which a table finds their connections; see keyed.pyx.

from fasttcp.core.hash cimport Key
from fasttcp.core.segments cimport SegmentBatch
from fasttcp.core.table cimport ConnectionTable


cdef class KeyedBatch:
    cdef readonly SegmentBatch segments
    cdef ConnectionTable table
    cdef Key *keys              # (capacity,), of the segments that are there
