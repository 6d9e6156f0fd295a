"""The names under which the fields of a row can be seen from Python, for `ConnectionTable.column`.

Sides are 0 and 1 as they are stored: side 0 has the lower (address, port). `flags` & 0x0002 says that side 1 opened.

    state_N         State                       addr_N          IPv4 address as a number (IPv6: of a hash)
    port_N                                      flags           ROW_... of layout.pxd
    deadline        tick at which the timer is due, modulo 2^32 (a free row: the next free row)
    last_ns         time of the last segment    first_ns        time of the first
    snd_nxt_N       SND.NXT as far as seen      rcv_nxt_N       RCV.NXT as far as seen
    window_N        last window, unscaled       isn_N           initial sequence number
    packets_low_N   packets_high_N              16 bits each of the packets that side sent
    bytes_low_N     bytes_high_N                32 and 16 bits of the payload bytes that side sent
    retransmitted_N segments without news       generation      counts the row's lives; odd while it holds a connection

In the endpoint seat side 0 is the local half and side 1 only its name; instead of the fields of two halves there are

    snd_una         snd_nxt         rcv_nxt     SND.UNA, SND.NXT, RCV.NXT
    snd_wnd         rcv_wnd         bytes       mss             bytes of data in one segment to the peer
    retries         times that what stands at SND.UNA was sent again, or probes without an answer
    timer           TIMER_... of tcb.pxd        iss, irs        initial sequence numbers, ours and the peer's
    snd_queued      bytes that wait to be sent  rcv_unread      bytes delivered and not read
    srtt_us         rttvar_us       rto_us      of RFC 6298     retransmitted   segments sent again
    segments_sent   segments_received           of this connection
"""

from fasttcp.core.layout cimport Cold, Observed, Row
from fasttcp.core.tcb cimport EndpointCold


cdef dict _columns():
    cdef dict found = {}
    cdef int side
    for name, offset, layout, size in (
        ("state_{}", <size_t>&(<Row *>NULL).state, b"B", 1),
        ("addr_{}", <size_t>&(<Row *>NULL).addr, b">I", 4),     # network order: numpy shows the number
        ("port_{}", <size_t>&(<Row *>NULL).port, b"H", 2),
    ):
        for side in range(2):
            found[name.format(side)] = ("row", offset + side * size, layout, size)
    found["flags"] = ("row", <size_t>&(<Row *>NULL).flags, b"H", 2)
    found["deadline"] = ("row", <size_t>&(<Row *>NULL).deadline, b"I", 4)
    found["last_ns"] = ("row", <size_t>&(<Row *>NULL).last_ns, b"q", 8)
    found["generation"] = ("cold", <size_t>&(<Cold *>NULL).generation, b"I", 4)
    found["first_ns"] = ("cold", <size_t>&(<Cold *>NULL).first_ns, b"q", 8)
    return found


cdef dict _observer_columns():
    cdef dict found = _columns()
    cdef int side
    for side in range(2):
        for name, offset, layout, size in (
            ("snd_nxt_{}", <size_t>&(<Row *>NULL).seat.half[side].snd_nxt, b"I", 4),
            ("rcv_nxt_{}", <size_t>&(<Row *>NULL).seat.half[side].rcv_nxt, b"I", 4),
            ("window_{}", <size_t>&(<Row *>NULL).seat.half[side].window, b"H", 2),
            ("packets_low_{}", <size_t>&(<Row *>NULL).seat.half[side].packets, b"H", 2),
            ("bytes_low_{}", <size_t>&(<Row *>NULL).seat.half[side].bytes, b"I", 4),
        ):
            found[name.format(side)] = ("row", offset, layout, size)
        for name, offset, layout, size in (
            ("isn_{}", <size_t>&(<Observed *>NULL).isn[side], b"I", 4),
            ("retransmitted_{}", <size_t>&(<Observed *>NULL).retransmitted[side], b"I", 4),
            ("packets_high_{}", <size_t>&(<Observed *>NULL).packets_high[side], b"H", 2),
            ("bytes_high_{}", <size_t>&(<Observed *>NULL).bytes_high[side], b"H", 2),
        ):
            found[name.format(side)] = ("cold", offset, layout, size)
    return found


cdef dict _endpoint_columns():
    cdef dict found = _columns()
    for name, offset, layout, size in (
        ("snd_una", <size_t>&(<Row *>NULL).seat.tcb.snd_una, b"I", 4),
        ("snd_nxt", <size_t>&(<Row *>NULL).seat.tcb.snd_nxt, b"I", 4),
        ("rcv_nxt", <size_t>&(<Row *>NULL).seat.tcb.rcv_nxt, b"I", 4),
        ("snd_wnd", <size_t>&(<Row *>NULL).seat.tcb.snd_wnd, b"I", 4),
        ("rcv_wnd", <size_t>&(<Row *>NULL).seat.tcb.rcv_wnd, b"I", 4),
        ("mss", <size_t>&(<Row *>NULL).seat.tcb.mss, b"H", 2),
        ("retries", <size_t>&(<Row *>NULL).seat.tcb.retries, b"B", 1),
        ("timer", <size_t>&(<Row *>NULL).seat.tcb.timer, b"B", 1),
    ):
        found[name] = ("row", offset, layout, size)
    for name, offset, layout, size in (
        ("iss", <size_t>&(<EndpointCold *>NULL).iss, b"I", 4),
        ("irs", <size_t>&(<EndpointCold *>NULL).irs, b"I", 4),
        ("snd_queued", <size_t>&(<EndpointCold *>NULL).snd_queued, b"I", 4),
        ("rcv_unread", <size_t>&(<EndpointCold *>NULL).rcv_unread, b"I", 4),
        ("srtt_us", <size_t>&(<EndpointCold *>NULL).srtt_us, b"I", 4),
        ("rttvar_us", <size_t>&(<EndpointCold *>NULL).rttvar_us, b"I", 4),
        ("rto_us", <size_t>&(<EndpointCold *>NULL).rto_us, b"I", 4),
        ("retransmitted", <size_t>&(<EndpointCold *>NULL).retransmitted, b"H", 2),
        ("segments_sent", <size_t>&(<EndpointCold *>NULL).segments[0], b"I", 4),
        ("segments_received", <size_t>&(<EndpointCold *>NULL).segments[1], b"I", 4),
    ):
        found[name] = ("cold", offset, layout, size)
    return found


OBSERVER_COLUMNS = _observer_columns()
ENDPOINT_COLUMNS = _endpoint_columns()
