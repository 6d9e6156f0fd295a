# Segments to be sent: built from a row or in answer to a segment, kept in order until a driver takes them.

from libc.stdint cimport uint16_t, uint32_t

from fasttcp.core.layout cimport Segment, ns_t, seq_t
from fasttcp.core.tcb cimport Endpoint, Output, Work

cdef enum:
    CHUNK_SEGMENTS = 256
    OUTPUT_LIMIT = 1 << 20          # segments that wait at most: 80 MB

cdef void output_open(Output *q, size_t limit) noexcept nogil
cdef void output_close(Output *q) noexcept nogil
cdef bint output_put(Output *q, const Segment *s) noexcept nogil             # False: full
cdef void output_copy(const Output *q, Segment *into) noexcept nogil        # all of them; they stay
cdef size_t output_take(Output *q, Segment *into, size_t n) noexcept nogil

# A segment of w.row: ACK and window, options and both clocks are filled in. False: the queue is full, as if lost.
cdef bint emit(Work *w, uint16_t flags, seq_t seq, uint32_t payload) noexcept nogil
# A segment in answer to `s`, for which there is no row. Returns it, so that a cookie can add options; NULL: queue full.
cdef Segment *emit_reply(Endpoint *e, const Segment *s, ns_t now, uint16_t flags, seq_t seq, seq_t ack) noexcept nogil
cdef void set_length(Segment *s) noexcept nogil
cdef uint32_t timestamp_clock(Endpoint *e) noexcept nogil
