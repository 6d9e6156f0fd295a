"""Answers of HTTP/1.1 in all their forms, from a server on the kernel's sockets that writes them in pieces of its own choice; and
their statuses in what is reported.

The client has a socket instead of its device; a thread carries packets between the two, and may lose and delay some, so that
chunks come behind holes.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = r"""
import collections, heapq, json, os, random, select, socket, socketserver, sys, threading, time
from fasttcp import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.device import Tun
from fasttcp.load.namespace import enter_private_network

loss, head = json.loads(sys.argv[1])
enter_private_network()
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for end in (ours, theirs):
    end.setblocking(False)
    for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        end.setsockopt(socket.SOL_SOCKET, size, 1 << 22)
over, said, chance = False, collections.Counter(), random.Random(7)

def chunked(*sizes, extension=b"", trailers=b""):
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (n, extension, b"0\r\n\r\n" * (n // 5) + b"x" * (n % 5)) for n in sizes)
    return b"HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"

COUNTED = b"HTTP/1.1 %d OK\r\nContent-Length: 3000\r\n\r\n" + b"x" * 3000
ANSWERS = [
    (200, chunked(1, 17, 255)), (200, chunked(50_000, 3, 20_000, extension=b';a="b"')), (200, COUNTED),
    (200, b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + chunked(5, trailers=b"A: b\r\nC: d\r\n")),
    (204, b"HTTP/1.1 %d No Content\r\nTransfer-Encoding: chunked\r\n\r\n"), (404, chunked(*[700] * 30)),
    (304, b"HTTP/1.1 %d Not Modified\r\nContent-Length: 3000\r\n\r\n"), (503, COUNTED),
]

class Server(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for line in self.request.makefile("rb"):
            if line != b"\r\n":
                continue
            status, answer = chance.choice(ANSWERS)
            said[status // 100] += 1
            answer = answer.replace(b"%d", b"%d" % status)
            if head:
                end = answer.index(b"\r\n\r\n", answer.index(b" %d " % status))
                answer = answer[:end + 4]
            while answer:       # each piece is a segment of its own, or more
                n = chance.choice((1, 2, 20, 1000, 30_000))
                self.request.sendall(answer[:n])
                answer = answer[n:]

def relay(tun):
    waiting, order = [], 0
    while not over:
        for file in select.select([tun, theirs.fileno()], [], [], 0.005)[0]:
            while True:
                try:
                    packet = os.read(file, 70000)
                except BlockingIOError:
                    break
                if chance.random() >= loss:
                    order += 1
                    wait = chance.uniform(0, 0.01) if loss else 0
                    heapq.heappush(waiting, (time.monotonic() + wait, order, theirs.fileno() if file == tun else tun, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, into, packet = heapq.heappop(waiting)
            os.write(into, packet)

with Tun(addresses=("198.18.0.1/32",), networks=("198.19.0.0/16",)) as tun:
    socketserver.ThreadingTCPServer.request_queue_size = 100
    socketserver.ThreadingTCPServer.daemon_threads = True
    server = socketserver.ThreadingTCPServer(("198.18.0.1", 80), Server)
    threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=relay, args=(tun.fd,))]
    for each in threads:
        each.start()
    table = ConnectionTable(4096, seed=5)
    client = LoadClient(
        table, ours.fileno(), ["198.19.0.1", "198.19.0.2"], [("198.18.0.1", 80)], requests=5, life=("fixed", 0, 0), seed=5,
        request=(b"HEAD" if head else b"GET") + b" /{n} HTTP/1.1\r\nHost: a\r\n\r\n", end="http", line="^HTTP/1.1 [2345]..",
    )
    client.plan(hold=20)
    client.run(500_000_000)
    client.plan(opening=False)
    end = time.monotonic() + 40
    while client.counts()["live"] and time.monotonic() < end:       # each is asked all its requests
        client.run(20_000_000)
    client.end()
    while not client.over and time.monotonic() < end:
        client.run(20_000_000)
    client.check()
    over = True
    server.shutdown()
    for each in threads:
        each.join()
    print(json.dumps([client.counts(), said]))
"""


@pytest.mark.parametrize(("loss", "head"), [(0, False), (0, True), (0.02, False)], ids=["", "HEAD", "2 percent lost, reordered"])
def test_every_answer_of_a_connection_ends_where_it_ends(loss, head):
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([loss, head])], capture_output=True, text=True, timeout=90
    )
    if "a network of its own" in told.stderr or "user namespace" in told.stderr or "/dev/net/tun" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stderr
    counts, said = json.loads(told.stdout)
    assert counts["ok"] == counts["opened"] >= 20 and counts["answered"] == 5 * counts["opened"]
    assert {digit: counts[f"http_{digit}xx"] for digit in said} == said and len(said) == 4
    if loss:
        assert counts["retransmitted"] > 0


def served(answer, *arguments, **more):
    """A load against `fasttcp serve` with this answer: exit status, and what is said."""
    load = f"'{sys.executable}' -m fasttcp load 198.19.0.1:80 --source 198.18.64.0/24 --hold 20 --life 0 --duration 300ms --http"
    told = subprocess.run(
        [sys.executable, "-m", "fasttcp", "serve", "--answer", answer, "--run", " ".join([load, "--quiet", *arguments])],
        capture_output=True, text=True, timeout=60, **more,
    )  # fmt: skip
    if "a network of its own" in told.stderr or "user namespace" in told.stderr or "/dev/net/tun" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    return told


def test_statuses_are_reported_where_one_is_an_error(tmp_path):
    page = tmp_path / "page.html"
    told = served(
        r"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "--requests", "3", "--fail-if",
        "'http_5xx > 0'", "--html", str(page),
    )  # fmt: skip
    assert told.returncode == 99 and "http_5xx > 0" in told.stderr
    (line,) = [each for each in told.stdout.splitlines() if each.startswith("status ")]
    assert line.startswith("status       5xx ") and told.stdout.index("  ok ") < told.stdout.index(line)
    assert f"<p>HTTP status: {line[13:]}.</p>" in page.read_text()
    assert not [name for name in ("refused", "reset", "unexpected") if f"  {name} " in told.stdout]


def test_statuses_are_counted_over_all_threads_and_not_said_where_none_is_an_error():
    told = served(r"HTTP/1.1 204 \r\n\r\n", "--threads", "2", "--json")
    report = json.loads(told.stdout[told.stdout.index("{") : told.stdout.rindex("}") + 1])
    assert report["counts"]["http_2xx"] == report["counts"]["answered"] == report["outcomes"]["ok"] > 20
    assert sum(each["counts"]["http_2xx"] for each in report["threads"]) == report["counts"]["http_2xx"]
    assert "status  " not in served(r"HTTP/1.1 204 \r\n\r\n").stdout
