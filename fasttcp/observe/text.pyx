"""Numbers, times and addresses as text, without a Python object for each.

What must not stand here: what a log looks like. Cost: 5 to 15 ns for each.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from fasttcp.core.prefetch cimport load32, load64, net32, net64

cdef const char *DIGITS62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
cdef const char *DIGITS64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef const char *DIGITS16 = b"0123456789abcdef"
cdef uint8_t[4] MAPPED = [0, 0, 0xFF, 0xFF]     # behind eight zeros
cdef uint32_t MAPPED_WORD = load32(MAPPED)
cdef char[7688] PAIRS62         # all pairs of base 62, the lower digit first
cdef char[256][4] OCTETS        # "0." to "255.", and their lengths
cdef uint8_t[256] LENGTHS


def _fill():
    cdef int low, high
    for high in range(62):
        for low in range(62):
            PAIRS62[2 * (62 * high + low)] = DIGITS62[low]
            PAIRS62[2 * (62 * high + low) + 1] = DIGITS62[high]
    for i in range(256):
        digits = f"{i}.".encode()
        for place in range(len(digits)):
            OCTETS[i][place] = digits[place]
        LENGTHS[i] = len(digits)


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


cdef inline uint64_t eight_digits(uint32_t n) noexcept nogil:
    """n, below 10^8, as eight digits, the first one in the highest byte: halves, quarters and eighths side by side."""
    cdef uint64_t v = <uint64_t>(n // 10000) << 32 | n % 10000
    cdef uint64_t t = ((v * 10486) >> 20) & <uint64_t>0x7F0000007F          # each four by 100
    v = v + t * (0x10000 - 100)
    t = ((v * 103) >> 10) & <uint64_t>0x000F000F000F000F                    # each two by 10
    return v + t * (0x100 - 10) + <uint64_t>0x3030303030303030


cdef inline uint32_t four_digits(uint32_t n) noexcept nogil:
    cdef uint32_t v = n + (n * 10486 >> 20) * (0x10000 - 100)
    return v + ((v * 103 >> 10) & 0x000F000F) * (0x100 - 10) + 0x30303030


cdef inline char *write_digits(char *p, uint64_t digits, uint32_t without) noexcept nogil:
    """Eight digits without the first ones; writes eight bytes whatever their number."""
    digits = net64(digits << (8 * without))
    memcpy(p, &digits, 8)
    return p + 8 - without


cdef char *write_long_number(char *p, uint64_t n) noexcept nogil:
    cdef uint32_t zeros, four
    # How long a number is cannot be predicted: its length is counted, not asked for.
    if n < 10_000:
        zeros = <uint32_t>(n < 100) + <uint32_t>(n < 1000)
        four = net32(four_digits(<uint32_t>n) << (8 * zeros))
        memcpy(p, &four, 4)
        return p + 4 - zeros
    if n >= 100_000_000:
        return write_digits(write_number(p, n // 100_000_000), eight_digits(<uint32_t>(n % 100_000_000)), 0)
    zeros = <uint32_t>(n < 100_000) + <uint32_t>(n < 1_000_000) + <uint32_t>(n < 10_000_000)
    return write_digits(p, eight_digits(<uint32_t>n), zeros)


cdef char *write_seconds(char *p, int64_t time_us) noexcept nogil:
    """Seconds with microseconds, as Zeek writes times and intervals."""
    cdef uint64_t microseconds = <uint64_t>time_us, seconds
    if time_us < 0:
        p[0] = c"-"
        p += 1
        microseconds = 0 - microseconds
    seconds = microseconds // 1_000_000
    microseconds -= seconds * 1_000_000
    p = write_number(p, seconds)
    p[0] = c"."
    return write_digits(p + 1, eight_digits(<uint32_t>microseconds), 2)


cdef char *write_address(char *p, const uint8_t *address) noexcept nogil:
    """An IPv4 address, or an IPv6 address as RFC 5952 section 4 asks: lower case, the longest run of zeros left out."""
    cdef uint32_t group[8]
    cdef int i, run, best = -1, longest = 1
    cdef bint begun
    cdef uint32_t digit
    if (load64(address) == 0) & (load32(address + 8) == MAPPED_WORD):
        for i in range(12, 16):
            memcpy(p, OCTETS[address[i]], 4)
            p += LENGTHS[address[i]]
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
