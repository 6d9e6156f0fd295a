# A bare IP packet (no link layer) that holds a whole TCP segment, as a TUN device hands it over.
#
# Fragments and IPv6 extension headers are not read: a host's own routes make none. Whatever is not TCP is not read
# either; the caller counts it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fasttcp.core.layout cimport INFO_IPV6, Segment, ns_t
from fasttcp.core.prefetch cimport load32
from fasttcp.packets.bytes cimport be16, in_sum, sum_bytes, sums_up
from fasttcp.packets.decode cimport map_ip4
from fasttcp.packets.tcp cimport TCP_HEADER, read_tcp


# False: no TCP segment. `payload` is where its data begin. With `validate` the TCP checksum must be complete.
cdef inline bint read_bare(
    const uint8_t *p, uint32_t n, bint validate, ns_t now_ns, Segment *s, const uint8_t **payload
) noexcept nogil:
    cdef uint32_t ip, length
    cdef uint64_t pseudo = 0
    if n < 20:
        return False
    if p[0] >> 4 == 4:
        ip = (p[0] & 15) * 4
        length = be16(p + 2)
        if ip < 20 or length > n or length < ip + TCP_HEADER or p[9] != 6 or be16(p + 6) & 0x3FFF:
            return False
        if not sums_up(sum_bytes(p, ip)):
            return False
        s.ip_bytes = length
        s.info = 0
        map_ip4(s.src, load32(p + 12))
        map_ip4(s.dst, load32(p + 16))
        length -= ip
        if validate:
            pseudo = sum_bytes(p + 12, 8) + in_sum(6) + in_sum(length)
    elif p[0] >> 4 == 6:
        ip = 40
        if n < 40 + TCP_HEADER or p[6] != 6:
            return False
        length = be16(p + 4)
        if length + 40 > n or length < TCP_HEADER:
            return False
        s.ip_bytes = length + 40
        s.info = INFO_IPV6
        memcpy(s.src, p + 8, 16)
        memcpy(s.dst, p + 24, 16)
        if validate:
            pseudo = sum_bytes(p + 8, 32) + in_sum(6) + in_sum(length)
    else:
        return False
    s.time_ns = now_ns
    read_tcp(s, p + ip, length, length, validate, pseudo)
    payload[0] = p + ip + (p[ip + 12] >> 4) * 4
    return True
