"""`track` with a second thread: the same answers in the same order, whatever goes wrong on the way."""

import gc
import itertools
import threading
import time

import pytest
from packets import build
from packets.build import ACK, FIN, SYN, ethernet, packet4, packet6, pcap

from fasttcp import ConnectionTable, track
from fasttcp.core.segments import SegmentBatch
from fasttcp.errors import CaptureError
from fasttcp.observe.ahead import ReadAhead
from fasttcp.observe.helper import Helper
from fasttcp.observe.keyed import KeyedBatch
from fasttcp.observe.tracker import Tracker
from fasttcp.packets.reader import CaptureReader
from fasttcp.profiles import profile

SECOND = 1_000_000_000


def many(connections, *, gap_ns=20_000_000):
    """Handshake, data and an orderly end of so many connections, laid over one another; every third is IPv6."""
    steps = [
        (0, SYN, 0, 0, b""), (1, SYN | ACK, 0, 1, b""), (0, ACK, 1, 1, b""), (0, ACK, 1, 1, b"question"),
        (1, ACK, 1, 9, b"answer"), (0, ACK | FIN, 9, 7, b""), (1, ACK | FIN, 7, 10, b""), (0, ACK, 10, 8, b""),
    ]  # fmt: skip
    packets = []
    for i in range(connections):
        make, ends = (packet6, ("2001:db8::1", "2001:db8::2")) if i % 3 == 2 else (packet4, ("10.0.0.1", "10.9.0.2"))
        for k, (side, flags, seq, ack, payload) in enumerate(steps):
            ports = (1024 + i % 60000, 80)[:: 1 - 2 * side]
            addresses = ends[:: 1 - 2 * side]
            data = make(
                payload, src=addresses[0], dst=addresses[1], sport=ports[0], dport=ports[1], flags=flags,
                seq=seq + 1000 * side, ack=ack + 1000 * (1 - side) if ack else 0,
            )  # fmt: skip
            packets.append(build.Packet(ethernet(data), SECOND + (i + 40 * k) * gap_ns))
    return pcap(sorted(packets, key=lambda packet: packet.time_ns))


@pytest.fixture(scope="module")
def capture():
    return many(6000)  # 48,000 packets: six batches


def log(source, **options):
    followed = track(source, seed=1, **options)
    return b"".join(followed.lines("zeek")), followed


def test_the_log_is_the_same_byte_for_byte(capture):
    one, first = log(capture)
    two, second = log(capture, threads=2)
    assert one == two
    assert one.count(b"\tSF\t") == 6000
    assert first.counters() == second.counters()
    assert first.tallies() == second.tallies()


def test_the_connections_are_the_same(capture):
    one, two = (list(map(repr, track(capture, threads=threads))) for threads in (1, 2))
    assert one == two
    assert len(one) == 6000


def test_several_files_are_one_stream(capture, tmp_path):
    head, records, at = capture[:24], [], 24
    while at < len(capture):
        size = 16 + int.from_bytes(capture[at + 8 : at + 12], "little")
        records.append(capture[at : at + size])
        at += size
    files = []
    for i, part in enumerate((records[: len(records) // 2], records[len(records) // 2 :])):
        files.append(tmp_path / f"{i}.pcap")
        files[i].write_bytes(head + b"".join(part))
    assert log(files, threads=2)[0] == log(capture)[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_datagram_goes_on_in_the_next_file(tmp_path, threads):
    segment = build.tcp(b"x" * 40, flags=ACK)
    packets = [
        build.Packet(ethernet(data), at * SECOND)
        for at, data in enumerate(
            [packet4(flags=SYN, seq=7), build.ip4(segment[:24], fragment=0x2000), packet4(flags=ACK),
             build.ip4(segment[24:], fragment=3)], 1
        )
    ]  # fmt: skip
    files = [tmp_path / "0.pcap", tmp_path / "1.pcap"]
    for cut in (1, 2, 3):
        files[0].write_bytes(pcap(packets[:cut]))
        files[1].write_bytes(pcap(packets[cut:]))
        whole, first = log(pcap(packets))
        parts, second = log(files, threads=threads)
        assert parts == whole
        assert first.counters() == second.counters()


def test_a_filter_holds_in_both(capture):
    where = "sport < :2000"
    one, two = (log(capture, where=where, threads=threads)[0] for threads in (1, 2))
    assert one == two
    assert one.count(b"\tSF\t") == 2000 - 1024


def test_damage_is_told(capture):
    one, first = log(capture[:-5])
    two, second = log(capture[:-5], threads=2)
    assert one == two
    assert list(map(str, first.damages)) == list(map(str, second.damages)) != []


def test_a_capture_that_cannot_be_read_raises(tmp_path):
    unknown = pcap([build.Packet(b"\0" * 60, SECOND)], link=250)
    with pytest.raises(CaptureError, match="link type"):
        log(unknown, threads=2)


def test_what_was_read_ahead_is_applied_when_reading_is_stopped(capture):
    followed = track(capture, threads=2)
    next(followed.steps())
    followed.finish()
    assert followed.tallies()["segments"] == followed.counters()["segments"] > 0
    assert b"".join(followed.rest("csv")).count(b"\n") == sum(followed.tracker.ends().values())


def test_pieces_that_were_given_away_come_out_after_an_interruption(capture):
    followed = track(capture, threads=2)
    lines = followed.lines("csv")
    pieces = list(itertools.islice(lines, 3))
    lines.close()
    followed.finish()
    pieces += followed.rest("csv")
    assert b"".join(pieces).count(b"\n") == 1 + sum(followed.tracker.ends().values())


def test_streams_do_with_one_thread(capture, tmp_path):
    path = tmp_path / "capture.pcap"
    path.write_bytes(capture)
    with path.open("rb") as stream:
        assert log(stream, threads=2)[0] == log(capture)[0]


def test_threads_below_one_are_refused(capture):
    with pytest.raises(ValueError, match="threads"):
        track(capture, threads=0)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"max_connections": "x"}, TypeError, "max_connections: 'x' is no whole number"),
        ({"max_connections": 0}, ValueError, "max_connections: 0 is not between 1 and 2,147,483,648"),
        ({"threads": "x"}, TypeError, "threads: 'x' is no whole number"),
        ({"threads": 1.5}, TypeError, "threads: 1.5 is no"), ({"threads": 0}, ValueError, "threads: 0 is not between"),
        ({"interim": "x"}, TypeError, "interim: 'x' is no number of seconds"), ({"interim": 0}, ValueError, "interim: 0 is not"),
        ({"source": []}, ValueError, r"source: \[\] holds nothing"), ({"source": {}}, ValueError, "source: {} holds nothing"),
        ({"source": [[], ()]}, ValueError, "source: .* holds nothing"),
    ],
)  # fmt: skip
def test_what_track_cannot_be_given_is_named(given, error, says):
    with pytest.raises(error, match=f"^{says}"):
        track(**{"source": b"", **given})


def test_the_thread_goes_with_its_track(capture):
    def helpers():
        return [thread for thread in threading.enumerate() if thread.name == "fasttcp track"]

    read = track(capture, threads=2)
    assert len(list(read)) == 6000
    left = track(capture, threads=2)
    next(left)
    assert helpers()
    del left
    gc.collect()
    deadline = time.monotonic() + 10
    while helpers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not helpers()


def test_reading_ahead_gives_every_segment_once(capture):
    helper = Helper("test")
    reader = CaptureReader(capture)
    ahead = ReadAhead(reader, ConnectionTable(64, seat="observer"), helper)
    times = []
    while (batch := ahead.next()) is not None:
        assert len(batch) == len(batch.segments)
        times += [segment.time_ns for segment in batch.segments]
    assert ahead.next() is None
    assert ahead.rest() == []
    helper.dismiss()
    reader.close()
    batch = SegmentBatch(48000)
    with CaptureReader(capture) as reader:
        reader.read_batch(batch)
    assert times == [segment.time_ns for segment in batch]


def test_keys_of_another_table_are_refused():
    tracker, other = (Tracker(profile("zeek"), max_connections=16) for _ in range(2))
    with pytest.raises(ValueError, match="another table"):
        tracker.apply_keyed(KeyedBatch(other.table, 8))
    tracker.apply_keyed(KeyedBatch(tracker.table, 8))
    assert tracker.tallies()["segments"] == 0


def test_a_failure_reaches_whoever_waits():
    helper = Helper("test")

    def fail():
        raise KeyError("gone")

    failed, done = helper.give(fail), helper.give(lambda: 5)
    with pytest.raises(KeyError, match="gone"):
        failed.wait()
    assert failed.outcome() is None
    assert (done.wait(), done.outcome(), done.done) == (5, 5, True)
    helper.dismiss()
