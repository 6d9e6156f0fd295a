# ICMP's word that a TCP segment was not delivered (RFC 792; RFC 4443 section 3.1, 3.2), and what it quotes of that segment.

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
    ICMP_TOO_LARGE = 5          # nothing, but by smaller packets
    N_ICMP = 6

cdef enum:
    QUOTED = 8                  # bytes of TCP that are quoted at least: ports and sequence number


# A bare IP packet of n bytes. Of s are filled in: ends and sequence number, as our segment had them; info, what this returns; and
# ip_bytes, with ICMP_TOO_LARGE how large a packet may be (RFC 1191 section 4), 0 when it does not say. Whoever acts on it has to
# compare the number with what was sent: anybody can send ICMP (RFC 5927 section 4.1).
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
        else:
            what = ICMP_TOO_LARGE if code == 4 else ICMP_HOST
        s.ip_bytes = be16(p + at + 6) if code == 4 else 0
        p += at + 8
        n -= at + 8
        at = (p[0] & 15) * 4
        if p[0] >> 4 != 4 or at < 20 or n < at + QUOTED or p[9] != 6 or be16(p + 6) & 0x1FFF:
            return ICMP_NOTHING
        map_ip4(s.src, load32(p + 12))
        map_ip4(s.dst, load32(p + 16))
    elif n >= 40 + 8 + 40 + QUOTED and p[0] >> 4 == 6 and p[6] == 58 and (p[40] == 1 or p[40] == 2):
        code = p[41]
        s.ip_bytes = 0
        if p[40] == 2:
            what = ICMP_TOO_LARGE
            s.ip_bytes = be32(p + 44)
        elif code == 0 or code == 2:
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
    s.info = what
    return what
