"""Compiles the C++ peers on demand, and says why one cannot be had.

CI installs what they need from one place: ``python -m benchmarks.peers.build --debian-packages``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.machine import TICK_NS, machine_data, machine_inc

__all__ = ["PEERS", "PYTHON", "Absent", "Peer", "command", "compiled"]

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "peers"
PYTHON = os.environ.get("FASTTCP_PEER_PYTHON", "/usr/bin/python3")  # Debian's own: built with PGO
FLAGS = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Wno-unused-parameter"]


class Absent(Exception):
    """A peer that cannot run here; the text says why."""


@dataclass(frozen=True)
class Peer:
    """One opponent: how it is called in tables, and how it comes to life."""

    name: str
    what: str
    source: str
    arguments: list[str] = field(default_factory=list)
    header: str | None = None  # must be there, or the peer is absent
    package: str | None = None  # of Debian, where header is
    pkg_config: str | None = None
    libraries: list[str] = field(default_factory=list)
    most: int = 1 << 62  # connections beyond which it would take hours


DPDK = {"header": "/usr/include/dpdk/rte_hash.h", "package": "libdpdk-dev", "pkg_config": "libdpdk"}
ABSEIL = {
    "header": "/usr/include/absl/container/flat_hash_map.h",
    "package": "libabsl-dev",
    "pkg_config": "absl_flat_hash_map",
    "libraries": ["-labsl_raw_hash_set", "-labsl_hash", "-labsl_city", "-labsl_low_level_hash"],
}
BOOST = {"header": "/usr/include/boost/unordered/unordered_flat_map.hpp", "package": "libboost1.81-dev"}
STAGES = "with fasttcp's rows, stages and prefetch"

PEERS = {
    peer.name: peer
    for peer in (
        Peer("fasttcp", "fasttcp, apply() in batches of 4,096", "ours.py"),
        Peer("floor1", "floor 1: row known, one line", "floors.cpp", ["1"]),
        Peer("floor2", "floor 2: and one random line", "floors.cpp", ["2"]),
        Peer("dpdk", "DPDK rte_hash, bulk look-up", "dpdk.cpp", libraries=["-lrte_hash", "-lrte_eal"], **DPDK),
        Peer("abseil", "absl::flat_hash_map, prefetch", "abseil.cpp", **ABSEIL),
        Peer("boost", "boost::unordered_flat_map", "boost.cpp", **BOOST),
        Peer("std", "std::unordered_map + std::multimap", "std_map.cpp"),
        Peer("dict_heapq", "Python dict + heapq", "python_dict.py", ["heapq"], most=1_000_000),
        Peer("dict_deque", "Python dict + deque, tuned", "python_dict.py", ["deque"], most=1_000_000),
        # Not peers but a question: how much of the difference is the index, and how much is what stands around it?
        Peer("abseil_stages", f"absl::flat_hash_map {STAGES}", "abseil_stages.cpp", **ABSEIL),
        Peer("boost_stages", f"boost::unordered_flat_map {STAGES}", "boost_stages.cpp", **BOOST),
    )
}


def _pkg_config(package: str) -> list[str]:
    """The compiler flags a library asks for; -march is allowed to it, for rte_hash needs SSE4.2."""
    try:
        return subprocess.check_output(["pkg-config", "--cflags", package], text=True).split()
    except (OSError, subprocess.CalledProcessError):
        raise Absent(f"pkg-config does not know {package}") from None


def compiled(name: str, flags: list[str] | None = None, libraries: list[str] | None = None) -> Path:
    """The program made of a source in this folder, compiled if it is older than what it is made of. Raises Absent."""
    BUILD.mkdir(parents=True, exist_ok=True)
    _write_if_new(BUILD / "machine.inc", machine_inc())
    target = BUILD / Path(name).stem
    inputs = [HERE / name, *HERE.glob("*.hpp"), BUILD / "machine.inc"]
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise Absent("there is no C++ compiler (g++, or the one that CXX names)")
    if target.exists() and target.stat().st_mtime > max(path.stat().st_mtime for path in inputs):
        return target
    call = [compiler, *FLAGS, f"-I{BUILD}", *(flags or []), str(HERE / name), "-o", str(target), *(libraries or [])]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        raise Absent(f"{name} does not compile: {done.stderr.strip().splitlines()[0]}")
    return target


def _compile(peer: Peer) -> Path:
    if peer.header and not Path(peer.header).exists():
        raise Absent(f"{peer.header} is not there: install {peer.package}")
    return compiled(peer.source, _pkg_config(peer.pkg_config) if peer.pkg_config else [], peer.libraries)


def _write_if_new(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def command(peer: Peer, segments: Path, count: int, rows: int, family: int) -> list[str]:
    """The command line of a worker, compiled first if need be. Raises Absent."""
    BUILD.mkdir(parents=True, exist_ok=True)
    _write_if_new(BUILD / "machine.json", json.dumps(machine_data()))
    common = [str(segments), str(count), str(rows), str(family)]
    if peer.source == "ours.py":
        return [sys.executable, "-m", "benchmarks.peers.ours", *common]
    if peer.source.endswith(".py"):
        if not Path(PYTHON).exists():
            raise Absent(f"{PYTHON} is not there (FASTTCP_PEER_PYTHON names another)")
        return [PYTHON, str(HERE / peer.source), *common, str(BUILD / "machine.json"), *peer.arguments]
    return [str(_compile(peer)), *common, *peer.arguments]


if __name__ == "__main__":
    if sys.argv[1:] != ["--debian-packages"]:
        sys.exit(f"usage: python -m benchmarks.peers.build --debian-packages   (ticks of {TICK_NS} ns)")
    print("g++", "pkg-config", *sorted({peer.package for peer in PEERS.values() if peer.package}))
