"""To which queue of a TUN device with two (IFF_MULTI_QUEUE) the kernel gives the answers to what one queue has sent.

    python -m benchmarks.load.queues [--connections N ...]        (Linux; root or user namespaces)

All connections are opened on the first queue; each answer to a SYN that is found on the second one would be the wrong
thread's, if two threads shared nothing. Once with the kernel's own choice, and once with a BPF program that chooses by the
port to which a packet goes, as for `fasttcp load --threads`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from fasttcp import ConnectionTable, profile
from fasttcp.load.client import LoadClient
from fasttcp.load.device import Tun
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.server import OwnServer
from fasttcp.load.steering import Key, load_steering

PORTS, BOUND = (32_768, 46_883), 46_884  # of the first queue; from where on they are the second one's


def drained(fd: int) -> int:
    """How many packets waited there."""
    n = 0
    while True:
        try:
            os.read(fd, 65600)
            n += 1
        except BlockingIOError:
            return n


def measure(connections: int, steered: bool) -> None:
    # Before the user namespace, in which it may not be loaded.
    program = load_steering(Key.PORT, 4, [BOUND]) if steered else -1
    enter_private_network()
    with Tun(addresses=("198.18.0.1/32",), networks=("198.19.0.0/16",), queues=2, steering=program) as tun:
        policy = profile("linux").replace(ip_local_port_range=PORTS)
        with OwnServer("198.18.0.1", 80, mode="backlog", connections=connections):
            table = ConnectionTable(4096, max_capacity=2 * connections + 4096, profile=policy, seed=1)
            sources = [f"198.19.0.{host}" for host in range(1, 9)]
            client = LoadClient(table, tun.fd, sources, [("198.18.0.1", 80)], connecting_limit=connections)
            client.plan(hold=connections)
            client.run(500_000_000)
            here, there = client.counts()["packets_in"], drained(tun.fds[1])
            how = "steered" if steered else "the kernel's choice"
            print(f"{here + there:7,} answers: {there / max(here + there, 1):.1%} on the other queue ({how})", flush=True)
            client.cut()
            client.run(100_000_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1000, 4000, 20_000])
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        try:
            measure(args.one[0], bool(args.one[1]))
        except OSError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    failed = 0
    for connections in args.connections:  # each in a process of its own: a private network is for good
        for steered in "01":
            call = [sys.executable, "-m", "benchmarks.load.queues", "--one", str(connections), steered]
            failed |= subprocess.run(call, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
