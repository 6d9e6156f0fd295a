"""Shows every TCP connection of a capture: both ends' states, packets, bytes, duration, history.

FILE is a pcap or pcapng file, plain or compressed (gzip, xz, zstd), a directory of them, or - for standard input.
Several are read as one stream, in the order of their times. With -i an interface is followed instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from fasttcp.cli.said import NO_ROOM, said

if TYPE_CHECKING:
    from fasttcp.cli.output import Sink
    from fasttcp.observe.track import Track
    from fasttcp.packets.live import LiveCapture

__all__ = ["add_parser", "run"]

FORMATS = ("table", "zeek", "json", "csv", "arrow", "parquet")
PROGRESS_SECONDS = 0.2


def add_parser(subparsers: Any) -> None:
    """The verb and its options."""
    parser = subparsers.add_parser(
        "track", help="show every TCP connection of a capture", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    parser.add_argument("files", metavar="FILE", nargs="*", help="captures, directories of captures, or -")
    parser.add_argument("-i", "--interface", metavar="IFACE", help="capture live, until Ctrl-C (fasttcp[live])")
    parser.add_argument("--filter", metavar="BPF", help="with -i: which packets to capture (pcap-filter(7))")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, help="how to write connections (default: table)")
    form.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write them (default: standard output)")
    parser.add_argument("--fields", metavar="NAME,...", help="which fields, in which order; 'help' lists them")
    parser.add_argument(
        "--where", metavar="FILTER", default="",
        help="only these connections, in the words of ss: 'state time-wait and dport = :443', 'src 10.0.0.0/8'",
    )  # fmt: skip
    parser.add_argument(
        "--interim", type=_seconds, metavar="SECONDS",
        help="show long connections before they end: a row in so many seconds, with 'interim' as its end",
    )  # fmt: skip
    parser.add_argument(
        "--profile", default="zeek", choices=("zeek", "linux", "bsd", "rfc9293"),
        help="whose rules end a connection: Zeek's, or nf_conntrack's time-outs (default: zeek)",
    )  # fmt: skip
    parser.add_argument(
        "--checksums", choices=("validate", "ignore"),
        help="a segment with a wrong TCP checksum counts for nothing, or like any other (default: validate; with -i "
        "ignore, as an interface sees its own segments before the network card has filled their checksums in)",
    )  # fmt: skip
    parser.add_argument("--no-tunnels", action="store_true", help="do not look into tunnels")
    parser.add_argument(
        "--max-connections", type=_count, default=1 << 22, metavar="N",
        help="live connections that are kept; beyond, the oldest closing ones go first (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=_count, default=1, metavar="T",
        help="2: read packets and write lines in a second thread; the output is the same (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--follow", action="store_true", help="the file still grows: go on until Ctrl-C")
    parser.add_argument("--no-summary", action="store_true", help="connections only")


def run(args: argparse.Namespace) -> int:
    """Exit status 0; 1 when nothing could be read; 130 when interrupted."""
    if args.fields == "help":
        return _list_fields()
    if problem := _contradiction(args):
        print(f"fasttcp track: {problem}", file=sys.stderr)
        return 2
    from fasttcp.cli.output import Refused, WrongFields, opened, sink
    from fasttcp.errors import FastTCPError, FilterError
    from fasttcp.observe.track import track

    began = time.perf_counter()
    form = args.format or "table"
    fields = args.fields.split(",") if args.fields else None
    if args.checksums is None:
        args.checksums = "validate" if args.interface is None else "ignore"
    source: Any = args.files if len(args.files) > 1 else (args.files or [None])[0]
    live = None
    try:
        if args.interface is not None:
            from fasttcp.packets.live import LiveCapture

            source = live = LiveCapture(args.interface, args.filter or "")
            args.follow = True
        followed = track(
            source, profile=args.profile, checksums=args.checksums, tunnels=not args.no_tunnels,
            max_connections=args.max_connections, follow=args.follow, where=args.where, interim=args.interim,
            threads=args.threads,
        )  # fmt: skip
        progress = _Progress(followed, args.output)
        target = sink(followed, form, fields, progress.show)
        with opened(args.output, form, args.files) as target.out:
            status = _read(target, progress, args)
    except FilterError as failure:
        print(f"fasttcp: --where: {failure}", file=sys.stderr)
        return 2
    except WrongFields as failure:
        print(f"fasttcp: --fields: {failure}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except (OSError, FastTCPError, ValueError, Refused) as failure:
        return _fail(failure, args.output)
    _tell_problems(followed)
    if live is not None:
        live.close()
        _tell_drops(live, always=not args.no_summary)
    if not args.no_summary:
        # Behind a table it is part of what was asked for; a log is for programs, and nothing may stand behind it.
        stream = sys.stdout if form == "table" and args.output in (None, "-") else sys.stderr
        sys.stdout.flush()
        print(_summary(followed, time.perf_counter() - began), end="", file=stream)
    if status == 0 and followed.packets == 0 and (followed.damages or followed.failures):
        return 1
    return status


def _contradiction(args: argparse.Namespace) -> str:
    if args.interface is None and not args.files:
        return "name a capture, or an interface with -i"
    if args.interface is not None and args.files:
        return f"-i {args.interface} and {args.files[0]}: an interface or files, not both"
    if args.output == "":
        return "-o '': name a file"
    if args.filter is not None and args.interface is None:
        return "--filter is for the packets of an interface (-i); --where chooses among connections"
    return ""


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read(target: Sink, progress: _Progress, args: argparse.Namespace) -> int:
    """A growing file has no end but Ctrl-C, which is then no failure."""
    from fasttcp.errors import FastTCPError

    try:
        target.run()
    except KeyboardInterrupt:
        progress.clear()
        target.stop()
        if args.follow:
            return 0
        print("fasttcp: stopped; what is above was known by then", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except (OSError, FastTCPError, MemoryError) as failure:
        progress.clear()
        return _fail(failure, args.output)
    finally:
        progress.clear()
    return 0


class _Progress:
    """One line on stderr that is written over, if that is a terminal and the output goes elsewhere."""

    def __init__(self, followed: Track, output: str | None) -> None:
        self.followed = followed
        self.wanted = sys.stderr.isatty() and (not sys.stdout.isatty() or output not in (None, "-"))
        self.shown = 0
        self.last = time.monotonic()

    def show(self) -> None:
        self.clear()
        reader = self.followed.reader
        if not self.wanted or reader is None or time.monotonic() - self.last < PROGRESS_SECONDS:
            return
        self.last = time.monotonic()
        part = f" {100 * reader.offset // max(reader.size, 1)} %" if reader.size else ""
        live = len(self.followed.tracker.table)
        line = f"{reader.name}:{part} {self.followed.packets:,} packets, {live:,} live connections"
        width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
        print(line[:width], end="\r", file=sys.stderr, flush=True)
        self.shown = min(len(line), width)

    def clear(self) -> None:
        if self.shown:
            print(" " * self.shown, end="\r", file=sys.stderr, flush=True)
            self.shown = 0


# ---- messages --------------------------------------------------------------------------------------------------------


def _fail(failure: Exception, output: str | None) -> int:
    if isinstance(failure, OSError) and failure.errno in NO_ROOM:
        failure.filename = output or "output"
    print(f"fasttcp: {said(failure)}", file=sys.stderr)
    return 1


def _tell_problems(followed: Track) -> None:
    for failure in followed.failures:
        print(f"fasttcp: {said(failure)}", file=sys.stderr)
    for damage in followed.damages:
        print(f"fasttcp: {damage}", file=sys.stderr)
    offloading = [host for host, wrong, right in followed.tracker.wrong_checksums() if wrong > right]
    if offloading:
        hosts = ", ".join(offloading[:3]) + (" and others" if len(offloading) > 3 else "")
        print(
            f"fasttcp: most TCP checksums of {hosts} are wrong, as its network card would have filled them in later; "
            "its segments were not looked at: use --checksums ignore",
            file=sys.stderr,
        )


def _tell_drops(live: LiveCapture, *, always: bool) -> None:
    counted = live.statistics()
    if always or counted.dropped or counted.interface_dropped:
        print(
            f"fasttcp: {live.name}: {counted.received:,} packets captured, {counted.dropped:,} dropped by the kernel, "
            f"{counted.interface_dropped:,} by the interface",
            file=sys.stderr,
        )


def _summary(followed: Track, seconds: float) -> str:
    tallies = followed.tallies()
    counters = followed.counters()
    ends = {word: n for word, n in followed.tracker.ends().items() if n}
    states = {state.name: n for state, n in followed.states().items() if n}
    packets = counters["packets"]
    others = {
        name.replace("_", " "): n for name, n in counters.items()
        if n and name not in ("packets", "segments", "tunnelled", "reassembled", "reassembly_pending", "fragment_held")
    }
    again = f"{tallies['retransmitted']:,}"
    if tallies["duplicates"]:
        again += f", and {tallies['duplicates']:,} captured twice"
    odd = f"{tallies['suspect']:,} doubtful, {tallies['damaged']:,} damaged, {tallies['late']:,} out of time order"
    lines = [
        "",
        f"connections      {sum(ends.values()):,}" + _listed(ends, before=": "),
        f"ends by state    {_listed(states) or 'none'}",
        f"retransmissions  {again}",
        f"illegal          {tallies['illegal']:,} segments; {odd}",
        f"missed           {tallies['gap_bytes']:,} bytes",
    ]
    if followed.where:
        lines.insert(2, f"shown            {followed.tracker.passed:,} rows that pass the filter")
    if tallies["evicted"] or tallies["full"]:
        evicted, lost = tallies["evicted"], tallies["full"]
        lines.append(f"table full       {evicted:,} connections had to go, {lost:,} segments had no row")
    lines.append(f"packets          {packets:,}, {tallies['segments']:,} of them TCP" + _listed(others, before="; "))
    lines.append(f"time             {seconds:.3f} s, {packets / max(seconds, 1e-9):,.0f} packets/s")
    return "\n".join(lines) + "\n"


def _listed(counts: dict[str, int], before: str = "") -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return before + ", ".join(f"{name} {n:,}" for name, n in ordered) if ordered else ""


def _list_fields() -> int:
    from fasttcp.observe.logs import FIELDS

    for name, (kind, meaning) in FIELDS.items():
        print(f"{name:15} {kind:11} {meaning}")
    return 0


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {1 << 31}")
    return number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1e-3 <= value <= 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, at least 0.001")
    return value
