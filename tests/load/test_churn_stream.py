"""The made-up stream: reproducible, correct to the last sequence number, and of the promised composition."""

import hashlib

import numpy as np
import pytest

from fasttcp import SEGMENT_DTYPE, ConnectionTable, State
from fasttcp.errors import SegmentError
from fasttcp.load.churn import SEGMENT_BYTES, ChurnStream, wheel_lag
from fasttcp.load.mixes import MIXES, Mix, mix

SYN, RST, ACK, FIN = 2, 4, 16, 1


def taken(stream, n):
    return np.frombuffer(stream.take(n), dtype=np.dtype(SEGMENT_DTYPE))


@pytest.mark.parametrize("name", MIXES)
def test_one_seed_is_one_stream_however_it_is_cut(name):
    whole = ChurnStream(500, mix=name, seed=7).take(5000)
    pieces = ChurnStream(500, mix=name, seed=7)
    assert b"".join(pieces.take(n) for n in (1, 31, 32, 33, 903, 4000)) == whole
    assert ChurnStream(500, mix=name, seed=8).take(5000) != whole


def test_the_stream_of_a_seed_never_changes():
    """Figures of two versions compare only if both were given the same segments."""
    digest = hashlib.sha256(ChurnStream(1000, mix="both", seed=1).take(20_000)).hexdigest()
    assert digest == "4c42e9b6b594998abf9b792174a8efa69dccd543274822038cc1f691dc75da2c"


@pytest.mark.parametrize("name", MIXES)
def test_a_full_engine_finds_no_fault(name):
    """Not one segment that repeats, jumps, or that the machine of spec.py has no row for."""
    connections = 2000
    stream = ChurnStream(connections, mix=name, seed=3)
    table = ConnectionTable(2 * connections, seat="observer", seed=3)
    while stream.segments < 2 * stream.warm_up:
        table.apply(stream.take(1000))
    table.check_invariants()
    tallies = table.tallies()
    assert tallies["segments"] == stream.segments
    for fault in ("retransmitted", "duplicates", "illegal", "suspect", "late", "stray", "full", "missed_bytes", "partial"):
        assert tallies[fault] == 0, fault
    assert (tallies["replaced"] > 0) == (stream.mix.reuse > 0)
    flood = tallies["connections"] - stream.begun
    assert (flood > 0) == (stream.mix.flood > 0)
    assert wheel_lag(table) == 0


@pytest.mark.parametrize("name", MIXES)
def test_the_table_holds_about_as_many_as_asked_for(name):
    connections = 4000
    stream = ChurnStream(connections, mix=name, seed=5)
    table = ConnectionTable(2 * connections, seat="observer", seed=5)
    while stream.segments < 2 * stream.warm_up:
        table.apply(stream.take(1000))
    assert len(table) == pytest.approx(connections, rel=0.12)


def test_about_half_of_the_table_is_in_time_wait():
    stream = ChurnStream(4000)
    table = ConnectionTable(5000, seat="observer", seed=1)
    table.apply(stream.take(2 * stream.warm_up))
    assert 0.45 < table.counts()[State.TIME_WAIT] / len(table) < 0.62


def test_the_plain_connection_has_eight_segments_from_both_directions():
    stream = ChurnStream(64, seed=2)
    segments = taken(stream, 64 * 40)
    lives = {}
    for s in segments:
        ends = frozenset({(bytes(s["src"]), int(s["sport"])), (bytes(s["dst"]), int(s["dport"]))})
        lives.setdefault(ends, []).append(s)
    whole = [life for life in lives.values() if len(life) == 8]
    assert len(whole) > 100
    for life in whole:
        assert [int(s["flags"]) & (SYN | ACK | FIN | RST) for s in life] == [
            SYN, SYN | ACK, ACK, ACK, FIN | ACK, ACK, FIN | ACK, ACK,
        ]  # fmt: skip
        assert [int(s["payload"]) > 0 for s in life] == [False] * 3 + [True] + [False] * 4
        assert len({bytes(s["src"]) for s in life}) == 2
        for s in life[1:]:  # RFC 7323: each echoes the other's last timestamp
            others = [int(o["tsval"]) for o in life if bytes(o["src"]) != bytes(s["src"]) and o["time_ns"] < s["time_ns"]]
            assert int(s["tsecr"]) == others[-1]
    closers = {bytes(life[4]["src"]) == bytes(life[0]["src"]) for life in whole}
    assert closers == {True, False}


def ends_of(segments):
    """One number for each segment, the same for both directions of a connection and for no other."""
    high = np.maximum(segments["sport"], segments["dport"]).astype(np.uint64)
    address = np.where(segments["sport"] == high, segments["src"][:, 12:].copy().view(">u4")[:, 0], segments["dst"][:, 12:].copy().view(">u4")[:, 0])  # noqa: E501
    return address.astype(np.uint64) << np.uint64(16) | high


def test_neighbours_in_the_stream_are_strangers():
    ends = ends_of(taken(ChurnStream(4000, seed=4), 20_000))
    assert (ends[1:] == ends[:-1]).sum() < 20


def test_time_never_goes_back_and_no_gap_reaches_a_time_out():
    segments = taken(ChurnStream(1000, seed=4), 50_000)
    assert (np.diff(segments["time_ns"]) >= 0).all()
    assert segments["time_ns"][-1] > 2 * 60 * 10**9


def test_ipv6_share():
    for name, low, high in (("ipv4", 0, 0), ("both", 0.45, 0.55), ("ipv6", 1, 1)):
        share = float((taken(ChurnStream(2000, mix=name), 10_000)["info"] & 1).mean())
        assert low <= share <= high


def test_lifetimes_with_a_heavy_tail():
    stream = ChurnStream(2000, mix="heavy")
    segments = taken(stream, 200_000)
    _, times = np.unique(ends_of(segments[segments["payload"] > 0]), return_counts=True)
    assert np.median(times) <= 3
    assert times.max() > 100


def test_arguments():
    for wrong in (63, 0, -1, 10**10, 2.5, None):
        with pytest.raises(ValueError, match="connections"):
            ChurnStream(wrong)
    with pytest.raises(ValueError, match="no mix 'ipv5'; there are ipv4"):
        ChurnStream(100, mix="ipv5")
    with pytest.raises(ValueError, match="reset is 1"):
        ChurnStream(100, mix=Mix("all reset", "", reset=1.0))
    with pytest.raises(ValueError, match="a share is from 0 to 1"):
        ChurnStream(100, mix=Mix("odd", "", ipv6=1.5))
    with pytest.raises(SegmentError, match="81 bytes"):
        ChurnStream(100).write_into(bytearray(81))
    with pytest.raises(BufferError):
        ChurnStream(100).write_into(bytes(80))
    assert ChurnStream(100).write_into(bytearray(SEGMENT_BYTES * 3)) == 3
    assert mix("flood") is MIXES["flood"]
