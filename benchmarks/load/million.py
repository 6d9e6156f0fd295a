"""One million connections open at once, held for a minute, closed: our count and the kernel's, side by side.

    python -m benchmarks.load.million [--connections 1M] [--seconds 60] [--server http|backlog|nginx]

http and backlog are the server that `fasttcp load` starts itself, one on epoll and one that never accepts, in a network of
its own. nginx (root) runs in as many processes as the limit of open files asks for. The kernel's figures are those of the
server's end: CurrEstab and sockstat in its network, and `ss -s` where it is installed. Memory: some 100 bytes and a row a
connection here, some 3 to 4 KB a socket in the kernel.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load.compare import NAMES, PORT, SERVER, inside, networks, nginx
from fasttcp.load.scenario import count
from fasttcp.load.server import HEADROOM, SPARE_FILES, raise_file_limit


def pairs(file: str, begin: str) -> dict[str, int]:
    """Names and values of one line of /proc/PID/net/sockstat, or of two of .../snmp."""
    lines = [line.split()[1:] for line in Path(file).read_text().splitlines() if line.startswith(begin)]
    names, values = lines if len(lines) == 2 else (lines[0][::2], lines[0][1::2])
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def established(pid: int) -> int:
    """Connections that are open at the kernel's end, in the network of a process."""
    return pairs(f"/proc/{pid}/net/snmp", "Tcp:")["CurrEstab"]


def ss(pid: int) -> str:
    """`ss -s` there; empty without the tools or the right to enter."""
    if not (shutil.which("ss") and shutil.which("nsenter")):
        return ""
    told = subprocess.run(["nsenter", "-t", str(pid), "-n", "ss", "-s"], capture_output=True, text=True, check=False)
    return "; ".join(line for line in told.stdout.splitlines() if line.startswith("TCP:"))


def kilobytes(file: str, name: str) -> int:
    """A line of /proc/meminfo or /proc/PID/status, in bytes."""
    return next(int(line.split()[1]) * 1024 for line in Path(file).read_text().splitlines() if line.startswith(name))


def slab() -> int:
    return kilobytes("/proc/meminfo", "Slab:")


@contextlib.contextmanager
def server(kind: str, connections: int) -> Iterator[tuple[list[str], list[str]]]:
    """Where the load is to run, and what it is told of its server."""
    if kind != "nginx":
        yield [], ["--server", kind]
        return
    files = raise_file_limit()
    room = files - 2 * SPARE_FILES
    with tempfile.TemporaryDirectory() as folder:
        running = None
        try:
            networks()
            processes = math.ceil(connections * HEADROOM / room)
            running = nginx(folder, processes=processes, keep=3600, files=files)
            time.sleep(2)
            print(f"nginx with {processes} processes", flush=True)
            yield inside(NAMES[0]), [f"{SERVER}:{PORT}", "--source", "198.19.0.0/24", "--http"]
        finally:
            if running is not None:
                running.terminate()
                running.wait()
            for name in NAMES:
                subprocess.run(["ip", "netns", "delete", name], check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=count, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fill", type=float, default=90, help="seconds allowed for opening them")
    parser.add_argument("--server", choices=("http", "backlog", "nginx"), default="http")
    args = parser.parse_args()
    if args.server == "nginx" and (os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nginx")):
        print("left out: needs root, nginx and the `ip` command")
        return 0
    before, whole = slab(), args.fill + args.seconds
    with server(args.server, args.connections) as (where, of_server), tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        child = subprocess.Popen(
            [
                *where, sys.executable, "-m", "fasttcp", "load", *of_server, "--hold", str(args.connections), "--duration",
                str(whole), "--grace", "180s", "--connecting", "2k", "--json", str(report), "--quiet",
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        end = time.monotonic() + whole - 2
        full = None
        while time.monotonic() < end and child.poll() is None:
            time.sleep(min(5, max(0, end - time.monotonic())))
            kernel, at = established(child.pid), whole - 2 - (end - time.monotonic())
            full = full or (at if kernel >= args.connections else None)
            grown, client = (slab() - before) / 1e6, kilobytes(f"/proc/{child.pid}/status", "VmRSS:") / 1e6
            print(f"{at:6.0f} s  kernel: {kernel:,} established, slab +{grown:,.0f} MB; client {client:.0f} MB", flush=True)
        print(f"all open for {at - full:.0f} s" if full else "never all open")
        print("at the end of holding:", pairs(f"/proc/{child.pid}/net/sockstat", "TCP:"), ss(child.pid), flush=True)
        out, _ = child.communicate()
        print(out)
        told = json.loads(report.read_text())
        ours = told["held"]["states"].get("ESTABLISHED", 0)
        lost = told["counts"]["opened"] - told["outcomes"]["ok"]
        print(f"the kernel counted {kernel:,} established, we {ours:,}; connections that did not end well: {lost}")
        print(f"client: {told['peak_rss_bytes'] / told['held']['live']:.0f} bytes of RSS a held connection")
        return 0 if full and kernel == ours and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
