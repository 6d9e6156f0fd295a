"""Where the connections of `fasttcp track` go: text, an Arrow stream or a Parquet file, to a file or to stdout.

Each sink reads the Track on its own and is done when that is; what goes wrong on the way is raised as it is. Binary
formats are written by pyarrow, which is loaded only for them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from fasttcp.observe.track import Track

__all__ = ["BINARY", "Refused", "Sink", "opened", "sink"]

BINARY = ("arrow", "parquet")
FLUSH_SECONDS = 0.5  # at most this long does a row wait that was seen live, if there is no quiet moment
GROUP_ROWS = 1 << 17  # rows of a Parquet row group: what is held of it


class Refused(Exception):
    """The output cannot be what was asked for; the text says why."""


class WrongFields(ValueError):
    """There are no such fields."""


@contextlib.contextmanager
def opened(path: str | None, form: str, inputs: list[str]) -> Iterator[BinaryIO]:
    """The file that is written to; stdout for None and "-"."""
    if path is None or path == "-":
        if form in BINARY and sys.stdout.isatty():
            raise Refused(f"{form} is not for a terminal: name a file with -o, or send it into a pipe")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    for name in inputs:
        read = 0 if name == "-" else name
        if os.path.exists(path) and os.path.exists(read) and os.path.samestat(os.stat(path), os.stat(read)):
            raise Refused(f"{path} is the capture that is read: it would be overwritten")
    with open(path, "wb") as file:
        yield file


def sink(followed: Track, form: str, fields: list[str] | None, pulse: Callable[[], None]) -> Sink:
    """What is to be run for this format, once its `out` is open. Wrong fields are found here, before that."""
    return (_Binary if form in BINARY else _Text)(followed, form, fields, pulse)


class Sink:
    """`run` reads to the end and writes to `out`; `stop`, after an interruption, writes what is known by then. `pulse` is
    called often."""

    out: BinaryIO

    def __init__(self, followed: Track, form: str, fields: list[str] | None, pulse: Callable[[], None]) -> None:
        self.followed, self.form, self.fields, self.pulse = followed, form, fields, pulse
        try:
            self._prepare()
        except ValueError as refusal:
            raise WrongFields(str(refusal)) from None

    def _prepare(self) -> None:
        """What can be refused is refused here."""
        raise NotImplementedError

    def run(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError


class _Text(Sink):
    def _prepare(self) -> None:
        self.followed.tracker.write(self.form, self.fields)  # nothing yet; but fields that there are not are found

    def run(self) -> None:
        flushed = time.monotonic()
        for piece in self.followed.lines(self.form, self.fields):
            self.out.write(piece)
            if self.followed.quiet or (self.followed.follow and time.monotonic() - flushed > FLUSH_SECONDS):
                self.out.flush()
                flushed = time.monotonic()
            self.pulse()

    def stop(self) -> None:
        self.followed.finish()
        for piece in self.followed.rest(self.form, self.fields):
            self.out.write(piece)


class _Binary(Sink):
    def _prepare(self) -> None:
        try:
            import pyarrow as pa
        except ImportError:
            raise Refused(f"--format {self.form} needs pyarrow: pip install 'fasttcp[parquet]'") from None
        self.pa = pa
        self.steps = _Interruptible(self.followed)
        self.reader = pa.RecordBatchReader.from_stream(self.followed.arrow(self.fields, steps=self.steps))
        self.writer: Any = None

    def run(self) -> None:
        """Interrupted, the stream only ends: what waits is written all the same, and the file is whole."""
        target = _Counted(self.out)
        with self.steps:
            if self.form == "arrow":
                self.writer = self.pa.ipc.new_stream(target, self.reader.schema)
            else:
                import pyarrow.parquet as pq

                self.writer = pq.ParquetWriter(target, self.reader.schema, compression="zstd")
            with self.writer:
                self._write()
        if self.steps.interrupted:
            raise KeyboardInterrupt

    def _write(self) -> None:
        held: list[Any] = []
        rows = 0
        for batch in self.reader:
            self.pulse()
            held.append(batch)
            rows += batch.num_rows
            if self.form == "arrow" or rows >= GROUP_ROWS:
                self._put(held)
                held, rows = [], 0
        if held:
            self._put(held)

    def _put(self, batches: list[Any]) -> None:
        self.writer.write_table(self.pa.Table.from_batches(batches, self.reader.schema))
        if self.form == "arrow":
            self.out.flush()

    def stop(self) -> None:
        """Nothing is left to do: `run` has written everything."""


class _Interruptible:
    """The steps of a Track. Ctrl-C must not fly through Arrow's C code, nor between a batch and its writing.

    While a step is under way, which may wait for its input, it is raised there, and ends the reading and the stream with
    it; at any other moment it is remembered until the next step. Pressed again, it is raised wherever it is.
    """

    def __init__(self, followed: Track) -> None:
        self.followed = followed
        self.interrupted = False
        self._pending = False
        self._inside = False
        self._steps = followed.steps()

    def __enter__(self) -> _Interruptible:
        self._former = signal.getsignal(signal.SIGINT)
        if self._former is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._former is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._former)

    def _pressed(self, *_: object) -> None:
        if self._inside or self._pending:
            raise KeyboardInterrupt
        self._pending = True

    def __iter__(self) -> _Interruptible:
        return self

    def __next__(self) -> None:
        try:
            self._inside = True
            if self._pending:
                raise KeyboardInterrupt
            next(self._steps)
        except KeyboardInterrupt:
            self._inside = self._pending = False
            if self.interrupted:
                raise
            self.interrupted = True
            self.followed.finish()
            self._steps = iter(())
        finally:
            self._inside = False


class _Counted:
    """A file object as pyarrow wants it, over one that may not know where it stands (a pipe)."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._at = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._out.write(view)
        self._at += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False
