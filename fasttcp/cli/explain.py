"""Tells one connection's whole story: each segment that mattered, both states, the rule that applied, what was odd.

TUPLE is 'address:port address:port', either end first (also joined by - or >; IPv6 in brackets), or the uid of a log.
A line with an arrow is a segment, from the originator at the left or from the responder at the right; what stands on
the sides is the state that an end came to with it. Segments of which nothing came are counted together.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from fasttcp.cli.said import said

if TYPE_CHECKING:
    from fasttcp.core.steps import TraceStep
    from fasttcp.observe.explain import Moment, Pause, Story

__all__ = ["add_parser", "run"]

WIDTH = 100
TIME = 12  # columns
STATE = 12
MIDDLE = WIDTH - TIME - 2 * STATE - 4  # the arrow with its label, and a space around each


def add_parser(subparsers: Any) -> None:
    """The verb and its options."""
    parser = subparsers.add_parser(
        "explain", help="tell one connection's story, segment by segment", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    parser.add_argument("capture", metavar="CAPTURE", help="a capture, or a directory of captures")
    parser.add_argument("tuple", metavar="TUPLE", nargs="+", help="both ends, or a uid")
    parser.add_argument("--json", action="store_true", help="one JSON object for each connection")
    parser.add_argument(
        "--profile", default="zeek", choices=("zeek", "linux", "bsd", "rfc9293"),
        help="whose rules end a connection (default: zeek)",
    )  # fmt: skip
    parser.add_argument(
        "--checksums", choices=("validate", "ignore"), default="validate",
        help="a segment with a wrong TCP checksum counts for nothing, or like any other (default: validate)",
    )  # fmt: skip
    parser.add_argument("--no-tunnels", action="store_true", help="do not look into tunnels")
    parser.add_argument("--ascii", action="store_true", help="ASCII characters only")


def run(args: argparse.Namespace) -> int:
    """Exit status 0; 1 when there is no such connection or nothing could be read; 2 for a text that names none."""
    from fasttcp.errors import FastTCPError
    from fasttcp.observe.explain import NoSuchConnection, explain, parse_ends

    text = " ".join(args.tuple)
    try:
        parse_ends(text)
    except ValueError as wrong:
        print(f"fasttcp explain: {wrong}", file=sys.stderr)
        return 2
    problems: list[object] = []
    try:
        stories = explain(
            args.capture, text, problems=problems, profile=args.profile, checksums=args.checksums,
            tunnels=not args.no_tunnels,
        )  # fmt: skip
    except NoSuchConnection as nothing:
        near = f"; nearest: {'; '.join(nothing.near)}" if nothing.near else ""
        print(f"fasttcp: {args.capture}: {nothing}{near}", file=sys.stderr)
        return 1
    except (OSError, FastTCPError) as failure:
        print(f"fasttcp: {said(failure)}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"fasttcp: {problem}", file=sys.stderr)
    if args.json:
        for story in stories:
            print(json.dumps(as_dict(story)))
        return 0
    plain = args.ascii or not _speaks_unicode()
    for number, story in enumerate(stories, 1):
        text = "\n".join(lines(story, number, len(stories), _ASCII if plain else _UNICODE))
        print("\n" * (number > 1) + (text.replace("§", "") if plain else text))
    return 0


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")


# ---- JSON ------------------------------------------------------------------------------------------------------------


def as_dict(story: Story) -> dict[str, Any]:
    """A story as JSON has it; times in seconds, states by name, originator first."""
    one = story.connection
    return {
        "uid": one.uid, "id.orig_h": one.orig_addr, "id.orig_p": one.orig_port, "id.resp_h": one.resp_addr,
        "id.resp_p": one.resp_port, "ts": one.first_ns / 1e9, "duration": one.duration_ns / 1e9,
        "conn_state": one.conn_state, "history": one.history, "end": one.end, "orig_state": one.orig_state.name,
        "resp_state": one.resp_state.name, "left_out": story.left_out,
        "happened": [_event_as_dict(event) for event in story.happened],
    }  # fmt: skip


def _event_as_dict(event: Moment | Pause) -> dict[str, Any]:
    from fasttcp.observe.explain import Pause

    if isinstance(event, Pause):
        return {
            "kind": "pause", "ts": event.first_ns / 1e9, "until": event.last_ns / 1e9, "segments": event.segments,
            "payload": event.payload,
        }  # fmt: skip
    return {
        "kind": "segment", "ts": event.time_ns / 1e9, "file": event.file, "packet": event.packet,
        "offset": event.offset, "from": ("orig", "resp")[event.sender], "flags": event.flags, "seq": event.seq,
        "ack": event.ack, "payload": event.payload, "window": event.window,
        "before": [state.name for state in event.before], "after": [state.name for state in event.after],
        "steps": [
            {
                "half": ("orig", "resp")[half], "state": step.state.name, "event": step.event.name,
                "next": step.next.name, "source": step.source, "why": step.why,
            }
            for half, step in event.steps
        ],
        "odd": list(event.odd),
    }  # fmt: skip


# ---- the ladder ------------------------------------------------------------------------------------------------------

_UNICODE = {"line": "─", "right": "▶", "left": "◀", "odd": "! ", "step": "· ", "pause": "┊", "to": " → "}
_ASCII = {"line": "-", "right": ">", "left": "<", "odd": "! ", "step": ". ", "pause": ":", "to": " -> "}


def lines(story: Story, number: int, total: int, arrows: dict[str, str]) -> list[str]:
    """The story in lines of at most 100 columns."""
    from fasttcp.observe.explain import Moment

    one = story.connection
    began = one.first_ns
    which = f"connection {number} of {total} on this 4-tuple, " if total > 1 else ""
    told = [
        f"{which}{one.uid}: {one.conn_state} {one.history or '-'}, {one.end} after {one.duration_ns / 1e9:.6f} s",
        _sides("", _end(one.orig_addr, one.orig_port), "", _end(one.resp_addr, one.resp_port)),
        _sides("seconds", "originator", "", "responder"),
    ]
    for event in story.happened:
        if isinstance(event, Moment):
            told += _moment(event, began, arrows)
        else:
            told.append(_pause(event, began, arrows))
    if story.left_out:
        told.append(f"{'':{TIME}} ... and {story.left_out:,} more that are not told")
    told += _ending(one)
    return [line.rstrip() for line in told]


def _end(addr: str, port: int) -> str:
    return f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"


def _sides(time: str, left: str, middle: str, right: str) -> str:
    """Left text over the left column and rightwards, right text ending at the right edge."""
    room = WIDTH - TIME - 1
    gap = max(1, room - len(left) - len(right) - len(middle))
    return f"{time:>{TIME}} {left}{middle}{' ' * gap}{right}"


def _moment(event: Moment, began: int, arrows: dict[str, str]) -> list[str]:
    left, right = (state.name for state in event.after)
    arrow = _arrow(_label(event), event.sender, arrows)
    told = [f"{(event.time_ns - began) / 1e9:>{TIME}.6f} {left:<{STATE}} {arrow} {right:>{STATE}}"]
    for half, step in event.steps:
        told += _wrapped(_step(half, step, arrows), arrows["step"])
    for words in event.odd:
        told += _wrapped(f"{words} (packet {event.packet}, byte {event.offset})", arrows["odd"])
    return told


def _label(event: Moment) -> str:
    label = f" {event.flags or 'no flags'} seq={event.seq}"
    if event.ack is not None:
        label += f" ack={event.ack}"
    if event.payload:
        label += f" len={event.payload}"
    return label + (" win=0 " if event.window == 0 else " ")


def _arrow(label: str, sender: int, arrows: dict[str, str]) -> str:
    line = label.center(MIDDLE - 1, arrows["line"])
    return line + arrows["right"] if sender == 0 else arrows["left"] + line


def _step(half: int, step: TraceStep, arrows: dict[str, str]) -> str:
    kept = step.next == step.state
    change = f"stays {step.state.name}" if kept else f"{step.state.name}{arrows['to']}{step.next.name}"
    return f"{('originator', 'responder')[half]} {change}, {step.event.name}, {step.source}: {step.why}"


def _wrapped(text: str, mark: str) -> list[str]:
    indent = " " * (TIME + 3)
    return textwrap.wrap(text, WIDTH, initial_indent=indent + mark, subsequent_indent=indent + " " * len(mark))


def _pause(event: Pause, began: int, arrows: dict[str, str]) -> str:
    parts = [
        f"{count:,} segment{'s' if count > 1 else ''} {arrows[way]} {payload:,} bytes"
        for count, payload, way in zip(event.segments, event.payload, ("right", "left"), strict=True)
        if count
    ]
    text = f" {', '.join(parts)}, as expected "
    return f"{(event.first_ns - began) / 1e9:>{TIME}.6f} {'':<{STATE}} {text.center(MIDDLE, arrows['pause'])}"


def _ending(one: Any) -> list[str]:
    from fasttcp.observe.journal import ENDS

    end = _sides("", one.orig_state.name, "", one.resp_state.name)
    counts = (
        f"packets {one.orig_packets:,} and {one.resp_packets:,}, bytes {one.orig_bytes:,} and {one.resp_bytes:,}, "
        f"retransmitted {one.orig_retransmitted:,} and {one.resp_retransmitted:,}, missed {one.missed_bytes:,}"
    )
    rtt = "" if one.rtt_ns is None else f", handshake {one.rtt_ns / 1e6:.3f} ms"
    return [end, *textwrap.wrap(f"{one.end}: {ENDS[one.end]}", WIDTH), *textwrap.wrap(counts + rtt, WIDTH)]


