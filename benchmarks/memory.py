"""Bytes a connection, all included: what the table says of itself and what the system says of the process.

    python -m benchmarks.memory                      1,000,000 connections over IPv4, over IPv6, half of each
    python -m benchmarks.memory --connections 4M --mixes ipv4,ipv6

Each mix has a process of its own. The table has room for `--headroom` more rows than the stream has connections on average (their
number sways a little) and may not grow; it is filled to the steady state, half of it in TIME_WAIT. "resident": how much
more memory the process has with the full table than it had before the table was made; the stream was there by then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.run import machine, number
from fasttcp import ConnectionTable
from fasttcp.core.segments import SEGMENT_BYTES
from fasttcp.load.churn import ChurnStream

CHUNK = 65_536


def resident() -> int:
    """Bytes of memory that this process has now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


def fill(connections: int, mix: str, headroom: float) -> dict[str, object]:
    """What a full table takes; run this in a process of its own."""
    stream = ChurnStream(connections, mix=mix, seed=1)
    memory = bytearray(CHUNK * SEGMENT_BYTES)
    warm = ConnectionTable(4096, max_capacity=1 << 20, seat="observer", seed=1)  # whatever is allocated once
    while stream.segments < 4 * CHUNK:
        stream.write_into(memory)
        warm.apply(memory)
    del warm, stream
    stream = ChurnStream(connections, mix=mix, seed=1)
    before = resident()
    table = ConnectionTable(round(connections * headroom), seat="observer", seed=1)
    while stream.segments < stream.warm_up:
        stream.write_into(memory)
        table.apply(memory)
    return {
        "mix": mix,
        "live": len(table),
        "full": table.tallies()["full"],
        "capacity": table.capacity,
        "nbytes": table.nbytes,
        "resident": resident() - before,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=number, default=1_000_000)
    parser.add_argument("--headroom", type=float, default=1.01, help="rows for each connection (1.01)")
    parser.add_argument("--mixes", default="ipv4,ipv6,both")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.fill:
        print(json.dumps(fill(options.connections, options.fill, options.headroom)))
        return 0
    found = []
    print("| mix | live | rows | the table says, bytes a connection | resident, bytes a connection |\n|---|---|---|---|---|")
    for mix in options.mixes.split(","):
        call = [sys.executable, "-m", "benchmarks.memory", "--fill", mix, "--connections", str(options.connections)]
        # So that what is freed goes back to the system, and what is allocated afterwards is new.
        env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        one = json.loads(subprocess.check_output([*call, "--headroom", str(options.headroom)], text=True, env=env))
        found.append(one)
        own, all_of = one["nbytes"] / one["live"], one["resident"] / one["live"]
        print(f"| {mix} | {one['live']:,} | {one['capacity']:,} | {own:.1f} | {all_of:.1f} |")
        if one["full"]:
            print(f"{mix}: {one['full']:,} segments found the table full: give it more --headroom")
    print(f"\n{machine()}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "mixes": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
