# Passes over a table, or over what it has recorded, without the GIL. See scans.pyx.

from libc.stdint cimport uint64_t

from fasttcp.core.seat cimport Engine
from fasttcp.core.summary cimport Summary
from fasttcp.core.tap cimport Observer
from fasttcp.core.tcb cimport Endpoint
from fasttcp.core.trace cimport Step, Trace

# Memory from malloc, the caller's, and how many stand in it; NULL when there is none to be had.
cdef Summary *live_summaries(Engine *engine, Observer *o, Endpoint *e, size_t *count) noexcept nogil
cdef Step *steps_of(const Trace *trace, uint64_t handle, size_t *count) noexcept nogil
