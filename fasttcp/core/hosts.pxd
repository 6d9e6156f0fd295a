# What tcp_tw_recycle remembers of each remote address; see hosts.pyx.

from fasttcp.core.layout cimport Segment
from fasttcp.core.tcb cimport Endpoint, Work

cdef int hosts_open(Endpoint *e) noexcept nogil                     # 0, or -1: no memory
cdef void hosts_close(Endpoint *e) noexcept nogil
cdef void hosts_remember(Work *w) noexcept nogil
cdef bint hosts_reject(const Endpoint *e, const Segment *syn) noexcept nogil
