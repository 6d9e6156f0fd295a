# The records of the endpoint seat: what a row means here, and what one input (a segment, a call, a timer) carries
# along.
#
# Shapes and one-line readings only. Rules stand in the files that use them; endpoint.pxd says which.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fasttcp.core.layout cimport (
    NO_ROW, ROW_IPV6, ROW_SHIFT_0, ROW_SHIFT_1, Cold, Row, Segment, Tcb, ns_t, row_t, seq_t,
)
from fasttcp.core.policy cimport Policy
from fasttcp.core.prefetch cimport load32
from fasttcp.core.seat cimport Engine
from fasttcp.core.store cimport Table, store_cold, store_handle

cdef struct Endpoint

# Row.aux
cdef enum:
    TCB_TIMESTAMPS = 0x0001     # both SYNs carried the option (in SYN_RCVD: the peer's did, and we want it)
    TCB_SCALED = 0x0002         # both SYNs carried a window scale; the shifts stand in Row.flags
    TCB_SACK = 0x0004           # both SYNs permitted SACK; kept for the SYN+ACK, no SACK block is ever sent
    TCB_TS_RECENT = 0x0008      # EndpointCold.ts_recent holds a timestamp
    TCB_FIN_QUEUED = 0x0010     # CLOSE was called; the FIN waits behind queued data or for the window
    TCB_FIN_SENT = 0x0020       # the FIN has a sequence number: SND.NXT - 1
    TCB_FIN_BEYOND = 0x0040     # the peer's FIN stands at fin_beyond, behind a hole
    TCB_TIMED = 0x0080          # the segment that ends at timed_seq is being timed
    TCB_RECOVERING = 0x0100     # a time-out happened; what lies before `recover` is sent again as ACKs come
    TCB_KEEPALIVE = 0x0200      # the application asked for keepalive
    TCB_HALF_OPEN = 0x0400      # counted in ListenerCold.half_open of its parent
    TCB_ACCEPT = 0x0800         # established, waits in its parent's accept queue
    TCB_AHEAD = 0x1000          # unit of the two bits that count the runs in EndpointCold.ahead: 0, 1, 2
    TCB_AHEAD_BITS = 0x3000

# Tcb.timer: the one armed timer of a row is the one that timeouts.pyx:timer_needed names
cdef enum:
    TIMER_NONE = 0
    TIMER_RETRANSMIT = 1        # what stands at SND.UNA
    TIMER_PERSIST = 2           # the window is shut, data or a FIN wait, nothing is in flight
    TIMER_KEEPALIVE = 3
    TIMER_FIN_WAIT_2 = 4        # tcp_fin_timeout of an orphan
    TIMER_2MSL = 5

cdef enum:
    RUNS = 2                    # runs of data beyond a hole that one row remembers; further ones are dropped


cdef struct EndpointCold:       # 128 bytes; its first line is what segments touch
    Cold     head               # 0
    uint32_t ts_recent          # 16  TS.Recent (RFC 7323 section 4.3)
    uint32_t ts_recent_s        # 20  when it was set, seconds since the table's epoch
    uint32_t ts_offset          # 24  added to the timestamp clock
    seq_t    last_ack_sent      # 28  Last.ACK.sent
    uint32_t snd_queued         # 32  bytes that wait to be sent
    uint32_t rcv_unread         # 36  bytes delivered and not read yet
    uint32_t snd_max_wnd        # 40  MAX.SND.WND (RFC 5961 section 5.2), bytes
    uint32_t srtt_us            # 44  SRTT, 0 before the first sample (RFC 6298)
    uint32_t rttvar_us          # 48  RTTVAR
    uint32_t rto_us             # 52  RTO before back-off
    uint32_t segments[2]        # 56  sent, received
    seq_t    iss                # 64  our SYN's sequence number
    seq_t    irs                # 68  the peer's
    seq_t    timed_seq          # 72
    uint32_t timed_at_us        # 76  microseconds since the table's epoch, modulo 2^32
    seq_t    recover            # 80  SND.NXT at the last time-out
    seq_t    fin_beyond         # 84
    seq_t    ahead[2][2]        # 88  runs [from, to) received beyond RCV.NXT, in order, apart from each other
    row_t    parent             # 104 the LISTEN row it came out of, while TCB_HALF_OPEN or TCB_ACCEPT
    uint32_t parent_generation  # 108 of that row; another means that the listener is gone
    row_t    next               # 112 neighbours in the accept queue, NO_ROW at its ends
    row_t    previous           # 116
    uint32_t challenged_ms      # 120 when the last limited ACK went out, milliseconds since the epoch + 1; 0: never
    uint16_t retransmitted      # 124 segments sent again
    uint8_t  backoff            # 126 RTO is doubled so often
    uint8_t  spare              # 127


cdef struct ListenerCold:       # the same record of a row in LISTEN
    Cold     head
    uint32_t backlog            # half-open connections at most, and as many established ones that wait to be accepted
    uint32_t half_open          # now
    uint32_t accept_queued      # now
    row_t    first              # of the accept queue, NO_ROW when it is empty
    row_t    last
    uint32_t cookie_ms          # when the last cookie was sent, milliseconds since the epoch + 1; 0: never


cdef struct Outcome:            # 32 bytes, no padding: what one input did
    uint64_t handle             # of the connection as it was; 0 when there is none
    uint64_t events             # bit 1 << Event for each step taken
    row_t    row                # NO_ROW when there is none
    uint32_t delivered          # bytes that became readable, in order
    uint16_t sent               # segments put into the output queue
    uint16_t flags              # OUT_... of verdicts.pxd
    uint8_t  before             # state; CLOSED where there was no row
    uint8_t  after              # state; CLOSED when the row is gone
    uint8_t  origin             # state and event of the last step that changed the state, or of a rejected call:
    uint8_t  last               # spec.TRANSITIONS[origin, last] says how a connection ended, or why a call is refused


cdef struct Counts:             # of the whole endpoint; everything else is in event[]
    uint64_t event[64]          # steps by Event
    uint64_t segments_in
    uint64_t segments_out
    uint64_t dropped            # bad checksum or header
    uint64_t output_full        # segments not sent because the output queue was full
    uint64_t retransmitted
    uint64_t limited            # ACKs for segments that do not fit, not sent because of the rate limit
    uint64_t run_dropped        # data beyond a hole that no run was free for
    uint64_t cookies_failed
    uint64_t recycle_rejected   # SYNs that tcp_tw_recycle took for old ones
    uint64_t orphans_reset      # by tcp_max_orphans
    uint64_t ports_exhausted
    uint64_t table_full
    uint64_t evicted


cdef struct OutputChunk:
    OutputChunk *next
    Segment  segment[256]


cdef struct Output:             # segments to be sent, oldest first; see output.pyx
    OutputChunk *head           # read from here
    OutputChunk *tail           # written here
    OutputChunk *spare          # one empty chunk is kept
    uint32_t read               # place in head
    uint32_t write              # place in tail
    size_t   count
    size_t   limit              # segments at most


cdef struct Host:               # what tcp_tw_recycle remembers of a remote address; see hosts.pyx
    uint64_t name               # keyed hash of the address; 0: free
    uint32_t ts
    uint32_t at_s               # seconds since the epoch


cdef struct Crowd:              # which local ports are taken towards one remote end; see crowds.pyx
    Crowd   *next
    uint64_t name               # keyed hash of the three that follow
    uint8_t  local[16]
    uint8_t  remote[16]
    uint16_t rport
    bint     reusable           # tcp_tw_reuse may free a port in TIME_WAIT
    uint32_t taken              # bits set
    uint64_t bit[1024]          # by local port


cdef struct PairNumber:         # a keyed number of a pair of addresses that was worked out before; see isn.pyx
    uint64_t name[4]            # local, remote
    uint32_t use                # 0: this place is empty
    uint32_t value


cdef struct EndpointWatch:      # what an upper floor may hang in; pointers may be NULL
    void *context
    # A connection is over; its row still holds its last state and is freed after this call. `event` ended it.
    void (*ended)(void *context, Endpoint *e, row_t row, int event, ns_t when_ns) noexcept nogil


cdef struct Endpoint:
    Engine   engine             # first, so that an Endpoint is an Engine
    Policy   policy
    Output   output
    Counts   counts
    EndpointWatch watch
    uint64_t secret[2]          # for siphash
    uint32_t listeners          # rows in LISTEN
    uint32_t orphans            # rows the application has let go of, TIME_WAIT not counted
    uint32_t next_port          # counter of RFC 6056 section 3.3.3
    uint32_t challenges         # in the second challenge_s, for tcp_challenge_ack_limit
    uint32_t challenge_s
    uint32_t ts_now             # timestamp clock without offset, in policy.timestamp_tick_ns
    ns_t     ts_begin_ns        # it holds in [begin, end)
    ns_t     ts_end_ns
    Host    *hosts              # NULL without tcp_tw_recycle
    Crowd  **crowds             # NULL while no remote end was ever short of ports
    uint32_t n_crowds
    PairNumber pair_number[64]  # by a mix of the addresses; the newest stays
    bint     evict              # a full table makes room
    bint     auto_read          # the application reads at once: the receive window never closes
    bint     auto_accept        # established connections need no accept


cdef struct Work:               # one input on its way through the seat
    Endpoint *e
    Row      *r
    EndpointCold *c
    const Segment *s            # NULL for calls and timers
    Outcome  *out
    ns_t      now
    ns_t      when               # the moment it stands for: now, or when the timer was due
    row_t     row
    uint32_t  nbytes            # of a SEND
    uint32_t  owes              # A_SEND_ACK, A_SEND_CHALLENGE_ACK: still to be sent
    bint      restart           # the timer that is needed is armed anew even if it runs
    bint      gone              # the row was freed


cdef inline EndpointCold *cold_of(Endpoint *e, row_t row) noexcept nogil:
    return <EndpointCold *>store_cold(&e.engine.table, row)


cdef inline ListenerCold *listener_of(Endpoint *e, row_t row) noexcept nogil:
    return <ListenerCold *>store_cold(&e.engine.table, row)


cdef inline int local_shift(const Row *r) noexcept nogil:
    return (r.flags >> ROW_SHIFT_0) & 15


cdef inline int remote_shift(const Row *r) noexcept nogil:
    return (r.flags >> ROW_SHIFT_1) & 15


cdef inline uint64_t since_epoch(const Endpoint *e) noexcept nogil:
    return <uint64_t>(e.engine.table.now_ns - e.engine.table.epoch_ns)


cdef inline uint32_t clock_us(const Endpoint *e) noexcept nogil:
    return <uint32_t>(since_epoch(e) // 1000)


cdef inline uint32_t clock_ms(const Endpoint *e) noexcept nogil:
    return <uint32_t>(since_epoch(e) // 1000000)


cdef inline uint32_t clock_s(const Endpoint *e) noexcept nogil:
    return <uint32_t>(since_epoch(e) // 1000000000)


cdef inline void addresses_of(const Table *t, row_t row, uint8_t *local, uint8_t *remote) noexcept nogil:
    """The two 16-byte addresses of a row."""
    cdef const Row *r = &t.rows[row]
    if r.flags & ROW_IPV6:
        memcpy(local, t.addr6 + <size_t>row * 32, 16)
        memcpy(remote, t.addr6 + <size_t>row * 32 + 16, 16)
        return
    memset(local, 0, 10)
    memset(local + 10, 0xFF, 2)
    memcpy(local + 12, &r.addr[0], 4)
    memset(remote, 0, 10)
    memset(remote + 10, 0xFF, 2)
    memcpy(remote + 12, &r.addr[1], 4)


cdef inline void work_begin(Work *w, Endpoint *e, row_t row, const Segment *s, ns_t now, Outcome *out) noexcept nogil:
    """Ready for steps on a row that exists; `now` has been shown to store_see."""
    w.e = e
    w.row = row
    w.r = &e.engine.table.rows[row]
    w.c = cold_of(e, row)
    w.s = s
    w.out = out
    w.now = now
    w.when = now
    w.nbytes = 0
    w.owes = 0
    w.restart = False
    w.gone = False
    out.handle = store_handle(&e.engine.table, row)
    out.row = row
    out.before = w.r.state[0]
    out.after = out.before


cdef inline void outcome_clear(Outcome *out) noexcept nogil:
    memset(out, 0, sizeof(Outcome))
    out.row = NO_ROW
