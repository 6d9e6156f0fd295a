"""The exchanges that are recorded, one function each: what the two applications do and what the wire does to them.

A function's docstring is the "what" of its JSON file. `EXCHANGES` lists them in this file's order. Must not know files.
"""

import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from kernel.frames import ACK, FIN, RST, SYN
from kernel.link import Frame, lose_first

from captures.scene import QUIET, Scene


class Exchange(NamedTuple):
    name: str
    what: str
    play: Callable[[Scene], None]
    options: dict[str, Any]  # for Scene


EXCHANGES: dict[str, Exchange] = {}


def exchange(**options: Any) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def register(play: Callable[[Scene], None]) -> Callable[[Scene], None]:
        assert play.__doc__ is not None
        EXCHANGES[play.__name__] = Exchange(play.__name__, " ".join(play.__doc__.split()), play, options)
        return play

    return register


def sends(side: str, flags: int, mask: int = SYN | FIN | RST | ACK) -> Callable[[Frame], bool]:
    """A rule for frames: sent by `side` with exactly these of SYN, FIN, RST, ACK."""
    return lambda frame: frame.side == side and frame.tcp is not None and frame.tcp.flags & mask == flags


def carries_data(side: str) -> Callable[[Frame], bool]:
    return lambda frame: frame.side == side and frame.tcp is not None and frame.tcp.length > 0


def request_and_response(scene: Scene) -> None:
    scene.send("a", 100)
    scene.settle()
    scene.receive("b")
    scene.send("b", 300)
    scene.settle()
    scene.receive("a")


def close_both(scene: Scene, first: str) -> None:
    """Four segments: the second end closes only after its ACK of the FIN is out."""
    second = "b" if first == "a" else "a"
    scene.close(first)
    scene.wait(a="FIN_WAIT_2" if first == "a" else None, b="FIN_WAIT_2" if first == "b" else None)
    scene.close(second)
    scene.settle()


# Opening and closing as the textbook has it.


@exchange()
def close_by_client(scene: Scene) -> None:
    """Request and response; the client closes first, in four segments, and stays in TIME_WAIT."""
    scene.open()
    request_and_response(scene)
    close_both(scene, "a")


@exchange()
def close_by_server(scene: Scene) -> None:
    """Request and response; the server closes first, in four segments, and stays in TIME_WAIT."""
    scene.open()
    request_and_response(scene)
    close_both(scene, "b")


@exchange()
def close_three_segments(scene: Scene) -> None:
    """The server closes at once when it sees the client's FIN: FIN, FIN+ACK, ACK; the client never is in FIN_WAIT_2."""
    scene.open()
    request_and_response(scene)
    scene.close("a")
    scene.wait(b="CLOSE_WAIT")
    scene.close("b")
    scene.settle()


@exchange()
def close_simultaneous(scene: Scene) -> None:
    """Both ends close before either FIN arrives: FIN_WAIT_1, CLOSING and TIME_WAIT on both sides."""
    scene.open()
    request_and_response(scene)
    scene.close("a")
    scene.close("b")
    scene.settle()


@exchange()
def open_simultaneous(scene: Scene) -> None:
    """Both ends connect from bound ports and their SYNs cross; data both ways, then the first end closes."""
    scene.socket("a")
    scene.socket("b")
    scene.connect("a")
    scene.connect("b")
    scene.wait(a="ESTABLISHED", b="ESTABLISHED")
    request_and_response(scene)
    close_both(scene, "a")


@exchange(recorded_at="loopback")
def self_connect(scene: Scene) -> None:
    """One socket connects to its own address and port, sends itself 50 bytes and closes: one tuple, one end."""
    scene.connect()
    scene.settle()
    scene.send("a", 50)
    scene.settle()
    scene.receive("a")
    scene.close("a")
    scene.settle()


@exchange()
def half_close(scene: Scene) -> None:
    """The client shuts down its sending side; the server still sends 2,500 bytes in three runs, then closes."""
    scene.open()
    scene.send("a", 100)
    scene.settle()
    scene.receive("b")
    scene.shutdown("a")
    scene.wait(a="FIN_WAIT_2")
    for count in (1000, 1000, 500):
        scene.send("b", count)
        scene.settle()
        scene.receive("a")
    scene.close("b")
    scene.settle()
    scene.close("a")


@exchange(version=6, neighbours=False)
def ipv6_close(scene: Scene) -> None:
    """IPv6, with the neighbour discovery before it: request and response, the client closes first, in four segments."""
    scene.open()
    request_and_response(scene)
    close_both(scene, "a")


@exchange(neighbours=False)
def arp_first(scene: Scene) -> None:
    """The ARP exchange before the SYN is in the capture; no data; the client closes first, in four segments."""
    scene.open()
    close_both(scene, "a")


@exchange(vlan=10)
def vlan(scene: Scene) -> None:
    """As on a trunk between two access ports: every frame carries an 802.1Q tag, VLAN 10. The server closes first."""
    scene.open()
    request_and_response(scene)
    close_both(scene, "b")


@exchange()
def data_both_ways(scene: Scene) -> None:
    """Both ends send at the same time, three rounds of 2,000 bytes each way that cross; the client closes."""
    scene.open()
    for _ in range(3):
        scene.send("a", 2000)
        scene.send("b", 2000)
        scene.settle()
        scene.receive("a")
        scene.receive("b")
    close_both(scene, "a")


# Resets and refusals.


@exchange()
def refused(scene: Scene) -> None:
    """Nobody listens on the port: SYN, RST+ACK."""
    scene.connect()
    scene.settle()
    scene.failure("a")


@exchange()
def reset_by_linger(scene: Scene) -> None:
    """The client closes with SO_LINGER 0 after a request and response: one RST ends both sides."""
    scene.open()
    request_and_response(scene)
    scene.abort("a")
    scene.settle()
    scene.receive("b")


@exchange()
def reset_unread_data(scene: Scene) -> None:
    """The server closes while 100 received bytes are unread: RST in place of FIN (RFC 1122, 4.2.2.13)."""
    scene.open()
    scene.send("a", 100)
    scene.settle()
    scene.close("b")
    scene.settle()
    scene.receive("a")


@exchange()
def reset_data_after_close(scene: Scene) -> None:
    """The client has closed completely (FIN_WAIT_2, no application) when data arrives: RST."""
    scene.open()
    scene.close("a")
    scene.wait(a="FIN_WAIT_2")
    scene.send("b", 200)
    scene.settle()
    scene.receive("b")


@exchange()
def reset_while_connecting(scene: Scene) -> None:
    """The client gives up while its SYN is on the way: the SYN+ACK meets no socket and is answered by RST."""
    scene.listen()
    scene.connect()
    scene.abort("a")
    scene.settle()


@exchange()
def forged_reset(scene: Scene) -> None:
    """A forged RST inside the window but not at RCV.NXT gets a challenge ACK (RFC 5961, 3.2); then a normal close."""
    scene.open()
    scene.forge("a", RST, 10)
    scene.settle()
    close_both(scene, "a")


@exchange()
def forged_syn(scene: Scene) -> None:
    """A forged SYN on an established connection gets a challenge ACK (RFC 5961, 4.2); then a normal close."""
    scene.open()
    scene.forge("a", SYN, 100_000)
    scene.settle()
    close_both(scene, "a")


@exchange(sysctls={"tcp_syn_retries": 1, "tcp_syn_linear_timeouts": 0})
def connect_timeout(scene: Scene) -> None:
    """A black hole: every SYN is lost; with tcp_syn_retries 1 the client gives up 3 s after the first."""
    scene.link.lose = sends("a", SYN)
    scene.connect()
    scene.wait(a="CLOSED")
    scene.failure("a")


# Loss. The wire records a frame before it loses it.


@exchange()
def syn_lost(scene: Scene) -> None:
    """The first SYN is lost and sent again after 1 s."""
    scene.link.lose = lose_first(1, sends("a", SYN))
    scene.listen()
    scene.connect()
    scene.wait(a="ESTABLISHED", b="ESTABLISHED")
    scene.accept()
    close_both(scene, "a")


@exchange()
def syn_ack_lost(scene: Scene) -> None:
    """The first SYN+ACK is lost; after 1 s it is sent again, and so is the SYN."""
    scene.link.lose = lose_first(1, sends("b", SYN | ACK))
    scene.listen()
    scene.connect()
    scene.wait(a="ESTABLISHED", b="ESTABLISHED")
    scene.settle()
    scene.accept()
    close_both(scene, "a")


@exchange()
def handshake_ack_lost(scene: Scene) -> None:
    """The ACK that ends the handshake is lost; the first data takes its place."""
    scene.link.lose = lose_first(1, sends("a", ACK))
    scene.listen()
    scene.connect()
    scene.settle()
    scene.send("a", 100)
    scene.settle()
    scene.accept()
    scene.receive("b")
    close_both(scene, "a")


@exchange()
def data_lost(scene: Scene) -> None:
    """The second of six segments is lost: duplicate ACKs with SACK, a fast retransmission, a normal close."""
    scene.open()
    lose = lose_first(1, carries_data("a"))
    scene.send("a", 1000)
    scene.settle()
    scene.link.lose = lose
    for _ in range(5):
        scene.send("a", 1000)
    scene.settle()
    scene.receive("b")
    close_both(scene, "a")


@exchange(recorded_at="a")
def data_lost_before_tap(scene: Scene) -> None:
    """Recorded at the receiving host: the second of six segments is lost before the tap and shows only as a hole."""
    scene.open()
    lose = lose_first(1, carries_data("b"))
    scene.send("b", 1000)
    scene.settle()
    scene.link.lose = lose
    for _ in range(5):
        scene.send("b", 1000)
    scene.settle()
    scene.receive("a")
    close_both(scene, "a")


@exchange(recorded_at="b")
def data_reordered(scene: Scene) -> None:
    """Recorded at the receiver: segments arrive as third, first, second; later a FIN before the data it follows."""
    scene.open()
    for _ in range(3):
        scene.send("a", 500)
    first, second, third = scene.link.collect()
    for frame in (third, first, second):
        scene.link.deliver(frame)
    scene.settle()
    scene.send("a", 400)
    scene.close("a")
    data, fin = scene.link.collect()
    for frame in (fin, data):
        scene.link.deliver(frame)
    scene.wait(a="FIN_WAIT_2")
    scene.receive("b")
    scene.close("b")
    scene.settle()


@exchange()
def fin_lost(scene: Scene) -> None:
    """The client's first FIN is lost and sent again."""
    scene.open()
    scene.link.lose = lose_first(1, sends("a", FIN | ACK))
    close_both(scene, "a")


@exchange()
def last_ack_lost(scene: Scene) -> None:
    """The ACK of the second FIN is lost: the server, in LAST_ACK, sends its FIN again and TIME_WAIT answers again."""
    scene.open()
    scene.close("a")
    scene.wait(a="FIN_WAIT_2")
    scene.link.lose = lose_first(1, sends("a", ACK))
    scene.close("b")
    scene.wait(b="CLOSED")
    scene.settle()


# Timers.


def short_keepalive(scene: Scene, side: str) -> None:
    scene.sockets[side].setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 2}.items():
        scene.sockets[side].setsockopt(socket.IPPROTO_TCP, option, value)


@exchange()
def keepalive_answered(scene: Scene) -> None:
    """The client probes after 1 s of silence, twice, and is answered; then it closes."""
    scene.open()
    request_and_response(scene)
    before = len(scene.writer.records)
    short_keepalive(scene, "a")
    scene.wait(packets=before + 4)
    close_both(scene, "a")


@exchange()
def keepalive_timeout(scene: Scene) -> None:
    """The server becomes unreachable: two probes, no answer; the client gives up with a RST that is lost as well."""
    scene.open()
    short_keepalive(scene, "a")
    scene.link.lose = lambda frame: True
    scene.wait(a="CLOSED")
    scene.settle()
    scene.receive("a")
    scene.closed_first_by = "a"  # by its timer, not by a call


@exchange(sysctls={"tcp_fin_timeout": 1})
def orphan_fin_wait_2(scene: Scene) -> None:
    """The client closes, the server never does: the orphan in FIN_WAIT_2 is gone after tcp_fin_timeout, no packet."""
    scene.open()
    scene.close("a")
    scene.wait(a="FIN_WAIT_2")
    scene.wait(a="CLOSED")


@exchange()
def zero_window(scene: Scene) -> None:
    """The server does not read: its window closes, the client probes; then it reads, the rest flows; a close."""
    scene.open(receive_buffer=4096)
    while scene.bytes["a"]["sent"] < 8000:
        scene.send("a", 1000)
        scene.settle(0.05)
    before = len(scene.writer.records)
    scene.wait(packets=before + 4)
    for _ in range(20):
        scene.receive("b")
        scene.settle(0.05)
        if scene.bytes["b"]["received"] == scene.bytes["a"]["sent"]:
            break
    close_both(scene, "a")


@exchange()
def time_wait_reopened(scene: Scene) -> None:
    """The client connects again from the same port while the server, which closed first, is in TIME_WAIT: it reopens.

    Two connections on one tuple; the second is left established; closed_first_by speaks of the first.
    """
    scene.open()
    request_and_response(scene)
    close_both(scene, "b")
    scene.connect()
    scene.wait(a="ESTABLISHED", b="ESTABLISHED")
    scene.accept()
    request_and_response(scene)


# A capture is a window in time.


@exchange()
def left_established(scene: Scene) -> None:
    """The capture ends while the connection is established."""
    scene.open()
    request_and_response(scene)


@exchange()
def left_half_closed(scene: Scene) -> None:
    """The capture ends half-closed: the client has sent its FIN, the server still sends."""
    scene.open()
    scene.shutdown("a")
    scene.wait(a="FIN_WAIT_2")
    scene.send("b", 300)
    scene.settle()


@exchange()
def left_connecting(scene: Scene) -> None:
    """The capture ends while the client waits for an answer to its SYN, which is lost."""
    scene.link.lose = sends("a", SYN)
    scene.connect()
    scene.settle()


@exchange()
def left_half_open(scene: Scene) -> None:
    """The capture ends while the server is in SYN_RCVD: its SYN+ACK is lost."""
    scene.link.lose = sends("b", SYN | ACK)
    scene.listen()
    scene.connect()
    scene.settle()


@exchange(recording=False)
def mid_stream(scene: Scene) -> None:
    """The capture begins on an established connection: data both ways, the client closes."""
    scene.open()
    request_and_response(scene)
    scene.settle(2 * QUIET)
    scene.bytes = {side: {"sent": 0, "received": 0} for side in "ab"}
    scene.record()
    request_and_response(scene)
    close_both(scene, "a")
