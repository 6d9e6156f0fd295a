# The one timer of a row: which it is, how long it runs, what it measures.

from libc.stdint cimport uint32_t

from fasttcp.core.layout cimport Row, ns_t, seq_t
from fasttcp.core.tcb cimport Endpoint, EndpointCold, Work

cdef int timer_needed(const Endpoint *e, const Row *r, const EndpointCold *c) noexcept nogil
cdef uint32_t retry_limit(const Endpoint *e, const Row *r) noexcept nogil
cdef bint given_up(const Work *w) noexcept nogil
cdef void settle(Work *w) noexcept nogil
cdef void time_segment(Work *w, seq_t end) noexcept nogil
cdef void measure(Work *w, seq_t ack) noexcept nogil
cdef void start_rto(Work *w) noexcept nogil
