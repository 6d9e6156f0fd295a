"""The lines of a log against Python's own idea of addresses, numbers, times and hashes."""

import base64
import csv
import hashlib
import io
import ipaddress
import json
import random
import struct

import pytest
from packets import build
from wire import SECOND, Wire

from fasttcp.core.segments import SegmentBatch
from fasttcp.load.churn import ChurnStream
from fasttcp.observe.logs import DEFAULT_FIELDS, FIELDS, FORMATS, head
from fasttcp.observe.track import track
from fasttcp.observe.tracker import Tracker
from fasttcp.profiles import profile

EVERY = list(FIELDS)


def community_id(src, sport, dst, dport, seed=0):
    """The specification's recipe, by hashlib."""
    ends = sorted([(ipaddress.ip_address(src).packed, sport), (ipaddress.ip_address(dst).packed, dport)])
    ports = struct.pack("!HH", ends[0][1], ends[1][1])
    message = struct.pack("!H", seed) + ends[0][0] + ends[1][0] + bytes([6, 0]) + ports
    return "1:" + base64.b64encode(hashlib.sha1(message).digest()).decode()


def random_ends(chance):
    def address(bits):
        if bits == 32:
            return str(ipaddress.IPv4Address(chance.choice((0, 2**32 - 1, chance.getrandbits(32), 10, 0x0A000001))))
        groups = [chance.choice((0, 0, 0, 1, 0xF, 0x10, 0x100, 0xFFFF, chance.getrandbits(16))) for _ in range(8)]
        groups[0] = groups[0] or 0x2001  # no mapped IPv4
        return str(ipaddress.IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups)))

    bits = chance.choice((32, 128))
    return address(bits), chance.getrandbits(16), address(bits), chance.getrandbits(16)


@pytest.fixture(scope="module")
def many():
    """500 connections of one data segment each: what was put in, in order."""
    chance = random.Random(3)
    tracker = Tracker(profile("linux"), max_connections=1000, seed=1)
    batch = SegmentBatch(1)
    put_in = []
    now = 1_700_000_000 * SECOND
    seen = set()
    while len(put_in) < 500:
        src, sport, dst, dport = random_ends(chance)
        if (src, sport) == (dst, dport) or frozenset([(src, sport), (dst, dport)]) in seen:
            continue
        seen.add(frozenset([(src, sport), (dst, dport)]))
        now += chance.choice((1, 499, 500, 501, 999_999_999, chance.getrandbits(33)))
        batch.clear()
        batch.append(
            src=src, sport=sport, dst=dst, dport=dport, flags="ACK", seq=7, ack=9, payload=chance.getrandbits(12),
            window=5, time_ns=now, ip_bytes=chance.getrandbits(32),
        )  # fmt: skip
        put_in.append(batch[0])
        tracker.apply(batch)
    tracker.finish()
    return tracker, put_in


def rows_of(tracker, form, fields):
    """The waiting entries as text; they stay where they are."""
    tracker.discard()
    tracker.finish()
    return tracker.write(form, fields).decode().splitlines()


def test_every_value_reads_as_python_would_write_it(many):
    tracker, put_in = many
    by_tuple = {}
    for line in rows_of(tracker, "json", EVERY):
        row = json.loads(line)
        by_tuple[row["id.orig_h"], row["id.orig_p"], row["id.resp_h"], row["id.resp_p"]] = row
    assert len(by_tuple) == len(put_in)
    for segment in put_in:
        row = by_tuple[segment.src, segment.sport, segment.dst, segment.dport]
        assert row["ts"] == pytest.approx(segment.time_ns / SECOND, abs=1.3e-6)
        assert row["orig_ip_bytes"] == segment.ip_bytes
        assert row["community_id"] == community_id(segment.src, segment.sport, segment.dst, segment.dport)
        host = f"[{segment.src}]" if ":" in segment.src else segment.src
        assert row["originator"] == f"{host}:{segment.sport}"
        assert (row["orig_pkts"], row["resp_pkts"], row["proto"], row["ip_proto"]) == (1, 0, "tcp", 6)
        assert "duration" not in row
        assert "service" not in row


def test_community_id_of_the_specification():
    assert community_id("128.232.110.120", 34855, "66.35.250.204", 80) == "1:LQU9qZlK+B5F3KDmev6m5PMibrg="


def test_times_are_cut_to_microseconds(many):
    tracker, put_in = many
    lines = rows_of(tracker, "zeek", ["ts"])
    expected = sorted(f"{segment.time_ns // 1000 / 1e6:.6f}" for segment in put_in)
    assert sorted(lines) == expected


def test_times_before_1970_are_cut_downwards():
    expected = {-1: "-0.000001", -1000: "-0.000001", -1001: "-0.000002", -(1 << 63): "-9223372036.854776"}
    for time_ns, shown in expected.items():
        tracker = Tracker(profile("zeek"), max_connections=4, seed=1)
        batch = SegmentBatch(1)
        batch.append(src="10.0.0.1", sport=7, dst="10.0.0.2", dport=9, flags="SYN", time_ns=time_ns)
        tracker.apply(batch)
        tracker.finish()
        assert rows_of(tracker, "zeek", ["ts"]) == [shown]


def test_a_duration_lies_between_times_that_are_cut():
    for first, last, shown in ((900, 1_001_000, "0.001001"), (100, 1_000_900, "0.001000"), (100, 900, "-")):
        tracker = Tracker(profile("zeek"), max_connections=4, seed=1)
        batch = SegmentBatch(2)
        for time_ns in (first, last):
            batch.append(
                src="10.0.0.1", sport=7, dst="10.0.0.2", dport=9, flags="ACK", seq=7, ack=9, payload=5, window=5,
                time_ns=SECOND + time_ns, ip_bytes=45,
            )  # fmt: skip
        tracker.apply(batch)
        tracker.finish()
        for fields in (None, ["duration", "orig_bytes"]):
            tracker.discard()
            tracker.finish()
            values = tracker.write("zeek", fields).decode().rstrip().split("\t")
            expected = [shown, "-" if shown == "-" else "5"]
            assert (values[8:10] if fields is None else values) == expected


def test_a_round_trip_is_rounded():
    tracker = Tracker(profile("zeek"), max_connections=4, seed=1)
    batch = SegmentBatch(3)
    there = {"src": "10.0.0.1", "sport": 7, "dst": "10.0.0.2", "dport": 9}
    back = {"src": "10.0.0.2", "sport": 9, "dst": "10.0.0.1", "dport": 7}
    batch.append(**there, flags="SYN", seq=7, time_ns=SECOND)
    batch.append(**back, flags="SYN|ACK", seq=70, ack=8, time_ns=SECOND)
    batch.append(**there, flags="ACK", seq=8, ack=71, time_ns=SECOND + 1_000_600)
    tracker.apply(batch)
    tracker.finish()
    assert rows_of(tracker, "zeek", ["rtt"]) == ["0.001001"]


def test_uids_are_unique_and_the_same_again(many):
    tracker, _ = many
    uids = rows_of(tracker, "zeek", ["uid"])
    assert len(set(uids)) == len(uids)
    assert all(len(uid) == 18 and uid[0] == "C" and uid.isalnum() for uid in uids)


def test_formats_agree(many):
    tracker, _ = many
    as_json = [json.loads(line) for line in rows_of(tracker, "json", EVERY)]
    as_csv = list(csv.DictReader(io.StringIO(head("csv", EVERY) + "\n".join(rows_of(tracker, "csv", EVERY)))))
    as_zeek = [dict(zip(EVERY, line.split("\t"), strict=True)) for line in rows_of(tracker, "zeek", EVERY)]
    assert len(as_json) == len(as_csv) == len(as_zeek) == 500
    for one, two, three in zip(as_json, as_csv, as_zeek, strict=True):
        for name in set(EVERY) - {"uid"}:  # which numbers the entries, and these were made three times
            if name not in one:
                assert (two[name], three[name]) == ("", "-")
            else:
                assert two[name] == three[name]
                value = f"{one[name]:.6f}" if isinstance(one[name], float) else str(one[name])
                assert two[name] == value


def test_zeeks_own_line_is_that_of_the_same_fields_chosen():
    """With other fields every one is asked what it is; what is asked for most has its own way."""

    def lines_with(fields):
        wire = Wire("zeek", tracker=True, ports=(40000, 7000))
        wire.opened()
        for i in range(200):
            wire.a("R", seq=10 * i)
        wire.tracker.finish()
        tracker = Tracker(profile("zeek"), max_connections=1000, seed=1)
        tracker.apply(SegmentBatch(ChurnStream(300, mix="all", seed=5).take(20_000)))
        tracker.finish()
        return (wire.tracker.write("zeek", fields) + tracker.write("zeek", fields)).decode().splitlines()

    lines = lines_with(None)
    assert [line + "\ttcp" for line in lines] == lines_with([*DEFAULT_FIELDS["zeek"], "proto"])
    columns = dict(zip(DEFAULT_FIELDS["zeek"], zip(*(line.split("\t") for line in lines), strict=True), strict=True))
    assert len(lines) > 1000
    assert "-" in columns["duration"]
    assert max(map(len, columns["history"])) > 100
    for name in ("duration", "orig_bytes", "resp_bytes", "rtt", "conn_state", "orig_state", "resp_state", "end"):
        assert len(set(columns[name])) > 1, name


def test_table_columns_stand_under_their_heads():
    wire = Wire("linux", tracker=True)
    wire.opened()
    wire.closed()
    (line,) = rows_of(wire.tracker, "table", None)
    (titles,) = head("table").splitlines()
    assert line.index("TIME_WAIT") == titles.index("orig_state")
    assert line.index("ShAFaf") == titles.index("history")
    assert titles.split() == DEFAULT_FIELDS["table"]


def test_zeek_header_names_a_type_for_each_field():
    lines = dict(line.split("\t", 1) for line in head("zeek").splitlines() if "\t" in line)
    assert len(lines["#fields"].split("\t")) == len(lines["#types"].split("\t")) == len(DEFAULT_FIELDS["zeek"])
    assert lines["#fields"].split("\t")[:22] == EVERY[:22]


@pytest.mark.parametrize(
    ("form", "fields", "message"),
    [
        ("xml", None, "no format 'xml'"),
        ("json", ["ts", "histry"], "nearest: history"),
        ("csv", [], "no field"),
        ("csv", ["ts"] * 65, "at most 64"),
    ],
)
def test_wrong_formats_and_fields_are_named(many, form, fields, message):
    with pytest.raises(ValueError, match=message):
        many[0].write(form, fields)


def test_a_history_of_any_length_fits_any_number_of_times():
    wire = Wire("zeek", tracker=True, ports=(40000, 7000))
    wire.opened()
    for i in range(2000):
        wire.a("R", seq=10 * i)
    (line,) = rows_of(wire.tracker, "csv", ["history"] * 60)
    assert line == ",".join(["ShA" + "R" * 2000] * 60)


def test_formats_have_their_fields():
    assert set(DEFAULT_FIELDS) == set(FORMATS)
    for names in DEFAULT_FIELDS.values():
        assert set(names) <= set(FIELDS)


def test_what_is_over_when_the_capture_ends_is_not_open():
    """Thousands of SYNs without an answer, and one packet an hour later: all of them have timed out, however many."""
    attempts = 5000
    packets = [build.Packet(build.ethernet(build.packet4(flags=build.SYN, sport=1024 + i)), i) for i in range(attempts)]
    packets.append(build.Packet(build.ethernet(build.packet4(flags=build.SYN, sport=9, seq=5)), 3600 * 10**9))
    followed = track(build.pcap(packets))
    ends = [connection.end for connection in followed]
    assert len(ends) == attempts + 1
    assert ends.count("open") == 1
    assert ends.count("idle") == attempts
