"""pcap and pcapng in all their variants: the same packets come out, at the same times."""

import struct

import pytest

from fasttcp.core.segments import INFO_CUT, SegmentBatch
from fasttcp.errors import CaptureError
from fasttcp.packets.reader import CaptureReader
from packets import build
from packets.build import Packet, Pcapng, ethernet, packet4, packet6, pcap, pcapng

FRAMES = [ethernet(packet4(b"x" * n, seq=n)) for n in range(9)]
START = 1_700_000_000


def read(capture, **how):
    reader = CaptureReader(capture, **how)
    found = list(reader)
    assert reader.damage is None
    return found


def seqs(capture):
    return [s.seq for s in read(capture)]


@pytest.mark.parametrize("kuznetzov", [False, True])
@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_pcap(big, nano, kuznetzov):
    if nano and kuznetzov:
        nano = False  # there is no such variant
    times = [START * 10**9 + n * 1_001_001_001 for n in range(9)]
    capture = pcap(map(Packet, FRAMES, times), big=big, nano=nano, kuznetzov=kuznetzov)
    found = read(capture)
    assert [s.seq for s in found] == list(range(9))
    assert [s.time_ns for s in found] == [t if nano else t // 1000 * 1000 for t in times]
    assert CaptureReader(capture).format == "pcap"


def test_pcap_seconds_are_unsigned():
    (s,) = read(pcap([Packet(FRAMES[0], (2**32 - 1) * 10**9 + 999_999_000)]))
    assert s.time_ns == (2**32 - 1) * 10**9 + 999_999_000


def test_pcap_link_type_stands_below_the_frame_check_sequence_length():
    capture = bytearray(pcap(FRAMES))
    capture[20:24] = struct.pack("<I", 0x54000001)
    assert seqs(bytes(capture)) == list(range(9))


def test_snapshot_length_raises_the_limit_of_a_record():
    huge = ethernet(build.ip6(build.extension(6, b"\xc2\4" + struct.pack("!I", 28 + 300_000)) + build.tcp(
        b"x" * 300_000, checksum=0), next_header=0, length=0))  # fmt: skip
    assert [s.payload for s in read(pcap([huge], snaplen=400_000))] == [300_000]
    reader = CaptureReader(pcap([FRAMES[0], huge]))
    assert len(list(reader)) == 1
    assert (reader.damage.kind, reader.damage.offset) == ("corrupt", 24 + 16 + len(FRAMES[0]))
    assert str(len(huge)) in reader.damage.message


@pytest.mark.parametrize("checksums", ["validate", "ignore"])
@pytest.mark.parametrize("places", [False, True])
def test_a_record_longer_than_the_snapshot_length_is_cut(places, checksums):
    """As libpcap does: what is behind is as if never captured. The plain way and the other."""
    whole = ethernet(packet4(b"x" * 100, seq=1000))
    for snaplen, info in ((30, None), (54, INFO_CUT), (80, INFO_CUT), (153, INFO_CUT), (154, 0), (0, 0)):
        capture = pcap([whole, FRAMES[0], whole, ethernet(b"\xff" * 99, 0x88B5)], snaplen=snaplen)
        reader = CaptureReader(capture, checksums=checksums)
        batch = SegmentBatch(16)
        reader.read_batch(batch, bytearray(16 * 16) if places else None)
        found = [(s.payload, s.info) for s in batch if s.seq == 1000]
        assert found == ([] if info is None else [(100, info)] * 2)
        assert reader.counters()["packets"] == 4


def test_the_two_lengths_of_old_versions():
    frames = [Packet(FRAMES[0], 0, len(FRAMES[0]) + 30), FRAMES[1]]
    for minor, other_way in ((2, True), (3, True), (3, False), (4, False)):
        capture = bytearray(pcap(frames))
        struct.pack_into("<H", capture, 6, minor)
        if other_way:
            capture[32:36], capture[36:40] = capture[36:40], capture[32:36]
        assert seqs(bytes(capture)) == [0, 1]


def test_wire_length_below_the_captured_one_is_not_believed():
    assert [s.payload for s in read(pcap([Packet(FRAMES[5], 0, 10)]))] == [5]


def test_positions_say_offset_and_number():
    others = [build.ethernet(b"\0" * 40, 0x0806)] * 2
    frames = [FRAMES[0], *others, FRAMES[1], FRAMES[2]]
    reader = CaptureReader(pcap(frames))
    batch, places = SegmentBatch(8), memoryview(bytearray(16 * 8)).cast("Q")
    assert reader.read_batch(batch, places) == 3
    lengths = [16 + len(f) for f in frames]
    assert places.tolist()[:6] == [24, 1, 24 + sum(lengths[:3]), 4, 24 + sum(lengths[:4]), 5]
    made = Pcapng().interface()
    before = len(made.made)
    made.enhanced(FRAMES[0])
    reader = CaptureReader(made.made)
    assert reader.read_batch(batch, places) == 1
    assert places.tolist()[:2] == [before, 1]


# pcapng


@pytest.mark.parametrize("big", [False, True])
def test_pcapng(big):
    times = [START * 10**9 + n * 1_001_001_000 for n in range(9)]
    capture = pcapng(list(map(Packet, FRAMES, times)), big=big)
    found = read(capture)
    assert [s.seq for s in found] == list(range(9))
    assert [s.time_ns for s in found] == times
    assert CaptureReader(capture).format == "pcapng"


@pytest.mark.parametrize(
    ("tsresol", "stamp", "time_ns"),
    [
        (None, START * 10**6 + 5, START * 10**9 + 5000),
        (0, START, START * 10**9),
        (3, START * 10**3 + 7, START * 10**9 + 7_000_000),
        (6, START * 10**6 + 7, START * 10**9 + 7_000),
        (9, START * 10**9 + 7, START * 10**9 + 7),
        (10, START * 10**10 + 79, START * 10**9 + 7),
        (12, 5 * 10**12 + 7999, 5 * 10**9 + 7),
        (19, 10**19 - 1, 999_999_999),
        (20, 10**19, 10**8),
        (28, 10**19 + 1, 1),
        (29, 2**64 - 1, 0),
        (127, 2**64 - 1, 0),
        (0x80, START, START * 10**9),
        (0x80 | 1, START * 2 + 1, START * 10**9 + 500_000_000),
        (0x80 | 10, START * 1024 + 512, START * 10**9 + 500_000_000),
        (0x80 | 32, START << 32 | 1 << 31, START * 10**9 + 500_000_000),
        (0x80 | 34, 5 << 34 | 1 << 33, 5 * 10**9 + 500_000_000),
        (0x80 | 40, 5 << 40 | 1 << 38, 5 * 10**9 + 250_000_000),
        (0x80 | 63, 1 << 63 | 1 << 62, 1_500_000_000),
        (0x80 | 64, 1 << 63, 500_000_000),
        (0x80 | 70, 1 << 63, 10**9 // 2**7),
        (0x80 | 98, 2**64 - 1, 0),
        (0x80 | 127, 2**64 - 1, 0),
        (0, 2**64 - 1, 2**63 - 1),  # beyond what 64 bits of nanoseconds hold
        (6, 2**64 - 1, 2**63 - 1),
        (0x80, 2**64 - 1, 2**63 - 1),
        (0x80 | 1, 2**64 - 1, 2**63 - 1),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_timestamp_resolution(big, tsresol, stamp, time_ns):
    capture = Pcapng(big=big).interface(tsresol=tsresol).enhanced(FRAMES[0], stamp).made
    assert [s.time_ns for s in read(capture)] == [time_ns]


@pytest.mark.parametrize("big", [False, True])
def test_timestamp_offset(big):
    made = Pcapng(big=big)
    made.interface(tsresol=9, tsoffset=1000).interface(tsoffset=-1000).interface(tsoffset=2**63 - 1)
    made.interface(tsoffset=-(2**63))
    for interface in range(4):
        made.enhanced(FRAMES[interface], 5, interface=interface)
    limit = (2**63 - 1) // 10**9 * 10**9
    expected = [1000 * 10**9 + 5, -1000 * 10**9 + 5000, limit + 5000, -limit + 5000]
    assert [s.time_ns for s in read(made.made)] == expected


def test_interfaces_have_their_own_link_and_clock():
    made = Pcapng().interface(1).interface(101, tsresol=9).interface(113, tsresol=0x80 | 10)
    made.enhanced(ethernet(packet4(seq=1)), 2_000_000)
    made.enhanced(packet6(seq=2), 3_000_000_000, interface=1)
    made.enhanced(build.sll(packet4(seq=3)), 4 << 10, interface=2)
    assert [(s.seq, s.time_ns) for s in read(made.made)] == [(1, 2 * 10**9), (2, 3 * 10**9), (3, 4 * 10**9)]


def test_sections_have_their_own_byte_order_and_interfaces():
    made = Pcapng(big=True).interface(101).enhanced(packet4(seq=1), 10)
    made.section(big=False).interface(1).interface(101).enhanced(ethernet(packet4(seq=2)), 20)
    made.enhanced(packet4(seq=3), 30, interface=1)
    made.section(big=True).interface(1, tsresol=9).enhanced(ethernet(packet4(seq=4)), 40)
    assert [(s.seq, s.time_ns) for s in read(made.made)] == [(1, 10_000), (2, 20_000), (3, 30_000), (4, 40)]


def test_interface_of_the_section_before_is_unknown():
    made = Pcapng().interface().enhanced(FRAMES[1])
    made.section()
    at = len(made.made)
    made.enhanced(FRAMES[2])
    reader = CaptureReader(made.made)
    assert [s.seq for s in reader] == [1]
    assert (reader.damage.kind, reader.damage.offset, reader.damage.packets) == ("corrupt", at, 1)
    assert "interface 0" in reader.damage.message


def test_simple_packets():
    """They have no time, so they get that of the packet before; their captured length follows from the block."""
    made = Pcapng().interface(1, 60).enhanced(FRAMES[1], 7_000_000).simple(FRAMES[3]).simple(FRAMES[8][:60], wire=62)
    found = read(made.made)
    assert [(s.seq, s.time_ns, s.payload) for s in found] == [(1, 7 * 10**9, 1), (3, 7 * 10**9, 3), (8, 7 * 10**9, 8)]
    assert [s.time_ns for s in read(Pcapng().interface().simple(FRAMES[1]).made)] == [0]


@pytest.mark.parametrize("field", [0, 1, 2, 3, 4, 5, 6, -1])
def test_enhanced_blocks_of_both_byte_orders_are_judged_alike(field):
    """Little-endian ones have a short cut. Any of their numbers replaced: the same segments, the same damage."""
    size = 32 + len(FRAMES[3]) + -len(FRAMES[3]) % 4
    for value in (
        0,
        1,
        2,
        3,
        5,
        6,
        28,
        31,
        32,
        36,
        60,
        size - 4,
        size - 1,
        size,
        size + 1,
        size + 4,
        1 << 24,
        1 << 31,
        2**32 - 1,
    ):
        came = []
        for big in (False, True):
            made = Pcapng(big=big).interface(1)
            at = len(made.made)
            capture = bytearray(made.enhanced(FRAMES[3], 5_000_000).enhanced(FRAMES[4], 6_000_000).made)
            struct.pack_into(made.order + "I", capture, at + (field * 4 if field >= 0 else size - 4), value)
            reader = CaptureReader(bytes(capture))
            found, damage = list(reader), reader.damage
            came.append(
                (found, damage and (damage.kind, damage.offset, damage.packets), reader.counters(), reader.offset)
            )
        assert came[0] == came[1]


@pytest.mark.parametrize("big", [False, True])
def test_obsolete_packet_blocks(big):
    made = Pcapng(big=big).interface(101).interface(1).obsolete(FRAMES[4], 2_000_000, interface=1)
    assert [(s.seq, s.time_ns) for s in read(made.made)] == [(4, 2 * 10**9)]


def test_other_blocks_are_passed_over():
    made = Pcapng()
    for kind in (4, 5, 9, 10, 0xBAD, 0x40000BAD, 0x80000001, 0xFFFFFFFF):
        made.block(kind, b"\xff" * 20)
    made.interface().block(5, b"").enhanced(FRAMES[2], options=made.option(1, b"comment") + made.option(0, b""))
    made.block(0xBAD, b"z" * 3_000_000).enhanced(FRAMES[3]).block(4, b"")
    assert seqs(made.made) == [2, 3]


def test_broken_interface_options_leave_the_rest():
    made = Pcapng()
    made.block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HH", 9, 0xFFFF) + b"\xff" * 4)
    made.block(1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHB3x", 9, 1, 9) + b"\1\0")
    made.enhanced(FRAMES[1], 5).enhanced(FRAMES[2], 5, interface=1)
    assert [(s.seq, s.time_ns) for s in read(made.made)] == [(1, 5000), (2, 5)]


# Link types that are not known


def test_unknown_link_type_is_an_error_that_names_it():
    with pytest.raises(CaptureError, match=r"link type USB_LINUX \(189\)") as caught:
        CaptureReader(pcap(FRAMES, link=189))
    assert caught.value.offset == 20
    with pytest.raises(CaptureError, match="link type 4711 "):
        CaptureReader(pcap(FRAMES, link=4711))


def test_unknown_interface_beside_a_known_one_is_counted():
    made = Pcapng().interface(189).interface(1)
    made.enhanced(b"usb", 1).enhanced(FRAMES[1], 2, interface=1).enhanced(b"usb", 3)
    reader = CaptureReader(made.made)
    assert [s.seq for s in reader] == [1]
    assert reader.counters()["link_unknown"] == 2


def test_capture_of_unknown_interfaces_only_is_an_error():
    made = Pcapng().interface(249)
    at = len(made.made)
    made.enhanced(b"usb", 1).enhanced(b"usb", 2)
    reader = CaptureReader(made.made)
    with pytest.raises(CaptureError, match=r"link type USBPCAP \(249\)") as caught:
        reader.read_batch(SegmentBatch(4))
    assert caught.value.offset == at


def test_capture_without_packets():
    for capture in (pcap([]), Pcapng().made, Pcapng().interface(189).made):
        reader = CaptureReader(capture)
        assert list(reader) == [] and reader.damage is None and reader.at_end
        assert set(reader.counters().values()) == {0}
