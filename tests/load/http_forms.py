"""A load against answers of HTTP/1.1 in all their forms, from a server on the kernel's sockets that writes them in pieces of
its own choice; a process of its own, as it enters a private network.

    python http_forms.py [LOSS, HEAD]        JSON: counts, how many answers of each class the server gave
"""

import collections
import json
import random
import socket
import socketserver
import sys
import threading
import time

from relay import Relay

from fasttcp import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.device import Tun
from fasttcp.load.namespace import enter_private_network

loss, head = json.loads(sys.argv[1])
enter_private_network()
said, chance = collections.Counter(), random.Random(7)


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
            while answer:  # each piece is a segment of its own, or more
                n = chance.choice((1, 2, 20, 1000, 30_000))
                self.request.sendall(answer[:n])
                answer = answer[n:]


with Tun(addresses=("198.18.0.1/32",), networks=("198.19.0.0/16",)) as tun:
    socketserver.ThreadingTCPServer.request_queue_size = 100
    socketserver.ThreadingTCPServer.daemon_threads = True
    server = socketserver.ThreadingTCPServer(("198.18.0.1", 80), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    path = Relay(tun.fd, loss, 0, 0.01 if loss else 0, 7)
    table = ConnectionTable(4096, seed=5)
    client = LoadClient(
        table, path.fd, ["198.19.0.1", "198.19.0.2"], [("198.18.0.1", 80)], requests=5, life=("fixed", 0, 0), seed=5,
        request=(b"HEAD" if head else b"GET") + b" /{n} HTTP/1.1\r\nHost: a\r\n\r\n", end="http", line="^HTTP/1.1 [2345]..",
    )
    client.plan(hold=20)
    client.run(500_000_000)
    client.plan(opening=False)
    end = time.monotonic() + 40
    while client.counts()["live"] and time.monotonic() < end:     # each is asked all its requests
        client.run(20_000_000)
    client.end()
    while not client.over and time.monotonic() < end:
        client.run(20_000_000)
    client.check()
    path.close()
    server.shutdown()
    thread.join()
    print(json.dumps([client.counts(), said]))
