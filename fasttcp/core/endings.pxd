# What is told of an endpoint's connection: the Summary of summary.pxd, [0] local, [1] remote.

from fasttcp.core.layout cimport ns_t, row_t
from fasttcp.core.summary cimport Summary
from fasttcp.core.tcb cimport Endpoint

cdef void summarize_endpoint(Endpoint *e, row_t row, int event, ns_t when_ns, Summary *out) noexcept nogil
cdef void endlog_endpoint(void *log, Endpoint *e, row_t row, int event, ns_t when_ns) noexcept nogil
