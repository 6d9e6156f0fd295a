# Text in the making: a buffer that grows, and what a log line is made of. See text.pyx.
#
# The write_ functions put their text at a pointer and return the place behind it. They check nothing: whoever calls
# them has made room with text_room, WIDEST bytes for each call.

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

cdef struct Text:
    char    *data
    size_t   size
    size_t   room
    bint     failed             # the system gave no more memory; what is there is not whole

cdef enum:
    WIDEST = 48                 # bytes; the longest is an IPv6 address with its port, in brackets


cdef inline bint text_room(Text *t, size_t bytes) noexcept nogil:
    """Room for so many more bytes; False: there is none, and `failed` says so."""
    return t.room - t.size >= bytes or text_grow(t, bytes)


cdef inline char *write_char(char *p, char c) noexcept nogil:
    p[0] = c
    return p + 1


cdef inline char *write_bytes(char *p, const char *bytes, size_t n) noexcept nogil:
    memcpy(p, bytes, n)
    return p + n


cdef inline char *write_number(char *p, uint64_t n) noexcept nogil:
    if n < 10:
        p[0] = <char>(48 + n)
        return p + 1
    return write_long_number(p, n)


cdef bint text_grow(Text *t, size_t bytes) noexcept nogil
cdef void text_free(Text *t) noexcept nogil
cdef char *write_long_number(char *p, uint64_t n) noexcept nogil        # 10 or more
cdef char *write_seconds(char *p, int64_t time_us) noexcept nogil       # six digits behind the point
cdef char *write_address(char *p, const uint8_t *address) noexcept nogil
cdef char *write_base62(char *p, uint64_t n, int digits) noexcept nogil
cdef char *write_base64(char *p, const uint8_t *bytes, size_t n) noexcept nogil
