"""Timers alone: fasttcp's wheel against intrusive lists in C++ and heapq in Debian's Python.

    python -m benchmarks.peers.timers [--rows 1000000] [--rounds 9] [--json FILE]

insert: a time-out of 1 to 32,000 ticks for every row. cancel: all of them. expire: 1 to 6,000 ticks for every row, handed out
tick by tick, each row read. both: insert and expire, one after the other. burst: one row in ten, scattered, in one tick, in
milliseconds. Rounds are interleaved; CPU time of each thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from fasttcp.core._timing import Timers

from benchmarks.peers.build import PYTHON, Absent, compiled
from benchmarks.peers.run import machine, number

FIELDS = ("insert", "cancel", "expire", "burst")

# One round of heapq: no cancel, which a heap has no cheap form of.
HEAPQ = """
import gc, heapq, random, sys, time
n = int(sys.argv[1]); gc.disable(); random.seed(1); clock = time.thread_time_ns
push, pop = heapq.heappush, heapq.heappop
def fill(dues):
    heap = []
    begin = clock()
    for item in dues: push(heap, item)
    return heap, clock() - begin
def drain(heap, ticks):
    begin = clock()
    for tick in range(ticks + 1):
        while heap and heap[0][0] <= tick: pop(heap)
    return clock() - begin
heap, insert = fill([(random.randrange(1, 32000), i) for i in range(n)])
del heap
heap, _ = fill([(random.randrange(1, 6000), i) for i in range(n)])
expire = drain(heap, 6000)
heap, _ = fill([(1, i * 7919 % (n // 10) * 10) for i in range(n // 10)])
print(insert / n, "nan", expire / n, drain(heap, 1) / 1e6)
"""


def _clocked(call, *arguments) -> float:
    begin = time.thread_time_ns()
    call(*arguments)
    return time.thread_time_ns() - begin


def ours(timers: Timers, rows: int) -> list[float]:
    """One round of the wheel."""
    insert = _clocked(timers.insert, 1, 32_000) / rows
    cancel = _clocked(timers.cancel) / rows
    timers.insert(1, 6_000)
    expire = _clocked(timers.expire, 6_000) / rows
    timers.gather(rows // 10, 100)
    timers.expire(99)
    return [insert, cancel, expire, _clocked(timers.expire, 1) / 1e6]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.timers", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=number, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    timers = Timers(options.rows)
    calls = {}
    try:
        calls["intrusive lists, C++"] = [str(compiled("timers.cpp")), str(options.rows), "2"]
    except Absent as reason:
        print(f"intrusive lists: {reason}")
    if Path(PYTHON).exists():
        calls["heapq, Python"] = [PYTHON, "-c", HEAPQ, str(options.rows)]
    else:
        print(f"heapq: {PYTHON} is not there")
    rounds: dict[str, list[list[float]]] = {"fasttcp": [], **{name: [] for name in calls}}
    ours(timers, options.rows)  # the first touches of the memory are no round
    for _ in range(options.rounds):
        rounds["fasttcp"].append(ours(timers, options.rows))
        for name, call in calls.items():
            last = subprocess.check_output(call, text=True).splitlines()[-1]
            rounds[name].append([float(word) for word in last.split()[-4:]])
    print("| | insert ns | cancel ns | expire ns | both ns | burst ms |\n|---|---|---|---|---|---|")
    columns = [lambda one, i=i: one[i] for i in range(len(FIELDS))]
    columns.insert(3, lambda one: one[0] + one[2])
    for name, figures in rounds.items():
        cells = []
        for column in columns:
            ratio = statistics.median(
                column(theirs) / column(mine) for theirs, mine in zip(figures, rounds["fasttcp"], strict=True)
            )
            value = statistics.median(map(column, figures))
            cells.append("-" if value != value else f"{value:.1f} ({ratio:.1f} x)")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\n{machine()}; {options.rows:,} rows, {options.rounds} rounds; medians")
    if options.json:
        record = {"machine": machine(), "rows": options.rows, "fields": FIELDS, "rounds": rounds}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
