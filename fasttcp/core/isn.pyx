"""Keyed functions of a connection's name; see isn.pxd.

A SYN cookie is a sequence number of 32 bits:

    31      27 26    24 23                    0
    | minute  |  mss   |  keyed check of both  |

`minute` is the clock modulo 32, `mss` an index into MSS_STEPS, and the check covers the 4-tuple, the peer's own
sequence number, the full minute and the index. A cookie is good in its minute and the one after it. A blind guess is
right once in 2^24 tries for each minute that is good.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport Segment, seq_lt, seq_t
from fasttcp.core.prefetch cimport load64
from fasttcp.core.siphash cimport siphash
from fasttcp.core.tcb cimport Endpoint, PairNumber, since_epoch

cdef enum:                          # one use, one function: the last word of the message tells them apart
    FOR_SEQUENCE = 1
    FOR_TIMESTAMP = 2
    FOR_COOKIE = 3
    FOR_PORT = 4

cdef uint64_t MINUTE_NS = 60000000000
# Common sizes of a segment, so that rounding down costs little: RFC 9293's defaults, PPPoE, Ethernet, jumbo frames.
cdef uint16_t[8] MSS_STEPS = [216, 536, 1220, 1360, 1440, 1452, 1460, 8960]


cdef inline uint64_t _keyed(
    const Endpoint *e, const uint8_t *local, uint16_t lport, const uint8_t *remote, uint16_t rport, uint64_t use,
    uint64_t more
) noexcept nogil:
    cdef uint64_t word[6]
    word[0] = load64(local)
    word[1] = load64(local + 8)
    word[2] = load64(remote)
    word[3] = load64(remote + 8)
    word[4] = use << 32 | <uint32_t>lport << 16 | rport
    word[5] = more
    return siphash(e.secret, word, 6)


cdef seq_t initial_sequence(
    const Endpoint *e, const uint8_t *local, uint16_t lport, const uint8_t *remote, uint16_t rport
) noexcept nogil:
    """ISN = M + F(4-tuple, secret), where M counts iss_tick_ns (RFC 6528 section 3)."""
    cdef uint64_t clock = since_epoch(e) // <uint64_t>e.policy.iss_tick_ns
    return <seq_t>(clock + _keyed(e, local, lport, remote, rport, FOR_SEQUENCE, 0))


cdef seq_t next_sequence(
    const Endpoint *e, const uint8_t *local, uint16_t lport, const uint8_t *remote, uint16_t rport, seq_t snd_nxt
) noexcept nogil:
    """The clock alone would do, were it not for connections that sent more than it counts (kernel: SND.NXT + 65537)."""
    cdef seq_t iss = initial_sequence(e, local, lport, remote, rport)
    cdef seq_t least = snd_nxt + 65537
    return least if seq_lt(iss, least) else iss


cdef inline uint32_t _of_pair(
    Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport, uint64_t use
) noexcept nogil:
    """A number that does not change from connection to connection, so the last ones are kept: a host talks to few."""
    cdef uint64_t a = load64(local), b = load64(local + 8), c = load64(remote), d = load64(remote + 8)
    cdef uint32_t which = <uint32_t>(use << 16) | rport
    cdef uint64_t mixed = (a ^ c) * 3 ^ b ^ (d >> 21 | d << 43) ^ which
    cdef PairNumber *known = &e.pair_number[mixed * <uint64_t>0x9E3779B97F4A7C15 >> 58]
    if known.use == which and known.name[0] == a and known.name[1] == b and known.name[2] == c and known.name[3] == d:
        return known.value
    known.value = <uint32_t>_keyed(e, local, 0, remote, rport, use, 0)
    known.use = which
    known.name[0] = a
    known.name[1] = b
    known.name[2] = c
    known.name[3] = d
    return known.value


cdef uint32_t timestamp_offset(Endpoint *e, const uint8_t *local, const uint8_t *remote) noexcept nogil:
    """One offset for a pair of hosts, so that their timestamps grow from one connection to the next (RFC 7323 section
    7.1, kernel secure_tcp_ts_off): TIME_WAIT is reopened on that ground."""
    return _of_pair(e, local, remote, 0, FOR_TIMESTAMP)


cdef uint32_t port_offset(
    Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport
) noexcept nogil:
    """F of RFC 6056 section 3.3.3."""
    return _of_pair(e, local, remote, rport, FOR_PORT)


cdef inline uint32_t _check(
    const Endpoint *e, const Segment *s, seq_t irs, uint64_t minute, uint32_t step
) noexcept nogil:
    cdef uint64_t more = minute << 35 ^ <uint64_t>step << 32 ^ irs
    return <uint32_t>(_keyed(e, s.dst, s.dport, s.src, s.sport, FOR_COOKIE, more) & 0xFFFFFF)


cdef seq_t cookie_make(const Endpoint *e, const Segment *syn, uint32_t mss) noexcept nogil:
    cdef uint64_t minute = since_epoch(e) // MINUTE_NS
    cdef uint32_t step = 7
    while step > 0 and MSS_STEPS[step] > mss:
        step -= 1
    return <seq_t>((minute & 31) << 27) | step << 24 | _check(e, syn, syn.seq, minute, step)


cdef bint cookie_check(const Endpoint *e, const Segment *ack, Cookie *cookie) noexcept nogil:
    """Whether `ack` acknowledges a cookie of this minute or the one before, and what the SYN had said."""
    cdef uint32_t value = ack.ack - 1
    cdef uint64_t minute = since_epoch(e) // MINUTE_NS
    cdef uint32_t age = (<uint32_t>minute - (value >> 27)) & 31
    cdef uint32_t step = value >> 24 & 7
    if age > 1 or age > minute:
        return False
    cookie.irs = ack.seq - 1
    cookie.mss = MSS_STEPS[step]
    return _check(e, ack, cookie.irs, minute - age, step) == value & 0xFFFFFF
