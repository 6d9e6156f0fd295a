# Timers that are due; see expiry.pyx.

from fasttcp.core.layout cimport ns_t, row_t
from fasttcp.core.store cimport Table, store_overdue
from fasttcp.core.tcb cimport Endpoint, Outcome

# A row whose timer is due: wheel_advance has handed it out, disarmed.
cdef void endpoint_timer(Endpoint *e, row_t row, ns_t now_ns, Outcome *out) noexcept nogil
# Fire what is due at now_ns, looking at `budget` timers at most (what is left of it comes back): up to n outcomes;
# how many. All is done when it answers less than n and store_behind says no.
cdef size_t endpoint_advance(Endpoint *e, ns_t now_ns, size_t *budget, Outcome *outcomes, size_t n) noexcept nogil
# Whether any timer runs, and a time before which none is due: where the wheel has its next entry. Cost: at most
# 32,768 slots.
cdef bint next_timer(const Table *t, ns_t *when_ns) noexcept nogil
cdef bint end_overdue(Endpoint *e, row_t row) noexcept nogil


cdef inline bint endpoint_expired(Endpoint *e, row_t row) noexcept nogil:
    """Whether the row's time is up, only the wheel has not come round to it: then it is gone now."""
    return store_overdue(&e.engine.table, row) and end_overdue(e, row)
