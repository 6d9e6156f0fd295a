"""A live view of connections: states, rates, TIME_WAIT, and who carries most.

Of an interface (-i), of a capture that is played at its own speed or another, or, without either, of this host's own
TCP sockets. Ctrl-C ends it. On something that is no terminal, views are printed one below the other.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

from fasttcp.cli.said import said

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.measure import Measurement

    from fasttcp.observe.glance import Glance

__all__ = ["add_parser", "render", "run"]

BAR = 24  # columns of a state's bar, where there is room


def add_parser(subparsers: Any) -> None:
    """The verb and its options."""
    parser = subparsers.add_parser(
        "top", help="watch connections live: an interface, a capture being played, this host's sockets",
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    parser.add_argument("capture", metavar="CAPTURE", nargs="?", help="play this capture")
    parser.add_argument("-i", "--interface", metavar="IFACE", help="capture live (fasttcp[live])")
    parser.add_argument("--filter", metavar="BPF", help="with -i: which packets to capture")
    parser.add_argument(
        "--speed", type=_speed, metavar="X", help="of a capture: 10 is ten times its own; 0: unlimited (1)"
    )
    parser.add_argument("--every", type=_every, default=1.0, metavar="SECONDS", help="between two views (1)")
    parser.add_argument("--count", type=_number, metavar="N", help="end after so many views")
    parser.add_argument("--rows", type=_number, default=15, metavar="N", help="of the busiest (15)")
    parser.add_argument(
        "--profile", default="linux", choices=("zeek", "linux", "bsd", "rfc9293"),
        help="whose rules end a connection (linux)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Exit status 0, also after Ctrl-C; 1 when nothing can be watched; 2 for arguments that contradict one another."""
    if problem := _contradiction(args):
        print(f"fasttcp top: {problem}", file=sys.stderr)
        return 2
    try:
        from rich.console import Console
    except ImportError:
        print("fasttcp: top needs rich: pip install 'fasttcp[top]'", file=sys.stderr)
        return 1
    from fasttcp.errors import FastTCPError

    console = Console()
    console.on_broken_pipe = _enough  # type: ignore[method-assign]
    try:
        with contextlib.ExitStack() as stack:
            glances = _glances(args, stack)
            _show(console, islice(glances, args.count) if args.count else glances)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        raise
    except (OSError, FastTCPError, ValueError) as failure:
        print(f"fasttcp top: {said(failure)}", file=sys.stderr)
        return 1
    return 0


def _enough() -> None:
    raise BrokenPipeError  # rich would end the process with status 1; main knows that the reader has enough


def _contradiction(args: argparse.Namespace) -> str:
    if args.capture is not None and args.interface is not None:
        return f"-i {args.interface} and {args.capture}: an interface or a capture, not both"
    if args.filter is not None and args.interface is None:
        return f"--filter {args.filter!r} is for the packets of an interface: give one with -i"
    if args.speed is not None and args.capture is None:
        return f"--speed {args.speed:g} is for a capture that is played: name one"
    return ""


def _glances(args: argparse.Namespace, stack: contextlib.ExitStack) -> Iterator[Glance]:
    from fasttcp.observe.glance import glances_of_host, glances_of_replay, glances_of_track
    from fasttcp.observe.track import track

    if args.interface is not None:
        from fasttcp.packets.live import LiveCapture

        live = stack.enter_context(contextlib.closing(LiveCapture(args.interface, args.filter or "")))
        followed = track(live, follow=True, checksums="ignore", profile=args.profile)
        title = args.interface + (f", {args.filter}" if args.filter else "")
        return glances_of_track(followed, title, args.every, most=args.rows)
    if args.capture is not None:
        followed = track(args.capture, checksums="ignore", profile=args.profile)
        speed = 1.0 if args.speed is None else args.speed
        title = f"{args.capture} at {speed:g} times its speed" if speed else f"{args.capture}, unlimited"
        return glances_of_replay(followed, title, args.every, speed=speed, most=args.rows)
    return glances_of_host(args.every, most=args.rows)


def _show(console: Console, glances: Iterator[Glance]) -> None:
    """A terminal's whole screen, drawn anew; the last view stays behind when it is left."""
    from rich.live import Live

    if not console.is_terminal:
        for glance in glances:
            console.print(render(glance))
        return
    last = None
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for glance in glances:
                last = glance
                live.update(render(glance), refresh=True)
    finally:
        if last is not None:
            console.print(render(last))


# ---- drawing ---------------------------------------------------------------------------------------------------------


def render(glance: Glance) -> RenderableType:
    """A view as something that rich can draw."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.text import Text

    when = datetime.fromtimestamp(max(glance.now_ns, 0) / 1e9, timezone.utc)
    head = Text.assemble(
        f"{when:%Y-%m-%d %H:%M:%S} UTC   ", (f"{glance.connections:,} connections", "bold"), f"   {glance.title}",
        (f"\n{glance.note}" if glance.note else "", "bold"), no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
    return Group(head, Columns([_states(glance), _counts(glance)], padding=(0, 3)), _talkers(glance))


def _states(glance: Glance) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from fasttcp.spec import State

    what = "sockets" if glance.talkers_are == "hosts" else "ends"
    table = Table("state", what, "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    table.columns[0].no_wrap = table.columns[1].no_wrap = True  # so that the bar is what shrinks
    most = max(glance.states.values(), default=0)
    colours = {State.ESTABLISHED: "green", State.TIME_WAIT: "yellow", State.LISTEN: "blue"}
    for state in State:
        n = glance.states.get(state, 0)
        style = colours.get(state, "")
        table.add_row(Text(state.name, style=style if n else "dim"), f"{n:,}", _Bar(n / most if n else 0.0, style))
    return table


class _Bar:
    """A part of the longest bar: as many columns as there are, BAR at most."""

    def __init__(self, part: float, style: str) -> None:
        self.part, self.style = part, style

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(1, min(BAR, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        length = max(1, round(min(BAR, options.max_width) * self.part)) if self.part else 0
        yield Text(("#" if options.ascii_only else "█") * length, style=self.style)


def _counts(glance: Glance) -> RenderableType:
    from rich.table import Table

    table = Table("counted", "total", "a second", box=None, pad_edge=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    for name, (total, rate) in glance.counts.items():
        table.add_row(name, f"{total:,}", f"{rate:,.1f}")
    return table


def _talkers(glance: Glance) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    hosts = glance.talkers_are == "hosts"
    titles = ("remote host", "sockets", "TIME_WAIT", "states") if hosts else ("connection", "bytes/s", "bytes", "states")
    table = Table(*titles, box=None, pad_edge=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    table.columns[0].no_wrap = True
    for one in glance.talkers:
        table.add_row(Text(one.name), f"{one.recent:,.0f}", f"{one.total:,}", Text(one.states))
    return table


# ---- arguments -------------------------------------------------------------------------------------------------------


def _between(text: str, low: float, high: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")  # which is not between any two
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what} from {low:g} to {high:g}")
    return value


def _speed(text: str) -> float:
    return _between(text, 0, 1e9, "speed")


def _every(text: str) -> float:
    return _between(text, 0.05, 3600, "number of seconds")


def _number(text: str) -> int:
    value = _between(text, 1, 10_000, "whole number")
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 10000")
    return int(value)
