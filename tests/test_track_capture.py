"""The capture that benchmarks are made on: its numbers are exact, its checksums right, and one seed makes one file."""

import pytest

from fasttcp.observe.track import track

capture_maker = pytest.importorskip("benchmarks.track.capture", reason="the tests stand without their benchmarks")
Shape, number, write_capture = capture_maker.Shape, capture_maker.number, capture_maker.write_capture

SHAPE = Shape(packets=20_000, connections=2_000, seed=5)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("track") / "capture.pcap"
    return path, write_capture(path, SHAPE)


def test_every_packet_is_a_segment_with_a_right_checksum(capture):
    path, made = capture
    followed = track(path)
    list(followed)
    assert made["bytes"] == path.stat().st_size
    assert followed.counters()["segments"] == followed.packets == made["packets"] == SHAPE.packets
    tallies = followed.tallies()
    assert tallies["damaged"] == tallies["illegal"] == tallies["suspect"] == tallies["late"] == 0
    assert tallies["gap_bytes"] == 0
    assert tallies["retransmitted"] > 50
    assert not followed.damages


def test_every_connection_is_one_line_of_the_log(capture):
    path, _ = capture
    connections = list(track(path))
    assert len(connections) == SHAPE.connections
    assert len({(c.orig_addr, c.orig_port, c.resp_addr, c.resp_port) for c in connections}) == SHAPE.connections
    states = {c.conn_state for c in connections}
    assert {"SF", "REJ", "S0", "S1", "RSTO", "RSTR"} <= states
    assert any(c.partial for c in connections)
    assert 0.05 < sum(":" in c.orig_addr for c in connections) / SHAPE.connections < 0.15


def test_a_seed_makes_one_file(capture, tmp_path):
    path, _ = capture
    write_capture(tmp_path / "again.pcap", SHAPE)
    assert (tmp_path / "again.pcap").read_bytes() == path.read_bytes()
    write_capture(tmp_path / "other.pcap", Shape(packets=20_000, connections=2_000, seed=6))
    assert (tmp_path / "other.pcap").read_bytes() != path.read_bytes()


def test_too_few_packets_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="100 packets are too few for 50 connections"):
        write_capture(tmp_path / "none.pcap", Shape(packets=100, connections=50))


@pytest.mark.parametrize(("text", "value"), [("3M", 3_000_000), ("300k", 300_000), ("1.5m", 1_500_000), ("42", 42)])
def test_numbers_may_be_short(text, value):
    assert number(text) == value
