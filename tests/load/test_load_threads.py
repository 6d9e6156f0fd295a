"""Threads of a load: nothing is shared, nothing is lost, and everything adds up.

How the pool and the load are cut is tested without a network; the rest for real, each test in a process and a network of its
own. Packets are steered by BPF where this process may load it, and routed to a device for each thread where not.
"""

import ctypes
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from bisect import bisect_right
from ipaddress import ip_address, ip_network

import pytest
from kernel.netns import Namespace, why_not

from fasttcp import profile
from fasttcp.load import lanes, steering
from fasttcp.load.lanes import Lanes, cut, routes, share_out
from fasttcp.load.scenario import Scenario
from fasttcp.load.steering import Key, bpf, load_steering

BPF_PROG_TEST_RUN = 10  # linux/bpf.h


def no_bpf():
    try:
        with Lanes(2, ["198.19.0.1"], profile("linux")) as found:
            return "" if "queue" in found.how else found.how
    except ValueError as refusal:
        return str(refusal)


NO_BPF = no_bpf() if sys.platform.startswith("linux") else "BPF needs Linux"
steered = pytest.mark.skipif(bool(NO_BPF), reason=NO_BPF)


# ---- how things are cut, without a network


def test_a_whole_is_shared_out_exactly():
    assert share_out(10_001, [1, 1]) == [5001, 5000] and share_out(1, [1] * 3) == [1, 0, 0]
    assert share_out(12, [2, 1, 1]) == [6, 3, 3]
    chance = random.Random(5)
    for _ in range(300):
        weights = [chance.randrange(1, 40) for _ in range(chance.randrange(1, 9))]
        before = [0] * len(weights)
        for whole in range(sum(weights) + 20):
            parts = share_out(whole, weights)
            assert sum(parts) == whole
            assert all(a <= b for a, b in zip(before, parts, strict=True)), "more made a part smaller"
            if whole <= sum(weights):
                assert all(part <= weight for part, weight in zip(parts, weights, strict=True))
            before = parts
    big = share_out(16_000_003, [3_584_448, 3_584_447, 1])
    assert sum(big) == 16_000_003


@pytest.mark.parametrize("networks", [
    ["198.19.0.0/24"], ["198.19.0.0/25", "198.19.0.128/25", "198.19.7.5/32"], ["198.19.0.0/22", "198.19.1.0/24"],
    ["2001:2:0:1::/120"], ["2001:2::ffff:ffff:ffff:ff00/120", "2001:2:0:1::/122"],
])  # fmt: skip
@pytest.mark.parametrize("many", [1, 2, 3, 5])
def test_each_address_is_routed_to_its_lane_and_to_no_other(networks, many):
    addresses = sorted(map(int, lanes.source_addresses(networks)))
    bounds = cut(addresses, many)
    sizes = [sum(bisect_right(bounds, each) == lane for each in addresses) for lane in range(many)]
    assert max(sizes) - min(sizes) <= 1
    whole = {int(address) for text in networks for address in ip_network(text)}
    found = {}
    for lane, routed in enumerate(routes(networks, bounds)):
        for text in routed:
            for address in ip_network(text):
                assert int(address) not in found
                found[int(address)] = lane
    assert set(found) == whole, "what was routed as a whole is routed still"
    assert all(found[each] == bisect_right(bounds, each) for each in addresses)


class _Device:
    """Stands for a Tun."""

    def __init__(self, **given):
        self.given, self.name = given, "none"
        self.fds = list(range(given.get("queues", 1)))

    def close(self):
        pass


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("many", [1, 2, 3, 7])
@pytest.mark.parametrize("changes", [
    {}, {"ip_local_port_range": (40_000, 40_100)}, {"ip_local_port_range": (40_000, 40_100), "port_choice": "in_turn"},
    {"ip_local_port_range": (40_000, 40_001)}, {"ip_local_port_range": (40_000, 40_000)},
    {"ip_local_port_range": (40_000, 40_099), "ip_local_reserved_ports": tuple(range(40_000, 40_050))},
], ids=str)  # fmt: skip
def test_the_lanes_are_the_whole_pool_and_disjoint(monkeypatch, changes, many, refused):
    def load(key, version, bounds):
        if refused:
            raise PermissionError(1, "Operation not permitted")
        assert version == 4 and len(bounds) == many - 1 and bounds == sorted(set(bounds))
        return -1

    monkeypatch.setattr(lanes, "Tun", _Device)
    monkeypatch.setattr(lanes, "load_steering", load)
    policy = profile("linux").replace(**changes)
    with Lanes(many, ["198.19.0.0/28"], policy) as found:
        if not refused and many > 1:
            found._program = 1 << 20  # as if it were loaded
        found.open(networks=("198.19.0.0/28",))
        given = [(lane.sources, lane.ports, lane.pool) for lane in found.lanes]
        found._program = -1
    first, last = policy.ip_local_port_range
    free = [port for port in range(first, last + 1) if port not in set(policy.ip_local_reserved_ports)]
    pairs = [
        (source, port) for sources, (low, high), _ in given for source in sources for port in free if low <= port <= high
    ]
    assert len(given) == many and len(pairs) == len(set(pairs)) == 14 * len(free)
    assert sum(pool for _, _, pool in given) == len(pairs) and all(pool for _, _, pool in given)
    if changes.get("port_choice") != "in_turn" and len(free) > 50 and not refused:
        # A search for even ports first leaves out the last of an odd number: no lane but the last may have one.
        assert all((high - low) % 2 for _, (low, high), _ in given[:-1])


def test_pools_that_cannot_be_cut_say_what_is_missing(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lanes, "load_steering", refuse)
    with pytest.raises(ValueError, match=r"3 threads need 3 --source addresses, there are 2: .*Operation not permitted"):
        Lanes(3, ["198.19.0.0/31"], profile("linux"))
    small = profile("linux").replace(ip_local_port_range=(40_000, 40_003))
    with pytest.raises(ValueError, match=r"3 threads have nothing to share: .* 1 source addresses with 4 ports each"):
        Lanes(3, ["198.19.0.0/32"], small)
    with pytest.raises(ValueError, match="not all of one IP version"):
        Lanes(2, ["198.19.0.0/24", "2001:2::/120"], profile("linux"))


@pytest.mark.parametrize(
    ("given", "says"),
    [({"threads": 0}, "threads is 0"), ({"threads": 257}, "from 1 to 256"), ({"threads": 4, "connecting": 3}, "connecting is 3")],
)
def test_scenarios_with_threads_that_cannot_be(given, says):
    with pytest.raises(ValueError, match=says):
        Scenario(hold=1, **given)


def test_a_machine_without_bpf_is_an_os_error(monkeypatch):
    monkeypatch.setattr(steering.platform, "machine", lambda: "abacus")
    with pytest.raises(OSError, match=r"BPF is not known on .*abacus"):
        load_steering(Key.PORT, 4, [5])


# ---- the program, in the kernel


def packet(version, address, port, options=0):
    ports = struct.pack("!HH", 80, port) + bytes(16)
    if version == 4:
        return bytes([0x45 + options]) + bytes(15) + address.to_bytes(4, "big") + bytes(4 * options) + ports
    return b"\x60" + bytes(23) + address.to_bytes(16, "big") + ports


def queue_of(program, data):
    """What a loaded program says of a packet."""
    version = data[0] >> 4
    held = ctypes.create_string_buffer(bytes(12) + (b"\x08\x00" if version == 4 else b"\x86\xdd") + data, 14 + len(data))
    given = struct.pack("=IIIIQQII24x", program, 0, len(held), 0, ctypes.addressof(held), 0, 1, 0)
    attributes = ctypes.create_string_buffer(given, len(given))
    assert bpf(BPF_PROG_TEST_RUN, attributes) == 0
    return struct.unpack_from("=I", attributes, 4)[0]


@steered
@pytest.mark.parametrize("many", [2, 3, 256])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("key", list(Key))
def test_the_kernel_runs_the_program_as_it_is_meant(key, version, many):
    chance = random.Random(many)
    bits = 16 if key is Key.PORT else 32 if version == 4 else 128
    bounds = sorted({chance.randrange(1, 1 << bits) for _ in range(many - 1)})
    if bits == 128 and many > 2:  # of which some share their upper half
        bounds = sorted({*bounds[:-1], bounds[0] ^ 5})
    program = load_steering(key, version, bounds)
    try:
        for value in {0, (1 << bits) - 1, *(b + d for b in bounds[:40] for d in (-1, 0, 1))}:
            if value >> bits:
                continue
            port, address = (value, 7) if key is Key.PORT else (7, value)
            for options in range(3 if version == 4 else 1):
                assert queue_of(program, packet(version, address, port, options)) == bisect_right(bounds, value)
        assert queue_of(program, packet(version, 7, 7)[: 20 if version == 4 else 40]) == 0, "no ports in it"
    finally:
        os.close(program)


# ---- for real


def load(*arguments, before=(), **more):
    return subprocess.run(
        [*before, sys.executable, "-m", "fasttcp", "load", *arguments], capture_output=True, text=True, timeout=60, **more
    )


@pytest.fixture(scope="module")
def possible():
    if not sys.platform.startswith("linux"):
        pytest.skip("a TUN device needs Linux")
    told = load("--hold", "1", "--duration", "10ms", "--json")
    if told.returncode != 0:
        pytest.skip(f"no network of its own here: {told.stderr.strip()}")


def without_bpf():
    """A command before another one, which then may not load BPF: in a user namespace nobody may."""
    command = ["unshare", "--user", "--map-root-user"]
    if not shutil.which(command[0]):
        pytest.skip("the command `unshare` is missing")
    told = load("--hold", "1", "--duration", "10ms", before=command)
    if told.returncode != 0:
        pytest.skip(f"no user namespace, or no load in it: {told.stderr.strip()}")
    return command


def report(*arguments, **more):
    told = load(*arguments, "--json", "--quiet", **more)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def clean(told):
    """Every connection ended well, none is left, and the threads add up."""
    counts, outcomes = told["counts"], told["outcomes"]
    assert outcomes == {**dict.fromkeys(outcomes, 0), "ok": counts["opened"]}
    assert counts["established"] == counts["opened"] > 0
    assert counts["live"] == counts["connecting"] == counts["closing"] == counts["lost_out"] == 0
    for name in ("opened", "established", "answered", "packets_in", "packets_out"):
        assert sum(each["counts"][name] for each in told["threads"]) == counts[name]
    assert sum(each["pool"] for each in told["threads"]) == told["ports"]
    assert sum(each["table_bytes"] for each in told["threads"]) == told["table_bytes"]
    for each in told["threads"]:
        assert each["counts"]["opened"] == each["counts"]["established"] > 0


WAYS = [pytest.param("queue", marks=steered), "device"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("many", "version"), [(2, []), (3, ["--ipv6"])], ids=["2-ipv4", "3-ipv6"])
def test_threads_hold_replace_and_close_what_one_would(possible, way, version, many):
    before = without_bpf() if way == "device" else ()
    told = report(
        "--threads", str(many), "--hold", "2001", "--churn", "500", "--duration", "1500ms", "--http", *version, before=before
    )  # fmt: skip
    assert way in told["lanes"] and len(told["threads"]) == many
    clean(told)
    assert told["held"]["live"] == 2001
    # The kernel may still have what was just replaced.
    assert 2001 <= told["held"]["kernel_established"] <= 2021
    assert told["counts"]["answered"] == told["counts"]["opened"] > 2100
    opened = [each["counts"]["opened"] for each in told["threads"]]
    assert max(opened) - min(opened) < 150
    assert all(told["latency"][name]["count"] == told["counts"]["opened"] for name in ("connect", "first_byte", "close"))
    assert told["busy"] == pytest.approx(sum(each["busy"] for each in told["threads"]))


@steered
@pytest.mark.parametrize("ports", ["40000-40099", "40000-40063"])
def test_threads_share_one_address_to_its_last_port(possible, ports):
    first, last = map(int, ports.split("-"))
    many = last - first + 1
    told = report("--threads", "3", "--hold", str(many), "--duration", "500ms", "--source", "198.19.7.1/32", "--ports", ports)
    clean(told)
    assert told["ports"] == told["held"]["live"] == many and "by port" in told["lanes"]


@steered
def test_threads_share_one_port_by_addresses(possible):
    told = report(
        "--threads", "2", "--hold", "30", "--duration", "500ms", "--source", "198.19.7.0/27", "--ports", "40000-40000"
    )  # fmt: skip
    clean(told)
    assert told["held"]["live"] == told["ports"] == 30 and "by address" in told["lanes"]


def test_one_address_is_not_enough_without_bpf(possible):
    told = load("--threads", "2", "--hold", "5", "--source", "198.19.7.1/32", before=without_bpf())
    assert told.returncode == 2 and told.stdout == "" and len(told.stderr.splitlines()) == 1
    assert "2 threads need 2 --source addresses, there are 1" in told.stderr


def test_a_pool_that_is_cut_unevenly_is_said_and_held_all_the_same(possible):
    sources = [word for host in (1, 2, 3) for word in ("--source", f"198.19.7.{host}/32")]
    told = report(
        "--threads", "2", "--hold", "300", "--duration", "500ms", *sources, "--ports", "40000-40099", before=without_bpf()
    )  # fmt: skip
    clean(told)
    assert told["held"]["live"] == told["ports"] == 300
    assert [each["counts"]["opened"] for each in told["threads"]] == [200, 100]
    assert any("one of 2 threads has 67% of the source pool" in note for note in told["notes"])


def test_a_rate_is_that_of_all_threads(possible):
    told = report("--threads", "2", "--rate", "1000", "--duration", "1s", "--http")
    clean(told)
    assert 800 < told["counts"]["opened"] <= 1001
    one, two = (each["counts"]["opened"] for each in told["threads"])
    assert abs(one - two) < 30


def test_limits_are_those_of_all_threads(possible):
    told = load("--threads", "2", "--hold", "1", "--max-connections", "1")
    assert told.returncode == 2 and "max_connections is 1: too few for 2 threads" in told.stderr
    told = report("--threads", "2", "--rate", "2000", "--life", "forever", "--duration", "300ms", "--max-connections", "101")
    assert told["counts"]["opened"] == told["outcomes"]["ok"] == 101 and told["outcomes"]["table_full"] > 0
    told = report("--threads", "2", "--hold", "1", "--duration", "300ms")
    assert told["counts"]["opened"] == 1, "one connection, and a thread that has none"


def test_stages_and_a_scenario_file(possible, tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        'threads = 2\n[[stage]]\nfor = "300ms"\nrate = "1k"\n[[stage]]\nfor = "600ms"\nhold = 201\nchurn = "500/s"\n'
    )
    told = report("--scenario", str(file))
    clean(told)
    assert told["scenario"]["threads"] == len(told["threads"]) == 2 and told["held"]["live"] >= 201


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_closes_and_a_second_one_resets(possible, presses):
    child = subprocess.Popen(
        [sys.executable, "-m", "fasttcp", "load", "--threads", "2", "--hold", "201", "--duration", "60s", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1.5)
    stopped = []
    if presses == 2:  # a server that is stopped leaves FINs unanswered
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(child.pid)], capture_output=True, text=True).stdout
        stopped = [int(pid) for pid in children.split()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    for _ in range(presses):
        child.send_signal(signal.SIGINT)
        time.sleep(0.4)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    out, err = child.communicate(timeout=30)
    told = json.loads(out)
    assert child.returncode == 0 and told["interrupted"] == presses, err
    assert told["seconds"] < 20
    assert told["outcomes"]["ok" if presses == 1 else "cut_off"] == 201


def test_outputs_tell_of_threads(possible, tmp_path):
    files = [word for kind in ("csv", "json", "html") for word in (f"--{kind}", str(tmp_path / f"a.{kind}"))]
    run = ["--hold", "50", "--churn", "50", "--duration", "1200ms", "--http", *files]
    told = load("--threads", "2", *run)
    assert told.returncode == 0, told.stderr
    line = r"^threads +2, each with a (queue|device) .*: \d+ to \d+ connections, \d+% to \d+% of a CPU$"
    assert re.search(line, told.stdout, re.M)
    head, *lines = (tmp_path / "a.csv").read_text().splitlines()
    names = head.split(",")
    for line in lines:
        row = dict(zip(names, line.split(","), strict=True))
        assert float(row["busy"]) == pytest.approx(float(row["busy_1"]) + float(row["busy_2"]), abs=0.002)
    page = (tmp_path / "a.html").read_text()
    assert "<h2>Threads, each with" in page and "the busiest thread" in page and "mean of 2 threads" in page
    assert [each["counts"]["opened"] > 0 for each in json.loads((tmp_path / "a.json").read_text())["threads"]] == [True, True]
    told = load(*run)
    assert "\nthreads" not in told.stdout and "<h2>Threads" not in (tmp_path / "a.html").read_text()
    assert "busy_1" not in (tmp_path / "a.csv").read_text()


ALONE = """
import json, os, sys, threading
from fasttcp import ConnectionTable, profile
from fasttcp.load import lanes
from fasttcp.load.client import LoadClient
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.run import OWN_NETWORK
from fasttcp.load.server import OwnServer

version, way, ports, active = int(sys.argv[1]), sys.argv[2], tuple(map(int, sys.argv[3].split("-"))), int(sys.argv[4])
if way == "device":
    def refuse(*_): raise PermissionError(1, "refused")
    lanes.load_steering = refuse
address, kernel, routed, pool = OWN_NETWORK[version]
policy = profile("linux").replace(ip_local_port_range=ports)

def waiting(fd):
    n = 0
    while True:
        try:
            n += os.read(fd, 65600)[10 + (9 if version == 4 else 6)] == 6  # TCP: the kernel's own ICMPv6 is not counted
        except BlockingIOError:
            return n

with lanes.Lanes(3, (pool,), policy) as found:
    enter_private_network()
    found.open(addresses=(kernel,), networks=routed)
    with OwnServer(address, 80, mode="backlog", connections=3000):
        mine = found.lanes[active]
        table = ConnectionTable(4096, max_capacity=8192, profile=policy.replace(ip_local_port_range=mine.ports), seed=1)
        client = LoadClient(table, mine.fd, mine.sources, [(address, 80)], connecting_limit=3000)
        client.plan(hold=min(mine.pool, 3000))
        client.run(700_000_000)
        wrong = [waiting(lane.fd) for lane in found.lanes if lane is not mine]
        counts = client.counts()
        print(json.dumps([found.how, counts["established"], counts["packets_in"], wrong, min(mine.pool, 3000)]))
        client.cut()
        client.run(100_000_000)
"""


@pytest.mark.parametrize("active", [0, 2])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("way", "ports", "by"),
    [pytest.param("queue", "32768-60999", "by port", marks=steered),
     pytest.param("queue", "40000-40009", "by address", marks=steered), ("device", "32768-60999", "device")],
)  # fmt: skip
def test_no_packet_comes_into_another_lane(possible, way, ports, by, version, active):
    told = subprocess.run(
        [sys.executable, "-c", ALONE, str(version), way, ports, str(active)], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    how, established, packets, wrong, wanted = json.loads(told.stdout)
    assert by in how and established == wanted and packets >= wanted
    assert wrong == [0, 0]


FAILS = """
import json, os, sys, threading
from fasttcp.load import run
from fasttcp.load.lanes import Lanes
from fasttcp.load.scenario import Scenario

which, made = int(sys.argv[1]), []

class Watched(Lanes):
    def __init__(self, *given):
        super().__init__(*given)
        made.append(self)

run.Lanes = Watched

def progress(_):
    folder = os.open("/", os.O_RDONLY)
    os.dup2(folder, made[0].lanes[which].fd)  # reading it fails with EISDIR from now on
    os.close(folder)

class Refusing(run.ThreadPoolExecutor):
    def submit(self, *given):
        if self._threads:
            raise RuntimeError("can't start new thread")
        return super().submit(*given)

if which < 0:
    run.ThreadPoolExecutor = Refusing
before = sorted(os.listdir("/proc/self/fd"))
try:
    run.run_load(Scenario(hold=100, duration=30, threads=3), progress=progress)
    said = None
except (OSError, RuntimeError) as error:
    said = str(error)
try:
    children = os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    children = None
print(json.dumps([said, threading.active_count(), sorted(os.listdir("/proc/self/fd")) == before, children]))
"""


@pytest.mark.parametrize(
    ("which", "says"),
    [(0, "[Errno 21] the TUN device: Is a directory"), (2, "[Errno 21] the TUN device: Is a directory"),
     (-1, "can't start new thread")],
    ids=["the first", "the last", "one that does not start"],
)  # fmt: skip
def test_a_thread_that_fails_ends_the_run_and_leaves_nothing(possible, which, says):
    begin = time.monotonic()
    told = subprocess.run([sys.executable, "-c", FAILS, str(which)], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == [says, 1, True, None]
    assert time.monotonic() - begin < 20


NUMBERS = """
import selectors, socket, sys
listener = socket.create_server(("", 80), backlog=1000)
print("listens", flush=True)
poll = selectors.DefaultSelector()
poll.register(listener, selectors.EVENT_READ)
poll.register(sys.stdin, selectors.EVENT_READ)
while True:
    for key, _ in poll.select():
        if key.fileobj is sys.stdin:
            sys.exit()
        if key.fileobj is listener:
            poll.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        said = key.fileobj.recv(100)
        if said:
            print(*key.fileobj.getpeername(), said.decode().strip(), flush=True)
            key.fileobj.sendall(said)
        else:
            poll.unregister(key.fileobj)
            key.fileobj.close()
"""


def numbered(seed):
    """{n: (address, port)} of a load on a target, two threads."""
    with Namespace() as namespace:
        namespace.link_up("lo")
        server = namespace.popen(
            [sys.executable, "-c", NUMBERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout.readline() == "listens\n"
        client = namespace.popen(
            [
                sys.executable, "-m", "fasttcp", "load", "127.0.0.1:80", "--source", "198.19.5.0/24", "--hold", "101", "--churn",
                "100", "--duration", "500ms", "--threads", "2", "--request", "{n}\\n", "--expect", "line", "--seed", str(seed),
                "--json", "--quiet",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        out, err = client.communicate(timeout=30)
        assert client.returncode == 0, err
        told = json.loads(out)
        clean(told)
        seen, _ = server.communicate(timeout=10)
        found = {}
        for line in seen.splitlines():
            address, port, number = line.split()
            assert int(number) not in found, "two connections have one number"
            found[int(number)] = (str(ip_address(address)), int(port))
        assert len(found) == told["counts"]["opened"] > 110
        return found


@pytest.mark.skipif(bool(why_not()), reason=str(why_not()))
def test_numbers_are_unique_and_each_thread_follows_the_seed():
    first, again, other = numbered(7), numbered(7), numbered(8)
    for thread in (0, 1):  # what a thread opens first does not depend on time
        assert [first[n] for n in range(thread, 40, 2)] == [again[n] for n in range(thread, 40, 2)]
        assert first[thread] != other[thread]
    assert first[0][1] != first[1][1]
