# A segment for the endpoint, from its key to its last event; see arrivals.pyx.

from fasttcp.core.layout cimport Segment, ns_t
from fasttcp.core.tcb cimport Endpoint, Outcome

cdef void endpoint_receive(Endpoint *e, const Segment *s, ns_t now_ns, Outcome *out) noexcept nogil
cdef void endpoint_batch(Endpoint *e, const Segment *segments, size_t n, Outcome *outcomes) noexcept nogil
