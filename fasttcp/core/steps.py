"""Recorded transitions as Python sees them: what `ConnectionTable.explain` returns."""

from __future__ import annotations

import struct
from typing import NamedTuple

from fasttcp.spec import Event, State, transition

__all__ = ["TraceStep", "read_steps"]

_STEP = struct.Struct("=qQIIHBBBBH")  # Step of core/trace.pxd


class TraceStep(NamedTuple):
    """One transition of one half, as `ConnectionTable.explain` tells it."""

    time_ns: int
    side: int  # 0 or 1, as in the columns
    state: State
    event: Event
    next: State
    seq: int  # of the segment that caused it; 0 for calls and timers
    ack: int
    flags: int
    source: str  # the RFC section or kernel file that asks for it
    why: str

    def __str__(self) -> str:
        change = f"{self.state.name} --{self.event.name}--> {self.next.name}"
        return f"{self.time_ns} side {self.side}: {change}  [{self.source}] {self.why}"


def read_steps(packed: bytes) -> list[TraceStep]:
    """Records of 32 bytes as steps, each with its source and reason from the machine."""
    steps = []
    for time_ns, _, seq, ack, flags, side, event, state, _, _ in _STEP.iter_unpack(packed):
        row = transition(state, event)
        steps.append(TraceStep(time_ns, side, row.state, row.event, row.next, seq, ack, flags, row.source, row.why))
    return steps
