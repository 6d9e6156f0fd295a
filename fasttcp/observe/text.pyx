"""Numbers, times and addresses as text, without a Python object for each.

What must not stand here: what a log looks like. Cost: 5 to 15 ns for each.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

cdef const char *DIGITS62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
cdef const char *DIGITS64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef const char *DIGITS16 = b"0123456789abcdef"
cdef uint8_t[12] MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]
cdef char[200] PAIRS            # "00" to "99"
cdef char[7688] PAIRS62         # all pairs of base 62, the lower digit first
cdef char[256][4] OCTETS        # "0" to "255", and its length in the last byte


def _fill():
    cdef int low, high
    for high in range(62):
        for low in range(62):
            PAIRS62[2 * (62 * high + low)] = DIGITS62[low]
            PAIRS62[2 * (62 * high + low) + 1] = DIGITS62[high]
    for i in range(100):
        PAIRS[2 * i] = 48 + i // 10
        PAIRS[2 * i + 1] = 48 + i % 10
    for i in range(256):
        digits = str(i).encode()
        for place in range(len(digits)):
            OCTETS[i][place] = digits[place]
        OCTETS[i][3] = len(digits)


_fill()


cdef bint text_grow(Text *t, size_t bytes) noexcept nogil:
    cdef size_t room = t.room * 2 if t.room else 4096
    cdef char *moved
    while room - t.size < bytes:
        room *= 2
    moved = <char *>realloc(t.data, room)
    if moved == NULL:
        t.failed = True
        return False
    t.data = moved
    t.room = room
    return True


cdef void text_free(Text *t) noexcept nogil:
    free(t.data)
    t.data = NULL
    t.size = t.room = 0


cdef inline char *write_six(char *p, uint32_t n) noexcept nogil:
    """Exactly six digits."""
    memcpy(p, &PAIRS[2 * (n // 10000)], 2)
    memcpy(p + 2, &PAIRS[2 * (n // 100 % 100)], 2)
    memcpy(p + 4, &PAIRS[2 * (n % 100)], 2)
    return p + 6


cdef inline char *write_pair(char *p, uint32_t n) noexcept nogil:
    memcpy(p, &PAIRS[2 * n], 2)
    return p + 2


cdef char *write_number(char *p, uint64_t n) noexcept nogil:
    cdef uint32_t small
    if n < 10:
        p[0] = <char>(48 + n)
        return p + 1
    if n < 100:
        return write_pair(p, <uint32_t>n)
    if n >= 10000:
        return write_long(p, n)
    small = <uint32_t>n
    if small < 1000:
        p[0] = <char>(48 + small // 100)
        return write_pair(p + 1, small % 100)
    return write_pair(write_pair(p, small // 100), small % 100)


cdef char *write_long(char *p, uint64_t n) noexcept nogil:
    """A number of any length, from its end."""
    cdef char digits[40]            # 20 are written; copied by 20, wherever they begin
    cdef int at = 20
    cdef uint32_t small
    while n >= 1_000_000_000:
        at -= 2
        memcpy(digits + at, &PAIRS[2 * (n % 100)], 2)
        n //= 100
    small = <uint32_t>n
    while small >= 10:
        at -= 2
        memcpy(digits + at, &PAIRS[2 * (small % 100)], 2)
        small //= 100
    if small:
        at -= 1
        digits[at] = <char>(48 + small)
    memcpy(p, digits + at, 20)
    return p + 20 - at


cdef char *write_seconds(char *p, int64_t ns) noexcept nogil:
    """Seconds with microseconds, as Zeek writes times and intervals."""
    cdef uint64_t microseconds
    if ns < 0:
        p[0] = c"-"
        p += 1
        microseconds = (<uint64_t>0 - <uint64_t>ns + 500) // 1000
    else:
        microseconds = (<uint64_t>ns + 500) // 1000
    p = write_number(p, microseconds // 1_000_000)
    p[0] = c"."
    return write_six(p + 1, <uint32_t>(microseconds % 1_000_000))


cdef char *write_address(char *p, const uint8_t *address) noexcept nogil:
    """An IPv4 address, or an IPv6 address as RFC 5952 section 4 asks: lower case, the longest run of zeros left out."""
    cdef uint32_t group[8]
    cdef int i, run, best = -1, longest = 1
    cdef bint begun
    cdef uint32_t digit
    if memcmp(address, MAPPED, 12) == 0:
        for i in range(12, 16):
            memcpy(p, OCTETS[address[i]], 3)
            p += OCTETS[address[i]][3]
            p[0] = c"."
            p += 1
        return p - 1
    for i in range(8):
        group[i] = (<uint32_t>address[2 * i] << 8) | address[2 * i + 1]
    i = 0
    while i < 8:
        run = 0
        while i + run < 8 and group[i + run] == 0:
            run += 1
        if run > longest:
            best, longest = i, run
        i += run if run else 1
    i = 0
    while i < 8:
        if i == best:
            p[0] = p[1] = c":"
            p += 2
            i += longest
            continue
        if i > 0 and (best < 0 or i != best + longest):
            p[0] = c":"
            p += 1
        begun = False
        for run in range(12, -4, -4):
            digit = (group[i] >> run) & 15
            if digit or begun or run == 0:
                begun = True
                p[0] = DIGITS16[digit]
                p += 1
        i += 1
    return p


cdef char *write_base62(char *p, uint64_t n, int digits) noexcept nogil:
    """The lowest digits, the lowest first."""
    while digits > 1:
        memcpy(p, &PAIRS62[2 * (n % 3844)], 2)
        n //= 3844
        p += 2
        digits -= 2
    if digits:
        p[0] = DIGITS62[n % 62]
        p += 1
    return p


cdef char *write_base64(char *p, const uint8_t *bytes, size_t n) noexcept nogil:
    """RFC 4648 section 4, with padding."""
    cdef size_t i = 0, left
    cdef uint32_t three
    while i < n:
        left = n - i
        three = <uint32_t>bytes[i] << 16
        if left > 1:
            three |= <uint32_t>bytes[i + 1] << 8
        if left > 2:
            three |= bytes[i + 2]
        p[0] = DIGITS64[three >> 18]
        p[1] = DIGITS64[(three >> 12) & 63]
        p[2] = DIGITS64[(three >> 6) & 63] if left > 1 else c"="
        p[3] = DIGITS64[three & 63] if left > 2 else c"="
        p += 4
        i += 3
    return p
