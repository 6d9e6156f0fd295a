"""What `ConnectionTable.apply` and `receive` say of one segment, as data.

The compiled floors read these bits from core/verdicts.pxd, which tools/generate.py writes from this file.
"""

from __future__ import annotations

from enum import IntFlag

__all__ = ["Verdict"]


class Verdict(IntFlag):
    """The outcome of one segment; 0 is a segment that was expected. The bits fit the uint16 that `apply` returns."""

    NEW = 0x0001  # the first segment of a connection
    REPLACED = 0x0002  # ... which ended another on the same 4-tuple
    PARTIAL = 0x0004  # ... which began before the capture did
    RETRANSMITTED = 0x0008  # it brought nothing new
    DUPLICATE = 0x0010  # the same packet captured twice
    GAP = 0x0020  # it follows, or acknowledges, data that were not seen
    ILLEGAL = 0x0040  # SYN with FIN or RST, no flag at all, FIN without ACK
    SUSPECT = 0x0080  # RST outside the window, SYN on a live connection, ACK of the impossible
    LATE = 0x0100  # its time is older than the newest seen
    CHANGED = 0x0200  # a state changed
    FULL = 0x0400  # no row: the table is full
    STRAY = 0x0800  # nothing to be learnt from it (a RST for an unknown connection)
    VOID = 0x1000  # damaged, by its checksum or its header: it counts for nothing and changed nothing
