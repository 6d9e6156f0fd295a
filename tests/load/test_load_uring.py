"""Packets by io_uring: in their order, refused where plain writes are refused, nothing in flight afterwards, nothing leaked;
and plain writes where the kernel refuses a ring."""

import errno
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fasttcp
from fasttcp import ConnectionTable
from fasttcp.load import _testing
from fasttcp.load.client import LoadClient

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an io_uring needs Linux")

MOST = 256
HERE = str(Path(__file__).resolve().parent.parent)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        yield ours, theirs


def ring(fd):
    made = _testing.Ring(fd)
    if made.code:
        pytest.skip(f"no io_uring: {os.strerror(made.code)}")
    return made


def received(end):
    found = []
    while True:
        try:
            found.append(end.recv(70000))
        except BlockingIOError:
            return found


def test_packets_keep_their_order_and_their_bytes(pair):
    ours, theirs = pair
    chance, way = random.Random(3), ring(ours.fileno())
    for turn in range(200):
        packets = [
            turn.to_bytes(4, "big") + i.to_bytes(4, "big") + os.urandom(chance.choice((0, 30, 60, 500)))
            for i in range(chance.choice((1, 2, 17, 100, 140)))
        ]
        calls, done = way.write(packets)
        assert calls == 1 and done == [len(packet) for packet in packets]
        assert received(theirs) == packets


def test_a_full_file_refuses_the_rest_and_keeps_nothing_for_later(pair):
    """Without RWF_NOWAIT they would wait for room, and what comes later would overtake them."""
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    way = ring(ours.fileno())
    for turn in range(20):
        packets = [bytes([turn, i]) + bytes(2000) for i in range(MOST)]
        _, done = way.write(packets)
        taken = sum(each > 0 for each in done)
        assert 1 < taken < MOST and done == [2002] * taken + [-errno.EAGAIN] * (MOST - taken)
        assert received(theirs) == packets[:taken]


def test_opening_a_ring_takes_nothing_off_the_file(pair):
    ours, theirs = pair
    theirs.send(b"waits")
    ring(ours.fileno())
    assert received(ours) == [b"waits"]


def test_what_the_file_says_comes_back(pair):
    ours, theirs = pair
    way = ring(ours.fileno())
    theirs.close()
    assert way.write([b"a", b"b"])[1] == [-errno.EPIPE] * 2
    ours.close()
    assert way.write([b"a", b"b"])[1] == [-errno.EBADF] * 2


def test_a_file_that_is_none_gets_no_ring(pair):
    ring(pair[0].fileno())
    assert _testing.Ring(1 << 20).code == errno.EBADF


def held():
    maps = Path("/proc/self/maps").read_text()
    return os.listdir("/proc/self/fd"), maps.count("io_uring")


def test_nothing_leaks(pair):
    ours, _ = pair
    table = ConnectionTable(16)
    ring(ours.fileno())
    before = held()
    for _ in range(300):
        client = LoadClient(table, ours.fileno(), ["198.19.0.1"], [("198.18.0.1", 80)])
        assert client.counts()["io_uring"] == 1 and held() != before
        del client
        ring(ours.fileno())
        _testing.Ring(1 << 20)
        assert held() == before
    assert before[1] == 0


@pytest.mark.parametrize("plain", [False, True])
def test_a_client_says_which_way_it_writes(pair, plain):
    ours, theirs = pair
    ring(ours.fileno())
    client = LoadClient(ConnectionTable(16), ours.fileno(), ["198.19.0.1"], [("198.18.0.1", 80)], plain=plain)
    client.plan(hold=10)
    client.run(10_000_000)
    counts = client.counts()
    assert counts["io_uring"] == (not plain)
    assert counts["packets_out"] == len(received(theirs)) == 10
    assert counts["writes"] == (10 if plain else 1)


# ---- on a TUN device


def inside(script, **more):
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env={**os.environ, **more, "HERE": HERE}
    )
    if "a network of its own" in told.stderr or "user namespace" in told.stderr or "/dev/net/tun" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


DATAGRAMS = r"""
import errno, json, socket, struct
from fasttcp.load import _testing
from fasttcp.load.device import VNET_HEADER, Tun
from fasttcp.load.namespace import enter_private_network

def datagram(number):
    addresses = socket.inet_aton("198.19.0.1") + socket.inet_aton("198.18.0.1")
    head = struct.pack("!BBHHHBBH", 0x45, 0, 36, 0, 0x4000, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", total ^ 0xFFFF) + head[12:]
    return bytes(VNET_HEADER) + head + struct.pack("!HHHHQ", 9, 9, 16, 0, number)

enter_private_network()
wanted, got, said, names = [], [], set(), set()
for again in range(20):
    with (
        Tun(name="order0", addresses=("198.18.0.1/32",), networks=("198.19.0.0/16",)) as tun,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end,
    ):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        end.bind(("198.18.0.1", 9))
        end.setblocking(False)
        ring = _testing.Ring(tun.fd)
        if ring.code:
            break
        for turn in range(10):
            packets = [datagram(again << 32 | turn << 16 | i) for i in range(100)]
            wanted += [packet[-8:].hex() for packet in packets]
            packets.insert(50, b"too short")
            calls, done = ring.write(packets)
            said.add((calls, done[50], len(set(done[:50] + done[51:]))))
            while True:
                try:
                    got.append(end.recv(100).hex())
                except BlockingIOError:
                    break
    names.update(name for _, name in socket.if_nameindex())     # the device is gone, though its ring is open
print(json.dumps([ring.code, got == wanted, len(got), sorted(said), sorted(names)]))
"""


def test_datagrams_arrive_in_order_and_the_device_ends_with_its_file_though_a_ring_is_open():
    code, same, many, said, names = inside(DATAGRAMS)
    if code:
        pytest.skip(f"no io_uring: {os.strerror(code)}")
    assert many == 20_000 and same
    assert said == [[1, -errno.EINVAL, 1]]
    assert names == ["lo"]


# ---- refused

REFUSED = r"""
import json, os, resource, socket, sys
sys.path.append(os.environ["HERE"])
from fasttcp import ConnectionTable
from fasttcp.load import _testing
from fasttcp.load.client import LoadClient
from load.refusal import refuse

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for end in (ours, theirs):
    end.setblocking(False)
def client():
    return LoadClient(ConnectionTable(16), ours.fileno(), ["198.19.0.1"], [("198.18.0.1", 80)])

client()        # so that all is imported while files can be opened
files, limits = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)
next_file = os.dup(0)
os.close(next_file)
try:
    if os.environ["NUMBER"] == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_file, limits[1]))
    else:
        refuse(int(os.environ["NUMBER"]), int(os.environ["CODE"]))
except OSError as error:
    print(json.dumps(str(error)))
    sys.exit()
code = _testing.Ring(ours.fileno()).code
refused = client()
refused.plan(hold=10)
refused.run(10_000_000)
counts = refused.counts()
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
left = len(os.listdir("/proc/self/fd")) - files
n = 0
try:
    while theirs.recv(1000):
        n += 1
except BlockingIOError:
    pass
print(json.dumps([code, counts["io_uring"], n, counts["writes"], counts["lost_out"], left]))
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(425, errno.EPERM), (425, errno.ENOSYS), (425, errno.ENOMEM), (426, errno.EACCES), ("files", errno.EMFILE)],
)
def test_where_a_ring_is_refused_packets_are_written_one_by_one(pair, number, code):
    ring(pair[0].fileno())
    told = inside(REFUSED, NUMBER=str(number), CODE=str(code))
    if isinstance(told, str):
        pytest.skip(told)
    assert told == [code, 0, 10, 10, 0, 0]


PROGRAM = r"""
#include <stdio.h>
#include "uring.h"
int main(void) {
    Uring u = {0};
    UringPacket packet[2] = {{0}};
    int code = uring_open(&u, 0);
    printf("%d %d ", code, u.there);
    printf("%d ", (int)uring_write(&u, packet, 2));
    uring_close(&u);
    printf("%d %d\n", packet[0].done, packet[1].done);
    return 0;
}
"""


@pytest.mark.parametrize("elsewhere", ["-U__linux__", "-DFASTTCP_PORTABLE", "-D__mips__"])
def test_on_other_systems_it_compiles_and_says_that_there_is_none(tmp_path, elsewhere):
    cc = (sysconfig.get_config_var("CC") or "cc").split()[-1]
    if shutil.which(cc) is None:
        pytest.skip(f"no C compiler: {cc} is not there")
    (tmp_path / "none.c").write_text(PROGRAM)
    flags = ["-Wall", "-Wextra", "-Werror", "-I", Path(fasttcp.__file__).parent / "load", elsewhere]
    subprocess.run([cc, *flags, tmp_path / "none.c", "-o", tmp_path / "none"], check=True)
    said = subprocess.run([tmp_path / "none"], check=True, capture_output=True, text=True).stdout
    assert said.split() == [str(errno.ENOSYS), "0", "0", *[str(-errno.ENOSYS)] * 2]
