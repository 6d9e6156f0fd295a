# Remote ends towards which nearly every ephemeral port is taken; see crowds.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fasttcp.core.layout cimport row_t
from fasttcp.core.tcb cimport Crowd, Endpoint

cdef enum:
    CROWD_SEARCH = 512          # taken ports that one search meets, after which a remote end counts as crowded

cdef Crowd *crowd_find(const Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport) noexcept nogil
cdef Crowd *crowd_make(Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport) noexcept nogil
# How many ports from `port` on are taken for certain, going round from `last` to `first`: at most all of them. step 2:
# only those of its parity count, in a range of an even number of ports.
cdef uint32_t crowd_skip(const Crowd *c, uint32_t first, uint32_t last, uint32_t port, uint32_t step) noexcept nogil
# A row came, or left TIME_WAIT for another life; a row goes, or entered TIME_WAIT. Called only while there are crowds.
cdef void crowd_row_taken(Endpoint *e, row_t row) noexcept nogil
cdef void crowd_row_left(Endpoint *e, row_t row, bint to_time_wait) noexcept nogil
cdef bint reusable_pair(const Endpoint *e, const uint8_t *local, const uint8_t *remote) noexcept nogil
cdef void crowds_close(Endpoint *e) noexcept nogil
cdef int crowds_check(Endpoint *e) except -1
