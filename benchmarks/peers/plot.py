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
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, points in lines(record).items():
        style: dict[str, object] = {"marker": "o", "linewidth": 1.5, "markersize": 4}
        if name == "fasttcp":
            style |= {"color": OURS, "linewidth": 3, "zorder": 3}
        elif name.startswith("floor"):
            style |= {"color": FLOOR, "linestyle": "--" if name == "floor1" else ":"}
        elif name.endswith("_stages"):
            style |= {"alpha": 0.35}
        axes.plot(*zip(*sorted(points), strict=True), label=PEERS[name].what, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("connections in the table")
    axes.set_ylabel("ns an event")
    axes.set_title(f"TCP churn, one core: {record['results'][0]['mix']}")
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.text(0.01, 0.01, f"{record['machine']}; {record['date']}", fontsize=6, color=FLOOR)
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
