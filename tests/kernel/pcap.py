"""Writes and reads pcap files with nanosecond times, Ethernet only. Independent of fasttcp's reader.

Must not know sockets. Format: libpcap's savefile, magic 0xA1B23C4D.
"""

import struct
from pathlib import Path
from typing import NamedTuple

MAGIC_NS = 0xA1B23C4D
ETHERNET = 1


class Record(NamedTuple):
    """One packet of a file: time in ns since 1970, bytes kept, bytes that were on the wire."""

    time_ns: int
    data: bytes
    wire_length: int


class Writer:
    """Collects packets, cut to `snaplen`, and writes them in one go: an interrupted run leaves no half file."""

    def __init__(self, snaplen: int) -> None:
        self.snaplen = snaplen
        self.records: list[Record] = []

    def add(self, time_ns: int, frame: bytes) -> None:
        self.records.append(Record(time_ns, frame[: self.snaplen], len(frame)))

    def save(self, path: Path) -> None:
        parts = [struct.pack("<IHHiIII", MAGIC_NS, 2, 4, 0, 0, self.snaplen, ETHERNET)]
        for time_ns, data, wire_length in self.records:
            seconds, nanoseconds = divmod(time_ns, 10**9)
            parts += [struct.pack("<IIII", seconds, nanoseconds, len(data), wire_length), data]
        path.write_bytes(b"".join(parts))


def read(path: Path) -> list[Record]:
    """The packets of a file that Writer wrote; ValueError says what is wrong with any other."""
    content = path.read_bytes()
    magic, major, minor, _, _, snaplen, linktype = struct.unpack_from("<IHHiIII", content)
    if (magic, major, minor, linktype) != (MAGIC_NS, 2, 4, ETHERNET):
        raise ValueError(f"{path}: not a little-endian nanosecond Ethernet pcap 2.4")
    records, at = [], 24
    while at < len(content):
        seconds, nanoseconds, kept, wire_length = struct.unpack_from("<IIII", content, at)
        if kept > snaplen or kept > wire_length or at + 16 + kept > len(content) or nanoseconds >= 10**9:
            raise ValueError(f"{path}: impossible record header at byte {at}")
        records.append(Record(seconds * 10**9 + nanoseconds, content[at + 16 : at + 16 + kept], wire_length))
        at += 16 + kept
    return records
