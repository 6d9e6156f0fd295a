# The state machine as the compiled floors see it: two flat arrays made from fasttcp/spec.py when this module is imported.
#
# No transition is decided here or in any other compiled file: ask machine_next, carry out machine_actions.
# Cost: one load each, from 704 bytes and 2,816 bytes, which stay in the first-level cache.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    EVENT_SLOTS = 64                        # N_EVENTS rounded up, so that the index is a shift and an or

cdef uint8_t NEXT[11 * 64]                  # State after (state, event); the same state where there is no row
cdef uint32_t ACTIONS[11 * 64]              # Action bits; A_NEVER where there is no row


cdef inline uint8_t machine_next(int state, int event) noexcept nogil:
    return NEXT[state * EVENT_SLOTS + event]


cdef inline uint32_t machine_actions(int state, int event) noexcept nogil:
    return ACTIONS[state * EVENT_SLOTS + event]
