"""When the load's client sends again, seen on the wire: a peer behind the client's device loses the segments it is told to.

The peer is a few lines of Python, no kernel. What is measured is TSval, the client's own clock as it stands in each packet
(RFC 7323), so that a slow machine only makes this test longer. Bounds: never early; late by one tick of the table's wheel and
one turn of the client's loop, for which a generous share is allowed.
"""

import itertools
import os
import select
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field

import pytest

from fasttcp import ConnectionTable, profile
from fasttcp.load.client import LoadClient
from fasttcp.load.device import VNET_HEADER

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LoadClient needs Linux")

CLIENT, SERVER = "198.19.0.1", "198.18.0.1"
FIN, SYN, ACK = 1, 2, 16
ROUND_TRIP_S = 0.1
LATE = 0.4  # s, one turn of the loop on a busy machine
REQUEST, ANSWER = b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

# What is lost of the n-th connection: how many SYNs, requests and FINs.
LOST = ({}, {"S": 2}, {"data": 3}, {"F": 3}, {"S": 1, "data": 1, "F": 1})


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@dataclass
class Connection:
    lost: dict
    sent: dict = field(default_factory=lambda: {"S": [], "data": [], "F": []})  # TSval, ms, of each transmission
    answered: bool = False


class Peer:
    """Answers after a round trip; drops what LOST says."""

    def __init__(self, fd):
        self.fd = fd
        self.connections = {}
        self.waiting = []  # (when, packet)
        self.over = False
        self.begin = time.monotonic()

    def work(self):
        while not self.over:
            pause = min((when for when, _ in self.waiting), default=time.monotonic() + 0.02) - time.monotonic()
            for _ in select.select([self.fd], [], [], min(max(pause, 0), 0.02))[0]:
                while True:
                    try:
                        self.hear(os.read(self.fd, 70000))
                    except BlockingIOError:
                        break
            now = time.monotonic()
            for _, packet in [one for one in self.waiting if one[0] <= now]:
                os.write(self.fd, packet)
            self.waiting = [one for one in self.waiting if one[0] > now]

    def hear(self, packet):
        tcp = packet[VNET_HEADER + 20 :]
        sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", tcp)
        payload = tcp[(offset >> 4) * 4 :]
        tsval = timestamp(tcp[20 : (offset >> 4) * 4])
        if sport not in self.connections:
            self.connections[sport] = Connection(dict(LOST[len(self.connections)]))
        one = self.connections[sport]
        kind = "S" if flags & SYN else "F" if flags & FIN else "data" if payload else None
        if kind is None:
            return
        one.sent[kind].append(tsval)
        if one.lost.get(kind, 0):
            one.lost[kind] -= 1
            return
        end = seq + len(payload) + (flags & SYN != 0) + (flags & FIN)
        self.tell(dport, sport, ack if kind != "S" else 1000, end, SYN | ACK if kind == "S" else ACK | flags & FIN,
                  ANSWER if kind == "data" else b"", tsval)  # fmt: skip

    def tell(self, sport, dport, seq, ack, flags, payload, echo):
        options = struct.pack("!BBBBII", 1, 1, 8, 10, int((time.monotonic() - self.begin) * 1000) + 1, echo)
        if flags & SYN:
            options += struct.pack("!BBH", 2, 4, 1460)
        header = struct.pack(
            "!HHIIBBHHH", sport, dport, seq, ack & 0xFFFFFFFF, (20 + len(options)) // 4 << 4, flags, 60000, 0, 0
        )
        addresses = socket.inet_aton(SERVER) + socket.inet_aton(CLIENT)
        tcp = bytearray(header + options + payload)
        tcp[16:18] = struct.pack("!H", checksum(addresses + struct.pack("!II", len(tcp), 6) + bytes(tcp)))
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + addresses
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        self.waiting.append((time.monotonic() + ROUND_TRIP_S, bytes(VNET_HEADER) + ip + bytes(tcp)))


def timestamp(options):
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        if options[at] == 8:
            return struct.unpack_from("!I", options, at + 2)[0]
        at += options[at + 1]
    raise AssertionError("a packet without a timestamp")


def gaps(times):
    return [((b - a) & 0xFFFFFFFF) / 1000 for a, b in itertools.pairwise(times)]


@pytest.fixture(scope="module", params=["io_uring", "plain"])
def wire(request):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        rules = profile("linux").replace(tcp_syn_linear_timeouts=0)
        client = LoadClient(
            ConnectionTable(16, profile=rules, seed=5), ours.fileno(), [CLIENT], [(SERVER, 80)], request=REQUEST,
            end="content-length", line="^HTTP/1.1 200", life=("fixed", 2e8, 0), seed=5,
            plain=request.param == "plain",
        )  # fmt: skip
        peer = Peer(theirs.fileno())
        thread = threading.Thread(target=peer.work)
        thread.start()
        try:
            client.plan(hold=len(LOST))
            client.run(50_000_000)
            client.plan(opening=False)
            end = time.monotonic() + 30
            while not client.over and time.monotonic() < end:
                client.run(100_000_000)
        finally:
            peer.over = True
            thread.join()
        client.check()
        assert client.counts()["ok"] == len(LOST) and client.over
        return list(peer.connections.values())


def close_to(times, wanted):
    """Never early, but for the millisecond in which TSval counts; late by a tick and a turn each."""
    assert len(times) == len(wanted), times
    for got, at in zip(times, wanted, strict=True):
        assert at - 0.0015 <= got <= at + 0.01 + LATE, (times, wanted)


def test_nothing_is_sent_twice_where_nothing_is_lost(wire):
    assert [len(each) for each in wire[0].sent.values()] == [1, 1, 1]


def test_case_08_syns_one_and_two_seconds_apart(wire):
    close_to(gaps(wire[1].sent["S"]), [1, 2])  # RFC 6298 section 2.1 and 5.5


@pytest.mark.parametrize(("connection", "kind"), [(2, "data"), (3, "F")])
def test_after_samples_the_time_out_is_srtt_and_200_ms_then_twice_and_four_times_that(wire, connection, kind):
    """A steady round trip: SRTT is that, 4 RTTVAR is 200 ms or less, so Linux's least comes on top of SRTT."""
    found = gaps(wire[connection].sent[kind])
    least, most = ROUND_TRIP_S + 0.2, 3 * (ROUND_TRIP_S + LATE / 4) + 0.2  # as late as that only the samples may be
    assert len(found) == 3
    for n, gap in enumerate(found):
        assert least * 2**n - 0.0015 <= gap <= most * 2**n + LATE, found


def test_karn_after_a_lost_syn_timestamps_still_tell_the_round_trip(wire):
    """The SYN was sent twice; its echo says which one was answered (RFC 6298 section 3): no fall-back to 3 s."""
    each = wire[4].sent
    close_to(gaps(each["S"]), [1])
    for kind in ("data", "F"):
        (gap,) = gaps(each[kind])
        assert ROUND_TRIP_S + 0.2 - 0.0015 <= gap <= 3 * (ROUND_TRIP_S + LATE / 4) + 0.2 + LATE
