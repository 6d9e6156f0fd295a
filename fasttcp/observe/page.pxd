# What a log tells of a connection beyond its states: letters, sizes, gaps, and Zeek's own view of both endpoints.
#
# The journal hangs into the observer (core/tap.pxd, Watch) and keeps one Page a row. It is filled from the same
# pass over the segments; it never changes a state of the machine. With a profile whose observer_timeouts are Zeek's it
# also answers the observer's questions: does this SYN begin a new connection, is this row's time up.
#
#   Page     128 bytes   two neighbouring cache lines; the second one only where a letter is new or something closes
#   Margin   160 bytes   what most connections never need: repeated letters, wrapped numbers, odd times
#   Range    24 bytes    data that lie above a hole, in a pool
#   Entry    344 bytes   a connection that has ended, until a log or Python takes it
#
# Sequence numbers are kept relative to `start`, in 64 bits where more than 2^31 may lie between them.
# The rules, with their names: Zeek 9.1, src/packet_analysis/protocol/tcp and src/analyzer/protocol/tcp.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport ROW_SIDE_1_OPENED, ns_t, row_t
from fasttcp.core.memory cimport Block
from fasttcp.core.summary cimport Summary
from fasttcp.core.tap cimport Observer

# What Zeek makes of one endpoint (TCP_Endpoint.h); Sender.state and Sender.before
cdef enum:
    Z_INACTIVE = 0          # nothing seen of it
    Z_SYN_SENT = 1
    Z_SYN_ACK_SENT = 2      # it began with a SYN+ACK, its peer's SYN was not seen
    Z_PARTIAL = 3           # it began in mid-stream
    Z_ESTABLISHED = 4
    Z_CLOSED = 5            # FIN
    Z_RESET = 6

# Sender.marks: letters that were given, and what else is known of one side
cdef enum:
    M_SYN = 0x0001
    M_FIN = 0x0002
    M_RST = 0x0004
    M_FIN_RST = 0x0008
    M_DATA = 0x0010
    M_ACK = 0x0020
    M_MULTI = 0x0040
    M_LETTERS = 0x007F      # all of these
    M_CLOSED = 0x0080       # it has closed and everything before its FIN is accounted for ("did close")
    M_ENDS = 0x0100         # a FIN of it was seen, at Page.fin
    M_GIVEN_UP = 0x0200     # too much is missing: its gaps are no longer counted
    M_RANGES = 0x0400       # data above a hole are held in Margin.ranges
    M_EOF = 0x0800          # everything up to its end was delivered, and that was told once
    M_LAST_WRAPPED = 0x1000  # `last` has passed 2^32 - 1; how often, if more than once, says the margin
    M_ACK_WRAPPED = 0x2000
    M_SPOKEN = 0x4000       # a segment of it was processed

# Page.flags
cdef enum:
    P_PARTIAL = 0x0001      # Zeek's "is partial"
    P_INACTIVE = 0x0002     # Zeek asks no more whether it was an attempt or has expired
    P_DEFERRED = 0x0004     # a close waits for data
    P_TOLD = 0x0008         # ... and will be a finished connection
    P_DELETE = 0x0010       # it is removed at Page.end_ns
    P_ATTEMPT = 0x0020      # the attempt timer was started
    P_PAST_HANDSHAKE = 0x0040   # tcp_inactivity_timeout holds, not udp_inactivity_timeout
    P_PORT_IDLE = 0x0080    # port_inactivity_timeouts hold
    P_MARGIN = 0x0100       # the margin is in use
    P_OLD_TIME = 0x0200     # its last segment was older than another one of it: Margin.last_ns
    P_MANY_WRAPS = 0x0400   # see M_LAST_WRAPPED
    P_CHECKED = 0x0800      # Margin.check_ns is running
    P_FIN_LETTER = 0x1000   # Page.fin is no longer that of the last F: Margin.fin_letter
    P_USUAL = 0x2000        # both sides talk, or have ended, in order: see settle() in usual.pxd

cdef enum:
    SHORT_HISTORY = 20


cdef struct Sender:             # 32 bytes
    uint64_t reach              # relative: all below was seen in order, or counted as a gap (Zeek: last_reassem_seq)
    uint32_t start              # its ISN; without a SYN the number before its first
    uint32_t last               # one past the highest number it sent
    uint32_t acked              # the highest acknowledgment of its data
    uint32_t ip_bytes           # low 32 bits; carry in the margin
    uint32_t trim               # relative, low 32 bits: acknowledged and forgotten (Zeek: trim_seq)
    uint16_t marks
    uint8_t  state              # Z_...
    uint8_t  before             # the state before that


cdef struct Page:               # 128 bytes
    Sender   side[2]
    uint64_t fin[2]             # relative, one past the FIN
    int64_t  end_ns             # with P_DELETE; else when the first side closed and the second had not, or 0
    int64_t  rtt_ns             # from the first SYN to the ACK that completes the handshake; 0: not known
    uint32_t rst[2]             # relative number of the last RST, low 32 bits; the others in the margin
    uint16_t flags
    uint8_t  letters            # of the history, up to SHORT_HISTORY
    char     history[21]        # one more than SHORT_HISTORY: what stands behind the last letter means nothing


cdef struct Margin:
    uint64_t missed             # bytes in gaps
    uint64_t syn[2]             # relative number of the last SYN
    uint64_t fin_letter[2]      # with P_FIN_LETTER: relative number of the FIN that the last F told of
    uint32_t ip_carry[2]
    uint32_t last_wraps[2]
    uint32_t ack_wraps[2]
    uint32_t retransmitted[2]   # how many times T, W, C, G were due
    uint32_t zero_windows[2]
    uint32_t bad_checksums[2]
    uint32_t gaps[2]
    uint32_t ranges[2]          # first Range of each side, 0 for none
    uint32_t n_ranges[2]
    uint32_t above[2]           # bytes in them
    int64_t  last_ns            # with P_OLD_TIME
    int64_t  idle_ns            # with P_OLD_TIME: not before then does silence end it, for its timer was set before
    int64_t  check_ns           # with P_CHECKED: the next expiry check
    char    *history            # all letters, when there are more than SHORT_HISTORY; malloc
    uint32_t history_size
    uint16_t rst_high[2]        # the next 16 bits of Page.rst: a wrap or a number before the start makes them differ


cdef struct Range:              # [begin, end), relative
    uint64_t begin
    uint64_t end
    uint32_t next               # by `begin`; 0 for none. Also links the free ranges


cdef struct PortIdle:
    uint32_t port
    ns_t     idle_ns


cdef struct Entry:
    Summary  summary            # [0] originator, [1] responder
    int64_t  last_ns            # as Zeek ends a duration
    int64_t  rtt_ns
    uint64_t number             # of the connection, from 1, in the order in which they ended
    uint64_t size[2]            # bytes by sequence numbers
    uint64_t ip_bytes[2]
    uint64_t missed
    char    *long_history       # owned by the entry; NULL: `history` holds all
    uint32_t letters
    uint32_t bad_checksums[2]
    uint8_t  zeek[2]
    uint8_t  conn_state         # index into CONN_STATES
    uint8_t  end                # index into ENDS
    char     history[24]


cdef struct Host:               # a sender of wrong checksums
    uint8_t  addr[16]
    uint64_t wrong
    uint64_t right


cdef struct Journal:
    Page    *pages              # (capacity,)
    Margin  *margins            # (capacity,)
    size_t   capacity
    size_t   most
    bint     zeek               # its rules split, time out and turn round connections
    bint     failed             # the system gave no more memory
    # what usual.pxd asks, in the form in which it asks; see usual_prepare()
    ns_t     timers             # KEEP_TIMER, which has all bits, with `zeek`; else 0
    uint32_t cut_info           # INFO_CUT with `zeek`; else 0
    int32_t  most_initial       # max_initial_window and max_unacknowledged, if they are below 2^31
    int32_t  most_unacknowledged
    ns_t     after_fin[2]       # idle_ns after the first FIN (never after 2^61 ns: it may look early), close_ns after both
    Range   *ranges
    uint32_t ranges_high
    uint32_t ranges_room
    uint32_t ranges_free
    Entry   *entries
    size_t   n_entries
    size_t   entries_room
    uint64_t ended
    uint64_t missed             # of all connections that ended
    uint64_t halves[16]         # how many of their halves ended in each state
    uint64_t ends[8]            # how many ended in each way
    Host     hosts[16]          # the first that sent wrong checksums
    uint32_t n_hosts
    # the profile's figures; INT64_MAX and UINT64_MAX stand for None
    ns_t     attempt_ns
    ns_t     close_ns
    ns_t     first_check_ns
    ns_t     check_ns
    ns_t     linger_ns
    ns_t     idle_ns
    ns_t     handshake_idle_ns
    uint64_t max_initial_window
    uint64_t max_above_hole
    uint64_t max_unacknowledged
    bint     gaps_for_partial
    PortIdle port_idle[64]
    uint32_t n_port_idle
    uint64_t idle_ports[1024]   # a bit a port, of those in port_idle
    uint64_t server_ports[1024]  # a bit a port
    Block    pages_block
    Block    margins_block


cdef inline int64_t relative(uint32_t number, uint32_t newest, uint32_t start, uint32_t wraps) noexcept nogil:
    """A sequence number relative to `start`, by its distance from the newest one. Below 0: before the start."""
    cdef int32_t delta = <int32_t>(number - newest)
    if delta < 0:
        if wraps and number > newest:
            wraps -= 1
    elif number < newest:
        wraps += 1
    if wraps == 0:
        return <int32_t>(number - start)
    return (<int64_t>wraps << 32) + number - start


cdef inline uint32_t last_wraps(const Journal *j, row_t row, int s) noexcept nogil:
    cdef const Page *p = &j.pages[row]
    if not p.side[s].marks & M_LAST_WRAPPED:
        return 0
    return j.margins[row].last_wraps[s] if p.flags & P_MANY_WRAPS else 1


cdef inline uint32_t ack_wraps(const Journal *j, row_t row, int s) noexcept nogil:
    cdef const Page *p = &j.pages[row]
    if not p.side[s].marks & M_ACK_WRAPPED:
        return 0
    return j.margins[row].ack_wraps[s] if p.flags & P_MANY_WRAPS else 1


cdef inline uint32_t idles(const Journal *j, uint32_t port) noexcept nogil:
    """1 for a port that has an idle time of its own, else 0."""
    return <uint32_t>(j.idle_ports[port >> 6] >> (port & 63)) & 1


cdef inline bint clean(const Sender *side) noexcept nogil:
    """Established, or closed out of that: only then is a gap in its data worth telling."""
    return side.state == Z_ESTABLISHED or (side.state == Z_CLOSED and side.before == Z_ESTABLISHED)


cdef inline uint64_t side_size(const Journal *j, row_t row, int s) noexcept nogil:
    """Bytes that side `s` has sent by its sequence numbers, whether captured or only acknowledged."""
    cdef const Sender *side = &j.pages[row].side[s]
    cdef int64_t end = max(side.last, side.acked)
    cdef uint64_t size, numbers
    if side.marks & (M_LAST_WRAPPED | M_ACK_WRAPPED):
        end = wrapped_end(j, row, s)
    if (
        side.state == Z_RESET and side.before == Z_SYN_SENT and j.pages[row].side[1 - s].state == Z_INACTIVE
        and not nothing_acked(j, row, s)
    ):
        return 0                                    # a half-open connection was found out: its numbers mean nothing
    size = <uint64_t>(end - <int64_t>side.start)
    numbers = 1 + <uint64_t>((side.marks & M_ENDS) != 0)    # the SYN, or the number that stands for it, and the FIN
    return size - min(size, numbers)


cdef bint journal_grow(Journal *j, row_t row) noexcept nogil
cdef Margin *margin_of(Journal *j, row_t row) noexcept nogil
cdef inline void add_letter(Journal *j, row_t row, char letter) noexcept nogil:
    cdef Page *p = &j.pages[row]
    if p.letters < SHORT_HISTORY:
        p.history[p.letters] = letter
        p.letters += 1
    else:
        add_late_letter(j, row, letter)


cdef void add_late_letter(Journal *j, row_t row, char letter) noexcept nogil
cdef void add_counted(Journal *j, row_t row, char letter, uint32_t *counter) noexcept nogil
cdef int64_t wrapped_end(const Journal *j, row_t row, int s) noexcept nogil
cdef bint nothing_acked(const Journal *j, row_t row, int s) noexcept nogil
cdef char *copy_history(Journal *j, row_t row) noexcept nogil


cdef inline ns_t last_time(const Journal *j, const Observer *o, row_t row) noexcept nogil:
    if j.pages[row].flags & P_OLD_TIME:
        return j.margins[row].last_ns
    return o.engine.table.rows[row].last_ns


cdef inline bint is_originator(const Observer *o, row_t row, int s) noexcept nogil:
    return ((o.engine.table.rows[row].flags & ROW_SIDE_1_OPENED) != 0) == (s == 1)
