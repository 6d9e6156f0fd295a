"""Ways to hand packets to the kernel and take its answers, side by side: wire.c says what is measured; and data in segments
of one MSS beside data that the kernel cuts up: bulk.c.

    python -m benchmarks.load.wire [--rounds 3] [--seconds 1]        (root, Linux, a C compiler)

Each run has a network of its own. For AF_PACKET it has two, joined by a veth pair: our end has no address, so that no
kernel answers for us, and the other end knows our link-layer address, so that nobody asks for it. CPU is that of the
process; for `sqpoll` the kernel's polling thread is part of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TUN = ("rw", "uring", "uring-fixed", "uring-out", "sqpoll", "napi")
PACKET = ("packet2", "packet3")
BATCHES = (1, 16, 64, 256)
# The answering end stands in a network of its own below the first one; it lives as long as its `sleep`.
VETH = """
ip link set lo up
unshare --net sleep 60 & far=$!
while [ "$(readlink /proc/$far/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add wa address 02:00:00:00:00:01 type veth peer name wb address 02:00:00:00:00:02 netns $far
at() { nsenter --target $far --net "$@"; }
at ip link set lo up; at ip link set wb up; ip link set wa up
at ip address add 198.18.0.1/32 dev wb; at ip route add 198.19.0.0/16 dev wb
at ip neighbour add 198.19.0.1 lladdr 02:00:00:00:00:01 nud permanent dev wb
sysctl -qw net.ipv6.conf.wa.disable_ipv6=1
"""


def build(folder: str, name: str) -> str:
    """The compiled wire.c or bulk.c."""
    program = str(Path(folder) / name)
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run([os.environ.get("CC", "cc").split()[-1], "-O2", "-o", program, str(source)], check=True)
    return program


def run(program: str, method: str, batch: int, seconds: float) -> list[int]:
    """What wire.c prints; its complaint as OSError."""
    command = f"{program} {method} {batch} {seconds}"
    if method in PACKET:
        command = f"{VETH}{command} wa; status=$?; kill $(jobs -p); exit $status"
    return figures(["bash", "-c", command])


def figures(command: list[str]) -> list[int]:
    """The numbers that a command prints in a network of its own."""
    told = subprocess.run(["unshare", "--net", *command], capture_output=True, text=True, check=False, start_new_session=True)
    if not told.stdout:
        raise OSError(told.stderr.strip())
    return [int(word) for word in told.stdout.split()]


def bulk(program: str, rounds: int, seconds: float) -> None:
    """Data on one connection: MSS by MSS, and in large pieces."""
    for method in ("mss", "gso"):
        runs = [figures([program, method, str(seconds)]) for _ in range(rounds)]
        rate = statistics.median(acked / wall * 1e3 for acked, _, _, _, wall in runs)
        cpu = statistics.median(cpu / acked for acked, _, _, cpu, _ in runs)
        print(f"data, {method}: {rate:,.0f} MB/s, {cpu:.2f} ns of CPU a byte")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1)
    args = parser.parse_args()
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter", "cc"))):
        print("left out: needs root, a C compiler, and the commands ip, unshare and nsenter")
        return 0
    print(f"{'way':12} {'batch':>5} {'pairs/s':>10} {'CPU us a pair':>14} {'system calls a pair':>20} {'answered':>9}")
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder, "wire")
        cases = [(method, batch) for method in TUN + PACKET for batch in BATCHES]
        found: dict[tuple[str, int], list[list[int]]] = {case: [] for case in cases}
        for _ in range(args.rounds):
            for case in cases:
                try:
                    found[case].append(run(program, *case, args.seconds))
                except OSError as refusal:
                    print(f"{case[0]}: left out: {refusal}")
        for (method, batch), runs in found.items():
            if not runs:
                continue
            rate = statistics.median(out / wall * 1e9 for out, _, _, _, wall in runs)
            cpu = statistics.median(cpu / max(back, 1) / 1e3 for _, back, _, cpu, _ in runs)
            calls = statistics.median(calls / max(back, 1) for _, back, calls, _, _ in runs)
            share = statistics.median(back / max(out, 1) for out, back, _, _, _ in runs)
            print(f"{method:12} {batch:5} {rate:10,.0f} {cpu:14.2f} {calls:20.2f} {share:9.1%}")
        bulk(build(folder, "bulk"), args.rounds, args.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
