# What the head of an HTTP/1.1 answer says; see http1.pyx.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:                      # what http_head says
    HEAD_MORE = 0               # its end has not come yet
    HEAD_DONE = 1
    HEAD_WRONG = 2              # its first line is no status line


cdef struct Head:
    uint32_t  line              # bytes of the status line without its CR LF
    uint32_t  status            # 100 to 999; 0 until the status line is complete. What follows is valid with HEAD_DONE only
    uint32_t  bytes             # of the head, with the blank line that ends it
    uint64_t  length            # Content-Length
    bint      counted           # ... is there
    bint      miscounted        # ... and is no number, or two that differ
    bint      coded             # Transfer-Encoding is there
    bint      chunked           # ... and its last coding is "chunked"

cdef int http_head(const uint8_t *p, uint32_t n, Head *h) noexcept nogil
