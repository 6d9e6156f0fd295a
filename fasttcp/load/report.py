"""What a load has shown: the numbers, and the numbers as text, JSON and CSV. Nothing is measured here."""

from __future__ import annotations

import csv
import difflib
import io
import json
import operator
import re
from dataclasses import asdict, dataclass
from typing import Any

from fasttcp.load.client import COUNTS, OUTCOMES
from fasttcp.load.histogram import Histogram
from fasttcp.spec import State

__all__ = ["Condition", "Report", "Sample", "condition"]

SHARES = (50.0, 90.0, 99.0, 99.9, 99.99)
PHASES = ("connect", "first byte", "close")
BUSY = 0.9  # of a CPU: from here on the generator itself is what limits
LATE, LATE_LEAST = 0.01, 10  # of all connections opened late, and so many of them: likewise
MEANINGS = {
    "ok": "all that was asked was answered, and closed as planned",
    "refused": "the SYN was answered by a RST",
    "unreachable": "the SYN was answered by ICMP, which `also` names",
    "reset": "a RST later",
    "timed_out": "no answer, of TCP or within --timeout",
    "unexpected": "another answer than expected, or its end too early",
    "left": "the peer closed while the connection was to be held",
    "cut_off": "reset at the end of the run",
    "port_pool_empty": "not opened: every port of the pool in use or in TIME_WAIT",
    "table_full": "not opened: no row was left (--max-connections)",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of a run."""

    seconds: float
    phase: str
    states: dict[str, int]  # our ends, by state
    live: int
    rates: dict[str, float]  # a second, in the time since the last sample
    p50_us: dict[str, float | None]  # likewise
    p99_us: dict[str, float | None]
    ports_used: int
    ports: int
    busy: float  # how many CPUs the generator used
    busy_threads: list[float]  # share of a CPU that each of its threads used
    kernel_established: int | None  # open at the kernel's end; only in a network of its own


#: What a condition can name: times in us, shares of all connections, and numbers.
TIMES = tuple(
    f"{phase.replace(' ', '_')}_{what}" for phase in PHASES for what in (*(f"p{share:g}" for share in SHARES), "max", "mean")
)
VALUE_SHARES = tuple(f"{name}_share" for name in OUTCOMES)
NUMBERS = (*COUNTS, "errors", "opened_a_second", "answered_a_second", "held")


@dataclass(frozen=True, slots=True)
class Condition:
    """`connect_p99 > 5ms`: what makes a run fail."""

    text: str
    name: str
    sign: str
    value: float  # us for times, a number for the rest

    def fails(self, report: Report) -> str | None:
        """What to say of a run that it makes fail: it is so, or was not measured, as where nothing came back; else None."""
        value = report.values()[self.name]
        if value is None:
            return f"{self.text} (it was not measured)"
        signs = {
            ">": operator.gt,
            ">=": operator.ge,
            "<": operator.lt,
            "<=": operator.le,
            "==": operator.eq,
            "!=": operator.ne,
        }
        return self.text if signs[self.sign](value, self.value) else None


_CONDITION = re.compile(r"\s*(\w[\w.]*)\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)?)\s*(us|ms|s|%|k|M)?\s*")
_UNITS: dict[tuple[str, ...], dict[str | None, float]] = {
    TIMES: {"us": 1.0, "ms": 1e3, "s": 1e6},
    VALUE_SHARES: {None: 1.0, "%": 0.01},
    NUMBERS: {None: 1.0, "k": 1e3, "M": 1e6},
}


def condition(text: str) -> Condition:
    """Read a condition. ValueError for what is none, for a name that no report has, and for a unit that does not fit it."""
    match = _CONDITION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no condition ('connect_p99 > 5ms', 'reset > 0', 'ok_share < 99.9%')")
    name, sign, number, unit = match.groups()
    for names, units in _UNITS.items():
        if name in names:
            if unit not in units:
                fitting = " or ".join(each or "no unit" for each in units)
                raise ValueError(f"{text!r}: {name} is compared with a number in {fitting}, not in {unit or 'no unit'}")
            return Condition(text.strip(), name, sign, float(number) * units[unit])
    known = [each for names in _UNITS for each in names]
    near = difflib.get_close_matches(name, known, 1)
    instead = f": is {near[0]} meant?" if near else f", as {', '.join(known[:3])}, errors, ok_share"
    raise ValueError(f"{text!r}: {name} is nothing that a report has{instead}")


@dataclass(frozen=True, slots=True)
class Thread:
    """What one thread of the generator had and did. `counts` are its LoadClient's."""

    sources: int  # addresses
    ports: tuple[int, int]
    pool: int  # local ports: of all its addresses together
    table_bytes: int
    counts: dict[str, int]

    @property
    def busy(self) -> float:
        """Share of a CPU."""
        return self.counts["cpu_ns"] / max(self.counts["ran_ns"], 1)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "busy": self.busy}


@dataclass(frozen=True)
class Report:
    """The result of a load. `counts` are LoadClient's, of all threads together; `latency` histograms in ns; `held` is the last
    moment before everything was closed; `lanes` says how packets come to the right one of several threads."""

    scenario: dict[str, Any]
    target: str
    machine: str
    seconds: float
    interrupted: int
    threads: list[Thread]
    lanes: str
    counts: dict[str, int]
    latency: dict[str, Histogram]
    held: Sample
    samples: list[Sample]
    ports: int
    table_bytes: int
    peak_rss: int
    server_processes: int
    notes: list[str]

    @property
    def told(self) -> int:
        return sum(self.counts[name] for name in OUTCOMES)

    @property
    def statuses(self) -> str | None:
        """How many HTTP answers had a status of each class; None where all are 2xx or 3xx."""
        if not self.counts["http_4xx"] + self.counts["http_5xx"]:
            return None
        return "; ".join(f"{name} {n:,}" for name in ("2xx", "3xx", "4xx", "5xx") if (n := self.counts[f"http_{name}"]))

    @property
    def busy(self) -> float:
        """How many CPUs the generator used."""
        return sum(each.busy for each in self.threads)

    @property
    def limit(self) -> str | None:
        """What, other than the server, limited the load; None when nothing is known to have."""
        if self.counts["ports_ran_out"]:
            return "the source pool: every port was in use or in TIME_WAIT; give more --source addresses or --ports"
        if self.counts["rows_ran_out"]:
            return "the table: every row was in use, those in TIME_WAIT included: give --max-connections"
        late = self.counts["late"] >= max(LATE * self.counts["opened"], LATE_LEAST)
        busiest = max(each.busy for each in self.threads)
        if busiest > BUSY:
            who = "it" if len(self.threads) == 1 else f"the busiest of its {len(self.threads)} threads"
            return f"the generator: {who} used {busiest:.0%} of a CPU" + (", and opened late" if late else "")
        if late and (self.scenario["rate"] or any(each["rate"] for each in self.scenario["stage"])):
            return f"the generator, or the CPUs it shares: {self.counts['late']:,} connections were opened more than 1 ms late"
        return None

    def values(self) -> dict[str, float | None]:
        """Everything that a condition can name: counts, shares, and times in us."""
        found: dict[str, float | None] = dict(self.counts)
        for name in OUTCOMES:
            found[f"{name}_share"] = self.counts[name] / self.told if self.told else None
        found["errors"] = sum(self.counts[name] for name in OUTCOMES if name != "ok")
        found["opened_a_second"] = self.counts["opened"] / self.seconds
        found["answered_a_second"] = self.counts["answered"] / self.seconds
        found["held"] = self.held.live
        for name, histogram in self.latency.items():
            key = name.replace(" ", "_")
            for share in SHARES:
                ns = histogram.percentile(share)
                found[f"{key}_p{share:g}"] = None if ns is None else ns / 1000
            found[f"{key}_max"] = None if histogram.most is None else histogram.most / 1000
            found[f"{key}_mean"] = None if histogram.mean is None else histogram.mean / 1000
        return found

    def as_dict(self) -> dict[str, Any]:
        latency = {}
        for name, histogram in self.latency.items():
            latency[name.replace(" ", "_")] = {
                "count": histogram.count,
                **{f"p{share:g}_us": _us(histogram.percentile(share)) for share in SHARES},
                "max_us": _us(histogram.most),
                "mean_us": _us(histogram.mean),
            }
        return {
            "target": self.target,
            "machine": self.machine,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "limit": self.limit,
            "outcomes": {name: self.counts[name] for name in OUTCOMES},
            "counts": {name: value for name, value in self.counts.items() if name not in OUTCOMES},
            "latency": latency,
            "held": asdict(self.held),
            "ports": self.ports,
            "busy": self.busy,
            "threads": [each.as_dict() for each in self.threads],
            "lanes": self.lanes,
            "table_bytes": self.table_bytes,
            "peak_rss_bytes": self.peak_rss,
            "server_processes": self.server_processes,
            "notes": self.notes,
            "scenario": self.scenario,
            "samples": [asdict(sample) for sample in self.samples],
        }

    def json(self) -> str:
        return json.dumps(self.as_dict(), indent=1)

    def csv(self) -> str:
        """One line a second: phase, rates, percentiles, ports, states."""
        states = [state.name for state in State if state is not State.LISTEN]
        out = io.StringIO()
        writer = csv.writer(out)
        names = list(self.samples[0].rates)
        threads = range(len(self.threads) if len(self.threads) > 1 else 0)
        phases = list(self.samples[0].p50_us)
        writer.writerow(
            ["seconds", "phase", "live", *(f"{name}_a_second" for name in names)]
            + [f"{name}_{share}_us" for name in phases for share in ("p50", "p99")]
            + ["ports_used", "ports", "busy", *(f"busy_{i + 1}" for i in threads), "kernel_established", *states]
        )
        for each in self.samples:
            row: list[Any] = [
                f"{each.seconds:.3f}",
                each.phase,
                each.live,
                *(f"{each.rates[name]:.1f}" for name in names),
            ]
            for name in phases:
                row += [each.p50_us[name], each.p99_us[name]]
            row += [each.ports_used, each.ports, f"{each.busy:.3f}"]
            row += [*(f"{each.busy_threads[i]:.3f}" for i in threads), each.kernel_established]
            writer.writerow(row + [each.states.get(name, 0) for name in states])
        return out.getvalue()

    def text(self) -> str:
        """The table that a terminal shows."""
        counts = self.counts
        opened, answered = counts["opened"], counts["answered"]
        lines = [f"target       {self.target}  ({self.machine})"]
        established = "" if counts["established"] == opened else f", {counts['established']:,} established"
        lines.append(
            f"load         {self.seconds:.2f} s: {opened:,} connections opened ({opened / self.seconds:,.0f}/s){established}, "
            f"{answered:,} answers ({answered / self.seconds:,.0f}/s)"
        )
        held = self.held.live - self.held.states.get("SYN_SENT", 0)  # what still connects is not open
        if held:
            kernel = (
                "" if self.held.kernel_established is None else f"; the kernel counts {self.held.kernel_established:,}"
            )
            lines.append(f"held         {held:,} open before closing{kernel}")
        lines += [
            "",
            f"{'latency us':<12} {'count':>11}" + "".join(f"{f'p{share:g}':>11}" for share in SHARES) + f"{'max':>11}",
        ]
        for name, histogram in self.latency.items():
            if histogram.count:
                cells = [_cell(histogram.percentile(share)) for share in SHARES] + [_cell(histogram.most)]
                lines.append(f"{name:<12} {histogram.count:>11,}" + "".join(f"{cell:>11}" for cell in cells))
        lines += ["", "outcome"]
        for name in OUTCOMES:
            if counts[name] or name == "ok":
                lines.append(
                    f"  {name:<16} {counts[name]:>11,}  {counts[name] / max(self.told, 1):>7.2%}  {MEANINGS[name]}"
                )
        if self.statuses:
            lines.append(f"status       {self.statuses}")
        also = [
            f"{counts[name]:,} {text}"
            for name, text in (
                ("syn_retransmitted", "with a SYN sent again"), ("late", "opened more than 1 ms late"),
                ("time_wait_reused", "4-tuples taken over from TIME_WAIT"), ("retransmitted", "segments sent again"),
                ("lost_out", "segments refused by the device"), ("icmp_network", "ICMP: no route to that network"),
                ("icmp_host", "ICMP: no such host"), ("icmp_port", "ICMP: no such port, or a firewall"),
                ("icmp_forbidden", "ICMP: forbidden by a firewall"), ("icmp_too_large", "ICMP: packet too large for the path"),
            )
            if counts[name]
        ]  # fmt: skip
        if also:
            lines.append("also         " + "; ".join(also))
        lines.append(
            f"generator    {self.busy:.0%} of a CPU, {self.peak_rss / 1e6:,.0f} MB at most; "
            f"{counts['packets_in']:,} packets in, {counts['packets_out']:,} out"
        )
        if len(self.threads) > 1:
            opened_by, busy_by = [each.counts["opened"] for each in self.threads], [each.busy for each in self.threads]
            lines.append(
                f"threads      {len(self.threads)}, {self.lanes}: {min(opened_by):,} to {max(opened_by):,} connections, "
                f"{min(busy_by):.0%} to {max(busy_by):.0%} of a CPU"
            )
        if self.limit:
            lines.append(f"limit        {self.limit}")
        if self.interrupted:
            lines.append(
                "interrupted  "
                + ("everything was reset" if self.interrupted > 1 else "no new connections, the open ones closed")
            )
        return "\n".join(lines)


def _us(ns: float | None) -> float | None:
    return None if ns is None else ns / 1000


def _cell(ns: int | None) -> str:
    if ns is None:
        return "-"
    us = ns / 1000
    return f"{us:,.1f}" if us < 1000 else f"{us:,.0f}"
