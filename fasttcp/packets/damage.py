"""What can be wrong with a capture, and how it is said.

A damaged file is no exception while anything could be read from it: the segments before the damage have been delivered,
and `CaptureReader.damage` says what stopped the reading, and where.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FAULT_TEXTS", "Damage"]

# In the order of `Fault` in capture.pxd; "{}" is the value that was found.
FAULT_TEXTS = (
    "",
    "a record claims {} captured bytes, more than any packet has",
    "a block claims a length of {} bytes",
    "the length at the end of a block, {}, is not the one at its beginning",
    "a section header's byte-order magic is {:#010x}",
    "a section of pcapng version {}, of which nothing is known",
    "a packet of interface {}, which was not described",
    "a section with more than {} interfaces",
    "a packet claims {} captured bytes, more than its block holds",
    "no memory for {} interfaces",
)


class Damage(NamedTuple):
    """Why reading ended before the end of the capture.

    `kind` is "truncated" (the file ends inside a record), "corrupt" (its lengths or its compression contradict
    themselves) or "unreadable" (the system refused). `offset` is the byte at which the damaged record begins, in the
    decompressed bytes if the file is compressed; `packets` is the number of packets that were read before.
    """

    kind: str
    message: str
    file: str
    offset: int
    packets: int

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} at byte {self.offset}, after {self.packets} packets: {self.message}"
