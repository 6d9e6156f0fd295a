"""Numbers, times and addresses as text, without a Python object for each.

What must not stand here: what a log looks like. Cost: some 10 ns a number, 20 ns an address.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

cdef const char *DIGITS62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
cdef const char *DIGITS64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef const char *DIGITS16 = b"0123456789abcdef"
cdef uint8_t[12] MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]


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


cdef void put_number(Text *t, uint64_t n) noexcept nogil:
    cdef char digits[20]
    cdef int at = 20
    while True:
        at -= 1
        digits[at] = <char>(c"0" + n % 10)
        n //= 10
        if n == 0:
            break
    put_bytes(t, digits + at, 20 - at)


cdef void put_seconds(Text *t, int64_t ns) noexcept nogil:
    """Seconds with microseconds, as Zeek writes times and intervals."""
    cdef uint64_t microseconds
    cdef char digits[7]
    cdef int i
    if ns < 0:
        put_char(t, c"-")
        microseconds = (<uint64_t>0 - <uint64_t>ns + 500) // 1000
    else:
        microseconds = (<uint64_t>ns + 500) // 1000
    put_number(t, microseconds // 1_000_000)
    microseconds %= 1_000_000
    digits[0] = c"."
    for i in range(6, 0, -1):
        digits[i] = <char>(c"0" + microseconds % 10)
        microseconds //= 10
    put_bytes(t, digits, 7)


cdef inline void put_octet(Text *t, uint8_t octet) noexcept nogil:
    if octet >= 100:
        put_char(t, <char>(c"0" + octet // 100))
    if octet >= 10:
        put_char(t, <char>(c"0" + octet // 10 % 10))
    put_char(t, <char>(c"0" + octet % 10))


cdef void put_address(Text *t, const uint8_t *address) noexcept nogil:
    """An IPv4 address, or an IPv6 address as RFC 5952 section 4 asks: lower case, the longest run of zeros left out."""
    cdef uint32_t group[8]
    cdef int i, run, best = -1, longest = 1
    cdef bint begun
    cdef uint32_t digit
    if memcmp(address, MAPPED, 12) == 0:
        for i in range(12, 16):
            if i > 12:
                put_char(t, c".")
            put_octet(t, address[i])
        return
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
            put_bytes(t, b"::", 2)
            i += longest
            continue
        if i > 0 and i != best + longest or i > 0 and best < 0:
            put_char(t, c":")
        begun = False
        for run in range(12, -4, -4):
            digit = (group[i] >> run) & 15
            if digit or begun or run == 0:
                begun = True
                put_char(t, DIGITS16[digit])
        i += 1


cdef void put_base62(Text *t, uint64_t n, int digits) noexcept nogil:
    while digits > 0:
        put_char(t, DIGITS62[n % 62])
        n //= 62
        digits -= 1


cdef void put_base64(Text *t, const uint8_t *bytes, size_t n) noexcept nogil:
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
        put_char(t, DIGITS64[three >> 18])
        put_char(t, DIGITS64[(three >> 12) & 63])
        put_char(t, DIGITS64[(three >> 6) & 63] if left > 1 else c"=")
        put_char(t, DIGITS64[three & 63] if left > 2 else c"=")
        i += 3
