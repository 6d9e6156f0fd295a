"""Fills in summaries; see summary.pxd."""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from fasttcp.core.layout cimport ROW_IPV6, ROW_PARTIAL, ROW_SIDE_1_OPENED, Observed, Row
from fasttcp.core.store cimport Table, store_cold, store_handle


cdef void row_address(const Table *t, row_t row, int side, uint8_t *out) noexcept nogil:
    """The 16 bytes of one side's address; IPv4 as ::ffff:a.b.c.d."""
    if t.rows[row].flags & ROW_IPV6:
        memcpy(out, t.addr6 + <size_t>row * 32 + 16 * side, 16)
        return
    memset(out, 0, 10)
    memset(out + 10, 0xFF, 2)
    memcpy(out + 12, &t.rows[row].addr[side], 4)


cdef void summarize_observed(Observer *o, row_t row, int event, ns_t when_ns, Summary *out) noexcept nogil:
    cdef Row *line = &o.engine.table.rows[row]
    cdef Observed *cold = <Observed *>store_cold(&o.engine.table, row)
    cdef int first = 1 if line.flags & ROW_SIDE_1_OPENED else 0
    cdef int i, side
    out.handle = store_handle(&o.engine.table, row)
    out.first_ns = cold.head.first_ns
    out.last_ns = line.last_ns
    out.ended_ns = when_ns if event != LIVE else 0
    for i in range(2):
        side = i ^ first
        row_address(&o.engine.table, row, side, out.addr[i])
        out.port[i] = line.port[side]
        out.state[i] = line.state[side]
        out.packets[i] = (<uint64_t>cold.packets_high[side] << 16) | line.seat.half[side].packets
        out.bytes[i] = (<uint64_t>cold.bytes_high[side] << 32) | line.seat.half[side].bytes
        out.isn[i] = cold.isn[side]
        out.retransmitted[i] = cold.retransmitted[side]
    out.ended_by = event
    out.flags = 0
    if line.flags & ROW_IPV6:
        out.flags |= SUMMARY_IPV6
    if line.flags & ROW_PARTIAL:
        out.flags |= SUMMARY_PARTIAL


cdef Summary *endlog_next(EndLog *log) noexcept nogil:
    """Room for one more, counted already; NULL, and one more is lost, when there is no memory."""
    cdef size_t capacity
    cdef Summary *data
    if log.count == log.capacity:
        capacity = log.capacity * 2 if log.capacity else 1024
        data = <Summary *>realloc(log.data, capacity * sizeof(Summary))
        if data == NULL:
            log.lost += 1
            return NULL
        log.data = data
        log.capacity = capacity
    log.count += 1
    return &log.data[log.count - 1]


cdef void endlog_observed(void *context, Observer *o, row_t row, int event, ns_t when_ns) noexcept nogil:
    """A Watch.ended that keeps a summary of everything that ends."""
    cdef Summary *into = endlog_next(<EndLog *>context)
    if into != NULL:
        summarize_observed(o, row, event, when_ns, into)


cdef void endlog_close(EndLog *log) noexcept nogil:
    free(log.data)
    log.data = NULL
    log.count = log.capacity = 0
