"""Past the ports: connections that the client closes first, as fast as each client can, and how many in each five seconds.

    python -m benchmarks.load.ports [--seconds 40]        (root, Linux)

Who closes first keeps the port in TIME_WAIT, 60 s in Linux. A client on the kernel's sockets has 28,232 of them towards one
address and port (32768 to 60999). Each connection has one small HTTP exchange, 100 at once, with the epoll server of `fasttcp
load`. wrk is left out: it leaves the close to the server.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter

from benchmarks.load.compare import NAMES, PORT, SERVER, inside, own_server

CONNECTIONS = 100
EVERY = 5  # seconds

Found = tuple[list[int], dict[str, int]]  # connections in each five seconds; errors by name


async def _exchanges(seconds: float) -> Found:
    done, errors = [0] * (int(seconds) // EVERY), Counter[str]()
    begin = time.monotonic()

    async def one() -> None:
        while (now := time.monotonic() - begin) < seconds:
            try:
                reader, writer = await asyncio.open_connection(SERVER, PORT)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await reader.readuntil(b"x" * 64)
                writer.close()
                done[min(int(now / EVERY), len(done) - 1)] += 1
            except OSError as error:
                errors[errno.errorcode.get(error.errno or 0, str(error))] += 1
                await asyncio.sleep(0.01)

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return done, errors


def run_asyncio(seconds: int, *sysctls: str) -> Found:
    for sysctl in sysctls:
        subprocess.run(inside(NAMES[1], "sysctl", "-qw", sysctl), check=True)
    call = inside(NAMES[1], sys.executable, "-m", "benchmarks.load.ports", "--exchanges", str(seconds))
    told = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    return told[0], told[1]


def run_fasttcp(seconds: int, *pool: str) -> Found:
    call = inside(
        NAMES[0], sys.executable, "-m", "fasttcp", "load", f"{SERVER}:{PORT}", *pool, "--http", "--hold", str(CONNECTIONS),
        "--life", "0", "--duration", str(seconds), "--json", "--quiet",
    )  # fmt: skip
    report = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    done, before = [0.0] * (seconds // EVERY), 0.0
    for sample in report["samples"]:
        # A sample at 5.0 s is of the first five seconds.
        at = min(int((sample["seconds"] - 0.5) / EVERY), len(done) - 1)
        done[at] += sample["rates"]["established"] * (sample["seconds"] - before)
        before = sample["seconds"]
    errors = {name: n for name, n in report["outcomes"].items() if n and name != "ok"}
    reused = report["counts"]["time_wait_reused"]
    return [round(each) for each in done], errors | ({"taken over from TIME_WAIT": reused} if reused else {})


CLIENTS = {
    "asyncio": run_asyncio,
    "asyncio, tcp_tw_reuse = 1": lambda seconds: run_asyncio(seconds, "net.ipv4.tcp_tw_reuse=1"),
    "fasttcp, one address": lambda seconds: run_fasttcp(seconds, "--source", "198.19.0.1/32"),
    "fasttcp, one, tcp_tw_reuse = 1": lambda seconds: run_fasttcp(seconds, "--source", "198.19.0.1/32", "--set", "tcp_tw_reuse=1"),
    "fasttcp, a /24 of them": lambda seconds: run_fasttcp(seconds, "--source", "198.19.0.0/24"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--exchanges", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.exchanges:
        print(json.dumps(asyncio.run(_exchanges(args.exchanges))))
        return 0
    if os.geteuid() != 0 or not shutil.which("ip"):
        print("left out: needs root and the `ip` command")
        return 0
    for name, run in CLIENTS.items():
        with own_server(1000, processes=1):
            done, errors = run(args.seconds)
        told = ", ".join(f"{n:,} {error}" for error, n in errors.items()) or "no error"
        print(f"{name:30} {sum(done):9,} = {' + '.join(f'{n:,}' for n in done)}; {told}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
