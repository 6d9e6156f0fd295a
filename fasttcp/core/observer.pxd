# The observer seat: a tap on the wire. Each row is a connection, each of its sides one host's half.
#
# A segment from A to B is evidence of what A did (a FIN is A's CLOSE) and, unless lost behind the tap, of what B
# receives; both go through the one machine of spec.py. The tap's tolerance lies in three rules:
#   - what must have happened is inferred first: a host that acknowledges a SYN+ACK that was not captured has received
#     it;
#   - what is received is assumed at once, and put right when the wire says otherwise (CROSSED_SYN, CROSSED_FIN);
#   - what repeats is counted and changes nothing.
#
# Must not live here: how a segment was captured, what a log looks like, any clock.
#
# Cost: one index line and one row line an event; the cold record is touched at the beginning, the end, on
# retransmissions and on carries of the 16-bit packet counter.

from libc.stdint cimport uint16_t

from fasttcp.core.hash cimport Key
from fasttcp.core.layout cimport Segment, ns_t, row_t
from fasttcp.core.tap cimport Observer, Verdict

cdef void observer_step(Observer *o, const Key *key, const Segment *segment, Verdict *out) noexcept nogil
cdef uint16_t observer_see(Observer *o, row_t row, int s, const Segment *segment, bint *arms) noexcept nogil
cdef size_t observer_advance(Observer *o, ns_t now_ns, size_t budget) noexcept nogil
cdef void observer_end(Observer *o, row_t row, int event, ns_t when_ns) noexcept nogil
cdef bint observer_expired(Observer *o, row_t row) noexcept nogil          # its time is up: it is gone now
cdef bint observer_over(Observer *o, row_t row) noexcept nogil
