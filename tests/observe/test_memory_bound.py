"""Memory follows the connections that live at once, not the packets: one shape of traffic, ten times as long.

Each length runs in a process of its own, so that nothing is left over from the other.
"""

import json
import struct
import subprocess
import sys

import pytest
from packets import build
from packets.build import ACK, FIN, SYN, ethernet, packet4, pcap

PAIRS = 2000  # connections of a block; each block repeats them, 40 s later, long after they have ended
BLOCK_SECONDS = 40
STEPS = [
    (0, SYN, 0, 0, 0), (1, SYN | ACK, 0, 1, 0), (0, ACK, 1, 1, 0), (0, ACK, 1, 1, 30), (1, ACK, 1, 31, 40),
    (0, ACK | FIN, 31, 41, 0), (1, ACK | FIN, 41, 32, 0), (0, ACK, 32, 42, 0),
]  # fmt: skip

DRIVER = """
import io, json, sys
from fasttcp import track

block = open(sys.argv[1], "rb").read()
blocks, threads = int(sys.argv[2]), int(sys.argv[3])
places = [int(place) for place in open(sys.argv[1] + ".at").read().split()]

def anonymous():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024

class Endless(io.RawIOBase):
    "The same block again and again, later each time."
    def __init__(self):
        self.number, self.data = -1, memoryview(block[:24])
    def readable(self):
        return True
    def readinto(self, buffer):
        if not self.data:
            self.number += 1
            if self.number == blocks:
                return 0
            data = bytearray(block[24:])
            for at in places:
                second = int.from_bytes(data[at : at + 4], "little") + 40 * self.number
                data[at : at + 4] = second.to_bytes(4, "little")
            self.data = memoryview(data)
        n = min(len(buffer), len(self.data))
        buffer[:n] = self.data[:n]
        self.data = self.data[n:]
        return n

followed = track(Endless(), threads=threads, seed=1)
peak = live = rows = lines = 0
for piece in followed.lines("csv"):
    peak = max(peak, anonymous())
    live = max(live, len(followed.tracker.table))
    lines += piece.count(b"\\n")
print(json.dumps({
    "peak": peak, "live": live, "table": followed.tracker.table.nbytes, "packets": followed.packets,
    "connections": sum(followed.tracker.ends().values()), "lines": lines - 1,
}))
"""


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    packets = []
    for i in range(PAIRS):
        for k, (side, flags, seq, ack, size) in enumerate(STEPS):
            hosts, ports = (("10.0.0.1", "10.0.0.2"), (2000 + i, 80))
            if side:
                hosts, ports = hosts[::-1], ports[::-1]
            data = packet4(
                bytes(size), src=hosts[0], dst=hosts[1], sport=ports[0], dport=ports[1], flags=flags, seq=seq, ack=ack
            )
            packets.append(build.Packet(ethernet(data), 10**9 + i * 10**7 + k * 10**8))
    packets.sort(key=lambda packet: packet.time_ns)
    whole = pcap(packets)
    places, at = [], 24
    while at < len(whole):
        places.append(at - 24)
        at += 16 + struct.unpack_from("<I", whole, at + 8)[0]
    path = tmp_path_factory.mktemp("memory") / "block.pcap"
    path.write_bytes(whole)
    path.with_name("block.pcap.at").write_text(" ".join(map(str, places)))
    return path


def run(block, blocks):
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, block, str(blocks), "1"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process's anonymous memory is read from /proc")
def test_ten_times_the_packets_need_no_more_memory(block):
    short, long = run(block, 4), run(block, 40)
    assert (short["packets"], long["packets"]) == (4 * PAIRS * len(STEPS), 40 * PAIRS * len(STEPS))
    assert (short["connections"], long["connections"]) == (short["lines"], long["lines"]) == (4 * PAIRS, 40 * PAIRS)
    assert long["live"] == short["live"] < PAIRS
    assert long["table"] == short["table"]
    assert long["peak"] - short["peak"] < 1 << 20, (short, long)
