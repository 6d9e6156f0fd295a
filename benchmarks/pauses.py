"""The worst single call: how long one `apply` or one `advance` may keep its caller waiting, against the median.

    python -m benchmarks.pauses                     steady, growing to 4 M, a million timers in one tick; some minutes
    python -m benchmarks.pauses --connections 100k --grow 400k --rounds 3 --json pauses.json

Every call is timed by the CPU time of its thread, page faults included: other programs on the machine do not count, what the
hypervisor or an interrupt takes does. The streams are seeded, so call number i does the same in every round; beside the worst
of all calls of all rounds stands the worst call when each counts with its best round: what disturbed one round only is
not the table's.

steady   a table in steady state, batches of the churn stream
growing  a table of 1,024 rows that may grow, until it holds the connections of a churn stream
crowd    a table of 1,024 rows that may grow, under SYNs only: nothing but insertions
burst    a million half-open connections that all began in one tick, so all time out in one; `advance` has a budget, `apply` gets
         the segments of other connections meanwhile
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import thread_time_ns as clock

import numpy as np

from benchmarks.peers.run import machine, number
from fasttcp import ConnectionTable
from fasttcp.core.segments import SEGMENT_BYTES, SEGMENT_DTYPE, SYN
from fasttcp.load.churn import ChurnStream

TICK_NS = 10_000_000
HALF_OPEN_NS = 120 * 10**9
CHUNK = 65_536  # segments made at a time
Call = Callable[[], object]


def observer(rows: int, most: int | None = None) -> ConnectionTable:
    return ConnectionTable(rows, max_capacity=most, seat="observer", seed=1, tick_ns=TICK_NS)


def timed(calls: Iterator[Call]) -> list[int]:
    """CPU nanoseconds of each call; what the iterator does to make it is not counted."""
    spent = []
    for call in calls:
        begin = clock()
        call()
        spent.append(clock() - begin)
    return spent


def batches(table: ConnectionTable, stream: ChurnStream, batch: int, until: Callable[[], bool]) -> Iterator[Call]:
    """Calls of apply with the stream's next segments."""
    memory = memoryview(bytearray(max(CHUNK, batch) * SEGMENT_BYTES))
    while not until():
        stream.write_into(memory)
        for at in range(0, len(memory), batch * SEGMENT_BYTES):
            piece = memory[at : at + batch * SEGMENT_BYTES]
            yield lambda piece=piece: table.apply(piece)


def syns(count: int, time_ns: int, first: int = 0) -> np.ndarray:
    """SYNs of `count` connections, all at one time."""
    segments = np.zeros(count, np.dtype(SEGMENT_DTYPE))
    numbers = np.arange(first, first + count, dtype=np.uint64)
    segments["time_ns"] = time_ns
    for name, low in (("src", numbers >> 14), ("dst", numbers % 251)):
        segments[name][:, 10:12] = 0xFF
        segments[name][:, 12] = 172 if name == "src" else 9
        for byte, shift in ((13, 16), (14, 8), (15, 0)):
            segments[name][:, byte] = (low >> shift) & 0xFF
    segments["sport"] = 1024 + (numbers & 0x3FFF)
    segments["dport"] = 80
    segments["seq"] = (numbers * 2654435761) & 0xFFFFFFFF
    segments["flags"] = SYN
    return segments


def steady(connections: int, grow: int, batch: int) -> dict[str, list[int]]:
    stream = ChurnStream(connections, seed=1)
    table = observer(round(connections * 1.05) + 1024)
    for call in batches(table, stream, CHUNK, lambda: stream.segments >= stream.warm_up):
        call()
    end = stream.segments + max(10 * connections, 1000 * batch)
    return {f"apply, steady, {connections:,}": timed(batches(table, stream, batch, lambda: stream.segments >= end))}


def growing(connections: int, grow: int, batch: int) -> dict[str, list[int]]:
    stream = ChurnStream(grow, seed=1)
    table = observer(1024, round(grow * 1.1) + 1024)
    return {
        f"apply, growing to {grow:,}": timed(batches(table, stream, batch, lambda: stream.segments >= stream.warm_up))
    }


def crowd(connections: int, grow: int, batch: int) -> dict[str, list[int]]:
    table = observer(1024, grow)

    def calls() -> Iterator[Call]:
        for at in range(0, grow, batch):
            piece = syns(min(batch, grow - at), 0, at)
            yield lambda piece=piece: table.apply(piece)

    spent = timed(calls())
    assert len(table) == grow
    return {f"apply, SYNs alone, to {grow:,}": spent}


def burst(connections: int, grow: int, batch: int) -> dict[str, list[int]]:
    found = {}
    segments = syns(connections, 0)
    np.random.default_rng(1).shuffle(segments)  # rows of one tick from all over the table
    for kind in ("advance", "apply"):
        others = max(64, connections // 10)
        table = observer(connections + round(others * 1.1) + 1024)
        stream = ChurnStream(others, seed=1, start_ns=0)
        for at in range(0, connections, CHUNK):
            table.apply(segments[at : at + CHUNK])
        assert len(table) == connections
        if kind == "advance":
            now, done = HALF_OPEN_NS + TICK_NS, [False]

            def calls(table=table, now=now, done=done) -> Iterator[Call]:
                while not done[0]:
                    yield lambda: done.__setitem__(0, table.advance(now, batch))

            found[f"advance, budget {batch:,}, {connections:,} timers in one tick"] = timed(calls())
            assert len(table) == 0
        else:
            for call in batches(table, stream, batch, lambda stream=stream: stream.now_ns >= HALF_OPEN_NS * 3 // 4):
                call()
            found[f"apply, {connections:,} timers in one tick"] = timed(
                batches(table, stream, batch, lambda stream=stream: stream.now_ns >= HALF_OPEN_NS * 3 // 2)
            )
            assert len(table) < 2 * others
    return found


SITUATIONS = {"steady": steady, "growing": growing, "crowd": crowd, "burst": burst}


def figures(rounds: list[list[int]]) -> dict[str, float]:
    """Median, 99.9th percentile and worst of all calls, ns; the worst when each call counts with its best round."""
    calls = sorted(spent for one in rounds for spent in one)
    best = sorted(map(min, zip(*rounds, strict=True)))
    median = statistics.median(calls)
    return {
        "calls": len(calls),
        "median": median,
        "p99.9": calls[math.ceil(len(calls) * 0.999) - 1],
        "worst": calls[-1],
        "ratio": calls[-1] / median,
        "worst of best": best[-1],
        "ratio of best": best[-1] / statistics.median(best),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pauses", description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=number, default=1_000_000)
    parser.add_argument("--grow", type=number, default=4_000_000, help="rows that a table grows to (4M)")
    parser.add_argument("--batch", type=number, default=4_096, help="segments a call of apply; timers a call of advance")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(SITUATIONS), help=f"some of {', '.join(SITUATIONS)}")
    parser.add_argument("--json", type=Path, help="write every call's time to this file")
    options = parser.parse_args(arguments)
    rounds: dict[str, list[list[int]]] = {}
    for _ in range(options.rounds):
        for name in options.only.split(","):
            if name not in SITUATIONS:
                parser.error(f"no situation {name!r}; there are {', '.join(SITUATIONS)}")
            for what, spent in SITUATIONS[name](options.connections, options.grow, options.batch).items():
                rounds.setdefault(what, []).append(spent)
    print("| | calls | median ms | p99.9 ms | worst ms | worst / median | each call's best round: worst ms, / median |")
    print("|---|---|---|---|---|---|---|")
    missed = False
    for what, all_of in rounds.items():
        f = figures(all_of)
        missed |= f["ratio of best"] > 10
        print(
            f"| {what} | {f['calls']:,.0f} | {f['median'] / 1e6:.3f} | {f['p99.9'] / 1e6:.3f} | {f['worst'] / 1e6:.3f} "
            f"| {f['ratio']:.1f} x | {f['worst of best'] / 1e6:.3f}, {f['ratio of best']:.1f} x |"
        )
    print(f"\n{machine()}; batches of {options.batch:,}, {options.rounds} rounds, CPU time of the thread")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "batch": options.batch, "ns": rounds}) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
