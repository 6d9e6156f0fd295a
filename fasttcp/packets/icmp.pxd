# ICMP's word that a TCP segment was not delivered (RFC 792; RFC 4443 section 3.1), and what it quotes of that segment.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from fasttcp.core.layout cimport Segment
from fasttcp.core.prefetch cimport load32
from fasttcp.packets.bytes cimport be16, be32
from fasttcp.packets.decode cimport map_ip4

cdef enum:                      # what is said to be out of reach
    ICMP_NOTHING = 0
    ICMP_NETWORK = 1            # there is no route
    ICMP_HOST = 2
    ICMP_PORT = 3               # or the protocol; many firewalls say so as well
    ICMP_FORBIDDEN = 4          # a firewall says so
    N_ICMP = 5

cdef enum:
    QUOTED = 8                  # bytes of TCP that are quoted at least: ports and sequence number


# A bare IP packet of n bytes. Of s only ends and sequence number are filled in, as our segment had them. Whoever acts on it has
# to compare the number with what was sent: anybody can send ICMP (RFC 5927 section 4.1).
cdef inline int read_unreachable(const uint8_t *p, uint32_t n, Segment *s) noexcept nogil:
    cdef uint32_t at, code
    cdef int what
    if n >= 28 and p[0] >> 4 == 4 and p[9] == 1:
        at = (p[0] & 15) * 4
        if at < 20 or n < at + 8 + 20 or p[at] != 3:
            return ICMP_NOTHING
        code = p[at + 1]
        if code == 0 or code == 6 or code == 11:
            what = ICMP_NETWORK
        elif code == 2 or code == 3:
            what = ICMP_PORT
        elif code == 9 or code == 10 or 13 <= code <= 15:
            what = ICMP_FORBIDDEN
        elif code == 4:                     # too large for a path: the segment is out of reach only as it is
            return ICMP_NOTHING
        else:
            what = ICMP_HOST
        p += at + 8
        n -= at + 8
        at = (p[0] & 15) * 4
        if p[0] >> 4 != 4 or at < 20 or n < at + QUOTED or p[9] != 6 or be16(p + 6) & 0x1FFF:
            return ICMP_NOTHING
        map_ip4(s.src, load32(p + 12))
        map_ip4(s.dst, load32(p + 16))
    elif n >= 40 + 8 + 40 + QUOTED and p[0] >> 4 == 6 and p[6] == 58 and p[40] == 1:
        code = p[41]
        if code == 0 or code == 2:
            what = ICMP_NETWORK
        elif code == 1 or code == 5 or code == 6:
            what = ICMP_FORBIDDEN
        else:
            what = ICMP_PORT if code == 4 else ICMP_HOST
        p += 48
        at = 40
        if p[0] >> 4 != 6 or p[6] != 6:
            return ICMP_NOTHING
        memcpy(s.src, p + 8, 16)
        memcpy(s.dst, p + 24, 16)
    else:
        return ICMP_NOTHING
    s.sport = <uint16_t>be16(p + at)
    s.dport = <uint16_t>be16(p + at + 2)
    s.seq = be32(p + at + 4)
    return what
