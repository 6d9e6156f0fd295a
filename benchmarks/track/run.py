"""`fasttcp track` and its peers over one capture, side by side: the table of ratios.

    python -m benchmarks.track.run                          3 M packets, 300,000 connections; about ten minutes
    python -m benchmarks.track.run --packets 300k --connections 30k --peers loop,track,zeek --rounds 9 --json track.json
    python -m benchmarks.track.run --memory                 memory against live connections instead

The capture (capture.py) is made in a temporary folder and read once, so that it lies in the page cache. Every run is a
process of its own, one after the other, never two at a time; their order turns from round to round, so what disturbs the
machine disturbs all. Slow peers run in the first --slow-rounds rounds only, on the same file.

Times are CPU seconds, user and system, of the process and its children: with one thread on a quiet machine that is the time
on the clock, and on a busy one it does not count what others do. The clock's seconds stand beside. `loop` and the drains of
fasttcp tell their times themselves, without start-up; all others, `fasttcp track` too, count from start to end.
A ratio is the median of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.run import machine
from benchmarks.track.capture import Shape, number, write_capture
from benchmarks.track.peers import PEERS, Absent, Peer

ROOT = Path(__file__).resolve().parent.parent.parent


def run_once(peer: Peer, capture: Path, limit: float) -> dict[str, float]:
    """One process from start to end. Raises Absent when it fails or takes longer than `limit` seconds."""
    call = peer.command(capture)
    log = capture.with_suffix(".log")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    with tempfile.TemporaryFile() as told, open(log if peer.to_file else os.devnull, "wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(call, stdout=told if peer.tells else out, stderr=subprocess.DEVNULL, env=env)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.perf_counter() - began > limit:
                process.kill()
                process.wait()
                raise Absent(f"not done after {limit:.0f} s")
            time.sleep(0.002)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise Absent(f"exit code {process.returncode}: {' '.join(call)}")
        result = {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime}
        if peer.tells:
            told.seek(0)
            result |= json.load(told)
    log.unlink(missing_ok=True)
    return result


def measure(
    capture: Path, made: dict[str, object], names: list[str], *, rounds: int, slow_rounds: int, limit: float,
    say: Callable[[str], None],
) -> dict[str, object]:  # fmt: skip
    """All rounds; times[name][round] is what run_once says, or None."""
    times: dict[str, list[dict[str, float] | None]] = {name: [] for name in names}
    absent: dict[str, str] = {}
    for turn in range(rounds):
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            peer = PEERS[name]
            if name in absent or (peer.slow and turn >= slow_rounds):
                times[name].append(None)
                continue
            say(f"round {turn + 1} of {rounds}: {peer.what}")
            try:
                once = run_once(peer, capture, limit)
            except Absent as reason:
                absent[name] = str(reason)
                say(f"{name}: {reason}")
                once = None
            if once is not None and once.get("packets", made["packets"]) != made["packets"]:
                absent[name] = f"VOID: {once['packets']} packets instead of {made['packets']}"
            times[name].append(once)
    return {"capture": made, "times": times, "absent": absent}


def ratios(result: dict[str, object], name: str, to: str, what: str = "cpu") -> list[float]:
    """CPU time (or the clock's, "seconds") of `name` for each of `to`, in the rounds that have both."""
    pairs = zip(result["times"].get(name, ()), result["times"].get(to, ()), strict=True)
    return [a[what] / b[what] for a, b in pairs if a is not None and b is not None]


def median(result: dict[str, object], name: str, what: str) -> float:
    return statistics.median(once[what] for once in result["times"][name] if once is not None)


GOALS = (  # (what, numerator, denominator, at least or at most)
    ("tracking against the libpcap loop", "track", "loop", ("<=", 1.0)),
    ("the Zeek log written, against the libpcap loop", "file", "loop", ("<=", 2.0)),
    *((f"{name} against fasttcp track", name, "zeek", (">=", PEERS[name].goal)) for name in PEERS if PEERS[name].slow),
)


def table(result: dict[str, object]) -> str:
    """Markdown: CPU and clock seconds, packets a second, ratios to our tracking, our log and the loop."""
    packets = result["capture"]["packets"]
    lines = ["| | CPU s | clock s | M packets/CPU s | x track | x zeek | x loop |", "|---|---|---|---|---|---|---|"]
    for name, times in result["times"].items():
        if not any(times) or name in result["absent"]:
            lines.append(f"| {PEERS[name].what} | - | | | | | |")
            continue
        cpu = median(result, name, "cpu")
        cells = [f"{cpu:.3f}", f"{median(result, name, 'seconds'):.3f}", f"{packets / cpu / 1e6:.2f}"]
        for to in ("track", "zeek", "loop"):
            found = ratios(result, name, to) if to in result["times"] else []
            cells.append(f"{statistics.median(found):.2f}" if found else "")
        lines.append(f"| {PEERS[name].what} | " + " | ".join(cells) + " |")
    lines += ["", "| goal | wanted | measured | |", "|---|---|---|---|"]
    for what, above, below, (sign, wanted) in GOALS:
        found = ratios(result, above, below) if {above, below} <= set(result["times"]) else []
        if found:
            ratio = statistics.median(found)
            met = ratio <= wanted if sign == "<=" else ratio >= wanted
            lines.append(f"| {what} | {sign} {wanted:g} | {ratio:.2f} | {'met' if met else 'MISSED'} |")
    clock = ratios(result, "file", "two", "seconds") if {"file", "two"} <= set(result["times"]) else []
    if clock:
        ratio = statistics.median(clock)
        lines.append(f"| one thread against two, by the clock | >= 1.6 | {ratio:.2f} | {'met' if ratio >= 1.6 else 'MISSED'} |")
    return "\n".join(lines)


# Packets, connections, seconds over which they begin, their median lifetime: what lives at once goes from few to all, and
# with it memory should go; the number of packets should not matter.
MEMORY = (
    Shape(500_000, 50_000, 1, 300, 0.2),
    Shape(3_000_000, 300_000, 1, 1800, 0.2),
    Shape(3_000_000, 300_000, 1, 300, 0.2),
    Shape(1_000_000, 100_000, 1, 60, 20),
    Shape(3_000_000, 100_000, 1, 60, 20),
    Shape(3_000_000, 300_000, 1, 60, 20),
)


def memory(folder: Path, say: Callable[[str], None]) -> list[dict[str, object]]:
    """Peak of anonymous memory above what the interpreter had, and of live connections, for captures of several shapes."""
    peer = Peer("memory", "", lambda capture: [sys.executable, "-m", "benchmarks.track.drain", str(capture), "validate", "memory"], tells=True)  # noqa: E501
    results = []
    for shape in MEMORY:
        say(f"memory: {shape.packets:,} packets, {shape.connections:,} connections in {shape.seconds:.0f} s")
        path = folder / "memory.pcap"
        made = write_capture(path, shape)
        results.append({**made, **run_once(peer, path, 600)})
        path.unlink()
    return results


def memory_table(results: list[dict[str, object]]) -> str:
    lines = ["| packets | connections | live at once | memory | for each live one |", "|---|---|---|---|---|"]
    for one in results:
        lines.append(
            f"| {one['packets']:,} | {one['connections']:,} | {one['live']:,} | {one['bytes'] / 1e6:.1f} MB "
            f"| {one['bytes'] / one['live']:,.0f} bytes |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.track.run", description=__doc__.splitlines()[0])
    parser.add_argument("--packets", type=number, default=Shape.packets)
    parser.add_argument("--connections", type=number, default=Shape.connections)
    parser.add_argument("--seed", type=int, default=Shape.seed)
    parser.add_argument("--peers", default=",".join(PEERS), help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slow-rounds", type=int, default=1)
    parser.add_argument("--limit", type=float, default=900, help="seconds after which a run is given up")
    parser.add_argument("--folder", type=Path, help="where the captures are made (default: the system's temporary folder)")
    parser.add_argument("--memory", action="store_true", help="memory against live connections instead of times")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args(arguments)
    names = options.peers.split(",")
    for name in names:
        if name not in PEERS:
            parser.error(f"no peer {name!r}; there are {', '.join(PEERS)}")
    tty = sys.stderr.isatty()

    def say(text: str) -> None:
        print(f"\r\033[K{text}" if tty else text, end="" if tty else "\n", file=sys.stderr, flush=True)

    record: dict[str, object] = {"machine": machine(), "date": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory(prefix="fasttcp-track-", dir=options.folder) as folder:
        if options.memory:
            record["memory"] = memory(Path(folder), say)
            text = memory_table(record["memory"])
        else:
            capture = Path(folder) / "capture.pcap"
            compileall.compile_dir(ROOT / "fasttcp", quiet=1)  # an installed package has its bytecode
            say("making the capture")
            made = write_capture(capture, Shape(options.packets, options.connections, options.seed))
            capture.read_bytes()
            result = measure(
                capture, made, names, rounds=options.rounds, slow_rounds=options.slow_rounds, limit=options.limit, say=say
            )
            record |= result
            text = table(result) + "".join(f"\n{name}: {reason}" for name, reason in result["absent"].items())
    if tty:
        say("")
    print(text)
    print(f"\n{machine()}")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
