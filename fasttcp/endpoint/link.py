"""A simulated link between endpoint tables: it delays, loses, repeats and reorders, by a random source that is passed
in.

It moves segments and time, nothing else: no state of TCP, no payload, no clock of its own but the one it was started
with.

    a.take_output() --> +--------------------- link ---------------------+ --> b.receive()
    a.receive()     <-- |   delay, loss, repetition       tap at `tap`   | <-- b.take_output()
                        +------------------------------------------------+

Each segment that enters gets a delay of its own; where delays differ, segments overtake each other. A lost one is
lost at some point of its way, so a tap in the middle sees some that never arrive, as a real one does. What passes the
tap is yielded in the order of the wire, with the time it passed: the input of an observer table.

Two runs with the same tables' seeds, the same random source and the same calls are the same run.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Iterator

from fasttcp.core.outcomes import Outcome
from fasttcp.core.segments import SEGMENT_BYTES, SegmentBatch
from fasttcp.core.table import ConnectionTable

__all__ = ["Link"]

_TIME = struct.Struct("=q")  # the first field of a segment
_TAP, _ARRIVAL, _CALL = range(3)


class Link:
    """A link between two endpoint tables, or from one table to itself (loopback).

    Parameters
    ----------
    a, b : ConnectionTable
        In the endpoint seat. Without `b` everything that `a` sends comes back to it.
    uniform : callable
        Random numbers from 0 to 1, for example ``random.Random(7).random``.
    delay_ns : (int, int)
        Least and largest time on the way, ns; each segment has its own.
    loss, duplicate : float
        Probability, 0 to 1, that a segment does not arrive; that it arrives twice.
    tap : float
        Where the tap is: 0 at `a`, 1 at `b`.
    start_ns : int
        The time when it begins.
    batch : int
        Segments that `run` yields at once, at most.
    heard : callable, optional
        Called with (table, Outcome, now_ns) after each segment that arrives: the place of an application.
    """

    def __init__(
        self,
        a: ConnectionTable,
        b: ConnectionTable | None = None,
        *,
        uniform: Callable[[], float],
        delay_ns: tuple[int, int] = (1_000_000, 1_000_000),
        loss: float = 0.0,
        duplicate: float = 0.0,
        tap: float = 0.5,
        start_ns: int = 0,
        batch: int = 1024,
        heard: Callable[[ConnectionTable, Outcome, int], None] | None = None,
    ) -> None:
        for name, value in (("loss", loss), ("duplicate", duplicate), ("tap", tap)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}: it must be from 0 to 1")
        if not 0 <= delay_ns[0] <= delay_ns[1]:
            raise ValueError(f"delay_ns is {delay_ns}: least and largest, neither negative")
        if batch < 1:
            raise ValueError(f"batch is {batch}: it must be at least 1")
        self.tables = (a,) if b is None else (a, b)
        self.now_ns = start_ns
        self.lost = 0  # segments that did not arrive
        self.carried = 0  # segments that entered
        self._uniform, self._loss, self._duplicate, self._tap = uniform, loss, duplicate, tap
        self._least, self._spread = delay_ns[0], delay_ns[1] - delay_ns[0]
        self._batch, self._heard = batch, heard
        self._events: list[tuple[int, int, int, int, bytes | Callable[[int], None]]] = []  # (time, order, kind, side, what)
        self._order = 0

    def at(self, when_ns: int, action: Callable[[int], None]) -> None:
        """Call `action(now_ns)` when the time comes: what an application does."""
        self._push(max(when_ns, self.now_ns), _CALL, 0, action)

    def run(self, until_ns: int | None = None) -> Iterator[SegmentBatch]:
        """Let it happen, up to `until_ns` or until nothing is on its way and no timer runs.

        Yields what passes the tap, in the order of the wire, time_ns being the time it passed. Nothing happens until
        the first batch is asked for; `settle()` drains it. Without `until_ns` a connection that keeps a timer for
        ever (keepalive with a peer that answers) runs for ever.
        """
        seen: list[bytes] = []
        self._drain()
        while True:
            timer = self._next_timer()
            event = self._events[0][0] if self._events else None
            times = [time for time in (timer, event) if time is not None]
            if not times or (until_ns is not None and min(times) > until_ns):
                break
            self.now_ns = max(self.now_ns, min(times))
            if event is not None and event <= self.now_ns:
                self._happen(seen)
            else:
                for table in self.tables:
                    table.advance(self.now_ns)
            self._drain()
            if len(seen) >= self._batch:
                yield _batch(seen)
                seen = []
        if until_ns is not None:
            self.now_ns = max(self.now_ns, until_ns)
            for table in self.tables:
                table.advance(self.now_ns)
        if seen:
            yield _batch(seen)

    def settle(self, until_ns: int | None = None) -> list[SegmentBatch]:
        """`run` to its end: all that passed the tap."""
        return list(self.run(until_ns))

    # ---- inside

    def _push(self, when_ns: int, kind: int, side: int, what: bytes | Callable[[int], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when_ns, self._order, kind, side, what))

    def _next_timer(self) -> int | None:
        times = [table.next_timer_ns for table in self.tables]
        return min((time for time in times if time is not None), default=None)

    def _happen(self, seen: list[bytes]) -> None:
        """The next event, whose time has come."""
        when_ns, _, kind, side, what = heapq.heappop(self._events)
        if not isinstance(what, bytes):
            what(self.now_ns)
            return
        record = _TIME.pack(when_ns) + what[_TIME.size :]
        if kind == _TAP:
            seen.append(record)
            return
        table = self.tables[side]
        timer = table.next_timer_ns
        if timer is not None and timer <= when_ns:
            table.advance(when_ns)  # what was due before it came
        _, outcome = table.receive(record)
        if self._heard is not None:
            assert isinstance(outcome, Outcome)
            self._heard(table, outcome, self.now_ns)

    def _drain(self) -> None:
        """Everything that waits to be sent enters the link."""
        for side, table in enumerate(self.tables):
            if table.output_count == 0:
                continue
            records = bytes(memoryview(table.take_output()))
            for at in range(0, len(records), SEGMENT_BYTES):
                self._enter(side, records[at : at + SEGMENT_BYTES])

    def _enter(self, side: int, record: bytes) -> None:
        uniform = self._uniform
        copies = 2 if self._duplicate and uniform() < self._duplicate else 1
        to_tap = self._tap if side == 0 else 1 - self._tap
        self.carried += 1
        for _ in range(copies):
            delay = self._least + (int(uniform() * (self._spread + 1)) if self._spread else 0)
            reaches = 1.0
            if self._loss and uniform() < self._loss:
                reaches = uniform()
                self.lost += 1
            if reaches >= to_tap:
                self._push(self.now_ns + int(delay * to_tap), _TAP, side, record)
            if reaches == 1.0:
                self._push(self.now_ns + delay, _ARRIVAL, (side + 1) % len(self.tables), record)


def _batch(records: list[bytes]) -> SegmentBatch:
    """A batch of its own memory."""
    return SegmentBatch(bytearray(b"".join(records)))
