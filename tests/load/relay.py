"""A path between a client and its TUN device that loses, delays and reorders packets, by lot. For scripts of this folder."""

import contextlib
import heapq
import os
import random
import select
import socket
import threading
import time


class Relay:
    """A client that is given `fd` has the TUN device at the other end. Each packet, both ways, is lost with the chance `loss`, and
    waits between `least` and `most` seconds, so that packets overtake each other. `close` ends it."""

    def __init__(self, tun, loss, least, most, seed):
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, self.theirs):
            end.setblocking(False)
            for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, size, 1 << 22)
        self.ours, self.fd, self.tun = ours, ours.fileno(), tun
        self.loss, self.wait, self.chance = loss, (least, most), random.Random(seed)
        self.over, self.lost, self.carried = False, 0, 0
        self.thread = threading.Thread(target=self.carry)
        self.thread.start()

    def carry(self):
        waiting, order = [], 0
        while not self.over:
            pause = max(0, waiting[0][0] - time.monotonic()) if waiting else 0.05
            for file in select.select([self.tun, self.theirs.fileno()], [], [], min(pause, 0.05))[0]:
                with contextlib.suppress(BlockingIOError):
                    while packet := os.read(file, 70000):
                        self.carried += 1
                        if self.chance.random() < self.loss:
                            self.lost += 1
                            continue
                        order += 1
                        into = self.theirs.fileno() if file == self.tun else self.tun
                        heapq.heappush(waiting, (time.monotonic() + self.chance.uniform(*self.wait), order, into, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, into, packet = heapq.heappop(waiting)
                try:
                    os.write(into, packet)
                except BlockingIOError:
                    self.lost += 1

    def counts(self):
        return self.lost, self.carried

    def close(self):
        self.over = True
        self.thread.join()
