"""What the kernel did and what the plan said, figure by figure."""

from dataclasses import dataclass
from typing import Any

from fasttcp.load.plan import Plan

from .scenarios import Scenario

WITHIN = 0.05
LEAST = 12  # below so many, a difference of one is more than 5 %: absolute


@dataclass(frozen=True)
class Figure:
    """One figure of both. `off` is the difference, as a share of the plan's (of the peak, for counts over time)."""

    name: str
    kernel: float
    plan: float
    scale: float

    @property
    def off(self) -> float:
        return 0.0 if self.kernel == self.plan else abs(self.kernel - self.plan) / max(self.scale, 1e-9)

    @property
    def agrees(self) -> bool:
        return self.off <= WITHIN or abs(self.kernel - self.plan) <= LEAST * (self.name != "first failure, s")


def plan_time_wait(plan: Plan) -> dict[int, int]:
    """Second -> what sockstat would count as tw: TIME_WAIT of both sides, and the client's orphans in FIN_WAIT_2."""
    columns = (plan.series["client_time_wait"], plan.series["server_time_wait"], plan.series["client_fin_wait_2"])
    return {
        time_ns // 10**9: sum(column[i] for column in columns)
        for i, time_ns in enumerate(plan.series["time_ns"]) if time_ns % 10**9 == 0
    }


def compare(scenario: Scenario, kernel: dict[str, Any], plan: Plan) -> list[Figure]:
    """Every figure that both have."""
    predicted = plan_time_wait(plan)
    peak = max(max(predicted.values()), max(kernel["time_wait"]))
    figures = [Figure("TIME_WAIT, peak", max(kernel["time_wait"]), max(predicted.values()), peak)]
    for second in range(10, len(kernel["time_wait"]) + 1, 10):
        figures.append(Figure(f"TIME_WAIT at {second} s", kernel["time_wait"][second - 1], predicted[second], peak))
    again = plan.figures["reused"]
    totals = [
        ("connections opened", kernel["opened"], plan.figures["opened"]),
        ("EADDRNOTAVAIL", kernel["failed"], plan.figures["no_port"]),
        ("TIME_WAIT reused (TWRecycled)", kernel["counters"]["TWRecycled"], again),
        ("no TIME_WAIT (TCPTimeWaitOverflow)", kernel["counters"]["TCPTimeWaitOverflow"], plan.figures["overflowed"]),
    ]
    figures += [Figure(name, ours, float(theirs or 0), float(theirs or 0)) for name, ours, theirs in totals]
    if kernel["first_failure_s"] is not None and plan.figures["first_failure"] is not None:
        first = plan.figures["first_failure"]
        figures.append(Figure("first failure, s", round(kernel["first_failure_s"], 2), first, first))
    return figures
