"""Writes docs/plan-kernel.json (what the kernel did), and docs/plan-kernel.md and .svg (that beside the plan).

    cd tests && python -m kernel_plan.record            run the kernel for two and a half minutes, as root, and write all
    cd tests && python -m kernel_plan.record --page     write the page and the plot anew from the recorded run
"""

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from fasttcp.load.chart import svg

from .compare import WITHIN, compare, plan_time_wait
from .drive import drive_all
from .scenarios import LIFETIME_S, SCENARIOS, SECONDS, Scenario, grain_ns

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
RECORD, PAGE, PLOT = DOCS / "plan-kernel.json", DOCS / "plan-kernel.md", DOCS / "plan-kernel.svg"
PLOTTED = ("exhausted", "reuse-1", "buckets", "mix")

#: (scenario, figure): why they differ by more than WITHIN. Empty: none does.
EXPLAINED: dict[tuple[str, str], str] = {}

HEAD = """# The plan and the kernel

<!-- Written by tests/kernel_plan/record.py from plan-kernel.json: do not edit. -->

Real sockets of a real kernel under nine loads, beside what `fasttcp plan` says of the same loads. Each load runs in a network
namespace of its own, all nine at once, for {seconds} s: 50 or 100 connects a second, each closed first {lifetime:g} s later.
The kernel's figures are its own: `tw` of /proc/net/sockstat once a second, `TWRecycled` and `TCPTimeWaitOverflow` of
/proc/net/netstat, EADDRNOTAVAIL as connect() returns it. Recorded on Linux {release}, {hz} Hz; run it on yours with

    cd tests && python -m kernel_plan.record

or as the test `pytest -m slow`. {verdict}

![TIME_WAIT over time, kernel and plan](plan-kernel.svg)

| load | sysctls | shows |
|---|---|---|
{loads}

## Figures

Counts over time are compared every 10 s; the row says the worst of them, as a share of the peak.

| load | figure | kernel | plan | difference |
|---|---|---:|---:|---:|
{figures}

## What it took

Four things that are not in any formula were needed for these figures, and each is part of the engine's `linux` profile or of
the plan now:

- **Which port is tried next** (`port_choice`). Linux tries every other port first, and passes over up to 14 after each choice.
  So with tcp_tw_reuse = 1 the other half of the ports is never touched: 1,000 ports give 480 sockets in TIME_WAIT, not 980.
- **The grain of the timers** (`--tick`). At {hz} Hz a timer of 60 s fires on a multiple of {grain:g} s: TIME_WAIT lasts 60 to
  {longest:.2f} s, and ports come back in bursts. Figures at one moment agree only if
  the plan also knows where in that grain the load began; the test reads it from /proc/timer_list.
- **A SYN that meets an old connection** (`syn_retry_after_bad_ack`). With tcp_fin_timeout = 5 the client forgets while the
  server still sits in CLOSE_WAIT. The next SYN on that 4-tuple is answered by an ACK, the client answers with a RST, and Linux
  sends the SYN again two jiffies later, not a second later.
- **What sockstat counts.** Its `tw` also holds orphans in FIN_WAIT_2: the kernel keeps both in the same small record. In the row
  `fin-timeout` nothing is in TIME_WAIT at all.
"""


def record() -> dict[str, Any]:
    """Run the kernel."""
    return {"release": platform.release().split("-")[0], "hz": hz(), "seconds": SECONDS, "runs": drive_all(SCENARIOS)}


def hz() -> int:
    """The kernel's CONFIG_HZ, from its configuration where that can be read; else 250, most distributions' choice."""
    import gzip

    for path in ("/proc/config.gz", f"/boot/config-{os.uname().release}"):
        try:
            data = Path(path).read_bytes()
        except OSError:
            continue
        text = (gzip.decompress(data) if path.endswith(".gz") else data).decode()
        return next(int(line.split("=")[1]) for line in text.splitlines() if line.startswith("CONFIG_HZ="))
    return 250


def _rows(scenario: Scenario, data: dict[str, Any]) -> list[str]:
    run = data["runs"][scenario.name]
    figures = compare(scenario, run, scenario.predict(data["hz"], run["jiffies"]))
    moments = [one for one in figures if one.name.startswith("TIME_WAIT at")]
    worst = max(moments, key=lambda one: one.off)
    shown = [one for one in figures if one not in moments and (one.kernel or one.plan)]
    out = []
    for one in [shown[0], worst, *shown[1:]]:
        why = EXPLAINED.get((scenario.name, one.name), "")
        cells = (f"{value:,.2f}" if value != int(value) else f"{value:,.0f}" for value in (one.kernel, one.plan))
        out.append(f"| {scenario.name} | {one.name} | {' | '.join(cells)} | {one.off:.1%} {why}".rstrip() + " |")
    return out


def page(data: dict[str, Any]) -> str:
    """The page for a recorded run."""
    loads = [
        f"| {one.name} | {', '.join(f'{k} = {v}' for k, v in {'tcp_tw_reuse': 0, **one.sysctls}.items())} | {one.shows} |"
        for one in SCENARIOS
    ]
    figures = [row for one in SCENARIOS for row in _rows(one, data)]
    off = [
        (one.name, figure)
        for one in SCENARIOS
        for figure in compare(one, data["runs"][one.name], one.predict(data["hz"], data["runs"][one.name]["jiffies"]))
    ]
    far = [pair for pair in off if not pair[1].agrees]
    verdict = (
        f"All {len(off)} figures agree within {WITHIN:.0%}."
        if not far
        else f"{len(off) - len(far)} of {len(off)} figures agree within {WITHIN:.0%}; the others are explained."
    )
    grain = grain_ns(60, data["hz"]) / 1e9
    return HEAD.format(
        seconds=data["seconds"], lifetime=LIFETIME_S, release=data["release"], hz=data["hz"], verdict=verdict,
        loads="\n".join(loads), figures="\n".join(figures), grain=grain, longest=60 + grain,
    )  # fmt: skip


def plot(data: dict[str, Any]) -> str:
    """TIME_WAIT over time: a panel for each of PLOTTED."""
    panels = []
    for scenario in (one for one in SCENARIOS if one.name in PLOTTED):
        run = data["runs"][scenario.name]
        predicted = plan_time_wait(scenario.predict(data["hz"], run["jiffies"]))
        seconds = [float(second) for second in range(1, len(run["time_wait"]) + 1)]
        lines = [("kernel", seconds, run["time_wait"]), ("plan", seconds, [predicted[int(s)] for s in seconds])]
        panels.append((f"{scenario.name}: {scenario.shows}", lines))
    return svg(panels)


def write(data: dict[str, Any]) -> None:
    """The page and the plot."""
    PAGE.write_text(page(data), encoding="utf-8")
    PLOT.write_text(plot(data), encoding="utf-8")


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--page"]):
        print(__doc__, file=sys.stderr)
        return 2
    if not arguments:
        RECORD.write_text(json.dumps(record()) + "\n", encoding="utf-8")
    write(json.loads(RECORD.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
