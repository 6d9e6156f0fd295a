"""The plot of a plan: TIME_WAIT and free ports over time, one line for each policy. SVG is written here, PNG by matplotlib.

Nothing is computed here but positions on paper.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from xml.sax.saxutils import escape

__all__ = ["ChartError", "Line", "draw", "svg"]

COLOURS = ("#1b6ca8", "#c44e52", "#55a868", "#8172b2", "#ccb974", "#64b5cd", "#8c613c", "#4c4c4c")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP, BOTTOM = 900, 260, 90, 20, 34, 60, 46

Line = tuple[str, Sequence[float], Sequence[float]]  # name, seconds, values
Panel = tuple[str, Sequence[Line]]  # title, lines


class ChartError(RuntimeError):
    """The plot cannot be made: its message says what is missing."""


def draw(path: str, panels: Sequence[Panel]) -> None:
    """Write the panels to FILE.svg or FILE.png. Raises ChartError for another name, or when matplotlib is not there."""
    kind = os.path.splitext(path)[1].lower()
    if kind == ".svg":
        with open(path, "w", encoding="utf-8") as file:
            file.write(svg(panels))
    elif kind == ".png":
        _png(path, panels)
    else:
        raise ChartError(f"{path}: the plot is written as .svg or .png")


def _png(path: str, panels: Sequence[Panel]) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ChartError("a PNG needs matplotlib: pip install 'fasttcp[plot]', or name a .svg") from None
    figure = Figure(figsize=(9, 3 * len(panels)), layout="constrained")
    for at, (title, lines) in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, at + 1)
        for i, (name, xs, ys) in enumerate(lines):
            axes.plot(xs, ys, label=name, color=COLOURS[i % len(COLOURS)], linewidth=1 if i else 2.4)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _ticks(most: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to beyond `most`."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / about
    unit = 10.0 ** (len(str(int(rough))) - 1) if rough >= 1 else 10.0 ** -next(k for k in range(1, 12) if rough * 10**k >= 1)
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough)
    ticks = [0.0]
    while ticks[-1] < most:
        ticks.append(round(ticks[-1] + step, 12))
    return ticks


def svg(panels: Sequence[Panel]) -> str:
    """The panels below one another as an SVG document."""
    total = TOP + len(panels) * (HEIGHT + GAP) + BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{total}" fill="#ffffff"/>',
    ]
    for at, (title, lines) in enumerate(panels):
        out += _panel(title, lines, TOP + at * (HEIGHT + GAP))
    out.append("</svg>\n")
    return "\n".join(out)


def _panel(title: str, lines: Sequence[Line], top: int) -> list[str]:
    xs = _ticks(max((max(line[1], default=0) for line in lines), default=0), 8)
    ys = _ticks(max((max(line[2], default=0) for line in lines), default=0))
    inner = WIDTH - LEFT - RIGHT

    def x(value: float) -> float:
        return round(LEFT + value / xs[-1] * inner, 1)

    def y(value: float) -> float:
        return round(top + HEIGHT - value / ys[-1] * HEIGHT, 1)

    out = [f'<text x="{LEFT}" y="{top - 10}" font-weight="bold">{escape(title)}</text>']
    for tick in ys:
        out.append(f'<path d="M{LEFT} {y(tick)}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:,.6g}</text>')
    for tick in xs:
        out.append(f'<path d="M{x(tick)} {top}V{top + HEIGHT}" stroke="#eeeeee"/>')
        out.append(f'<text x="{x(tick)}" y="{top + HEIGHT + 16}" text-anchor="middle">{tick:g} s</text>')
    for i, (name, seconds, values) in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join(f"{x(s)},{y(v)}" for s, v in zip(seconds, values, strict=True))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{1.4 if i else 3.2}"/>')
        out.append(f'<path d="M{LEFT + 12} {top + 14 + 16 * i}h22" stroke="{colour}" stroke-width="3"/>')
        out.append(f'<text x="{LEFT + 40}" y="{top + 18 + 16 * i}">{escape(name)}</text>')
    return out
