"""As many connections at once as each client can hold, to one address and port: where it stops, by which error, with how
much memory.

    python -m benchmarks.load.most [--seconds 40] [--only NAME ...]        (root, Linux)

wrk, asyncio and Locust have one source address and the kernel's default ports (32768 to 60999); fasttcp has one address with
its ports from 1024, then a /24. asyncio runs in as many processes as its limit of open files asks for to reach the last port,
and once in one. The server is a plain epoll server in as many processes as files ask for. Counted is the server kernel's
CurrEstab, memory is the clients' peak RSS. Each client gets fresh networks, since the last one's ports are in TIME_WAIT.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from benchmarks.load.compare import NAMES, PORT, SERVER, inside, own_server
from fasttcp.load.server import raise_file_limit

WANTED = 40_000  # more than there are ports
SPARE_FILES = 64
LOCUST = """
from locust import FastHttpUser, constant, task
class User(FastHttpUser):
    wait_time = constant(1000)
    @task
    def once(self):
        self.client.get("/")
"""


class Established:
    """The most that the server's kernel had open, looked at every quarter of a second."""

    def __init__(self, pid: int) -> None:
        self.most = 0
        self._file = f"/proc/{pid}/net/snmp"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Established:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            names, values = (line.split() for line in Path(self._file).read_text().splitlines() if line.startswith("Tcp:"))
            self.most = max(self.most, int(values[names.index("CurrEstab")]))


def watched(commands: list[list[str]]) -> tuple[str, int]:
    """Runs these at once; (what they print, both streams; the sum of their peak RSS in bytes)."""
    rss = 0
    with tempfile.TemporaryFile("w+") as out:
        running = [subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) for command in commands]
        for child in running:
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            rss += used.ru_maxrss * 1024
        out.seek(0)
        return out.read(), rss


# ---- the clients: each returns (what it says of its end, bytes of memory) --------------------------------------------


async def _hold(wanted: int, end: float) -> str:
    """Opens connections until one fails for good, holds them until `end`; what went wrong."""
    kept: list[asyncio.StreamWriter] = []
    errors: Counter[str] = Counter()

    async def opens() -> None:
        while len(kept) < wanted and not errors and time.monotonic() < end:
            try:
                kept.append((await asyncio.open_connection(SERVER, PORT))[1])
            except OSError as error:
                errors[errno.errorcode.get(error.errno or 0, str(error))] += 1

    await asyncio.gather(*(opens() for _ in range(64)))
    await asyncio.sleep(max(0, end - time.monotonic()))
    return f"{len(kept):,} held" + "".join(f", {name}" for name in errors)


def run_asyncio(seconds: float, processes: int) -> tuple[str, int]:
    command = [sys.executable, "-m", "benchmarks.load.most", "--hold", f"{seconds},{WANTED // processes}"]
    told, rss = watched([inside(NAMES[1], *command)] * processes)
    return "; ".join(told.split("\n")[:-1]), rss


def run_wrk(seconds: float) -> tuple[str, int]:
    told, rss = watched([inside(NAMES[1], "wrk", "-t1", f"-c{WANTED}", f"-d{seconds:.0f}s", f"http://{SERVER}:{PORT}/")])
    errors = re.search(r"Socket errors: (connect \d+)", told)
    return errors[0] if errors else told.strip().splitlines()[-1], rss


def run_locust(seconds: float) -> tuple[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "locustfile.py"
        file.write_text(LOCUST)
        told, rss = watched([
            inside(
                NAMES[1], "locust", "-f", str(file), "--headless", "-u", str(WANTED), "-r", "5000", "-t", f"{seconds:.0f}s",
                "--host", f"http://{SERVER}:{PORT}", "--only-summary", "--loglevel", "ERROR",
            )
        ])  # fmt: skip
    errors = Counter(re.findall(r"Errno \d+\] [\w ]+", told))
    return ", ".join(errors) or "no error in the time given", rss


def run_fasttcp(seconds: float, hold: int, source: str) -> tuple[str, int]:
    told, rss = watched([
        inside(
            NAMES[0], sys.executable, "-m", "fasttcp", "load", f"{SERVER}:{PORT}", "--source", source, "--ports", "1024-65535",
            "--hold", str(hold), "--http", "--duration", str(seconds), "--grace", "60s", "--json", "--quiet",
        )
    ])  # fmt: skip
    report = json.loads(told[told.index("{") :])
    bad = {name: n for name, n in report["outcomes"].items() if n and name != "ok"}
    return f"{report['held']['live']:,} held, {bad or 'all ok'}", rss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    args = parser.parse_args()
    files = raise_file_limit()
    if args.hold:
        seconds, wanted = args.hold.split(",")
        print(asyncio.run(_hold(int(wanted), time.monotonic() + float(seconds))))
        return 0
    if os.geteuid() != 0 or not shutil.which("ip"):
        print("left out: needs root and the `ip` command")
        return 0
    several = -(-WANTED // (files - SPARE_FILES))
    clients = {
        "wrk": lambda: run_wrk(args.seconds),
        "asyncio": lambda: run_asyncio(args.seconds, 1),
        f"asyncio, {several} processes": lambda: run_asyncio(args.seconds, several),
        "locust": lambda: run_locust(args.seconds),
        "fasttcp, 1 address": lambda: run_fasttcp(args.seconds, 64_512, "198.19.0.1/32"),
        "fasttcp, /24": lambda: run_fasttcp(args.seconds, 100_000, "198.19.0.0/24"),
    }
    print(f"{files:,} open files a process at most\n{'client':22} {'at once':>9} {'MB':>7} {'bytes each':>11}  its end")
    for name, run in clients.items():
        if args.only and not any(name.startswith(each) for each in args.only):
            continue
        if name in ("wrk", "locust") and not shutil.which(name):
            print(f"{name}: left out, not installed")
            continue
        with own_server(110_000) as server, Established(server) as established:
            said, rss = run()
        print(f"{name:22} {established.most:9,} {rss / 1e6:7,.0f} {rss / max(established.most, 1):11,.0f}  {said}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
