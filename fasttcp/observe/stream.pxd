# One side's data as a receiver would put them together, without the data: what is delivered, held, missing. See
# stream.pyx.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from fasttcp.core.layout cimport row_t
from fasttcp.core.tap cimport Observer
from fasttcp.observe.page cimport (
    M_ENDS, M_EOF, M_GIVEN_UP, M_RANGES, Z_CLOSED, Z_RESET, Journal, Page, Sender,
)

cdef enum:
    MAX_RANGES = 4096           # of one side; more is given up, so that no segment costs more than a walk over so many


cdef inline uint64_t trimmed(const Sender *side) noexcept nogil:
    """Where forgetting has got to, in 64 bits; within 2^31 of `reach`, on either side of it."""
    return side.reach - <uint64_t><int32_t>(<uint32_t>side.reach - side.trim)


cdef inline void stream_data(Journal *j, row_t row, int s, uint64_t begin, uint32_t length) noexcept nogil:
    """Side `s` sent data [begin, begin + length), relative."""
    cdef Sender *side = &j.pages[row].side[s]
    cdef uint64_t end = begin + length
    cdef bint whole = not side.marks & (M_GIVEN_UP | M_RANGES | M_ENDS) and <int32_t>(<uint32_t>side.reach - side.trim) >= 0
    if whole and begin <= side.reach:
        if end > side.reach:
            side.reach = end
            if side.acked - side.start <= 1 or end - trimmed(side) > j.max_unacknowledged:
                stream_limits(j, row, s, True)
        return
    stream_hole(j, row, s, begin, end)


cdef inline bint stream_ack(Journal *j, Observer *o, row_t row, int s, uint64_t number) noexcept nogil:
    """The peer acknowledged the data of side `s` up to `number`, relative. Whether that was news."""
    cdef Page *p = &j.pages[row]
    cdef Sender *side = &p.side[s]
    if side.marks & M_ENDS and number >= p.fin[s]:
        number = p.fin[s] - 1
    if number <= trimmed(side):
        return side.marks & M_GIVEN_UP != 0
    if number > side.reach or side.marks & M_RANGES:
        stream_skip(j, o, row, s, number)
    side.trim = <uint32_t>number
    return True


cdef inline bint stream_holds(const Sender *side) noexcept nogil:
    """Data of it were delivered or wait above a hole, and are not acknowledged."""
    return side.marks & M_RANGES or <int32_t>(<uint32_t>side.reach - side.trim) > 0


cdef inline bint may_be_at_end(const Sender *side) noexcept nogil:
    return not side.marks & M_EOF and (side.marks & M_ENDS or side.state == Z_CLOSED or side.state == Z_RESET)


cdef bint stream_pending(const Journal *j, row_t row, int s) noexcept nogil
cdef void stream_limits(Journal *j, row_t row, int s, bint delivered) noexcept nogil
cdef void stream_hole(Journal *j, row_t row, int s, uint64_t begin, uint64_t end) noexcept nogil
cdef void stream_skip(Journal *j, Observer *o, row_t row, int s, uint64_t number) noexcept nogil
cdef void stream_forget(Journal *j, row_t row, int s) noexcept nogil
