"""`track`: captures in, connections out. The front door of this floor; tracker.pyx is the engine behind it."""

from __future__ import annotations

import glob
import os
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from operator import index
from typing import Any

from fasttcp.errors import CaptureError
from fasttcp.observe.ahead import ReadAhead
from fasttcp.observe.columns import EntryStream
from fasttcp.observe.helper import Helper, Job
from fasttcp.observe.keyed import KeyedBatch
from fasttcp.observe.logs import head
from fasttcp.observe.tracker import Connection, Tracker
from fasttcp.packets.damage import Damage
from fasttcp.packets.reader import CaptureReader
from fasttcp.profiles import Profile
from fasttcp.profiles import profile as find_profile
from fasttcp.spec import State

__all__ = ["Track", "track"]

CHUNK = 1 << 18  # segments between two looks at signals and at the progress: some 10 ms
FOLLOW_SECONDS = 0.2  # between two looks at whether a file has grown
DRAIN_SECONDS = 2.0  # after an interruption: for what has come already
LIVE_LAG_NS = 1_000_000_000  # how late a packet of a live capture may come
ENTRIES = 1 << 13  # entries that wait at most, about 3 MB
PIECES = 8  # pieces of a log that wait for the second thread, some 1 ms each


def track(
    source: Any,
    *,
    profile: str | Profile = "zeek",
    checksums: str = "validate",
    tunnels: bool = True,
    max_connections: int = 1 << 22,
    seed: int | None = None,
    follow: bool = False,
    where: str = "",
    interim: float | None = None,
    threads: int = 1,
) -> Track:
    """Follow every TCP connection of a capture: ``for connection in track("capture.pcap"): ...``

    Parameters
    ----------
    source : path, "-", bytes, binary file object, or an iterable of them
        A directory stands for the captures in it, a path with * ? [ for the files it matches. Several files are one
        stream in the order of the times of their first segments: a connection may go on from one to the next.
    profile : str or Profile
        "zeek": rows split, time out and turn round as Zeek's do. "linux", "bsd", "rfc9293": the time-outs of
        nf_conntrack.
    checksums : {"validate", "ignore"}
        "validate": a segment with a wrong checksum leaves its mark and changes nothing. A capture made on the sending
        host may hold checksums that its network card was to fill in: read it with "ignore".
    tunnels : bool
        Look into IP-in-IP, GRE, VXLAN, Geneve, GTP-U, Teredo and AYIYA.
    max_connections : int
        Live connections; when there are more, the oldest that are closing make room. Bounds the memory, 400 bytes each.
    seed : int or None
        Makes the table's hash reproducible; the result does not depend on it.
    follow : bool
        The (one) file still grows: at its end wait for more. Needed for a `fasttcp.packets.live.LiveCapture` as well.
    where : str
        Only connections that pass this filter come out, in the words of `ss`: "state time-wait and dport = :443",
        "src 10.0.0.0/8", "not ( sport < :1024 or exclude connected )". See fasttcp/observe/where.py.
    interim : float or None
        Seconds of the capture's time: at every so many, a connection that has lived that long and goes on comes out as
        well, with "interim" as its `end`.
    threads : int
        2: a second thread reads the packets ahead and writes the lines of a log, while the first one follows the
        connections. The results are the same, in the same order. Of use for whole files; a stream, `follow` and
        `interim` do with one. More than 2 are not used.

    Returns
    -------
    Track
        An iterator of `Connection`, in the order in which the connections ended; those that still live at the end of
        the capture come last, with the states that they had.

    Raises
    ------
    OSError, CaptureError
        The only source cannot be read at all. Of several, those that cannot be read are listed in `Track.failures`.
    FilterError
        The filter cannot be understood: its text points at the word.
    TypeError, ValueError
        Another parameter, which is named, cannot have that value; or there is no source at all.

    Notes
    -----
    Cost: about 120 ns a packet, and 0.5 us for each Connection object that is made. The GIL is released while packets
    are read.
    """
    if checksums not in ("validate", "ignore"):
        raise ValueError(f"checksums: expected 'validate' or 'ignore', got {checksums!r}")
    try:
        fits = interim is None or 1e-3 <= interim <= 1e9
    except TypeError:
        raise TypeError(f"interim: {interim!r} is no number of seconds") from None
    if not fits:
        raise ValueError(f"interim: {interim!r} is not between 0.001 and 1,000,000,000 seconds")
    max_connections = _whole("max_connections", max_connections)
    threads = _whole("threads", threads)
    chosen = find_profile(profile)
    ignore = checksums == "ignore"
    if chosen.ignore_checksums != ignore:
        chosen = chosen.replace(ignore_checksums=ignore)
    sources = _sources(source)
    if not sources:
        raise ValueError(f"source: {source!r} holds nothing, expected one capture or several")
    return Track(
        sources, chosen, checksums=checksums, tunnels=tunnels, max_connections=max_connections, seed=seed,
        follow=follow, where=where, interim_ns=0 if interim is None else round(interim * 1e9),
        threads=threads,
    )  # fmt: skip


class Track:
    """Connections on their way out of captures: an iterator, made by `track`.

    Attributes
    ----------
    damages : list of Damage
        Captures that turned out to be truncated or corrupt, and where; what was good before is part of the result.
    failures : list of Exception
        Of several sources, those that could not be read at all.
    reader : CaptureReader or None
        The capture that is being read.
    profile : Profile
        Whose rules hold.
    where : str
        The filter.
    follow : bool
        The capture has no end of its own.
    quiet : bool
        After the last step there was nothing more to be read for now (`follow`).
    """

    def __init__(
        self, sources: list[Any], profile: Profile, *, checksums: str, tunnels: bool, max_connections: int,
        seed: int | None, follow: bool, where: str, interim_ns: int, threads: int,
    ) -> None:  # fmt: skip
        self.damages: list[Damage] = []
        self.failures: list[Exception] = []
        self.reader: CaptureReader | None = None
        self._options = {"checksums": checksums, "tunnels": tunnels, "follow": follow}
        self._counters: dict[str, int] = {}
        self._done = 0
        self._before: CaptureReader | None = None  # the capture before, as long as another may go on from it
        self.profile = profile
        self.where = where
        self.follow = follow
        self._waits = len(sources) == 1 and bool(getattr(sources[0], "waits", False))
        self._interim_ns = interim_ns
        self.quiet = False
        self.tracker = Tracker(profile, max_connections=max_connections, seed=seed)
        self.tracker.keep(where)
        self._sources = self._in_order(sources)
        self._helper = Helper("fasttcp track") if threads > 1 and not follow and not interim_ns else None
        if self._helper is not None:
            weakref.finalize(self, self._helper.dismiss)
        self._ahead: ReadAhead | None = None
        self._pieces: deque[Job] = deque()
        self._connections: Iterator[Connection] | None = None
        self._next_source()

    # -- results -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Connection]:
        return self

    def __next__(self) -> Connection:
        if self._connections is None:
            self._connections = self._each()
        return next(self._connections)

    def lines(self, form: str = "zeek", fields: Iterable[str] | None = None) -> Iterator[bytes]:
        """The log as text, in pieces: the fast way to write it, without an object for each connection.

        form: "zeek", "json", "csv" or "table". fields: names out of `fasttcp.observe.logs.FIELDS`; None: the format's
        own. A piece may be empty: with `follow` it tells that there is nothing more for now.
        """
        chosen = None if fields is None else list(fields)
        self.tracker.write(form, chosen)  # says what is wrong before the first line is out
        first = head(form, chosen)
        if first:
            yield first.encode()
        for _ in self.steps():
            if self._helper is None:
                if self.tracker.waiting or self.quiet:
                    yield self.tracker.write(form, chosen)
                continue
            if self.tracker.waiting:
                self._pieces.append(self._helper.give(partial(self.tracker.detach().write, form, chosen)))
            while self._pieces and (self._pieces[0].done or len(self._pieces) > PIECES):
                yield self._pieces.popleft().wait()
        yield from self._written()

    def rest(self, form: str = "zeek", fields: Iterable[str] | None = None) -> Iterator[bytes]:
        """After an interruption of `lines` and `finish`: what it has not yielded yet."""
        yield from self._written()
        yield self.tracker.write(form, fields)

    def arrow(self, fields: Iterable[str] | None = None, *, steps: Iterable[None] | None = None) -> EntryStream:
        """The connections as an Arrow stream: pyarrow, polars, DuckDB and pandas take it where they take a table.

        fields: names out of `fasttcp.observe.logs.FIELDS`; None: those of the JSON log. The capture is read while the
        stream is, batch by batch; types are listed in fasttcp/observe/columns.pyx. steps: what is gone through for more
        of it instead of `self.steps()`. ValueError: a field that there is not.
        """
        return EntryStream(self.tracker, self.steps() if steps is None else steps, fields)

    def steps(self) -> Iterator[None]:
        """Read on in steps of some milliseconds; after each, entries may wait in `tracker`. The last has all the rest."""
        while self.reader is not None:
            try:
                more = self._feed(self.reader) if self._ahead is None else self._apply(self._ahead.next())
            except CaptureError as unreadable:  # its link types are unknown, which the end of a pcapng shows
                if not self._sources and not self._done and self.packets == 0:
                    raise
                self.failures.append(unreadable)
                more = False
            self.quiet = not more and bool(self._options["follow"]) and not self.reader.at_end
            if self.quiet:
                if self._waits:  # live: time goes on without packets, and time-outs with it
                    self.tracker.table.advance(time.time_ns() - LIVE_LAG_NS)
                yield
                if not self._waits:
                    time.sleep(FOLLOW_SECONDS)
                continue
            if not more:
                self.next_reader()
            yield
        self.tracker.finish()
        yield
        if self._helper is not None:
            self._helper.dismiss()

    def next_reader(self) -> None:
        """Close the capture at hand and open the one that follows it; `reader` is None when there is none."""
        self._close_reader()
        self._next_source()

    def finish(self) -> None:
        """Read no further: every live connection becomes an entry in `tracker`, with the states that it has.

        With `follow`, what has come already and was not read yet is read before, for 2 s at most.
        """
        if self.follow and self.reader is not None:
            until = time.monotonic() + DRAIN_SECONDS
            while self.tracker.waiting < ENTRIES and time.monotonic() < until:
                if not self._feed(self.reader):
                    break
        if self._ahead is not None:
            for batch in self._ahead.rest():
                self.tracker.apply_keyed(batch)
        self._close_reader()
        self._sources = []
        self.tracker.finish()

    # -- counts ------------------------------------------------------------------------------------------------------

    @property
    def packets(self) -> int:
        """Frames read so far, of any kind."""
        return self.counters()["packets"]

    def counters(self) -> dict[str, int]:
        """What the frames so far were; the names of `CaptureReader.counters`."""
        total = dict(self._counters)
        if self.reader is not None:
            for name, value in self.reader.counters().items():
                total[name] = total.get(name, 0) + value
        return total or {"packets": 0}

    def tallies(self) -> dict[str, int]:
        """What the observer has counted: connections, retransmitted, illegal, suspect, ... See Tracker.tallies."""
        return self.tracker.tallies()

    def states(self) -> dict[State, int]:
        """How many ends of the connections that came out were in each state."""
        return self.tracker.states()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _feed(self, reader: CaptureReader) -> bool:
        if self._interim_ns:
            return self.tracker.feed_interim(reader, CHUNK, ENTRIES, self._interim_ns)
        return self.tracker.feed(reader, CHUNK, ENTRIES)

    def _apply(self, batch: KeyedBatch | None) -> bool:
        if batch is not None:
            self.tracker.apply_keyed(batch)
        return batch is not None

    def _written(self) -> Iterator[bytes]:
        while self._pieces:
            yield self._pieces.popleft().wait()

    def _each(self) -> Iterator[Connection]:
        for _ in self.steps():
            yield from self.tracker.take()

    def _in_order(self, sources: list[Any]) -> list[Any]:
        """Several files by the time of their first segment. One is left as it is, and need not be a file."""
        if len(sources) == 1:
            return sources
        timed: list[tuple[int, int, Any]] = []
        for place, source in enumerate(sources):
            if not isinstance(source, (str, os.PathLike)) or source == "-":
                raise ValueError(f"several sources must be files, to be put in order: {source!r} is none")
            try:
                with CaptureReader(source, checksums="ignore", tunnels=bool(self._options["tunnels"])) as reader:
                    first = next(iter(reader), None)
            except CaptureError as failure:
                if not isinstance(source, _Found):
                    self.failures.append(failure)
                continue
            except OSError as failure:
                self.failures.append(failure)
                continue
            # One without a segment may hold the rest of a datagram: it stays behind the file that it was given after.
            timed.append((first.time_ns if first is not None else timed[-1][0] if timed else 0, place, source))
        if not timed:
            raise self.failures[0] if self.failures else CaptureError(
                f"none of the {len(sources)} files is a capture", os.path.dirname(sources[0])
            )
        return [source for _, _, source in sorted(timed, key=lambda entry: entry[:2])]

    def _next_source(self) -> None:
        while self._sources:
            source = self._sources.pop(0)
            try:
                self.reader = CaptureReader(source, **self._options)  # type: ignore[arg-type]
            except (OSError, CaptureError) as failure:
                if not self._sources and not self._done:
                    raise
                self.failures.append(failure)
            else:
                self._go_on(self.reader)
                if self._helper is not None and _is_whole(source):
                    self._ahead = ReadAhead(self.reader, self.tracker.table, self._helper)
                return

    def _go_on(self, reader: CaptureReader) -> None:
        """A datagram may have begun in the capture before."""
        before, self._before = self._before, None
        if before is not None:
            self._counters["reassembly_pending"] -= reader.take_fragments(before)  # they are counted there now

    def _close_reader(self) -> None:
        if self.reader is None:
            return
        if self._ahead is not None:
            self._ahead.rest()  # nothing, but after a failure; the reader may not be closed under the helper
            self._ahead = None
        reader, self.reader = self.reader, None
        for name, value in reader.counters().items():
            self._counters[name] = self._counters.get(name, 0) + value
        if reader.damage is not None:
            self.damages.append(reader.damage)
        reader.close()
        self._before = reader if self._sources else None
        self._done += 1


def _whole(name: str, value: Any) -> int:
    """A number from 1 to 2^31, the most rows that a table can have."""
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{name}: {value!r} is no whole number") from None
    if not 1 <= number <= 1 << 31:
        raise ValueError(f"{name}: {value!r} is not between 1 and {1 << 31:,}")
    return number


def _is_whole(source: Any) -> bool:
    """All of it is there already: reading never waits, so it may be done ahead."""
    if isinstance(source, (str, os.PathLike)):
        return source != "-" and os.path.isfile(source)
    return isinstance(source, (bytes, bytearray, memoryview))


class _Found(str):
    """A file that was found in a directory: if it is no capture, nobody said that it was."""

    __slots__ = ()


def _sources(source: Any) -> list[Any]:
    """Files for what was given: directories and patterns are looked into, everything else stands for itself."""
    if not isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) and isinstance(source, Iterable):  # noqa: SIM102
        if not hasattr(source, "read"):
            return [file for one in source for file in _sources(one)]
    if not isinstance(source, (str, os.PathLike)) or source == "-":
        return [source]
    path = os.fspath(source)
    if os.path.isdir(path):
        inside = [
            _Found(entry.path) for entry in sorted(os.scandir(path), key=lambda entry: entry.name)
            if entry.is_file() and not entry.name.startswith(".")
        ]
        if not inside:
            raise FileNotFoundError(2, "the directory holds no files", path)
        return inside
    if not os.path.lexists(path) and glob.has_magic(path):
        matches = sorted(match for match in glob.glob(path) if not os.path.isdir(match))
        if not matches:
            raise FileNotFoundError(2, "no file matches", path)
        return matches
    return [path]
