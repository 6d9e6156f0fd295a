"""Segments in their order, one or many: the usual ones by the short way, the others by observer.pyx, and memory asked for
ahead of its use. See usual.pxd for what is usual; what that comes to is learnt here when the module is imported.

What must not stand here: a rule, a state.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from fasttcp.core.hash cimport Key, key_observed
from fasttcp.core.layout cimport ACK, FIN, ROW_SCALED_0, SYN, Observed, Row, Segment, ns_t, row_t, seq_t
from fasttcp.core.names cimport N_STATES, S_SYN_RCVD, S_SYN_SENT
from fasttcp.core.observer cimport observer_advance, observer_see, observer_step
from fasttcp.core.prefetch cimport prefetch_read
from fasttcp.core.store cimport Table, store_behind, store_cold, store_peek, store_prefetch, store_see
from fasttcp.core.tap cimport Observer, Verdict, opening, prefetch_beside
from fasttcp.core.usual cimport (
    EVIDENCE, EV_COVERS, EV_FIN, EV_SYN_ACK, UNUSUAL_BIT, USUAL_ARMS, USUAL_BEFORE, Usual, usual_at, usual_segment,
    usual_time,
)
from fasttcp.core.verdicts cimport V_CHANGED

cdef enum:
    BATCH = 32                  # segments whose lines are on their way together
    GROUP = 8                   # segments that are worked on together; BATCH is a multiple
    RING = 128                  # keys between their hash and their use: at least 2 * BATCH + GROUP
    # Timers that a call may look at; the rest waits for the next one, so a burst makes no call much longer than the median
    # (of 4,096 segments, five times). Without a burst a segment has less than one: an eighth of a connection's end and,
    # for each minute of its silence, one look.
    CALL_BUDGET = 256
    SEGMENT_BUDGET = 4          # and so many more for each segment of the call


# ---- what usual segments come to -------------------------------------------------------------------------------------

cdef Usual USUALLY[EVIDENCE << 9]


cdef void usual_learn() noexcept nogil:
    """Fill the table of usual.pxd: show every kind of usual segment, in every pair of states, to the general path."""
    cdef Observer o
    cdef Row line
    cdef Observed cold
    cdef int s, sender, receiver
    cdef uint32_t evidence, pair
    cdef Usual found, again
    for pair in range(<uint32_t>EVIDENCE << 9):
        USUALLY[pair].what = <uint32_t>1 << UNUSUAL_BIT
    memset(&o, 0, sizeof(Observer))
    o.engine.table.rows = &line
    o.engine.table.cold = <char *>&cold
    o.engine.table.cold_stride = sizeof(Observed)
    for evidence in range(<uint32_t>EVIDENCE):
        for s in range(2):
            for sender in range(N_STATES):
                for receiver in range(N_STATES):
                    if evidence == EV_SYN_ACK:
                        if sender != S_SYN_RCVD or receiver != S_SYN_SENT:
                            continue
                    # These would infer what was not captured.
                    elif opening(<uint8_t>sender) or receiver == S_SYN_SENT:
                        continue
                    elif receiver == S_SYN_RCVD and not evidence & EV_COVERS:
                        continue
                    pair = <uint32_t>(receiver << 4 | sender) if s else <uint32_t>(sender << 4 | receiver)
                    found = usual_try(&o, evidence, s, pair, 0)
                    again = usual_try(&o, evidence, s, pair, 100)
                    if memcmp(&found, &again, sizeof(Usual)) == 0:
                        USUALLY[usual_at(evidence, s, pair)] = found


cdef Usual usual_try(Observer *o, uint32_t evidence, int s, uint32_t pair, uint32_t payload) noexcept nogil:
    """What comes of one segment of side s on the row of a table that has no other."""
    cdef Usual found
    cdef Row *line = &o.engine.table.rows[0]
    cdef Observed *cold = <Observed *>store_cold(&o.engine.table, 0)
    cdef Segment g
    cdef uint16_t verdict
    cdef bint arms
    cdef seq_t here = 1000000, there = 5000000
    memset(line, 0, sizeof(Row))
    memset(cold, 0, sizeof(Observed))
    memset(&g, 0, sizeof(Segment))
    line.state[0] = <uint8_t>(pair >> 4)
    line.state[1] = pair & 0xF
    line.flags = ROW_SCALED_0 << (s ^ 1)
    line.seat.half[s].snd_nxt = line.seat.half[s ^ 1].rcv_nxt = here
    line.seat.half[s ^ 1].snd_nxt = line.seat.half[s].rcv_nxt = there
    line.seat.half[0].window = line.seat.half[1].window = 1000
    cold.isn[s ^ 1] = there - 1
    g.seq = here
    g.ack = there if evidence & (EV_COVERS | EV_SYN_ACK) else there - 10
    g.payload = payload
    g.flags = (SYN | ACK) if evidence == EV_SYN_ACK else (ACK | (FIN if evidence & EV_FIN else 0))
    verdict = observer_see(o, 0, s, &g, &arms)
    found.verdict = verdict
    memcpy(found.state, line.state, 2)
    found.what = pair << USUAL_BEFORE | <uint32_t>line.state[0] << 4 | line.state[1]
    if verdict & ~<uint16_t>V_CHANGED or o.engine.never != 0:
        o.engine.never = 0
        found.what |= <uint32_t>1 << UNUSUAL_BIT
    if arms:
        found.what |= USUAL_ARMS
    return found


usual_learn()


# ---- one or many -----------------------------------------------------------------------------------------------------

cdef inline size_t numbered(const uint32_t *at, size_t i) noexcept nogil:
    return i if at == NULL else at[i]


cdef bint see_time(Observer *o, ns_t now_ns) noexcept nogil:
    """The clock goes on, and timers fall due. Whether it should have gone back."""
    store_see(&o.engine.table, now_ns)
    if store_behind(&o.engine.table) and o.allowance:
        o.allowance -= observer_advance(o, now_ns, o.allowance)
    return now_ns < o.engine.table.now_ns


cdef inline void step(Observer *o, bint traced, const Key *key, const Segment *segment, Verdict *verdict) noexcept nogil:
    """traced: whether a record of steps is kept, which the short way has not."""
    cdef bint late = not usual_time(&o.engine.table, segment.time_ns) and see_time(o, segment.time_ns)
    if late or traced or not usual_segment(o, USUALLY, key, segment, verdict):
        observer_step(o, key, segment, verdict)


cdef void step_group(Observer *o, const Key *key, const Segment *segment, size_t n, Verdict *verdict) noexcept nogil:
    """Apply n segments that follow each other, as their keys and verdicts do."""
    cdef size_t i
    o.tallies.segments += n
    if o.engine.trace.steps != NULL:
        for i in range(n):
            step(o, True, &key[i], &segment[i], &verdict[i])
    else:
        for i in range(n):
            step(o, False, &key[i], &segment[i], &verdict[i])


cdef void step_some(
    Observer *o, const Key *key, const Segment *segments, const uint32_t *at, size_t n, Verdict *verdicts
) noexcept nogil:
    """The same for those numbered at[0] to at[n - 1], whose keys and verdicts follow each other."""
    cdef bint traced = o.engine.trace.steps != NULL
    cdef size_t i
    o.tallies.segments += n
    for i in range(n):
        step(o, traced, &key[i], &segments[at[i]], &verdicts[i])


cdef void observe(Observer *o, const Segment *segment, Verdict *verdict) noexcept nogil:
    cdef Key key
    cdef row_t row
    o.allowance = CALL_BUDGET
    key_observed(&key, segment, &o.engine.table.hash_key)
    store_prefetch(&o.engine.table, &key)
    row = store_peek(&o.engine.table, &key, True)   # waits for the bucket; from here on the rest is on its way
    prefetch_beside(o, row)
    step_group(o, &key, segment, 1, verdict)


cdef inline Key *key_at(Key *ring, Key *made, size_t i) noexcept nogil:
    return made + i if made != NULL else &ring[i & (RING - 1)]


cdef inline void pipeline(
    Observer *o, const Segment *segments, const uint32_t *at, Key *made, size_t n, Verdict *verdicts
) noexcept nogil:
    """Every segment in its order, with memory asked for ahead of its use: while one group of segments is applied, the
    rows of those BATCH further on and the buckets of those 2 * BATCH further on are on their way. In groups, not one by
    one: so the processor works on many keys at once, and a branch that it did not foresee costs it none of that.

    at: which of the segments, NULL for all. made: their keys, NULL when they are to be made here. Constants of the caller."""
    cdef Table *t = &o.engine.table
    cdef Key ring[RING]
    cdef Key *key
    cdef const Segment *ahead
    cdef row_t row
    cdef size_t first = 0, i, now
    o.allowance = CALL_BUDGET + n * SEGMENT_BUDGET
    while first < n + 2 * BATCH:
        key = key_at(ring, made, first)
        for i in range(first, min(first + GROUP, n)):
            if made == NULL:
                key_observed(key, &segments[numbered(at, i)], &t.hash_key)
            store_prefetch(t, key)
            # A processor foresees those that follow each other within a page only, and no others.
            ahead = &segments[numbered(at, i + AHEAD)]
            prefetch_read(ahead)
            if at != NULL:
                prefetch_read(<const char *>(ahead + 1) - 1)
            key += 1
        if first >= BATCH:
            key = key_at(ring, made, first - BATCH)
            for i in range(first - BATCH, min(first - BATCH + GROUP, n)):
                row = store_peek(t, key, (<uint32_t>segments[numbered(at, i)].flags & SYN) >> 1)
                prefetch_beside(o, row)
                key += 1
        if first >= 2 * BATCH:
            now = first - 2 * BATCH
            key = key_at(ring, made, now)
            if at == NULL:
                step_group(o, key, segments + now, min(<size_t>GROUP, n - now), verdicts + now)
            else:
                step_some(o, key, segments, at + now, min(<size_t>GROUP, n - now), verdicts + now)
        first += GROUP


cdef void observe_keyed(
    Observer *o, const Segment *segments, Key *keys, size_t n, Verdict *verdicts
) noexcept nogil:
    pipeline(o, segments, NULL, keys, n, verdicts)


cdef void observe_batch(Observer *o, const Segment *segments, size_t n, Verdict *verdicts) noexcept nogil:
    pipeline(o, segments, NULL, NULL, n, verdicts)


cdef void observe_some(
    Observer *o, const Segment *segments, const uint32_t *at, size_t n, Verdict *verdicts
) noexcept nogil:
    pipeline(o, segments, at, NULL, n, verdicts)
