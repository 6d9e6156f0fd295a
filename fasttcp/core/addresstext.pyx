"""Addresses as text without Python, for millions of them: IPv4 dotted, IPv6 as RFC 5952 section 4 wants it."""

from libc.stdint cimport uint8_t, uint32_t

cdef const char *HEX = b"0123456789abcdef"


cdef inline int _decimal(uint32_t value, char *out) noexcept nogil:
    cdef int n = 0
    if value >= 100:
        out[n] = <char>(48 + value // 100)
        n += 1
    if value >= 10:
        out[n] = <char>(48 + value // 10 % 10)
        n += 1
    out[n] = <char>(48 + value % 10)
    return n + 1


cdef inline int _hex(uint32_t value, char *out) noexcept nogil:
    cdef int n = 0, shift = 12
    while shift > 0 and value >> shift == 0:
        shift -= 4
    while shift >= 0:
        out[n] = HEX[value >> shift & 15]
        n += 1
        shift -= 4
    return n


cdef int address_text(const uint8_t *packed, char *out) noexcept nogil:
    """Write the text of an address, ::ffff:a.b.c.d as a.b.c.d; return how many characters, at most 39."""
    cdef uint32_t group[8]
    cdef int i, n = 0, run = 0, longest = 1, start = -1
    cdef bint mapped = packed[10] == 0xFF and packed[11] == 0xFF
    for i in range(10):
        if packed[i]:
            mapped = False
    if mapped:
        for i in range(12, 16):
            n += _decimal(packed[i], out + n)
            if i < 15:
                out[n] = c"."
                n += 1
        return n
    for i in range(8):
        group[i] = <uint32_t>packed[2 * i] << 8 | packed[2 * i + 1]
        run = run + 1 if group[i] == 0 else 0
        if run > longest:           # the first of the longest; a single group is not shortened
            longest = run
            start = i - run + 1
    i = 0
    while i < 8:
        if i == start:
            out[n] = out[n + 1] = c":"
            n += 2
            i += longest
            continue
        if i > 0 and i != start + longest:
            out[n] = c":"
            n += 1
        n += _hex(group[i], out + n)
        i += 1
    return n
