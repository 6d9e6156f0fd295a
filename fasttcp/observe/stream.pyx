"""What is missing of a side's data, by sequence numbers alone (Zeek: Reassem.cc, TCP_Reassembler.cc).

What it stores: for each side how far its data reach without a hole, how far they were acknowledged, and, only while
there is a hole, the ranges above it. No payload. What must not stand here: states, letters other than G, times.

        1            trim              reach                 ranges
        |  forgotten   |  held, unacked  |  hole  [begin, end)  hole  [begin, end)

Invariants: ranges are sorted, disjoint, not adjacent, and lie above `reach`; M_RANGES says whether there are any; at
most MAX_RANGES of them. Cost: data in order and their ACKs two comparisons; above a hole a walk over the ranges.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from fasttcp.core.layout cimport row_t
from fasttcp.core.tap cimport Observer
from fasttcp.observe.page cimport (
    M_ENDS, M_GIVEN_UP, M_RANGES, P_PARTIAL, Z_RESET, Journal, Margin, Page, Range, Sender, ack_wraps, add_counted, clean,
    is_originator, last_wraps, margin_of, nothing_acked, side_size,
)


cdef uint32_t take_range(Journal *j) noexcept nogil:
    """The number of an unused range; 0 when there is no memory."""
    cdef uint32_t at = j.ranges_free, room
    cdef Range *moved
    if at != 0:
        j.ranges_free = j.ranges[at].next
        return at
    if j.ranges_high + 1 >= j.ranges_room:
        room = j.ranges_room * 2 if j.ranges_room else 256
        moved = <Range *>realloc(j.ranges, room * sizeof(Range))
        if moved == NULL:
            j.failed = True
            return 0
        j.ranges = moved
        j.ranges_room = room
    j.ranges_high += 1
    return j.ranges_high


cdef inline void give_back(Journal *j, uint32_t at) noexcept nogil:
    j.ranges[at].next = j.ranges_free
    j.ranges_free = at


cdef void drop_first(Journal *j, row_t row, int s) noexcept nogil:
    cdef Margin *m = &j.margins[row]
    cdef uint32_t at = m.ranges[s]
    m.above[s] -= <uint32_t>(j.ranges[at].end - j.ranges[at].begin)
    m.ranges[s] = j.ranges[at].next
    m.n_ranges[s] -= 1
    give_back(j, at)
    if m.ranges[s] == 0:
        j.pages[row].side[s].marks &= ~M_RANGES


cdef void stream_forget(Journal *j, row_t row, int s) noexcept nogil:
    """Let go of everything that is held."""
    cdef Sender *side = &j.pages[row].side[s]
    while side.marks & M_RANGES:
        drop_first(j, row, s)
    side.trim = <uint32_t>side.reach


cdef inline void join(Journal *j, row_t row, int s) noexcept nogil:
    """Deliver the ranges that a filled hole has reached."""
    cdef Sender *side = &j.pages[row].side[s]
    cdef Range *first
    while side.marks & M_RANGES:
        first = &j.ranges[j.margins[row].ranges[s]]
        if first.begin > side.reach:
            return
        if first.end > side.reach:
            side.reach = first.end
        drop_first(j, row, s)


cdef bint stream_pending(const Journal *j, row_t row, int s) noexcept nogil:
    """Does a close of side `s` still wait: for its own data, or for the ACK of its peer's?"""
    cdef const Sender *side = &j.pages[row].side[s]
    cdef int64_t ahead
    if side.marks & M_GIVEN_UP:
        return False
    ahead = (<int64_t>last_wraps(j, row, s) << 32) + side.last - side.start - <int64_t>side.reach
    if ahead < 0:                                   # a RST may have set numbers that mean nothing
        return False
    if ahead > 1:                                   # a FIN takes one number, a RST none
        return True
    return side.state != Z_RESET and stream_holds(&j.pages[row].side[1 - s])


cdef void stream_limits(Journal *j, row_t row, int s, bint delivered) noexcept nogil:
    """Data of `s` have arrived: is there more than is worth keeping?"""
    cdef Sender *side = &j.pages[row].side[s]
    cdef Margin *m
    cdef uint64_t top, held = 0
    cdef uint32_t at
    cdef bint silent = nothing_acked(j, row, s)
    if delivered and silent and side_size(j, row, s) > j.max_initial_window:
        side.trim = <uint32_t>side.reach            # the peer's ACKs take another way: don't wait for them
    if <int32_t>(<uint32_t>side.reach - side.trim) > 0:
        held = <uint32_t>side.reach - side.trim
    if side.marks & M_RANGES:
        m = &j.margins[row]
        at = m.ranges[s]
        while j.ranges[at].next:
            at = j.ranges[at].next
        top = j.ranges[at].end
        held += m.above[s]
        if (silent and top - side.reach > j.max_above_hole) or m.n_ranges[s] >= MAX_RANGES:
            side.marks |= M_GIVEN_UP
    if held > j.max_unacknowledged:
        side.marks |= M_GIVEN_UP
    if side.marks & M_GIVEN_UP:
        stream_forget(j, row, s)


cdef void insert(Journal *j, row_t row, int s, uint64_t begin, uint64_t end) noexcept nogil:
    """Keep [begin, end), which lies above `reach`, joined with what it touches."""
    cdef Margin *m = margin_of(j, row)
    cdef uint32_t at = m.ranges[s], before = 0, following
    while at and j.ranges[at].end < begin:
        before = at
        at = j.ranges[at].next
    if at and j.ranges[at].begin <= end:            # it touches this one, and perhaps more behind it
        m.above[s] -= <uint32_t>(j.ranges[at].end - j.ranges[at].begin)
        if begin < j.ranges[at].begin:
            j.ranges[at].begin = begin
        if end > j.ranges[at].end:
            j.ranges[at].end = end
        following = j.ranges[at].next
        while following and j.ranges[following].begin <= j.ranges[at].end:
            m.above[s] -= <uint32_t>(j.ranges[following].end - j.ranges[following].begin)
            if j.ranges[following].end > j.ranges[at].end:
                j.ranges[at].end = j.ranges[following].end
            j.ranges[at].next = j.ranges[following].next
            give_back(j, following)
            m.n_ranges[s] -= 1
            following = j.ranges[at].next
        m.above[s] += <uint32_t>(j.ranges[at].end - j.ranges[at].begin)
        return
    following = at
    at = take_range(j)
    if at == 0:
        return
    j.ranges[at].begin = begin
    j.ranges[at].end = end
    j.ranges[at].next = following
    if before:
        j.ranges[before].next = at
    else:
        m.ranges[s] = at
    m.n_ranges[s] += 1
    m.above[s] += <uint32_t>(end - begin)
    j.pages[row].side[s].marks |= M_RANGES


cdef void stream_hole(Journal *j, row_t row, int s, uint64_t begin, uint64_t end) noexcept nogil:
    """Data that do not simply continue what is there."""
    cdef Sender *side = &j.pages[row].side[s]
    cdef uint64_t forgotten = trimmed(side)
    if side.marks & M_ENDS:                         # what an ACK says beyond the FIN forgets nothing, but it is believed
        forgotten = max(forgotten, (<uint64_t>ack_wraps(j, row, s) << 32) + side.acked - side.start)
    if side.marks & M_GIVEN_UP or end <= forgotten:
        return
    if begin < forgotten:
        begin = forgotten
    if begin > side.reach:
        insert(j, row, s, begin, end)
        stream_limits(j, row, s, False)
    elif end > side.reach:
        side.reach = end
        join(j, row, s)
        stream_limits(j, row, s, True)


cdef inline void tell_gap(Journal *j, Observer *o, row_t row, int s, uint64_t length) noexcept nogil:
    cdef Page *p = &j.pages[row]
    cdef bint both = clean(&p.side[0]) and clean(&p.side[1])
    if both:
        add_counted(j, row, c"G" if is_originator(o, row, s) else c"g", &margin_of(j, row).gaps[s])
    if both or j.gaps_for_partial:
        margin_of(j, row).missed += length


cdef void stream_skip(Journal *j, Observer *o, row_t row, int s, uint64_t number) noexcept nogil:
    """An ACK passes data that were not seen, or were seen above a hole: what is missing is missing for good."""
    cdef Page *p = &j.pages[row]
    cdef Sender *side = &p.side[s]
    cdef Range *first
    if number > side.reach:
        # The first number of a side that was picked up is invented, and a keep-alive acknowledges one beyond it.
        if number <= 2 and p.flags & P_PARTIAL:
            return
        while side.marks & M_RANGES and not side.marks & M_GIVEN_UP:
            first = &j.ranges[j.margins[row].ranges[s]]
            if first.begin >= number:
                break
            tell_gap(j, o, row, s, first.begin - side.reach)
            side.reach = first.begin
            join(j, row, s)
        if number > side.reach:
            if not side.marks & M_GIVEN_UP:
                tell_gap(j, o, row, s, number - side.reach)
            side.reach = number
    join(j, row, s)
