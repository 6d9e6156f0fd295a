"""fasttcp as one of the workers: the same commands as the peers, the public API and nothing else.

python -m benchmarks.peers.ours FILE SEGMENTS ROWS 4|6
"""

from __future__ import annotations

import json
import mmap
import sys
from time import perf_counter_ns

import numpy as np

from benchmarks.peers.machine import TICK_NS
from fasttcp.core.table import ConnectionTable

SEGMENT = 80
BATCH = 4096  # segments a call


def report(table: ConnectionTable) -> dict[str, object]:
    """What there is now, in the words of the peers."""
    table.advance(table.now_ns)
    live = np.asarray(table.column("generation")) & 1 == 1
    total = 0
    for name in ("snd_nxt", "rcv_nxt", "window", "packets_low", "bytes_low"):
        for side in (0, 1):
            total += int(np.asarray(table.column(f"{name}_{side}"))[live].sum(dtype=np.uint64))
    for name in ("last_ns", "deadline"):
        total += int(np.asarray(table.column(name))[live].astype(np.uint64).sum(dtype=np.uint64))
    tallies = table.tallies()
    names = ("connections", "ended", "replaced", "retransmitted", "missed_bytes", "stray")
    return {
        "counts": list(table.counts().values()),
        "live": len(table),
        "sum": total % (1 << 64),
        **{name: tallies[name] for name in names},
        "bytes": table.nbytes,
    }


def main() -> None:
    path, segments, rows, _ = sys.argv[1:]
    with open(path, "rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), int(segments) * SEGMENT, access=mmap.ACCESS_READ))
    table = ConnectionTable(int(rows), seat="observer", seed=1, tick_ns=TICK_NS)
    print("ready", flush=True)
    for line in sys.stdin:
        command = line.split()
        if command[0] == "apply":
            n = int(command[1])
            begin = perf_counter_ns()
            for at in range(0, n, BATCH):
                table.apply(memory[at * SEGMENT : min(at + BATCH, n) * SEGMENT])
            print(perf_counter_ns() - begin, flush=True)
        elif command[0] == "report":
            print(json.dumps(report(table)), flush=True)
        else:
            break


if __name__ == "__main__":
    main()
