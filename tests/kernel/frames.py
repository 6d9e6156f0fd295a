"""Reads and builds Ethernet frames that carry TCP: small, independent of fasttcp, never fast.

Must not know files, sockets or states.
"""

import struct
from ipaddress import ip_address
from typing import NamedTuple

ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q = 0x0800, 0x86DD, 0x8100
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
LETTERS = "FSRPAUEC"


class Tcp(NamedTuple):
    """One TCP segment of a frame, whether its payload was captured or not."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    seq: int
    ack: int
    flags: int
    window: int  # as on the wire, not scaled
    length: int  # payload bytes by the IP header, not by what was captured
    vlan: int | None
    checksum_ok: bool | None  # None: the capture cut the segment, nobody can tell

    @property
    def names(self) -> str:
        """The flags that move a connection, e.g. "SA": PSH, URG and the ECN bits are left out."""
        return "".join(letter for bit, letter in enumerate(LETTERS) if self.flags >> bit & 1 and letter in "FSRA")


def checksum(*parts: bytes) -> int:
    """The Internet checksum (RFC 1071) over the parts as one run of bytes; 0 over data that holds a right checksum."""
    data = b"".join(parts)
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def tcp_offset(frame: bytes) -> tuple[int, int, int, bytes, int | None] | None:
    """Where TCP starts in `frame`: (offset, length of the segment, IP offset, pseudo header, VLAN); None if no TCP."""
    at, vlan = 14, None
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    if ethertype == ETH_P_8021Q:
        tag, ethertype = struct.unpack_from("!HH", frame, 14)
        at, vlan = 18, tag & 0xFFF
    if ethertype == ETH_P_IP and frame[at + 9] == 6:
        header = (frame[at] & 15) * 4
        (total,) = struct.unpack_from("!H", frame, at + 2)
        addresses, length, offset = frame[at + 12 : at + 20], total - header, at + header
    elif ethertype == ETH_P_IPV6 and frame[at + 6] == 6:
        (length,) = struct.unpack_from("!H", frame, at + 4)
        addresses, offset = frame[at + 8 : at + 40], at + 40
    else:
        return None
    return offset, length, at, addresses + struct.pack("!II", length, 6), vlan


def parse(frame: bytes) -> Tcp | None:
    """The TCP segment in an Ethernet frame, or None: ARP, neighbour discovery, ICMP."""
    found = tcp_offset(frame)
    if found is None:
        return None
    offset, length, _, pseudo, vlan = found
    sport, dport, seq, ack, data_offset, flags, window = struct.unpack_from("!HHIIBBH", frame, offset)
    segment = frame[offset : offset + length]
    half = (len(pseudo) - 8) // 2
    return Tcp(
        str(ip_address(pseudo[:half])), sport, str(ip_address(pseudo[half : 2 * half])), dport, seq, ack, flags, window,
        length - (data_offset >> 4) * 4, vlan, checksum(pseudo, segment) == 0 if len(segment) == length else None,
    )  # fmt: skip


def with_checksum(frame: bytes) -> bytes:
    """The frame with its TCP checksum computed anew. The frame must be whole."""
    found = tcp_offset(frame)
    if found is None:
        raise ValueError("the frame carries no TCP")
    offset, length, _, pseudo, _ = found
    segment = bytearray(frame[offset : offset + length])
    segment[16:18] = b"\0\0"
    segment[16:18] = struct.pack("!H", checksum(pseudo, bytes(segment)))
    return frame[:offset] + bytes(segment) + frame[offset + length :]


def forged(frame: bytes, *, flags: int, seq: int) -> bytes:
    """`frame` with other flags and another sequence number: what an attacker who knows the 4-tuple would send."""
    found = tcp_offset(frame)
    if found is None:
        raise ValueError("the frame carries no TCP")
    offset = found[0]
    changed = bytearray(frame)
    changed[offset + 4 : offset + 8] = struct.pack("!I", seq & 0xFFFFFFFF)
    changed[offset + 13] = flags
    return with_checksum(bytes(changed))


def tagged(frame: bytes, vlan: int) -> bytes:
    """The frame with an 802.1Q tag, as a switch sends it on a trunk."""
    return frame[:12] + struct.pack("!HH", ETH_P_8021Q, vlan) + frame[12:]
