"""A load from its beginning to its report: network, server, lanes, tables, clients; then slices of time.

    scenario --> [private network + own server] or [target] --> a lane, a table, a LoadClient for each thread
                                                                      --> samples of all together --> Report

Each thread runs a client, slice after slice, on its own. All of them stand still once a second, and at the end of a stage: only
then is anything looked at or changed. More often would be seen in the latencies, where one that is ready waits for one that has
lost its CPU. This file decides when; what a connection does is in flows.pyx, what is said of it in report.py. It prints nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from fasttcp.core.table import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.histogram import Histogram
from fasttcp.load.lanes import Lanes, share_out
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.netlink import Route, local_addresses, route_to
from fasttcp.load.preflight import look, silence
from fasttcp.load.report import PHASES, Report, Sample, Thread
from fasttcp.load.scenario import Scenario, Stage
from fasttcp.load.server import OwnServer
from fasttcp.profiles import Profile
from fasttcp.profiles import profile as find_profile
from fasttcp.spec import State

__all__ = ["Progress", "run_load"]

SLICE_NS = 50_000_000  # between two looks at the clock and at interrupts
SAMPLE_S = 1.0
ROW_BYTES = 300  # of memory a connection takes here: row, cold record, index, flow
LARGEST_TABLE = 16_000_000
OWN_PORT = 80
# The kernel's end, ours, and what it routes to us, in a network of one's own: benchmark addresses, RFC 2544 and 5180.
OWN_NETWORK = {
    4: ("198.18.0.1", "198.18.0.1/32", ("198.19.0.0/16",), "198.19.0.0/24"),
    6: ("2001:2::1", "2001:2::1/128", ("2001:2:0:1::/64",), "2001:2:0:1::/120"),
}
UNEVEN = 1.25  # of an equal part of the pool: from here on it is said
# Between the seeds of two threads: generators whose states differ in a few bits begin alike (Steele and others 2014, the golden
# ratio of 2^64).
SEED_STEP = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Progress:
    """What a live display is told, once a second and at the end."""

    phase: str  # "opening", "stage 2 of 3", "closing", "resetting", "done"
    seconds: float  # since the first connection
    whole: float  # seconds planned
    sample: Sample


def _memory() -> int:
    """Bytes that can be had without swapping."""
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return 4 << 30


def _rows(scenario: Scenario) -> tuple[int, int]:
    """Rows at once, and how far the table may grow. ValueError for more connections than there is memory for."""
    most = scenario.max_connections or max(1 << 16, min(LARGEST_TABLE, _memory() // 2 // ROW_BYTES))
    hold = max([scenario.hold, *(each.hold or 0 for each in scenario.stage)])
    if hold > most and not scenario.max_connections:
        raise ValueError(f"hold is {hold:,}: there is memory for {most:,} connections here")
    return min(most, max(4096, scenario.most_held)), most


@dataclass(frozen=True, slots=True)
class _World:
    lanes: Lanes
    target: tuple[str, int]
    server: OwnServer | None
    route: Route | None


def refuse_taken(option: str, networks: Iterable[str], addresses: Iterable[str], whose: str) -> None:
    """ValueError for a network in which the kernel has an address: it would take what is sent there for its own."""
    taken = [ip_address(text) for text in addresses]
    for text in networks:
        network = ip_network(text, strict=False)
        for address in taken:
            if address.version == network.version and address in network:
                raise ValueError(f"{option} {text} holds {address}, {whose}: its kernel would answer")


@contextlib.contextmanager
def _own_world(scenario: Scenario, profile: Profile) -> Iterator[_World]:
    """The network of its own, with a server in it."""
    version = 6 if scenario.ipv6 else 4
    address, kernel, routed, pool = OWN_NETWORK[version]
    connections = max(scenario.most_held, 1000)
    refuse_taken("--source", scenario.source, [address], "the address of the server")
    with Lanes(scenario.threads, scenario.source or (pool,), profile) as lanes:
        enter_private_network()
        lanes.open(addresses=(kernel,), networks=scenario.source or routed)
        with OwnServer(
            address, OWN_PORT, mode=scenario.server, body=scenario.body, connections=connections,
            processes=scenario.server_processes,
        ) as server:  # fmt: skip
            yield _World(lanes, (address, OWN_PORT), server, None)


@contextlib.contextmanager
def _world(scenario: Scenario, profile: Profile) -> Iterator[_World]:
    """The network of the machine, as it is."""
    assert scenario.target is not None
    if not scenario.source:
        raise ValueError("a target needs --source: a network that is routed to this machine, and whose addresses nobody has")
    host = scenario.target[0]
    try:
        route = route_to(host)
    except OSError as error:
        raise OSError(
            error.errno, f"this machine has no route to {host}: `ip route add {host} via ITS_ROUTER` ({error.strerror})"
        ) from None
    refuse_taken("--source", scenario.source, local_addresses(), "an address of this machine")
    refuse_taken("--source", scenario.source, [host], "the target's address")
    with Lanes(scenario.threads, scenario.source, profile) as lanes:
        lanes.open(networks=scenario.source)
        if route.local and ip_address(host).is_loopback and ip_address(host).version == 4:
            lanes.route_loopback()
        yield _World(lanes, scenario.target, None, route)


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
    says what mends it). When a thread fails, the others end with it, and its error is raised.
    """
    profile = find_profile(scenario.profile).replace(**scenario.changes)
    rows = _rows(scenario)
    with (
        (_own_world if scenario.target is None else _world)(scenario, profile) as world,
        contextlib.ExitStack() as after,
        ThreadPoolExecutor(scenario.threads, "fasttcp-load") as others,  # it ends before the devices do
    ):
        running = _Run(scenario, profile, rows, world, others, warn)
        for client in running.clients:
            after.callback(client.release)
        for text in look(scenario, world.target, world.route, world.lanes.devices).warnings:
            running.say(text)
        return running.all(progress, interrupts)


class _Run:
    def __init__(
        self,
        scenario: Scenario,
        profile: Profile,
        rows: tuple[int, int],
        world: _World,
        others: ThreadPoolExecutor,
        warn: Callable[[str], None],
    ) -> None:
        self.scenario, self.world, self.others, self.warn = scenario, world, others, warn
        self.notes: list[str] = []
        self.silent = True  # nothing has come back yet, and that was not said
        # Each thread has the share of the load that its lane has of the pool: so the pool lasts as long as one thread's.
        self.weights = [lane.pool for lane in world.lanes.lanes]
        self.clients = self._clients(profile, *rows)
        self._look_at_threads()
        self.samples: list[Sample] = []
        self.begin = self.sampled = time.monotonic()
        self.phase = "opening"
        self.ending = self.stop = False
        self.last = {name: Histogram() for name in ("connect", "first_byte", "close")}
        self.last_counts = [client.counts() for client in self.clients]
        self.interrupted = 0

    def _clients(self, profile: Profile, first: int, most: int) -> list[LoadClient]:
        scenario, threads = self.scenario, self.scenario.threads
        begin, rows = share_out(first, self.weights), share_out(most, self.weights)
        if 0 in rows:
            raise ValueError(f"max_connections is {most}: too few for {threads} threads")
        connecting = share_out(scenario.connecting, [1] * threads)
        clients = []
        for number, lane in enumerate(self.world.lanes.lanes):
            seed = (scenario.seed + number * SEED_STEP) % (1 << 64) if number else scenario.seed
            table = ConnectionTable(
                max(1, begin[number]), max_capacity=rows[number],
                profile=profile.replace(ip_local_port_range=lane.ports), seed=seed,
            )  # fmt: skip
            # Its clock is the machine's from the beginning: numbers and timestamps grow from one run to the next, as those of
            # any host, so a target tells them from what it has left of an earlier run (RFC 6528 section 3).
            table.advance(0)
            clients.append(
                LoadClient(
                    table, lane.fd, lane.sources, [self.world.target], request=scenario.request, end=scenario.expect,
                    nbytes=scenario.expect_bytes, line=scenario.expect_line, requests=scenario.requests,
                    close=scenario.close, half_close=scenario.half_close, life=scenario.lifetime, think=scenario.think,
                    timeout_ns=round(scenario.timeout * 1e9), connecting_limit=connecting[number], seed=seed,
                    numbers=(number, threads),
                )
            )  # fmt: skip
        return clients

    def _start_threads(self) -> None:
        """Before the time begins: the connections of a thread that starts meanwhile would be opened late."""
        ready = threading.Barrier(self.scenario.threads)
        try:
            for _ in self.clients[1:]:
                self.others.submit(ready.wait)
            ready.wait()
        except BaseException:
            ready.abort()
            raise

    def _look_at_threads(self) -> None:
        threads, cpus = self.scenario.threads, len(os.sched_getaffinity(0))
        if threads > cpus:
            self.say(f"{threads} threads take turns on {cpus} CPUs: --threads {cpus} would do as much")
        largest = max(self.weights) / sum(self.weights)
        if largest * threads > UNEVEN:
            text = f"one of {threads} threads has {largest:.0%} of the source pool, and of the load"
            self.say(f"{text}: give more --source addresses")

    def say(self, text: str) -> None:
        self.notes.append(text)
        self.warn(text)

    def all(self, progress: Callable[[Progress], None] | None, interrupts: Callable[[], int]) -> Report:
        self.progress, self.interrupts = progress, interrupts
        scenario = self.scenario
        stages = scenario.stage or (Stage(scenario.duration, scenario.rate, scenario.hold, scenario.churn),)
        hold, churn = 0, 0.0
        self._start_threads()
        self.begin = self.sampled = time.monotonic()
        for number, each in enumerate(stages, 1):
            hold = hold if each.hold is None else each.hold
            churn = churn if each.churn is None else each.churn
            self.phase = f"stage {number} of {len(stages)}" if len(stages) > 1 else "running"
            end = time.monotonic() + each.seconds  # before the plan: what is due when the time is over is not opened
            self._plan(each.rate, hold, churn, fewer=each.hold is not None and not each.rate)
            if not self._until(end, 0):
                break
        for client in self.clients:
            client.plan(opening=False)
        self._sample()
        loaded = time.monotonic() - self.begin
        held = self.samples[-1]
        for client in self.clients:
            client.end()
        self.ending = True
        self.phase = "closing"
        if not self.over and self.interrupted < 2:
            self._until(time.monotonic() + scenario.grace, 1)
        if not self.over:
            self.phase = "resetting"
            for client in self.clients:
                client.cut()
            self._until(time.monotonic() + 10, 1 << 30)
        self.phase = "done"
        self._sample()
        return self._report(loaded, held)

    @property
    def over(self) -> bool:
        return all(client.over for client in self.clients)

    def _plan(self, rate: float, hold: int, churn: float, *, fewer: bool = False) -> None:
        """Each thread's part. What is replaced is in proportion to what is held: a thread that holds nothing replaces nothing.
        fewer: what is open beyond `hold` is closed."""
        whole, held = sum(self.weights), share_out(hold, self.weights)
        for number, client in enumerate(self.clients):
            part = self.weights[number] / whole
            client.plan(
                rate=rate * part, poisson=self.scenario.arrivals == "poisson", hold=held[number],
                churn=churn * (held[number] / hold if hold else part),
                fewer=fewer,
                delay_ns=round(number * 1e9 / rate) if rate else 0,  # by turns: one after the other as one thread would
            )  # fmt: skip

    def _until(self, end: float, patience: int) -> bool:
        """Run until `end`, or all is over; False when more than `patience` interrupts came."""
        while time.monotonic() < end and not (self.ending and self.over):
            self._together(min(end, self.sampled + SAMPLE_S), patience)
            if self.interrupted > patience:
                return False
            if time.monotonic() - self.sampled >= SAMPLE_S:
                self._sample()
        return True

    def _together(self, end: float, patience: int) -> None:
        """All threads work until `end`; this one, with the first client, asks for interrupts. Raises what any has raised."""

        def look() -> None:
            self.interrupted = self.interrupts()
            if self.interrupted > patience:
                self.stop = True

        self.stop = False
        running = [self.others.submit(self._work, client, end, lambda: None) for client in self.clients[1:]]
        try:
            self._work(self.clients[0], end, look)
            while wait(running, SLICE_NS / 1e9).not_done:
                look()
        finally:
            self.stop = True
        for each in running:
            each.result()

    def _work(self, client: LoadClient, end: float, look: Callable[[], None]) -> None:
        try:
            while (left := end - time.monotonic()) > 0 and not self.stop:
                client.run(min(SLICE_NS, max(1, round(left * 1e9))))
                look()
                if self.ending and client.over:
                    break
        except BaseException:
            self.stop = True  # for all: one that has failed ends the run
            raise

    def _latency(self, name: str) -> Histogram:
        """Of all threads together."""
        whole = Histogram()
        for client in self.clients:
            whole += getattr(client, name)
        return whole

    def _sample(self) -> None:
        now = time.monotonic()
        by_thread = [client.counts() for client in self.clients]
        counts, before = _sum(by_thread), _sum(self.last_counts)
        span = max(now - self.sampled, 1e-9)
        latency = {}
        for name, last in self.last.items():
            self.last[name] = self._latency(name)
            latency[name] = self.last[name].since(last)
        if self.silent and counts["opened"]:
            self.silent = False
            answered = counts["packets_in"] or counts["unreachable"]
            text = None if answered else silence(self.scenario, self.world.target[0], self.world.route)
            if text is not None:
                self.say(text)
        ports = [client.ports() for client in self.clients]
        states = [client.table.counts() for client in self.clients]
        rates = {
            name: (counts[name] - before[name]) / span
            for name in ("opened", "established", "answered", "packets_in", "packets_out")
        }
        busy = [
            (new["cpu_ns"] - old["cpu_ns"]) / max(new["ran_ns"] - old["ran_ns"], 1)
            for new, old in zip(by_thread, self.last_counts, strict=True)
        ]
        sample = Sample(
            seconds=now - self.begin,
            phase=self.phase,
            states={state.name: n for state in State if (n := sum(each[state] for each in states))},
            live=counts["live"],
            rates=rates,
            p50_us={name: _us(each.percentile(50)) for name, each in latency.items()},
            p99_us={name: _us(each.percentile(99)) for name, each in latency.items()},
            ports_used=sum(used for used, _ in ports),
            ports=sum(all_ for _, all_ in ports),
            busy=sum(busy),
            busy_threads=busy,
            kernel_established=_kernel_established() if self.world.server is not None else None,
        )
        self.samples.append(sample)
        self.last_counts, self.sampled = by_thread, now
        if self.progress is not None:
            self.progress(Progress(self.phase, sample.seconds, self.scenario.seconds, sample))

    def _report(self, loaded: float, held: Sample) -> Report:
        world = self.world
        threads = [
            Thread(len(lane.sources), lane.ports, client.ports()[1], client.table.nbytes, client.counts())
            for lane, client in zip(world.lanes.lanes, self.clients, strict=True)
        ]
        return Report(
            scenario=self.scenario.as_dict(),
            target=f"{world.target[0]}:{world.target[1]}",
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
            seconds=loaded,
            interrupted=self.interrupted,
            threads=threads,
            lanes=world.lanes.how,
            counts=_sum([each.counts for each in threads]),
            latency={name: self._latency(name.replace(" ", "_")) for name in PHASES},
            held=held,
            samples=self.samples,
            ports=sum(each.pool for each in threads),
            table_bytes=sum(each.table_bytes for each in threads),
            peak_rss=_peak_rss(),
            server_processes=world.server.processes if world.server else 0,
            notes=self.notes,
        )


def _sum(counts: list[dict[str, int]]) -> dict[str, int]:
    return {name: sum(each[name] for each in counts) for name in counts[0]}


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
