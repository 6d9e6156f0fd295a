"""Two kernels, a wire between them, a recording, and a time line of both ends' states: the stage of one exchange.

In lock-step, without threads: nothing moves on the wire but inside `settle` and `wait`. Must not know the exchanges.
"""

import contextlib
import errno
import os
import platform
import re
import socket
import struct
import time
from typing import Any

from kernel import diag, frames, pcap
from kernel.link import Frame, Link
from kernel.netns import Namespace
from kernel.sniffer import Sniffer

SNAPLEN = 128  # Ethernet, VLAN, IPv6 and a TCP header with all its options: 118
ADDRESSES = {4: ("198.18.0.1", "198.18.0.2", 24), 6: ("fd00::1", "fd00::2", 64)}
PORTS = {"a": 40000, "b": 80}
MACS = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b"}
QUIET = 0.1  # s without a frame that count as rest: above a delayed ACK (40 ms), below a retransmission (200 ms)

# Linux's defaults: a machine's own tuning reaches into new namespaces. ECN and saved metrics would only add noise.
SYSCTLS: dict[str, int | str] = {
    "tcp_congestion_control": "reno", "tcp_ecn": 0, "tcp_fin_timeout": 60, "tcp_no_metrics_save": 1,
    "tcp_orphan_retries": 0, "tcp_rfc1337": 0, "tcp_rmem": "4096 131072 6291456", "tcp_sack": 1, "tcp_syn_retries": 6,
    "tcp_syn_linear_timeouts": 4, "tcp_synack_retries": 5, "tcp_timestamps": 1, "tcp_tw_reuse": 2,
    "tcp_window_scaling": 1, "tcp_wmem": "4096 16384 4194304",
}  # fmt: skip


class Scene:
    """A context manager. `a` is the end that connects (198.18.0.1:40000), `b` the one that listens (198.18.0.2:80).

    recorded_at: "wire" (the link itself, each frame once, before any loss), "a" or "b" (AF_PACKET on that host's
    interface), or "loopback" (AF_PACKET on `lo`; there is only one host, and both ends are a's).
    """

    def __init__(
        self, *, version: int = 4, recorded_at: str = "wire", vlan: int | None = None, recording: bool = True,
        neighbours: bool = True, sysctls: dict[str, int | str] | None = None,
    ) -> None:  # fmt: skip
        self.family = socket.AF_INET if version == 4 else socket.AF_INET6
        address_a, address_b, self.prefix = ADDRESSES[version]
        self.loopback = recorded_at == "loopback"
        self.recorded_at, self.vlan, self.recording, self.neighbours = recorded_at, vlan, recording, neighbours
        self.ends = {"a": (address_a, PORTS["a"]), "b": (address_b, PORTS["b"])}
        if self.loopback:
            self.ends["b"] = self.ends["a"]
        self.wanted_sysctls = SYSCTLS | (sysctls or {})
        self.writer = pcap.Writer(SNAPLEN)
        self.sockets: dict[str, socket.socket] = {}
        self.bytes = {side: {"sent": 0, "received": 0} for side in "ab"}
        self.outcome: dict[str, str | None] = {"a": None, "b": None}
        self.opened_by: str | None = None
        self.closed_first_by: str | None = None
        self.connections = 0
        self.forged: list[int] = []
        self.states: list[dict[str, Any]] = []
        self.last_frame: dict[str, bytes] = {}
        self._close_mark = -1
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Scene":
        with contextlib.ExitStack() as stack:
            hosts = "a" if self.loopback else "ab"
            self.hosts = {side: stack.enter_context(Namespace()) for side in hosts}
            self.hosts.setdefault("b", self.hosts["a"])
            self.sysctls = {side: self._set_sysctls(self.hosts[side]) for side in hosts}["a"]
            self.interface = {side: f"tap-{side}" for side in "ab"}
            taps = {side: self._attach(side, stack) for side in "ab"} if not self.loopback else {}
            if self.loopback:
                self.hosts["a"].link_up("lo")
                self.hosts["a"].add_address("lo", f"{self.ends['a'][0]}/32")
            self.link = Link(taps.get("a", -1), taps.get("b", -1))
            self.link.vlan = self.vlan
            self.link.delivered = self._delivered
            self.sniffer: Sniffer | None = None
            self._stack = stack.pop_all()
        if self.recording:
            self.record()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _set_sysctls(self, host: Namespace) -> dict[str, str]:
        host.sysctl("net.ipv6.conf.all.disable_ipv6", int(self.family == socket.AF_INET))
        found = {}
        for name, value in self.wanted_sysctls.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel older than the sysctl
                found[name] = host.sysctl(f"net.ipv4.{name}", value)
        return found

    def _attach(self, side: str, stack: contextlib.ExitStack) -> int:
        host, name, other = self.hosts[side], self.interface[side], "b" if side == "a" else "a"
        tap = host.tap(name)
        stack.callback(os.close, tap)
        if self.family == socket.AF_INET6:
            # No link-local address, router solicitation or multicast report: only what the connection needs.
            for key, value in {"accept_ra": 0, "router_solicitations": 0, "addr_gen_mode": 1}.items():
                host.sysctl(f"net.ipv6.conf.{name}.{key}", value)
        host.link_up(name, mac=MACS[side], mtu=1500)
        host.add_address(name, f"{self.ends[side][0]}/{self.prefix}")
        if self.neighbours:
            host.add_neighbour(name, self.ends[other][0], MACS[other])
        return tap

    def record(self) -> None:
        """Starts the recording; what waits on the wire from before is thrown away."""
        if self.recorded_at == "wire":
            self.link.collect()
            self.link.writer = self.writer
        else:
            side, interface = ("a", "lo") if self.loopback else (self.recorded_at, self.interface[self.recorded_at])
            self.sniffer = self._stack.enter_context(
                Sniffer(self.hosts[side], interface, self.writer, incoming_only=self.loopback)
            )
        self.sample("recording starts")

    # What an application does.

    def socket(self, side: str, *, connects: bool = True) -> socket.socket:
        """A new socket of one end, bound to its address and port."""
        made = self.hosts[side].socket(self.family)
        self._stack.callback(made.close)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.bind(self.ends[side])
        if connects:
            self.sockets[side] = made
        return made

    def listen(self, *, receive_buffer: int = 0) -> None:
        """b listens. A receive buffer (bytes) is inherited by the connection."""
        self.listener = self.socket("b", connects=False)
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.listen(8)

    def connect(self, side: str = "a") -> None:
        """One end calls connect; its SYN waits in the queue."""
        other = "b" if side == "a" else "a"
        if side not in self.sockets:
            self.socket(side)
        self.opened_by = side if self.opened_by in (None, side) else "both"
        self.connections += side == "a"
        code = self.sockets[side].connect_ex(self.ends[other])
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        self.sample(f"{side} connects")

    def accept(self) -> None:
        self.sockets["b"], _ = self.listener.accept()
        self.sockets["b"].setblocking(False)
        self.sockets["b"].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stack.callback(self.sockets["b"].close)

    def open(self, *, receive_buffer: int = 0) -> None:
        """The common beginning: b listens, a connects, the handshake runs, b accepts."""
        self.listen(receive_buffer=receive_buffer)
        self.connect()
        self.settle()
        self.accept()

    def send(self, side: str, count: int) -> None:
        """Sends up to `count` bytes, as many as the kernel takes."""
        sent = self.sockets[side].send(bytes(count))
        self.bytes[side]["sent"] += sent
        self.sample(f"{side} sends {sent}")

    def receive(self, side: str) -> None:
        """Reads all that has arrived; a reset is noted as the end's outcome."""
        while True:
            try:
                data = self.sockets[side].recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                self._note(side, error.errno)
                return
            if not data:
                return
            self.bytes[side]["received"] += len(data)

    def shutdown(self, side: str) -> None:
        self._closing(side)
        self.sockets[side].shutdown(socket.SHUT_WR)
        self.sample(f"{side} shuts down its sending side")

    def close(self, side: str) -> None:
        self._closing(side)
        self.sockets.pop(side).close()
        self.sample(f"{side} closes")

    def abort(self, side: str) -> None:
        """Closes with SO_LINGER 0: the kernel sends RST."""
        self._closing(side)
        self.sockets[side].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sockets.pop(side).close()
        self.sample(f"{side} closes with SO_LINGER 0")

    def failure(self, side: str) -> None:
        """Notes the pending error of an end as its outcome."""
        self._note(side, self.sockets[side].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _note(self, side: str, code: int | None) -> None:
        if code:
            self.outcome[side] = errno.errorcode[code]

    def _closing(self, side: str) -> None:
        if self.closed_first_by is None:
            self.closed_first_by, self._close_mark = side, self.link.passed
        elif side not in self.closed_first_by and self.link.passed == self._close_mark:
            self.closed_first_by = "both"

    # What the wire does.

    def settle(self, quiet: float = QUIET) -> None:
        """Carries frames until none was seen for `quiet` s."""
        if self.loopback:
            time.sleep(quiet)
        else:
            self.link.pump(quiet=quiet)
        self.sample("rest")

    def wait(self, *, a: str | None = None, b: str | None = None, packets: int = 0, limit: float = 10.0) -> None:
        """Carries frames until the ends are in the given states and at least `packets` packets are recorded."""

        def reached() -> bool:
            if self.sniffer:
                self.sniffer.drain()
            wanted = {"a": a, "b": b}
            return len(self.writer.records) >= packets and all(
                self.state(side) == state for side, state in wanted.items() if state
            )

        self.link.pump(until=reached, limit=limit)
        self.sample("waited")

    def forge(self, side: str, flags: int, offset: int) -> None:
        """Puts a frame on the wire that `side` never sent: its last one with other flags, its seq moved by `offset`."""
        original = self.last_frame[side]
        segment = frames.parse(original)
        if segment is None or segment.length:
            raise ValueError(f"the last frame of {side} is no bare segment that could serve as a model")
        data = frames.forged(original, flags=flags, seq=segment.seq + offset)
        number = self.link.record(data)
        self.forged.append(number)
        self.link.deliver(Frame(side, data, number, frames.parse(data)))

    def _delivered(self, frame: Frame) -> None:
        if frame.tcp:
            self.last_frame[frame.side] = frame.data
        self.sample(f"delivered from {frame.side}")

    # The account.

    def state(self, side: str) -> str:
        other = "b" if side == "a" else "a"
        return diag.state(self.hosts[side], self.ends[side], self.ends[other])

    def sample(self, event: str) -> None:
        """Adds the states of both ends, now, to the time line; a moment of rest that changed nothing is left out."""
        if self.sniffer:
            self.sniffer.drain()
        elif self.link.writer is None:
            return
        entry = {
            "time_ns": time.time_ns(),
            "packets": len(self.writer.records),
            "a": self.state("a"),
            "b": self.state("b"),
            "event": event,
        }
        last = self.states[-1] if self.states else {}
        if event not in ("rest", "waited") or any(entry[key] != last[key] for key in ("packets", "a", "b")):
            self.states.append(entry)

    def finish(self) -> None:
        """The last look before everything is torn down; what the sockets do then is not recorded."""
        for side in self.sockets:
            self.receive(side)
        self.sample("recording ends")

    def account(self, name: str, what: str) -> dict[str, Any]:
        """What is written to NAME.json, see record.py."""
        return {
            "name": name,
            "what": what,
            "kernel": f"{platform.system()} {re.split('[^0-9.]', platform.release())[0]}",
            "sysctls": self.sysctls,
            "recorded_at": self.recorded_at,
            "a": list(self.ends["a"]),
            "b": list(self.ends["b"]),
            "connections": self.connections,
            "opened_by": self.opened_by,
            "closed_first_by": self.closed_first_by,
            "outcome": self.outcome,
            "bytes": self.bytes,
            "packets": len(self.writer.records),
            "lost": self.link.lost,
            "forged": self.forged,
            "final": {side: self.states[-1][side] for side in "ab"},
            "states": self.states,
        }
