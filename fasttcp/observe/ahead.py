"""Reading ahead: a helper fills batches of segments, and makes their keys, while those before them are applied.

    helper    fill 1  fill 2  fill 3            fill 4 ...
    caller            apply 1         apply 2         apply 3 ...

What must not stand here: what is done with the segments. Order: that of the capture, so nothing that is made of the
segments can tell whether they were read ahead. Memory: DEPTH batches.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from fasttcp.core.table import ConnectionTable
from fasttcp.observe.helper import Helper, Job
from fasttcp.observe.keyed import KeyedBatch
from fasttcp.packets.reader import CaptureReader

__all__ = ["ReadAhead"]

DEPTH = 4  # batches: one that is applied, one that is filled, and some because neither takes its turn evenly
SEGMENTS = 4096  # of a batch: 512 KB with its keys, some 0.2 ms to fill; four of them stay in the caches


class ReadAhead:
    """Batches out of one reader that nobody else reads from, and which never has to wait for what it reads."""

    def __init__(self, reader: CaptureReader, table: ConnectionTable, helper: Helper) -> None:
        self._reader = reader
        self._helper = helper
        self._filling: deque[tuple[KeyedBatch, Job]] = deque()
        self._lent: KeyedBatch | None = None
        for _ in range(DEPTH):
            self._fill(KeyedBatch(table, SEGMENTS))

    def next(self) -> KeyedBatch | None:
        """The batch that comes next, until the next call; None at the end. Raises what reading has raised."""
        if self._lent is not None:
            self._fill(self._lent)
            self._lent = None
        batch, job = self._filling[0]
        if not job.wait():
            return None
        self._filling.popleft()
        self._lent = batch
        return batch

    def rest(self) -> list[KeyedBatch]:
        """Stop reading: the batches that are filled already, in their order. The reader is free afterwards."""
        self._lent = None
        filled = [batch for batch, job in self._filling if job.outcome() and len(batch)]
        self._filling.clear()
        return filled

    def _fill(self, batch: KeyedBatch) -> None:
        self._filling.append((batch, self._helper.give(partial(batch.fill, self._reader))))
