# One step of the machine and what it asks for; see actions.pyx.

from libc.stdint cimport uint32_t

from fasttcp.core.hash cimport Key
from fasttcp.core.layout cimport row_t, seq_t
from fasttcp.core.tcb cimport Endpoint, Work

cdef uint32_t step(Work *w, int event) noexcept nogil
cdef void finish(Work *w) noexcept nogil
cdef int take_row(Endpoint *e, const Key *key, row_t *row) noexcept nogil
cdef void open_sequence(Work *w, seq_t iss) noexcept nogil
cdef bint parent_of(Endpoint *e, row_t row, row_t *parent) noexcept nogil
cdef void leave_backlog(Endpoint *e, row_t row) noexcept nogil
cdef void leave_accept_queue(Endpoint *e, row_t row) noexcept nogil
cdef void take_syn(Work *w) noexcept nogil
