"""`fasttcp serve` for real: the kernel's clients, and fasttcp's, against the endpoint seat as the server. All tests run twice:
with an io_uring, and where the kernel refuses one."""

import json
import subprocess
import sys

import pytest

from load.refusal import BEFORE

pytestmark = pytest.mark.usefixtures("both_ways")

CLIENT = r"""
import os, socket, sys, threading, time
mode, n = sys.argv[1], int(sys.argv[2])
address = sys.argv[3] if len(sys.argv) > 3 else "198.19.0.3"
data = os.urandom(n)
def one(result, i):
    end = socket.create_connection((address, 80), timeout=20)
    def send():
        end.sendall(data)
        end.shutdown(socket.SHUT_WR)
    thread = threading.Thread(target=send)
    thread.start()
    got = b""
    while piece := end.recv(1 << 20):
        got += piece
    thread.join()
    result[i] = got == (data if mode == "echo" else b"")
result = [None] * 5
threads = [threading.Thread(target=one, args=(result, i)) for i in range(5)]
began = time.monotonic()
for each in threads: each.start()
for each in threads: each.join()
assert all(result), result
print("seconds", time.monotonic() - began)
"""


def serve(*arguments, command, timeout=60):
    quoted = " ".join(f"'{word}'" for word in command)
    told = subprocess.run(
        [*BEFORE, sys.executable, "-m", "fasttcp", "serve", "--json", "--run", quoted, *arguments],
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    if "a network of its own" in told.stderr or "user namespace" in told.stderr or "/dev/net/tun" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stderr
    *said, counts = told.stdout.strip().splitlines()
    assert json.loads(counts)["io_uring"] == 0 or not BEFORE
    return said, json.loads(counts)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    file = tmp_path_factory.mktemp("serve") / "client.py"
    file.write_text(CLIENT)
    return [sys.executable, str(file)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", ["echo", "sink"])
def test_kernel_clients_get_back_what_they_sent_or_nothing(client, mode, version):
    more = ["2001:2:0:1::7"] if version == 6 else []
    said, counts = serve("--mode", mode, *(["--ipv6"] if more else []), command=[*client, mode, "500000", *more])
    assert said[0].startswith("seconds")
    assert counts["accepted"] == 5 and counts["payload_in"] == 5 * 500_000
    assert counts["ended"] + sum(counts["states"].values()) == 5


def test_a_slow_reader_shuts_its_window(client):
    # 200,000 bytes at 100,000 a second, 65,535 of them in the window: the client cannot be done before.
    said, counts = serve("--mode", "slow", "--read-rate", "100k", command=[*client, "slow", "200000"])
    assert 1.0 < float(said[0].split()[1]) < 10
    assert counts["payload_in"] == 5 * 200_000


@pytest.mark.parametrize("close", [False, True])
def test_fasttcp_against_fasttcp(close):
    load = [
        sys.executable, "-m", "fasttcp", "load", "198.19.0.1:80", "--source", "198.18.64.0/24", "--rate", "500", "--http",
        "--duration", "1s", "--json", "--quiet", "--close", "peer" if close else "fin",
    ]  # fmt: skip
    said, counts = serve(*(["--close"] if close else []), command=load)
    told = json.loads("\n".join(said))
    assert told["outcomes"]["ok"] == told["counts"]["opened"] == counts["accepted"] == counts["answers"] > 300
    assert (counts["states"].get("TIME_WAIT", 0) > 0) == close, "who closes first has the TIME_WAIT"


def test_a_port_nobody_listens_on_refuses():
    load = [
        sys.executable, "-m", "fasttcp", "load", "198.19.0.1:81", "--source", "198.18.64.0/24", "--rate", "200", "--duration",
        "200ms", "--json", "--quiet",
    ]  # fmt: skip
    said, counts = serve(command=load)
    told = json.loads("\n".join(said))
    assert told["outcomes"]["refused"] == told["counts"]["opened"] > 0 and counts["accepted"] == 0


def test_syn_cookies_whose_ack_brings_the_request():
    load = [
        sys.executable, "-m", "fasttcp", "load", "198.19.0.1:80", "--source", "198.18.64.0/24", "--hold", "200", "--life", "0",
        "--http", "--duration", "500ms", "--json", "--quiet",
    ]  # fmt: skip
    said, counts = serve("--backlog", "1", command=load)
    told = json.loads("\n".join(said))
    assert told["outcomes"]["ok"] == told["counts"]["opened"] == counts["accepted"] > 200
    assert counts["answers"] == told["counts"]["answered"]
