"""Timers beside a Linux socket: many scripts at once, each with what its peer sends and its application does, and when.

The kernel needs real seconds, so all scripts run side by side, those with the same sysctls in one namespace. What it
sends is dated by the kernel itself (AF_PACKET). Our endpoint then goes through the same script in virtual time, with the
moments at which the kernel's steps really happened.

A step is (seconds, words); words are a call (`open`, `listen`, `accept`, `send 100`, `shutdown`, `close`, `keepalive`), or
"< " and a segment in the language of twin.py. In the segment, `ts` answers the last timestamp that was seen.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kernel import pcap
from kernel.sniffer import Sniffer

from fasttcp import Event, FastTCPError, State
from fasttcp.spec import TRANSITIONS

from .twin import IPV4, Host, Kernel, Ours, Version, read

MS = 1_000_000
POLL_S = 0.03
LATE_S, TRIES = 0.05, 3
APART_S = 0.01  # between the beginnings of two scripts


@dataclass(frozen=True)
class Script:
    name: str
    steps: tuple[tuple[float, str], ...]
    seconds: float
    passive: bool = False
    sysctls: tuple[tuple[str, int], ...] = ()  # without "net.ipv4."
    options: bool = True  # compared too
    version: Version = IPV4

    @property
    def changes(self) -> dict[str, object]:
        """The same as parameters of a profile."""
        out: dict[str, object] = {}
        for name, value in self.sysctls:
            if name == "tcp_rto_max_ms":
                out["rto_max"] = value / 1000
            elif name == "tcp_rto_min_us":
                out["rto_min"] = value / 1e6
            elif name == "tcp_invalid_ratelimit":
                out[name] = value / 1000
            else:
                out[name] = value
        return out


@dataclass
class Record:
    """What one endpoint did. Times are ns since the script's first step."""

    sent: list[tuple[int, str]] = field(default_factory=list)
    states: list[tuple[int, str]] = field(default_factory=list)  # changes only
    acted: list[tuple[int, str]] = field(default_factory=list)  # the steps, when they really happened
    late_s: float = 0.0  # how far behind its timetable a step was, at most
    error: str | None = None  # how the connection ended, as its application learns it

    def see(self, when: int, state: str) -> None:
        if not self.states or self.states[-1][1] != state:
            self.states.append((when, state))

    def told(self) -> str:
        return "; ".join(
            f"{when / 1e9:.3f} {what}"
            for when, what in sorted([*self.sent, *((at, f"[{name}]") for at, name in self.states)])
        )


class _Side:
    """What a script does to an endpoint."""

    def act(self, words: str) -> None:
        if words.startswith("< "):
            said = read(words[2:])
            if said.dated:
                said.ts = (said.dated, self.tsval)
            self.get(said)
            return
        call, *rest = words.split()
        with contextlib.suppress(BlockingIOError, FastTCPError):
            getattr(self, call)(*map(int, rest))


class TimedKernel(_Side, Kernel):
    def __init__(self, host: Host, script: Script, lport: int, rport: int) -> None:
        Kernel.__init__(self, host, lport, rport, 0x7FFFFFC0)
        self.script, self.record = script, Record()
        self.begin = 0

    def do(self, words: str) -> None:
        now = time.time_ns()
        if not self.record.acted:
            self.begin = now
        self.record.acted.append((now - self.begin, words))
        self.act(words)

    def keepalive(self) -> None:
        assert self.socket is not None
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def look(self) -> None:
        if self.record.acted:
            self.record.see(time.time_ns() - self.begin, self.state)

    def finish(self) -> None:
        if self.socket is not None and self.socket.fileno() >= 0:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.record.error = errno.errorcode[code] if code else None
        self.gone()


class TimedOurs(_Side, Ours):
    def __init__(self, script: Script, lport: int, rport: int) -> None:
        self.clock = 0
        Ours.__init__(self, script.version, lport, rport, 0x7FFFFFC0, tick_ns=MS, **script.changes)
        self.record = Record()
        self.begin = 0

    def now(self) -> int:
        return self.clock

    def keepalive(self) -> None:
        self.table.keepalive(self._one(), True, self.clock)

    def pass_time(self, until: int) -> None:
        """Up to then, with a look at each moment at which a timer may fire."""
        while self.clock < until:
            due = self.table.next_timer_ns
            self.clock = until if due is None else min(max(self.clock + MS, due), until)
            self.table.advance(self.clock)
            self.note()

    def note(self) -> None:
        before = len(self.sent)
        self.collect()
        self.record.sent += [(self.clock - self.begin, str(answer)) for answer in self.sent[before:]]
        self.record.see(self.clock - self.begin, self.state)

    def play(self, kernel: TimedKernel) -> Record:
        self.clock = self.begin = kernel.begin
        for when, words in kernel.record.acted:
            self.pass_time(self.begin + when)
            self.act(words)
            self.note()
        self.pass_time(self.begin + round(kernel.script.seconds * 1e9))
        for ended in self.table.take_ended():
            self.record.error = TRANSITIONS[State(ended["orig_state"]), Event(ended["ended_by"])].outcome
        return self.record


def run(
    scripts: list[Script], doubtful: Callable[[Script, Record, Record], bool] = lambda *_: False
) -> dict[str, tuple[Record, Record]]:
    """{name: (what the kernel did, what we did)}. Takes as long as the longest script, and again where this machine was too
    busy to keep its timetable or what came of it is doubtful."""
    told: dict[str, tuple[Record, Record]] = {}
    for _ in range(TRIES):
        told.update(_run(scripts))
        scripts = [each for each in scripts if told[each.name][0].late_s > LATE_S or doubtful(each, *told[each.name])]
        if not scripts:
            break
    return told


def _run(scripts: list[Script]) -> dict[str, tuple[Record, Record]]:
    with contextlib.ExitStack() as stack:
        worlds: dict[Any, tuple[Host, Sniffer]] = {}
        kernels: list[TimedKernel] = []
        for script in scripts:
            world = script.version, script.sysctls
            if world not in worlds:
                host = stack.enter_context(Host(script.version))
                for name, value in script.sysctls:
                    host.namespace.sysctl(f"net.ipv4.{name}", value)
                worlds[world] = host, stack.enter_context(Sniffer(host.namespace, "oracle", pcap.Writer(200)))
            host = worlds[world][0]
            host.next_port += 1
            ports = (host.next_port + 10_000, host.next_port) if script.passive else (host.next_port, 443)
            kernels.append(TimedKernel(host, script, *ports))
        _play(kernels, [host for host, _ in worlds.values()])
        for host, sniffer in worlds.values():
            sniffer.drain()
            _read(sniffer.writer.records, host, {(each.lport, each.rport): each for each in kernels if each.host is host})
        for each in kernels:
            each.finish()
    return {each.script.name: (each.record, ours(each)) for each in kernels}


def ours(kernel: TimedKernel) -> Record:
    return TimedOurs(kernel.script, kernel.lport, kernel.rport).play(kernel)


def _play(kernels: list[TimedKernel], hosts: list[Host]) -> None:
    begins = {id(each): n * APART_S for n, each in enumerate(kernels)}
    due = sorted(
        (
            (begins[id(each)] + at, i, words, each)
            for each in kernels
            for i, (at, words) in enumerate(each.script.steps)
        ),
        key=lambda one: one[:2],
    )
    begin = time.monotonic()
    ends = {id(each): begin + begins[id(each)] + each.script.seconds for each in kernels}
    next_look = begin
    while (now := time.monotonic()) < max(ends.values()):
        while due and begin + due[0][0] <= now:
            at, _, words, each = due.pop(0)
            _hear(hosts, kernels)
            before = time.monotonic()
            each.do(words)
            # How long it took counts more: when in that time the kernel did it, nobody knows.
            took = time.monotonic() - before
            each.record.late_s = max(each.record.late_s, before - begin - at, 4 * took)
            each.look()
        if now >= next_look:
            next_look = now + POLL_S
            for each in kernels:
                if now < ends[id(each)]:
                    each.look()
        _hear(hosts, kernels)
        pause = min(POLL_S, due[0][0] + begin - time.monotonic() if due else POLL_S)
        if pause > 0:
            time.sleep(pause)


def _hear(hosts: list[Host], kernels: list[TimedKernel]) -> None:
    """Initial sequence numbers and timestamps, which the peer needs to answer; the rest is read from the capture."""
    for host in hosts:
        while True:
            try:
                packet = os.read(host.tun, 65536)
            except BlockingIOError:
                break
            ports = host.version.ports(packet)
            for each in kernels:
                if each.host is host and (each.lport, each.rport) == ports:
                    each.read_packet(packet)


def _read(records: list[pcap.Record], host: Host, kernels: dict[tuple[int, int], TimedKernel]) -> None:
    for each in kernels.values():
        each.sent.clear()
    for record in records:
        ports = host.version.ports(record.data)
        if ports in kernels:
            each = kernels[ports]
            each.read_packet(record.data, record.wire_length)
            each.record.sent.append((record.time_ns - each.begin, str(each.sent[-1])))
