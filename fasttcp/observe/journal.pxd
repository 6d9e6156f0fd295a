# Opening and closing a journal, and the entries that come out of it. Its layout is in page.pxd.

from fasttcp.core.layout cimport ns_t, row_t
from fasttcp.core.observer cimport Observer
from fasttcp.observe.page cimport Entry, Journal

cdef int journal_open(Journal *j, Observer *o, object profile) except -1
cdef void journal_close(Journal *j) noexcept nogil
cdef void journal_flush(Journal *j, Observer *o) noexcept nogil
cdef void journal_entry(Journal *j, Observer *o, row_t row, int event, ns_t when_ns, Entry *e) noexcept nogil
cdef void entry_free(Entry *e) noexcept nogil
