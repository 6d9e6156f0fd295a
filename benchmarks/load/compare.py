"""Connections a second with one small HTTP exchange each, side by side: fasttcp, wrk, asyncio, Locust.

    python -m benchmarks.load.compare [--seconds 8] [--rounds 2] [--server nginx|epoll]        (root, Linux)

One server process in a network namespace; the kernel's clients come from another one over a veth pair, fasttcp over a
TUN device; wrk also from the server's own, over loopback, as both ends on one machine mostly are. All share the machine's
CPUs with the server. "Connection: close": each exchange is a connection of its own. A tool that is missing is left out, and
said so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SERVER, CLIENT, PORT = "198.18.0.1", "198.18.0.2", 8080
NAMES = ("fasttcp-bench-s", "fasttcp-bench-c")
LOCUST = """
from locust import FastHttpUser, constant, task
class User(FastHttpUser):
    wait_time = constant(0)
    @task
    def once(self):
        self.client.get("/", headers={"Connection": "close"})
"""
NGINX = """
daemon off; worker_processes {processes}; pid {folder}/pid; error_log stderr crit; worker_rlimit_nofile {files};
events {{ worker_connections {files}; multi_accept on; }}
http {{
  access_log off; keepalive_timeout {keep}s; client_header_timeout 1h;
  server {{ listen {port} backlog=65535{shared}; return 200 "{body}"; }}
}}
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def inside(name: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", name, *command]


def networks() -> None:
    server, client = NAMES
    for name in NAMES:
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    ip("link", "add", "fbs", "netns", server, "type", "veth", "peer", "name", "fbc", "netns", client)
    for name, link, address in ((server, "fbs", SERVER), (client, "fbc", CLIENT)):
        ip("-n", name, "address", "add", f"{address}/24", "dev", link)
        ip("-n", name, "link", "set", link, "up")
        subprocess.run(inside(name, "sysctl", "-qw", "net.core.somaxconn=65535", "net.ipv4.tcp_max_syn_backlog=65535"), check=False)


def nginx(folder: str, *, processes: int = 1, keep: int = 0, files: int = 60_000) -> subprocess.Popen[bytes]:
    """nginx in the server's network: so many worker processes, each with so many files, connections kept for `keep` seconds."""
    config = Path(folder) / "nginx.conf"
    shared = " reuseport" if processes > 1 else ""
    config.write_text(
        NGINX.format(folder=folder, port=PORT, body="x" * 64, processes=processes, keep=keep, files=files, shared=shared)
    )
    return subprocess.Popen(inside(NAMES[0], "nginx", "-c", str(config), "-p", folder), stderr=subprocess.DEVNULL)


def serve(kind: str, folder: str) -> subprocess.Popen[bytes]:
    if kind == "nginx":
        return nginx(folder)
    code = (
        "import sys; from fasttcp.load.server import OwnServer\n"
        f"with OwnServer({SERVER!r}, {PORT}, mode='http-close', connections=10000, processes=1): sys.stdin.read()"
    )
    return subprocess.Popen(inside(NAMES[0], sys.executable, "-c", code), stdin=subprocess.PIPE)


@contextlib.contextmanager
def own_server(connections: int, *, processes: int = 0) -> Iterator[int]:
    """Fresh networks with the epoll server of `fasttcp load` in the server's one; its process. They are gone afterwards."""
    code = (
        "import sys; from fasttcp.load.server import OwnServer\n"
        f"with OwnServer({SERVER!r}, {PORT}, mode='http', connections={connections}, processes={processes}):\n"
        "    print('listens', flush=True); sys.stdin.read()"
    )
    try:
        networks()
        with subprocess.Popen(
            inside(NAMES[0], sys.executable, "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdin is not None and server.stdout is not None
            server.stdout.readline()
            yield server.pid
            server.stdin.close()
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=False)


# ---- the clients: each returns (exchanges a second, errors) ----------------------------------------------------------


def run_fasttcp(seconds: float, connections: int) -> tuple[float, int]:
    told = subprocess.run(
        inside(
            NAMES[0], sys.executable, "-m", "fasttcp", "load", f"{SERVER}:{PORT}", "--source", "198.19.0.0/24", "--http",
            "--hold", str(connections), "--life", "0", "--close", "peer", "--duration", str(seconds), "--json", "--quiet",
        ),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    report = json.loads(told.stdout)
    errors = sum(n for name, n in report["outcomes"].items() if name != "ok")
    return report["counts"]["answered"] / report["seconds"], errors


def run_wrk(seconds: float, connections: int, name: str = NAMES[1]) -> tuple[float, int]:
    told = subprocess.run(
        inside(
            name, "wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds:.0f}s", "-H", "Connection: close",
            f"http://{SERVER}:{PORT}/",
        ),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told.stdout)
    assert rate is not None, told.stdout
    return float(rate[1]), sum(map(int, errors.groups())) if errors else 0


async def _asyncio_client(seconds: float, connections: int) -> tuple[int, int]:
    done = errors = 0
    end = time.monotonic() + seconds

    async def one() -> None:
        nonlocal done, errors
        while time.monotonic() < end:
            try:
                reader, writer = await asyncio.open_connection(SERVER, PORT)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                await reader.read()
                writer.close()
                done += 1
            except OSError:
                errors += 1

    await asyncio.gather(*(one() for _ in range(connections)))
    return done, errors


def run_asyncio(seconds: float, connections: int) -> tuple[float, int]:
    told = subprocess.run(
        inside(NAMES[1], sys.executable, "-m", "benchmarks.load.compare", "--asyncio", f"{seconds},{connections}"),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    done, errors = json.loads(told.stdout)
    return done / seconds, errors


def run_locust(seconds: float, connections: int) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "locustfile.py"
        file.write_text(LOCUST)
        told = subprocess.run(
            inside(
                NAMES[1], "locust", "-f", str(file), "--headless", "-u", str(connections), "-r", str(connections), "-t",
                f"{seconds:.0f}s", "--host", f"http://{SERVER}:{PORT}", "--json", "--loglevel", "ERROR",
            ),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    stats = json.loads(told.stdout[told.stdout.index("[") :])
    return sum(each["num_requests"] for each in stats) / seconds, sum(each["num_failures"] for each in stats)


CLIENTS = {
    "fasttcp": (run_fasttcp, None),
    "wrk": (run_wrk, "wrk"),
    "wrk, lo": (lambda seconds, connections: run_wrk(seconds, connections, NAMES[0]), "wrk"),
    "asyncio": (run_asyncio, None),
    "locust": (run_locust, "locust"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--server", choices=("nginx", "epoll"), default="nginx")
    parser.add_argument("--asyncio", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.asyncio:
        seconds, connections = args.asyncio.split(",")
        print(json.dumps(asyncio.run(_asyncio_client(float(seconds), int(connections)))))
        return 0
    if os.geteuid() != 0 or not shutil.which("ip"):
        print("left out: needs root and the `ip` command")
        return 0
    if args.server == "nginx" and not shutil.which("nginx"):
        print("nginx is not installed: the plain epoll server instead")
        args.server = "epoll"
    chosen = {}
    for name, (run, needs) in CLIENTS.items():
        if needs and not shutil.which(needs):
            print(f"{name}: left out, not installed")
        else:
            chosen[name] = run
    found: dict[str, list[tuple[float, int, float]]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as folder:
        server = None
        try:
            networks()
            server = serve(args.server, folder)
            time.sleep(1.5)
            for _ in range(args.rounds):
                for name, run in chosen.items():
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)
                    rate, errors = run(args.seconds, args.connections)
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    found[name].append((rate, errors, cpu))
                    each = cpu * 1e6 / max(rate * args.seconds, 1)
                    print(f"{name:8} {rate:9,.0f}/s  errors {errors}  {each:6.1f} us of CPU each", flush=True)
        finally:
            if server is not None:
                if server.stdin is not None:
                    server.stdin.close()
                else:
                    server.terminate()
                server.wait()
            for name in NAMES:
                subprocess.run(["ip", "netns", "delete", name], check=False)
    print(f"\n{args.server}, one process, {args.connections} at once, {os.cpu_count()} CPUs, median of {args.rounds}:")
    for name, runs in found.items():
        rate = statistics.median(rate for rate, _, _ in runs)
        cpu = statistics.median(cpu / max(rate * args.seconds, 1) for rate, _, cpu in runs) * 1e6
        print(f"  {name:8} {rate:9,.0f} exchanges/s  {cpu:7.1f} us of CPU each  errors {sum(errors for _, errors, _ in runs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
