"""Passes over a table, or over what it has recorded, into memory of their own, so that Python can be told without a hurry.

Cost: every row, or every recorded step, once. The caller has the turn.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc, realloc

from fasttcp.core.endings cimport summarize_endpoint
from fasttcp.core.layout cimport row_t
from fasttcp.core.store cimport Table, store_in_use, store_overdue
from fasttcp.core.summary cimport LIVE, summarize_observed


cdef Summary *live_summaries(Engine *engine, Observer *o, Endpoint *e, size_t *count) noexcept nogil:
    """Memory, the caller's, with a summary of every live connection; NULL when there is none to be had."""
    cdef const Table *t = &engine.table
    cdef Summary *data = <Summary *>malloc((t.used + 1) * sizeof(Summary))
    cdef size_t row, n = 0
    if data == NULL:
        return NULL
    for row in range(t.high):
        if store_in_use(t, <row_t>row) and not store_overdue(t, <row_t>row):
            if e != NULL:
                summarize_endpoint(e, <row_t>row, LIVE, 0, &data[n])
            else:
                summarize_observed(o, <row_t>row, LIVE, 0, &data[n])
            n += 1
    count[0] = n
    return data


cdef Step *steps_of(const Trace *trace, uint64_t handle, size_t *count) noexcept nogil:
    """Memory, the caller's, with the recorded steps of one connection, oldest first; NULL when there is none to be had."""
    cdef size_t n = 0, room = 64
    cdef Step *found = <Step *>malloc(room * sizeof(Step))
    cdef Step *moved
    cdef const Step *step
    cdef uint64_t at = trace.written - trace.capacity if trace.written > trace.capacity else 0
    while found != NULL and at < trace.written:
        step = &trace.steps[at & (trace.capacity - 1)]
        if step.handle == handle:
            if n == room:
                room *= 2
                moved = <Step *>realloc(found, room * sizeof(Step))
                if moved == NULL:
                    free(found)
                    return NULL
                found = moved
            found[n] = step[0]
            n += 1
        at += 1
    count[0] = n
    return found
