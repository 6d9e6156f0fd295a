"""Where the bytes of a capture come from: a mapped file, memory, or a stream of any kind, perhaps compressed.

This file knows no capture format. It answers two questions: is there one piece of memory with everything in it
(`memory`), or must it be read (`read_into`)? Streams are read in the pieces in which they come, so that a live pipe is
not waited for longer than needed. Compressed sources (gzip, xz, zstd, told by their magic bytes, whatever the name) are
streams.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import mmap
import os
import stat
import sys
import zlib
from typing import Any

from fasttcp.errors import CaptureError

__all__ = ["Source", "Unreadable", "open_source"]

GZIP = b"\x1f\x8b"
XZ = b"\xfd7zXZ\x00"
ZSTD = b"\x28\xb5\x2f\xfd"
PEEK = 6


class Unreadable(Exception):
    """A stream broke off: `kind` as in Damage. Raised by `Source.read_into`, never seen by users."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Source:
    """The bytes of one capture.

    `memory` is a mapping, or any object with the buffer protocol, that holds all of them, else None; `size` is their
    number if it is known. `name` is for messages.
    """

    def __init__(self, name: str, *, memory: Any = None, size: int | None = None) -> None:
        self.name = name
        self.memory = memory
        self.size = size
        self._stream: Any = None
        self._read: Any = None
        self._owned: list[Any] = []
        self._failures: tuple[type[BaseException], ...] = ()

    def read_into(self, buffer: memoryview) -> int:
        """Reads what there is, at least one byte, into `buffer`; 0 at the end. Raises Unreadable."""
        try:
            n = self._read(buffer)
        except EOFError as failure:
            raise Unreadable("truncated", f"the compressed data ends early ({failure})") from None
        except self._failures as failure:
            raise Unreadable("corrupt", f"the compressed data is damaged ({failure})") from None
        except OSError as failure:
            raise Unreadable("unreadable", failure.strerror or str(failure)) from None
        return n or 0

    def still_there(self, mapped: int) -> int:
        """How much of so many bytes the mapped file has kept; what lies behind its new end must not be touched."""
        return min(mapped, self.memory.size()) if isinstance(self.memory, mmap.mmap) else mapped

    def close(self) -> None:
        """Closes what `open_source` opened, and nothing that the caller passed."""
        for thing in reversed(self._owned):
            with contextlib.suppress(BufferError):  # a mapping with a view on it goes when the view goes
                thing.close()
        self._owned.clear()


class _Prefixed(io.RawIOBase):
    """A stream whose first bytes were taken out to look at, put back in front."""

    def __init__(self, prefix: bytes, read: Any) -> None:
        self._prefix = prefix
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._prefix:
            view = memoryview(buffer).cast("B")
            n = min(len(view), len(self._prefix))
            view[:n] = self._prefix[:n]
            self._prefix = self._prefix[n:]
            return n
        return self._read(buffer) or 0


def _reader(stream: Any, name: str) -> Any:
    """A function like readinto that returns as soon as there is something."""
    for method in ("readinto1", "readinto"):
        if hasattr(stream, method):
            return getattr(stream, method)
    if not hasattr(stream, "read"):
        raise TypeError(f"a capture is a path, '-', bytes or a binary file object, not {type(stream).__name__}")

    def read_into(buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = stream.read(len(view))
        if isinstance(data, str):
            raise TypeError(f"{name} is open as text; a capture is read from a binary file object")
        view[: len(data)] = data
        return len(data)

    return read_into


def _peek(read: Any) -> bytes:
    head = bytearray(PEEK)
    n = 0
    while n < PEEK:
        got = read(memoryview(head)[n:])
        if not got:
            break
        n += got
    return bytes(head[:n])


def _zstd(raw: Any, name: str) -> tuple[Any, tuple[type[BaseException], ...]]:
    zstd: Any
    with contextlib.suppress(ImportError):  # the standard library's, from CPython 3.14 on
        zstd = importlib.import_module("compression.zstd")
        return zstd.ZstdFile(raw), (zstd.ZstdError,)
    with contextlib.suppress(ImportError):
        zstd = importlib.import_module("zstandard")
        return zstd.ZstdDecompressor().stream_reader(raw, read_across_frames=True), (zstd.ZstdError,)
    raise CaptureError("compressed with zstd, which needs the zstandard package: pip install 'fasttcp[zstd]'", name)


def _attach(source: Source, read: Any) -> Source:
    """Makes `source` a stream over `read`, decompressed if its first bytes say so."""
    try:
        head = _peek(read)
    except OSError as failure:
        raise CaptureError(f"cannot be read ({failure.strerror or failure})", source.name, 0) from None
    raw = _Prefixed(head, read)
    stream: Any = raw
    if head.startswith(GZIP):
        import gzip

        stream = gzip.GzipFile(fileobj=io.BufferedReader(raw, 1 << 16))
        source._failures = (gzip.BadGzipFile, zlib.error)
    elif head.startswith(XZ):
        import lzma

        stream = lzma.LZMAFile(io.BufferedReader(raw, 1 << 16))  # noqa: SIM115 - it outlives this function
        source._failures = (lzma.LZMAError,)
    elif head.startswith(ZSTD):
        stream, source._failures = _zstd(raw, source.name)
    if stream is not raw:
        source.size = None
    source._stream = stream
    source._read = _reader(stream, source.name)
    return source


def open_source(source: Any, *, mapped: bool = True) -> Source:
    """Opens a capture.

    `source` is a path (str or os.PathLike), "-" for standard input, an object with the buffer protocol, or a binary
    file object that is read from where it stands. `mapped=False` reads regular files instead of mapping them, which a
    file that still grows needs. Raises OSError as `open` does, and CaptureError for a zstd file without the package for
    it.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        if name == "-":
            # Unbuffered: BufferedReader.readinto1 waits for more, though it has some, when asked for much.
            if sys.stdin is None:
                raise OSError(errno.EBADF, "standard input is closed", name)
            stdin = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
            return _attach(Source("-"), _reader(stdin, "-"))
        file = open(name, "rb", buffering=0)  # noqa: SIM115 - it outlives this function
        opened = Source(name)
        opened._owned.append(file)
        try:
            return _open_file(opened, file, mapped)
        except BaseException:
            opened.close()
            raise
    if not hasattr(source, "read") and not hasattr(source, "readinto"):
        try:
            memory = memoryview(source).cast("B")
        except TypeError:
            raise TypeError(
                f"a capture is a path, '-', bytes or a binary file object, not {type(source).__name__}"
            ) from None
        if memory.nbytes >= PEEK and bytes(memory[:PEEK]).startswith((GZIP, XZ, ZSTD)):
            return _attach(Source("<memory>"), io.BytesIO(memory).readinto)
        return Source("<memory>", memory=memory, size=memory.nbytes)
    name = getattr(source, "name", None)
    name = name if isinstance(name, str) else f"<{type(source).__name__}>"
    return _attach(Source(name), _reader(source, name))


def _open_file(opened: Source, file: Any, mapped: bool) -> Source:
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode):
        opened.size = status.st_size
        head = _peek(file.readinto)
        file.seek(0)
        if mapped and status.st_size and not head.startswith((GZIP, XZ, ZSTD)):
            opened.memory = mmap.mmap(file.fileno(), status.st_size, access=mmap.ACCESS_READ)
            opened.close()  # the mapping has a descriptor of its own
            opened._owned.append(opened.memory)
            return opened
    return _attach(opened, file.readinto)
