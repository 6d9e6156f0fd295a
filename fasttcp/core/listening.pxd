# Segments that belong to no row: answered as CLOSED, or taken by a listener; see listening.pyx.

from libc.stdint cimport uint8_t, uint16_t

from fasttcp.core.hash cimport Key
from fasttcp.core.layout cimport Segment, ns_t, row_t
from fasttcp.core.tcb cimport Endpoint, Outcome, Work

# True: a row was made, `w` stands on it, and the segment is to be read by it as well (the ACK that brought a cookie
# back).
cdef bint for_nobody(Endpoint *e, const Segment *s, const Key *key, Outcome *out, Work *w) noexcept nogil
cdef bint find_listener(const Endpoint *e, const uint8_t *local, uint16_t port, row_t *row) noexcept nogil
cdef bint may_reopen(Work *w, row_t *parent) noexcept nogil
cdef void reopen(Work *w, row_t parent) noexcept nogil
cdef bint accept_queue_full(const Endpoint *e, row_t parent) noexcept nogil
cdef bint illegal(const Segment *s) noexcept nogil
cdef bint one_host(const uint8_t *address) noexcept nogil
