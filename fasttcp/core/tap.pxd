# What the observer keeps: its structures, and small readings of a row in its seat. What it does is in observer.pyx (a segment's
# way, the beginning and the end of a connection) and evidence.pyx (what a segment proves).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport (
    OPT_WSCALE, ROW_SCALED_0, ROW_SHIFT_0, ROW_SIDE_1_OPENED, Observed, Row, Segment, ns_t, row_t, seq_t, tick_t,
)
from fasttcp.core.names cimport S_SYN_RCVD, S_SYN_SENT
from fasttcp.core.prefetch cimport prefetch_write
from fasttcp.core.seat cimport Engine
from fasttcp.core.store cimport store_cold

# Row.flags, observer seat; the endpoint seat has another use for these bits
cdef enum:
    ROW_BLANK = 0x0040              # nothing but RSTs, illegal and damaged segments were seen: no state is known yet
    ROW_ONE_ISN = 0x0080            # of the side whose SYN was not seen, no sequence number is known at all

cdef enum:
    NO_SHIFT = 15                   # in the shift bits of a side whose SYN carried no window scale option
    MAX_SHIFT = 14                  # RFC 7323 section 2.3

# Row.aux, observer seat: 0, or the event that closed both halves, or with this bit a claim, see evidence.pyx
cdef enum:
    CLAIM = 0x8000

cdef struct Verdict:                # of one segment: what apply() writes for it, 8 bytes
    row_t    row                    # NO_ROW when it belongs to none
    uint16_t flags                  # V_... of verdicts.pxd
    uint8_t  state[2]               # of both sides after it

cdef enum:
    KEEP_TIMER = -1                 # answer of Watch.seen: leave the timer as it is

# What an upper floor may hang into the observer: all pointers may be NULL. `context` is theirs.
cdef struct Watch:
    void *context
    # A segment with SYN, legal or not, came on a known 4-tuple: does a new connection begin? Asked before it is
    # applied.
    bint (*splits)(void *context, Observer *o, row_t row, int side, const Segment *segment) noexcept nogil
    # A segment was applied to its row. Returns when the row's timer is due (ns), 0 for the observer's own time-out, or
    # KEEP_TIMER (not after V_NEW).
    ns_t (*seen)(
        void *context, Observer *o, row_t row, int side, const Segment *segment, uint16_t verdict
    ) noexcept nogil
    # The row's timer is due: 0 ends the connection, another time (ns) is the next look. Also asked, so that it can be
    # exact to the nanosecond, when a segment of the row comes in the last tick before.
    ns_t (*due)(void *context, Observer *o, row_t row, ns_t now_ns) noexcept nogil
    # The connection is over; its row is freed after this call. `event` is the Event that ended it.
    void (*ended)(void *context, Observer *o, row_t row, int event, ns_t when_ns) noexcept nogil
    char    *lines                  # one record a row, `stride` bytes apart; 128 of them are prefetched with the row
    uint32_t stride
    bint     names_originator       # `seen` says who opened, by observer_set_originator; the observer does not

cdef struct Tallies:                # of the whole table; columns of fasttcp.ConnectionTable.tallies()
    uint64_t segments
    uint64_t connections            # begun
    uint64_t partial                # of which picked up mid-stream
    uint64_t replaced               # of which on a 4-tuple whose old connection had to end for it
    uint64_t ended
    uint64_t retransmitted
    uint64_t duplicates
    uint64_t illegal
    uint64_t suspect
    uint64_t late
    uint64_t stray
    uint64_t damaged                # V_VOID
    uint64_t full                   # segments without a row because the table was full
    uint64_t evicted
    uint64_t missed_bytes           # acknowledged or jumped over, never captured

cdef struct Observer:
    Engine   engine                 # first, so that an Observer is an Engine
    Watch    watch
    Tallies  tallies
    tick_t   timeout[256]           # ticks of silence by state[0] * 16 + state[1], until a row is given up
    uint8_t  pick_up                # 0: handshakes only; 1: any ACK opens a row; 2: anything does
    uint8_t  evict                  # when full: make room by the stated order
    bint     any_rst                # a RST is believed wherever it stands (profile: observer_rst_in_window off)
    bint     any_isn                # a SYN with another number begins anew, answered or not (observer_reuse = "isn")
    uint32_t void_info              # INFO_... bits that make a segment worthless
    ns_t     twin_ns                # an equal segment within this time is the same one, captured twice; 0: never
    size_t   allowance              # timers that the call in progress may still look at


cdef inline bint opening(uint8_t state) noexcept nogil:
    return state == S_SYN_SENT or state == S_SYN_RCVD


cdef inline void prefetch_beside(const Observer *o, row_t row) noexcept nogil:
    """Ask for what an upper floor keeps of this row."""
    if o.watch.lines != NULL:
        prefetch_write(o.watch.lines + <size_t>row * o.watch.stride)
        if o.watch.stride > 64:
            prefetch_write(o.watch.lines + <size_t>row * o.watch.stride + 64)


cdef inline Observed *observed(Observer *o, row_t row) noexcept nogil:
    return <Observed *>store_cold(&o.engine.table, row)


cdef inline bint syn_seen(const Row *row, int side) noexcept nogil:
    return (row.flags & (ROW_SCALED_0 << side)) != 0


cdef inline bint is_isn(Observer *o, row_t row, int side, seq_t seq) noexcept nogil:
    """Whether a SYN of `side` with this number is the one that began the connection."""
    cdef const Row *r = &o.engine.table.rows[row]
    return observed(o, row).isn[side] == seq and (not r.flags & ROW_ONE_ISN or syn_seen(r, side))


cdef inline void learn_scale(Row *line, int side, const Segment *segment) noexcept nogil:
    """The window scale that a SYN of `side` offers, and that it was seen."""
    cdef uint32_t at = ROW_SHIFT_0 + 4 * side
    cdef uint32_t shift = min(<uint32_t>segment.wscale, <uint32_t>MAX_SHIFT)
    shift = shift if segment.options & OPT_WSCALE else NO_SHIFT
    line.flags = <uint16_t>((line.flags & ~(15 << at | ROW_ONE_ISN)) | (shift << at) | (ROW_SCALED_0 << side))


cdef inline void observer_set_originator(Observer *o, row_t row, int side) noexcept nogil:
    if side:
        o.engine.table.rows[row].flags |= ROW_SIDE_1_OPENED
    else:
        o.engine.table.rows[row].flags &= ~<uint16_t>ROW_SIDE_1_OPENED
