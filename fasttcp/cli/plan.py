"""Answers, before anyone touches a machine: how many TIME_WAIT sockets a load makes, when ports run out, what would help.

Each answer is given twice, by the closed formula and by the engine's own simulation in virtual time. Nothing on this host is
ever changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from fasttcp.cli.progress import clear_progress, progress_line
from fasttcp.cli.said import said

if TYPE_CHECKING:
    from fasttcp.load.advice import Advice
    from fasttcp.load.loads import Load
    from fasttcp.load.plan import Plan
    from fasttcp.profiles import Profile

__all__ = ["add_parser", "run"]

FAILED_CONDITION = 99
EPILOG = """examples:
  fasttcp plan --rate 2000/s --lifetime 200ms --sources 4 --destinations 1 --ports 32768-60999
  fasttcp plan --rate 2000/s --what-if tcp_tw_reuse=1 --what-if sources=8 --what-if msl=30s,tcp_max_tw_buckets=5000 --plot tw.svg
  fasttcp plan --from capture.pcap --who-closes server
  fasttcp plan --from-host --rate 500/s --fail-if 'connect_failures > 0'

exit status: 0; 99 when a --fail-if holds; 2 for wrong arguments; 1 for anything else that went wrong."""


def add_parser(subparsers: Any) -> None:
    """The verb and its options."""
    parser = subparsers.add_parser(
        "plan", help="predict TIME_WAIT, ports and failures of a load", description=__doc__, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(run=run)
    load = parser.add_argument_group("the load")
    load.add_argument("--rate", metavar="N/s", help="connections a second, over all pairs: 2000/s, 2k/s, 120/min")
    load.add_argument("--lifetime", metavar="TIME", help="from connect to the first close (default: 200ms)")
    load.add_argument("--sources", metavar="N", help="source addresses (default: 1)")
    load.add_argument("--destinations", metavar="N", help="destination addresses or ports (default: 1)")
    load.add_argument("--ports", metavar="A-B", help="ephemeral ports of each source (default: the profile's)")
    load.add_argument("--who-closes", metavar="WHO", help="client, server, mix, or the server's share as 30%% (default: client)")
    load.add_argument("--rtt", metavar="TIME", help="round-trip time (default: 1ms)")
    load.add_argument(
        "--peer-closes-after", metavar="TIME", help="from a FIN to the other side's close; 'never' leaks CLOSE_WAIT (default: 0s)"
    )
    load.add_argument("--loopback", action="store_true", help="both ends are on 127.0.0.0/8, which tcp_tw_reuse = 2 asks for")
    load.add_argument("--from", dest="capture", metavar="FILE", help="arrivals, lifetimes and closers out of this capture")
    load.add_argument("--from-host", action="store_true", help="this host's sysctls, and its sockets' distance from the wall")
    policy = parser.add_argument_group("the policy")
    policy.add_argument("--profile", default="linux", choices=("linux", "bsd", "rfc9293"), help="default: %(default)s")
    policy.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a sysctl of both hosts")
    policy.add_argument(
        "--what-if", metavar="NAME=VALUE,...", action="append", default=[],
        help="the same load under a change of sysctls or of the load's own names; may be given several times",
    )  # fmt: skip
    out = parser.add_argument_group("the run and its result")
    out.add_argument("--duration", metavar="TIME", help="virtual time to simulate (default: until it is steady)")
    out.add_argument("--tick", metavar="TIME", help="grain of the timers (default: 10ms)")
    out.add_argument("--seed", type=int, default=1, metavar="K", help="of the tables (default: 1)")
    out.add_argument("--plot", metavar="FILE", help="TIME_WAIT and free ports over time, as .svg or .png")
    out.add_argument("--json", action="store_true", help="everything as JSON")
    out.add_argument("--no-advice", action="store_true", help="do not simulate remedies")
    out.add_argument("--fail-if", metavar="CONDITION", action="append", default=[], help="exit 99 if it holds; 'help' lists")


def run(args: argparse.Namespace) -> int:
    """The exit status that EPILOG tells of."""
    if "help" in args.fail_if:
        return _list_figures()
    from fasttcp.errors import FastTCPError
    from fasttcp.load.chart import ChartError

    try:
        return _Question(args).answer()
    except BrokenPipeError:
        raise
    except (OSError, FastTCPError, ValueError, MemoryError, ChartError) as failure:
        print(f"fasttcp plan: {said(failure)}", file=sys.stderr)
        # A file or a host that cannot be read is no wrong argument.
        return 2 if isinstance(failure, ValueError) and not hasattr(failure, "offset") else 1


class _Question:
    """What was asked: everything that can be wrong with the arguments is found when it is made."""

    def __init__(self, args: argparse.Namespace) -> None:
        from fasttcp.load.host import host_profile, host_state
        from fasttcp.load.loads import apply_changes, parse_changes
        from fasttcp.load.plan import parse_condition
        from fasttcp.parameters import to_ns
        from fasttcp.profiles import profile

        self.args = args
        self.conditions = [parse_condition(text) for text in args.fail_if]
        self.duration_ns = None if args.duration is None else to_ns(args.duration)
        self.tick_ns = 10_000_000 if args.tick is None else to_ns(args.tick)
        if self.tick_ns < 1_000_000:
            raise ValueError(f"--tick {args.tick}: it must be at least 1ms")
        if args.plot is not None and not args.plot.lower().endswith((".svg", ".png")):
            raise ValueError(f"--plot {args.plot}: the plot is written as .svg or .png")
        self.profile: Profile = profile(args.profile)
        self.host = None
        self.sysctls: dict[str, str] = {}
        if args.from_host:
            self.profile, self.sysctls = host_profile()
            self.host = host_state(self.profile)
        self.load: Load | None = self._load()
        changes = self._changes()
        for text in args.set:
            changes |= parse_changes(text)
        asked = [parse_changes(text) for text in args.what_if]
        if self.load is None:
            from fasttcp.load.loads import Load

            _, self.profile = apply_changes(Load(rate=1), self.profile, changes)
            return
        self.load, self.profile = apply_changes(self.load, self.profile, changes)
        self.what_if = [
            (text, *apply_changes(self.load, self.profile, change))
            for text, change in zip(args.what_if, asked, strict=True)
        ]

    def _load(self) -> Load | None:
        from fasttcp.load.loads import Load, parse_rate

        args = self.args
        if args.capture is not None:
            from fasttcp.load.captured import read_capture

            return read_capture(args.capture)
        if args.rate is None:
            if self.host is None:
                raise ValueError("say how many connections a second: --rate 2000/s, or --from CAPTURE, or --from-host")
            return self.host.load(self.profile)
        return Load(rate=parse_rate(args.rate), loopback=args.loopback)

    def _changes(self) -> dict[str, str]:
        args = self.args
        given = {
            "rate": args.rate, "lifetime": args.lifetime, "sources": args.sources, "destinations": args.destinations,
            "ports": args.ports, "who_closes": args.who_closes, "rtt": args.rtt, "peer_closes_after": args.peer_closes_after,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}

    # ---- answers

    def answer(self) -> int:
        from fasttcp.load.advice import advise
        from fasttcp.load.plan import check

        if self.load is None:
            return self._only_host()
        began = time.perf_counter()
        plan = self._simulate(self.load, self.profile, "the load")
        others = [(text, self._simulate(load, profile, text)) for text, load, profile in self.what_if]
        advice: list[Advice] = []
        if not self.args.no_advice:
            advice = advise(plan, lambda load, profile: self._simulate(load, profile, "a remedy"))
        seconds = time.perf_counter() - began
        if self.args.plot:
            _plot(self.args.plot, plan, others)
        held = [condition for condition in self.conditions if check(condition, plan)]
        if self.args.json:
            self._json(plan, others, advice, held)
        else:
            self._text(plan, others, advice, seconds)
        for condition in held:
            value = plan.figures[condition.name]
            print(f"fasttcp plan: {condition.text} holds: {condition.name} is {value}", file=sys.stderr)
        return FAILED_CONDITION if held else 0

    def _only_host(self) -> int:
        """--from-host where nothing is to be simulated: no rate was given, and no TIME_WAIT tells of one."""
        assert self.host is not None
        if self.args.json:
            print(json.dumps({"host": self._host_dict()}, indent=1))
        else:
            print("\n".join(self.host.lines(self.profile)))
            print("No connection of this host is in TIME_WAIT, so there is no load to simulate: name one with --rate.")
        return 0

    def _simulate(self, load: Load, profile: Profile, what: str) -> Plan:
        from fasttcp.load.plan import make_plan

        shown = 0.0

        def progress(done: float) -> None:
            nonlocal shown
            if sys.stderr.isatty() and (time.monotonic() - shown > 0.2 or done == 1):
                shown = time.monotonic()
                progress_line(f"{what}: {done:.0%}") if done < 1 else clear_progress()

        return make_plan(
            load, profile, duration_ns=self.duration_ns, seed=self.args.seed, tick_ns=self.tick_ns, progress=progress
        )

    def _host_dict(self) -> dict[str, Any]:
        assert self.host is not None
        return {
            "sysctls": self.sysctls,
            "sockets": {state.name: n for state, n in self.host.states.items()},
            "ports": self.host.ports,
            "pairs": [
                {"local": p.local, "remote": p.remote, "rport": p.rport, "used": p.used, "time_wait": p.time_wait}
                for p in self.host.pairs
            ],
        }

    def _json(self, plan: Plan, others: list[tuple[str, Plan]], advice: list[Advice], held: list[Any]) -> None:
        out: dict[str, Any] = {"plan": plan.as_dict()}
        out["what_if"] = [{"change": text, **other.as_dict()} for text, other in others]
        out["advice"] = [
            {"what": one.what, "changes": one.changes, "effect": one.effect, "risk": one.risk, "source": one.source}
            for one in advice
        ]
        out["fail_if"] = [condition.text for condition in held]
        if self.host is not None:
            out["host"] = self._host_dict()
        json.dump(out, sys.stdout, indent=1)
        print()

    def _text(self, plan: Plan, others: list[tuple[str, Plan]], advice: list[Advice], seconds: float) -> None:
        from fasttcp.load.advice import headroom

        if self.host is not None:
            print("\n".join(self.host.lines(self.profile)) + "\n")
        print("\n".join(_asked(plan)))
        print(f"simulated       {plan.figures['duration']:,.0f} s of virtual time in {seconds:.1f} s\n")
        print("\n".join(_both(plan)))
        if others:
            print("\n" + "\n".join(_compared(plan, others)))
        print("\n" + headroom(plan))
        for number, one in enumerate(advice, 1):
            print(f"\n{number}. {one.what}\n   effect  {one.effect}\n   risk    {one.risk}\n   source  {one.source}")


# ---- text ------------------------------------------------------------------------------------------------------------


def _asked(plan: Plan) -> list[str]:
    from fasttcp.parameters import format_ns

    load, profile = plan.load, plan.profile
    share = load.server_share
    closes = {0.0: "the client closes first", 1.0: "the server closes first"}.get(
        share, f"the server closes first in {share:.0%}, the client in the rest"
    )
    if load.captured is not None:
        what = (
            f"{len(load.captured.arrivals):,} connections of {load.captured.name}, again and again: {load.rate:,.1f} "
            f"connections/s of {load.lifetime_ns / 1e9:.3g} s on average"
        )
    else:
        what = f"{load.rate:,.10g} connections/s, {format_ns(load.lifetime_ns)} each"
    first, last = profile.ip_local_port_range
    changes = ", ".join(
        f"{name} = {value}" for name, value in profile.changes().items() if name != "ip_local_port_range"
    )
    ends = f"{load.sources} source{'s' * (load.sources > 1)}, {load.destinations} destination{'s' * (load.destinations > 1)}"
    answer = "never" if load.answer_ns is None else "at once" if load.answer_ns == 0 else f"{format_ns(load.answer_ns)} later"
    return [
        f"load            {what}; {closes}, the other side {answer}",
        f"pairs           {len(load.pairs):,}: {ends}; ports {first}-{last}, {plan.figures['ports']:,} a pair",
        f"policy          {profile.base}" + (f" with {changes}" if changes else "")
        + f"; TIME_WAIT {format_ns(profile.time_wait_ns)}",
    ]  # fmt: skip


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "never"
    if value == float("inf"):
        return "no limit"
    text = f"{value:,.1f}" if value < 1000 and value != int(value) else f"{value:,.0f}"
    return text + unit


def _both(plan: Plan) -> list[str]:
    """The formula and the simulation side by side."""
    f, s = plan.formula, plan.figures
    memory = (s["time_wait_memory"] or 0) / 1e6
    rows: list[tuple[str, str, str]] = [
        ("", "formula", "simulation"),
        ("TIME_WAIT on the client, steady", _number(f.client_time_wait), _number(s["client_time_wait_steady"])),
        ("TIME_WAIT on the client, peak", "", _number(s["client_time_wait_peak"])),
        ("TIME_WAIT on the server, steady", _number(f.server_time_wait), _number(s["server_time_wait_steady"])),
        ("TIME_WAIT on the server, peak", "", _number(s["server_time_wait_peak"])),
        ("alive at a time, steady", _number(f.alive), _number(s["alive_steady"])),
        ("ports in use, busiest pair", _number(min(f.ports_wanted, f.ports)), _number(s["ports_in_use_peak"])),
        ("connections a second carried", _number(min(f.wall, plan.load.rate)), _number(s["carried_per_second"])),
        ("first connect fails after", _number(f.first_failure_s, " s"), _number(s["first_failure"], " s")),
        ("failures a second after that", _number(f.failures_a_second), _number(s["failures_per_second"])),
        ("memory of TIME_WAIT in the kernel", "", f"{memory:,.1f} MB"),
    ]
    for name, words in (
        ("client_fin_wait_2_peak", "FIN_WAIT_2 on the client, peak"), ("server_close_wait_peak", "CLOSE_WAIT on the server, peak"),
        ("reused", "TIME_WAIT reused by connect"), ("reopened", "TIME_WAIT reopened by a SYN"),
        ("overflowed", "closed without TIME_WAIT"), ("refused", "connects refused"), ("timed_out", "connects timed out"),
        ("recycle_rejected", "SYNs dropped by tcp_tw_recycle"),
    ):  # fmt: skip
        if s[name]:
            rows.append((words, "", _number(s[name])))
    lines = _columns(rows)
    steady = s["server_time_wait_steady"]
    if s["reopened"] and steady is not None and abs(steady - f.server_time_wait) > 0.05 * f.server_time_wait:
        lines.append(
            "The formula does not know how soon a SYN reopens the server's TIME_WAIT: of the server, believe the simulation."
        )
    return lines


def _compared(plan: Plan, others: list[tuple[str, Plan]]) -> list[str]:
    head = ("what if", "TIME_WAIT", "(server)", "ports used", "first failure", "failures/s", "carried/s", "reused", "no wait")
    rows: list[tuple[str, ...]] = [head]
    for text, one in [("as it is", plan), *others]:
        s = one.figures
        rows.append((
            text, _number(s["client_time_wait_steady"]), _number(s["server_time_wait_steady"]),
            f"{_number(s['ports_in_use_peak'])} of {_number(s['ports'])}", _number(s["first_failure"], " s"),
            _number(s["failures_per_second"]), _number(s["carried_per_second"]), _number(s["reused"]), _number(s["overflowed"]),
        ))  # fmt: skip
    return _columns(rows)


def _columns(rows: list[Any]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def _plot(path: str, plan: Plan, others: list[tuple[str, Plan]]) -> None:
    from fasttcp.load.chart import draw

    plans = [("as it is", plan), *others]

    def lines(name: str) -> list[Any]:
        return [(text, [t / 1e9 for t in one.series["time_ns"]], one.series[name]) for text, one in plans]

    free = [
        (text, [t / 1e9 for t in one.series["time_ns"]], [(one.figures["ports"] or 0) - n for n in one.series["busiest_pair"]])
        for text, one in plans
    ]
    panels = [("TIME_WAIT on the client", lines("client_time_wait")), ("free ports of the busiest pair", free)]
    if any(max(one.series["server_time_wait"]) for _, one in plans):
        panels.insert(1, ("TIME_WAIT on the server", lines("server_time_wait")))
    draw(path, panels)


def _list_figures() -> int:
    from fasttcp.load.plan import FIGURES

    for name, (unit, meaning) in FIGURES.items():
        print(f"{name:26} {unit:3} {meaning}")
    return 0
