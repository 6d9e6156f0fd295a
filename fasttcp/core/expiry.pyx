"""What the clock does to a connection: one event for each timer that is due.

A connection whose time is up is over from that moment on, also while `endpoint_advance` has not come round to it (it
has a budget): a segment or a call that meets it finds nobody. Retransmissions are only ever late.
"""

from libc.stdint cimport uint32_t, uint64_t

from fasttcp.core.actions cimport finish, step
from fasttcp.core.layout cimport Tcb, ns_t, row_t
from fasttcp.core.names cimport (
    E_GIVE_UP, E_KEEPALIVE, E_KEEPALIVE_FAILED, E_PROBE_WINDOW, E_RETRANSMIT, E_TIMEOUT_2MSL, E_TIMEOUT_FIN_WAIT_2,
    S_SYN_SENT,
)
from fasttcp.core.prefetch cimport prefetch_write
from fasttcp.core.store cimport (
    Table, store_advance, store_cold, store_deadline_ns, store_disarm, store_prefetch_remove, store_see,
)
from fasttcp.core.tcb cimport (
    TIMER_2MSL, TIMER_FIN_WAIT_2, TIMER_KEEPALIVE, TIMER_NONE, TIMER_PERSIST, Endpoint, Outcome, Work, outcome_clear,
    work_begin,
)
from fasttcp.core.timeouts cimport given_up
from fasttcp.core.wheel cimport WHEEL_SLOTS

cdef enum:
    DUE_BATCH = 64


cdef void endpoint_timer(Endpoint *e, row_t row, ns_t now_ns, Outcome *out) noexcept nogil:
    cdef Work w
    cdef Tcb *b
    outcome_clear(out)
    store_see(&e.engine.table, now_ns)
    work_begin(&w, e, row, NULL, e.engine.table.now_ns, out)
    b = &w.r.seat.tcb
    # It ends when it was due, however long nobody looked.
    w.when = min(store_deadline_ns(&e.engine.table, row), w.now)
    w.restart = True
    if b.timer == TIMER_2MSL:
        step(&w, E_TIMEOUT_2MSL)
    elif b.timer == TIMER_FIN_WAIT_2:
        step(&w, E_TIMEOUT_FIN_WAIT_2)
    elif b.timer == TIMER_KEEPALIVE:
        if b.retries >= e.policy.tcp_keepalive_probes:
            step(&w, E_KEEPALIVE_FAILED)
        else:
            b.retries += 1
            step(&w, E_KEEPALIVE)
    elif b.timer != TIMER_NONE:
        if given_up(&w):
            step(&w, E_GIVE_UP)
        else:
            b.retries += 1
            if w.r.state[0] != S_SYN_SENT or b.retries > e.policy.tcp_syn_linear_timeouts:
                w.c.backoff += w.c.backoff < 32
            step(&w, E_PROBE_WINDOW if b.timer == TIMER_PERSIST else E_RETRANSMIT)
    if not w.gone:
        out.after = w.r.state[0]
        finish(&w)


cdef size_t endpoint_advance(Endpoint *e, ns_t now_ns, size_t *budget, Outcome *outcomes, size_t n) noexcept nogil:
    cdef row_t due[DUE_BATCH]
    cdef size_t done = 0, many, i
    while done < n:
        many = store_advance(
            &e.engine.table, now_ns, budget, due, DUE_BATCH if n - done > DUE_BATCH else n - done
        )
        for i in range(many):           # most of them will go
            prefetch_write(store_cold(&e.engine.table, due[i]))
            prefetch_write(<char *>store_cold(&e.engine.table, due[i]) + 64)
            store_prefetch_remove(&e.engine.table, due[i])
        for i in range(many):
            endpoint_timer(e, due[i], now_ns, &outcomes[done + i])
        done += many
        if many == 0:
            break
    return done


cdef bint end_overdue(Endpoint *e, row_t row) noexcept nogil:
    """Fire an overdue timer that ends the connection. Whether it was one."""
    cdef Outcome told
    cdef int timer = e.engine.table.rows[row].seat.tcb.timer
    if timer != TIMER_2MSL and timer != TIMER_FIN_WAIT_2:
        return False
    store_disarm(&e.engine.table, row)
    endpoint_timer(e, row, e.engine.table.now_ns, &told)
    return True


cdef bint next_timer(const Table *t, ns_t *when_ns) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t tick
    if t.wheel.entries == 0:
        return False
    for i in range(WHEEL_SLOTS):
        if t.wheel.head[(t.wheel.cursor + i) & (WHEEL_SLOTS - 1)] != 0:
            tick = t.wheel.cursor + i
            when_ns[0] = max(<ns_t>(<uint64_t>t.epoch_ns + tick * t.tick_ns), t.now_ns)
            return True
    return False
