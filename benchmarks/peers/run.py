"""The same churn into fasttcp and its peers, side by side: the table of ratios.

    python -m benchmarks.peers.run                                  100 k, 1 M, 4 M, 10 M over IPv4; about 40 minutes
    python -m benchmarks.peers.run --sizes 1M --peers fasttcp,floor2,abseil --rounds 9 --json ratios.json

Every peer is a process of its own. All read the same segments from one file in memory, one after the other, never two at a
time; the order turns from round to round, so what disturbs the machine disturbs all. A figure is the median of the rounds; a
ratio is the median of the rounds' own ratios. After the last round each says what it holds: states of all halves, live
connections, a checksum over sequence numbers, windows, packets, bytes, times and deadlines. A peer that differs from
fasttcp in any of it has no figure.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.peers.build import PEERS, Absent, Peer, command
from fasttcp.load.churn import ChurnStream

SEGMENT = 80
SAME = ("counts", "live", "sum", "connections", "ended", "replaced", "retransmitted", "missed_bytes", "stray")
HEADROOM = 1.04  # rows for each connection: the stream's numbers sway a little
SIZES = (100_000, 1_000_000, 4_000_000, 10_000_000)


class Worker:
    """One peer's process and the two commands that it knows."""

    def __init__(self, peer: Peer, call: list[str]) -> None:
        self.peer = peer
        # Memory of the peers from huge pages too: malloc asks for them with this (glibc 2.35).
        env = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "PYTHONHASHSEED": "0"}
        self.process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        if self._read() != "ready":
            raise Absent(f"{peer.name} did not start: {' '.join(call)}")

    def _read(self) -> str:
        return self.process.stdout.readline().strip()

    def _ask(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self._read()
        if not answer:
            raise RuntimeError(f"{self.peer.name} has died, exit code {self.process.wait()}")
        return answer

    def apply(self, n: int) -> int:
        """Nanoseconds for the first n segments of the file."""
        return int(self._ask(f"apply {n}"))

    def report(self) -> dict[str, object]:
        return json.loads(self._ask("report"))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def start(peers: Iterable[Peer], path: Path, chunk: int, rows: int, family: int) -> tuple[list[Worker], dict[str, str]]:
    """All workers that can be had, and why the others can't."""
    workers, absent = [], {}
    for peer in peers:
        try:
            workers.append(Worker(peer, command(peer, path, chunk, rows, family)))
        except Absent as reason:
            absent[peer.name] = str(reason)
    return workers, absent


def measure(
    connections: int, names: list[str], *, mix: str, seed: int, rounds: int, chunk: int, say=lambda text: None
) -> dict[str, object]:
    """One size: every peer warmed up to the steady state, then `rounds` rounds of `chunk` segments each."""
    stream = ChurnStream(connections, mix=mix, seed=seed)
    family = 6 if stream.mix.ipv6 else 4
    wanted = [PEERS[name] for name in names if connections <= PEERS[name].most]
    absent = {
        name: f"not beyond {PEERS[name].most:,} connections: it would take hours"
        for name in names
        if connections > PEERS[name].most
    }
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.NamedTemporaryFile(dir=place, prefix="churn-") as file:
        file.truncate(chunk * SEGMENT)
        segments = mmap.mmap(file.fileno(), chunk * SEGMENT)
        workers, missing = start(wanted, Path(file.name), chunk, round(connections * HEADROOM) + 1024, family)
        absent |= missing
        for name, reason in absent.items():
            say(f"{name}: {reason}")
        while stream.segments < stream.warm_up:
            stream.write_into(segments)
            for worker in workers:
                worker.apply(chunk)
            say(f"{connections:,}: filled to {min(1, stream.segments / stream.warm_up):.0%}")
        times: dict[str, list[float]] = {worker.peer.name: [] for worker in workers}
        for turn in range(rounds):
            stream.write_into(segments)
            for i in range(len(workers)):
                worker = workers[(i + turn) % len(workers)]
                times[worker.peer.name].append(worker.apply(chunk) / chunk)
            say(f"{connections:,}: round {turn + 1} of {rounds}")
        reports = {worker.peer.name: worker.report() for worker in workers}
        for worker in workers:
            worker.close()
    return {
        "connections": connections,
        "mix": mix,
        "seed": seed,
        "segments_a_round": chunk,
        "ns_an_event": times,
        "reports": reports,
        "absent": absent,
        "void": disagreements(reports),
    }


def disagreements(reports: dict[str, dict[str, object]]) -> dict[str, str]:
    """Which peers do not say what fasttcp says, and in what."""
    ours = reports.get("fasttcp")
    void = {}
    for name, report in reports.items():
        different = [what for what in SAME if ours is not None and report[what] != ours[what]]
        if different:
            void[name] = "; ".join(f"{what}: {report[what]}, fasttcp {ours[what]}" for what in different)
    return void


def table(results: list[dict[str, object]], names: list[str]) -> str:
    """Markdown: for each size ns an event, the ratio to fasttcp, bytes a connection."""
    heads = [f"{result['connections']:,}" for result in results]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in names:
        cells = []
        for result in results:
            times = result["ns_an_event"].get(name)
            ours = result["ns_an_event"].get("fasttcp")
            if name in result["void"]:
                cells.append("void")
            elif not times:
                cells.append("-")
            else:
                report = result["reports"][name]
                size = f", {report['bytes'] / report['live']:.0f} B"
                ratio = f" ({statistics.median(t / o for t, o in zip(times, ours, strict=True)):.2f} x)" if ours else ""
                cells.append(f"{statistics.median(times):.1f} ns{ratio}{size}")
        lines.append(f"| {PEERS[name].what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def number(text: str) -> int:
    """100k, 4M, 250000."""
    scale = {"k": 1000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    return round(float(text[:-1] if scale > 1 else text) * scale)


def machine() -> str:
    """What it ran on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((x.split(":")[1].strip() for x in cpuinfo.read_text().splitlines() if x.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.run", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="connections, e.g. 100k,1M")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chunk", default="1M", help="segments a round")
    parser.add_argument("--mix", default="ipv4")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args(arguments)
    names = options.peers.split(",")
    for name in names:
        if name not in PEERS:
            parser.error(f"no peer {name!r}; there are {', '.join(PEERS)}")
    tty = sys.stderr.isatty()

    def say(text: str) -> None:
        if tty:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    results = []
    for size in map(number, options.sizes.split(",")):
        results.append(
            measure(
                size, names, mix=options.mix, seed=options.seed, rounds=options.rounds, chunk=number(options.chunk), say=say
            )
        )
    say("")
    print(table(results, names))
    print(f"\n{machine()}; mix {options.mix}, {options.rounds} rounds of {options.chunk} segments; medians")
    for result in results:
        for name, reason in result["absent"].items():
            print(f"{result['connections']:,} {name}: {reason}")
        for name, reason in result["void"].items():
            print(f"{result['connections']:,} {name}: VOID: {reason}")
    if options.json:
        record = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "results": results}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if any(result["void"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
