"""What to change first: each remedy simulated on the load in question, with its risk and who says so.

No effect here is a rule of thumb: a remedy is a change like any --what-if, and its effect is the difference between two
simulations. The order is that of risk: first what breaks nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fasttcp.load.loads import Load, apply_changes
from fasttcp.load.nat import NatResult, two_clients_behind_nat
from fasttcp.load.plan import Plan
from fasttcp.profiles import Profile

__all__ = ["Advice", "advise", "headroom"]

NEAR = 0.8  # share of the ports above which a load is near the wall
NOTHING = "none: no segment is treated otherwise"


@dataclass(frozen=True, slots=True)
class Advice:
    """One remedy: what to do, the change that was simulated, what came of it, what it risks and by which source."""

    what: str
    changes: dict[str, str]
    effect: str
    risk: str
    source: str
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class _Remedy:
    what: str
    changes: dict[str, str]
    risk: str
    source: str


def headroom(plan: Plan) -> str:
    """How far the load is from the wall, in a sentence."""
    figures, wall = plan.figures, plan.formula.wall
    if figures["connect_failures"]:
        first, each = figures["first_failure"], figures["failures_per_second"]
        return (
            f"The load meets the wall: the first connect fails after {first:,.1f} s, then {each:,.0f} of "
            f"{plan.load.rate:,.0f} a second. These pairs carry {wall:,.0f} connections a second."
        )
    if math.isinf(wall):
        return "No connect fails, and by the formula none ever does at this lifetime."
    used = (figures["ports_in_use_peak"] or 0) / (figures["ports"] or 1)
    return (
        f"No connect fails. The busiest pair uses {used:.0%} of its ports at most; these pairs carry {wall:,.0f} connections "
        f"a second, {wall / plan.load.rate:.1f} times the load."
    )


def advise(plan: Plan, simulate: Callable[[Load, Profile], Plan]) -> list[Advice]:
    """Remedies for a load that meets the wall or is near it, the harmless first, and what would not help.

    simulate(load, profile) makes a plan as the given one was made. Cost: one simulation for each remedy.
    """
    figures = plan.figures
    short = bool(figures["connect_failures"]) or (figures["ports_in_use_peak"] or 0) > NEAR * (figures["ports"] or 1)
    advice = []
    for remedy in _remedies(plan) if short else ():
        load, profile = apply_changes(plan.load, plan.profile, remedy.changes)
        after = simulate(load, profile)
        advice.append(
            Advice(remedy.what, remedy.changes, effect(plan, after), remedy.risk, remedy.source, after)
        )
    if short:
        advice.append(_recycle(plan))
    return advice


def effect(before: Plan, after: Plan) -> str:
    """The difference between two plans in numbers."""
    parts = []
    pairs = (
        ("failures_per_second", "failures/s"), ("client_time_wait_steady", "TIME_WAIT on the client"),
        ("server_time_wait_steady", "TIME_WAIT on the server"), ("ports_in_use_peak", "ports of the busiest pair"),
        ("overflowed", "connections without TIME_WAIT"),
    )  # fmt: skip
    for name, words in pairs:
        old, new = before.figures[name] or 0, after.figures[name] or 0
        if abs(new - old) > max(0.5, 0.005 * max(abs(old), abs(new))):
            parts.append(f"{words} {old:,.0f} -> {new:,.0f}")
    return "; ".join(parts) or "nothing changes"


def _remedies(plan: Plan) -> list[_Remedy]:
    load, profile = plan.load, plan.profile
    need = plan.formula.ports_wanted / plan.formula.ports  # how many times the ports there are
    times = max(2, math.ceil(need / NEAR))
    first, last = profile.ip_local_port_range
    out = []
    if load.captured is None:
        out.append(_Remedy(
            "Keep connections open and send ten requests over each (keep-alive, a pool)",
            {"rate": f"{load.rate / 10:g}/s", "lifetime": f"{load.lifetime_ns * 10}ns"}, NOTHING,
            "RFC 9112 9.3 (HTTP persistent connections)",
        ))  # fmt: skip
    out.append(_Remedy(
        f"Use {load.sources * times} source addresses instead of {load.sources}",
        {"sources": str(load.sources * times)}, NOTHING + "; each address has ports of its own", "RFC 6056 3.1",
    ))  # fmt: skip
    if first > 1024 or last < 65535:
        out.append(_Remedy(
            "Widen the range of ephemeral ports: ip_local_port_range = 1024 65535", {"ports": "1024-65535"},
            "a service that starts later may find its port taken: name it in ip_local_reserved_ports", "RFC 6056 3.2",
        ))  # fmt: skip
    if load.server_share < 1:
        if profile.tcp_tw_reuse != 1:
            out.append(_Remedy(
                "Let connect() take ports in TIME_WAIT: tcp_tw_reuse = 1 on the client", {"tcp_tw_reuse": "1"},
                "needs timestamps on both hosts, else it does nothing; an old duplicate without them would pass",
                "RFC 6191 2, RFC 7323 5 (PAWS); kernel tcp_twsk_unique",
            ))  # fmt: skip
        out.append(_Remedy(
            "Let the server close first", {"who_closes": "server"},
            "TIME_WAIT moves to the server; a client that never closes then leaves it in FIN_WAIT_2 for tcp_fin_timeout",
            "RFC 9293 3.6",
        ))  # fmt: skip
        out.append(_Remedy(
            "Cap TIME_WAIT: tcp_max_tw_buckets = 5000", {"tcp_max_tw_buckets": "5000"},
            "what exceeds the cap does not wait: a lost last ACK becomes a RST for the peer, an old duplicate can enter "
            "the next connection", "RFC 9293 3.6.1, RFC 1337 2",
        ))  # fmt: skip
    if load.answer_ns == 0 and profile.tcp_fin_timeout_ns != 10**10:
        out.append(_Remedy(
            "Not a remedy: tcp_fin_timeout = 10. It bounds FIN_WAIT_2 of orphans, not TIME_WAIT", {"tcp_fin_timeout": "10"},
            "a slow peer's last data are answered by a RST", "ip-sysctl tcp_fin_timeout; RFC 9293 3.6",
        ))  # fmt: skip
    return out


def _recycle(plan: Plan) -> Advice:
    nat: NatResult = two_clients_behind_nat(plan.profile)
    return Advice(
        "Never: tcp_tw_recycle. Linux removed it in 4.12", {"tcp_tw_recycle": "1"},
        f"two clients behind one NAT, {nat.tried} connects each: {nat.failed[0]} of one's and {nat.failed[1]} of the other's "
        f"are dropped by the server ({nat.failed_without} without it)",
        "it takes the timestamps of an address for those of one host; behind a NAT there are many",
        "kernel commit 4396e46187ca; RFC 7323 5 (PAWS is for one connection)",
    )  # fmt: skip
