"""What the head of an HTTP/1.1 answer says of its status and of where the body ends (RFC 9112).

A pure function of bytes: what they are part of, and what was asked, is answer.pyx's. One pass, memchr for the end of each line;
of a line that is neither of the two fields below one byte is looked at. A line may end with LF alone (section 2.2).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

__all__: list[str] = []

cdef enum:
    HT = 9
    LF = 10
    CR = 13
    SP = 32
    COMMA = 44


cdef inline bint _is_digit(uint8_t c) noexcept nogil:
    return 48 <= c <= 57


cdef inline bint _is_blank(uint8_t c) noexcept nogil:
    return c == SP or c == HT


cdef bint _is_name(const uint8_t *p, const char *name, uint32_t n) noexcept nogil:
    """Without regard to case; `name` is in lower case."""
    cdef uint32_t i
    for i in range(n):
        if p[i] != name[i] and not (65 <= p[i] <= 90 and (p[i] | 0x20) == name[i]):
            return False
    return True


cdef uint32_t _status(const uint8_t *p, uint32_t n) noexcept nogil:
    """HTTP/x.y SP 3 digits, then SP or nothing (section 4): the three digits; 0: it is no status line."""
    if (
        n < 12 or memcmp(p, <const char *>b"HTTP/", 5) != 0 or not _is_digit(p[5]) or p[6] != 46 or not _is_digit(p[7])
        or p[8] != SP or not _is_digit(p[9]) or not _is_digit(p[10]) or not _is_digit(p[11]) or (n > 12 and p[12] != SP)
    ):
        return 0
    return (p[9] - 48) * 100 + (p[10] - 48) * 10 + p[11] - 48


cdef void _content_length(Head *h, const uint8_t *p, const uint8_t *end) noexcept nogil:
    """A number, or several that are equal, in one line or in more (RFC 9110 section 8.6)."""
    cdef const uint8_t *begin
    cdef uint64_t value
    cdef uint32_t digit
    while True:
        while p != end and _is_blank(p[0]):
            p += 1
        begin = p
        value = 0
        while p != end and _is_digit(p[0]) and value >> 56 == 0:    # so one digit more does not wrap
            digit = p[0] - 48
            value = value * 10 + digit
            p += 1
        if p == begin or (h.counted and value != h.length):
            h.miscounted = True
        h.counted = True
        h.length = value
        while p != end and _is_blank(p[0]):
            p += 1
        if p == end:
            return
        if p[0] != COMMA:
            h.miscounted = True
            return
        p += 1


cdef void _transfer_encoding(Head *h, const uint8_t *p, const uint8_t *end) noexcept nogil:
    """The last coding of the last such line is the one that frames the body (section 6.1)."""
    while p != end and _is_blank((end - 1)[0]):
        end -= 1
    h.coded = True
    h.chunked = end - p >= 7 and _is_name(end - 7, b"chunked", 7) and (
        end - p == 7 or _is_blank((end - 8)[0]) or (end - 8)[0] == COMMA
    )


cdef int http_head(const uint8_t *p, uint32_t n, Head *h) noexcept nogil:
    cdef const uint8_t *line = p
    cdef const uint8_t *lf
    cdef const uint8_t *end
    memset(h, 0, sizeof(Head))
    while True:
        lf = <const uint8_t *>memchr(line, LF, p + n - line)
        if lf == NULL:
            return HEAD_MORE
        end = lf - 1 if lf != line and (lf - 1)[0] == CR else lf
        if line == p:
            h.line = <uint32_t>(end - line)
            h.status = _status(line, h.line)
            if h.status < 100:
                return HEAD_WRONG
        elif end == line:
            h.bytes = <uint32_t>(lf + 1 - p)
            return HEAD_DONE
        elif end - line > 14 and line[14] == 58 and _is_name(line, b"content-length", 14):
            _content_length(h, line + 15, end)
        elif end - line > 17 and line[17] == 58 and _is_name(line, b"transfer-encoding", 17):
            _transfer_encoding(h, line + 18, end)
        line = lf + 1
