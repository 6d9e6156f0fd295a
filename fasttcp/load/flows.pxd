# The connections of a load as its application sees them: when each is opened, what it says, how it ends. See flows.pyx.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport Segment, ns_t, row_t, seq_t
from fasttcp.core.tcb cimport Endpoint
from fasttcp.load.answer cimport Answer, Expect
from fasttcp.load.due cimport Due
from fasttcp.load.histogram cimport Hist
from fasttcp.load.wire cimport Wire

cdef enum:                      # Flow.phase
    DONE = 0                    # told of; its row may still be in TIME_WAIT
    CONNECTING = 1
    ASKING = 2                  # the request is out, the answer not complete
    THINKING = 3                # between two requests
    HOLDING = 4                 # open until its lifetime ends, or for ever
    WAITING = 5                 # its life is over; the peer is to close first
    CLOSING = 6

cdef enum:                      # what became of a connection; names in client.pyx
    OK = 0
    REFUSED = 1                 # RST for our SYN
    UNREACHABLE = 2             # ICMP for our SYN
    RESET = 3                   # RST later
    TIMED_OUT = 4               # TCP gave up, or the answer took longer than the limit
    UNEXPECTED = 5              # another answer than expected, or its end too early
    LEFT = 6                    # the peer closed a connection that was to be held
    CUT_OFF = 7                 # the run ended first
    POOL_EMPTY = 8              # not opened: no port of the pool is free
    TABLE_FULL = 9              # not opened
    N_OUTCOMES = 10

cdef enum:                      # how a connection is closed
    CLOSE_FIN = 0
    CLOSE_RST = 1
    CLOSE_PEER = 2              # the peer closes first

cdef enum:                      # distributions
    FIXED = 0
    EXPONENTIAL = 1
    PARETO = 2
    LOGNORMAL = 3
    FOREVER = 4


cdef struct Draw:               # a distribution of times
    int      kind
    double   mean_ns
    double   shape              # of PARETO; sigma of LOGNORMAL


cdef struct Flow:               # 72 bytes; what the load knows of the connection in a row
    uint64_t handle
    ns_t     scheduled_ns       # when it was to be opened
    ns_t     mark_ns            # when the current phase began, or was to begin
    ns_t     due_ns             # when something is to be done about it; 0: nothing
    Answer   answer
    uint32_t number             # of the connection, for {n}
    uint16_t pair               # source and target
    uint8_t  phase
    uint8_t  ended              # while it waits to be told of: 1 + what became of it
    seq_t    base               # where the request begins that SND.UNA lies in, or one before it; see wire_offset
    uint16_t rounds             # requests still to be made, at most 1000
    uint8_t  verdict            # 1 + what became of it, settled before it is closed; 0: open


cdef struct Template:           # request bytes with places for the number of the connection
    const uint8_t *bytes
    uint32_t length
    uint32_t holes
    uint32_t hole[16]           # place of each in `bytes`, ascending


cdef struct Pair:
    uint8_t  source[16]
    uint8_t  target[16]
    uint16_t port
    uint32_t used               # rows with this pair, TIME_WAIT included


cdef struct Plan:               # what to do from now on; changed between two runs only
    double   rate               # connections a second of the open model; 0: none
    bint     poisson
    uint64_t hold               # connections that should be open
    double   churn              # of them to be replaced each second
    bint     opening            # False: no new ones
    bint     fewer              # what is open beyond `hold` is closed, the oldest first


cdef struct Client:
    Endpoint *e
    Wire      wire
    Due       due
    Flow     *flow              # (max_rows,)
    Pair     *pair
    uint32_t  pairs
    uint32_t  next_pair
    uint32_t  ports             # in the ephemeral range
    Plan      plan
    Hist     *connect           # ns from the scheduled time to ESTABLISHED
    Hist     *first_byte        # ns from the scheduled time to the answer's first byte
    Hist     *close             # ns from when closing was due to TIME_WAIT, or CLOSED
    Expect    expect
    Template  request
    uint8_t  *scratch           # one request, and room behind it
    uint32_t  scratch_length    # of the request
    uint64_t  scratch_of        # 1 + the number of the connection whose request it is; 0: none yet
    uint64_t  scratch_capacity
    uint32_t  rounds            # requests on each connection
    uint32_t  first_number      # of the first connection, and from each to the next: Flow.number
    uint32_t  number_step
    Draw      life
    Draw      think
    int       close_by
    bint      half_close        # shutdown as soon as the request is out
    ns_t      timeout_ns        # for connecting and answering together; 0: TCP's own
    uint64_t  connecting_limit  # SYNs unanswered at once, of the closed model; FINs, at the end
    uint64_t  random[2]
    ns_t      next_open_ns
    ns_t      next_churn_ns
    ns_t      pool_empty_until
    ns_t      turned_away_until  # one was refused, or is out of reach: nothing is opened to hold N before
    uint16_t  path_mss          # what ICMP has left of a segment's data; 0: all
    bint      filled            # plan.hold was reached once; churn begins then
    bint      ending            # everything is being closed
    bint      cutting           # everything is being reset
    row_t     sweep             # where the closing of all stands
    uint64_t *ring              # handles of held connections, oldest first
    uint64_t  ring_mask
    uint64_t  ring_head
    uint64_t  ring_tail
    bint      in_batch          # segments are being applied
    row_t    *told              # rows that went meanwhile
    size_t    told_count
    size_t    told_capacity
    bint      no_memory
    uint8_t   end_of[16][64]    # what became of a connection that `event` ended in `state`
    # counts
    uint64_t  opened
    uint64_t  established
    uint64_t  answered
    uint64_t  syn_again         # connections whose SYN was sent more than once
    uint64_t  late              # opened more than 1 ms after their time
    uint64_t  reused            # 4-tuples taken over from TIME_WAIT
    uint64_t  ports_ran_out     # searches of the whole pool that found no port, one a millisecond at most
    uint64_t  rows_ran_out      # ... of the table for a row
    uint64_t  live              # not closing yet
    uint64_t  connecting
    uint64_t  closing
    uint64_t  bytes_in          # of payload
    uint64_t  turns
    uint64_t  outcome[N_OUTCOMES]
    uint64_t  statuses[6]       # HTTP answers by the first digit of their status, counted when that has come; [0] is none
    ns_t      now
    ns_t      next_timers_ns    # when the table's wheel is to be looked at again
    ns_t      ran_ns
    ns_t      cpu_ns            # of the thread that runs
    ns_t      asleep_ns         # waiting for packets or for the next thing to do

cdef void flow_ended(void *context, Endpoint *e, row_t row, int event, ns_t when_ns) noexcept nogil
cdef void client_heard(Client *c, size_t n, ns_t now) noexcept nogil        # what n segments of the wire did
cdef void client_icmp(Client *c, const Segment *s, ns_t now) noexcept nogil          # what is said of a segment of ours
cdef void client_opens(Client *c, ns_t now) noexcept nogil                  # what the plan asks for by now
cdef void client_due(Client *c, ns_t now) noexcept nogil                    # what was put off until now
cdef void client_sweeps(Client *c, ns_t now) noexcept nogil                 # the end of the run: everything is closed
cdef void client_tells(Client *c) noexcept nogil                            # what has ended since
cdef const uint8_t *client_data(void *context, const Segment *s) noexcept nogil  # a wire_data_t of a Client
