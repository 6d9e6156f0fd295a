# What must not be guessed: initial sequence numbers, timestamp offsets, SYN cookies, the order of ephemeral ports.
#
# Each is a keyed function (siphash.pxd) of the connection's name and, where RFC 6528 and RFC 4987 want it, of the
# clock. No state is kept here: two endpoints with one secret and one clock give the same numbers.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fasttcp.core.layout cimport Segment, seq_t
from fasttcp.core.tcb cimport Endpoint

cdef struct Cookie:                 # what a valid cookie gives back
    uint32_t mss
    seq_t    irs

cdef seq_t initial_sequence(
    const Endpoint *e, const uint8_t *local, uint16_t lport, const uint8_t *remote, uint16_t rport
) noexcept nogil
# The same for a 4-tuple whose last connection, just out of TIME_WAIT, has used everything below `snd_nxt`.
cdef seq_t next_sequence(
    const Endpoint *e, const uint8_t *local, uint16_t lport, const uint8_t *remote, uint16_t rport, seq_t snd_nxt
) noexcept nogil
cdef uint32_t timestamp_offset(Endpoint *e, const uint8_t *local, const uint8_t *remote) noexcept nogil
cdef uint32_t port_offset(
    Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport
) noexcept nogil
cdef seq_t cookie_make(const Endpoint *e, const Segment *syn, uint32_t mss) noexcept nogil
cdef bint cookie_check(const Endpoint *e, const Segment *ack, Cookie *cookie) noexcept nogil
