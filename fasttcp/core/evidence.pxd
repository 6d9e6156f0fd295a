# What a segment proves. See evidence.pyx. All but the first return the verdict's flags; s: the sender's side.

from libc.stdint cimport uint16_t, uint32_t

from fasttcp.core.layout cimport Segment, row_t
from fasttcp.core.tap cimport Observer

# The first segment that means something (SYN, SYN+ACK, ACK) brings a blank row into the states that it proves.
cdef void evidence_first(Observer *o, row_t row, int s, const Segment *segment) noexcept nogil
cdef uint16_t evidence_rst(Observer *o, row_t row, int s, const Segment *segment) noexcept nogil
# A segment without SYN and RST; actions: what the machine asks for is added.
cdef uint16_t evidence_opened(Observer *o, row_t row, int s, const Segment *segment, uint32_t *actions) noexcept nogil
# A segment without RST on a row that has its states.
cdef uint16_t evidence_known(Observer *o, row_t row, int s, const Segment *segment, uint32_t *actions) noexcept nogil
