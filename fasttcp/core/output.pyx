"""The way out: a queue of Segment records, and the one place where their fields are filled in.

The queue is a chain of chunks of 256 segments. It grows chunk by chunk up to a limit and then drops, as a full device
queue does: TCP takes that for loss. One empty chunk is kept, so that a steady flow allocates nothing.

Invariants: `count` segments lie from (head, read) to (tail, write); an empty queue has head == tail and read == write.
Cost of a segment: one line and a half written, in order.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fasttcp.core.hash cimport is_mapped
from fasttcp.core.layout cimport (
    ACK, INFO_IPV6, OPT_MSS, OPT_SACK_PERMITTED, OPT_TIMESTAMPS, OPT_WSCALE, ROW_IPV6, RST, SYN, Row, Segment, ns_t,
    seq_t,
)
from fasttcp.core.tcb cimport (
    TCB_SACK, TCB_SCALED, TCB_TIMESTAMPS, TCB_TS_RECENT, Endpoint, EndpointCold, Output, OutputChunk, Work,
    addresses_of, local_shift, since_epoch,
)


cdef void output_open(Output *q, size_t limit) noexcept nogil:
    memset(q, 0, sizeof(Output))
    q.limit = limit


cdef void output_close(Output *q) noexcept nogil:
    cdef OutputChunk *chunk
    while q.head != NULL:
        chunk = q.head
        q.head = chunk.next
        free(chunk)
    free(q.spare)
    memset(q, 0, sizeof(Output))


cdef Segment *_slot(Output *q) noexcept nogil:
    """The place of the next segment, or NULL: the limit is reached, or there is no memory."""
    cdef OutputChunk *chunk
    if q.count >= q.limit:
        return NULL
    if q.tail == NULL or q.write == CHUNK_SEGMENTS:
        chunk = q.spare
        q.spare = NULL
        if chunk == NULL:
            chunk = <OutputChunk *>malloc(sizeof(OutputChunk))
            if chunk == NULL:
                return NULL
        chunk.next = NULL
        if q.tail == NULL:
            q.head = chunk
            q.read = 0
        else:
            q.tail.next = chunk
        q.tail = chunk
        q.write = 0
    q.write += 1
    q.count += 1
    return &q.tail.segment[q.write - 1]


cdef size_t output_take(Output *q, Segment *into, size_t n) noexcept nogil:
    """Move the oldest n segments, or all that there are, to `into`; how many."""
    cdef size_t taken = 0, run
    cdef OutputChunk *chunk
    while taken < n and q.count > 0:
        chunk = q.head
        run = (q.write if chunk == q.tail else CHUNK_SEGMENTS) - q.read
        if run > n - taken:
            run = n - taken
        memcpy(&into[taken], &chunk.segment[q.read], run * sizeof(Segment))
        taken += run
        q.count -= run
        q.read += <uint32_t>run
        if q.count == 0:
            q.read = q.write = 0
        elif q.read == CHUNK_SEGMENTS:
            q.head = chunk.next
            q.read = 0
            free(q.spare)
            q.spare = chunk
    return taken


cdef bint output_put(Output *q, const Segment *s) noexcept nogil:
    cdef Segment *place = _slot(q)
    if place == NULL:
        return False
    place[0] = s[0]
    return True


cdef void output_copy(const Output *q, Segment *into) noexcept nogil:
    cdef const OutputChunk *chunk = q.head
    cdef size_t begin = q.read, run
    while chunk != NULL:
        run = (q.write if chunk == q.tail else CHUNK_SEGMENTS) - begin
        memcpy(into, &chunk.segment[begin], run * sizeof(Segment))
        into += run
        chunk = chunk.next
        begin = 0


cdef uint32_t timestamp_clock(Endpoint *e) noexcept nogil:
    """Now in ticks of the timestamp clock (RFC 7323 section 5.4). A division only where a new tick begins."""
    cdef ns_t now = e.engine.table.now_ns
    cdef uint64_t whole
    if now < e.ts_begin_ns or now >= e.ts_end_ns:
        whole = since_epoch(e) // <uint64_t>e.policy.timestamp_tick_ns
        e.ts_now = <uint32_t>whole
        e.ts_begin_ns = e.engine.table.epoch_ns + <ns_t>(whole * <uint64_t>e.policy.timestamp_tick_ns)
        e.ts_end_ns = e.ts_begin_ns + e.policy.timestamp_tick_ns
    return e.ts_now


cdef void set_length(Segment *s) noexcept nogil:
    """ip_bytes of a segment whose other fields are settled: the headers as they will be on the wire."""
    cdef uint32_t options = 0
    if s.options & OPT_MSS:
        options += 4
    if s.options & OPT_WSCALE:
        options += 3
    if s.options & OPT_SACK_PERMITTED:
        options += 2
    if s.options & OPT_TIMESTAMPS:
        # Two bytes of padding bring it to a boundary, unless SACK-permitted does.
        options += 10 if s.options & OPT_SACK_PERMITTED else 12
    s.ip_bytes = (40 if s.info & INFO_IPV6 else 20) + 20 + ((options + 3) & ~<uint32_t>3) + s.payload


cdef uint16_t _window(const Row *r, uint16_t flags) noexcept nogil:
    """RCV.WND as the header says it: never scaled in a SYN (RFC 7323 section 2.2)."""
    cdef uint32_t window = r.seat.tcb.rcv_wnd
    if not flags & SYN:
        window >>= local_shift(r)
    return <uint16_t>(window if window < 0xFFFF else 0xFFFF)


cdef bint emit(Work *w, uint16_t flags, seq_t seq, uint32_t payload) noexcept nogil:
    cdef Endpoint *e = w.e
    cdef Row *r = w.r
    cdef EndpointCold *c = w.c
    cdef Segment *s = _slot(&e.output)
    # The first SYN offers what the profile allows, others what was agreed
    cdef bint offer = flags & (SYN | ACK) == SYN
    if s == NULL:
        e.counts.output_full += 1
        return False
    s.time_ns = w.now
    addresses_of(&e.engine.table, w.row, s.src, s.dst)
    s.sport = r.port[0]
    s.dport = r.port[1]
    s.seq = seq
    s.ack = 0
    s.payload = payload
    s.tsval = 0
    s.tsecr = 0
    s.window = 0
    s.flags = flags
    s.mss = 0
    s.wscale = 0
    s.options = 0
    s.info = INFO_IPV6 if r.flags & ROW_IPV6 else 0
    if flags & ACK:
        s.ack = r.seat.tcb.rcv_nxt
        c.last_ack_sent = s.ack
    if not flags & RST:
        s.window = _window(r, flags)
    if flags & SYN:
        s.options |= OPT_MSS
        s.mss = e.policy.advmss[s.info & INFO_IPV6]
        if (e.policy.tcp_window_scaling if offer else r.aux & TCB_SCALED):
            s.options |= OPT_WSCALE
            s.wscale = e.policy.rcv_wscale
        if (e.policy.tcp_sack if offer else r.aux & TCB_SACK):
            s.options |= OPT_SACK_PERMITTED
    if r.aux & TCB_TIMESTAMPS or (offer and e.policy.tcp_timestamps):
        if flags & (RST | ACK) != RST:              # a RST without ACK proves nothing that a timestamp could date
            s.options |= OPT_TIMESTAMPS
            s.tsval = timestamp_clock(e) + c.ts_offset
            if flags & ACK and r.aux & TCB_TS_RECENT:
                s.tsecr = c.ts_recent
    set_length(s)
    c.segments[0] += 1
    e.counts.segments_out += 1
    w.out.sent += 1
    return True


cdef Segment *emit_reply(Endpoint *e, const Segment *s, ns_t now, uint16_t flags, seq_t seq, seq_t ack) noexcept nogil:
    cdef Segment *out = _slot(&e.output)
    if out == NULL:
        e.counts.output_full += 1
        return NULL
    memset(out, 0, sizeof(Segment))
    out.time_ns = now
    memcpy(out.src, s.dst, 16)
    memcpy(out.dst, s.src, 16)
    out.sport = s.dport
    out.dport = s.sport
    out.seq = seq
    out.ack = ack
    out.flags = flags
    out.info = 0 if is_mapped(s.src) and is_mapped(s.dst) else INFO_IPV6
    set_length(out)
    e.counts.segments_out += 1
    return out
