"""Allocates the ring of steps; see trace.pxd."""

from libc.stdlib cimport calloc, free


cdef int trace_open(Trace *trace, uint64_t capacity) except -1:
    """Room for at least `capacity` steps, rounded up to a power of two; 0 records nothing."""
    trace.steps = NULL
    trace.capacity = 0
    trace.written = 0
    if capacity == 0:
        return 0
    cdef uint64_t rounded = 1
    while rounded < capacity:
        rounded <<= 1
    trace.steps = <Step *>calloc(rounded, sizeof(Step))
    if trace.steps == NULL:
        raise MemoryError(f"no memory for a trace of {rounded} steps ({rounded * sizeof(Step)} bytes)")
    trace.capacity = rounded
    return 0


cdef void trace_close(Trace *trace) noexcept nogil:
    free(trace.steps)
    trace.steps = NULL
    trace.capacity = 0
