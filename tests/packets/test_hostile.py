"""Captures of any quality: cut anywhere, with lengths that lie, and mutated at random. None crashes, hangs or grows."""

import random
import struct
import time

import pytest

from fasttcp.core.segments import SegmentBatch
from fasttcp.errors import CaptureError
from fasttcp.packets.reader import CaptureReader
from fasttcp.packets.verdicts import VERDICTS
from packets import build
from packets.build import (
    Pcapng,
    ethernet,
    fragment6,
    ip4,
    ip6,
    packet4,
    packet6,
    pcap,
    pcapng,
    radiotap,
    snap,
    tag,
    udp,
    wifi,
)

VXLAN = ip4(udp(b"\x08\0\0\0\0\0\7\0" + ethernet(packet4(seq=4)), dport=4789), protocol=17)
FRAMES = [
    ethernet(packet4(b"some data", seq=0)),
    ethernet(tag(packet6(b"more", seq=1, opts=build.options(timestamps=(1, 2))), 0x86DD), 0x8100),
    ethernet(ip4(build.tcp(seq=2)[:16], fragment=0x2000)),
    ethernet(ip4(build.tcp(seq=2)[16:], fragment=2)),
    ethernet(VXLAN),
    ethernet(ip6(fragment6(6, 0, 0) + build.tcp(b"abc", src=build.CLIENT6, dst=build.SERVER6, seq=5), next_header=44)),
]
SEQS = [0, 1, 2, 4, 5]


class Trickle:
    def __init__(self, data, step):
        self.data, self.step = data, step

    def readinto(self, buffer):
        n = min(self.step, len(buffer), len(self.data))
        buffer[:n], self.data = self.data[:n], self.data[n:]
        return n


def read(source):
    reader, batch, got = CaptureReader(source), SegmentBatch(3), []
    while reader.read_batch(batch):
        got += [s.seq for s in batch]
    return got, reader


def borders_of(capture):
    """Where records or blocks begin and end, told without fasttcp."""
    if capture[:4] == b"\x0a\x0d\x0d\x0a":
        at, places = 0, []
        while at < len(capture):
            places.append(at)
            at += struct.unpack_from("<I", capture, at + 4)[0]
    else:
        at, places = 24, []
        while at < len(capture):
            places.append(at)
            at += 16 + struct.unpack_from("<I", capture, at + 8)[0]
    return [*places, len(capture)]


@pytest.mark.parametrize("step", [None, 1, 64])
@pytest.mark.parametrize("capture", [pcap(FRAMES), pcapng(FRAMES)], ids=["pcap", "pcapng"])
def test_truncation_at_every_byte(capture, step):
    borders = borders_of(capture)
    whole, _ = read(capture)
    assert whole == SEQS
    for cut in range(len(capture)):
        source = capture[:cut] if step is None else Trickle(capture[:cut], step)
        if cut < 24:
            with pytest.raises(CaptureError):
                CaptureReader(source)
            continue
        got, reader = read(source)
        assert got == SEQS[: len(got)]
        assert reader.counters()["segments"] == len(got)
        if cut in borders:
            assert reader.damage is None
        else:
            assert reader.damage.kind == "truncated"
            assert reader.damage.offset == max(place for place in borders if place < cut)
            assert reader.damage.packets == reader.counters()["packets"]
    # Segments appear as soon as their record is whole: the last cut loses only the last record.
    assert len(read(capture[:-1])[0]) == len(SEQS) - 1


def test_damage_reads_as_one_line(tmp_path):
    path = tmp_path / "cut.pcap"
    path.write_bytes(pcap(FRAMES[:2])[:-1])
    _, reader = read(path)
    assert str(reader.damage) == (
        f"{path}: truncated at byte {24 + 16 + len(FRAMES[0])}, after 1 packets: "
        f"the file ends after {15 + len(FRAMES[1])} of at least {16 + len(FRAMES[1])} bytes of a record"
    )


# Lengths that lie


def pcapng_with(block):
    return Pcapng().interface().enhanced(FRAMES[0]).made + block


def block(kind, total, body=b"", trailer=None):
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total if trailer is None else trailer)


@pytest.mark.parametrize("kind", [1, 2, 3, 6, 5, 0xBAD])
@pytest.mark.parametrize("total", [0, 1, 4, 8, 11, 13, 30, 0xFFFFFFFF])
def test_block_length_that_cannot_be(kind, total):
    """A block of length 0 would be read for ever by a reader that believes it."""
    got, reader = read(pcapng_with(block(kind, total, b"\0" * 64)))
    assert got == [0]
    assert (reader.damage.kind, reader.damage.offset) == ("corrupt", len(pcapng_with(b"")))
    assert f"length of {total} bytes" in reader.damage.message


@pytest.mark.parametrize("kind", [1, 6, 0xBAD])
def test_block_length_beyond_the_file(kind):
    for total, damage in ((128, "truncated"), (0xFFFFFFFC, "corrupt" if kind != 0xBAD else "truncated")):
        got, reader = read(pcapng_with(block(kind, total, b"\0" * 64)))
        assert (got, reader.damage.kind, reader.damage.offset) == ([0], damage, len(pcapng_with(b"")))


@pytest.mark.parametrize("kind", [1, 6, 0xBAD])
def test_block_trailer_that_differs(kind):
    got, reader = read(pcapng_with(block(kind, 44, b"\0" * 32, 48)))
    assert (got, reader.damage.kind) == ([0], "corrupt")
    assert "48" in reader.damage.message and reader.damage.offset == len(pcapng_with(b""))


@pytest.mark.parametrize(
    ("body", "total", "message"),
    [
        (b"\0" * 4, 16, "length of 16"),
        (struct.pack("<IIIII", 0, 0, 0, 5, 5), 32, "claims 5 captured bytes"),
        (struct.pack("<IIIII", 0, 0, 0, 0xFFFFFFFF, 5), 32, "claims 4294967295 captured bytes"),
        (struct.pack("<IIIII", 9, 0, 0, 0, 0), 32, "interface 9"),
    ],
)
def test_packet_block_that_lies(body, total, message):
    got, reader = read(pcapng_with(block(6, total, body)))
    assert got == [0] and reader.damage.kind == "corrupt"
    assert message in reader.damage.message


def test_section_that_lies():
    for body, message in (
        (struct.pack("<IHHq", 0x1A2B3C4E, 1, 0, -1), "byte-order magic"),
        (struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1), "version 2"),
    ):
        got, reader = read(pcapng_with(block(0x0A0D0D0A, 28, body)))
        assert got == [0] and reader.damage.kind == "corrupt"
        assert message in reader.damage.message
    _, reader = read(pcapng_with(block(0x0A0D0D0A, 24, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))))
    assert "length of 24" in reader.damage.message


def test_interfaces_without_end():
    made = Pcapng().made + Pcapng().interface().made[28:] * 65_600
    _, reader = read(made)
    assert "more than 65536 interfaces" in reader.damage.message


@pytest.mark.parametrize("captured", [262_145, 0x7FFFFFFF, 0xFFFFFFFF])
def test_record_length_that_no_packet_has(captured):
    head = pcap(FRAMES[:1])
    got, reader = read(head + struct.pack("<IIII", 0, 0, captured, captured) + b"\0" * 1000)
    assert (got, reader.damage.kind, reader.damage.offset) == ([0], "corrupt", len(head))
    assert str(captured) in reader.damage.message


def test_stream_that_claims_much_takes_little_memory():
    """A record of 16 MiB that never comes: the buffer grows to that once, and no further."""
    tracemalloc = pytest.importorskip("tracemalloc")
    head = pcap([], snaplen=0xFFFFFFFF) + struct.pack("<IIII", 0, 0, 16 << 20, 16 << 20)
    tracemalloc.start()
    try:
        got, reader = read(Trickle(head + b"\0" * 100_000, 5000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (got, reader.damage.kind) == ([], "truncated")
    assert peak < 24 << 20


# Mutations

SEEDS = {
    "pcap": pcap(FRAMES),
    "pcap, big-endian": pcap(FRAMES, big=True, nano=True),
    "pcap, kuznetzov": pcap(FRAMES, kuznetzov=True),
    "pcapng": pcapng(FRAMES),
    "pcapng, sections": pcapng(FRAMES[:3], big=True) + pcapng(FRAMES[3:]),
    "wifi": pcap(
        [radiotap(wifi(build.amsdu(*[snap(packet4(seq=n)) for n in range(5)]), qos="amsdu"), tsft=True)], link=127,
    ),
    "tunnels": pcap([
        ethernet(ip4(b"\xb0\0\x08\0" + b"\0" * 12 + VXLAN, protocol=47)),
        ethernet(ip4(udp(b"\x34\xff\0\x30\0\0\0\1\0\0\0\x85\1\0\0\0" + packet4(), dport=2152), protocol=17)),
        ethernet(ip4(udp(b"\0\1\2\3" + b"x" * 14 + b"\0\0\1\2\3\4\5\6" + packet6(), dport=3544), protocol=17)),
        ethernet(build.mpls(packet4(), 1, 2), 0x8847), ethernet(build.pppoe(packet4()), 0x8864),
    ]),
}  # fmt: skip
INTERESTING = [0, 1, 2, 3, 4, 7, 8, 0x0F, 0x10, 0x3F, 0x40, 0x45, 0x60, 0x7F, 0x80, 0xFE, 0xFF]


def mutated(rng, seed):
    """A few changes of the kinds that break parsers: bytes, 16- and 32-bit values, cuts, repeats, moves."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(data))
        change = rng.randrange(7)
        if change == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            data[at] = rng.choice(INTERESTING)
        elif change == 2:
            value = rng.choice((0, 1, 0x7FFF, 0xFFFF, rng.getrandbits(16)))
            data[at : at + 2] = struct.pack(rng.choice("<>") + "H", value)
        elif change == 3:
            value = rng.choice((0, 1, len(data), 0x7FFFFFFF, 0xFFFFFFFF, rng.getrandbits(32)))
            data[at : at + 4] = struct.pack(rng.choice("<>") + "I", value)
        elif change == 4 and len(data) > 40:
            del data[at : at + rng.randrange(1, 40)]
        elif change == 5:
            data[at:at] = data[at : at + rng.randrange(1, 80)]
        else:
            other = rng.randrange(len(data))
            data[at : at + 8] = data[other : other + 8]
        if not data:
            data = bytearray(seed)
    return bytes(data)


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("checksums", ["validate", "ignore"])
def test_mutated_captures(name, checksums):
    """Each gives segments, damage or an error; mapped and streamed give the same; counters account for every packet."""
    rng = random.Random(f"{name} {checksums}")
    began, n, batch = time.monotonic(), 0, SegmentBatch(16)
    while n < 1000 and time.monotonic() - began < 5:
        n += 1
        data = mutated(rng, SEEDS[name])
        outcomes = []
        for source in (data, Trickle(data, rng.choice((3, 50, 5000)))):
            got = []
            try:
                reader = CaptureReader(source, checksums=checksums)
                while reader.read_batch(batch):
                    got += batch
            except CaptureError as error:
                outcomes.append((got, error.message, error.offset))
                continue
            counted = reader.counters()
            if "wifi" not in name:
                assert sum(counted[verdict] for verdict in VERDICTS) == counted["packets"]
            assert counted["segments"] == len(got)
            damage = reader.damage
            outcomes.append((got, damage and damage.kind, damage and damage.offset, damage and damage.message))
        assert outcomes[0] == outcomes[1], data.hex()
    assert n >= 200, "too slow to mean anything"


def test_random_frames_of_every_link_type():
    rng = random.Random(5)
    starts = [frame[:cut] for frame in FRAMES for cut in (14, 20, 30)]
    starts += [b"\x45\0", b"\x60\0", b"\x08\x88", b"\0\0\x10\0"]
    for link in (0, 1, 9, 10, 12, 14, 50, 51, 101, 104, 105, 108, 113, 119, 127, 163, 192, 228, 229, 239, 276):
        frames = [rng.choice(starts) + rng.randbytes(rng.randrange(120)) for _ in range(400)]
        frames += [rng.randbytes(n) for n in range(60)]
        reader = CaptureReader(pcap(frames, link=link), checksums="ignore")
        assert len(list(reader)) == reader.counters()["segments"]
        assert reader.counters()["packets"] == len(frames) and reader.damage is None


def test_headers_without_end_cost_no_more_than_their_bytes():
    """Frames that are nothing but tags, labels, options or extension headers, as long as a packet can be."""
    size = 60_000
    endless = [
        ethernet(b"\0\0\x81\0" * (size // 4), 0x8100),
        ethernet(b"\0\0\0\0" * (size // 4), 0x8847),
        ethernet((b"\0\0\0\0" + ethernet(b"", 0x88E7)) * (size // 18), 0x88E7),
        ethernet((b"\2" * 12 + b"\x65\x58") * (size // 14), 0x6558),
        ethernet(ip6((b"\0\0" + b"\0" * 6) * (size // 8), next_header=0)),
        ethernet(ip6(fragment6(44, 0, 0) * (size // 8), next_header=44)),
        ethernet(ip4(udp(b"\x34\xff\0\0\0\0\0\0\0\0\0\x85" + b"\1\0\0\x85" * (size // 4), dport=2152), protocol=17)),
    ]
    began = time.monotonic()
    reader = CaptureReader(pcap(endless * 20))
    assert list(reader) == [] and reader.counters()["packets"] == 140
    assert time.monotonic() - began < 5
