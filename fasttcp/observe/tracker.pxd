# A capture on its way through the observer; see tracker.pyx.

from fasttcp.core.layout cimport Segment
from fasttcp.core.observer cimport Verdict
from fasttcp.core.table cimport ConnectionTable
from fasttcp.observe.page cimport Entry, Journal

cdef enum:
    SEGMENTS = 512              # read and applied together; both arrays stay in the first-level cache's neighbourhood

cdef class Connection:
    cdef Entry entry

cdef class Tracker:
    cdef readonly ConnectionTable table
    cdef Journal journal
    cdef Segment *segments
    cdef Verdict *verdicts
    cdef size_t taken           # entries at the front of the journal that have been handed out
    cdef bint busy
