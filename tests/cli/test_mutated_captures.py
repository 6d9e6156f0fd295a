"""Captures of any quality through everything that reads them: none crashes, hangs, or takes memory beyond its bound, and
every message names the file and the byte.

FASTTCP_MUTATIONS=100000 runs as many as that; without it there are some hundred of each kind.
"""

import gzip
import importlib.util
import json
import lzma
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packets.build import Pcapng, ethernet, packet4, packet6, pcap, pcapng

from fasttcp.errors import CaptureError
from fasttcp.observe.explain import NoSuchConnection, explain
from fasttcp.observe.logs import FIELDS
from fasttcp.observe.track import track

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
MUTATIONS = int(os.environ.get("FASTTCP_MUTATIONS", "400"))
SLOWEST = 10  # s for one of these small captures, on the slowest machine: a hang, not a duration
RECORDS = [path.read_bytes() for path in sorted(CAPTURES.glob("*.pcap"))]


def frames():
    """The packets of the real captures."""
    for data in RECORDS:
        at = 24
        while at < len(data):
            length = int.from_bytes(data[at + 8 : at + 12], "little")
            yield data[at + 16 : at + 16 + length]
            at += 16 + length


FRAMES = list(frames())
MANY_TO_ONE = b"".join(data[24:] for data in RECORDS)


def blocks():
    """A pcapng capture with all kinds of blocks in it."""
    made = Pcapng(big=True)
    made.interface(1, tsresol=9)
    for i, frame in enumerate(FRAMES[:40]):
        (made.enhanced, made.obsolete)[i % 2](frame, stamp=10**18 + i)
    made.section()
    made.interface(1)
    for frame in FRAMES[40:60]:
        made.simple(frame)
    return made.made


def originals():
    talk = [ethernet(packet4(b"x" * 40, seq=i)) for i in range(20)] + [ethernet(packet6(b"y", seq=i)) for i in range(20)]
    return {
        "pcap": [*RECORDS, RECORDS[0][:24] + MANY_TO_ONE, pcap(talk, big=True, nano=True), pcap(talk, kuznetzov=True)],
        "pcapng": [pcapng(talk), pcapng(FRAMES[:60], big=True), blocks()],
        "gzip": [gzip.compress(data) for data in RECORDS[:5]],
        "xz": [lzma.compress(data) for data in RECORDS[:5]],
    }


def mutated(chance, data):
    """Some octets changed, a piece left out, doubled, or moved, the end cut off; or a number set to an extreme."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 3, 30))):
        at = chance.randrange(len(data))
        kind = chance.randrange(8)
        if kind < 4:
            data[at] = chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))
        elif kind == 4:
            data[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80", b"\xff\xff\xff\x7f"))
        elif kind == 5:
            piece = data[at : at + chance.randrange(1, 200)]
            data[at:at] = piece
        elif kind == 6:
            del data[at : at + chance.randrange(1, 60)]
        else:
            del data[at:]
        if not data:
            return b"\0"
    return bytes(data)


ARROW = () if importlib.util.find_spec("pyarrow") is None else ("arrow",)


def read_all_ways(chance, path):
    """One way of reading it, by chance; True if anything could be read."""
    options = {
        "profile": chance.choice(("zeek", "linux", "bsd")), "checksums": chance.choice(("validate", "ignore")),
        "max_connections": chance.choice((1, 3, 1000)), "tunnels": chance.random() < 0.8,
    }  # fmt: skip
    way = chance.choice(("objects", "json", "interim", "filter", "threads", *ARROW, "explain"))
    extra = {
        "interim": {"interim": chance.choice((0.001, 0.1, 100.0))}, "threads": {"threads": 2},
        "filter": {"where": "( src 10.0.0.0/8 or state connected ) and not dport > :1024"},
    }.get(way, {})  # fmt: skip
    if way == "explain":
        try:
            for story in explain(path, "198.18.0.1:40000 198.18.0.2:80", **options):
                assert story.happened
        except NoSuchConnection:
            pass
        return True
    followed = track(path, **options, **extra)
    if way == "arrow":
        import pyarrow as pa

        pa.table(followed.arrow(list(FIELDS))).validate(full=True)
    elif way in ("json", "threads", "filter"):
        for piece in followed.lines("json", list(FIELDS)):
            for line in piece.splitlines():
                json.loads(line)
    else:
        for connection in followed:
            assert connection.duration_ns >= 0
            assert repr(connection)
    followed.tracker.table.check_invariants()
    for damage in followed.damages:
        assert damage.file == str(path)
        assert damage.offset >= 0
        assert str(damage).startswith(f"{path}: {damage.kind} at byte {damage.offset}, ")
        assert "\n" not in str(damage)
    return True


@pytest.mark.parametrize("kind", ["pcap", "pcapng", "gzip", "xz"])
def test_mutated_captures(kind, tmp_path):
    chance = random.Random(f"{kind} 1")
    path = tmp_path / "mutated.pcap"
    whole = originals()[kind]
    outcomes = {"read": 0, "refused": 0}
    for number in range(MUTATIONS):
        path.write_bytes(mutated(chance, chance.choice(whole)))
        state = chance.getstate()
        began = time.monotonic()
        try:
            read_all_ways(chance, path)
            outcomes["read"] += 1
        except CaptureError as refused:
            outcomes["refused"] += 1
            said, offset = str(refused), refused.offset
        except BaseException:
            kept = path.rename(Path(os.environ.get("FASTTCP_KEEP", str(tmp_path))) / f"{kind}-{number}.pcap")
            print(f"kept as {kept}; state of chance {hash(state)}")
            raise
        else:
            said = None
        assert time.monotonic() - began < SLOWEST, path
        if said is not None:
            assert offset is not None
            assert said.startswith(f"{path}: byte {offset}: ")
    assert outcomes["read"] > MUTATIONS // 20
    assert outcomes["refused"] > 0


MEMORY = """
import random, resource, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {here!r}]
from test_mutated_captures import mutated, originals, read_all_ways, CaptureError

chance = random.Random(9)
path = Path({path!r})
whole = [data for datas in originals().values() for data in datas]

def some(n):
    for _ in range(n):
        path.write_bytes(mutated(chance, chance.choice(whole)))
        try:
            read_all_ways(chance, path)
        except CaptureError:
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

first = some(300)
print(first, some(900))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has another unit elsewhere")
def test_memory_does_not_grow_with_the_number_of_captures(tmp_path):
    """The most that 1,200 damaged captures ever took is what the first 300 took, in one process."""
    here = Path(__file__).resolve().parent
    program = MEMORY.format(tests=str(here.parent), here=str(here), path=str(tmp_path / "x.pcap"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first, later = map(int, done.stdout.split())
    assert later < 600_000  # KiB
    assert later - first < 30_000
