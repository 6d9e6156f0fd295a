# The Community ID of a connection; see community.pyx.

from libc.stdint cimport uint16_t, uint8_t

cdef char *write_community_id(
    char *p, const uint8_t *addr_a, uint16_t port_a, const uint8_t *addr_b, uint16_t port_b, uint16_t seed
) noexcept nogil
