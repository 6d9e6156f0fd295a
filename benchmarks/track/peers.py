"""Who is compared with `fasttcp track`, how each is called, and why one cannot be had.

A peer gets the capture's path and does what it does for "which connections were there". Its output goes to /dev/null, unless
it says otherwise; peers of ours end with a line of JSON that tells packets and the times without start-up.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Absent", "Peer"]

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "track"


class Absent(Exception):
    """A peer that cannot run here; the text says why."""


@dataclass(frozen=True)
class Peer:
    """One command line. slow: runs in the first rounds only. tells: its output is JSON. goal: at least so many times the
    peer's CPU time for each of fasttcp's (`against`); below 1: fasttcp may take longer."""

    name: str
    what: str
    command: Callable[[Path], list[str]]
    tells: bool = False
    to_file: bool = False
    slow: bool = False
    goal: float | None = None
    against: str = "zeek"


def _tool(name: str, package: str, *arguments: str) -> Callable[[Path], list[str]]:
    """An installed program; `{}` stands for the capture."""

    def command(capture: Path) -> list[str]:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if found is None:
            raise Absent(f"{name} is not installed (Debian: {package})")
        return [found, *(argument.replace("{}", str(capture)) for argument in arguments)]

    return command


def _ours(*arguments: str) -> Callable[[Path], list[str]]:
    return lambda capture: [sys.executable, *(argument.replace("{}", str(capture)) for argument in arguments)]


def _loop(capture: Path) -> list[str]:
    """loop.c, compiled at its first use."""
    target, source = BUILD / "loop", HERE / "loop.c"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        compiler = shlex.split(os.environ.get("CC", "gcc"))
        if not compiler or shutil.which(compiler[0]) is None:
            raise Absent("there is no C compiler (gcc, or the one that CC names)")
        BUILD.mkdir(parents=True, exist_ok=True)
        call = [*compiler, "-O3", "-Wall", "-Wextra", str(source), "-o", str(target), "-lpcap"]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"loop.c does not compile (Debian: libpcap-dev): {done.stderr.strip().splitlines()[0]}")
    return [str(target), str(capture)]


def _nfstream(capture: Path) -> list[str]:
    if importlib.util.find_spec("nfstream") is None:
        raise Absent("nfstream is not installed (PyPI: nfstream)")
    flows = (
        "from nfstream import NFStreamer\n"
        f"flows = NFStreamer({str(capture)!r}, n_dissections=0, n_meters=1, idle_timeout=300, active_timeout=86400)\n"
        "print(sum(1 for flow in flows))\n"
    )
    # It starts a process of its own by "spawn" or "fork", so the program must not be standard input.
    return [sys.executable, "-c", flows]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("loop", "libpcap, headers decoded, nothing kept", _loop, tells=True, goal=1, against="track"),
        Peer("track", "fasttcp: tracked, no log", _ours("-m", "benchmarks.track.drain", "{}", "validate"), tells=True),
        Peer("ignore", "the same, checksums ignored", _ours("-m", "benchmarks.track.drain", "{}", "ignore"), tells=True),
        Peer("zeek", "fasttcp track --format zeek > /dev/null", _ours("-m", "fasttcp", "track", "--format", "zeek", "{}")),
        Peer("file", "the same into a file", _ours("-m", "fasttcp", "track", "--format", "zeek", "{}"), to_file=True),
        Peer(
            "two", "the same, --threads 2", _ours("-m", "fasttcp", "track", "--format", "zeek", "--threads", "2", "{}"),
            to_file=True,
        ),
        Peer("argus", "argus -r", _tool("argus", "argus-server", "-X", "-r", "{}", "-w", "-"), slow=True, goal=20),
        Peer("tcptrace", "tcptrace -n", _tool("tcptrace", "tcptrace", "-n", "{}"), slow=True, goal=50),
        Peer(
            "tshark", "tshark -z conv,tcp", _tool("tshark", "tshark", "-n", "-q", "-r", "{}", "-z", "conv,tcp"),
            slow=True, goal=100,
        ),
        Peer("nfstream", "NFStream, no dissection, one meter", _nfstream, slow=True, goal=200),
    )
}
