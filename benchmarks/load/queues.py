"""To which queue of a TUN device with two (IFF_MULTI_QUEUE) the kernel gives the answers to what one queue has sent.

    python -m benchmarks.load.queues [--connections N ...]        (Linux; root or user namespaces)

All connections are opened on the first queue; each answer to a SYN that is found on the second one would be the wrong
thread's, if two threads shared nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import struct
import subprocess
import sys

from fasttcp import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.device import IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TUN, IFF_VNET_HDR, TUNSETIFF, Tun
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.server import OwnServer


def second_queue(name: str) -> int:
    """One more file of a device."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE))
    return fd


def drained(fd: int) -> int:
    """How many packets waited there."""
    n = 0
    while True:
        try:
            os.read(fd, 65600)
            n += 1
        except BlockingIOError:
            return n


def measure(connections: int) -> None:
    enter_private_network()
    with Tun(addresses=("198.18.0.1/32",), networks=("198.19.0.0/16",), multi_queue=True) as tun:
        other = second_queue(tun.name)
        with OwnServer("198.18.0.1", 80, mode="backlog", connections=connections):
            table = ConnectionTable(4096, max_capacity=2 * connections + 4096, seed=1)
            client = LoadClient(
                table, tun.fd, [f"198.19.0.{host}" for host in range(1, 9)], [("198.18.0.1", 80)], connecting_limit=connections
            )
            client.plan(hold=connections)
            client.run(500_000_000)
            here, there = client.counts()["packets_in"], drained(other)
            print(f"{here + there:7,} answers: {there / max(here + there, 1):.1%} on the other queue", flush=True)
            client.cut()
            client.run(100_000_000)
        os.close(other)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1000, 4000, 20_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.one)
        return 0
    for connections in args.connections:  # each in a process of its own: a private network is for good
        subprocess.run([sys.executable, "-m", "benchmarks.load.queues", "--one", str(connections)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
