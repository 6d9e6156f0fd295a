# The calls of the application (RFC 9293 section 3.9.1); see calls.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fasttcp.core.layout cimport ns_t, row_t
from fasttcp.core.tcb cimport Endpoint, Outcome

# What a call answers. Anything but CALL_OK has changed nothing.
cdef enum:
    CALL_OK = 0
    CALL_REJECTED = 1           # by the machine: (Outcome.origin, Outcome.last) is the row of spec.py that says why
    CALL_NO_PORT = 2            # every ephemeral port is taken
    CALL_FULL = 3               # no row is left
    CALL_NO_MEMORY = 4
    CALL_BAD_LOCAL = 5          # an address that no host can have, or another family than the remote one
    CALL_BAD_REMOTE = 6         # an address that no host can have, or port 0
    CALL_TOO_MUCH = 7           # more than 2^31 - 1 bytes queued; more read than there is
    CALL_NOTHING = 8            # accept: nobody waits

cdef int endpoint_listen(
    Endpoint *e, const uint8_t *local, uint16_t port, uint32_t backlog, ns_t now_ns, row_t *row, Outcome *out
) noexcept nogil
cdef int endpoint_open(
    Endpoint *e, const uint8_t *local, uint16_t lport, const uint8_t *remote, uint16_t rport, ns_t now_ns, row_t *row,
    Outcome *out
) noexcept nogil
cdef int endpoint_open_listener(
    Endpoint *e, row_t listener, const uint8_t *remote, uint16_t rport, ns_t now_ns, row_t *row, Outcome *out
) noexcept nogil
cdef int endpoint_accept(Endpoint *e, row_t listener, row_t *row) noexcept nogil
cdef int endpoint_send(Endpoint *e, row_t row, uint32_t nbytes, ns_t now_ns, Outcome *out) noexcept nogil
cdef int endpoint_read(Endpoint *e, row_t row, uint32_t nbytes, ns_t now_ns, Outcome *out) noexcept nogil
cdef int endpoint_close(Endpoint *e, row_t row, bint half, ns_t now_ns, Outcome *out) noexcept nogil
cdef int endpoint_abort(Endpoint *e, row_t row, ns_t now_ns, Outcome *out) noexcept nogil
cdef void endpoint_keepalive(Endpoint *e, row_t row, bint on, ns_t now_ns) noexcept nogil
