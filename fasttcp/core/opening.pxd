# How a table is opened and closed. See opening.pyx.

from fasttcp.core.summary cimport EndLog
from fasttcp.core.tap cimport Observer
from fasttcp.core.tcb cimport Endpoint

cdef bytes secret_from(seed)        # 32 bytes: from the system, or from the seed
cdef dict layout_from(capacity, max_capacity, profile, on_full, tick_ns, trace, accept_all, read_all, output_limit, int flags)
# ended: where connections go that have ended; NULL: nowhere. On failure nothing is left behind.
cdef Observer *open_observer(profile, dict layout, bytes secret, EndLog *ended) except NULL
cdef Endpoint *open_endpoint(profile, dict layout, bytes secret, EndLog *ended) except NULL
cdef void close_engine(Observer *observer, Endpoint *endpoint) noexcept
