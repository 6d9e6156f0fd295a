"""Does a table slow down with age? The same segments into a table after 1,000 table-fuls of churn and into a fresh one.

    python -m benchmarks.wear                                    50,000 connections, some minutes
    python -m benchmarks.wear --connections 20k --tablefuls 1000 --rounds 25 --json wear.json

A table-ful is as many connections, begun and ended, as the table holds. The old table goes through all of them; then a fresh
table of the same size is filled by the same stream up to its steady state, once, and from there on both get the same segments,
in turn, the order changing from round to round. CPU time of the thread; the ratio is the median of the rounds' ratios. In the end
both must hold the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from time import thread_time_ns as clock

from benchmarks.peers.run import machine, number
from fasttcp import LINUX, ConnectionTable
from fasttcp.core.segments import SEGMENT_BYTES
from fasttcp.load.churn import ChurnStream

CHUNK = 65_536  # segments made at a time
BATCH = 4_096  # segments a call


def apply(table: ConnectionTable, segments: memoryview) -> int:
    """CPU nanoseconds."""
    begin = clock()
    for at in range(0, len(segments), BATCH * SEGMENT_BYTES):
        table.apply(segments[at : at + BATCH * SEGMENT_BYTES])
    return clock() - begin


def measure(connections: int, tablefuls: int, rounds: int, seed: int = 1) -> dict[str, object]:
    """Nanoseconds an event of both tables, round by round."""
    rows = round(connections * 1.05) + 1024
    # Neither picks up connections whose beginning it has not seen: so both hold the same in the end.
    profile = LINUX.replace(nf_conntrack_tcp_loose=False)
    old, fresh = (ConnectionTable(rows, seat="observer", seed=seed, profile=profile) for _ in range(2))
    for table in (old, fresh):
        table.advance(0)  # ticks of both begin together
    stream = ChurnStream(connections, seed=seed)
    memory = memoryview(bytearray(CHUNK * SEGMENT_BYTES))
    while stream.finished < tablefuls * connections:
        stream.write_into(memory)
        apply(old, memory)
    # After so long everything that is live has begun in both.
    upto = stream.segments + 2 * stream.warm_up
    while stream.segments < upto:
        stream.write_into(memory)
        apply(old, memory)
        apply(fresh, memory)
    found: dict[str, list[float]] = {"old": [], "fresh": []}
    tables = [("old", old), ("fresh", fresh)]
    for turn in range(rounds):
        for _ in range(max(1, 500_000 // CHUNK)):
            stream.write_into(memory)
            for name, table in tables[:: 1 if turn % 2 else -1]:
                found[name].append(apply(table, memory) / CHUNK)
    old.check_invariants()
    fresh.check_invariants()
    if old.counts() != fresh.counts():
        raise RuntimeError(f"the tables differ: {old.counts()}, {fresh.counts()}")
    return {
        "connections": connections,
        "tablefuls": old.tallies()["ended"] / connections,
        "ns": found,
        "ratio": statistics.median(o / f for o, f in zip(found["old"], found["fresh"], strict=True)),
        "bytes": {"old": old.nbytes, "fresh": fresh.nbytes},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wear", description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=number, default=50_000)
    parser.add_argument("--tablefuls", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    found = measure(options.connections, options.tablefuls, options.rounds)
    for name, times in found["ns"].items():
        print(f"{name:6}  {statistics.median(times):6.1f} ns an event, {found['bytes'][name]:,} bytes")
    print(f"ratio   {found['ratio']:.3f} after {found['tablefuls']:,.0f} table-fuls of {options.connections:,} connections")
    print(machine())
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
    return 0 if found["ratio"] <= 1.05 else 1


if __name__ == "__main__":
    sys.exit(main())
