"""A calendar of handles: ends of lifetimes, think times, limits of waiting. The table's wheel has one timer a row, and
that is TCP's.

Entries are never taken out: whoever changes its mind adds another, and what comes up is compared with what the owner
wants now. Adding and popping are O(1); an entry that is due in k rounds of 8.6 s is looked at k times.
Invariant: an entry lies in slot `tick % DUE_SLOTS`, or in `current`; its tick is never before the cursor.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from fasttcp.core.layout cimport ns_t

__all__: list[str] = []


cdef void due_open(Due *d, ns_t now_ns) noexcept nogil:
    cdef int i
    memset(d, 0, sizeof(Due))
    d.free = d.current = DUE_NONE
    d.cursor = <uint64_t>now_ns >> DUE_SHIFT
    for i in range(DUE_SLOTS):
        d.head[i] = DUE_NONE


cdef void due_close(Due *d) noexcept nogil:
    free(d.entry)
    d.entry = NULL
    d.capacity = 0
    d.free = d.current = DUE_NONE


cdef int due_add(Due *d, uint64_t handle, ns_t when_ns) noexcept nogil:
    cdef uint64_t tick = (<uint64_t>when_ns >> DUE_SHIFT) + 1
    cdef uint32_t wanted, at
    cdef DueEntry *more
    if tick <= d.cursor:
        tick = d.cursor + 1
    if d.free == DUE_NONE:
        wanted = 1024 if d.capacity == 0 else d.capacity * 2
        more = <DueEntry *>realloc(d.entry, <size_t>wanted * sizeof(DueEntry))
        if more == NULL:
            return -1
        d.entry = more
        for at in range(d.capacity, wanted):
            more[at].next = at + 1
        more[wanted - 1].next = DUE_NONE
        d.free = d.capacity
        d.capacity = wanted
    at = d.free
    d.free = d.entry[at].next
    d.entry[at].handle = handle
    d.entry[at].tick = tick
    d.entry[at].next = d.head[tick & (DUE_SLOTS - 1)]
    d.head[tick & (DUE_SLOTS - 1)] = at
    d.count += 1
    return 0


cdef bint due_pop(Due *d, ns_t now_ns, uint64_t *handle) noexcept nogil:
    cdef uint64_t now = <uint64_t>now_ns >> DUE_SHIFT
    cdef uint32_t at, slot
    while True:
        while d.current != DUE_NONE:
            at = d.current
            d.current = d.entry[at].next
            if d.entry[at].tick > d.cursor:
                slot = d.entry[at].tick & (DUE_SLOTS - 1)
                d.entry[at].next = d.head[slot]
                d.head[slot] = at
                continue
            handle[0] = d.entry[at].handle
            d.entry[at].next = d.free
            d.free = at
            d.count -= 1
            return True
        if d.cursor >= now:
            return False
        if d.count == 0:
            d.cursor = now
            return False
        d.cursor += 1
        slot = d.cursor & (DUE_SLOTS - 1)
        d.current = d.head[slot]
        d.head[slot] = DUE_NONE
