"""A seeded capture for benchmarks: whole TCP connections of every common fate, in time order, with correct checksums.

    python -m benchmarks.track.capture big.pcap                                 3,000,000 packets, 300,000 connections
    python -m benchmarks.track.capture small.pcap --packets 300k --connections 30k --seed 7

Everything is drawn for all connections at once with NumPy and laid out as frames of Ethernet, IPv4 or IPv6, and TCP with its
usual options. One seed makes one file, byte for byte (with one NumPy). The numbers of packets and of connections are exact.

    fate         share     packets
    closed       74 %      handshake, data both ways, FIN, [ACK,] FIN, ACK
    reset         8 %      handshake, data, RST from either side
    refused       6 %      SYN, RST+ACK
    unanswered    4 %      one to three SYNs, 1 and 2 s apart
    mid-stream    4 %      no handshake: data, then closed
    open          4 %      handshake and data; the capture ends before they do

Data segments are requests and answers of some sizes; 30 % of them are bare ACKs, 1.5 % are sent twice. The number of data
segments and the lifetime of a connection are log-normal: most last for less than a second, some for minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

__all__ = ["FATES", "Shape", "number", "write_capture"]

FATES = {"closed": 0.74, "reset": 0.08, "refused": 0.06, "unanswered": 0.04, "midstream": 0.04, "open": 0.04}
CLOSED, RESET, REFUSED, UNANSWERED, MIDSTREAM, OPEN = range(len(FATES))
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

SIZES = np.array([0, 1, 17, 48, 96, 180, 320, 560, 1448], np.uint16)  # bytes of payload ...
SHARES = np.array([30, 10, 20, 15, 10, 8, 4, 2, 1]) / 100  # ... of a data segment; 56 on average
TWICE = 0.015
SYN_OPTIONS = bytes.fromhex("020405b4 0402 080a 00000000 00000000 01 030307".replace(" ", ""))
OPTIONS = bytes.fromhex("0101080a 00000000 00000000".replace(" ", ""))
EPOCH = 1_700_000_000  # seconds; the capture begins there
CHUNK = 1 << 18  # packets that are laid out together

Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """What a capture is made of.

    lifetime: seconds, the median of a connection's. seconds: over which connections begin; the capture is somewhat longer.
    ipv6: share of the connections.
    """

    packets: int = 3_000_000
    connections: int = 300_000
    seed: int = 1
    seconds: float = 300.0
    lifetime: float = 0.4
    ipv6: float = 0.1


def _counts(shape: Shape, fate: NDArray[np.int8], random: np.random.Generator) -> tuple[Longs, Longs, Longs]:
    """Packets of each connection's beginning, middle (data) and end."""
    n = len(fate)
    opening = np.select([fate == MIDSTREAM, fate == REFUSED, fate == UNANSWERED], [0, 1, random.integers(1, 4, n)], 3)
    closing = np.select(
        [fate == OPEN, fate == UNANSWERED, (fate == REFUSED) | (fate == RESET)], [0, 0, 1], random.integers(3, 5, n)
    )
    talks = (fate != REFUSED) & (fate != UNANSWERED)
    left = shape.packets - int((opening + closing + talks).sum())
    if left < 0:
        raise ValueError(f"{shape.packets} packets are too few for {shape.connections} connections")
    weights = np.where(talks, random.lognormal(0, 1.3, n), 0)
    return opening, talks + random.multinomial(left, weights / weights.sum()), closing


def _running(values: Longs, first: Longs, counts: Longs) -> Longs:
    """The sum of what came before in the same connection."""
    before = np.cumsum(values) - values
    return before - np.repeat(before[first], counts)


class _Packets:
    """All packets of all connections, one connection after the other; `order` is that of time."""

    def __init__(self, shape: Shape) -> None:
        random = np.random.default_rng(shape.seed)
        n = shape.connections
        fate = random.choice(len(FATES), n, p=list(FATES.values())).astype(np.int8)
        opening, data, closing = _counts(shape, fate, random)
        counts = opening + data + closing
        first = np.cumsum(counts) - counts
        total = int(counts.sum())
        self.connection = np.repeat(np.arange(n), counts)
        place = np.arange(total) - np.repeat(first, counts)
        self.sender = np.zeros(total, np.int8)  # 0: the originator
        self.flags = np.full(total, ACK, np.uint8)
        self.payload = np.zeros(total, np.int64)
        fates = np.repeat(fate, counts)
        self._open(place, fates, np.repeat(opening, counts))
        past = place - np.repeat(opening, counts)
        again = self._talk(random, past, np.repeat(data, counts))
        self._close(random, past - np.repeat(data, counts), fates, counts, closing)
        advance = np.where(again, 0, self.payload)
        advance[(self.flags & FIN) != 0] += 1
        advance[(self.flags & SYN != 0) & (fates != UNANSWERED)] += 1
        isn = random.integers(0, 1 << 32, (2, n))
        sent = [_running(np.where(self.sender == side, advance, 0), first, counts) for side in (0, 1)]
        seq = np.where(self.sender == 0, sent[0], sent[1]) - np.where(again, self.payload, 0)
        ack = np.where(self.sender == 0, sent[1], sent[0])
        self.seq = (seq + isn[self.sender, self.connection]).astype(np.uint32)
        self.ack = (ack + isn[1 - self.sender, self.connection]).astype(np.uint32)
        self.ack[(self.flags & ACK) == 0] = 0
        handshake = place < np.minimum(np.repeat(opening, counts), 3)
        quick = handshake | (past > np.repeat(data, counts)) | (fates == REFUSED)  # and what follows the first FIN
        self.time_us = self._times(shape, random, place, fates, counts, first, quick)
        self.order = np.argsort(self.time_us, kind="stable")
        self.ipv6 = random.random(n) < shape.ipv6
        self._addresses(random, n)

    def _open(self, place: Longs, fates: NDArray[np.int8], opening: Longs) -> None:
        syn = (place == 0) & (opening > 0) | (fates == UNANSWERED)
        self.flags[syn] = SYN
        answer = (place == 1) & (opening == 3) & (fates != UNANSWERED)
        self.flags[answer] = SYN | ACK
        self.sender[answer] = 1

    def _talk(self, random: np.random.Generator, past: Longs, data: Longs) -> NDArray[np.bool_]:
        """Data both ways; returns which segments repeat the one before them."""
        mine = (past >= 0) & (past < data)
        n = int(mine.sum())
        where = np.flatnonzero(mine)
        self.sender[where] = np.where(past[where] == 0, 0, random.random(n) < 0.5)
        self.payload[where] = random.choice(SIZES, n, p=SHARES)
        lone = where[(past[where] == 0) & (self.payload[where] == 0)]
        self.payload[lone] = 96  # a connection begins with a request
        again = np.zeros(len(past), bool)
        again[where] = (past[where] > 0) & (random.random(n) < TWICE)
        again[1:] &= ~again[:-1] & (self.payload[:-1] > 0)
        twice = np.flatnonzero(again)
        self.sender[twice] = self.sender[twice - 1]
        self.payload[twice] = self.payload[twice - 1]
        self.flags[(self.payload > 0)] |= PSH
        return again

    def _close(
        self, random: np.random.Generator, past: Longs, fates: NDArray[np.int8], counts: Longs, closing: Longs
    ) -> None:
        """FIN, FIN+ACK, ACK or FIN, ACK, FIN, ACK, from either side first; or one RST."""
        leads = np.repeat(random.integers(0, 2, len(counts)).astype(np.int8), counts)
        four = np.repeat(closing, counts) == 4
        ends = (past >= 0) & ((fates == CLOSED) | (fates == MIDSTREAM))
        answers = (past == 1) | ((past == 2) & four)
        self.sender[ends] = np.where(answers, 1 - leads, leads)[ends]
        self.flags[ends & ((past == 0) | (past == np.where(four, 2, 1)))] = FIN | ACK
        resets = (past >= 0) & (fates == RESET)
        self.sender[resets] = leads[resets]
        refuses = (past >= 0) & (fates == REFUSED)
        self.sender[refuses] = 1
        self.flags[resets | refuses] = RST | ACK

    def _times(
        self, shape: Shape, random: np.random.Generator, place: Longs, fates: NDArray[np.int8], counts: Longs,
        first: Longs, quick: NDArray[np.bool_],
    ) -> Longs:  # fmt: skip
        n = len(counts)
        start = random.random(n) * shape.seconds * 1e6
        lifetime = np.minimum(random.lognormal(np.log(shape.lifetime), 1.8, n), 0.6 * shape.seconds) * 1e6
        gaps = random.exponential(1.0, len(place)) * np.repeat(lifetime / counts, counts)
        rtt = np.repeat(random.lognormal(np.log(0.02), 0.8, n) * 1e6, counts)
        gaps[quick] = rtt[quick] / 2
        gaps[fates == UNANSWERED] = (1e6 * place)[fates == UNANSWERED]  # 1 s, then 2 s
        gaps[place == 0] = 0
        gaps = np.maximum(gaps.astype(np.int64), (place > 0).astype(np.int64))
        return _running(gaps, first, counts) + gaps + np.repeat(start.astype(np.int64), counts)

    def _addresses(self, random: np.random.Generator, n: int) -> None:
        """Every connection has a 4-tuple of its own: a client takes one port after the other."""
        clients = max(1, n // 8192 + 1) * 4
        client = random.permutation(np.arange(n) % clients)
        turn = np.empty(n, np.int64)
        by_client = np.argsort(client, kind="stable")
        starts = np.searchsorted(client[by_client], np.arange(clients))
        turn[by_client] = np.arange(n) - starts[client[by_client]]
        self.client = client.astype(np.uint32)
        self.server = random.integers(0, 64, n).astype(np.uint32)
        self.port = (32768 + turn % 28232).astype(np.uint16)
        self.service = random.choice(np.array([80, 443, 5432, 8080], np.uint16), n, p=[0.2, 0.6, 0.1, 0.1])


def _sum16(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """For each row the sum of its 16-bit words (RFC 1071); an odd last byte is padded with zero."""
    even = rows.shape[1] // 2 * 2
    total = np.ascontiguousarray(rows[:, :even]).view(">u2").sum(axis=1, dtype=np.uint64)
    if even != rows.shape[1]:
        total += rows[:, even].astype(np.uint64) << np.uint64(8)
    return total


def _folded(total: NDArray[np.uint64]) -> NDArray[np.uint16]:
    for _ in range(3):
        total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    return (~total.astype(np.uint16)).astype(np.uint16)


def _put(rows: NDArray[np.uint8], at: int, values: NDArray[np.generic], form: str) -> None:
    packed = np.ascontiguousarray(values.astype(form))
    rows[:, at : at + packed.itemsize] = packed.view(np.uint8).reshape(len(rows), packed.itemsize)


def _frames(
    packets: _Packets, which: Longs, length: int, header: int, six: bool, pool: NDArray[np.uint8], ident: Longs
) -> NDArray[np.uint8]:
    """Records of one shape: pcap header, Ethernet, IP, TCP, `length` bytes of payload."""
    n = len(which)
    ip = 30
    tcp = ip + (40 if six else 20)
    rows = np.zeros((n, tcp + header + length), np.uint8)
    times, connection = packets.time_us[which], packets.connection[which]
    client, server = packets.client[connection], packets.server[connection]
    outward = packets.sender[which] == 0
    _put(rows, 0, times // 1_000_000 + EPOCH, "<u4")
    _put(rows, 4, times % 1_000_000, "<u4")
    _put(rows, 8, np.full(n, rows.shape[1] - 16), "<u4")
    rows[:, 12:16] = rows[:, 8:12]
    rows[:, 16:22] = (2, 0, 0, 0, 0, 1)
    rows[:, 22:28] = (2, 0, 0, 0, 0, 2)
    sides = ((client, outward), (server, ~outward))
    if six:
        rows[:, 28:30] = (0x86, 0xDD)
        rows[:, ip] = 0x60
        _put(rows, ip + 4, np.full(n, header + length), ">u2")
        rows[:, ip + 6 : ip + 8] = (6, 64)
        for (host, source), net in zip(sides, (0x0C, 0x05), strict=True):
            for at, mine in ((ip + 8, source), (ip + 24, ~source)):
                rows[mine, at : at + 4] = (0x20, 0x01, 0x0D, 0xB8)
                rows[mine, at + 5] = net
                rows[mine, at + 12 : at + 16] = host[mine].astype(">u4").view(np.uint8).reshape(-1, 4)
        pseudo = _sum16(rows[:, ip + 8 : ip + 40])
    else:
        rows[:, 28:30] = (0x08, 0x00)
        rows[:, ip] = 0x45
        _put(rows, ip + 2, np.full(n, 20 + header + length), ">u2")
        _put(rows, ip + 4, ident & 0xFFFF, ">u2")
        rows[:, ip + 6] = 0x40  # DF
        rows[:, ip + 8 : ip + 10] = (64, 6)
        for (host, source), net in zip(sides, (0x0A000000, 0xC6336400), strict=True):
            for at, mine in ((ip + 12, source), (ip + 16, ~source)):
                rows[mine, at : at + 4] = (host[mine] + np.uint32(net)).astype(">u4").view(np.uint8).reshape(-1, 4)
        _put(rows, ip + 10, _folded(_sum16(rows[:, ip : ip + 20])), ">u2")
        pseudo = _sum16(rows[:, ip + 12 : ip + 20])
    port, service = packets.port[connection], packets.service[connection]
    _put(rows, tcp, np.where(outward, port, service), ">u2")
    _put(rows, tcp + 2, np.where(outward, service, port), ">u2")
    _put(rows, tcp + 4, packets.seq[which], ">u4")
    _put(rows, tcp + 8, packets.ack[which], ">u4")
    rows[:, tcp + 12] = header // 4 << 4
    rows[:, tcp + 13] = packets.flags[which]
    rows[:, tcp + 14 : tcp + 16] = (0xFA, 0xF0)
    options = np.frombuffer(SYN_OPTIONS if header == 40 else OPTIONS, np.uint8)
    rows[:, tcp + 20 : tcp + header] = options
    stamp = tcp + (28 if header == 40 else 24)
    _put(rows, stamp, times // 1000, ">u4")
    _put(rows, stamp + 4, times // 1000 - 7, ">u4")
    if length:
        rows[:, tcp + header :] = as_strided(pool, (len(pool) - length, length), (1, 1))[ident % 1021]
    total = pseudo + np.uint64(6 + header + length) + _sum16(rows[:, tcp:])
    _put(rows, tcp + 16, _folded(total), ">u2")
    return rows


def write_capture(path: Path | str, shape: Shape) -> dict[str, object]:
    """Writes the file and says what is in it. Raises ValueError when the packets are too few for the connections."""
    packets = _Packets(shape)
    pool = np.random.default_rng(shape.seed + 1).integers(97, 123, 4096, np.uint8)  # letters: no protocol that tools know
    total = len(packets.order)
    header = np.where(packets.flags & SYN, 40, 32)
    six = packets.ipv6[packets.connection]
    size = 24
    with open(path, "wb") as file:
        file.write(b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + bytes(8) + (65535).to_bytes(4, "little") + (1).to_bytes(4, "little"))
        for begin in range(0, total, CHUNK):
            order = packets.order[begin : begin + CHUNK]
            lengths = 30 + np.where(six[order], 40, 20) + header[order] + packets.payload[order]
            offsets = np.cumsum(lengths) - lengths
            out = np.zeros(int(lengths.sum()), np.uint8)
            kinds = packets.payload[order] * 128 + header[order] * 2 + six[order]
            for kind in np.unique(kinds):
                mine = np.flatnonzero(kinds == kind)
                rows = _frames(
                    packets, order[mine], int(kind) // 128, int(kind) % 128 // 2, bool(kind & 1), pool, begin + mine
                )
                as_strided(out, (len(out) - rows.shape[1] + 1, rows.shape[1]), (1, 1))[offsets[mine]] = rows
            file.write(out)
            size += len(out)
    return {"packets": total, "connections": shape.connections, "bytes": size, "seed": shape.seed}


def number(text: str) -> int:
    """3M, 300k, 250000."""
    scale = {"k": 1000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    return round(float(text[:-1] if scale > 1 else text) * scale)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.track.capture", description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--packets", type=number, default=Shape.packets)
    parser.add_argument("--connections", type=number, default=Shape.connections)
    parser.add_argument("--seed", type=int, default=Shape.seed)
    parser.add_argument("--seconds", type=float, default=Shape.seconds, help="over which connections begin")
    parser.add_argument("--lifetime", type=float, default=Shape.lifetime, help="median of a connection's, seconds")
    parser.add_argument("--ipv6", type=float, default=Shape.ipv6, help="share of the connections, 0 to 1")
    options = vars(parser.parse_args(arguments))
    began = time.perf_counter()
    made = write_capture(options.pop("path"), Shape(**options))
    print(f"{made['packets']:,} packets, {made['connections']:,} connections, {made['bytes']:,} bytes", end="")
    print(f" in {time.perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
