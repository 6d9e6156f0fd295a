"""One load from one thread and from two: what they carry, and their CPU.

    python -m benchmarks.load.threads [--threads 1 2] [--seconds 4] [--rounds 5]        (Linux; root, or user namespaces)

The server, of two processes, shares the CPUs. Two loads, 100 at once: an HTTP exchange a connection, which the server closes;
and connections in which nothing is said, closed by a RST. CPU is that of the client's threads; the kernel's input path, up to
the server's socket, runs inside their writes. `in step` is the share of the time in which a thread worked or waited for
packets: in the rest it waited for the other threads, once a second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

LOADS = {
    "exchanges": ["--server", "http-close", "--server-processes", "2", "--http", "--close", "peer"],
    "connections": ["--server", "sink", "--server-processes", "2", "--close", "rst"],
}


def measure(load: str, threads: int, seconds: float) -> tuple[float, float, float]:
    """(a second, us of CPU each, share of the time in step)."""
    call = [sys.executable, "-m", "fasttcp", "load", *LOADS[load], "--hold", "100", "--life", "0", "--threads", str(threads)]
    told = subprocess.run([*call, "--duration", str(seconds), "--json", "--quiet"], capture_output=True, text=True, check=True)
    report = json.loads(told.stdout)
    counts, errors = report["counts"], sum(n for name, n in report["outcomes"].items() if name != "ok")
    if errors:
        print(f"{load}, {threads} threads: {errors} errors: {report['outcomes']}")
    whole = report["samples"][-1]["seconds"] * threads
    return counts["established"] / report["seconds"], counts["cpu_ns"] / counts["established"] / 1e3, counts["ran_ns"] / 1e9 / whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, median of {args.rounds}, from the lowest to the highest in brackets")
    for load in LOADS:
        found: dict[int, list[tuple[float, float, float]]] = {threads: [] for threads in args.threads}
        for _ in range(args.rounds):
            for threads in args.threads:
                found[threads].append(measure(load, threads, args.seconds))
        for threads, runs in found.items():
            rates, cpu, step = ([run[i] for run in runs] for i in range(3))
            print(
                f"{load:12} {threads:2} threads {statistics.median(rates):8,.0f}/s [{min(rates):,.0f} to {max(rates):,.0f}]"
                f" {statistics.median(cpu):6.1f} us of CPU each [{min(cpu):.1f} to {max(cpu):.1f}], in step {min(step):.1%}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
