"""The exceptions of fasttcp: few, named, each with the builtin that fits.

Three kinds, so that a program can tell them apart:

* the caller's mistake: `ProfileError`, `SegmentError`, `FilterError`, `StateError`, `StaleHandle`, `WrongThread`. The call changed
  nothing.
* a limit was met: `TableFull`, `TupleInUse`, `PortsExhausted`. The call changed nothing and may succeed later.
* a bad file: `CaptureError`, `SnapshotError`. They say which file and at which byte.

`InvariantError` is none of these: it is a fault in fasttcp itself.

What a peer does on the wire is never an exception: a refused, reset or timed-out connection is an outcome of that connection,
an illegal segment an outcome of that segment, and both are counted. A table that would have to move memory under an exported
view raises the builtin `BufferError`.

This file knows no other file of the package.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar

__all__ = [
    "CaptureError",
    "FastTCPError",
    "FilterError",
    "InvariantError",
    "PortsExhausted",
    "ProfileError",
    "SegmentError",
    "SnapshotError",
    "StaleHandle",
    "StateError",
    "TableFull",
    "TupleInUse",
    "WrongThread",
]


class FastTCPError(Exception):
    """The base of every exception that fasttcp defines; never raised itself."""


class ProfileError(FastTCPError, ValueError):
    """A profile or a parameter that does not exist, or a value outside its range.

    Raised by `profile()`, `Profile`, `Profile.replace()`, `Profile.from_dict()` and by every call that takes a profile.
    The message names the parameter, its unit and its range, or the nearest names that do exist.
    """


class SegmentError(FastTCPError, ValueError):
    """A batch that is no batch of segments (wrong item size, not contiguous), or an address, port or field no segment can have.

    Raised by `apply()` before the first segment is looked at. A segment that TCP itself forbids is no error but an outcome.
    """


class FilterError(FastTCPError, ValueError):
    """A filter that cannot be understood, and the word that cannot.

    Its text is three lines: what is wrong, the filter, and a mark under the word.

    Parameters
    ----------
    message : str
        What is wrong.
    text : str, optional
        The filter.
    start, end : int, optional
        Where in it the word begins and ends.
    """

    def __init__(self, message: str, text: str = "", start: int = 0, end: int = 0) -> None:
        super().__init__(message, text, start, end)
        self.message = message
        self.text = text
        self.start = start
        self.end = end

    def __str__(self) -> str:
        if not self.text:
            return self.message
        return f"{self.message}\n  {self.text}\n  {' ' * self.start}{'^' * max(self.end - self.start, 1)}"


class StateError(FastTCPError, RuntimeError):
    """A call that this connection's state, or this table's seat, does not allow (RFC 9293 section 3.10 names them).

    Examples: `close()` on a connection that is closing already, `open()` on a table in the observer seat. The arguments were
    right and the moment wrong, so it is a RuntimeError and not a ValueError.
    """


class StaleHandle(FastTCPError, LookupError):
    """A handle whose connection is gone: its row is free, or another connection lives there now (the generation differs)."""


class TableFull(FastTCPError, RuntimeError):
    """No row is left, the capacity is fixed and `on_full` is "raise" (or evicting found nothing that may be evicted).

    Not a MemoryError: memory did not run out, the caller's own limit was met.
    """


class WrongThread(FastTCPError, RuntimeError):
    """A table was called by a second thread while another was inside it, or by a thread that does not own it."""


class InvariantError(FastTCPError, AssertionError):
    """`check_invariants()` found the parts of a table in disagreement: a fault in fasttcp, worth a report."""


class _AddressError(FastTCPError, OSError):
    """An OSError with a fixed errno, made from a message alone, so that code written for sockets handles it unchanged."""

    _errno: ClassVar[int]

    def __init__(self, message: str) -> None:
        super().__init__(self._errno, message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,)  # OSError would hand (errno, message) to __init__


class TupleInUse(_AddressError):
    """The 4-tuple belongs to a live connection, or to one in TIME_WAIT that the policy does not allow to reuse (EADDRINUSE).

    Raised by `open()` with a local port given, and by `listen()` on a port that listens already.
    """

    _errno = errno.EADDRINUSE


class PortsExhausted(_AddressError):
    """No free ephemeral port is left for this local and remote address and remote port (EADDRNOTAVAIL, as in Linux).

    Raised by `open()` without a local port, when every port of `ip_local_port_range` is in use or in TIME_WAIT.
    """

    _errno = errno.EADDRNOTAVAIL


class _FileError(FastTCPError, ValueError):
    """A bad file: what is wrong, in which file, and at which byte.

    Parameters
    ----------
    message : str
        What is wrong there.
    file : str, optional
        The file's name; "-" for standard input.
    offset : int, optional
        Bytes from the start of the file (for a compressed or piped file: of what was read) to the damaged part.
    """

    def __init__(self, message: str, file: str | None = None, offset: int | None = None) -> None:
        super().__init__(message, file, offset)
        self.message = message
        self.file = file
        self.offset = offset

    def __str__(self) -> str:
        where = [] if self.file is None else [str(self.file)]
        if self.offset is not None:
            where.append(f"byte {self.offset}")
        return ": ".join([*where, self.message])


class CaptureError(_FileError):
    """A capture that is not pcap or pcapng, or is truncated or corrupt at `offset`. Records before that place are good."""


class SnapshotError(_FileError):
    """A saved table that is no snapshot, was cut short, fails its checksum, or was written by a version that is not readable."""
