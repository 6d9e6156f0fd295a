"""Which live connections carry most: for a view that is drawn anew every second or so.

A connection's traffic since the last look is its bytes now less those then; they are kept for each row with the handle
that was there, so that a row's next connection does not inherit them. Cost: a pass over the table a look, some ns a row
that is cached, and 16 bytes a row.

What must not stand here: what a view looks like.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from fasttcp.core.address cimport format_address
from fasttcp.core.layout cimport Observed, Row, row_t
from fasttcp.core.store cimport store_cold, store_handle, store_in_use
from fasttcp.core.summary cimport LIVE, Summary, summarize_observed
from fasttcp.core.tap cimport Observer
from fasttcp.observe.tracker cimport Tracker

from fasttcp.spec import State

__all__ = ["Talkers"]

cdef enum:
    MOST = 256

cdef struct Past:
    uint64_t handle
    uint64_t bytes

cdef struct Pick:
    uint64_t bytes                  # since the last look
    row_t row


cdef inline uint64_t row_bytes(Observer *o, row_t row) noexcept nogil:
    cdef const Row *line = &o.engine.table.rows[row]
    cdef const Observed *cold = <const Observed *>store_cold(&o.engine.table, row)
    return (
        (<uint64_t>(cold.bytes_high[0] + cold.bytes_high[1]) << 32)
        + line.seat.half[0].bytes + line.seat.half[1].bytes
    )


cdef void sink(Pick *heap, size_t n, size_t at) noexcept nogil:
    """The smallest stays on top."""
    cdef Pick moved = heap[at]
    cdef size_t child = 2 * at + 1
    while child < n:
        if child + 1 < n and heap[child + 1].bytes < heap[child].bytes:
            child += 1
        if heap[child].bytes >= moved.bytes:
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    heap[at] = moved


cdef class Talkers:
    """Looks at one Tracker, again and again."""

    cdef Tracker tracker
    cdef Past *past                 # (rows,)
    cdef size_t rows

    def __init__(self, Tracker tracker not None):
        self.tracker = tracker

    def __dealloc__(self):
        free(self.past)

    def look(self, int most=20):
        """The connections that carried most payload since the last look, the busiest first; at most 256.

        A list of dicts: orig_addr, orig_port, resp_addr, resp_port, orig_state, resp_state, first_ns, recent (bytes
        since the last look), bytes, packets (both since the beginning). Connections that carried nothing are left out.
        """
        cdef Pick heap[MOST]
        cdef Observer *o = self.tracker.table.observer
        cdef size_t n = 0, i, wanted = <size_t>min(max(most, 0), <int>MOST)
        cdef Summary told
        self.reserve(o.engine.table.high)
        with nogil:
            for i in range(o.engine.table.high):
                self.weigh(o, <row_t>i, heap, &n, wanted)
        found = []
        for i in range(n):
            summarize_observed(o, heap[i].row, LIVE, 0, &told)
            found.append({
                "orig_addr": format_address(told.addr[0]), "orig_port": told.port[0],
                "resp_addr": format_address(told.addr[1]), "resp_port": told.port[1],
                "orig_state": State(told.state[0]), "resp_state": State(told.state[1]), "first_ns": told.first_ns,
                "recent": heap[i].bytes, "bytes": told.bytes[0] + told.bytes[1],
                "packets": told.packets[0] + told.packets[1],
            })
        found.sort(key=lambda one: -one["recent"])
        return found

    cdef int reserve(self, size_t rows) except -1:
        cdef Past *moved
        if rows <= self.rows:
            return 0
        moved = <Past *>realloc(self.past, rows * sizeof(Past))
        if moved == NULL:
            raise MemoryError(f"no memory to compare {rows} connections")
        self.past = moved
        memset(moved + self.rows, 0, (rows - self.rows) * sizeof(Past))
        self.rows = rows
        return 0

    cdef void weigh(self, Observer *o, row_t row, Pick *heap, size_t *n, size_t most) noexcept nogil:
        cdef uint64_t handle, total, recent
        cdef size_t i
        if not store_in_use(&o.engine.table, row):
            return
        handle = store_handle(&o.engine.table, row)
        total = row_bytes(o, row)
        recent = total - self.past[row].bytes if self.past[row].handle == handle else total
        self.past[row].handle = handle
        self.past[row].bytes = total
        if recent == 0 or most == 0:
            return
        if n[0] < most:
            heap[n[0]].bytes, heap[n[0]].row = recent, row
            n[0] += 1
            if n[0] == most:
                i = most // 2 + 1
                while i > 0:
                    i -= 1
                    sink(heap, most, i)
        elif recent > heap[0].bytes:
            heap[0].bytes, heap[0].row = recent, row
            sink(heap, most, 0)
