# What a server has of each connection, and the bytes it owes it; see serving.pyx.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fasttcp.core.layout cimport seq_t


cdef struct Peer:               # 32 bytes a row
    uint64_t handle
    uint8_t *bytes              # of an echo, from `base` on
    uint32_t n
    uint32_t capacity
    seq_t    base               # an answer, again and again, begins here: see wire_offset
    uint8_t  seen               # of the blank line that ends a request
    uint8_t  closes             # the peer has closed

# Bytes of an echo that are kept, and acknowledged.
cdef uint32_t peer_acknowledged(const Peer *p, seq_t una) noexcept nogil
# n bytes more to be sent back; False: no memory.
cdef bint peer_keep(Peer *p, seq_t una, const uint8_t *data, uint32_t n) noexcept nogil
