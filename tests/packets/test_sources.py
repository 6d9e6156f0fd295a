"""Where captures come from: paths, pipes, file objects, compressed; and the batch's side of reading."""

import ctypes
import gzip
import importlib.util
import io
import lzma
import mmap
import os
import socket
import subprocess
import sys
import threading

import pytest

from fasttcp.core.segments import SegmentBatch
from fasttcp.errors import CaptureError, SegmentError, WrongThread
from fasttcp.packets.reader import CaptureReader
from packets.build import Packet, amsdu, ethernet, packet4, packet6, pcap, pcapng, snap, wifi

FRAMES = [ethernet(packet4(b"x" * (n % 90), seq=n)) for n in range(2000)]
PCAP, PCAPNG = pcap(FRAMES), pcapng(FRAMES)
NUMBERS = list(range(2000))
HAS_ZSTD = any(importlib.util.find_spec(name) for name in ("zstandard", "compression"))


def zstd(data):
    if importlib.util.find_spec("zstandard"):
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    from compression import zstd as standard

    return standard.compress(data)


def read(source, capacity=64, **how):
    """The sequence numbers of all segments, and what was wrong."""
    batch, got = SegmentBatch(capacity), []
    with CaptureReader(source, **how) as reader:
        while reader.read_batch(batch):
            got += [s.seq for s in batch]
        assert reader.at_end
    return got, reader.damage


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data, step):
        self.data, self.step = data, step

    def readable(self):
        return True

    def readinto(self, buffer):
        n = min(self.step, len(buffer), len(self.data))
        buffer[:n], self.data = self.data[:n], self.data[n:]
        return n


class OnlyRead:
    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, size):
        return self.file.read(size)


@pytest.mark.parametrize("capture", [PCAP, PCAPNG], ids=["pcap", "pcapng"])
@pytest.mark.parametrize(
    "kind", ["path", "pathlike", "bytes", "bytearray", "memoryview", "open file", "unbuffered", "BytesIO", "read only",
             "gzip", "xz", "zstd", "two gzip members", "gzip in memory"],
)  # fmt: skip
def test_source(tmp_path, capture, kind):
    if kind == "zstd" and not HAS_ZSTD:
        pytest.skip("neither zstandard nor compression.zstd is installed")
    half = len(capture) // 2
    stored = {
        "gzip": gzip.compress, "xz": lzma.compress, "zstd": zstd, "gzip in memory": gzip.compress,
        "two gzip members": lambda data: gzip.compress(data[:half]) + gzip.compress(data[half:]),
    }.get(kind, bytes)(capture)  # fmt: skip
    path = tmp_path / "capture"
    path.write_bytes(stored)
    source = {
        "pathlike": lambda: path, "bytes": lambda: capture, "bytearray": lambda: bytearray(capture),
        "memoryview": lambda: memoryview(capture), "open file": lambda: path.open("rb"),
        "unbuffered": lambda: path.open("rb", buffering=0), "BytesIO": lambda: io.BytesIO(capture),
        "read only": lambda: OnlyRead(capture), "gzip in memory": lambda: stored,
    }.get(kind, lambda: str(path))()  # fmt: skip
    assert read(source) == (NUMBERS, None)
    if isinstance(source, io.IOBase):
        assert not source.closed, "what the caller opened is the caller's to close"
        source.close()


@pytest.mark.parametrize("step", [1, 3, 7, 4096])
@pytest.mark.parametrize("capture", [pcap(FRAMES[:50]), pcapng(FRAMES[:50])], ids=["pcap", "pcapng"])
def test_stream_in_small_pieces(capture, step):
    assert read(Trickle(capture, step)) == (NUMBERS[:50], None)


def test_file_object_is_read_from_where_it_stands(tmp_path):
    path = tmp_path / "two"
    path.write_bytes(b"something else" + pcap(FRAMES[:5]))
    with path.open("rb") as file:
        file.seek(14)
        assert read(file) == (NUMBERS[:5], None)


def test_standard_input():
    program = (
        "from fasttcp.packets.reader import CaptureReader\n"
        "reader = CaptureReader('-')\n"
        "print(sum(1 for _ in reader), reader.name, reader.damage)\n"
    )
    for data, expected in ((PCAP, "2000 - None"), (gzip.compress(PCAPNG), "2000 - None")):
        child = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, timeout=60, check=True)
        assert child.stdout.decode().strip() == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(PCAP))
    writer.start()
    try:
        assert read(path) == (NUMBERS, None)
    finally:
        writer.join()


def test_a_pipe_is_not_waited_for_once_there_is_a_segment():
    near, far = socket.socketpair()
    with near, far, near.makefile("rb", buffering=0) as stream:
        capture = pcap(FRAMES[:6])
        at = 24 + sum(16 + len(f) for f in FRAMES[:4])
        far.sendall(capture[: at + 5])
        reader, batch = CaptureReader(stream), SegmentBatch(64)
        assert reader.read_batch(batch) == 4
        far.sendall(capture[at + 5 :])
        far.close()
        assert reader.read_batch(batch) == 2
        assert reader.read_batch(batch) == 0
        assert reader.damage is None


def test_following_a_file_that_grows(tmp_path):
    path = tmp_path / "growing.pcap"
    capture, batch = pcap(FRAMES[:6]), SegmentBatch(64)
    at = 24 + sum(16 + len(f) for f in FRAMES[:4])
    path.write_bytes(capture[: at + 5])
    with CaptureReader(path, follow=True) as reader:
        assert reader.read_batch(batch) == 4
        assert reader.read_batch(batch) == 0
        assert not reader.at_end and reader.damage is None
        with path.open("ab") as file:
            file.write(capture[at + 5 :])
        assert reader.read_batch(batch) == 2
        assert [s.seq for s in batch] == [4, 5]


def test_record_larger_than_the_buffer_of_a_stream():
    """A 3 MiB record (the file's snapshot length allows it) between small ones."""
    large = Packet(ethernet(packet4()) + b"\0" * (3 << 20))
    capture = pcap([FRAMES[1], large, FRAMES[2]], snaplen=4 << 20)
    assert read(Trickle(capture, 100_000)) == ([1, 0xFFFFFF00, 2], None)


@pytest.mark.parametrize("capacity", [1, 2, 1023, 1024, 5000])
def test_batches_of_any_size(capacity):
    assert read(PCAP, capacity) == (NUMBERS, None)


def test_mapped_windows(tmp_path):
    """More than two windows of a mapped file, with records across their borders."""
    frame = ethernet(packet4(b"\0" * 1400))
    path = tmp_path / "long.pcap"
    record = pcap([frame])[24:]
    with path.open("wb") as file:
        file.write(pcap([]))
        for _ in range(40):
            file.write(record * 700)
    reader, batch, n = CaptureReader(path), SegmentBatch(256), 0
    while count := reader.read_batch(batch):
        n += count
    assert n == 40 * 700
    assert (reader.offset, reader.size, reader.damage) == (24 + n * len(record), path.stat().st_size, None)


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
def test_nothing_behind_the_last_byte_is_read():
    """The capture ends where memory ends: with one plain frame or two, and some bytes of a third, less than a header."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    behind = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + page
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(behind), ctypes.c_size_t(page), 0) == 0, ctypes.get_errno()
    try:
        for make in (packet4, packet6):
            for size in range(140):
                for rest in (0, 1, 8, 15):
                    capture = pcap([ethernet(make(b"", seq=1)), ethernet(make(b"z" * size, seq=2))]) + bytes(rest)
                    memory[page - len(capture) : page] = capture
                    got, damage = read(memoryview(memory)[page - len(capture) : page])
                    assert got == [1, 2]
                    assert (damage is None) == (rest == 0)
    finally:
        libc.mprotect(ctypes.c_void_p(behind), ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("size", [0, 3, 24, 30, 100_000, 5 << 20, 17 << 20])
def test_mapped_file_that_shrinks_is_read_to_its_new_end(tmp_path, size, before):
    path = tmp_path / "shrinking.pcap"
    record = pcap([ethernet(packet4(b"\0" * 1400))])[24:]
    path.write_bytes(pcap([]) + record * 25_000)
    reader, batch = CaptureReader(path), SegmentBatch(256)
    segments = reader.read_batch(batch) if before else 0
    os.truncate(path, size)
    while n := reader.read_batch(batch):
        segments += n
    assert segments == max(256 * before, max(size - 24, 0) // len(record))
    assert reader.damage.kind == "truncated"
    assert reader.damage.offset == size
    assert "became shorter" in reader.damage.message


def test_a_frame_half_read_when_its_file_shrinks_is_left(tmp_path):
    """An A-MSDU has several segments; the rest of one lies on pages that are gone."""
    path = tmp_path / "shrinking.pcap"
    frame = wifi(amsdu(*[snap(packet4(b"\0" * 1400, seq=n)) for n in range(9)]), qos="amsdu")
    path.write_bytes(pcap([frame], link=105))
    with CaptureReader(path) as reader:
        batch = SegmentBatch(1)
        assert [reader.read_batch(batch), batch[0].seq] == [1, 0]
        os.truncate(path, 100)
        assert (reader.read_batch(batch), reader.at_end) == (0, True)
        assert (reader.damage.kind, reader.damage.offset) == ("truncated", 100)


# What cannot be opened


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError):
        CaptureReader(tmp_path / "absent.pcap")
    with pytest.raises(OSError):
        CaptureReader(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", "text"),
        (b"\x7fELF" + b"\0" * 60, "begins with 7f 45 4c 46"),
        (PCAP[:3], "neither pcap nor pcapng"),
        (PCAP[:4], "inside its header, after 4 bytes"),
        (PCAP[:23], "inside its header, after 23 bytes"),
        (PCAPNG[:8], "inside its header, after 8 bytes"),
        (PCAPNG[:8] + b"\0" * 60, "neither pcap nor pcapng"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_no_capture(tmp_path, content, message, stream):
    path = tmp_path / "x.pcap"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(CaptureError, match=message) as caught:
        CaptureReader(file if stream else path)
    assert caught.value.file == str(path)
    assert str(path) in str(caught.value)


def test_what_is_no_source():
    for nonsense in (5, None, object(), ["x"]):
        with pytest.raises(TypeError, match="a capture is a path"):
            CaptureReader(nonsense)
    with pytest.raises(TypeError):
        CaptureReader(io.StringIO("text"))
    with pytest.raises(ValueError, match="checksums"):
        CaptureReader(PCAP, checksums="maybe")


def test_zstd_without_a_package_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    path = tmp_path / "x.pcap.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + b"\0" * 40)
    with pytest.raises(CaptureError, match=r"fasttcp\[zstd\]"):
        CaptureReader(path)


# Compressed data that breaks off or is damaged


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, pytest.param(zstd, marks=pytest.mark.skipif(
    not HAS_ZSTD, reason="neither zstandard nor compression.zstd is installed"))])  # fmt: skip
def test_compressed_file_cut_short(compress):
    frames = [ethernet(packet4(os.urandom(1000), seq=n, checksum=0)) for n in range(300)]
    whole = compress(pcap(frames))
    got, damage = read(io.BytesIO(whole[: len(whole) // 2]))
    assert got == list(range(len(got))) and len(got) > 50
    assert damage.kind == "truncated"


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_compressed_file_damaged(compress):
    frames = [ethernet(packet4(os.urandom(1000), seq=n, checksum=0)) for n in range(300)]
    whole = bytearray(compress(pcap(frames)))
    whole[-6] ^= 0xFF
    got, damage = read(io.BytesIO(whole))
    assert len(got) <= 300
    assert damage is None or damage.kind in ("corrupt", "truncated")


def test_stream_that_fails(tmp_path):
    class Failing(Trickle):
        def readinto(self, buffer):
            if not self.data:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    got, damage = read(Failing(pcap(FRAMES[:5])[:-3], 1000))
    assert got == NUMBERS[:4]
    assert (damage.kind, damage.message, damage.file) == ("unreadable", "Input/output error", "<Failing>")


# The reader and its batch


def test_closed_reader():
    reader = CaptureReader(PCAP)
    batch = SegmentBatch(4)
    reader.read_batch(batch)
    reader.close()
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read_batch(batch)
    assert reader.counters()["segments"] == 4


def test_batch_and_positions_are_checked_before_reading():
    reader = CaptureReader(PCAP)
    with pytest.raises(BufferError, match="read-only"):
        reader.read_batch(SegmentBatch(bytes(80)))
    with pytest.raises(SegmentError, match="positions"):
        reader.read_batch(SegmentBatch(4), bytearray(63))
    with pytest.raises((BufferError, TypeError)):
        reader.read_batch(SegmentBatch(4), bytes(64))
    with pytest.raises(TypeError):
        reader.read_batch(None)
    batch = SegmentBatch(4)
    assert reader.read_batch(batch) == 4 and batch[0].seq == 0


def test_second_thread_is_refused():
    near, far = socket.socketpair()
    with near, far, near.makefile("rb", buffering=0) as stream:
        far.sendall(pcap([]))
        reader = CaptureReader(stream)
        waiting = threading.Thread(target=reader.read_batch, args=(SegmentBatch(4),))
        waiting.start()
        refused = False
        while waiting.is_alive() and not refused:
            try:
                reader.counters()
                reader.close()
            except WrongThread:
                refused = True
        far.close()
        waiting.join()
    assert refused


def test_many_readers_leave_nothing_behind(tmp_path):
    path = tmp_path / "x.pcap"
    path.write_bytes(PCAP)
    descriptors = "/proc/self/fd"
    if not os.path.isdir(descriptors):
        pytest.skip("this system has no /proc/self/fd to count open files with")
    before = len(os.listdir(descriptors))
    for _ in range(50):
        assert len(read(path)[0]) == 2000
        CaptureReader(path).read_batch(SegmentBatch(4))  # left open, and let go
    assert len(os.listdir(descriptors)) == before
