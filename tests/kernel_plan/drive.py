"""One scenario against the kernel: real sockets at the planned times, and what the kernel counts meanwhile.

A thread for each scenario, moved into a namespace of its own. connect() to a listener of the same namespace returns when
the handshake is done, so one thread plays both sides. All counters are the kernel's: /proc/net/sockstat, /proc/net/netstat.
"""

import errno
import heapq
import socket
import threading
import time
from dataclasses import asdict, dataclass, field

from kernel.netns import Namespace

from .scenarios import LIFETIME_S, SECONDS, Scenario

PORT = 8000
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
COUNTERS = ("TW", "TWRecycled", "TCPTimeWaitOverflow")


@dataclass
class Run:
    """What the kernel did. Columns hold one value for each second, from second 1."""

    name: str
    opened: int = 0
    failed: int = 0
    first_failure_s: float | None = None
    time_wait: list[int] = field(default_factory=list)  # sockstat's tw: TIME_WAIT and orphans in FIN_WAIT_2
    failures: list[int] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    jiffies: int = 0  # when it began; 0: the kernel does not tell
    late_s: float = 0.0  # the furthest that the driver was behind its timetable


def counter_lines(path: str) -> dict[str, int]:
    """/proc/net/netstat: pairs of lines, names and values."""
    with open(path) as file:
        lines = file.read().splitlines()
    out = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        if names.startswith("TcpExt:"):
            out.update(zip(names.split()[1:], map(int, values.split()[1:]), strict=True))
    return out


def jiffies() -> int:
    """The kernel's clock of timers, or 0 where /proc/timer_list cannot be read. In it stands the jiffy of the last tick of
    each CPU; the latest is now, or a tick ago."""
    try:
        with open("/proc/timer_list") as file:
            return max((int(line.split(":")[1]) for line in file if line.strip().startswith("jiffies:")), default=0)
    except OSError:
        return 0


def time_wait() -> int:
    """sockstat's tw of the calling thread's namespace."""
    with open("/proc/thread-self/net/sockstat") as file:
        words = next(line for line in file if line.startswith("TCP:")).split()
    return int(words[words.index("tw") + 1])


def drive(scenario: Scenario, seconds: int = SECONDS, start: threading.Barrier | None = None) -> Run:
    """Run a scenario in a new namespace, in the calling thread."""
    with Namespace() as namespace, namespace.inside():
        namespace.link_up("lo")
        for address in scenario.addresses:
            if address != "127.0.0.1":
                namespace.add_address("lo", f"{address}/32")
        namespace.sysctl("net.ipv4.ip_local_port_range", "{} {}".format(*scenario.range))
        for name, value in {"tcp_tw_reuse": 0, **scenario.sysctls}.items():
            namespace.sysctl(f"net.ipv4.{name}", value)
        listener = socket.create_server((scenario.addresses[0], PORT), backlog=4096)
        listener.settimeout(5)
        if start is not None:
            start.wait(60)
        try:
            return _Driver(scenario, listener).run(seconds)
        finally:
            listener.close()


class _Driver:
    def __init__(self, scenario: Scenario, listener: socket.socket) -> None:
        self.scenario, self.listener = scenario, listener
        self.closers = scenario.closers()
        self.out = Run(scenario.name)
        self.due: list[tuple[float, int, socket.socket, socket.socket | None]] = []
        self.tried = 0

    def run(self, seconds: int) -> Run:
        before = counter_lines("/proc/thread-self/net/netstat")
        self.out.jiffies = jiffies()
        begin = time.monotonic()
        sample = 1
        while True:
            now = time.monotonic() - begin
            wakes = [self.tried / self.scenario.rate, float(sample)] + ([self.due[0][0]] if self.due else [])
            if now < min(wakes):
                time.sleep(min(wakes) - now)
                continue
            self.out.late_s = max(self.out.late_s, now - min(wakes))
            if sample <= now:
                self.out.time_wait.append(time_wait())
                self.out.failures.append(self.out.failed)
                sample += 1
                if sample > seconds:
                    break
            while self.due and self.due[0][0] <= now:
                self.close(now)
            if self.tried / self.scenario.rate <= now:
                self.connect(now)
        after = counter_lines("/proc/thread-self/net/netstat")
        self.out.counters = {name: after[name] - before[name] for name in COUNTERS}
        for _, _, one, other in self.due:
            for left in (one, other):
                if left is not None:
                    left.close()
        return self.out

    def connect(self, now: float) -> None:
        number = self.tried
        self.tried += 1
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if self.scenario.sources > 1:
                client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                client.bind((self.scenario.addresses[number % self.scenario.sources], 0))
            client.connect((self.scenario.addresses[0], PORT))
        except OSError as refusal:
            client.close()
            if refusal.errno != errno.EADDRNOTAVAIL:
                raise
            self.out.failed += 1
            if self.out.first_failure_s is None:
                self.out.first_failure_s = now
            return
        server, _ = self.listener.accept()
        self.out.opened += 1
        first, second = (server, client) if self.closers[number % len(self.closers)] else (client, server)
        heapq.heappush(self.due, (now + LIFETIME_S, number, first, second))

    def close(self, now: float) -> None:
        """One close() that is due: the first of a connection, or the other side's, answer_s later."""
        _, number, first, second = heapq.heappop(self.due)
        if second is None:
            first.close()
            return
        first.close()
        if self.scenario.answer_s:
            heapq.heappush(self.due, (now + self.scenario.answer_s, number, second, None))
            return
        assert second.recv(1) == b""
        second.close()


def drive_all(scenarios: tuple[Scenario, ...], seconds: int = SECONDS) -> dict[str, dict]:
    """All scenarios at once, a thread each: {name: Run as a dict}. The first failure of any is raised."""
    out: dict[str, dict] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(len(scenarios))

    def one(scenario: Scenario) -> None:
        try:
            out[scenario.name] = asdict(drive(scenario, seconds, start))
        except BaseException as failure:
            start.abort()
            errors.append(failure)

    threads = [threading.Thread(target=one, args=(scenario,), daemon=True) for scenario in scenarios]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((one for one in errors if not isinstance(one, threading.BrokenBarrierError)), errors[0])
    return {scenario.name: out[scenario.name] for scenario in scenarios}
