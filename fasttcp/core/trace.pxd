# A bounded record of transitions, for explain(): what happened to a connection, step by step.
#
# A ring over the whole table, so that its memory is what the user asked for, however many connections there are; the
# oldest steps are overwritten first and the loss is counted. With capacity 0 (the default) nothing is recorded and the
# cost is one predictable branch a transition.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct Step:                   # 32 bytes
    int64_t  time_ns
    uint64_t handle
    uint32_t seq                    # of the segment that caused it; 0 for calls and timers
    uint32_t ack
    uint16_t segment_flags          # TCP flags of that segment; 0 for calls and timers
    uint8_t  side                   # whose half it was
    uint8_t  event
    uint8_t  state                  # before
    uint8_t  next                   # after
    uint16_t unused

cdef struct Trace:
    Step    *steps                  # NULL when nothing is recorded
    uint64_t capacity               # a power of two, or 0
    uint64_t written                # steps ever written; the next one stands at written & (capacity - 1)

cdef int trace_open(Trace *trace, uint64_t capacity) except -1
cdef void trace_close(Trace *trace) noexcept nogil


cdef inline Step *trace_next(Trace *trace) noexcept nogil:
    """Room for one more step. The caller has checked that trace.steps is not NULL, and fills it in."""
    cdef Step *step = &trace.steps[trace.written & (trace.capacity - 1)]
    trace.written += 1
    return step
