"""Ladders of segments between two hosts, as text and as SVG: lines in, drawing out. No state is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from fasttcp.endpoint.lab import Line

__all__ = ["ladder", "ladder_svg"]

ARROW = 44  # characters between the two states


def ladder(lines: Sequence[Line]) -> str:
    """One line for each segment: time, the client's state, the segment and its direction, the server's state."""
    out = [f"{'seconds':>9}  {'client':<12}{'':{ARROW + 4}}{'server':<12}"]
    for line in lines:
        seconds = f"{line.sent_ns / 1e9:9.3f}"
        left, right = line.states
        if not line.segment:
            text = f"[{line.text}]" if line.side == 0 else f"[{line.text}]".rjust(ARROW)
            out.append(f"{seconds}  {left:<12}  {text:<{ARROW}}  {right:<12}{_fate(line)}".rstrip())
            continue
        lost = line.fate == "lost"
        body = f" {line.text} "
        if line.side == 0:
            arrow = f"---{body}".ljust(ARROW - (8 if lost else 1), "-") + (" X      " if lost else ">")
        else:
            arrow = ("      X " if lost else "<") + f"{body}---".rjust(ARROW - (8 if lost else 1), "-")
        out.append(f"{seconds}  {left:<12}  {arrow}  {right:<12}{_fate(line)}".rstrip())
    return "\n".join(out) + "\n"


def _fate(line: Line) -> str:
    return f"  ({line.fate})" if line.fate else ""


# ---- SVG -------------------------------------------------------------------------------------------------------------

TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0L8 4L0 8z"/></marker></defs>'
)
WIDTH, LEFT, RIGHT, TOP, ROW = 760, 190, 570, 50, 34


def ladder_svg(lines: Sequence[Line], title: str = "") -> str:
    """The classic picture: two vertical lines for the hosts, a slanted arrow for each segment, states beside the lines.

    Time runs down, not to scale: each line has a row, and an arrow goes from the row where it was sent to the one after.
    """
    height = TOP + (len(lines) + 2) * ROW
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        TIP,
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{WIDTH / 2}" y="18" text-anchor="middle" font-weight="bold">{escape(title)}</text>',
    ]
    for x, name in ((LEFT, "client"), (RIGHT, "server")):
        out.append(f'<text x="{x}" y="40" text-anchor="middle" font-weight="bold">{name}</text>')
        out.append(f'<path d="M{x} {TOP}V{height - 10}" stroke="#888888"/>')
    shown = ["", ""]
    for at, line in enumerate(lines):
        out += _row(line, TOP + (at + 1) * ROW, shown)
    out.append("</svg>\n")
    return "\n".join(out)


def _row(line: Line, y: int, shown: list[str]) -> list[str]:
    out = []
    ends = (LEFT, RIGHT)
    for side, state in enumerate(line.states):
        if state and state != shown[side]:
            shown[side] = state
            below = y + (ROW // 2 if line.segment and side != line.side else 0)
            x, anchor = (LEFT - 10, "end") if side == 0 else (RIGHT + 10, "start")
            out.append(f'<text x="{x}" y="{below + 4}" text-anchor="{anchor}" fill="#1b6ca8">{state}</text>')
    if not line.segment:
        x, anchor = (LEFT + 8, "start") if line.side == 0 else (RIGHT - 8, "end")
        out.append(f'<text x="{x}" y="{y + 4}" text-anchor="{anchor}" font-style="italic">{escape(line.text)}</text>')
        return out
    x0, x1, y1 = ends[line.side], ends[1 - line.side], y + ROW // 2
    if line.fate == "lost":
        x1, y1 = (x0 + x1) // 2, y + ROW // 4
        out.append(f'<text x="{x1}" y="{y1 + 5}" text-anchor="middle" fill="#c44e52" font-weight="bold">✕</text>')
    tip = "" if line.fate == "lost" else ' marker-end="url(#tip)"'
    dash = ' stroke-dasharray="5 3"' if line.fate == "an old duplicate" else ""
    out.append(f'<path d="M{x0} {y}L{x1} {y1}" stroke="#000000"{tip}{dash}/>')
    label = line.text + (f" ({line.fate})" if line.fate else "")
    out.append(f'<text x="{WIDTH / 2}" y="{y + 2}" text-anchor="middle" font-size="11">{escape(label)}</text>')
    return out
