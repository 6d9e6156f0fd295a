"""One million connections open at once, held for a minute, closed: our count and the kernel's, side by side.

    python -m benchmarks.load.million [--connections 1M] [--seconds 60] [--server http|backlog]

The kernel's figures are those of its end in the load's own network: /proc/PID/net/sockstat, and `ss -s` where it is
installed. Memory: some 100 bytes and a row a connection here, some 3 to 4 KB a socket in the kernel.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def sockstat(pid: int) -> dict[str, int]:
    """The kernel's TCP sockets in the network of a process: inuse, orphan, tw, alloc, mem (pages)."""
    for line in Path(f"/proc/{pid}/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()[1:]
            return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    return {}


def ss(pid: int) -> str:
    """`ss -s` there; empty without the tools or the right to enter."""
    if not (shutil.which("ss") and shutil.which("nsenter")):
        return ""
    told = subprocess.run(["nsenter", "-t", str(pid), "-n", "ss", "-s"], capture_output=True, text=True, check=False)
    return "; ".join(line for line in told.stdout.splitlines() if line.startswith("TCP:"))


def rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def slab() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", default="1M")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--fill", type=float, default=60, help="seconds allowed for opening them")
    parser.add_argument("--server", default="http")
    args = parser.parse_args()
    before = slab()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        child = subprocess.Popen(
            [
                sys.executable, "-m", "fasttcp", "load", "--hold", args.connections, "--duration", str(args.fill + args.seconds),
                "--grace", "180s", "--connecting", "2k", "--server", args.server, "--json", str(report),
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        end = time.monotonic() + args.fill + args.seconds - 2
        while time.monotonic() < end and child.poll() is None:
            time.sleep(5)
            kernel = sockstat(child.pid)
            at = args.fill + args.seconds - (end - time.monotonic())
            grown = (slab() - before) / 1e6
            print(f"{at:6.0f} s  kernel: {kernel}, slab +{grown:,.0f} MB  client {rss(child.pid) / 1e6:.0f} MB", flush=True)
        print("at the end of holding:", ss(child.pid), sockstat(child.pid), flush=True)
        out, _ = child.communicate()
        print(out)
        told = json.loads(report.read_text())
        same = told["held"]["kernel_established"] == told["held"]["states"].get("ESTABLISHED", 0)
        lost = told["counts"]["opened"] - told["outcomes"]["ok"]
        print(f"kernel's count equals ours: {same}; connections that did not end well: {lost}")
        print(f"client: {told['peak_rss_bytes'] / told['held']['live']:.0f} bytes of RSS a held connection")
        return 0 if same and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
