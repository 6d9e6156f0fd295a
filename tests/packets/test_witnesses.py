"""Real captures, read by fasttcp and by somebody else: the recorder's own parser, and tshark's counts."""

import csv
import ipaddress
from pathlib import Path

import pytest
from captures.exchanges import EXCHANGES
from kernel import frames, pcap

from fasttcp.core.segments import INFO_BAD_CHECKSUM
from fasttcp.packets.reader import CaptureReader

TESTS = Path(__file__).resolve().parent.parent
TRACES = TESTS.parent.parent / "shared" / "trackcheck" / "zeek"


@pytest.mark.parametrize("name", sorted(EXCHANGES))
def test_recorded_exchanges(name):
    path = TESTS / "captures" / f"{name}.pcap"
    expected = []
    for record in pcap.read(path):
        tcp = frames.parse(record.data)
        if tcp is not None:
            bad = INFO_BAD_CHECKSUM if tcp.checksum_ok is False else 0
            expected.append(
                (record.time_ns, str(ipaddress.ip_address(tcp.source)), tcp.source_port,
                 str(ipaddress.ip_address(tcp.destination)), tcp.destination_port, tcp.seq, tcp.ack, tcp.flags,
                 tcp.window, tcp.length, bad)
            )  # fmt: skip
    with CaptureReader(path) as reader:
        got = [
            (s.time_ns, s.src, s.sport, s.dst, s.dport, s.seq, s.ack, s.flags, s.window, s.payload,
             s.info & INFO_BAD_CHECKSUM)
            for s in reader
        ]  # fmt: skip
        assert got == expected
        assert reader.damage is None


def traces():
    index = TRACES / "index.tsv"
    if not index.exists():
        absent = pytest.mark.skip(reason="the Zeek traces are not beside the repository")
        return [pytest.param(None, 0, 0, marks=absent)]
    with index.open(newline="") as file:
        return [
            pytest.param(row["test"], int(row["packets"]), int(row["tcp_packets"]), id=row["test"])
            for row in csv.DictReader(file, delimiter="\t")
        ]


@pytest.mark.parametrize(("name", "packets", "tcp_packets"), traces())
def test_traces_of_zeek(name, packets, tcp_packets):
    with CaptureReader(TRACES / name / "trace.pcap", checksums="ignore") as reader:
        assert sum(1 for _ in reader) == tcp_packets
        assert reader.counters()["packets"] == packets
        assert reader.damage is None
