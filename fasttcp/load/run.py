"""A load from its beginning to its report: network, server, device, table, client; then slices of time.

    scenario --> [private network + own server] or [target] --> LoadClient --> samples --> Report

This file decides when; what a connection does is in flows.pyx, what is said of it in report.py. It prints nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from fasttcp.core.table import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.device import Tun
from fasttcp.load.histogram import Histogram
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.netlink import Route, local_addresses, route_to
from fasttcp.load.preflight import look, silence
from fasttcp.load.report import Report, Sample
from fasttcp.load.scenario import Scenario, Stage
from fasttcp.load.server import OwnServer
from fasttcp.profiles import profile as find_profile
from fasttcp.spec import State

__all__ = ["Progress", "run_load"]

SLICE_NS = 50_000_000  # between two looks at the clock, signals and stages
SAMPLE_S = 1.0
ROW_BYTES = 300  # of memory a connection takes here: row, cold record, index, flow
LARGEST_TABLE = 16_000_000
OWN_PORT = 80
# The kernel's end, ours, and what it routes to us, in a network of one's own: benchmark addresses, RFC 2544 and 5180.
OWN_NETWORK = {
    4: ("198.18.0.1", "198.18.0.1/32", ("198.19.0.0/16",), "198.19.0.0/24"),
    6: ("2001:2::1", "2001:2::1/128", ("2001:2:0:1::/64",), "2001:2:0:1::/120"),
}
MOST_SOURCES = 4096


@dataclass(frozen=True, slots=True)
class Progress:
    """What a live display is told, once a second and at the end."""

    phase: str  # "opening", "stage 2 of 3", "closing", "resetting", "done"
    seconds: float  # since the first connection
    whole: float  # seconds planned
    sample: Sample


def _sources(networks: tuple[str, ...], most: int) -> list[bytes]:
    """Addresses to connect from, as packed 16 bytes; the network and broadcast address are left out."""
    found: list[bytes] = []
    for text in networks:
        network = ip_network(text, strict=False)
        few = network.num_addresses <= 2 or network.version == 6
        for at in range(0 if few else 1, network.num_addresses if few else network.num_addresses - 1):
            if len(found) >= most:
                return found
            packed = (network.network_address + at).packed
            found.append(b"\0" * 10 + b"\xff\xff" + packed if network.version == 4 else packed)
    return found


def _memory() -> int:
    """Bytes that can be had without swapping."""
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return 4 << 30


def _rows(scenario: Scenario) -> tuple[int, int]:
    """Rows at once, and how far the table may grow."""
    most = scenario.max_connections or max(1 << 16, min(LARGEST_TABLE, _memory() // 2 // ROW_BYTES))
    return min(most, max(4096, scenario.most_held)), most


@contextlib.contextmanager
def _own_world(scenario: Scenario) -> Any:
    """The network of its own, with a server in it."""
    version = 6 if scenario.ipv6 else 4
    address, kernel, routed, pool = OWN_NETWORK[version]
    enter_private_network()
    connections = max(scenario.most_held, 1000)
    with (
        Tun(addresses=(kernel,), networks=routed) as tun,
        OwnServer(
            address, OWN_PORT, mode=scenario.server, body=scenario.body, connections=connections,
            processes=scenario.server_processes,
        ) as server,
    ):  # fmt: skip
        yield tun, (address, OWN_PORT), scenario.source or (pool,), server, None


@contextlib.contextmanager
def _world(scenario: Scenario) -> Any:
    """The network of the machine, as it is."""
    assert scenario.target is not None
    if not scenario.source:
        raise ValueError("a target needs --source: a network that is routed to this machine and is nobody's else")
    host = scenario.target[0]
    try:
        route = route_to(host)
    except OSError as error:
        raise OSError(
            error.errno, f"this machine has no route to {host}: `ip route add {host} via ITS_ROUTER` ({error.strerror})"
        ) from None
    taken = [ip_address(text) for text in local_addresses()]
    for text in scenario.source:
        network = ip_network(text, strict=False)
        for address in taken:
            if address.version == network.version and address in network:
                raise ValueError(
                    f"--source {text} holds {address}, an address of this machine: its kernel would answer"
                )
    with Tun(networks=scenario.source) as tun:
        if route.local and ip_address(host).is_loopback and ip_address(host).version == 4:
            tun.route_loopback()
        yield tun, scenario.target, scenario.source, None, route


def run_load(
    scenario: Scenario,
    *,
    progress: Callable[[Progress], None] | None = None,
    interrupts: Callable[[], int] = lambda: 0,
    warn: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run a load and report it.

    Without a target the calling process, which must have one thread only, moves into a network of its own for good.
    `interrupts` says how often an end was asked for: once, and everything is closed; twice, and it is reset. `warn` is
    told what preflight finds. Raises ValueError for what cannot be run, OSError for what the system lacks (the message
    says what mends it).
    """
    world = _own_world(scenario) if scenario.target is None else _world(scenario)
    with world as (tun, target, sources, server, route):
        running = _Run(scenario, tun, target, sources, server, route, warn)
        for text in look(scenario, target, route, tun.name).warnings:
            running.say(text)
        return running.all(progress, interrupts)


class _Run:
    def __init__(
        self, scenario: Scenario, tun: Tun, target: tuple[str, int], sources: tuple[str, ...],
        server: OwnServer | None, route: Route | None, warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.scenario, self.server, self.target = scenario, server, target
        self.route, self.warn = route, warn
        self.notes: list[str] = []
        self.silent = True  # nothing has come back yet, and that was not said
        profile = find_profile(scenario.profile)
        profile = profile.replace(**scenario.changes)
        capacity, most = _rows(scenario)
        self.table = ConnectionTable(capacity, max_capacity=most, profile=profile, seed=scenario.seed)
        self.client = LoadClient(
            self.table, tun.fd, _sources(sources, MOST_SOURCES), [target], request=scenario.request,
            end=scenario.expect, nbytes=scenario.expect_bytes, line=scenario.expect_line, requests=scenario.requests,
            close=scenario.close, half_close=scenario.half_close, life=scenario.lifetime, think=scenario.think,
            timeout_ns=round(scenario.timeout * 1e9), connecting_limit=scenario.connecting, seed=scenario.seed,
        )  # fmt: skip
        self.samples: list[Sample] = []
        self.begin = self.sampled = time.monotonic()
        self.phase = "opening"
        self.last = {name: Histogram() for name in ("connect", "first_byte", "close")}
        self.last_counts = self.client.counts()
        self.interrupted = 0

    def say(self, text: str) -> None:
        self.notes.append(text)
        self.warn(text)

    def all(self, progress: Callable[[Progress], None] | None, interrupts: Callable[[], int]) -> Report:
        self.progress, self.interrupts = progress, interrupts
        scenario = self.scenario
        stages = scenario.stage or (Stage(scenario.duration, scenario.rate, scenario.hold, scenario.churn),)
        hold, churn = 0, 0.0
        self.begin = self.sampled = time.monotonic()
        for number, each in enumerate(stages, 1):
            hold = hold if each.hold is None else each.hold
            churn = churn if each.churn is None else each.churn
            self.phase = f"stage {number} of {len(stages)}" if len(stages) > 1 else "running"
            self.client.plan(rate=each.rate, poisson=scenario.arrivals == "poisson", hold=hold, churn=churn)
            if not self._until(time.monotonic() + each.seconds, 0):
                break
        self.client.plan(opening=False)
        self._sample()
        loaded = time.monotonic() - self.begin
        held = self.samples[-1]
        self.client.end()
        self.phase = "closing"
        if not self.client.over and self.interrupted < 2:
            self._until(time.monotonic() + scenario.grace, 1)
        if not self.client.over:
            self.phase = "resetting"
            self.client.cut()
            self._until(time.monotonic() + 10, 1 << 30)
        self.phase = "done"
        self._sample()
        return self._report(loaded, held)

    def _until(self, end: float, patience: int) -> bool:
        """Run until `end`, or all is over; False when more than `patience` interrupts came."""
        while (left := end - time.monotonic()) > 0:
            self.client.run(min(SLICE_NS, max(1, round(left * 1e9))))
            self.interrupted = self.interrupts()
            if self.interrupted > patience:
                return False
            if time.monotonic() - self.sampled >= SAMPLE_S:
                self._sample()
            if self.phase in ("closing", "resetting") and self.client.over:
                break
        return True

    def _sample(self) -> None:
        now = time.monotonic()
        counts = self.client.counts()
        span = max(now - self.sampled, 1e-9)
        latency = {}
        for name, last in self.last.items():
            whole: Histogram = getattr(self.client, name)
            latency[name] = whole.since(last)
            last.clear()
            last += whole
        if self.silent and counts["opened"]:
            self.silent = False
            text = None if counts["packets_in"] else silence(self.scenario, self.target[0], self.route)
            if text is not None:
                self.say(text)
        used, ports = self.client.ports()
        states = self.table.counts()
        rates = {
            name: (counts[name] - self.last_counts[name]) / span
            for name in ("opened", "established", "answered", "packets_in", "packets_out")
        }
        sample = Sample(
            seconds=now - self.begin,
            phase=self.phase,
            states={state.name: states[state] for state in State if states[state]},
            live=counts["live"],
            rates=rates,
            p50_us={name: _us(each.percentile(50)) for name, each in latency.items()},
            p99_us={name: _us(each.percentile(99)) for name, each in latency.items()},
            ports_used=used,
            ports=ports,
            busy=(counts["cpu_ns"] - self.last_counts["cpu_ns"])
            / max(counts["ran_ns"] - self.last_counts["ran_ns"], 1),
            kernel_established=_kernel_established() if self.server is not None else None,
        )
        self.samples.append(sample)
        self.last_counts, self.sampled = counts, now
        if self.progress is not None:
            self.progress(Progress(self.phase, sample.seconds, self.scenario.seconds, sample))

    def _report(self, loaded: float, held: Sample) -> Report:
        client = self.client
        return Report(
            scenario=self.scenario.as_dict(),
            target=f"{self.target[0]}:{self.target[1]}",
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
            seconds=loaded,
            interrupted=self.interrupted,
            counts=client.counts(),
            latency={"connect": client.connect, "first byte": client.first_byte, "close": client.close},
            held=held,
            samples=self.samples,
            ports=client.ports()[1],
            table_bytes=self.table.nbytes,
            peak_rss=_peak_rss(),
            server_processes=self.server.processes if self.server else 0,
            notes=self.notes,
        )


def _us(ns: int | None) -> float | None:
    return None if ns is None else ns / 1000


def _kernel_established() -> int | None:
    """The kernel's own count of connections that are open on its side, in this network namespace: CurrEstab."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/thread-self/net/snmp") as file:
        names, values = (line.split() for line in file if line.startswith("Tcp:"))
        return int(values[names.index("CurrEstab")])
    return None


def _peak_rss() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
