"""One call of `receive` for one segment, from Python, against an empty method with the same argument.

    python -m benchmarks.single [--connections 1M] [--rounds 9] [--json FILE]

In the cache: one open connection, always the same segment. In a table: the churn stream. A round takes the empty method and
`receive` in turn, over the same 4,096 objects, made before, in the same loop, which is counted for both; CPU time of the
thread. The segment is handed over as bytes, as a SegmentBatch of one and as a memoryview. A call that meets a connection it has
not seen lately waits twice for memory (bucket, row), so what one such wait costs here and now stands below.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import thread_time_ns as clock

from fasttcp.core._timing import Chain, Empty

from benchmarks.peers.run import machine, number
from fasttcp import ConnectionTable, SegmentBatch
from fasttcp.core.segments import SEGMENT_BYTES
from fasttcp.load.churn import ChurnStream

CALLS = 102_400  # a round
GROUP = 4_096  # made, then handed over: as if just received, they are in the cache
KINDS: dict[str, Callable[[bytes], object]] = {
    "bytes": lambda packed: packed,
    "SegmentBatch": lambda packed: SegmentBatch(bytearray(packed)),
    "memoryview": memoryview,
}


def loop(call: Callable[[object], object], segments: Sequence[object]) -> float:
    """Nanoseconds a call."""
    begin = clock()
    for segment in segments:
        call(segment)
    return (clock() - begin) / len(segments)


def cut(packed: bytes | bytearray, make: Callable[[bytes], object]) -> list[object]:
    return [make(bytes(packed[at : at + SEGMENT_BYTES])) for at in range(0, len(packed), SEGMENT_BYTES)]


def cached(kind: str, rounds: int) -> dict[str, list[float]]:
    """The ACK that ends a handshake, again and again: quiet from the second time on."""
    table = ConnectionTable(256, seat="observer", seed=1)
    for quiet in cut(ChurnStream(64, seed=1).take(400), bytes):
        table.receive(quiet)
        if table.receive(quiet)[1] == 0:
            break
    return _rounds(table, lambda: [KINDS[kind](quiet)] * GROUP, rounds)


def churned(kind: str, connections: int, rounds: int) -> dict[str, list[float]]:
    """Segments of a stream in steady state, each of another connection."""
    stream = ChurnStream(connections, seed=1)
    table = ConnectionTable(round(connections * 1.05) + 1024, seat="observer", seed=1)
    while stream.segments < stream.warm_up:
        table.apply(stream.take(65_536))
    return _rounds(table, lambda: cut(stream.take(GROUP), KINDS[kind]), rounds)


def _rounds(table: ConnectionTable, segments: Callable[[], Sequence[object]], rounds: int) -> dict[str, list[float]]:
    empty = Empty()
    found: dict[str, list[float]] = {"receive": [], "empty": []}
    for _ in range(rounds):
        spent = {"receive": 0.0, "empty": 0.0}
        for _ in range(CALLS // GROUP):
            some = segments()
            spent["empty"] += loop(empty.receive, some)
            spent["receive"] += loop(table.receive, some)
        for name, total in spent.items():
            found[name].append(total / (CALLS // GROUP))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.single", description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=number, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    results = {}
    for kind in KINDS:
        results[f"in the cache, {kind}"] = cached(kind, options.rounds)
        results[f"{options.connections:,} connections, {kind}"] = churned(kind, options.connections, options.rounds)
    print("| | receive ns | empty method ns | ratio |\n|---|---|---|---|")
    for what, found in results.items():
        ratio = statistics.median(r / e for r, e in zip(found["receive"], found["empty"], strict=True))
        print(f"| {what} | {statistics.median(found['receive']):.0f} | {statistics.median(found['empty']):.0f} | {ratio:.2f} x |")
    print(f"\n{machine()}; {options.rounds} rounds of {CALLS:,} calls, the loop included; medians of CPU time")
    chain, waits = Chain(options.connections), []
    for _ in range(options.rounds):
        begin = clock()
        chain.follow(1_000_000)
        waits.append((clock() - begin) / 1e6)
    print(f"one read of memory that must wait for the one before, {options.connections:,} lines: {statistics.median(waits):.0f} ns")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "ns": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
