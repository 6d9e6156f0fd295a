# What an application wants to do later, by time; see due.pyx.

from libc.stdint cimport uint32_t, uint64_t

from fasttcp.core.layout cimport ns_t

cdef enum:
    DUE_SHIFT = 20              # a tick is 2^20 ns, 1.05 ms
    DUE_SLOTS = 8192            # 8.6 s; what is due later stays in its slot for another round
    DUE_NONE = 0xFFFFFFFF


cdef struct DueEntry:
    uint64_t handle
    uint64_t tick
    uint32_t next


cdef struct Due:
    DueEntry *entry             # (capacity,)
    uint32_t capacity
    uint32_t free               # a list; DUE_NONE when the array is full
    uint32_t current            # what is left of the slot that is being emptied
    uint64_t cursor             # the tick of that slot
    uint64_t count
    uint32_t head[DUE_SLOTS]

cdef void due_open(Due *d, ns_t now_ns) noexcept nogil
cdef void due_close(Due *d) noexcept nogil
cdef int due_add(Due *d, uint64_t handle, ns_t when_ns) noexcept nogil      # -1: no memory
# Whether something is due, and what. Never early, at most two ticks late when it is asked for every tick.
cdef bint due_pop(Due *d, ns_t now_ns, uint64_t *handle) noexcept nogil
