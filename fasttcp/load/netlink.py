"""What the load tester asks of the kernel's routing: interfaces up, addresses, routes, by rtnetlink.

One request, its answer, errors as OSError with the kernel's errno. It needs no `ip` command, and works in a user
namespace of one's own as for root. Layouts: linux/netlink.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address, ip_interface, ip_network
from typing import NamedTuple

__all__ = ["Route", "add_address", "add_route", "interface_up", "local_addresses", "route_to"]

NETLINK_ROUTE = 0
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 20, 22, 24, 26
IFLA_MTU, IFLA_TXQLEN = 4, 13
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_PREFSRC = 1, 4, 7
IFF_UP, IFA_F_NODAD = 1, 2
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST, RTN_LOCAL = 254, 3, 0, 253, 1, 2


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def _attributes(body: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, at)
        if length < 4:
            break
        found[kind] = body[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _request(kind: int, flags: int, body: bytes) -> list[bytes]:
    """The bodies of the answers; none for a bare acknowledgment."""
    answers: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as channel:
        channel.settimeout(5)
        channel.sendto(struct.pack("=IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, 1, 0) + body, (0, 0))
        while True:
            data, at = channel.recv(1 << 18), 0
            while at < len(data):
                length, answer, _, _, _ = struct.unpack_from("=IHHII", data, at)
                payload = data[at + 16 : at + length]
                if answer == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", payload)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return answers
                if answer == NLMSG_DONE:
                    return answers
                answers.append(payload)
                if not flags & (NLM_F_ACK | NLM_F_DUMP):
                    return answers
                at += (length + 3) & ~3


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def interface_up(name: str, *, mtu: int | None = None, queue: int | None = None) -> None:
    """Bring an interface up; with an MTU (bytes) and a length of its queue (packets) if given."""
    attributes = b""
    if mtu is not None:
        attributes += _attribute(IFLA_MTU, struct.pack("=I", mtu))
    if queue is not None:
        attributes += _attribute(IFLA_TXQLEN, struct.pack("=I", queue))
    header = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(name), IFF_UP, IFF_UP)
    _request(RTM_NEWLINK, NLM_F_ACK, header + attributes)


def add_address(name: str, address: str) -> None:
    """Give an interface an address such as "198.18.0.1/32", usable at once."""
    given = ip_interface(address)
    header = struct.pack(
        "=BBBBI", _family(given.version), given.network.prefixlen, IFA_F_NODAD, 0, socket.if_nametoindex(name)
    )
    attributes = b"".join(_attribute(kind, given.ip.packed) for kind in (IFA_ADDRESS, IFA_LOCAL))
    _request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, header + attributes)


def add_route(name: str, network: str) -> None:
    """Send what is for a network, such as "198.19.0.0/16", to an interface."""
    given = ip_network(network)
    header = struct.pack(
        "=BBBBBBBBI", _family(given.version), given.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT,
        RT_SCOPE_LINK if given.version == 4 else RT_SCOPE_UNIVERSE, RTN_UNICAST, 0,
    )  # fmt: skip
    attributes = _attribute(RTA_DST, given.network_address.packed)
    attributes += _attribute(RTA_OIF, struct.pack("=i", socket.if_nametoindex(name)))
    _request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, header + attributes)


def local_addresses() -> list[str]:
    """All addresses of this machine, or namespace."""
    found = []
    for body in _request(RTM_GETADDR, NLM_F_DUMP, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
        parts = _attributes(body[8:])
        packed = parts.get(IFA_LOCAL) or parts.get(IFA_ADDRESS)
        if packed:
            found.append(str(ip_address(packed)))
    return found


class Route(NamedTuple):
    """How this machine would send to an address."""

    interface: str
    local: bool  # the address is its own
    source: str  # which of its addresses it would send from; "": none


def route_to(address: str) -> Route:
    """The route to an address. Raises OSError when there is none."""
    given = ip_address(address)
    header = struct.pack("=BBBBBBBBI", _family(given.version), given.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body = _request(RTM_GETROUTE, 0, header + _attribute(RTA_DST, given.packed))[0]
    found = _attributes(body[12:])
    (index,) = struct.unpack("=i", found.get(RTA_OIF, b"\0\0\0\0"))
    source = found.get(RTA_PREFSRC)
    return Route(
        socket.if_indextoname(index) if index else "", body[7] == RTN_LOCAL, str(ip_address(source)) if source else ""
    )
