"""A notation for conversations, and the IP packets that they are. No kernel, and nothing of fasttcp.

s = Script()
s.opened()                  # SYN, SYN+ACK, ACK
s.a("A", payload=100)       # sequence numbers follow by themselves
s.b("R", seq=50_000)        # seq and ack are relative to SND.NXT and RCV.NXT
"""

import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple

from kernel.frames import checksum

A, B = ("198.18.0.1", 40000), ("198.18.0.2", 80)
# Both numbers wrap within the first bytes, or half-way round, and lie far from each other.
ISN_A, ISN_B = 0xFFFFFFF0, 0x7FFFFFF8
FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10, "U": 0x20, "E": 0x40, "W": 0x80, "-": 0}
MS = 1_000_000
WORD = 1 << 32


class Segment(NamedTuple):
    """One segment as it was on the wire. `packet` is the whole IP packet with right checksums."""

    side: str  # who sends it, "a" or "b"
    time_ns: int
    flags: int
    seq: int
    ack: int
    window: int
    payload: int
    options: bytes
    packet: bytes

    @property
    def letters(self) -> str:
        return "".join(letter for letter, bit in FLAGS.items() if self.flags & bit) or "-"


class Exchange(NamedTuple):
    name: str
    what: str
    a: tuple[str, int]
    b: tuple[str, int]
    segments: list[Segment]


def tcp_packet(source: tuple[str, int], destination: tuple[str, int], header: bytes, payload: bytes) -> bytes:
    """An IP packet around a TCP header (its ports and checksum are filled in here) and a payload."""
    addresses = ip_address(source[0]).packed + ip_address(destination[0]).packed
    length = len(header) + len(payload)
    tcp = bytearray(struct.pack("!HH", source[1], destination[1]) + header[4:] + payload)
    tcp[16:18] = b"\0\0"
    tcp[16:18] = struct.pack("!H", checksum(addresses + struct.pack("!II", length, 6), bytes(tcp)))
    if len(addresses) == 32:
        return struct.pack("!IHBB", 6 << 28, length, 6, 64) + addresses + bytes(tcp)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, 6, 0) + addresses
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + bytes(tcp)


class Host:
    def __init__(self, end: tuple[str, int], isn: int) -> None:
        self.end = end
        self.next = isn
        self.heard = 0


class Script:
    """Collects segments, one millisecond apart. What was sent counts as received, in the numbers that follow."""

    def __init__(self) -> None:
        self.hosts = {"a": Host(A, ISN_A), "b": Host(B, ISN_B)}
        self.now = 1_700_000_000_000 * MS
        self.segments: list[Segment] = []

    def a(self, flags: str, **fields: int) -> None:
        self.send("a", flags, **fields)

    def b(self, flags: str, **fields: int) -> None:
        self.send("b", flags, **fields)

    def restart(self, side: str, isn: int) -> None:
        """The host has forgotten everything; its next SYN starts at `isn` and it has heard nothing."""
        self.hosts[side].next = isn % WORD
        self.hosts[side].heard = 0

    def send(
        self, side: str, flags: str, *, seq: int = 0, ack: int = 0, payload: int = 0, window: int = 65535,
        at: int | None = None, acks: int | None = None, shift: int = 7,
    ) -> None:  # fmt: skip
        """`seq` and `ack` are relative, `at` and `acks` the numbers themselves. A segment out of turn, with `seq` or
        `at`, leaves the numbers that follow as they were."""
        me, peer = self.hosts[side], self.hosts["b" if side == "a" else "a"]
        bits = sum(FLAGS[letter] for letter in flags)
        number = (me.next + seq if at is None else at) % WORD
        acked = (me.heard + ack if acks is None else acks) % WORD if bits & FLAGS["A"] else 0
        options = bytes([2, 4, 5, 180, 1, 3, 3, shift]) if bits & FLAGS["S"] and shift >= 0 else b""
        size = (20 + len(options)) // 4 << 4
        header = struct.pack("!HHIIBBHHH", 0, 0, number, acked, size, bits, window, 0, 0) + options
        packet = tcp_packet(me.end, peer.end, header, b"x" * payload)
        self.now += MS
        self.segments.append(Segment(side, self.now, bits, number, acked, window, payload, options, packet))
        end = (number + payload + bool(bits & FLAGS["S"]) + bool(bits & FLAGS["F"])) % WORD
        if seq == 0 and at is None:
            me.next = peer.heard = end

    def opened(self) -> None:
        self.a("S")
        self.b("SA")
        self.a("A")

    def talked(self) -> None:
        """A request and a response, each acknowledged."""
        self.opened()
        self.a("PA", payload=100)
        self.b("A")
        self.b("PA", payload=300)
        self.a("A")

    def closed(self) -> None:
        """`a` closes first, in four segments."""
        self.a("FA")
        self.b("A")
        self.b("FA")
        self.a("A")


BY_HAND: list[Callable[[Script], None]] = []


def by_hand(play: Callable[[Script], None]) -> Callable[[Script], None]:
    """Registers a conversation; its name and docstring are those of the exchange."""
    BY_HAND.append(play)
    return play
