# A capture on its way through the observer; see tracker.pyx.

from libc.stdint cimport uint64_t

from fasttcp.core.layout cimport Segment
from fasttcp.core.table cimport ConnectionTable
from fasttcp.core.tap cimport Verdict
from fasttcp.observe.interim cimport Interim
from fasttcp.observe.page cimport Entry, Journal
from fasttcp.observe.sieve cimport Op

cdef enum:
    SEGMENTS = 512              # read and applied together; both arrays stay in the first-level cache's neighbourhood

cdef class Connection:
    cdef Entry entry

cdef class Sheaf:
    cdef Entry *entries         # owned; those from `first` on belong to it
    cdef size_t first
    cdef size_t count

cdef class Tracker:
    cdef readonly ConnectionTable table
    cdef Journal journal
    cdef Segment *segments
    cdef Verdict *verdicts
    cdef size_t taken           # entries at the front of the journal that have been handed out
    cdef size_t sifted          # ... and that have passed the filter; never below `taken`
    cdef readonly uint64_t passed   # entries that have passed it so far
    cdef bytes program          # the filter, and the same as C sees it
    cdef const Op *ops
    cdef size_t n_ops
    cdef Interim interim
    cdef size_t held            # segments read and not applied yet, while interim rows have to be taken first ...
    cdef size_t held_at         # ... and where they begin
    cdef bint busy

# Entries that wait and have passed the filter, and how many; they stay until they are dropped.
cdef const Entry *tracker_entries(Tracker tracker, size_t *n) except? NULL
cdef int tracker_drop(Tracker tracker, size_t n) except -1
