"""The host's TCP sockets, asked of Linux by NETLINK_SOCK_DIAG: what `ss` shows, TIME_WAIT and half-open ones included.

Only asking: SOCK_DIAG_BY_FAMILY with a dump never changes a socket. Layouts: linux/netlink.h, linux/inet_diag.h. States are
the kernel's numbers (include/net/tcp_states.h); what they mean is for upper floors to say.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

__all__ = ["HostSocket", "host_sockets"]

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
NLMSG_ERROR, NLMSG_DONE = 2, 3
ALL_STATES = 0xFFFFFFFF
LISTEN = 10  # for which the length of the send queue is the backlog

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI48s")  # struct inet_diag_req_v2 with an empty sockid
# struct inet_diag_msg: family, state, timer, retrans, ports and addresses (network order), ifindex, cookie, expires, queues
_MESSAGE = struct.Struct("=BBBB2s2s16s16sI8sIIIII")


class HostSocket(NamedTuple):
    """One socket of the host: the kernel's number of its state, its ends as packed addresses (4 or 16 bytes) and ports."""

    state: int
    local: bytes
    lport: int
    remote: bytes
    rport: int
    expires_ms: int  # until its timer fires; in TIME_WAIT: until it is gone
    uid: int
    inode: int  # 0: no process holds it
    backlog: int = 0  # of a listener: connections that can wait to be accepted
    waiting: int = 0  # of a listener: how many do

    @property
    def names(self) -> tuple[str, str]:
        """Both addresses as text."""
        kind = IPv4Address if len(self.local) == 4 else IPv6Address
        return str(kind(self.local)), str(kind(self.remote))


def host_sockets(states: int = ALL_STATES) -> Iterator[HostSocket]:
    """The TCP sockets of the network namespace of the calling thread, IPv4 first.

    states: bit 1 << state for each that is wanted. Raises OSError where the kernel refuses (no INET_DIAG, no netlink), or
    where this is not Linux. Cost: some 2 us a socket. A dump is no snapshot: sockets come and go while it is read.
    """
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError("the host's sockets are asked for by netlink, which only Linux has")
    for family in (socket.AF_INET, socket.AF_INET6):
        yield from _dump(family, states)


def _dump(family: int, states: int) -> Iterator[HostSocket]:
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, states, bytes(48))
    size = 4 if family == socket.AF_INET else 16
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as channel:
        channel.settimeout(10)
        request = _HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body
        channel.sendto(request, (0, 0))
        while True:
            data, at = channel.recv(1 << 18), 0
            while at + _HEADER.size <= len(data):
                length, kind, _, _, _ = _HEADER.unpack_from(data, at)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", data, at + _HEADER.size)
                    raise OSError(-code, f"the kernel does not list its sockets: {os.strerror(-code)}")
                if length < _HEADER.size + _MESSAGE.size or at + length > len(data):
                    raise OSError(f"a netlink message of {length} bytes, {_HEADER.size + _MESSAGE.size} are needed")
                told = _MESSAGE.unpack_from(data, at + _HEADER.size)
                _, state, _, _, lport, rport, local, remote, _, _, expires, unread, unsent, uid, inode = told
                yield HostSocket(
                    state, local[:size], int.from_bytes(lport, "big"), remote[:size], int.from_bytes(rport, "big"), expires,
                    uid, inode, *((unsent, unread) if state == LISTEN else ()),
                )  # fmt: skip
                at += (length + 3) & ~3
