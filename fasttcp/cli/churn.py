"""fasttcp churn: how fast a table of connections turns over on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from fasttcp.cli.progress import clear_progress, progress_line

if TYPE_CHECKING:
    from fasttcp.load.harness import ChurnReport

__all__ = ["add_parser", "run"]


def _count(text: str) -> int:
    """250000, 100k, 4M: a number of things, at least 1."""
    scale = {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000}.get(text[-1:].lower(), 1)
    try:
        value = round(float(text[:-1] if scale > 1 else text) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number (250000, 100k, 4M)") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0 s")
    return value


def add_parser(subparsers) -> None:  # type: ignore[no-untyped-def]
    """The verb and its options."""
    from fasttcp.load.mixes import MIXES

    parser = subparsers.add_parser(
        "churn",
        help="measure how fast a table of connections turns over",
        description="Fill a table with connections that open, talk, close and wait 60 s in TIME_WAIT, then measure how fast "
        "it handles their segments. The stream is made up, seeded, and made while the clock stands still.",
        epilog="mixes: " + "; ".join(f"{mix.name}: {mix.what}" for mix in MIXES.values()),
    )
    parser.add_argument("--connections", type=_count, default=1_000_000, metavar="N", help="in the table, TIME_WAIT included (1M)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--events", type=_count, metavar="M", help="segments to measure (10 for each connection)")
    length.add_argument("--seconds", type=_seconds, metavar="S", help="or how long the table is to work")
    parser.add_argument("--threads", type=_count, default=1, metavar="T", help="shards, each with a thread of its own (1)")
    parser.add_argument("--mix", default="ipv4", choices=list(MIXES), metavar="NAME", help="what the connections are like (ipv4)")
    parser.add_argument("--seed", type=int, default=1, metavar="K", help="of the stream and of the table (1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def _line(phase: str, done: float, report: ChurnReport) -> None:
    parts = [f"{phase} {done:4.0%}", f"{report.live:,} connections"]
    if report.events:
        parts += [f"{report.ns_an_event:.1f} ns an event", f"{report.events_a_second / 1e6:.2f} M events/s"]
    progress_line(*parts)


def _text(report: ChurnReport) -> str:
    rows = [
        ("events", f"{report.events:,} in {report.seconds:.3f} s of the table's time"),
        ("events/s", f"{report.events_a_second:,.0f}"),
        ("ns an event", f"{report.ns_an_event:.1f}"),
        ("connections/s", f"{report.connections_a_second:,.0f}"),
        ("connections", f"{report.live:,} of {report.connections:,}, {report.time_wait_share:.0%} in TIME_WAIT"),
        ("expiry lag", f"{report.expiry_lag_ticks} ticks of {report.tick_ns / 1e6:g} ms"),
        (
            "worst pause",
            f"{report.worst_call_ns / 1e6:.3f} ms in one call of {report.batch:,} events (median {report.median_call_ns / 1e6:.3f} ms)",  # noqa: E501
        ),
        ("memory", f"{report.bytes_a_connection:.0f} bytes a connection"),
    ]
    if report.peak_rss_bytes is not None:
        rows.append(("peak RSS", f"{report.peak_rss_bytes / 1e6:,.0f} MB, the stream included"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:{width}}  {value}" for name, value in rows]
    if not report.steady:
        lines.append("stopped while the table was filling up: not the steady state")
    elif report.interrupted:
        lines.append("interrupted")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 130 when interrupted; 2 when the arguments do not fit together."""
    from fasttcp.load.harness import run_churn

    tty = sys.stderr.isatty()
    try:
        report = run_churn(
            args.connections,
            events=args.events,
            seconds=args.seconds,
            threads=args.threads,
            mix=args.mix,
            seed=args.seed,
            progress=_line if tty else None,
        )
    except (ValueError, MemoryError) as refusal:
        print(f"fasttcp churn: {refusal}", file=sys.stderr)
        return 2
    if tty:
        clear_progress()
    print(json.dumps(report.as_dict(), indent=1) if args.json else _text(report))
    return 130 if report.interrupted else 0
