# Opening and closing a journal, and the entries that come out of it. Its layout is in page.pxd.

from fasttcp.core.layout cimport ns_t, row_t
from fasttcp.core.tap cimport Observer
from fasttcp.observe.page cimport Entry, Journal

cdef enum:                      # in the order of ENDS
    END_CLOSED
    END_RESET
    END_REFUSED
    END_IDLE
    END_REPLACED
    END_EVICTED
    END_OPEN
    END_INTERIM

cdef int journal_open(Journal *j, Observer *o, object profile) except -1
cdef void journal_close(Journal *j) noexcept nogil
cdef void journal_flush(Journal *j, Observer *o) noexcept nogil
cdef void journal_entry(Journal *j, Observer *o, row_t row, int event, ns_t when_ns, Entry *e) noexcept nogil
cdef Entry *new_entry(Journal *j) noexcept nogil           # NULL: no memory, and j.failed says so
cdef void entry_free(Entry *e) noexcept nogil
