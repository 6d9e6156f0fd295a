# What both seats stand on: the table, the record of steps, and `fire`, the one function through which a state changes.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fasttcp.core.layout cimport Segment, ns_t, row_t
from fasttcp.core.machine cimport machine_actions, machine_next
from fasttcp.core.names cimport A_NEVER
from fasttcp.core.store cimport Table, store_handle, store_set_state
from fasttcp.core.trace cimport Step, Trace, trace_next

cdef struct Engine:
    Table    table
    Trace    trace
    uint64_t never              # events that classification should not have produced; anything but 0 is a bug, and tests say so


cdef inline uint32_t fire(
    Engine *engine, row_t row, int side, int event, const Segment *segment, ns_t now_ns
) noexcept nogil:
    """Take the transition for `event` in one half of `row`; return its Action bits. `segment` may be NULL."""
    cdef uint8_t state = engine.table.rows[row].state[side]
    cdef uint32_t actions = machine_actions(state, event)
    cdef uint8_t following = machine_next(state, event)
    cdef Step *step
    if actions & A_NEVER:
        engine.never += 1
        return actions
    if engine.trace.steps != NULL:
        step = trace_next(&engine.trace)
        step.time_ns = now_ns
        step.handle = store_handle(&engine.table, row)
        step.seq = segment.seq if segment != NULL else 0
        step.ack = segment.ack if segment != NULL else 0
        step.segment_flags = segment.flags if segment != NULL else 0
        step.side = side
        step.event = event
        step.state = state
        step.next = following
    if following != state:
        store_set_state(&engine.table, row, side, following)
    return actions
