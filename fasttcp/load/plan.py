"""`plan`: what a load does to ports and TIME_WAIT, by the closed formula and by the engine's own simulation.

    Load + Profile --> script, two endpoint tables --> Simulation (compiled, virtual time) --> Plan
                   \\-> formula -----------------------------------------------------------/

Here: one run, its figures, and conditions on them. The load is described in loads.py, advice.py says what to change, chart.py
draws. Nothing here knows a rule of TCP, and no clock is read: the same load and profile give the same plan.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from fasttcp.core.table import ConnectionTable
from fasttcp.load.formula import Formula, formula
from fasttcp.load.loads import Load
from fasttcp.load.simulation import SAMPLE_FIELDS, Simulation
from fasttcp.profiles import Profile

__all__ = ["FIGURES", "TIME_WAIT_BYTES", "Plan", "check", "make_plan", "parse_condition", "usual_duration_ns"]

TICK_NS = 10_000_000
#: what one connection in TIME_WAIT costs the kernel: struct tcp_timewait_sock, one object of the slab tw_sock_TCP (Linux 6.18,
#: x86-64, /proc/slabinfo)
TIME_WAIT_BYTES = 256
MAX_ROWS = 1 << 27
SAMPLES = 600

#: name -> (unit, meaning): the figures of a plan, for --json and --fail-if
FIGURES: dict[str, tuple[str, str]] = {
    "duration": ("s", "virtual time simulated"),
    "connects": ("", "connects tried"),
    "opened": ("", "connections opened"),
    "connect_failures": ("", "connects that failed: no port, refused, or timed out"),
    "no_port": ("", "connects that found no free port (EADDRNOTAVAIL)"),
    "refused": ("", "connects that were reset"),
    "timed_out": ("", "connects that were never answered"),
    "first_failure": ("s", "when the first connect failed; none if none did"),
    "failures_per_second": ("/s", "failures a second in the steady state"),
    "carried_per_second": ("/s", "connections opened a second in the steady state"),
    "client_time_wait_peak": ("", "connections in TIME_WAIT on the client, at most"),
    "client_time_wait_steady": ("", "the same in the steady state"),
    "server_time_wait_peak": ("", "connections in TIME_WAIT on the server, at most"),
    "server_time_wait_steady": ("", "the same in the steady state"),
    "client_fin_wait_2_peak": ("", "connections in FIN_WAIT_2 on the client, at most"),
    "server_close_wait_peak": ("", "connections in CLOSE_WAIT on the server, at most"),
    "alive_peak": ("", "the client's connections that are not in TIME_WAIT, at most"),
    "alive_steady": ("", "the same in the steady state"),
    "ports": ("", "ephemeral ports that one pair has"),
    "pairs": ("", "pairs: source, destination, destination port"),
    "ports_in_use_peak": ("", "ports in use of the busiest pair, at most"),
    "ports_in_use_steady": ("", "the same in the steady state"),
    "free_ports_least": ("", "free ports of the busiest pair, at least"),
    "reused": ("", "connections that took a port in TIME_WAIT (tcp_tw_reuse)"),
    "reopened": ("", "connections that a SYN opened out of the server's TIME_WAIT"),
    "overflowed": ("", "connections that found tcp_max_tw_buckets full and did not wait"),
    "recycle_rejected": ("", "SYNs that tcp_tw_recycle dropped"),
    "retransmitted": ("", "segments sent again"),
    "time_wait_memory": ("B", f"the kernel's memory for the peak of TIME_WAIT, both hosts, {TIME_WAIT_BYTES} B each"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load does. `figures` has the names of FIGURES; `series` a column for each of SAMPLE_FIELDS."""

    load: Load
    profile: Profile
    formula: Formula
    figures: dict[str, float | None]
    series: dict[str, list[int]] = field(repr=False)
    steady_s: float = 0.0  # the steady state is taken over so much time at the end
    simulation_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON: what was asked, both answers, and the series."""
        load = asdict(self.load)
        if self.load.captured is not None:
            load["captured"] = {"name": self.load.captured.name, "connections": len(self.load.captured.arrivals)}
        formula = {k: None if v is not None and math.isinf(v) else v for k, v in asdict(self.formula).items()}
        return {
            "load": load, "changes": self.profile.changes(), "profile": self.profile.base, "formula": formula,
            "simulation": self.figures, "steady_s": self.steady_s, "series": self.series,
        }  # fmt: skip


def usual_duration_ns(load: Load, profile: Profile) -> int:
    """Long enough for a steady state: two rounds of opening, living, and waiting, and half a minute."""
    life: int = load.lifetime_ns
    if load.captured is not None:
        life = max(life_ns for _, life_ns, _, _ in load.captured.arrivals)
    half_closed = (profile.tcp_fin_timeout_ns or 0) if load.answer_ns is None else load.answer_ns
    longest = 2 * (profile.time_wait_ns + min(life, 3600 * 10**9) + min(half_closed, 3600 * 10**9)) + 30 * 10**9
    return int(-(-longest // 10**10) * 10**10)


def make_plan(
    load: Load, profile: Profile, *, duration_ns: int | None = None, seed: int = 1, tick_ns: int = TICK_NS, phase_ns: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Plan:  # fmt: skip
    """Simulate a load under a profile, and put the formula beside it.

    Parameters
    ----------
    load, profile : Load, Profile
        Who connects to whom; the policy of both hosts.
    duration_ns : int or None
        Virtual time, ns; None: until a steady state is certain.
    seed : int
        Of both tables: of port offsets and sequence numbers. The figures hardly depend on it.
    tick_ns : int
        The grain of the timers. A real kernel's is coarser: Linux at 250 Hz fires a timer of 60 s up to 2.048 s late.
    phase_ns : int
        How long before the load's beginning the timers' tick began.
    progress : callable or None
        Called with the share done, 0 to 1, some hundred times.

    Raises ValueError for what cannot be, MemoryError when what is alive does not fit. Cost: about 1 us of one core for each
    connection; memory for what is alive, some 450 bytes for both ends.
    """
    duration = usual_duration_ns(load, profile) if duration_ns is None else duration_ns
    if not 10**7 <= duration <= 10 * 86400 * 10**9:
        raise ValueError(f"duration is {duration / 1e9:g} s: it must be from 0.01 s to 10 days")
    sample = _sample_ns(duration)
    script, period = load.script
    delay = max(1, load.rtt_ns // 2)
    client = ConnectionTable(1024, max_capacity=MAX_ROWS, profile=profile, seed=seed, tick_ns=tick_ns)
    server = ConnectionTable(1024, max_capacity=MAX_ROWS, profile=profile, seed=seed + 1, tick_ns=tick_ns)
    for table in (client, server) if phase_ns else ():
        table.advance(-phase_ns)  # an empty table counts its ticks from the first time that it sees
    run = Simulation(
        client, server, load.pairs, script, period, delay_ns=delay, answer_ns=load.answer_ns, sample_ns=sample,
        duration_ns=duration,
    )  # fmt: skip
    for step in range(1, 101):
        run.run(duration * step // 100)
        if progress is not None:
            progress(step / 100)
    samples = run.samples()
    series = {name: [one[at] for one in samples] for at, name in enumerate(SAMPLE_FIELDS)}
    cycle = profile.time_wait_ns + load.lifetime_ns
    rows = max(1, min(round(cycle / sample), len(samples) * 2 // 3))
    return Plan(
        load, profile, _formula(load, profile), _figures(load, profile, run, series, rows, duration), series,
        steady_s=rows * sample / 1e9, simulation_bytes=run.nbytes,
    )  # fmt: skip


def _sample_ns(duration_ns: int) -> int:
    """A round time between samples: at most SAMPLES of them."""
    least = -(-duration_ns // SAMPLES)
    unit: int = 10 ** (len(str(least)) - 1)
    return next(unit * k for k in (1, 2, 5, 10) if unit * k >= least)


def _formula(load: Load, profile: Profile) -> Formula:
    reuse = profile.tcp_tw_reuse == 1 or (profile.tcp_tw_reuse == 2 and load.loopback)
    return formula(
        rate=load.rate, lifetime_s=load.lifetime_ns / 1e9, pairs=len(load.pairs), busiest_share=load.busiest_share,
        ports=_ports(profile), server_share=load.server_share, time_wait_s=_time_wait_s(load, profile),
        reuse_after_s=profile.tcp_tw_reuse_delay_ns / 1e9 if reuse and profile.tcp_timestamps else None,
        buckets=profile.tcp_max_tw_buckets, even_first=profile.port_choice == "even_first",
        reopens=profile.time_wait_syn_reopens != "never",
    )  # fmt: skip


def _time_wait_s(load: Load, profile: Profile) -> float:
    """2MSL; with tcp_tw_recycle 3.5 RTO; tcp_fin_timeout in its place where the peer never closes."""
    if load.answer_ns is None:
        return math.inf if profile.tcp_fin_timeout_ns is None else profile.tcp_fin_timeout_ns / 1e9
    if profile.tcp_tw_recycle and profile.tcp_timestamps:
        return 3.5 * max(profile.rto_min_ns, load.rtt_ns) / 1e9
    return profile.time_wait_ns / 1e9


def _ports(profile: Profile) -> int:
    first, last = profile.ip_local_port_range
    if profile.port_choice == "even_first" and last > first:
        last -= (last - first + 1) % 2  # they are tried in two rounds of the same length
    return last - first + 1 - sum(first <= port <= last for port in profile.ip_local_reserved_ports)


def _figures(
    load: Load, profile: Profile, run: Simulation, series: dict[str, list[int]], rows: int, duration_ns: int
) -> dict[str, float | None]:
    counts = run.counts()
    failed = counts["no_port"] + counts["refused"] + counts["timed_out"]
    seconds = rows * (series["time_ns"][0]) / 1e9

    def steady(name: str) -> float:
        part = series[name][-rows:]
        return round(sum(part) / len(part), 1)

    def speed(name: str) -> float:
        """A total's growth a second in the steady state."""
        column = series[name]
        return round((column[-1] - (column[-rows - 1] if len(column) > rows else 0)) / seconds, 3)

    ports = _ports(profile)
    tables_peak = max(series["client_time_wait"]) + max(series["server_time_wait"])
    return {
        "duration": duration_ns / 1e9,
        "connects": counts["opened"] + counts["no_port"],
        "opened": counts["opened"],
        "connect_failures": failed,
        "no_port": counts["no_port"],
        "refused": counts["refused"],
        "timed_out": counts["timed_out"],
        "first_failure": None if counts["first_failure_ns"] < 0 else round(counts["first_failure_ns"] / 1e9, 6),
        "failures_per_second": speed("failed"),
        "carried_per_second": speed("opened"),
        "client_time_wait_peak": max(series["client_time_wait"]),
        "client_time_wait_steady": steady("client_time_wait"),
        "server_time_wait_peak": max(series["server_time_wait"]),
        "server_time_wait_steady": steady("server_time_wait"),
        "client_fin_wait_2_peak": max(series["client_fin_wait_2"]),
        "server_close_wait_peak": max(series["server_close_wait"]),
        "alive_peak": max(series["client_alive"]),
        "alive_steady": steady("client_alive"),
        "ports": ports,
        "pairs": len(load.pairs),
        "ports_in_use_peak": run.peak_pair,
        "ports_in_use_steady": steady("busiest_pair"),
        "free_ports_least": max(0, ports - run.peak_pair),
        "reused": counts["reused"],
        "reopened": counts["reopened"],
        "overflowed": counts["client_overflowed"] + counts["server_overflowed"],
        "recycle_rejected": counts["recycle_rejected"],
        "retransmitted": counts["retransmitted"],
        "time_wait_memory": tables_peak * TIME_WAIT_BYTES,
    }


# ---- conditions ------------------------------------------------------------------------------------------------------

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a figure with a number, as --fail-if writes it."""

    name: str
    sign: str
    number: float
    text: str


def parse_condition(text: str) -> Condition:
    """"connect_failures > 0". Raises ValueError naming what is wrong."""
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|==|!=|>|<)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(?:s|/s)?\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is no condition: write NAME > NUMBER (or >=, <, <=, ==, !=)")
    if match[1] not in FIGURES:
        raise ValueError(f"{match[1]!r} is no figure of a plan; there are {', '.join(FIGURES)}")
    try:
        return Condition(match[1], match[2], float(match[3]), text.strip())
    except ValueError:
        raise ValueError(f"{match[3]!r} in {text!r} is no number") from None


def check(condition: Condition, plan: Plan) -> bool:
    """Whether the condition holds. A figure that there is none of (first_failure without a failure) fulfils none but !=."""
    value = plan.figures[condition.name]
    if value is None:
        return condition.sign == "!="
    return _SIGNS[condition.sign](value, condition.number)
