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
"""

from fasttcp.core.layout cimport Cold, Observed, Row


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


OBSERVER_COLUMNS = _observer_columns()
