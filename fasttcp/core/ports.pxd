# Which local port an active OPEN gets; see ports.pyx.

from libc.stdint cimport uint8_t, uint16_t

from fasttcp.core.layout cimport row_t
from fasttcp.core.tcb cimport Endpoint

# False: none is left. Else `port`, and in `row` the connection in TIME_WAIT whose place it takes, or NO_ROW.
cdef bint ports_choose(
    Endpoint *e, const uint8_t *local, const uint8_t *remote, uint16_t rport, uint16_t *port, row_t *row
) noexcept nogil
# Whether an active OPEN may take the place of this row.
cdef bint time_wait_reusable(const Endpoint *e, row_t row) noexcept nogil
