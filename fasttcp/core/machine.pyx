"""Compiles fasttcp/spec.py into the arrays that the seats read. It decides nothing."""

from fasttcp.core.names cimport A_NEVER, N_EVENTS, N_STATES
from fasttcp.spec import TRANSITIONS, Event, State


cdef int _compile() except -1:
    if len(State) != N_STATES or len(Event) != N_EVENTS or N_EVENTS > EVENT_SLOTS:
        raise ImportError("fasttcp was compiled from another spec.py: build it again")
    cdef int state, event
    for state in range(N_STATES):
        for event in range(EVENT_SLOTS):
            row = TRANSITIONS.get((state, event))
            NEXT[state * EVENT_SLOTS + event] = state if row is None else row.next
            ACTIONS[state * EVENT_SLOTS + event] = A_NEVER if row is None else row.actions
    return 0


_compile()
