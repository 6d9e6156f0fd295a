"""The plot of the README: nanoseconds an event against the number of connections, fasttcp and its peers.

    python -m benchmarks.peers.run --json ratios.json
    python -m benchmarks.peers.plot ratios.json docs/churn.svg docs/churn.png

Needs matplotlib, which nothing else in the project does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks.peers.build import PEERS

OURS, FLOOR = "#d62728", "#7f7f7f"
PEERS_COLORS = ("#1f77b4", "#2ca02c", "#17becf", "#9467bd", "#8c564b", "#bcbd22")


def lines(record: dict[str, object]) -> dict[str, list[tuple[int, float]]]:
    """{peer: [(connections, median ns an event), ...]}; what is void is left out."""
    found: dict[str, list[tuple[int, float]]] = {}
    for result in record["results"]:
        for name, times in result["ns_an_event"].items():
            if times and name not in result["void"]:
                found.setdefault(name, []).append((result["connections"], statistics.median(times)))
    return found


def draw(record: dict[str, object], targets: list[Path]) -> None:
    """Both axes logarithmic: a factor has the same height everywhere."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fasttcp"  # the same figures give the same file
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(8, 5))
    axes.set_prop_cycle(color=PEERS_COLORS)
    for name, points in lines(record).items():
        style: dict[str, object] = {"marker": "o", "linewidth": 1.5, "markersize": 4}
        if name == "fasttcp":
            style |= {"color": OURS, "linewidth": 3, "zorder": 3}
        elif name.startswith("floor"):
            style |= {"color": FLOOR, "linestyle": "--" if name == "floor1" else ":"}
        elif name.endswith("_stages"):
            continue  # a question, not a peer: docs/performance.md has its answer
        axes.plot(*zip(*sorted(points), strict=True), label=PEERS[name].what, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sorted({result["connections"] for result in record["results"]}))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k")
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("connections in the table")
    axes.set_ylabel("ns an event, one core")
    axes.set_title("A server's connection churn: open, data, close, TIME_WAIT, expiry", pad=16)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)
    said = f"{record['machine']}; {record['date']}; mix {record['results'][0]['mix']}"
    axes.text(1, 1.005, said, fontsize=6, color=FLOOR, ha="right", va="bottom", transform=axes.transAxes)
    for target in targets:
        figure.savefig(target, bbox_inches="tight", dpi=150, metadata={"Date": None} if target.suffix == ".svg" else None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.plot", description=__doc__.splitlines()[0])
    parser.add_argument("ratios", type=Path, help="what benchmarks.peers.run --json has written")
    parser.add_argument("targets", type=Path, nargs="+", help="files to write: .svg, .png")
    options = parser.parse_args(arguments)
    draw(json.loads(options.ratios.read_text()), options.targets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
