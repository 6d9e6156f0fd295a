"""What an endpoint's calls and `receive` return: one input, read as data."""

from __future__ import annotations

from typing import NamedTuple

from fasttcp.spec import TRANSITIONS, Event, State
from fasttcp.verdicts import OutcomeFlag

__all__ = ["Outcome", "read_outcome", "refusal"]


class Outcome(NamedTuple):
    """What one input (a segment, a call) did to one connection of an endpoint."""

    handle: int | None  # the connection it belonged to, also if it ended; None: none
    events: tuple[Event, ...]  # the steps taken; a segment's are its ACK part, its data, its FIN
    before: State  # CLOSED where there was no connection
    after: State  # CLOSED when it is over
    end: str | None  # how it ended: "closed", "refused", "reset", "timeout", "aborted", "evicted"; None while it lives
    delivered: int  # bytes that became readable, in order
    sent: int  # segments that it put into the output queue
    flags: OutcomeFlag


_MASKS: dict[int, tuple[Event, ...]] = {}  # the few combinations that occur


def _events(mask: int) -> tuple[Event, ...]:
    """In the order of a segment's parts: for those that occur together, the order of their numbers."""
    events = _MASKS.get(mask)
    if events is None:
        events = _MASKS[mask] = tuple(event for event in Event if mask >> event & 1)
    return events


_STATES = tuple(State)
_FLAGS = tuple(OutcomeFlag(bits) for bits in range(64))


def read_outcome(
    handle: int, mask: int, before: int, after: int, origin: int, last: int, delivered: int, sent: int, flags: int
) -> Outcome:
    """The fields of core/tcb.pxd's Outcome as Python's."""
    end = TRANSITIONS[_STATES[origin], Event(last)].outcome if flags & OutcomeFlag.ENDED else None
    return Outcome(handle or None, _events(mask), _STATES[before], _STATES[after], end, delivered, sent, _FLAGS[flags])


def refusal(call: str, origin: int, last: int) -> str:
    """Why the machine rejects a call."""
    row = TRANSITIONS[State(origin), Event(last)]
    return f"{call}() in {row.state.name}: {row.why} ({row.source})"
