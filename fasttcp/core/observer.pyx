"""The observer seat; see observer.pxd for what it promises.

What must stand here: a segment's way from its key to its verdict, the beginning and the end of a connection, its timer. What
must not: what a segment proves (evidence.pyx).
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fasttcp.core.evidence cimport evidence_first, evidence_known, evidence_opened, evidence_rst
from fasttcp.core.hash cimport Key, hash_of_row
from fasttcp.core.layout cimport (
    ACK, FIN, NO_ROW, ROW_PARTIAL, ROW_SIDE_1_OPENED, ROW_SYN_PENDING, RST, SYN, Cold, Half, Observed, Row, Segment,
    ns_t, row_t, seq_t, tick_t,
)
from fasttcp.core.machine cimport machine_actions
from fasttcp.core.names cimport (
    A_NEVER, A_START_2MSL, E_EVICTED, E_REPLACED, E_TIMEOUT_2MSL, E_TIMEOUT_IDLE, N_STATES, S_CLOSED, S_SYN_RCVD,
    S_TIME_WAIT,
)
from fasttcp.core.prefetch cimport prefetch_write
from fasttcp.core.seat cimport fire
from fasttcp.core.store cimport (
    EVICT_CLOSING, EVICT_HALF_OPEN, EVICT_TIME_WAIT, STORE_OK, Table, store_advance, store_arm_after, store_arm_ns,
    store_behind, store_cold, store_deadline_ns, store_disarm, store_enter, store_evict_candidate, store_find,
    store_has_room, store_in_use, store_insert, store_overdue, store_prefetch_remove, store_remove,
    store_remove_hashed, store_see, store_set_key, store_take,
)
from fasttcp.core.tap cimport (
    CLAIM, KEEP_TIMER, ROW_BLANK, ROW_ONE_ISN, Observer, Verdict, is_isn, learn_scale, observed, prefetch_beside,
    syn_seen,
)
from fasttcp.core.verdicts cimport (
    V_CHANGED, V_DUPLICATE, V_FULL, V_ILLEGAL, V_LATE, V_NEW, V_PARTIAL, V_REPLACED, V_RETRANSMITTED, V_STRAY,
    V_SUSPECT, V_VOID,
)
from fasttcp.core.wheel cimport wheel_pass

cdef enum:
    WORTHLESS = V_VOID | V_ILLEGAL
    DUE_BATCH = 32
    ROOM_BUDGET = 4096          # when a full table needs a row that is due
    # A full table lets go of the oldest that is over (TIME_WAIT, or reset), then of the oldest half-open, then of the
    # oldest closing connection; never of an established one.
    SACRIFICE = 1 << EVICT_TIME_WAIT | 1 << EVICT_HALF_OPEN | 1 << EVICT_CLOSING


cdef bint observer_over(Observer *o, row_t row) noexcept nogil:
    """Nothing more can come of this connection: a SYN on its 4-tuple begins another (case 51)."""
    cdef const Row *r = &o.engine.table.rows[row]
    cdef bint first = r.state[0] == S_CLOSED or r.state[0] == S_TIME_WAIT
    return first and (r.state[1] == S_CLOSED or r.state[1] == S_TIME_WAIT)


cdef inline void count_packet(Observer *o, row_t row, int side, uint32_t payload) noexcept nogil:
    cdef Half *half = &o.engine.table.rows[row].seat.half[side]
    cdef uint32_t before = half.bytes
    half.packets += 1
    half.bytes += payload
    if half.packets == 0 or half.bytes < before:
        carry(o, row, side, half.packets == 0, half.bytes < before)


cdef void carry(Observer *o, row_t row, int side, bint packets, bint bytes) noexcept nogil:
    """A counter of the row has run over."""
    observed(o, row).packets_high[side] += packets
    observed(o, row).bytes_high[side] += bytes


# ---- the end of a connection -----------------------------------------------------------------------------------------

cdef inline int hand_out(Observer *o, row_t row, int event, ns_t when_ns) noexcept nogil:
    """Before the halves are closed, for their last states are the result. Returns what has ended it."""
    cdef const Row *r = &o.engine.table.rows[row]
    if (r.state[0] == S_CLOSED) & (r.state[1] == S_CLOSED) and r.aux != 0 and not r.aux & CLAIM and event != E_REPLACED:
        event = r.aux                               # it was closed before; only its row had lingered
    if o.watch.ended != NULL:
        o.watch.ended(o.watch.context, o, row, event, when_ns)
    return event


cdef inline int event_for(int event, uint8_t state) noexcept nogil:
    """What a half takes when the connection ends by this event: only one in TIME_WAIT has waited 2MSL."""
    return E_TIMEOUT_IDLE if event == E_TIMEOUT_2MSL and state != S_TIME_WAIT else event


cdef void observer_end(Observer *o, row_t row, int event, ns_t when_ns) noexcept nogil:
    """Take `event` in both halves that are not closed yet, hand the connection out, free its row."""
    cdef const Row *r = &o.engine.table.rows[row]
    cdef int side
    event = hand_out(o, row, event, when_ns)
    for side in range(2):
        if r.state[side] != S_CLOSED:
            fire(&o.engine, row, side, event_for(event, r.state[side]), NULL, when_ns)
    o.tallies.ended += 1
    store_remove(&o.engine.table, row)


# By pair of states: how many of the halves cannot take the time-out that ends them, of which engine.never tells.
cdef uint8_t[256] MISFITS


cdef inline int timeout_of(uint8_t state_0, uint8_t state_1) noexcept nogil:
    return E_TIMEOUT_2MSL if (state_0 == S_TIME_WAIT) | (state_1 == S_TIME_WAIT) else E_TIMEOUT_IDLE


cdef void learn_timeouts() noexcept nogil:
    cdef int pair, side
    cdef uint8_t state[2]
    for pair in range(N_STATES << 4):
        state[0] = <uint8_t>(pair >> 4)
        state[1] = pair & 0xF
        for side in range(2):
            if state[side] != S_CLOSED and state[side] < N_STATES:
                MISFITS[pair] += (
                    machine_actions(state[side], event_for(timeout_of(state[0], state[1]), state[side])) & A_NEVER != 0
                )


cdef inline void arm(Observer *o, row_t row) noexcept nogil:
    cdef const Row *r = &o.engine.table.rows[row]
    store_arm_after(&o.engine.table, row, o.timeout[r.state[0] * 16 + r.state[1]])


cdef inline void fall_due(Observer *o, row_t row, uint64_t hash) noexcept nogil:
    """The timer of this row, which the wheel has let go of, is due."""
    cdef Table *t = &o.engine.table
    cdef const Row *r = &t.rows[row]
    cdef ns_t later
    cdef int event
    if o.watch.due != NULL:
        later = o.watch.due(o.watch.context, o, row, t.now_ns)
        if later > t.now_ns:
            store_arm_ns(t, row, later)
            return
    # It ended when it was due, however long nobody looked.
    event = timeout_of(r.state[0], r.state[1])
    later = min(store_deadline_ns(t, row), t.now_ns)
    if o.engine.trace.steps != NULL:
        observer_end(o, row, event, later)
        return
    # Nobody sees the states that the halves are left in, so none is computed: which of them waits is chance.
    hand_out(o, row, event, later)
    o.engine.never += MISFITS[<uint32_t>r.state[0] << 4 | r.state[1]]
    o.tallies.ended += 1
    store_remove_hashed(t, row, hash)


cdef bint observer_expired(Observer *o, row_t row) noexcept nogil:
    """Whether the row's time is up, only the wheel has not come round to it: then it is gone now."""
    return store_overdue(&o.engine.table, row) and expire(o, row)


cdef bint expire(Observer *o, row_t row) noexcept nogil:
    """Ask at once what the row's timer would ask. Whether it is gone."""
    store_disarm(&o.engine.table, row)
    fall_due(o, row, hash_of_row(&o.engine.table.hash_key, &o.engine.table.rows[row]))
    return not store_in_use(&o.engine.table, row)


cdef inline bint nearly_due(const Table *t, row_t row) noexcept nogil:
    """A timer is rounded up to the next tick: its very time may have passed already."""
    return <int32_t>(t.rows[row].deadline - <tick_t>t.now_tick) <= 1


cdef size_t observer_advance(Observer *o, ns_t now_ns, size_t budget) noexcept nogil:
    """Fire what is due at `now_ns`, looking at about `budget` timers at most. Returns how many it has looked at."""
    cdef Table *t = &o.engine.table
    store_see(t, now_ns)
    # The usual tick of a small table has no timer: it needs no room for rows that are due.
    return 0 if budget != 0 and wheel_pass(&t.wheel, t.now_tick) else advance_slots(o, budget)


cdef size_t advance_slots(Observer *o, size_t budget) noexcept nogil:
    cdef Table *t = &o.engine.table
    cdef row_t due[DUE_BATCH]
    cdef uint64_t hashes[DUE_BATCH]
    cdef size_t left = budget, n, i
    while left > 0 and store_behind(t):
        n = store_advance(t, t.now_ns, &left, due, DUE_BATCH)
        for i in range(n):
            hashes[i] = store_prefetch_remove(t, due[i])
            prefetch_write(store_cold(t, due[i]))
            prefetch_beside(o, due[i])
        for i in range(n):
            fall_due(o, due[i], hashes[i])
    return budget - left


# ---- the beginning of a connection -----------------------------------------------------------------------------------

cdef row_t begin(Observer *o, const Key *key, const Segment *segment, uint16_t *verdict) noexcept nogil:
    """A row for the first segment of a connection, in no state yet. NO_ROW: there is none."""
    cdef Table *t = &o.engine.table
    cdef uint16_t flags = segment.flags & (SYN | RST | FIN | ACK)
    cdef bint handshake = (flags & (SYN | RST | FIN)) == SYN
    cdef row_t row = NO_ROW
    cdef Row *line
    cdef int answer
    if o.pick_up < 2 and not handshake and (o.pick_up == 0 or flags & (SYN | RST) or not flags & ACK):
        o.tallies.stray += 1
        verdict[0] |= V_STRAY
        return NO_ROW
    answer = store_insert(t, key, t.now_ns, &row)
    while answer != STORE_OK and store_behind(t):   # rows whose time is up make room before others must
        observer_advance(o, t.now_ns, ROOM_BUDGET)
        answer = store_insert(t, key, t.now_ns, &row)
    if answer != STORE_OK:
        if o.evict and store_evict_candidate(t, SACRIFICE, &row):
            o.tallies.evicted += 1
            observer_end(o, row, E_EVICTED, t.now_ns)
        if not o.evict or store_insert(t, key, t.now_ns, &row) != STORE_OK:
            o.tallies.full += 1
            verdict[0] |= V_FULL
            return NO_ROW
    o.tallies.connections += 1
    verdict[0] |= V_NEW | V_CHANGED
    line = &t.rows[row]
    line.flags |= ROW_BLANK
    line.last_ns = segment.time_ns
    observed(o, row).head.first_ns = segment.time_ns
    if not handshake:
        o.tallies.partial += 1
        verdict[0] |= V_PARTIAL
        line.flags |= ROW_PARTIAL
    line.flags |= ROW_SIDE_1_OPENED * key.side
    return row


# What a SYN of either side alone makes of a row, but for its numbers: learnt from `evidence_first`. All zero: nothing usual.
cdef Row OPENED[2]


cdef void learn_opening() noexcept nogil:
    """Fill OPENED: show a SYN of either side to the general path, on the row of a table that has no other."""
    cdef Observer o
    cdef Row line
    cdef Observed cold
    cdef Segment g
    cdef int s
    memset(&g, 0, sizeof(Segment))
    g.flags = SYN
    for s in range(2):
        memset(&o, 0, sizeof(Observer))
        memset(&line, 0, sizeof(Row))
        memset(&cold, 0, sizeof(Observed))
        o.engine.table.rows = &line
        o.engine.table.cold = <char *>&cold
        o.engine.table.cold_stride = sizeof(Observed)
        evidence_first(&o, 0, s, &g)
        line.seat.half[0].snd_nxt = line.seat.half[1].snd_nxt = 0
        line.seat.half[s].packets = 1
        if o.engine.never == 0 and counts_from_now(&line, V_NEW | V_CHANGED, 0):
            OPENED[s] = line


cdef inline bint opens_plainly(Observer *o, const Key *key, const Segment *segment, uint16_t verdict) noexcept nogil:
    """Whether `open_plainly` may take this segment, which belongs to no row: a SYN alone, and a row at hand for it."""
    return (
        segment.flags & (SYN | RST | FIN | ACK) == SYN and not verdict & ~<uint16_t>V_REPLACED
        and OPENED[key.side].flags != 0 and o.engine.trace.steps == NULL and store_has_room(&o.engine.table, key)
    )


cdef inline void open_plainly(
    Observer *o, const Key *key, const Segment *segment, uint16_t verdict, Verdict *out
) noexcept nogil:
    """What `begin`, `evidence_first` and the rest of the general path come to for a SYN alone, each field written once."""
    cdef Table *t = &o.engine.table
    cdef int s = key.side
    cdef const Row *opened = &OPENED[s]
    cdef uint32_t pair = <uint32_t>opened.state[0] << 4 | opened.state[1]
    cdef row_t row = store_take(t)
    cdef Row *line = &t.rows[row]
    cdef Observed *cold = observed(o, row)
    cdef Half *sender = &line.seat.half[s]
    cdef ns_t deadline
    cold.head.generation += 1
    cold.head.first_ns = segment.time_ns
    cold.isn[s] = segment.seq
    cold.isn[s ^ 1] = <seq_t>-1
    memset(cold.retransmitted, 0, sizeof(Observed) - sizeof(Cold) - sizeof(cold.isn))
    line[0] = opened[0]
    store_set_key(t, row, key)
    learn_scale(line, s, segment)
    line.flags |= key.v6 | ROW_ONE_ISN
    line.last_ns = segment.time_ns
    sender.snd_nxt = segment.seq + 1 + segment.payload
    sender.window = segment.window
    sender.bytes = segment.payload
    line.seat.half[s ^ 1].rcv_nxt = segment.seq
    store_enter(t, key, row, pair)
    o.tallies.connections += 1
    out.row = row
    out.flags = verdict | V_NEW | V_CHANGED
    memcpy(out.state, opened.state, sizeof(out.state))
    if o.watch.seen != NULL:
        deadline = o.watch.seen(o.watch.context, o, row, s, segment, out.flags)
        if deadline != 0:
            if deadline != KEEP_TIMER:
                store_arm_ns(t, row, deadline)
            return
    store_arm_after(t, row, o.timeout[pair])


cdef inline bint is_twin(const Observer *o, const Row *line, int s, const Segment *segment) noexcept nogil:
    """The same packet once more, from a second tap (case 62): nothing differs, and no host repeats so soon."""
    return (
        segment.time_ns - line.last_ns < o.twin_ns
        and segment.window == line.seat.half[s].window
        and (not segment.flags & ACK or segment.ack == line.seat.half[s].rcv_nxt)
        and segment.seq + segment.payload + (segment.flags & FIN) + ((segment.flags & SYN) >> 1)
        == line.seat.half[s].snd_nxt
    )


# ---- one segment -----------------------------------------------------------------------------------------------------

cdef void observer_step(Observer *o, const Key *key, const Segment *segment, Verdict *out) noexcept nogil:
    """The general path. Timers that are due by now have been looked at."""
    cdef Table *t = &o.engine.table
    cdef int s = key.side
    cdef row_t row
    cdef Row *line
    cdef uint16_t verdict = 0
    cdef uint16_t flags = segment.flags & (SYN | RST | FIN | ACK)
    cdef uint32_t actions = 0
    cdef bint known
    cdef ns_t deadline

    store_see(t, segment.time_ns)
    if segment.time_ns < t.now_ns:
        verdict |= V_LATE                           # time never goes back inside a table (case 61)
        o.tallies.late += 1
    if segment.info & o.void_info:
        verdict |= V_VOID
        o.tallies.damaged += 1
    elif is_illegal(flags):
        verdict |= V_ILLEGAL
        o.tallies.illegal += 1

    known = store_find(t, key, &row)
    if known and (store_overdue(t, row) or o.watch.due != NULL and nearly_due(t, row)):
        known = not expire(o, row)
    if known and flags & SYN and begins_anew(o, row, s, segment, verdict):
        observer_end(o, row, E_REPLACED, t.now_ns)
        o.tallies.replaced += 1
        verdict |= V_REPLACED
        known = False
    if not known and opens_plainly(o, key, segment, verdict):
        open_plainly(o, key, segment, verdict, out)
        return
    if not known:
        row = begin(o, key, segment, &verdict) if o.pick_up == 2 or not verdict & WORTHLESS else NO_ROW
        if row == NO_ROW:
            out.row = NO_ROW
            out.flags = verdict
            out.state[0] = out.state[1] = S_CLOSED
            return
    line = &t.rows[row]

    if verdict & WORTHLESS:
        pass
    elif line.flags & ROW_BLANK and flags & RST:
        verdict |= V_STRAY
        o.tallies.stray += 1
    elif flags & RST:
        verdict |= evidence_rst(o, row, s, segment)
    elif line.flags & ROW_BLANK:
        evidence_first(o, row, s, segment)
        verdict |= V_CHANGED
        if not flags & SYN:
            verdict |= evidence_opened(o, row, s, segment, &actions)
    else:
        verdict |= evidence_known(o, row, s, segment, &actions)

    if verdict & V_RETRANSMITTED:
        if is_twin(o, line, s, segment):
            verdict ^= V_RETRANSMITTED | V_DUPLICATE
            o.tallies.duplicates += 1
        else:
            o.tallies.retransmitted += 1
            observed(o, row).retransmitted[s] += 1
    if verdict & V_SUSPECT:
        o.tallies.suspect += 1
    elif not verdict & WORTHLESS:
        line.seat.half[s].window = segment.window
    if not verdict & V_VOID:
        count_packet(o, row, s, segment.payload)
        if segment.time_ns > line.last_ns:
            line.last_ns = segment.time_ns

    out.row = row
    out.flags = verdict
    out.state[0] = line.state[0]
    out.state[1] = line.state[1]
    if o.watch.seen != NULL:
        deadline = o.watch.seen(o.watch.context, o, row, s, segment, verdict)
        if deadline != 0:
            if deadline != KEEP_TIMER:
                store_arm_ns(t, row, deadline)
            return
    if counts_from_now(line, verdict, actions):
        arm(o, row)


cdef uint16_t observer_see(Observer *o, row_t row, int s, const Segment *segment, bint *arms) noexcept nogil:
    """The same for others; arms: whether the segment moves the row's timer."""
    cdef uint32_t actions = 0
    cdef uint16_t verdict
    verdict = evidence_known(o, row, s, segment, &actions)
    arms[0] = counts_from_now(&o.engine.table.rows[row], verdict, actions)
    return verdict


cdef inline bint counts_from_now(const Row *line, uint16_t verdict, uint32_t actions) noexcept nogil:
    """Whether this segment moves the row's timer."""
    if line.state[0] == S_TIME_WAIT or line.state[1] == S_TIME_WAIT:
        return actions & A_START_2MSL != 0          # nothing else moves the end of the wait
    # Silence counts; after a reset only the reset itself does.
    return line.state[0] + line.state[1] != 0 or verdict & (V_CHANGED | V_NEW) != 0


cdef inline bint is_illegal(uint16_t flags) noexcept nogil:
    """No stack sends it: two of SYN, RST and FIN together, or none of SYN, RST and ACK (RFC 9293 section 3.10.7)."""
    if flags & SYN:
        return flags & (RST | FIN) != 0
    return flags & (RST | FIN) == RST | FIN or not flags & (RST | ACK)


cdef bint begins_anew(Observer *o, row_t row, int s, const Segment *segment, uint16_t verdict) noexcept nogil:
    """Does a segment with SYN on a known 4-tuple belong to a new connection?"""
    cdef const Row *line = &o.engine.table.rows[row]
    if o.watch.splits != NULL:
        return o.watch.splits(o.watch.context, o, row, s, segment)
    if verdict & WORTHLESS:
        return False
    if o.any_isn and not segment.flags & ACK and syn_seen(line, s):
        return not is_isn(o, row, s, segment.seq)
    if observer_over(o, row):
        return not is_isn(o, row, s, segment.seq)               # case 51; the same SYN again is case 50
    # A SYN that was taken for a crossing one is answered from another number: the first SYN had been given up.
    if (
        line.state[0] == S_SYN_RCVD and line.state[1] == S_SYN_RCVD and segment.flags & ACK and syn_seen(line, s)
        and not is_isn(o, row, s, segment.seq) and segment.ack == line.seat.half[1 - s].snd_nxt
    ):
        return True
    return (                                                        # case 52
        (segment.flags & ACK) != 0
        and (line.flags & ROW_SYN_PENDING) != 0
        and not is_isn(o, row, s, segment.seq)
        and segment.ack != line.seat.half[1 - s].snd_nxt            # or it answers the SYN that was there before
    )


learn_opening()
learn_timeouts()
