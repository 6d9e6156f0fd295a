"""SegmentBatch: segments in, segments out, and the memory that numpy and others look at."""

import gc
import ipaddress
import struct

import numpy as np
import pytest

from fasttcp.core import segments
from fasttcp.core.segments import ACK, INFO_IPV6, SEGMENT_BYTES, SEGMENT_DTYPE, SYN, Segment, SegmentBatch, flag_names
from fasttcp.errors import SegmentError

ENDS = {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 40000, "dport": 80}
ENDS6 = {"src": "2001:db8::1", "dst": "2001:db8::2", "sport": 40000, "dport": 80}


def filled(n, capacity=16):
    batch = SegmentBatch(capacity)
    for seq in range(n):
        batch.append(**ENDS, seq=seq, payload=seq)
    return batch


def test_a_segment_comes_back_as_it_was_given():
    batch = SegmentBatch(4)
    batch.append(
        **ENDS, flags="SYN|ACK", seq=0xFFFFFFFF, ack=7, window=65535, payload=3, time_ns=-5, mss=1460, wscale=14,
        sack_permitted=True, tsval=0xFFFFFFFE, tsecr=1,
    )  # fmt: skip
    batch.append(**ENDS6, flags=ACK, ip_bytes=1234, info=segments.INFO_BAD_CHECKSUM)
    assert batch[0] == Segment(
        -5, "10.0.0.1", 40000, "10.0.0.2", 80, SYN | ACK, 0xFFFFFFFF, 7, 65535, 3, 1460, 14, True, 0xFFFFFFFE, 1,
        20 + 20 + 4 + 4 + 4 + 12 + 3, 0,
    )  # fmt: skip
    assert batch[1] == Segment(
        0, "2001:db8::1", 40000, "2001:db8::2", 80, ACK, 0, 0, 0, 0, None, None, False, None, None, 1234,
        INFO_IPV6 | segments.INFO_BAD_CHECKSUM,
    )  # fmt: skip
    assert list(batch) == [batch[0], batch[1]] == [batch[-2], batch[-1]]
    assert len(batch) == 2 and batch.capacity == 4


def test_repr_reads_like_a_line_of_tcpdump():
    batch = SegmentBatch(2)
    batch.append(**ENDS6, flags=SYN | ACK | 0x100, seq=9, ack=8, window=7, mss=1440, sack_permitted=True, info=6)
    assert repr(batch[0]) == (
        "<Segment 0 ns [2001:db8::1]:40000 > [2001:db8::2]:80 SYN|ACK|0x100 seq=9 ack=8 win=7 len=0 mss=1440 sackOK "
        "bad checksum bad header>"
    )
    assert repr(batch) == "<SegmentBatch 1 of 2>"
    assert flag_names(0) == "-" and flag_names(0xFF) == "SYN|FIN|RST|PSH|ACK|URG|ECE|CWR"


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", b"\x0a\0\0\1", bytearray(b"\x0a\0\0\1"), b"\0" * 10 + b"\xff\xff\x0a\0\0\1", "::ffff:10.0.0.1",
     ipaddress.ip_address("10.0.0.1")],
)  # fmt: skip
def test_every_way_to_write_an_address(address):
    batch = SegmentBatch(1)
    batch.append(**{**ENDS, "src": address})
    assert (batch[0].src, batch[0].info) == ("10.0.0.1", 0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sport", 65536, "sport: 65536 is outside 0..65535"),
        ("dport", -1, "dport: -1 is outside 0..65535"),
        ("dport", "http", "dport: expected an integer from 0 to 65535, got 'http'"),
        ("seq", 1 << 32, "seq: 4294967296 is outside 0..4294967295"),
        ("seq", 1.0, "seq: expected an integer"),
        ("ack", -1, "ack: -1 is outside"),
        ("window", 65536, "window: 65536"),
        ("payload", -1, "payload: -1"),
        ("time_ns", 1 << 63, "time_ns: 9223372036854775808"),
        ("mss", 65536, "mss: 65536"),
        ("wscale", 256, "wscale: 256 is outside 0..255"),
        ("tsval", -1, "tsval: -1"),
        ("tsecr", 1 << 32, "tsecr: 4294967296"),
        ("ip_bytes", -1, "ip_bytes: -1"),
        ("info", -1, "info: -1"),
        ("flags", 0x1000, "flags: 4096 is outside 0..4095"),
        ("flags", "SYN|NAK", "flags: 'NAK' is none of SYN"),
        ("src", "10.0.0", "src: '10.0.0' is not an IPv4 or IPv6 address"),
        ("src", 5, "src: 5 is not an IPv4"),
        ("dst", b"abc", "dst: an address has 4 or 16 bytes, got 3"),
        ("dst", "::1", "dst: '::1' and src '10.0.0.1' are not of one IP version"),
    ],
)
def test_a_value_out_of_range_is_named_and_changes_nothing(field, value, message):
    batch = filled(1)
    with pytest.raises(SegmentError, match=message.replace("|", r"\|").replace(".", r"\.")):
        batch.append(**{**ENDS, field: value})
    assert len(batch) == 1 and batch[0].seq == 0


def test_full_batch_and_places_outside():
    batch = filled(2, 2)
    with pytest.raises(IndexError, match="full: 2 segments"):
        batch.append(**ENDS)
    for place in (2, -3, 10**12):
        with pytest.raises(IndexError):
            batch[place]
    batch.clear()
    assert len(batch) == 0 and list(batch) == []
    with pytest.raises(IndexError):
        batch[0]


def test_one_timestamp_makes_the_other_zero():
    batch = SegmentBatch(2)
    batch.append(**ENDS, tsval=5)
    batch.append(**ENDS, tsecr=6)
    assert [(s.tsval, s.tsecr) for s in batch] == [(5, 0), (0, 6)]


def test_numpy_sees_the_same_memory():
    batch = filled(3)
    array = np.asarray(batch)
    assert array.dtype == np.dtype(SEGMENT_DTYPE)
    assert array.dtype.itemsize == SEGMENT_BYTES == 80
    assert array["seq"].tolist() == [0, 1, 2]
    assert bytes(array["src"][0]) == b"\0" * 10 + b"\xff\xff\x0a\0\0\1"
    array["seq"][1] = 77
    assert batch[1].seq == 77
    batch.clear()
    batch.append(**ENDS, seq=99)
    assert array["seq"].tolist() == [99, 77, 2]


def test_the_described_fields_are_where_the_struct_has_them():
    """Each field given a value of its own is found at the offset that layout.pxd states."""
    batch = SegmentBatch(1)
    batch.append(
        src=b"\1" * 16, dst=b"\2" * 16, sport=3, dport=4, seq=5, ack=6, payload=7, tsval=8, tsecr=9, window=10,
        flags=11, mss=12, wscale=13, ip_bytes=14, info=16, time_ns=17,
    )  # fmt: skip
    expected = struct.pack(
        "=q16s16sHHIIIIIHHHBBII",
        17, b"\1" * 16, b"\2" * 16, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 1 | 2 | 8, 14, 16 | INFO_IPV6,
    )  # fmt: skip
    assert bytes(batch) == expected
    view = memoryview(batch)
    assert (view.itemsize, view.shape, view.strides, view.contiguous) == (80, (1,), (80,), True)


def test_views_of_different_lengths_live_side_by_side():
    batch = filled(2)
    short = memoryview(batch)
    batch.append(**ENDS)
    long = memoryview(batch)
    assert (short.shape, long.shape, batch.exports) == ((2,), (3,), 2)
    short.release()
    long.release()
    assert batch.exports == 0
    empty = np.asarray(SegmentBatch(4))
    assert empty.shape == (0,)


def test_memory_does_not_move_under_a_view():
    batch = filled(2, 2)
    view = memoryview(batch)
    with pytest.raises(BufferError, match="1 views"):
        batch.reserve(100)
    batch.reserve(2)
    assert batch.capacity == 2
    view.release()
    batch.reserve(100)
    assert batch.capacity == 100 and [s.seq for s in batch] == [0, 1]
    batch.append(**ENDS)
    with pytest.raises(SegmentError):
        batch.reserve(0)


def test_a_view_outlives_the_name_of_its_batch():
    array = np.asarray(filled(3))
    gc.collect()
    assert array["seq"].tolist() == [0, 1, 2]


def test_batch_on_foreign_memory():
    array = np.zeros(3, SEGMENT_DTYPE)
    array["sport"] = [1, 2, 3]
    batch = SegmentBatch(array)
    assert (len(batch), batch.capacity, batch.writable) == (3, 3, True)
    assert [s.sport for s in batch] == [1, 2, 3]
    batch.clear()
    batch.append(**ENDS)
    assert array["sport"].tolist() == [40000, 2, 3]
    with pytest.raises(BufferError, match="another object's"):
        batch.reserve(10)
    with pytest.raises(ValueError):
        array.resize(10, refcheck=True)  # numpy too knows that somebody stands on it


def test_batch_on_read_only_memory():
    frozen = bytes(filled(2))
    batch = SegmentBatch(frozen)
    assert [s.seq for s in batch] == [0, 1] and not batch.writable
    for change in (batch.clear, lambda: batch.append(**ENDS)):
        with pytest.raises(BufferError, match="read-only"):
            change()
    assert memoryview(batch).readonly
    assert SegmentBatch(memoryview(filled(2)))[1].seq == 1
    assert SegmentBatch(filled(2))[1].seq == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (0, "capacity: 0 is outside"),
        (-1, "capacity: -1"),
        (1 << 41, "capacity"),
        ("16", "got str"),
        (None, "got NoneType"),
        (b"x" * 79, "got 79 bytes in items of 1"),
        (np.zeros(10, "u8"), "80 bytes in items of 8"),
        (np.zeros(4, SEGMENT_DTYPE)[::2], "not contiguous"),
        (memoryview(bytearray(161))[1:], "8-byte boundary"),
    ],
)
def test_what_is_no_batch(source, message):
    with pytest.raises(SegmentError, match=message):
        SegmentBatch(source)


def test_an_empty_buffer_is_an_empty_batch():
    batch = SegmentBatch(b"")
    assert len(batch) == 0 and batch.capacity == 0 and list(batch) == []


def test_more_than_memory_can_hold():
    with pytest.raises(MemoryError):
        SegmentBatch(1 << 40)
