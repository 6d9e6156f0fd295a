# Text in the making: a buffer that grows, and what a log line is made of. See text.pyx.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef struct Text:
    char    *data
    size_t   size
    size_t   room
    bint     failed             # the system gave no more memory; what is there is not whole

cdef enum:
    ROOM = 256                  # bytes that a call below needs at most, put_bytes apart


cdef inline bint reserve(Text *t, size_t bytes) noexcept nogil:
    """Room for so many more bytes, or failed."""
    return t.room - t.size >= bytes or text_grow(t, bytes)


cdef inline void put_char(Text *t, char c) noexcept nogil:
    if reserve(t, 1):
        t.data[t.size] = c
        t.size += 1


cdef inline void put_bytes(Text *t, const char *bytes, size_t n) noexcept nogil:
    if reserve(t, n):
        memcpy(t.data + t.size, bytes, n)
        t.size += n


cdef bint text_grow(Text *t, size_t bytes) noexcept nogil
cdef void text_free(Text *t) noexcept nogil
cdef void put_number(Text *t, uint64_t n) noexcept nogil
cdef void put_seconds(Text *t, int64_t ns) noexcept nogil           # six digits behind the point, rounded
cdef void put_address(Text *t, const uint8_t *address) noexcept nogil
cdef void put_base62(Text *t, uint64_t n, int digits) noexcept nogil
cdef void put_base64(Text *t, const uint8_t *bytes, size_t n) noexcept nogil
