# Lines of a log out of entries; see logs.pyx.

from libc.stdint cimport uint8_t

from fasttcp.observe.page cimport Entry
from fasttcp.observe.text cimport Text

cdef enum:
    MAX_FIELDS = 64

cdef enum:                      # in the order of FORMATS
    FORMAT_TABLE
    FORMAT_ZEEK
    FORMAT_JSON
    FORMAT_CSV

cdef struct Layout:
    int      format
    int      n
    int      histories          # how many of the fields are histories, which have no bound of their own
    uint8_t  field[64]

cdef void put_entry(Text *t, const Layout *layout, const Entry *e) noexcept nogil
cdef int layout_open(Layout *layout, str form, fields) except -1
