"""Makes packets and captures out of nothing, so that no test here needs a capture from elsewhere.

Written for clearness and apart from fasttcp's decoder: struct and ipaddress only. A layer is a function from what it
carries to bytes; a capture is a list of `Packet`s or of plain frames.
"""

import ipaddress
import struct
from typing import NamedTuple

CLIENT, SERVER = "10.1.2.3", "192.0.2.9"
CLIENT6, SERVER6 = "2001:db8::1:3", "2001:db8:ffff::9"
SYN, ACK, FIN, RST, PSH = 2, 16, 1, 4, 8


class Packet(NamedTuple):
    """A frame on its way into a capture; `wire` is its length before the snapshot length cut it, None if it did not."""

    data: bytes
    time_ns: int = 0
    wire: int | None = None
    interface: int = 0


def internet_sum(data):
    """RFC 1071, as its section 1 describes it."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def address(text):
    return ipaddress.ip_address(text).packed


def pseudo_header(src, dst, protocol, length):
    src, dst = address(src), address(dst)
    if len(src) == 4:
        return src + dst + struct.pack("!BBH", 0, protocol, length)
    return src + dst + struct.pack("!II", length, protocol)


# TCP and UDP


def options(*, mss=None, wscale=None, sack_permitted=False, timestamps=None):
    made = b""
    if mss is not None:
        made += struct.pack("!BBH", 2, 4, mss)
    if sack_permitted:
        made += b"\x04\x02"
    if timestamps is not None:
        made += struct.pack("!BBII", 8, 10, *timestamps)
    if wscale is not None:
        made += struct.pack("!BBB", 3, 3, wscale)
    return made + b"\x01" * (-len(made) % 4)


def tcp(
    payload=b"", *, src=CLIENT, dst=SERVER, sport=40000, dport=443, seq=0xFFFFFF00, ack=0, flags=ACK, window=501,
    opts=b"", offset=None, checksum=None,
):  # fmt: skip
    """A segment with a right checksum, unless `checksum` says otherwise; `offset` is the data offset in words."""
    words = 5 + len(opts) // 4 if offset is None else offset
    head = struct.pack("!HHIIBBH", sport, dport, seq, ack, words << 4, flags, window)
    whole = head + b"\0\0\0\0" + opts + payload
    if checksum is None:
        checksum = internet_sum(pseudo_header(src, dst, 6, len(whole)) + whole)
    return head + struct.pack("!HH", checksum, 0) + opts + payload


def udp(payload, *, src=CLIENT, dst=SERVER, sport=50000, dport, checksum=None):
    head = struct.pack("!HHH", sport, dport, 8 + len(payload))
    if checksum is None:
        summed = internet_sum(pseudo_header(src, dst, 17, 8 + len(payload)) + head + b"\0\0" + payload)
        checksum = summed or 0xFFFF
    return head + struct.pack("!H", checksum) + payload


# IP


def ip4(
    payload, *, src=CLIENT, dst=SERVER, protocol=6, identification=7, fragment=0, opts=b"", total=None, checksum=None
):
    """`fragment` is the field with the flags (0x2000: more fragments) and the offset in units of 8."""
    header = 20 + len(opts)
    total = header + len(payload) if total is None else total
    head = struct.pack("!BBHHHBB", 0x40 | header // 4, 0, total, identification, fragment, 64, protocol)
    tail = address(src) + address(dst) + opts
    if checksum is None:
        checksum = internet_sum(head + b"\0\0" + tail)
    return head + struct.pack("!H", checksum) + tail + payload


def ip6(payload, *, src=CLIENT6, dst=SERVER6, next_header=6, length=None):
    length = len(payload) if length is None else length
    return struct.pack("!IHBB", 6 << 28, length, next_header, 64) + address(src) + address(dst) + payload


def extension(next_header, body=b"\x01\x04\0\0\0\0"):
    """A hop-by-hop, destination or routing header (RFC 8200 section 4); `body` is 8n + 6 bytes."""
    return struct.pack("!BB", next_header, (len(body) + 2) // 8 - 1) + body


def fragment6(next_header, offset, more, identification=9):
    return struct.pack("!BBHI", next_header, 0, offset | more, identification)


def packet4(payload=b"", **fields):
    """An IPv4 datagram with a segment in it."""
    ends = {key: fields.pop(key) for key in ("src", "dst") if key in fields}
    return ip4(tcp(payload, **ends, **fields), **ends)


def packet6(payload=b"", **fields):
    fields = {"src": CLIENT6, "dst": SERVER6, **fields}
    return ip6(tcp(payload, **fields), src=fields["src"], dst=fields["dst"])


def ip_type(payload):
    return 0x0800 if payload[0] >> 4 == 4 else 0x86DD


# Link layers, each around an IP datagram


def ethernet(payload, ethertype=None):
    return b"\x02\0\0\0\0\x09\x02\0\0\0\0\x03" + struct.pack("!H", ethertype or ip_type(payload)) + payload


def tag(payload, ethertype=None, number=5):
    """What stands behind a VLAN's EtherType."""
    return struct.pack("!HH", number, ethertype or ip_type(payload)) + payload


def snap(payload, ethertype=None):
    return b"\xaa\xaa\x03\0\0\0" + struct.pack("!H", ethertype or ip_type(payload)) + payload


def mpls(payload, *labels):
    stack = b"".join(
        struct.pack("!I", label << 12 | (at == len(labels) - 1) << 8 | 64) for at, label in enumerate(labels)
    )
    return stack + payload


def ppp(payload, *, framed=True, compressed=False):
    protocol = 0x21 if payload[0] >> 4 == 4 else 0x57
    return (b"\xff\x03" if framed else b"") + protocol.to_bytes(1 if compressed else 2, "big") + payload


def pppoe(payload):
    inside = ppp(payload, framed=False)
    return struct.pack("!BBHH", 0x11, 0, 77, len(inside)) + inside


def fabricpath(frame):
    return b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x89\x03\0\x40" + frame


def wifi(payload, *, qos=False, four_addresses=False, order=False, protected=False, subtype=0, pad=False):
    """An 802.11 data frame; `payload` begins with LLC, or is the body of an A-MSDU."""
    control = 0x08 | subtype << 4 | (0x80 if qos else 0)
    flags = (3 if four_addresses else 1) | (0x80 if order else 0) | (0x40 if protected else 0)
    header = bytes([control, flags]) + b"\0\0" + b"\x02" * 18 + b"\0\0"
    if four_addresses:
        header += b"\x02" * 6
    if qos:
        header += b"\x80\0" if qos == "amsdu" else b"\0\0"
        if order:
            header += b"\0\0\0\0"
    if pad:
        header += b"\0" * (-len(header) % 4)
    return header + payload


def amsdu(*subframes):
    """Subframes of an A-MSDU: each on a multiple of four from the start of the one before, the last without padding."""
    made = [b"\x02" * 12 + struct.pack("!H", len(each)) + each for each in subframes]
    return b"".join(each + b"\0" * (-len(each) % 4) for each in made[:-1]) + made[-1]


def radiotap(frame, *, tsft=False, flags=None, more_present=0):
    present = tsft | (flags is not None) << 1
    words = [present | (0x80000000 if more_present else 0)]
    words += [0x80000000] * (more_present - 1) + [0] * (more_present > 0)
    body = struct.pack(f"<{len(words)}I", *words)
    if tsft:
        body += b"\0" * (-(4 + len(body)) % 8) + b"\x11" * 8
    if flags is not None:
        body += bytes([flags])
    return struct.pack("<BBH", 0, 0, 4 + len(body)) + body + frame


def sll(payload, ethertype=None):
    return struct.pack("!HHH8sH", 0, 1, 6, b"\x02\0\0\0\0\x03", ethertype or ip_type(payload)) + payload


def sll2(payload, ethertype=None):
    return struct.pack("!HHIHBB8s", ethertype or ip_type(payload), 0, 2, 1, 0, 6, b"\x02\0\0\0\0\x03") + payload


# Captures


def as_packets(packets):
    return [each if isinstance(each, Packet) else Packet(each, at * 1_000_000) for at, each in enumerate(packets)]


def pcap(packets, *, big=False, nano=False, kuznetzov=False, link=1, snaplen=262144):
    order = ">" if big else "<"
    magic = 0xA1B2CD34 if kuznetzov else 0xA1B23C4D if nano else 0xA1B2C3D4
    made = bytearray(struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link))
    for each in as_packets(packets):
        seconds, rest = divmod(each.time_ns, 1_000_000_000)
        wire = len(each.data) if each.wire is None else each.wire
        made += struct.pack(order + "IIII", seconds, rest if nano else rest // 1000, len(each.data), wire)
        if kuznetzov:
            made += struct.pack(order + "IHBB", 2, 0x0800, 0, 0)
        made += each.data
    return bytes(made)


class Pcapng:
    """Blocks of one section after the other; `order` is that of the last section begun."""

    def __init__(self, *, big=False):
        self.made = b""
        self.section(big=big)

    def block(self, kind, body):
        body += b"\0" * (-len(body) % 4)
        length = struct.pack(self.order + "I", 12 + len(body))
        self.made += struct.pack(self.order + "I", kind) + length + body + length
        return self

    def section(self, *, big=False, options=b""):
        self.order = ">" if big else "<"
        return self.block(0x0A0D0D0A, struct.pack(self.order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options)

    def option(self, code, value):
        return struct.pack(self.order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)

    def interface(self, link=1, snaplen=0, *, tsresol=None, tsoffset=None):
        opts = self.option(2, b"eth0")
        if tsresol is not None:
            opts += self.option(9, bytes([tsresol]))
        if tsoffset is not None:
            opts += self.option(14, struct.pack(self.order + "q", tsoffset))
        return self.block(1, struct.pack(self.order + "HHI", link, 0, snaplen) + opts + self.option(0, b""))

    def enhanced(self, data, stamp=0, *, interface=0, wire=None, options=b""):
        head = (interface, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data) if wire is None else wire)
        return self.block(6, struct.pack(self.order + "IIIII", *head) + data + b"\0" * (-len(data) % 4) + options)

    def obsolete(self, data, stamp=0, *, interface=0, wire=None):
        head = (interface, 0, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data) if wire is None else wire)
        return self.block(2, struct.pack(self.order + "HHIIII", *head) + data)

    def simple(self, data, *, wire=None):
        return self.block(3, struct.pack(self.order + "I", len(data) if wire is None else wire) + data)


def pcapng(packets, *, big=False, link=1):
    """One section, one interface, microseconds."""
    made = Pcapng(big=big).interface(link)
    for each in as_packets(packets):
        made.enhanced(each.data, each.time_ns // 1000, wire=each.wire)
    return made.made
