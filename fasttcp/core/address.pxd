# What Python users write: numbers, and addresses to the 16 bytes of a Segment and back.

from libc.stdint cimport int64_t, uint8_t

cdef int parse_address(str name, value, uint8_t *out) except -1
cdef int64_t parse_number(str name, value, int64_t low, int64_t high) except? -1
cdef object whole(str name, value, low, high)
cdef str format_address(const uint8_t *packed)
