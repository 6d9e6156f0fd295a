"""The CPU that an exchange costs the client of `fasttcp load` when packets go out by an io_uring, and when each is a write.

    python -m benchmarks.load.batches [--rounds 60] [--milliseconds 80] [--hold 100]        (Linux; no root)

Both ways in turn, on one device in one network, against the server of `fasttcp load`: one small HTTP exchange a connection, which
the server closes. Slices are short and are compared with their neighbours, since the CPU time of the same work doubles when
others use the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from fasttcp import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.device import Tun
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.server import OwnServer

SERVER = "198.18.0.1"
WAYS = ("write", "io_uring")
WARM_NS, CLOSE_NS = 20_000_000, 20_000_000


def measure(fd: int, way: str, number: int, hold: int, ns: int) -> dict[str, float]:
    """One slice: what it counted, by the exchange."""
    table = ConnectionTable(1 << 14, max_capacity=1 << 14, profile="linux", seed=number)
    client = LoadClient(
        table, fd, [f"198.19.{1 + number // 250}.{1 + number % 250}"], [(SERVER, 80)], request=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        end="content-length", close="peer", life=("fixed", 0, 0), seed=number, plain=way == "write",
    )  # fmt: skip
    client.plan(hold=hold)
    client.run(WARM_NS)
    before = client.counts()
    if before["io_uring"] != (way == "io_uring"):
        raise OSError("no io_uring here")
    client.run(ns)
    after = client.counts()
    client.end()
    end = time.monotonic() + 5
    while not client.over and time.monotonic() < end:
        client.run(CLOSE_NS)
    if client.counts()["ok"] != client.counts()["opened"]:
        raise RuntimeError(f"not all connections ended well: {client.counts()}")
    spent = {name: after[name] - before[name] for name in ("cpu_ns", "ran_ns", "writes", "packets_out", "answered")}
    return {name: value / max(spent["answered"], 1) for name, value in spent.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--milliseconds", type=float, default=80)
    parser.add_argument("--hold", type=int, default=100)
    args = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    try:
        enter_private_network()
        with (
            Tun(addresses=(f"{SERVER}/32",), networks=("198.19.0.0/16",)) as tun,
            OwnServer(SERVER, 80, mode="http-close", connections=10_000, processes=1),
        ):
            for number in range(2 * args.rounds):
                way = WAYS[(number + number // 2) % 2]  # which of them is first changes as well
                found[way].append(measure(tun.fd, way, number, args.hold, round(args.milliseconds * 1e6)))
    except OSError as refusal:
        print(f"left out: {refusal}")
        return 0
    for way, each in found.items():
        cpu = sorted(slice_["cpu_ns"] / 1e3 for slice_ in each)
        writes = statistics.median(slice_["writes"] for slice_ in each)
        packets = statistics.median(slice_["packets_out"] for slice_ in each)
        print(
            f"{way:8} CPU us an exchange: least {cpu[0]:5.2f}, quarter {cpu[len(cpu) // 4]:5.2f}, "
            f"median {statistics.median(cpu):5.2f}; {writes:.2f} system calls for {packets:.2f} segments"
        )
    ratio = sorted(b["cpu_ns"] / a["cpu_ns"] for a, b in zip(*found.values(), strict=True))
    quarter = len(ratio) // 4
    print(f"io_uring / write, neighbours: {ratio[quarter]:.3f}, median {statistics.median(ratio):.3f}, {ratio[-1 - quarter]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
