"""What an application does with each connection of a load, as events of the endpoint seat come in.

                 rate, hold, churn                        life is over, or churn
    (scheduled) ------------------> CONNECTING                  |
                                        | ESTABLISHED           v
                         request        v        answer     WAITING (close by the peer)
           THINKING <-----------+--- ASKING ---> HOLDING ---> CLOSING ---> told of: DONE
               +----------------+                                 (TIME_WAIT may go on in the row)

What must stand here: these phases, the latencies and the outcomes. What must not: TCP's rules (core/), bytes on the
wire (wire.pyx), the clock (client.pyx).

While a batch of segments is applied, what the earlier ones said has not been read yet: `flow_ended` then only notes
that a row has gone, and `client_tells` draws the conclusion after the batch. No batch opens a connection, so the row
is nobody else's meanwhile.

Invariants: live + closing is the number of flows that are not DONE; each opened connection is counted under one
outcome; Pair.used is the number of rows with that pair.
"""

from libc.math cimport cos, exp, log, pow, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from fasttcp.core.calls cimport CALL_NO_PORT, CALL_OK, endpoint_abort, endpoint_close, endpoint_open, endpoint_send
from fasttcp.core.hash cimport Key, is_mapped, key_endpoint
from fasttcp.core.layout cimport Segment, ns_t, row_t, seq_le, seq_lt
from fasttcp.core.names cimport E_RCV_FIN, E_REPLACED, S_CLOSE_WAIT, S_TIME_WAIT
from fasttcp.core.store cimport store_find, store_handle, store_row_of
from fasttcp.core.tcb cimport Endpoint, Outcome, cold_of
from fasttcp.core.verdicts cimport OUT_ESTABLISHED
from fasttcp.load.answer cimport (
    ANSWER_DONE, ANSWER_MORE, END_NOTHING, answer_begin, answer_closed, answer_drop, answer_segment,
)
from fasttcp.load.due cimport due_add, due_pop
from fasttcp.load.histogram cimport hist_add
from fasttcp.load.wire cimport wire_offset
from fasttcp.packets.icmp cimport ICMP_TOO_LARGE

__all__: list[str] = []

cdef enum:
    OPENS = 256                 # connections opened, and closed by churn, in one turn at most
    SWEEP = 8192                # rows looked at in one turn at the end
    LATE_NS = 1000000
    POOL_PAUSE_NS = 1000000     # an empty pool is not asked again before
    LEAST_PATH = 552            # bytes; less is not believed (sysctl net.ipv4.route.min_pmtu)
    LEAST_PATH_6 = 1280         # RFC 8200 section 5
    TIMESTAMPS = 12             # bytes that this option may take of a segment (RFC 7323)
    TURNED_AWAY_NS = 100000000  # who is turned away does not try again as fast as it can


# ---- chance ----------------------------------------------------------------------------------------------------------

cdef double _uniform(Client *c) noexcept nogil:
    """From 0 (never) to 1 (never): xoroshiro128+."""
    cdef uint64_t a = c.random[0]
    cdef uint64_t b = c.random[1]
    cdef uint64_t sum = a + b
    b ^= a
    c.random[0] = (a << 24 | a >> 40) ^ b ^ (b << 16)
    c.random[1] = b << 37 | b >> 27
    return (<double>(sum >> 11) + 0.5) / 9007199254740992.0


cdef ns_t _drawn(Client *c, const Draw *d) noexcept nogil:
    """A time of this distribution, at most 292 years."""
    cdef double t = d.mean_ns
    if d.kind == EXPONENTIAL:
        t = -log(_uniform(c)) * d.mean_ns
    elif d.kind == PARETO:              # with this mean: the least is mean (a - 1) / a
        t = d.mean_ns * (d.shape - 1) / d.shape * pow(_uniform(c), -1 / d.shape)
    elif d.kind == LOGNORMAL:
        t = sqrt(-2 * log(_uniform(c))) * cos(6.283185307179586 * _uniform(c))
        t = d.mean_ns * exp(d.shape * t - d.shape * d.shape / 2)
    return <ns_t>t if t < 9.2e18 else <ns_t>9200000000000000000


# ---- requests --------------------------------------------------------------------------------------------------------

cdef uint32_t _digits(uint32_t number, uint8_t *text) noexcept nogil:
    cdef uint8_t reversed[10]
    cdef uint32_t n = 0, i
    while True:
        reversed[n] = 48 + number % 10
        n += 1
        number //= 10
        if number == 0:
            break
    for i in range(n):
        text[i] = reversed[n - 1 - i]
    return n


cdef uint32_t _request_bytes(Client *c, uint32_t number) noexcept nogil:
    cdef uint8_t text[10]
    return c.request.length + c.request.holes * _digits(number, text)


cdef uint32_t _write_request(Client *c, uint32_t number, uint8_t *p) noexcept nogil:
    cdef Template *t = &c.request
    cdef uint32_t at = 0, i, n = 0
    for i in range(t.holes):
        memcpy(p + n, t.bytes + at, t.hole[i] - at)
        n += t.hole[i] - at
        at = t.hole[i]
        n += _digits(number, p + n)
    memcpy(p + n, t.bytes + at, t.length - at)
    return n + t.length - at


cdef const uint8_t *client_data(void *context, const Segment *s) noexcept nogil:
    """A wire_data_t. Nothing that was sent is kept: a sequence number says which bytes of which request a segment carries."""
    cdef Client *c = <Client *>context
    cdef Key key
    cdef row_t row
    cdef uint32_t length, at, n, done = 0
    cdef uint64_t whose
    cdef uint8_t *request
    key_endpoint(&key, s.src, s.sport, s.dst, s.dport, &c.e.engine.table.hash_key)
    if not store_find(&c.e.engine.table, &key, &row) or c.flow[row].handle != store_handle(&c.e.engine.table, row):
        return NULL
    request = c.scratch
    whose = 1                               # without a place for the number every request is the same
    if c.request.holes != 0:
        whose += c.flow[row].number
    if c.scratch_of != whose:
        c.scratch_length = _write_request(c, c.flow[row].number, request)
        c.scratch_of = whose
    length = c.scratch_length
    at = wire_offset(&c.flow[row].base, c.e.engine.table.rows[row].seat.tcb.snd_una, s.seq, length)
    if at + s.payload <= length:
        return request + at
    if <uint64_t>length + s.payload > c.scratch_capacity:
        return NULL
    while done < s.payload:                 # the end of one request and the beginning of the next
        n = length - at if length - at < s.payload - done else s.payload - done
        memcpy(request + length + done, request + at, n)
        done += n
        at = 0
    return request + length


# ---- the life of a connection ----------------------------------------------------------------------------------------

cdef void _put_off(Client *c, Flow *f, ns_t when) noexcept nogil:
    f.due_ns = when
    if due_add(&c.due, f.handle, when) != 0:
        c.no_memory = True


cdef void _finish(Client *c, Flow *f, int outcome, ns_t when) noexcept nogil:
    if f.phase == CLOSING:
        c.closing -= 1
        if outcome == OK:
            hist_add(c.close, when - f.mark_ns)
    else:
        c.live -= 1
        c.connecting -= f.phase == CONNECTING
    outcome = f.verdict - 1 if f.verdict != 0 else outcome
    c.outcome[outcome] += 1
    if outcome == REFUSED or outcome == UNREACHABLE:
        c.turned_away_until = c.now + TURNED_AWAY_NS
    answer_drop(&f.answer)
    f.phase = DONE
    f.due_ns = 0


cdef void _cut(Client *c, Flow *f, row_t row, int outcome, ns_t now) noexcept nogil:
    """The connection is told of as `outcome` and reset."""
    cdef Outcome out
    _finish(c, f, outcome, now)
    endpoint_abort(c.e, row, now, &out)


cdef void _close(Client *c, Flow *f, row_t row, ns_t due, ns_t now, int by) noexcept nogil:
    """Its life was over at `due`."""
    cdef Outcome out
    f.mark_ns = due
    f.due_ns = 0
    if by == CLOSE_PEER and c.e.engine.table.rows[row].state[0] != S_CLOSE_WAIT:
        f.phase = WAITING
        if c.timeout_ns != 0:
            _put_off(c, f, now + c.timeout_ns)
        return
    f.phase = CLOSING
    c.live -= 1
    c.closing += 1
    if by == CLOSE_RST:
        endpoint_abort(c.e, row, now, &out)
    else:
        endpoint_close(c.e, row, False, now, &out)


cdef void _remember(Client *c, uint64_t handle) noexcept nogil:
    """The newest of the held connections. A full ring drops those that are held no longer, and grows only when more than
    half of it remain: so it costs a constant each, and no more memory than twice what is held."""
    cdef uint64_t i, kept = 0, wanted = 4096
    cdef uint64_t *more
    if c.ring_tail - c.ring_head > c.ring_mask or c.ring == NULL:
        if c.ring != NULL:
            for i in range(c.ring_head, c.ring_tail):
                kept += _holds(c, c.ring[i & c.ring_mask])
            wanted = (c.ring_mask + 1) * 2 if kept > c.ring_mask >> 1 else c.ring_mask + 1
            kept = 0
        more = <uint64_t *>malloc(wanted * sizeof(uint64_t))
        if more == NULL:
            c.no_memory = True
            return
        for i in range(c.ring_head, c.ring_tail):
            if _holds(c, c.ring[i & c.ring_mask]):
                more[kept] = c.ring[i & c.ring_mask]
                kept += 1
        free(c.ring)
        c.ring = more
        c.ring_mask = wanted - 1
        c.ring_head = 0
        c.ring_tail = kept
    c.ring[c.ring_tail & c.ring_mask] = handle
    c.ring_tail += 1


cdef bint _holds(Client *c, uint64_t handle) noexcept nogil:
    cdef Flow *f = &c.flow[<row_t>handle]
    return f.handle == handle and f.phase == HOLDING


cdef void _held(Client *c, Flow *f, row_t row, ns_t now) noexcept nogil:
    """All was said and answered: the connection stays open for its lifetime."""
    cdef ns_t life = 0
    if c.life.kind != FOREVER:
        life = _drawn(c, &c.life)
    if c.ending or (life <= 0 and c.life.kind != FOREVER):
        _close(c, f, row, now, now, CLOSE_FIN if c.ending and c.close_by == CLOSE_PEER else c.close_by)
        return
    f.phase = HOLDING
    f.mark_ns = now
    f.due_ns = 0
    if c.life.kind != FOREVER:
        _put_off(c, f, now + life)
    _remember(c, f.handle)              # even if nothing is to be replaced yet: a later stage may ask for it


cdef void _answered(Client *c, Flow *f, row_t row, ns_t now) noexcept nogil:
    cdef ns_t pause
    c.answered += c.expect.end != END_NOTHING
    f.rounds -= f.rounds != 0
    if f.rounds == 0 or c.request.length == 0 or c.ending:
        _held(c, f, row, now)
        return
    answer_begin(&f.answer)
    pause = _drawn(c, &c.think)
    if pause <= 0:
        _ask(c, f, row, now)
        return
    f.phase = THINKING
    _put_off(c, f, now + pause)


cdef void _ask(Client *c, Flow *f, row_t row, ns_t now) noexcept nogil:
    cdef Outcome out
    f.phase = ASKING
    f.mark_ns = now
    f.due_ns = 0
    if c.timeout_ns != 0:
        _put_off(c, f, now + c.timeout_ns)
    if c.request.length != 0:
        endpoint_send(c.e, row, _request_bytes(c, f.number), now, &out)
    if c.half_close and f.rounds <= 1:
        endpoint_close(c.e, row, True, now, &out)
    if c.expect.end == END_NOTHING:
        _answered(c, f, row, now)


cdef void _established(Client *c, Flow *f, row_t row, const Segment *s, ns_t now) noexcept nogil:
    c.connecting -= 1
    c.established += 1
    hist_add(c.connect, now - f.scheduled_ns)
    f.phase = ASKING
    f.answer.next = s.seq + 1
    f.rounds = <uint16_t>c.rounds
    if not store_row_of(&c.e.engine.table, f.handle, &row):
        return                          # the same batch has ended it; client_tells will say so
    c.syn_again += cold_of(c.e, row).retransmitted != 0
    _shrink(c, row)
    _ask(c, f, row, now)


cdef void _peer_closed(Client *c, Flow *f, row_t row, ns_t now) noexcept nogil:
    if f.phase == CLOSING or f.phase == DONE:
        return
    if f.phase == ASKING:
        if answer_closed(&f.answer, &c.expect) == ANSWER_DONE:
            c.answered += 1
        else:
            f.verdict = 1 + UNEXPECTED
    elif f.phase == THINKING or (f.phase == HOLDING and c.close_by != CLOSE_PEER):
        f.verdict = 1 + LEFT
    _close(c, f, row, f.mark_ns if f.phase == WAITING else now, now, CLOSE_FIN)


cdef void client_heard(Client *c, size_t n, ns_t now) noexcept nogil:
    cdef const Outcome *out
    cdef const Segment *s
    cdef Flow *f
    cdef row_t row
    cdef size_t i
    cdef int said
    cdef uint8_t status
    cdef bint lives
    for i in range(n):
        out = &c.wire.outcome[i]
        s = &c.wire.segment[i]
        if out.handle == 0:
            continue
        f = &c.flow[<row_t>out.handle]
        if f.handle != out.handle or f.phase == DONE:
            continue
        if out.flags & OUT_ESTABLISHED and f.phase == CONNECTING:
            _established(c, f, <row_t>out.handle, s, now)
        lives = store_row_of(&c.e.engine.table, f.handle, &row)
        if s.payload != 0:
            c.bytes_in += out.delivered
            if f.phase == ASKING and c.expect.end != END_NOTHING:
                status = f.answer.status
                if not f.answer.begun and out.delivered != 0:
                    hist_add(c.first_byte, now - (f.scheduled_ns if f.rounds == c.rounds else f.mark_ns))
                said = answer_segment(&f.answer, &c.expect, s.seq, c.wire.payload[i], s.payload, out.delivered)
                c.statuses[f.answer.status] += f.answer.status != status
                if said == ANSWER_DONE:
                    if lives:
                        _answered(c, f, row, now)
                elif said != ANSWER_MORE:
                    f.verdict = 1 + UNEXPECTED
                    if lives:
                        _cut(c, f, row, UNEXPECTED, now)
        if out.events & <uint64_t>1 << E_RCV_FIN and store_row_of(&c.e.engine.table, f.handle, &row):
            _peer_closed(c, f, row, now)
        if f.phase == CLOSING and out.after == S_TIME_WAIT:
            _finish(c, f, OK, now)


cdef void _shrink(Client *c, row_t row) noexcept nogil:
    cdef uint16_t *mss = &c.e.engine.table.rows[row].seat.tcb.mss
    if c.path_mss != 0 and mss[0] > c.path_mss:
        mss[0] = c.path_mss


cdef void client_icmp(Client *c, const Segment *s, ns_t now) noexcept nogil:
    """A SYN that does not arrive ends its connection, as in Linux (tcp_v4_err; RFC 5461 section 2.2). Later it says nothing that
    time may not change (RFC 9293 section 3.9.2.2), and the timers go on; but a packet that was too large goes out again in smaller
    ones at the next time-out, and so do those of later connections (RFC 1191 section 6.4)."""
    cdef Key key
    cdef row_t row
    cdef uint32_t size
    key_endpoint(&key, s.src, s.sport, s.dst, s.dport, &c.e.engine.table.hash_key)
    if not store_find(&c.e.engine.table, &key, &row) or c.flow[row].handle != store_handle(&c.e.engine.table, row):
        return
    if s.info != ICMP_TOO_LARGE:
        if c.flow[row].phase == CONNECTING and s.seq == cold_of(c.e, row).iss:
            _cut(c, &c.flow[row], row, UNREACHABLE, now)
        return
    if seq_le(c.e.engine.table.rows[row].seat.tcb.snd_una, s.seq) and seq_lt(s.seq, c.e.engine.table.rows[row].seat.tcb.snd_nxt):
        if is_mapped(s.src):
            size = max(s.ip_bytes, LEAST_PATH) - 40 - TIMESTAMPS
        else:
            size = max(s.ip_bytes, LEAST_PATH_6) - 60 - TIMESTAMPS
        if size < 0xFFFF and (c.path_mss == 0 or size < c.path_mss):
            c.path_mss = <uint16_t>size
        _shrink(c, row)


# ---- ends ------------------------------------------------------------------------------------------------------------

cdef void flow_ended(void *context, Endpoint *e, row_t row, int event, ns_t when_ns) noexcept nogil:
    """The endpoint lets go of a row (its watch)."""
    cdef Client *c = <Client *>context
    cdef Flow *f = &c.flow[row]
    cdef row_t *more
    if f.handle != store_handle(&e.engine.table, row):
        return
    c.pair[f.pair].used -= 1
    c.reused += event == E_REPLACED
    if f.phase == DONE:
        return
    f.ended = 1 + c.end_of[e.engine.table.rows[row].state[0]][event]
    if not c.in_batch:
        _finish(c, f, f.ended - 1, when_ns)
        f.ended = 0
        return
    if c.told_count == c.told_capacity:
        more = <row_t *>realloc(c.told, (c.told_capacity * 2 + 1024) * sizeof(row_t))
        if more == NULL:
            c.no_memory = True
            return
        c.told = more
        c.told_capacity = c.told_capacity * 2 + 1024
    c.told[c.told_count] = row
    c.told_count += 1


cdef void client_tells(Client *c) noexcept nogil:
    cdef size_t i
    cdef Flow *f
    for i in range(c.told_count):
        f = &c.flow[c.told[i]]
        if f.phase != DONE and f.ended != 0:
            _finish(c, f, f.ended - 1, c.now)
        f.ended = 0
    c.told_count = 0


# ---- beginnings ------------------------------------------------------------------------------------------------------

cdef int _open(Client *c, ns_t scheduled, ns_t now) noexcept nogil:
    """One connection from the next pair that has a port."""
    cdef Outcome out
    cdef Pair *p
    cdef Flow *f
    cdef row_t row
    cdef uint32_t _i
    cdef int answer = CALL_NO_PORT
    if now < c.pool_empty_until:
        return POOL_EMPTY
    for _i in range(c.pairs):
        p = &c.pair[c.next_pair]
        c.next_pair += 1
        if c.next_pair == c.pairs:
            c.next_pair = 0
        if p.used >= c.ports and c.e.policy.tcp_tw_reuse != 1:
            continue
        answer = endpoint_open(c.e, p.source, 0, p.target, p.port, now, &row, &out)
        if answer == CALL_NO_PORT:
            continue
        if answer != CALL_OK:
            c.rows_ran_out += 1
            return TABLE_FULL
        f = &c.flow[row]
        memset(f, 0, sizeof(Flow))
        f.handle = out.handle
        f.scheduled_ns = f.mark_ns = scheduled
        f.number = c.first_number + c.number_step * <uint32_t>c.opened
        f.pair = <unsigned short>(p - c.pair)
        f.base = cold_of(c.e, row).iss + 1
        f.phase = CONNECTING
        p.used += 1
        c.opened += 1
        c.live += 1
        c.connecting += 1
        c.late += now - scheduled > LATE_NS
        if c.timeout_ns != 0:
            _put_off(c, f, scheduled + c.timeout_ns)
        return OK
    c.pool_empty_until = now + POOL_PAUSE_NS
    c.ports_ran_out += 1
    return POOL_EMPTY


cdef bint _close_oldest(Client *c, ns_t due, ns_t now) noexcept nogil:
    """Of those that are held; False: none is."""
    cdef uint64_t handle
    cdef row_t row
    while c.ring_head != c.ring_tail:
        handle = c.ring[c.ring_head & c.ring_mask]
        c.ring_head += 1
        if _holds(c, handle) and store_row_of(&c.e.engine.table, handle, &row):
            _close(c, &c.flow[row], row, due, now, c.close_by)
            return True
    return False


cdef void client_opens(Client *c, ns_t now) noexcept nogil:
    cdef uint32_t n = 0
    cdef int answer
    if not c.plan.opening or c.ending:
        return
    while c.plan.rate > 0 and c.next_open_ns <= now and n < OPENS:
        answer = _open(c, c.next_open_ns, now)
        if answer != OK:
            c.outcome[answer] += 1
        c.next_open_ns += <ns_t>((-log(_uniform(c)) if c.plan.poisson else 1.0) * 1e9 / c.plan.rate)
        n += 1
    while c.plan.fewer and c.live > c.plan.hold and n < OPENS and _close_oldest(c, now, now):
        n += 1
    if c.plan.hold == 0:
        return
    if c.live >= c.plan.hold and not c.filled:
        c.filled = True
        c.next_churn_ns = now
    # What is due and finds nothing that could be replaced stays due: else a server that stands still would not be seen.
    while c.filled and c.plan.churn > 0 and c.next_churn_ns <= now and n < OPENS and _close_oldest(c, c.next_churn_ns, now):
        answer = _open(c, c.next_churn_ns, now)
        if answer != OK:
            c.outcome[answer] += 1
        c.next_churn_ns += <ns_t>(1e9 / c.plan.churn)
        n += 1
    while c.live < c.plan.hold and now >= c.turned_away_until and c.connecting < c.connecting_limit and n < OPENS:
        n += 1
        if _open(c, now, now) != OK:
            break                           # it is tried again: nothing was lost


cdef void client_due(Client *c, ns_t now) noexcept nogil:
    cdef uint64_t handle
    cdef Flow *f
    cdef row_t row
    while due_pop(&c.due, now, &handle):
        f = &c.flow[<row_t>handle]
        if f.handle != handle or f.phase == DONE or f.due_ns == 0 or f.due_ns > now:
            continue
        if not store_row_of(&c.e.engine.table, handle, &row):
            continue
        if f.phase == THINKING:
            _ask(c, f, row, now)
        elif f.phase == HOLDING:
            _close(c, f, row, f.due_ns, now, c.close_by)
        elif f.phase != CLOSING:
            _cut(c, f, row, TIMED_OUT, now)


cdef void client_sweeps(Client *c, ns_t now) noexcept nogil:
    cdef Flow *f
    cdef row_t row
    cdef uint32_t _i
    if c.e.engine.table.high == 0:
        return
    for _i in range(SWEEP):
        if not c.cutting and c.closing >= c.connecting_limit:
            return
        if c.sweep >= c.e.engine.table.high:
            c.sweep = 0
        f = &c.flow[c.sweep]
        c.sweep += 1
        if f.phase == DONE or not store_row_of(&c.e.engine.table, f.handle, &row):
            continue
        if c.cutting:
            _cut(c, f, row, CUT_OFF, now)
        elif f.phase == HOLDING or f.phase == THINKING or f.phase == WAITING:
            _close(c, f, row, now, now, CLOSE_RST if c.close_by == CLOSE_RST else CLOSE_FIN)
