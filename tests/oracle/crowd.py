"""One listener and many peers, twice: a Linux listener behind a TUN device, and one of an endpoint table.

    crowd.get("a", "S 0 mss 1460")      peer a sends this to both
    crowd.accept(), crowd.close()       what the application does with the listener
    crowd.differences                   empty, if all was alike
    crowd.log                           what Linux did, step by step

Compared after each step: what each peer was sent, and the state of the connection with the peer of the step.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import Any

from fasttcp import ConnectionTable
from fasttcp.profiles import profile as find_profile

from .twin import DELAYED_ACK, Host, Kernel, Ours, read

ISN = 0x7FFFFFC0


class Crowd:
    def __init__(self, host: Host, *, backlog: int, **changes: Any) -> None:
        host.next_port += 1
        self.host, self.lport, self.backlog = host, host.next_port, backlog
        profile = find_profile("linux").replace(**{"tcp_syncookies": 0, **changes})
        self.table = ConnectionTable(64, profile=profile, accept_all=False, read_all=False, seed=self.lport)
        self.peers: dict[str, tuple[Kernel, Ours]] = {}
        self.listener = self._peer("listener")
        self.differences: list[str] = []
        self.log: list[str] = []
        self.accepted: list[Any] = []

    def _peer(self, name: str) -> tuple[Kernel, Ours]:
        if name not in self.peers:
            self.host.next_port += 1
            kernel, ours = (
                Kernel(self.host, self.lport, self.host.next_port, ISN),
                Ours(self.host.version, self.lport, self.host.next_port, ISN),
            )
            ours.table = self.table
            self.peers[name] = kernel, ours
        return self.peers[name]

    def __enter__(self) -> Crowd:
        kernel, ours = self.listener
        kernel.listener = kernel._made()
        kernel.listener.listen(self.backlog)
        # Linux compares by "more than", so its backlog of N holds N + 1 (differences.py, "one_more").
        ours.listener = self.table.listen(self.host.version.local, self.lport, ours.now(), backlog=self.backlog + 1)
        return self

    def __exit__(self, *exception: object) -> None:
        for each in self.accepted:
            each.close()
        self.listener[0].gone()
        for kernel, _ in self.peers.values():  # who is left in SYN_RCVD or ESTABLISHED is told to go
            kernel.get(read("R 1"))
        self.table.check_invariants()
        self._collect()

    def get(self, name: str, words: str) -> None:
        for side in self._peer(name):
            said = read(words)
            if said.dated:
                said.ts = (said.dated, side.tsval if said.flags & 16 else 0)
            side.get(said)
        self._compare(name, f"{name}: {words}")

    def accept(self) -> None:
        """The oldest that waits, if one does."""
        kernel, ours = self.listener
        port = None
        with contextlib.suppress(BlockingIOError):
            accepted, (_, port, *_) = kernel.listener.accept()
            self.accepted.append(accepted)
        handle = self.table.accept(ours.listener)
        mine = None if handle is None else self.table.summary(handle)["resp_port"]
        self.log.append(f"accept -> {port is not None}")
        if port != mine:
            self.differences.append(f"accept: Linux port {port}, we {mine}")

    def close(self) -> None:
        kernel, ours = self.listener
        kernel.listener.close()
        self.table.close(ours.listener, ours.now())
        self._compare("listener", "close")

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)
        self._compare("listener", f"{seconds} s")

    def _collect(self) -> None:
        while True:
            try:
                packet = os.read(self.host.tun, 65536)
            except BlockingIOError:
                break
            ports = self.host.version.ports(packet)
            for kernel, _ in self.peers.values():
                if (kernel.lport, kernel.rport) == ports:
                    kernel.read_packet(packet)
        self.table.advance(self.listener[1].now())
        for segment in self.table.take_output():
            for _, ours in self.peers.values():
                if ours.rport == segment.dport:
                    ours.take(segment)

    def _compare(self, name: str, step: str) -> None:
        self._collect()
        if any(len(kernel.sent) < len(ours.sent) for kernel, ours in self.peers.values()):
            time.sleep(DELAYED_ACK)
            self._collect()
        states = [side.state for side in self.peers[name]]
        for each, (kernel, ours) in self.peers.items():
            # A RST of Linux's that carries an ACK is taken for one that does not (differences.py, "reset").
            sent = [[re.sub(r"^RA (-?\d+) ack -?\d+$", r"R \1", str(one)) if one.seq else str(one) for one in side.sent]
                    for side in (kernel, ours)]  # fmt: skip
            kernel.sent.clear()
            ours.sent.clear()
            alike = sent[0] == sent[1] and (each != name or states[0] == states[1])
            if each == name:
                self.log.append(f"{step} -> {states[0]} {sent[0]}" + ("" if alike else f"   we {states[1]} {sent[1]}"))
            if not alike:
                self.differences.append(f"after {step}, {each}: Linux {states[0]} {sent[0]}, we {states[1]} {sent[1]}")
