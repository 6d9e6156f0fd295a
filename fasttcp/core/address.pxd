# Addresses as Python users write them, to the 16 bytes of a Segment and back.

from libc.stdint cimport uint8_t, uint16_t

cdef int parse_address(address, uint8_t *out) except -1         # 4 or 6: its IP version
cdef int parse_endpoint(address, port, uint8_t *out) except -1  # the port
cdef str format_address(const uint8_t *packed)
