"""The classic state diagram as SVG, with the way that connections took drawn from their traces.

States stand where RFC 9293 figure 5 and its descendants put them; thin arrows are the ordinary transitions of spec.py, thick
ones were taken. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from fasttcp.core.steps import TraceStep
from fasttcp.spec import EVENTS, TRANSITIONS, Event, State

__all__ = ["states_svg"]

WIDTH, HEIGHT, BOX, TALL = 860, 600, 116, 30
PLACES = {
    State.CLOSED: (430, 50), State.LISTEN: (430, 140), State.SYN_RCVD: (200, 210), State.SYN_SENT: (660, 210),
    State.ESTABLISHED: (430, 290), State.FIN_WAIT_1: (170, 390), State.CLOSING: (400, 390), State.CLOSE_WAIT: (690, 390),
    State.FIN_WAIT_2: (170, 490), State.TIME_WAIT: (400, 490), State.LAST_ACK: (690, 490),
}  # fmt: skip
# The one way that would run through other boxes goes round them: x of its upright part.
ROUND = {(State.TIME_WAIT, State.CLOSED): 560}
RARE = {Event.ABORT, Event.CLOSE_UNREAD, Event.RCV_DATA_UNWANTED, Event.OPEN_REUSE, Event.RCV_COOKIE_ACK, Event.RCV_SYN_FATAL}
HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="9" markerHeight="9" orient="auto" '
    'markerUnits="userSpaceOnUse"><path d="M0 0L8 4L0 8z"/></marker></defs>'
)
STYLES = (("#1b6ca8", ""), ("#c44e52", ' stroke-dasharray="7 4"'))


def _ordinary() -> dict[tuple[State, State], list[str]]:
    """(from, to) -> the events of spec.py that lead there in an ordinary life."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for row in TRANSITIONS.values():
        expires = row.event is Event.TIMEOUT_2MSL
        common = EVENTS[row.event].kind in ("call", "segment") and not row.event.name.startswith("RCV_RST")
        if row.state != row.next and (expires or common) and row.event not in RARE:
            arrows.setdefault((row.state, row.next), []).append(row.event.name)
    return arrows


def states_svg(paths: Sequence[tuple[str, Iterable[TraceStep]]], title: str = "") -> str:
    """The diagram with up to two connections' ways, each a name and its steps (`explain`)."""
    taken: dict[tuple[State, State], list[int]] = {}
    labels: dict[tuple[State, State], str] = {}
    for number, (_, steps) in enumerate(paths):
        for step in steps:
            if step.state != step.next:
                ways = taken.setdefault((step.state, step.next), [])
                if number not in ways:
                    ways.append(number)
                labels[step.state, step.next] = step.event.name
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        HEAD,
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="20" y="24" font-weight="bold">{escape(title)}</text>',
    ]
    for pair in _ordinary():
        if pair not in taken:
            out.append(_arrow(*pair, "#bbbbbb", "", 1, 0))
    for pair, ways in taken.items():
        for place, number in enumerate(ways):
            colour, dash = STYLES[number % len(STYLES)]
            out.append(_arrow(*pair, colour, dash, 2.4, 10 * place))
        (x0, y0), (x1, y1) = PLACES[pair[0]], PLACES[pair[1]]
        x, y = (ROUND[pair], y0 - 40) if pair in ROUND else ((x0 + x1) / 2, (y0 + y1) / 2 + (14 if y0 == y1 else 0))
        middle = f'x="{x + 6:g}" y="{y:g}"'
        out.append(f'<text {middle} font-size="10">{labels[pair]}</text>')
    for state, (x, y) in PLACES.items():
        out.append(
            f'<rect x="{x - BOX / 2:g}" y="{y - TALL / 2:g}" width="{BOX}" height="{TALL}" rx="5" fill="#f4f4f4" stroke="#333333"/>'
        )
        out.append(f'<text x="{x}" y="{y + 4}" text-anchor="middle" font-weight="bold">{state.name}</text>')
    for number, (name, _) in enumerate(paths):
        colour, dash = STYLES[number % len(STYLES)]
        y = HEIGHT - 40 + 18 * number
        out.append(f'<path d="M20 {y}h40" stroke="{colour}" stroke-width="2.4"{dash}/>')
        out.append(f'<text x="70" y="{y + 4}">{escape(name)}</text>')
    out.append("</svg>\n")
    return "\n".join(out)


def _arrow(start: State, end: State, colour: str, dash: str, width: float, aside: float) -> str:
    """From the edge of one box to the edge of the other; `aside` moves it, for two on one way."""
    (x0, y0), (x1, y1) = PLACES[start], PLACES[end]
    style = f'fill="none" stroke="{colour}" stroke-width="{width}"{dash} marker-end="url(#head)"'
    if (start, end) in ROUND:
        return f'<path d="M{x0 + BOX / 2:g} {y0}H{ROUND[start, end]}V{y1}H{x1 + BOX / 2:g}" {style}/>'
    dx, dy = x1 - x0, y1 - y0
    share = min(BOX / 2 / abs(dx) if dx else 9.0, TALL / 2 / abs(dy) if dy else 9.0)
    length = (dx * dx + dy * dy) ** 0.5
    ox, oy = -dy / length * aside, dx / length * aside
    path = f"M{x0 + dx * share + ox:.1f} {y0 + dy * share + oy:.1f}L{x1 - dx * share + ox:.1f} {y1 - dy * share + oy:.1f}"
    return f'<path d="{path}" {style}/>'
