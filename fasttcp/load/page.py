"""A report as one HTML page that needs nothing else: plots as inline SVG, no script, no font, no address.

Must not measure or decide anything: what it shows is in Report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from fasttcp.load.client import OUTCOMES
from fasttcp.load.report import MEANINGS, SHARES, Report

__all__ = ["page"]

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 72, 16, 14, 34
# Eight colours that can be told apart, on white and on black, also without red or green (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a00", "#7f7f7f")
# Lines that lie on one another are all seen: the first is the widest.
WIDTHS = (5, 3.6, 2.6, 1.8, 1.5, 1.5, 1.5, 1.5)
STYLE = """
:root { color-scheme: light dark; --line: #8884; --ink: #222; --paper: #fff; --soft: #666; }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #161616; --soft: #999; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 86rem; font: 15px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; } h2 { font-size: 1.02rem; margin: 0 0 .5rem; }
p { margin: .2rem 0; color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: .6rem 2.2rem; margin: 1rem 0; }
.figures b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.4rem; }
section { min-width: 0; }
.row { grid-column: 1 / -1; }
.wide { overflow-x: auto; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
@media (max-width: 40rem) { svg text { font-size: 17px; } }
.axis { stroke: var(--line); stroke-width: 1; }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; vertical-align: -.08rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; width: 100%; }
th, td { padding: .22rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, td.words { text-align: left; } td.words { white-space: normal; color: var(--soft); }
.limit { border-left: 4px solid #d55e00; padding: .3rem .8rem; color: var(--ink); }
"""

Series = tuple[str, list[float | None]]


def _short(value: float) -> str:
    """1234567 as 1.23M: for axes."""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}"


def _time(us: float) -> str:
    for size, name in ((1e6, "s"), (1e3, "ms")):
        if us >= size:
            return f"{us / size:.3g} {name}"
    return f"{us:.3g} us"


def _nice(most: float, parts: int = 4) -> list[float]:
    """Round marks from 0 to at least `most`."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / parts
    size: float = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)]


def _decades(least: float, most: float) -> list[float]:
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def _plot(
    title: str, xs: Sequence[float], series: Sequence[Series], *, log: bool = False, name: Callable[[float], str] = _short,
    marks: Sequence[tuple[float, str]] | None = None, dots: bool = False,
) -> str:  # fmt: skip
    """Lines over xs. `marks` are the places and names on the x axis; without them it is seconds."""
    shown = [y for _, ys in series for y in ys if y is not None and (y > 0 or not log)]
    if not shown or not xs:
        return ""
    ticks = _decades(min(shown), max(shown)) if log else _nice(max(shown))
    low, high = (math.log10(ticks[0]), math.log10(ticks[-1])) if log else (0.0, ticks[-1])
    first, last = min(xs), max(xs)

    def x_of(x: float) -> float:
        return LEFT + (x - first) / max(last - first, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        share = ((math.log10(y) if log else y) - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{name(tick)}</text>')
    for place, text in marks or [(x, f"{_short(x)} s") for x in _nice(last) if first <= x <= last]:
        parts.append(f'<text x="{x_of(place):.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(text)}</text>')
    for (label, ys), colour, width in zip(series, COLOURS, WIDTHS, strict=False):
        points = [(x_of(x), y_of(y)) for x, y in zip(xs, ys, strict=True) if y is not None and (y > 0 or not log)]
        if not points:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="{width}" points="{path}">'
            f"<title>{escape(label)}</title></polyline>"
        )
        if dots or len(points) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    key = "".join(
        f'<span><i style="background:{colour}"></i>{escape(label)}</span>'
        for (label, _), colour in zip(series, COLOURS, strict=False)
    )
    return (
        f'<section><h2>{escape(title)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}</svg><div class="key">{key}</div></section>'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = -1) -> str:
    cells = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=words' if i == words else ''}>{escape(each)}</td>" for i, each in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>'


def _busy(report: Report) -> list[Series]:
    if len(report.threads) == 1:
        return [("CPU", [each.busy for each in report.samples])]
    return [
        ("the busiest thread", [max(each.busy_threads) for each in report.samples]),
        (f"mean of {len(report.threads)} threads", [each.busy / len(report.threads) for each in report.samples]),
    ]


def page(report: Report) -> str:
    """The page as text of HTML."""
    counts, samples = report.counts, report.samples
    xs = [each.seconds for each in samples]
    names = [name for name in ("ESTABLISHED", "SYN_SENT", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT")
             if any(name in each.states for each in samples)]  # fmt: skip
    states: list[Series] = [(name, [float(each.states.get(name, 0)) for each in samples]) for name in names]
    if any(each.kernel_established is not None for each in samples):
        states.append(("open at the kernel's end", [each.kernel_established for each in samples]))
    rates: list[Series] = [
        (f"{name.replace('_', ' ')}/s", [each.rates[name] for each in samples])
        for name in ("opened", "established", "answered")
    ]
    over_time: list[Series] = [
        (f"{phase.replace('_', ' ')} {share}", [getattr(each, f"{share}_us")[phase] for each in samples])
        for phase in ("connect", "first_byte", "close")
        for share in ("p50", "p99")
        if any(getattr(each, f"{share}_us")[phase] is not None for each in samples)
    ]
    ladder = [*SHARES, 100.0]
    percentiles: list[Series] = [
        (name, [(histogram.percentile(share) or 0) / 1000 for share in ladder])
        for name, histogram in report.latency.items()
        if histogram.count
    ]
    ports: list[Series] = [
        ("TIME_WAIT", [float(each.states.get("TIME_WAIT", 0)) for each in samples]),
        ("local ports in use", [float(each.ports_used) for each in samples]),
        (f"ports of the pool ({report.ports:,})", [float(each.ports) for each in samples]),
    ]
    plots = [
        _plot("Connections by state", xs, states),
        _plot("Connections a second", xs, rates),
        _plot("Latency by percentile", list(range(len(ladder))), percentiles, log=True, name=_time, dots=True,
              marks=[(i, "max" if share == 100 else f"p{share:g}") for i, share in enumerate(ladder)]),
        _plot("Latency over time", xs, over_time, log=True, name=_time),
        _plot("TIME_WAIT against ports", xs, ports, log=True),
        _plot("Share of a CPU that the generator used", xs, _busy(report)),
    ]  # fmt: skip
    figures = [
        (f"{counts['opened']:,}", "connections opened"),
        (f"{counts['opened'] / report.seconds:,.0f}/s", "on average"),
        (f"{max(each.live for each in samples):,}", "open at once at most"),
        (f"{counts['ok'] / max(report.told, 1):.3%}", "as planned"),
        (f"{report.peak_rss / 1e6:,.0f} MB", "memory of the generator"),
    ]
    outcomes = [
        (name, f"{counts[name]:,}", f"{counts[name] / max(report.told, 1):.3%}", MEANINGS[name])
        for name in OUTCOMES
        if counts[name]
    ]
    latency = [
        (name, f"{histogram.count:,}", *(_time((histogram.percentile(share) or 0) / 1000) for share in ladder))
        for name, histogram in report.latency.items()
        if histogram.count
    ]
    by_thread = ""
    if len(report.threads) > 1:
        rows = [
            [str(number), f"{each.sources:,}", f"{each.ports[0]} to {each.ports[1]}"]
            + [f"{each.counts[name]:,}" for name in ("opened", "answered", "packets_in", "packets_out")]
            + [f"{each.busy:.0%}"]
            for number, each in enumerate(report.threads, 1)
        ]
        head = ["thread", "source addresses", "ports", "opened", "answers", "packets in", "packets out", "of a CPU"]
        by_thread = f'<section class="row"><h2>Threads, {escape(report.lanes)}</h2>{_table(head, rows)}</section>'
    statuses = f"<p>HTTP status: {escape(report.statuses)}.</p>" if report.statuses else ""
    limit = f'<p class="limit">The limit was {escape(report.limit)}.</p>' if report.limit else ""
    notes = "".join(f'<p class="limit">{escape(text)}</p>' for text in report.notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>fasttcp load {escape(report.target)}</title><style>{STYLE}</style></head><body>
<h1>fasttcp load, {escape(report.target)}</h1>
<p>{report.seconds:.1f} s on {escape(report.machine)}; latencies count from the scheduled time.</p>{limit}{notes}
<div class="figures">{"".join(f"<div><b>{escape(value)}</b>{escape(what)}</div>" for value, what in figures)}</div>
<div class="grid">{"".join(plots)}</div>
<div class="grid" style="margin-top:1.6rem">
<section><h2>Outcomes</h2>{_table(["outcome", "connections", "share", ""], outcomes, words=3)}{statuses}</section>
<section><h2>Latency</h2>{_table(["phase", "count", *(f"p{share:g}" for share in SHARES), "max"], latency)}</section>
{by_thread}</div></body></html>
"""
