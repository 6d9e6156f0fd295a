"""What the kernel says of its own TCP sockets, by NETLINK_SOCK_DIAG: the same source as `ss`, without needing it.

Source: linux/inet_diag.h, net/ipv4/inet_diag.c. States are given by RFC 9293's names.
"""

import errno
import socket
import struct
from ipaddress import ip_address
from typing import NamedTuple

from . import netlink
from .netns import Namespace

SOCK_DIAG_BY_FAMILY = 20
NO_COOKIE = b"\xff" * 8

# include/net/tcp_states.h, in the kernel's order from 1. NEW_SYN_RECV (12) is a request that no socket serves yet.
STATES = {
    1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RCVD", 4: "FIN_WAIT_1", 5: "FIN_WAIT_2", 6: "TIME_WAIT", 7: "CLOSED",
    8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "SYN_RCVD",
}  # fmt: skip

Endpoint = tuple[str, int]


class Socket(NamedTuple):
    """One end of a connection, or a listener (its remote port is 0)."""

    state: str
    local: Endpoint
    remote: Endpoint
    retransmits: int  # of what waits now, not in all
    receive_queue: int  # bytes that the application has not read
    send_queue: int  # bytes that the peer has not acknowledged


def _request(family: int, local: Endpoint, remote: Endpoint) -> bytes:
    packed = [ip_address(address).packed.ljust(16, b"\0") for address, _ in (local, remote)]
    identity = struct.pack("!HH", local[1], remote[1]) + packed[0] + packed[1] + struct.pack("=I", 0) + NO_COOKIE
    return struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + identity


def _socket(body: bytes) -> Socket:
    family, state, _, retransmits, sport, dport = struct.unpack_from("=BBBB2s2s", body)
    size = 4 if family == socket.AF_INET else 16
    local, remote = (str(ip_address(body[at : at + size])) for at in (8, 24))
    receive_queue, send_queue = struct.unpack_from("=II", body, 56)
    ports = [int.from_bytes(port, "big") for port in (sport, dport)]
    return Socket(STATES[state], (local, ports[0]), (remote, ports[1]), retransmits, receive_queue, send_queue)


def find(namespace: Namespace, local: Endpoint, remote: Endpoint) -> Socket | None:
    """The socket of exactly this 4-tuple, TIME_WAIT and half-open requests included; None if the kernel has none.

    A listener on the same port is not an answer. Cost: one hash look-up, some 20 us.
    """
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    with namespace.inside():
        try:
            answers = netlink.request(
                netlink.NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, 0, _request(family, local, remote)
            )
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
    found = _socket(answers[0])
    return found if (found.local, found.remote) == (local, remote) else None


def state(namespace: Namespace, local: Endpoint, remote: Endpoint) -> str:
    """The state of one end by name; CLOSED means that the kernel holds no socket for this 4-tuple."""
    found = find(namespace, local, remote)
    return found.state if found else "CLOSED"


def sockets(namespace: Namespace) -> list[Socket]:
    """All TCP sockets of a namespace, listeners and TIME_WAIT included. Walks the kernel's whole hash: milliseconds."""
    nowhere = {socket.AF_INET: ("0.0.0.0", 0), socket.AF_INET6: ("::", 0)}
    with namespace.inside():
        return [
            _socket(body)
            for family, end in nowhere.items()
            for body in netlink.request(
                netlink.NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, netlink.NLM_F_DUMP, _request(family, end, end)
            )
        ]
