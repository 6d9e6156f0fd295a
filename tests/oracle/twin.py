"""Two endpoints in the same place: a socket of this kernel, behind a TUN device, and a row of an endpoint table.

A test plays the peer of both. Each step is done to both, and afterwards what they sent and the states they are in are
compared. Numbers are relative to each side's initial sequence number, as each endpoint has its own.

    twin.open()                         connect(); the SYN is out
    twin.get("SA 0 ack 1 mss 1460")     what the peer sends: flags (S F R P A U, "-"), sequence number, then any of
                                        ack N, len N, win N, mss N, ws N, sack, ts N (with `timestamps=True` by itself)
    twin.close()                        and so on: what an application does
    twin.differences                    empty, if all was alike

Not compared, since they are free to differ: windows, PSH, the values of timestamps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import struct
import time
from dataclasses import dataclass, field
from ipaddress import ip_address

from kernel import diag, frames
from kernel.netns import Namespace

from fasttcp import ConnectionTable, FastTCPError, Segment
from fasttcp.profiles import profile as find_profile

LISTENING = 80
DELAYED_ACK = 0.06  # s, above tcp_delack_min (40 ms)
IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE = 24, 51  # linux/in.h
PROBE = 9  # a port where nobody listens
BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32}
SYSCTLS = {
    "net.ipv4.tcp_ecn": 0, "net.ipv4.tcp_no_metrics_save": 1, "net.ipv4.tcp_orphan_retries": 0,
    "net.ipv4.tcp_syncookies": 0, "net.ipv4.tcp_rmem": "4096 131072 6291456", "net.ipv4.tcp_tw_reuse": 2,
    "net.ipv4.tcp_fin_timeout": 60, "net.ipv4.tcp_rfc1337": 0, "net.ipv4.tcp_timestamps": 1,
    "net.ipv4.tcp_window_scaling": 1, "net.ipv4.tcp_sack": 1, "net.ipv4.tcp_syn_retries": 6,
    "net.ipv4.tcp_synack_retries": 5, "net.ipv4.ip_local_port_range": "10000 60999",
}  # fmt: skip


@dataclass(frozen=True)
class Version:
    """An IP version: who the two are, and how their packets look."""

    family: socket.AddressFamily
    local: str
    remote: str
    prefix: int
    header: int  # bytes

    def packet(self, tcp: bytearray) -> bytes:
        """From the peer, with the checksums, around a TCP header and its data."""
        addresses = ip_address(self.remote).packed + ip_address(self.local).packed
        tcp[16:18] = struct.pack("!H", frames.checksum(addresses + struct.pack("!II", len(tcp), 6), bytes(tcp)))
        if self.family == socket.AF_INET6:
            return struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + addresses + bytes(tcp)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + addresses
        return ip[:10] + struct.pack("!H", frames.checksum(ip)) + ip[12:] + bytes(tcp)

    def ports(self, packet: bytes) -> tuple[int, int] | None:
        """(the endpoint's, the peer's) of a packet from the endpoint; None for what is no TCP, as neighbour discovery."""
        v6 = self.family == socket.AF_INET6
        source = ip_address(self.local).packed
        if packet[0] >> 4 != (6 if v6 else 4) or packet[6 if v6 else 9] != 6 or not packet.startswith(source, 8 if v6 else 12):
            return None
        ours, theirs = struct.unpack_from("!HH", packet, self.header)
        return ours, theirs


IPV4 = Version(socket.AF_INET, "198.18.0.1", "198.18.0.2", 24, 20)
IPV6 = Version(socket.AF_INET6, "fd00:198:18::1", "fd00:198:18::2", 64, 40)
VERSIONS = {"IPv4": IPV4, "IPv6": IPV6}


@dataclass(frozen=True)
class Answer:
    """A segment that an endpoint sent, relative to both initial sequence numbers; PSH left out."""

    flags: str
    seq: int
    ack: int | None
    length: int
    options: str

    def __str__(self) -> str:
        ack = "" if self.ack is None else f" ack {self.ack}"
        return (
            f"{self.flags} {self.seq}{ack}"
            + (f" len {self.length}" if self.length else "")
            + (f" {self.options}" if self.options else "")
        )


def signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


@dataclass
class Said:
    """A segment of the peer, read from a test's words."""

    flags: int
    seq: int
    ack: int = 0
    length: int = 0
    window: int = 60_000
    mss: int | None = None
    wscale: int | None = None
    sack: bool = False
    ts: tuple[int, int] | None = None
    dated: int = 0  # TSval, where the words say one


def read(words: str) -> Said:
    flags, seq, *rest = words.split()
    said = Said(sum(BITS[letter] for letter in flags if letter != "-"), int(seq))
    names = {"ack": "ack", "len": "length", "win": "window", "mss": "mss", "ws": "wscale", "ts": "dated"}
    while rest:
        word = rest.pop(0)
        if word == "sack":
            said.sack = True
        else:
            setattr(said, names[word], int(rest.pop(0)))
    return said


@dataclass
class Side:
    """What both endpoints have in common: the numbers of its connection, and what it sent."""

    isn: int | None = None
    tsval: int = 0
    sent: list[Answer] = field(default_factory=list)

    def heard(self, theirs: int, flags: int, seq: int, ack: int, length: int, options: str, tsval: int | None) -> None:
        if flags & BITS["S"]:
            self.isn = seq
        if tsval is not None:
            self.tsval = tsval
        letters = "".join(letter for letter in "SFRAU" if flags & BITS[letter])
        base = self.isn or 0
        self.sent.append(
            Answer(letters, signed(seq - base), signed(ack - theirs) if flags & BITS["A"] else None, length, options)
        )


def options_of(raw: bytes) -> tuple[str, int | None]:
    """The options in a TCP header by name, sorted, the MSS with its number; and TSval."""
    found, at, tsval = [], 0, None
    names = {2: "mss", 3: "ws", 4: "sack", 5: "blocks", 8: "ts"}
    while at < len(raw) and raw[at]:
        if raw[at] == 1:
            at += 1
            continue
        found.append(names.get(raw[at], str(raw[at])))
        if raw[at] == 2:
            found[-1] += f" {int.from_bytes(raw[at + 2 : at + 4], 'big')}"
        elif raw[at] == 8:
            (tsval,) = struct.unpack_from("!I", raw, at + 2)
        at += raw[at + 1]
    return " ".join(sorted(found)), tsval


class Host:
    """The kernel's namespace and the TUN device behind which the peer stands; made once for many twins."""

    def __init__(self, version: Version = IPV4) -> None:
        self.version = version
        self.namespace = Namespace()
        self.next_port = 10_000

    def __enter__(self) -> Host:
        self.namespace.__enter__()
        self.namespace.sysctl("net.ipv6.conf.all.disable_ipv6", int(self.version.family != socket.AF_INET6))
        for name, value in SYSCTLS.items():
            with contextlib.suppress(FileNotFoundError):
                self.namespace.sysctl(name, value)
        self.tun = self.namespace.tun("oracle")
        self.namespace.link_up("oracle", mtu=1500)
        self.namespace.add_address("oracle", f"{self.version.local}/{self.version.prefix}")
        end = time.monotonic() + 5
        while not self._answers():
            if time.monotonic() > end:
                raise RuntimeError(f"the kernel does not answer for {self.version.local}")
            time.sleep(0.005)
        return self

    def _answers(self) -> bool:
        """Whether a segment for nobody gets its RST. An IPv6 address is at work some time after it was added only."""
        ack = struct.pack("!HHIIBBHHH", PROBE, PROBE, 0, 1, 5 << 4, BITS["A"], 0, 0, 0)
        os.write(self.tun, self.version.packet(bytearray(ack)))
        with contextlib.suppress(BlockingIOError):
            while self.version.ports(os.read(self.tun, 65536)) != (PROBE, PROBE):
                pass
            return True
        return False

    def __exit__(self, *exception: object) -> None:
        os.close(self.tun)
        self.namespace.__exit__(*exception)


class Kernel(Side):
    def __init__(self, host: Host, lport: int, rport: int, isn: int) -> None:
        super().__init__()
        self.host, self.version, self.lport, self.rport, self.theirs = host, host.version, lport, rport, isn
        self.socket: socket.socket | None = None
        self.earlier: list[socket.socket] = []  # of the same 4-tuple
        self.listener: socket.socket | None = None

    def _made(self) -> socket.socket:
        self._another()
        made = self.host.namespace.socket(self.version.family)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((self.version.local, self.lport))
        return made

    def _quick(self) -> None:
        if self.socket is not None:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self) -> None:
        self.socket = self._made()
        with contextlib.suppress(BlockingIOError):
            self.socket.connect((self.version.remote, self.rport))

    def _another(self) -> None:
        if self.socket is not None:
            self.earlier.append(self.socket)

    def open_unbound(self) -> None:
        """The kernel chooses the port, out of one. Then tcp_tw_reuse counts; a port that was bound is used anyway."""
        self._another()
        made = self.host.namespace.socket(self.version.family)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        made.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, self.lport << 16 | self.lport)
        made.bind((self.version.local, 0))
        self.socket = made
        with contextlib.suppress(BlockingIOError):
            made.connect((self.version.remote, self.rport))

    def listen(self) -> None:
        if self.listener is not None:
            raise OSError(errno.EADDRINUSE, "listens already")
        self.listener = self._made()
        self.listener.listen(8)

    def accept(self) -> None:
        assert self.listener is not None
        self._another()
        self.socket, _ = self.listener.accept()
        self.socket.setblocking(False)

    def send(self, n: int) -> None:
        assert self.socket is not None
        self.socket.send(b"d" * n)

    def read(self) -> None:
        assert self.socket is not None
        with contextlib.suppress(BlockingIOError):
            self.socket.recv(1 << 20)

    def shutdown(self) -> None:
        assert self.socket is not None
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        elif self.listener is not None:
            self.listener.close()

    def abort(self) -> None:
        assert self.socket is not None
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def get(self, said: Said) -> None:
        self._quick_later()
        options = b""
        if said.mss is not None:
            options += struct.pack("!BBH", 2, 4, said.mss)
        if said.sack:
            options += b"\x01\x01\x04\x02"
        if said.ts is not None:
            options += b"\x01\x01\x08\x0a" + struct.pack("!II", *said.ts)
        if said.wscale is not None:
            options += struct.pack("!BBBB", 1, 3, 3, said.wscale)
        header = struct.pack(
            "!HHIIBBHHH", self.rport, self.lport, (said.seq + self.theirs) & 0xFFFFFFFF,
            ((said.ack + (self.isn or 0)) & 0xFFFFFFFF) if said.flags & 16 else 0, (20 + len(options)) // 4 << 4,
            said.flags, said.window, 0, 0,
        )  # fmt: skip
        tcp = bytearray(header + options + b"d" * said.length)
        os.write(self.host.tun, self.version.packet(tcp))

    def _quick_later(self) -> None:
        with contextlib.suppress(OSError):
            self._quick()

    def collect(self, wait: float = 0.0) -> None:
        """What the kernel has sent since."""
        end = time.monotonic() + wait
        wanted = len(self.sent) + 1
        while True:
            try:
                packet = os.read(self.host.tun, 65536)
            except BlockingIOError:
                if time.monotonic() >= end or len(self.sent) >= wanted:
                    return
                time.sleep(0.002)
                continue
            if self.version.ports(packet) == (self.lport, self.rport):
                self.read_packet(packet)

    def read_packet(self, packet: bytes, length: int | None = None) -> None:
        """A packet of this connection, of which `length` bytes were on the wire."""
        tcp = packet[self.version.header :]
        seq, ack, offset, flags = struct.unpack_from("!IIBB", tcp, 4)
        header = (offset >> 4) * 4
        options, tsval = options_of(tcp[20:header])
        self.heard(self.theirs, flags, seq, ack, (length or len(packet)) - self.version.header - header, options, tsval)

    @property
    def state(self) -> str:
        found = diag.find(self.host.namespace, (self.version.local, self.lport), (self.version.remote, self.rport))
        if found is None or found.state == "LISTEN":
            return "CLOSED"
        return found.state

    def gone(self) -> None:
        for each in (self.socket, self.listener, *self.earlier):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()


class Ours(Side):
    def __init__(
        self, version: Version, lport: int, rport: int, isn: int, *, tick_ns: int = 10_000_000, **changes: object
    ) -> None:
        super().__init__()
        self.version, self.lport, self.rport, self.theirs = version, lport, rport, isn
        profile = find_profile("linux").replace(**{"tcp_syncookies": 0, **changes})
        self.table = ConnectionTable(
            16, profile=profile, accept_all=False, read_all=False, seed=lport, tick_ns=tick_ns, keep_ended=True
        )
        self.handle: int | None = None
        self.listener: int | None = None

    def now(self) -> int:
        return time.monotonic_ns()

    def _one(self) -> int:
        assert self.handle is not None
        return self.handle

    def open(self) -> None:
        self.handle = self.table.open(self.version.local, self.lport, self.version.remote, self.rport, self.now())

    def open_unbound(self) -> None:
        self.handle = self.table.open(self.version.local, 0, self.version.remote, self.rport, self.now())

    def listen(self) -> None:
        self.listener = self.table.listen(self.version.local, self.lport, self.now(), backlog=8)

    def accept(self) -> None:
        assert self.listener is not None
        handle = self.table.accept(self.listener)
        if handle is None:
            raise BlockingIOError(errno.EAGAIN, "nobody waits")
        self.handle = handle

    def send(self, n: int) -> None:
        self.table.send(self._one(), n, self.now())

    def read(self) -> None:
        if self.unread:
            self.table.read(self._one(), self.unread, self.now())
            self.unread = 0

    unread = 0  # bytes delivered and not read

    def shutdown(self) -> None:
        self.table.close(self._one(), self.now(), half=True)

    def close(self) -> None:
        self.table.close(self._one() if self.handle is not None else self.listener, self.now())

    def abort(self) -> None:
        self.table.abort(self._one(), self.now())

    def get(self, said: Said) -> None:
        _, outcome = self.table.receive(
            Segment(
                time_ns=self.now(), src=self.version.remote, sport=self.rport, dst=self.version.local, dport=self.lport,
                flags=said.flags, seq=(said.seq + self.theirs) & 0xFFFFFFFF,
                ack=(said.ack + (self.isn or 0)) & 0xFFFFFFFF if said.flags & 16 else 0, window=said.window,
                payload=said.length, mss=said.mss, wscale=said.wscale, sack_permitted=said.sack,
                tsval=said.ts[0] if said.ts else None, tsecr=said.ts[1] if said.ts else None,
                ip_bytes=self.version.header + 20 + said.length, info=0,
            )
        )  # fmt: skip
        self.unread += outcome.delivered

    def collect(self, wait: float = 0.0) -> None:
        self.table.advance(self.now())
        for each in self.table.take_output():
            self.take(each)

    def take(self, each: Segment) -> None:
        """A segment that the table sent on this connection."""
        names = [(f"mss {each.mss}", each.mss), ("ws", each.wscale), ("ts", each.tsval)]
        options = sorted([name for name, value in names if value is not None] + (["sack"] if each.sack_permitted else []))
        self.heard(self.theirs, each.flags, each.seq, each.ack, each.payload, " ".join(options), each.tsval)

    @property
    def state(self) -> str:
        handle = self.table.find(self.version.local, self.lport, self.version.remote, self.rport)
        return "CLOSED" if handle is None else self.table.state(handle).name

    def gone(self) -> None:
        self.table.check_invariants()


class Twin:
    """One kernel socket and one row, in step."""

    def __init__(
        self, host: Host, *, passive: bool = False, isn: int = 0x7FFFFFC0, timestamps: bool = False, **changes: object
    ) -> None:
        host.next_port += 1
        lport, rport = (LISTENING, host.next_port) if passive else (host.next_port, 443)
        self.timestamps, self.clock = timestamps, 5_000
        changes = {"ip_local_port_range": (lport, lport), **changes}
        self.sides = (Kernel(host, lport, rport, isn), Ours(host.version, lport, rport, isn, **changes))
        self.forgiven = re.compile(r"$^")  # what is taken out of an answer before it is compared
        self.differences: list[str] = []
        self.log: list[str] = []

    def __enter__(self) -> Twin:
        return self

    def __exit__(self, *exception: object) -> None:
        for side in self.sides:
            side.gone()
        self.sides[0].collect()

    def __getattr__(self, call: str):
        def both(*arguments: object) -> None:
            refused = []
            for side in self.sides:
                try:
                    getattr(side, call)(*arguments)
                    refused.append(False)
                except (OSError, FastTCPError):
                    refused.append(True)
            self.compare(f"{call}{arguments or '()'}", refused)

        return both

    def get(self, words: str) -> None:
        """The peer sends this to both."""
        said = read(words)
        self.clock += 10
        for side in self.sides:
            if said.dated or (self.timestamps and not said.flags & BITS["R"]):
                said.ts = (said.dated or self.clock, side.tsval if said.flags & 16 else 0)
            side.get(said)
        self.compare(f"< {words}")

    def compare(self, step: str, refused: list[bool] | None = None, wait: float = 0.0) -> None:
        for side in self.sides:
            side.collect(wait)
        if len(self.sides[0].sent) < len(self.sides[1].sent):
            self.sides[0].collect(DELAYED_ACK)  # Linux may take its time to acknowledge (RFC 1122 section 4.2.3.2)
        kernel, ours = (
            [told for told in (self.forgiven.sub("", str(one)) for one in side.sent) if told] for side in self.sides
        )
        for side in self.sides:
            side.sent.clear()
        states = [side.state for side in self.sides]
        self.log.append(f"{step}: {states[0]} {kernel}")
        if kernel != ours or states[0] != states[1] or (refused and refused[0] != refused[1]):
            self.differences.append(
                f"after {step}: Linux is {states[0]} and sent {kernel}{' (refused)' if refused and refused[0] else ''}; "
                f"we are {states[1]} and sent {ours}{' (refused)' if refused and refused[1] else ''}"
            )
        self.last = kernel

    def wait(self, seconds: float) -> None:
        """Time passes for both."""
        time.sleep(seconds)
        self.compare(f"{seconds} s", wait=0.0)

    # ---- ways into a state

    def established(self, passive: bool = False) -> None:
        options = "mss 1460 ws 7"
        if passive:
            self.listen()
            self.get(f"S 0 {options}")
            self.get("A 1 ack 1")
            self.accept()
        else:
            self.open()
            self.get(f"SA 0 ack 1 {options}")

    def in_state(self, state: str, passive: bool = False) -> None:
        """Take both to a state by the shortest way. SYN_RCVD: passive, or by simultaneous open."""
        if state == "CLOSED":
            return
        if state == "LISTEN":
            self.listen()
        elif state == "SYN_SENT":
            self.open()
        elif state == "SYN_RCVD":
            if passive:
                self.listen()
            else:
                self.open()
            self.get("S 0 mss 1460 ws 7")
        else:
            self.established(passive)
            if state in ("FIN_WAIT_1", "FIN_WAIT_2", "CLOSING", "TIME_WAIT"):
                self.shutdown()
            if state in ("FIN_WAIT_2", "TIME_WAIT"):
                self.get("A 1 ack 2")
            if state == "TIME_WAIT":
                self.get("FA 1 ack 2")
            if state in ("CLOSING", "CLOSE_WAIT", "LAST_ACK"):
                self.get("FA 1 ack 1")
            if state == "LAST_ACK":
                self.shutdown()


# Where a synchronized connection stands after in_state: (RCV.NXT of the endpoint, its SND.NXT), relative.
PLACE = {
    "SYN_RCVD": (1, 1), "ESTABLISHED": (1, 1), "FIN_WAIT_1": (1, 2), "FIN_WAIT_2": (1, 2), "CLOSING": (2, 2),
    "TIME_WAIT": (2, 2), "CLOSE_WAIT": (2, 1), "LAST_ACK": (2, 2),
}  # fmt: skip
