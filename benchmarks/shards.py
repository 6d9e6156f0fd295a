"""Two shards on two threads against one: how many times as many segments in the same time.

    python -m benchmarks.shards [--connections 1M] [--shards 2] [--rounds 9] [--json FILE]

A plain table, a table of one shard and one of several are given the same segments in turn, the order changing from round to round.
Two figures: by the clock, which needs as many idle cores as there are shards; and by CPU time, where a call takes as long as
the busiest of its threads has worked: what the clock would say if nothing else ran. Waiting for each other (some 20 us a
call) is in the first only. Then what this machine gives at most: as many tables as there are shards, each with a thread and
connections of its own and nothing shared, all at once against one of them alone. Last, whether `apply` holds the GIL: how far
another thread counts in Python while it runs, against how far it counts while the first thread sleeps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.run import machine, number
from fasttcp import ConnectionTable, ShardedTable
from fasttcp.core.segments import SEGMENT_BYTES
from fasttcp.load.churn import ChurnStream

BATCH = 65_536  # segments a call
Table = ConnectionTable | ShardedTable


def cpu_clocks(table: Table, before: set[int]) -> list[int]:
    """The CPU clocks of the threads that work for this table: its helpers were born after `before`, and this one."""
    helpers = [t.ident for t in threading.enumerate() if t.ident not in before and t.name.startswith("fasttcp shard")]
    return [time.pthread_getcpuclockid(ident) for ident in (*helpers, threading.get_ident()) if ident is not None]


def apply(table: Table, clocks: list[int], segments: memoryview) -> tuple[int, int]:
    """(wall clock, CPU time of the busiest thread), ns."""
    wall, busiest = 0, 0
    for at in range(0, len(segments), BATCH * SEGMENT_BYTES):
        piece = segments[at : at + BATCH * SEGMENT_BYTES]
        before = [time.clock_gettime_ns(clock) for clock in clocks]
        began = time.perf_counter_ns()
        table.apply(piece)
        wall += time.perf_counter_ns() - began
        busiest += max(time.clock_gettime_ns(clock) - b for clock, b in zip(clocks, before, strict=True))
    return wall, busiest


def separate(connections: int, tables: int, rounds: int, seed: int) -> list[float]:
    """How many times as much so many tables do at once as one of them alone, by the clock; one figure a round."""
    streams = [ChurnStream(connections // tables, seed=seed + i) for i in range(tables)]
    rows = round(connections // tables * 1.05) + 1024
    made = [ConnectionTable(rows, seat="observer", seed=seed) for _ in streams]
    memories = [memoryview(bytearray(4 * BATCH * SEGMENT_BYTES)) for _ in streams]
    for stream, table, memory in zip(streams, made, memories, strict=True):
        while stream.segments < stream.warm_up:
            stream.write_into(memory)
            table.apply(memory)
    found = []
    for _ in range(rounds):
        spent = []
        for many in (1, tables):
            gate = threading.Barrier(many + 1)
            threads = [threading.Thread(target=_behind, args=(gate, made[i], memories[i])) for i in range(many)]
            for i in range(many):
                streams[i].write_into(memories[i])
                threads[i].start()
            gate.wait()
            began = time.perf_counter_ns()
            gate.wait()
            spent.append(time.perf_counter_ns() - began)
            for thread in threads:
                thread.join()
        found.append(tables * spent[0] / spent[1])
    return found


def _behind(gate: threading.Barrier, table: ConnectionTable, memory: memoryview) -> None:
    gate.wait()
    table.apply(memory)
    gate.wait()


def counted(work: Callable[[], object], seconds: float) -> float:
    """How far another thread counts a second while this one does `work` over and over."""
    done, count = threading.Event(), [0]

    def tally() -> None:
        while not done.is_set():
            count[0] += 1

    other = threading.Thread(target=tally)
    other.start()
    before = time.clock_gettime_ns(clock := time.pthread_getcpuclockid(other.ident or 0))
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        work()
    spent = time.clock_gettime_ns(clock) - before
    done.set()
    other.join()
    return spent / 1e9 / seconds


def measure(connections: int, shards: int, rounds: int, seed: int = 1) -> dict[str, object]:
    rows = round(connections * 1.05) + 1024
    make: dict[str, Callable[[], Table]] = {
        "plain": lambda: ConnectionTable(rows, seat="observer", seed=seed),
        "1 shard": lambda: ShardedTable(rows, shards=1, seed=seed),
        f"{shards} shards": lambda: ShardedTable(rows, shards=shards, seed=seed),
    }
    tables, clocks = {}, {}
    for name, new in make.items():
        before = {thread.ident or 0 for thread in threading.enumerate()}
        tables[name] = new()
        clocks[name] = cpu_clocks(tables[name], before)
    stream = ChurnStream(connections, seed=seed)
    memory = memoryview(bytearray(4 * BATCH * SEGMENT_BYTES))
    while stream.segments < stream.warm_up:
        stream.write_into(memory)
        for table in tables.values():
            table.apply(memory)
    found: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in tables}
    names = list(tables)
    for turn in range(rounds):
        stream.write_into(memory)
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            wall, cpu = apply(tables[name], clocks[name], memory)
            found[name]["wall"].append(wall / 4 / BATCH)
            found[name]["cpu"].append(cpu / 4 / BATCH)
    begun = [table.tallies()["connections"] for table in tables.values()]
    if len(set(begun)) != 1:
        raise RuntimeError(f"the tables differ: {begun} connections")
    idle = counted(lambda: time.sleep(0.05), 1.0)

    def work() -> None:
        stream.write_into(memory)
        tables["plain"].apply(memory)

    return {
        "connections": connections,
        "ns": found,
        "separate": separate(connections, shards, rounds, seed),
        "gil_free": counted(work, 1.0),
        "gil_free_idle": idle,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=number, default=1_000_000)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    found = measure(options.connections, options.shards, options.rounds)
    print("| | by the clock, ns an event | times one shard | by CPU time, ns an event | times one shard |\n|---|---|---|---|---|")
    for name, times in found["ns"].items():
        cells = []
        for kind in ("wall", "cpu"):
            ratio = statistics.median(o / t for o, t in zip(found["ns"]["1 shard"][kind], times[kind], strict=True))
            cells += [f"{statistics.median(times[kind]):.1f}", f"{ratio:.2f} x"]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(
        f"\n{options.shards} separate tables at once, nothing shared: {statistics.median(found['separate']):.2f} x one alone, "
        "by the clock"
    )
    print(
        f"another thread got {found['gil_free']:.2f} s of CPU a second while apply ran in a loop, "
        f"{found['gil_free_idle']:.2f} s while the loop slept"
    )
    print(f"{machine()}; {options.connections:,} connections, {options.rounds} rounds of {4 * BATCH:,} segments; medians")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
