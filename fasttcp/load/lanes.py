"""Lanes: one for each thread of a load, so that none shares anything with another. What is cut among them is the source pool:

    ports     1024..32767 | 32768..65535        or addresses    198.19.0.1 ... .127 | .128 ... .254
              lane 0      | lane 1                              lane 0              | lane 1

    steered   one TUN device with a queue a lane; a BPF program (steering.py) gives each packet to the lane whose port, or
              address, it is for. Either is cut, whichever there are more of: a single address serves many threads.
    routed    where BPF is refused: a device a lane, and routes that give each its addresses. Nothing is needed for it but an
              address for each lane.

Without either the kernel gives half of the answers to the wrong one of two queues (benchmarks/load/queues.py). One lane is one
device with one queue, and the whole pool. Invariants: the lanes' pools are disjoint, and together they are the whole pool; none
is empty. Must not know connections or threads.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, collapse_addresses, ip_network, summarize_address_range
from itertools import pairwise
from typing import Any

from fasttcp.load.device import Tun
from fasttcp.load.steering import Key, load_steering
from fasttcp.profiles import Profile

__all__ = ["Lane", "Lanes", "cut", "routes", "share_out", "source_addresses"]

MOST_SOURCES = 4096

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Lane:
    """What one thread has: a queue of packets, and its part of the pool."""

    fd: int  # Lanes closes it
    sources: list[bytes]  # packed, 16 bytes each
    ports: tuple[int, int]  # first and last
    pool: int  # addresses times ports that are not reserved


def source_addresses(networks: Sequence[str], most: int = MOST_SOURCES) -> list[Address]:
    """Addresses to connect from, each once. The network and broadcast address are left out, and the anycast address of an IPv6
    network's routers (RFC 4291 section 2.6.1), to which no kernel sends ICMP. ValueError for a mixture."""
    found: dict[Address, None] = {}
    for text in networks:
        network = ip_network(text, strict=False)
        few = network.num_addresses <= 2
        for at in range(0 if few else 1, network.num_addresses - (network.version == 4 and not few)):
            if len(found) >= most:
                break
            found[network.network_address + at] = None
    if len({each.version for each in found}) > 1:
        raise ValueError("the source networks are not all of one IP version")
    return list(found)


def cut(values: Sequence[int], many: int) -> list[int]:
    """Ascending values in so many parts, which differ by one at most: where each but the first begins."""
    return [values[-(-len(values) * part // many)] for part in range(1, many)]


def share_out(whole: int, weights: Sequence[int]) -> list[int]:
    """A whole number in parts that are in proportion to the weights.

    Their sum is exactly the whole; a larger whole makes no part smaller, and a whole that is no more than the weights together
    makes no part more than its weight (D'Hondt): so where the pool has room for what is held, each lane's part of it has.
    """
    total = sum(weights)
    parts = [whole * weight // total for weight in weights]
    for _ in range(whole - sum(parts)):
        parts[max(range(len(parts)), key=lambda i: Fraction(weights[i], parts[i] + 1))] += 1
    return parts


def routes(networks: Sequence[str], bounds: Sequence[int]) -> list[tuple[str, ...]]:
    """Networks cut at addresses, the bounds as numbers: for each lane what is to be routed to it."""
    found: list[list[str]] = [[] for _ in range(len(bounds) + 1)]
    given: Any = [ip_network(text, strict=False) for text in networks]
    for network in collapse_addresses(given):
        first, last = int(network.network_address), int(network.broadcast_address)
        for begin, end in pairwise([first, *(bound for bound in bounds if first < bound <= last), last + 1]):
            at = network.network_address
            parts = summarize_address_range(at + (begin - first), at + (end - 1 - first))
            found[bisect_right(bounds, begin)] += map(str, parts)
    return [tuple(each) for each in found]


class Lanes:
    """The lanes of a load, and the devices that they lead to; a context manager.

    Parameters
    ----------
    many : int
        How many.
    sources : sequence of str
        Networks: the source addresses of the pool.
    profile : Profile
        Whose port range is the pool's.

    To be made before a network of one's own is entered: no BPF program can be loaded in the user namespace around it, but one
    loaded outside serves there. `open` makes the devices. Raises ValueError for a pool that cannot be cut so.
    """

    def __init__(self, many: int, sources: Sequence[str], profile: Profile) -> None:
        self.lanes: list[Lane] = []
        self.how = ""
        self._many, self._program, self._bounds = many, -1, list[int]()
        self._tuns: list[Tun] = []
        self._addresses = source_addresses(sources)
        first, last = self._range = profile.ip_local_port_range
        reserved = set(profile.ip_local_reserved_ports)
        self._free = [port for port in range(first, last + 1) if port not in reserved]
        self._key = Key.ADDRESS
        if many > 1:
            self._cut(profile.port_choice == "even_first")

    def _cut(self, even_first: bool) -> None:
        addresses = sorted(map(int, self._addresses))
        # Such a search leaves out the last of an odd number of ports: each lane is to have an even one.
        places = self._free
        if even_first:
            pairs = {port - (port - self._range[0]) % 2 for port in places}
            places = sorted(pair for pair in pairs if pair < self._range[1])
        self._key = Key.PORT if len(places) >= len(addresses) else Key.ADDRESS
        values = places if self._key is Key.PORT else addresses
        if len(values) < self._many:
            raise ValueError(
                f"{self._many} threads have nothing to share: the pool has {len(addresses)} source addresses with "
                f"{len(self._free)} ports each; give more --source addresses or --ports"
            )
        self._bounds = cut(values, self._many)
        try:
            self._program = load_steering(self._key, self._addresses[0].version, self._bounds)
            self.how = f"each with a queue of one device, by {self._key.value}"
        except OSError as refusal:
            self._key = Key.ADDRESS
            if len(addresses) < self._many:
                raise ValueError(
                    f"{self._many} threads need {self._many} --source addresses, there are {len(addresses)}: give more; only "
                    f"root of the machine can have threads share one (BPF: {refusal.strerror})"
                ) from None
            self._bounds = cut(addresses, self._many)
            self.how = "each with a device of its own"

    def open(self, *, addresses: tuple[str, ...] = (), networks: tuple[str, ...] = ()) -> None:
        """Make the devices in the network of the calling thread; the arguments are Tun's. OSError as Tun's."""
        if self._many == 1 or self._program >= 0:
            self._tuns = [Tun(addresses=addresses, networks=networks, queues=self._many, steering=self._program)]
        else:
            for routed in routes(networks, self._bounds):
                self._tuns.append(Tun(addresses=() if self._tuns else addresses, networks=routed))
        edges = [self._range[0], *self._bounds, self._range[1] + 1]
        for number, fd in enumerate(fd for tun in self._tuns for fd in tun.fds):
            ports, mine = self._range, self._addresses
            if self._key is Key.PORT:
                ports = edges[number], edges[number + 1] - 1
            elif self._many > 1:
                mine = [each for each in mine if bisect_right(self._bounds, int(each)) == number]
            free = sum(ports[0] <= port <= ports[1] for port in self._free)
            self.lanes.append(Lane(fd, [_packed(each) for each in mine], ports, len(mine) * free))

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the interfaces."""
        return tuple(tun.name for tun in self._tuns)

    def route_loopback(self) -> None:
        """As Tun's, for every device."""
        for tun in self._tuns:
            tun.route_loopback()

    def close(self) -> None:
        self.lanes.clear()
        while self._tuns:
            self._tuns.pop().close()
        if self._program >= 0:
            os.close(self._program)
            self._program = -1

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _packed(address: Address) -> bytes:
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
