"""What Python users write: numbers, and addresses to the 16 bytes of a Segment and back (IPv4 as ::ffff:a.b.c.d)."""

from operator import index

from libc.string cimport memcmp, memcpy

from fasttcp.errors import SegmentError

cdef uint8_t[12] MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]


cdef int parse_address(str name, value, uint8_t *out) except -1:
    """Write 16 bytes in network order; return 4 or 6, the version of the address. `name` is for the error."""
    cdef bytes packed
    if isinstance(value, (bytes, bytearray, memoryview)):
        packed = bytes(value)
        if len(packed) not in (4, 16):
            raise SegmentError(f"{name}: an address has 4 or 16 bytes, got {len(packed)}")
    else:
        import ipaddress    # not at the top: 1 ms that only text needs

        try:
            # ip_address() would read an int as an address, and True as 0.0.0.1
            packed = value.packed if hasattr(value, "packed") else ipaddress.ip_address(str(value)).packed
        except ValueError:
            raise SegmentError(f"{name}: {value!r} is not an IPv4 or IPv6 address") from None
    if len(packed) == 4:
        memcpy(out, MAPPED, 12)
        memcpy(out + 12, <const char *>packed, 4)
        return 4
    memcpy(out, <const char *>packed, 16)
    return 4 if memcmp(out, MAPPED, 12) == 0 else 6


cdef int64_t parse_number(str name, value, int64_t low, int64_t high) except? -1:
    """An integer within its range, or a SegmentError that names both."""
    try:
        number = index(value)
    except TypeError:
        raise SegmentError(f"{name}: expected an integer from {low} to {high}, got {value!r}") from None
    if not low <= number <= high:
        raise SegmentError(f"{name}: {number} is outside {low}..{high}")
    return number


cdef object whole(str name, value, low, high):
    """An integer within its range; TypeError or ValueError that names it and the range."""
    try:
        number = index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}: it must be an int")
    if not low <= number <= high:
        raise ValueError(f"{name} is {number}: it must be from {low} to {high}")
    return number


cdef str format_address(const uint8_t *packed):
    import ipaddress

    if memcmp(packed, MAPPED, 12) == 0:
        return str(ipaddress.IPv4Address(packed[12:16]))
    return str(ipaddress.IPv6Address(packed[:16]))
