# The records that every floor above shares: a segment on its way in or out, and a row of the table.
#
# This file holds shapes and the arithmetic of sequence numbers. No rule of TCP, no memory management, no clock.
#
#   Segment   80 bytes   one TCP segment, as a decoder, a driver or a test hands it over   (packets/, apply())
#   Row       64 bytes   one cache line: all that a common event reads or writes
#   Cold      48 bytes   what is read or written only when a connection begins, ends or does something odd
#
# A row has two sides. In the observer seat they are the two hosts of a connection; in the endpoint seat side 0 is the
# local half and side 1 is only its name.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

ctypedef uint32_t seq_t     # a sequence number, modulo 2^32 (RFC 9293 section 3.4); compare with the functions below only
ctypedef int64_t ns_t       # nanoseconds on the caller's clock, any epoch
ctypedef uint32_t tick_t    # ticks of the table's wheel, modulo 2^32
ctypedef uint32_t row_t     # the number of a row; stable for the life of a connection


cdef inline bint seq_lt(seq_t a, seq_t b) noexcept nogil:
    """a < b on the circle: b is ahead of a by less than 2^31."""
    return <int32_t>(a - b) < 0


cdef inline bint seq_le(seq_t a, seq_t b) noexcept nogil:
    return <int32_t>(a - b) <= 0


cdef inline seq_t seq_max(seq_t a, seq_t b) noexcept nogil:
    return b if <int32_t>(a - b) < 0 else a


# TCP flags, as they stand in the header (RFC 9293 section 3.1)
cdef enum:
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10
    URG = 0x20
    ECE = 0x40
    CWR = 0x80

# Segment.options: which of the option fields hold a value
cdef enum:
    OPT_MSS = 0x01
    OPT_WSCALE = 0x02
    OPT_SACK_PERMITTED = 0x04
    OPT_TIMESTAMPS = 0x08

# Segment.info: what a decoder knows beyond the header
cdef enum:
    INFO_IPV6 = 0x01            # the IP header was version 6
    INFO_BAD_CHECKSUM = 0x02    # the TCP checksum was present, complete, and wrong
    INFO_BAD_HEADER = 0x04      # data offset below 5 or beyond the segment: ports are known, nothing else is


cdef struct Segment:
    int64_t  time_ns        # 0   when it was seen or is to be applied
    uint8_t  src[16]        # 8   network order; IPv4 as ::ffff:a.b.c.d
    uint8_t  dst[16]        # 24
    uint16_t sport          # 40  host order
    uint16_t dport          # 42
    uint32_t seq            # 44
    uint32_t ack            # 48  meaningful when flags & ACK
    uint32_t payload        # 52  bytes of data after the TCP header, as on the wire (not as captured)
    uint32_t tsval          # 56  meaningful when options & OPT_TIMESTAMPS
    uint32_t tsecr          # 60
    uint16_t window         # 64  as in the header, unscaled
    uint16_t flags          # 66
    uint16_t mss            # 68  meaningful when options & OPT_MSS
    uint8_t  wscale         # 70  meaningful when options & OPT_WSCALE
    uint8_t  options        # 71
    uint32_t ip_bytes       # 72  length of the IP datagram, headers and all (IPv6: 40 + payload length)
    uint32_t info           # 76
