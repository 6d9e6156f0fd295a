# The records that every floor above shares: a segment on its way in or out, and a row of the table.
#
# This file holds shapes and the arithmetic of sequence numbers. No rule of TCP, no memory management, no clock.
#
#   Segment   80 bytes   one TCP segment, as a decoder, a driver or a test hands it over   (packets/, apply())
#   Row       64 bytes   one cache line: all that a common event reads or writes
#   Observed  40 bytes   what is read or written only when a connection begins, ends or does something odd
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
    INFO_BAD_HEADER = 0x04      # data offset below 5 or beyond what is at hand: ports, numbers and flags are known, nothing else is
    INFO_CUT = 0x08             # the capture holds only the front of it


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


# Row.flags: which way round the sides are, what was learnt in the handshake, what is pending
cdef enum:
    ROW_IPV6 = 0x0001           # the addresses stand in Table.addr6; Row.addr holds 64 bits of their hash
    ROW_SIDE_1_OPENED = 0x0002  # observer: side 1 is the originator (else side 0)
    ROW_PARTIAL = 0x0004        # observer: picked up mid-stream, the handshake was not seen
    ROW_SCALED_0 = 0x0008       # observer: the SYN of side 0 was seen, so its window scale (perhaps 0) is known
    ROW_SCALED_1 = 0x0010
    ROW_SYN_PENDING = 0x0020    # observer: a SYN with another sequence number waits for the other side's answer (half-open)
    ROW_ORPHAN = 0x0040         # endpoint: the application has let go of it
    ROW_PASSIVE = 0x0080        # endpoint: it came out of a LISTEN row
    ROW_SHIFT_0 = 8             # bits 8 to 11: window shift of side 0 (0 to 14, RFC 7323 section 2.3)
    ROW_SHIFT_1 = 12            # bits 12 to 15: window shift of side 1


cdef struct Half:               # observer: what one host has shown on the wire
    seq_t    snd_nxt            # one past the highest sequence number it has sent (SND.NXT as far as seen)
    seq_t    rcv_nxt            # the highest acknowledgment it has sent (its RCV.NXT as far as seen)
    uint16_t window             # its last advertised window, unscaled
    uint16_t packets            # low 16 bits of its packets; the carry is in Observed.packets_high
    uint32_t bytes              # low 32 bits of its payload bytes, repeated ones too; carry in Observed.bytes_high


cdef struct Tcb:                # endpoint: the transmission control block, as far as every event needs it
    seq_t    snd_una            # RFC 9293 section 3.3.1
    seq_t    snd_nxt
    seq_t    rcv_nxt
    seq_t    snd_wl1
    seq_t    snd_wl2
    uint32_t snd_wnd            # bytes, scaled
    uint32_t rcv_wnd            # bytes, scaled
    uint8_t  retries            # retransmissions of what stands at snd_una, or keepalive probes unanswered
    uint8_t  timer              # which TIMER_... is armed
    uint16_t mss                # bytes of data in one segment to the peer


cdef union Seat:
    Half half[2]
    Tcb tcb


cdef struct Row:
    uint32_t addr[2]            # 0   IPv4 addresses in network order; IPv6: 64 bits of their keyed hash
    uint16_t port[2]            # 8   host order
    uint8_t  state[2]           # 12  State of each side; endpoint: state[1] stays CLOSED
    uint16_t parked             # 14  0x8000 + the wheel slot that will look at this row; 0: no timer; 0x7FFF: a free row
    tick_t   deadline           # 16  when the armed timer is due; free row: the next free row
    uint16_t flags              # 20
    uint16_t aux                # 22  endpoint: see endpoint.pxd; observer: a letter's worth of what was seen
    int64_t  last_ns            # 24  time of the last segment
    Seat     seat               # 32


# Every cold record begins with these fields.
cdef struct Cold:
    uint32_t generation         # counts the lives of this row; odd while it is in use
    uint32_t timer_at           # where its entry stands in the wheel, chunk * 16 + place, while Row.parked says that there is one
    int64_t  first_ns           # time of the first segment or call


cdef struct Observed:           # observer seat, 40 bytes
    Cold     head
    seq_t    isn[2]
    uint32_t retransmitted[2]   # segments that brought nothing new
    uint16_t packets_high[2]
    uint16_t bytes_high[2]


cdef enum:
    NO_ROW = 0xFFFFFFFF
