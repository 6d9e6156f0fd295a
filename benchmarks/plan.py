"""What the simulation behind `fasttcp plan` costs: CPU seconds, nanoseconds a connection, memory, and a ratio.

    python -m benchmarks.plan                   an hour of 10,000 connections a second, TIME_WAIT and all: 36 million
    python -m benchmarks.plan --seconds 300     less of it
    python -m benchmarks.plan --sources 8       ports run out: failing connects too

CPU seconds of this process, not wall clock. They depend on the machine, so a ratio stands beside: a connection of the
simulation (both ends: 3 calls, 7 segments, 1 timer, 2 rows made and freed) against an event of `fasttcp churn` (one segment at an
observer), measured in the same process just before.
"""

from __future__ import annotations

import argparse
import resource
import time

from fasttcp.core.table import ConnectionTable
from fasttcp.load.churn import SEGMENT_BYTES, ChurnStream
from fasttcp.load.loads import Load
from fasttcp.load.plan import make_plan
from fasttcp.profiles import LINUX

CONNECTIONS, EVENTS = 100_000, 2_000_000


def churn_ns() -> float:
    """CPU nanoseconds of one event of `fasttcp churn`."""
    stream = ChurnStream(CONNECTIONS, seed=1)
    table = ConnectionTable(2 * CONNECTIONS, seat="observer", seed=1)
    table.apply(stream.take(stream.warm_up))
    segments = memoryview(stream.take(EVENTS))
    began = time.process_time()
    for at in range(0, len(segments), 4096 * SEGMENT_BYTES):
        table.apply(segments[at : at + 4096 * SEGMENT_BYTES])
    return (time.process_time() - began) / EVENTS * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3600, help="virtual time (3600)")
    parser.add_argument("--rate", type=float, default=10_000, help="connections a second (10000)")
    parser.add_argument("--sources", type=int, default=40, help="source addresses (40)")
    args = parser.parse_args()
    event = churn_ns()
    began = time.process_time()
    plan = make_plan(Load(rate=args.rate, sources=args.sources), LINUX, duration_ns=args.seconds * 10**9)
    spent = time.process_time() - began
    each = spent / (plan.figures["connects"] or 1) * 1e9
    print(f"{args.seconds} s of {args.rate:,.0f} connections/s: {plan.figures['connects']:,} connects, "
          f"{plan.figures['connect_failures']:,} failed")  # fmt: skip
    print(f"CPU             {spent:.1f} s, {each:,.0f} ns a connection, {each / event:.1f} events of churn ({event:.0f} ns each)")
    print(f"TIME_WAIT peak  {plan.figures['client_time_wait_peak']:,}")
    print(f"memory          {plan.simulation_bytes / 1e6:,.0f} MB of tables, "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB peak RSS")  # fmt: skip


if __name__ == "__main__":
    main()
