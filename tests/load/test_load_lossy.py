"""Loss, reordering and delay: all connections complete, and none leaks.

Each packet, in both directions, may be lost, and waits a time of its own, so that packets overtake each other. What the kernel
sends goes through netem where there is tc and the kernel has it; all else through a relay between the client and its TUN
device that draws lots. The test prints which of them it was.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = r"""
import heapq, json, os, random, select, shutil, socket, subprocess, sys, threading, time
from fasttcp import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.device import Tun
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.run import _kernel_established
from fasttcp.load.server import OwnServer

loss, least, most, connections, seed = json.loads(sys.argv[1])
enter_private_network()
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for end in (ours, theirs):
    end.setblocking(False)
    for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        end.setsockopt(socket.SOL_SOCKET, size, 1 << 22)
over, lost, carried = False, 0, 0

def tc(*words):
    return subprocess.run([shutil.which("tc") or "false", *words], capture_output=True, text=True)

def netem(device):
    middle, spread = (least + most) * 500, (most - least) * 500    # ms
    return not tc("qdisc", "add", "dev", device, "root", "netem", "limit", "100000", "loss", f"{loss * 100}%",
                  "delay", f"{middle}ms", f"{spread}ms").returncode

def relay(tun, by_netem):
    global lost, carried
    chance, waiting, order = random.Random(seed), [], 0
    while not over:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else 0.05
        for file in select.select([tun, theirs.fileno()], [], [], min(pause, 0.05))[0]:
            while True:
                try:
                    packet = os.read(file, 70000)
                except BlockingIOError:
                    break
                carried += 1
                done = file == tun and by_netem         # it has been lost, or has waited, already
                if not done and chance.random() < loss:
                    lost += 1
                    continue
                order += 1
                into = theirs.fileno() if file == tun else tun
                wait = 0 if done else chance.uniform(least, most)
                heapq.heappush(waiting, (time.monotonic() + wait, order, into, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, into, packet = heapq.heappop(waiting)
            try:
                os.write(into, packet)
            except BlockingIOError:
                lost += 1

with Tun(addresses=("198.18.0.1/32",), networks=("198.19.0.0/16",)) as tun, OwnServer("198.18.0.1", 80, body=5000):
    by_netem = netem(tun.name)
    thread = threading.Thread(target=relay, args=(tun.fd, by_netem))
    thread.start()
    table = ConnectionTable(4096, profile="linux", seed=seed)
    client = LoadClient(
        table, ours.fileno(), ["198.19.0.1", "198.19.0.2"], [("198.18.0.1", 80)], request=b"GET /{n} HTTP/1.1\r\n\r\n",
        end="content-length", line="^HTTP/1.1 200", requests=2, life=("exponential", 2e8, 0), seed=seed,
    )
    client.plan(hold=connections)
    client.run(1_000_000_000)
    client.plan(opening=False)
    client.end()
    end = time.monotonic() + 25
    while not client.over and time.monotonic() < end:
        client.run(100_000_000)
    client.check()
    time.sleep(3 * most)
    end = time.monotonic() + 10
    while _kernel_established() and time.monotonic() < end:     # our last ACK may be lost: TIME_WAIT answers
        client.run(100_000_000)
    client.check()
    states = {state.name: n for state, n in table.counts().items() if n}
    over = True
    thread.join()
    if by_netem:
        dropped = json.loads(tc("-j", "-s", "qdisc", "show", "dev", tun.name).stdout)[0]["drops"]
        lost, carried = lost + dropped, carried + dropped
    path = "netem and a relay" if by_netem else "a relay"
    print(json.dumps([client.counts(), states, lost, carried, _kernel_established(), path]))
"""


@pytest.mark.parametrize(
    ("loss", "least", "most"), [(0.01, 0.0, 0.005), (0.05, 0.04, 0.06)],
    ids=["1 percent, reordered", "5 percent, 50 ms, reordered"],
)  # fmt: skip
def test_all_connections_complete_and_none_leaks(loss, least, most):
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([loss, least, most, 60, 7])], capture_output=True, text=True, timeout=90
    )
    if "a network of its own" in told.stderr or "user namespace" in told.stderr or "/dev/net/tun" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stderr
    counts, states, lost, carried, established, path = json.loads(told.stdout)
    print(f"the path was {path}")
    assert counts["ok"] == counts["opened"] > 60 and counts["established"] == counts["opened"]
    assert counts["answered"] >= counts["opened"]
    assert (counts["live"], counts["closing"], established) == (0, 0, 0)
    assert set(states) <= {"TIME_WAIT"}
    assert carried > 1000
    if loss:
        assert 0.5 * loss < lost / carried < 2 * loss and counts["retransmitted"] > 0
