# The table for `cimport`. The class is a shell around one Observer or one Endpoint; use the functions, which are
# checked by their signatures when they are imported. They take no turn: the caller is alone in the table meanwhile.

from libc.stdint cimport uint16_t, uint64_t

from fasttcp.core.application cimport Application
from fasttcp.core.layout cimport Segment, ns_t
from fasttcp.core.seat cimport Engine
from fasttcp.core.summary cimport EndLog
from fasttcp.core.tap cimport Verdict
from fasttcp.core.tcb cimport Endpoint

cdef class ConnectionTable(Application):
    cdef EndLog ended
    cdef bint keep_ended
    cdef tuple told                 # what `receive` answered last: (handle, Verdict)
    cdef uint64_t told_handle       # 0: nothing yet
    cdef uint16_t told_flags
    cdef readonly object profile    # the Profile it was made with
    cdef readonly str seat          # "endpoint" or "observer"
    cdef readonly str on_full       # "raise" or "evict"
    cdef readonly object seed       # the seed that was given, or None
    cdef object __weakref__

cdef Engine *table_engine(ConnectionTable table) noexcept
cdef Endpoint *table_endpoint(ConnectionTable table) except NULL     # StateError in the observer seat
cdef int table_apply(ConnectionTable table, const Segment *segments, size_t n, Verdict *verdicts) except -1 nogil

# For what stands on top of several tables: the layouts of what is handed out.
cdef bytes VERDICT_LAYOUT
cdef bytes SUMMARY_LAYOUT
