# The calls of an endpoint's application as Python methods; ConnectionTable inherits them. See application.pyx.

from fasttcp.core.layout cimport row_t
from fasttcp.core.seat cimport Engine
from fasttcp.core.tap cimport Observer
from fasttcp.core.tcb cimport Endpoint
from fasttcp.core.turn cimport Turn

cdef class Application:
    cdef Engine *engine             # of either seat; NULL while the table is not open
    cdef Observer *observer         # NULL in the endpoint seat
    cdef Endpoint *endpoint         # NULL in the observer seat
    cdef Turn turn                  # who is inside

cdef int ready(Application table) except -1
cdef int enter(Application table) except -1
cdef bint expired(Application table, row_t row) noexcept
cdef bint row_of(Application table, object number, row_t *row) except -1
cdef int live_row(Application table, handle, row_t *row) except -1
