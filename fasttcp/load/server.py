"""The small server that is tested when no target is given: child processes on the kernel's own sockets.

    load --stdin, stdout--> first child --fork--> more children, all on one port (SO_REUSEPORT)

They end when their standard input does, so whatever ends the load ends them too. Must not know what is measured.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

__all__ = ["OwnServer", "raise_file_limit"]

SPARE_FILES = 64
HEADROOM = 1.25  # of file numbers: SO_REUSEPORT shares connections out unevenly
MODES = ("http", "http-close", "echo", "sink", "backlog")


def raise_file_limit() -> int:
    """The limit of open files of this process, raised as far as the system lets it; how many."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with open("/proc/sys/fs/nr_open") as file:
            most = int(file.read())
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return most
    except (OSError, ValueError):
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard


def http_answer(body: int, close: bool) -> bytes:
    """A response of HTTP/1.1 with so many bytes of body."""
    connection = "close" if close else "keep-alive"
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {body}\r\nConnection: {connection}\r\n\r\n"
    return head.encode() + b"x" * body


class OwnServer:
    """Child processes that listen; a context manager. `processes` says how many, `limit` what stands in the way.

    mode: "http" answers each request with `body` bytes, "http-close" closes after the answer, "echo", "sink" throws
    away what comes, "backlog" never accepts: the kernel's queue holds the connections. `connections` is how many
    there will be at once.
    """

    def __init__(
        self, address: str, port: int, *, mode: str = "http", body: int = 64, connections: int = 0, processes: int = 0
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; it can be {', '.join(MODES)}")
        self.plan = {
            "address": address, "port": port, "mode": mode, "body": body, "connections": connections,
            "processes": processes,
        }  # fmt: skip
        self.processes = 0
        self.pids: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OwnServer:
        package = str(Path(__file__).resolve().parent.parent.parent)
        # Before the folder that we were started in: it may hold another fasttcp, such as an unbuilt source tree.
        code = f"import sys; sys.path.insert(0, {package!r}); from fasttcp.load.server import main; main()"
        self._child = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(self.plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us: we still have connections to close
        )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self.close()
            raise OSError(f"the server did not start; it ended with status {self._child.returncode}")
        told = json.loads(line)
        if "error" in told:
            self.close()
            raise OSError(told["errno"], f"the server: {told['error']}")
        self.processes = told["processes"]
        self.pids = told["pids"]
        return self

    def close(self) -> None:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            return
        child.stdin.close()
        try:
            child.wait(timeout=60)  # it may have a million connections to let go of
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()

    def __exit__(self, *exception: object) -> None:
        self.close()


def _listen(address: str, port: int, backlog: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((address, port))
    listener.setblocking(False)
    listener.listen(backlog)
    return listener


def _sysctl(name: str, value: int) -> int:
    """Raise a sysctl of this network namespace, where that is allowed; what it is now."""
    path = "/proc/sys/" + name.replace(".", "/")
    try:
        with open(path) as file:
            now = int(file.read())
        if now < value:
            with open(path, "w") as file:
                file.write(str(value))
            now = value
        return now
    except OSError:
        return 4096


def main() -> None:
    """The child: its plan is argument 1, its end the end of standard input."""
    from fasttcp.load.epoll import serve_sockets

    plan = json.loads(sys.argv[1])
    waits = plan["mode"] == "backlog"
    pids: list[int] = []
    listeners: list[socket.socket] = []
    wanted = int(plan["connections"] * HEADROOM) + 1
    try:
        files = raise_file_limit()
        backlog = _sysctl("net.core.somaxconn", max(wanted, 65535))
        _sysctl("net.ipv4.tcp_max_syn_backlog", 65535)
        room = backlog if waits else files - SPARE_FILES
        processes = plan["processes"] or max(1, math.ceil(wanted / room))
        # Listeners exist before anybody forks: the port is shared out among all of them from the first SYN on.
        listeners = [_listen(plan["address"], plan["port"], backlog) for _ in range(processes)]
    except OSError as error:
        print(json.dumps({"error": error.strerror, "errno": error.errno}), flush=True)
        return
    answer = b""
    if plan["mode"].startswith("http"):
        answer = http_answer(plan["body"], plan["mode"] == "http-close")
    mine = listeners
    if not waits:
        mine = listeners[:1]
        for each in listeners[1:]:
            pid = os.fork()
            if pid == 0:
                for other in listeners:
                    if other is not each:
                        other.close()
                pids, mine = [], [each]
                break
            pids.append(pid)
        else:
            for other in listeners[1:]:
                other.close()
    if mine[0] is listeners[0]:
        with contextlib.suppress(BrokenPipeError):  # whoever started us is gone; the end of standard input says so too
            print(json.dumps({"processes": len(listeners), "pids": [os.getpid(), *pids]}), flush=True)
    if waits:
        select.select([0], [], [])
    else:
        serve_sockets(
            [each.fileno() for each in mine], 0, answer, close=plan["mode"] == "http-close",
            echo=plan["mode"] == "echo", files=min(files, 1 << 24),
        )  # fmt: skip
    for pid in pids:
        os.waitpid(pid, 0)
