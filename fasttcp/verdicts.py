"""What `ConnectionTable.apply` and `receive` say of one segment, as data: `Verdict` in the observer seat,
`OutcomeFlag` in the endpoint seat, where calls and timers have an outcome too.

The compiled floors read these bits from core/verdicts.pxd, which tools/generate.py writes from this file.
"""

from __future__ import annotations

from enum import IntFlag

__all__ = ["OutcomeFlag", "Verdict"]


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


class OutcomeFlag(IntFlag):
    """What one input did to an endpoint, besides its events. The bits fit the uint16 that `apply` returns."""

    NEW = 0x0001  # a connection, or a listener, began with it
    ENDED = 0x0002  # the connection is over and its row free
    ESTABLISHED = 0x0004  # it became ESTABLISHED
    ACCEPTED = 0x0008  # ... out of LISTEN: a connection for the application
    DROPPED = 0x0010  # no segment for this host: damaged, or from an address that no host has
    FULL = 0x0020  # a connection was not made because no row is left
