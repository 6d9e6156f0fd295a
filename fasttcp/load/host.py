"""This host as a plan sees it: its sysctls as a profile, its sockets, and how far it is from the wall. Nothing is changed.

Read are /proc/sys/net (files, opened for reading) and the list of sockets (packets/inet_diag.py).
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from fasttcp.errors import ProfileError
from fasttcp.load.loads import Load, sysctl_value
from fasttcp.packets.inet_diag import HostSocket, host_sockets
from fasttcp.profiles import PARAMETERS, Profile
from fasttcp.profiles import profile as find_profile
from fasttcp.spec import State

__all__ = ["Crowding", "HostState", "host_profile", "host_state"]

# include/net/tcp_states.h, from 1; 12 is a request that no socket serves yet
STATES = {
    1: State.ESTABLISHED, 2: State.SYN_SENT, 3: State.SYN_RCVD, 4: State.FIN_WAIT_1, 5: State.FIN_WAIT_2, 6: State.TIME_WAIT,
    7: State.CLOSED, 8: State.CLOSE_WAIT, 9: State.LAST_ACK, 10: State.LISTEN, 11: State.CLOSING, 12: State.SYN_RCVD,
}  # fmt: skip
#: parameters of a profile that have another name, or another place, in /proc/sys/net
PLACES = {"somaxconn": "core/somaxconn", "rto_min": "ipv4/tcp_rto_min_us", "rto_max": "ipv4/tcp_rto_max_ms"}
NOT_SYSCTLS = {"msl", "rto_initial", "timestamp_tick", "rcv_wnd", "rcv_wscale", "paws_idle", "iss_tick", "so_keepalive"}


def host_profile(root: str = "/proc/sys/net") -> tuple[Profile, dict[str, str]]:
    """The `linux` profile with this host's sysctls, and those sysctls as read, by name.

    What this kernel does not have keeps the profile's default. Raises OSError when there are none at all.
    """
    base = find_profile("linux")
    read: dict[str, str] = {}
    new = {}
    for name, parameter in PARAMETERS.items():
        if parameter.group != "endpoint" or name in NOT_SYSCTLS:
            continue
        try:
            with open(os.path.join(root, PLACES.get(name, "ipv4/" + name)), encoding="ascii") as file:
                text = " ".join(file.read().split())
        except OSError:
            continue
        try:
            value = parameter.convert(sysctl_value(name, text)) if text else parameter.convert(())
        except (ProfileError, ValueError):
            continue  # a value that the profile does not know, e.g. of a newer kernel: its default stands
        read[name] = text
        new[parameter.attribute] = value
    if not read:
        raise FileNotFoundError(2, "no sysctls of TCP are readable", root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return base.replace(**new), read


@dataclass(frozen=True, slots=True)
class Crowding:
    """Ports towards one remote end: how many of the ephemeral ones are in use, and in TIME_WAIT."""

    local: str
    remote: str
    rport: int
    used: int
    time_wait: int


@dataclass(frozen=True, slots=True)
class HostState:
    """The host's sockets counted. `pairs`: the most crowded first."""

    states: dict[State, int]
    pairs: list[Crowding]
    ports: int
    time_wait_limit: int | None
    orphan_limit: int | None
    unread_close_wait: int  # in CLOSE_WAIT and still held by a process

    def load(self, profile: Profile) -> Load | None:
        """The load that this host's own connects amount to, judged by its TIME_WAIT; None when there is none.

        Little's law backwards: what is in TIME_WAIT on an ephemeral port was opened and closed first by this host, and stays
        2MSL. Lifetime: what is alive, over the same rate. Connections that the other side closes first are not seen.
        """
        waiting = sum(pair.time_wait for pair in self.pairs)
        if not waiting:
            return None
        rate = waiting / (profile.time_wait_ns / 1e9)
        alive = sum(pair.used - pair.time_wait for pair in self.pairs)
        return Load(
            rate=rate, lifetime_ns=min(max(10**6, round(alive / rate * 1e9)), 86400 * 10**9),
            sources=len({pair.local for pair in self.pairs}),
            destinations=len({(pair.remote, pair.rport) for pair in self.pairs}),
        )  # fmt: skip

    def lines(self, profile: Profile, most: int = 5) -> list[str]:
        """What a reader wants to know first: how far from each wall."""
        total = self.states.get(State.TIME_WAIT, 0)
        out = ["sockets         " + ", ".join(f"{state.name} {n:,}" for state, n in sorted(self.states.items()) if n)]
        if self.time_wait_limit:
            out.append(
                f"TIME_WAIT       {total:,} of tcp_max_tw_buckets = {self.time_wait_limit:,} "
                f"({total / self.time_wait_limit:.1%}); beyond, connections do not wait"
            )
        wall = self.ports / (profile.time_wait_ns / 1e9)
        for pair in self.pairs[:most]:
            rate = pair.time_wait / (profile.time_wait_ns / 1e9)
            out.append(
                f"ports           {pair.local} -> {_place(pair.remote, pair.rport)}: {pair.used:,} of {self.ports:,} in use "
                f"({pair.used / self.ports:.1%}), {pair.time_wait:,} in TIME_WAIT: {rate:,.1f} connections/s closed here, "
                f"the wall is at {wall:,.0f}/s"
            )
        if not self.pairs:
            out.append(f"ports           none of {self.ports:,} ephemeral ports is in use; the wall is at {wall:,.0f}/s a pair")
        if self.unread_close_wait:
            out.append(
                f"CLOSE_WAIT      {self.unread_close_wait:,} connections that the peer has closed and a process here holds open"
            )
        return out


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def host_state(profile: Profile, sockets: Iterable[HostSocket] | None = None) -> HostState:
    """The host's sockets now (or those given), counted by state and by pair. Raises OSError."""
    states: Counter[State] = Counter()
    used: Counter[tuple[bytes, bytes, int]] = Counter()
    waiting: Counter[tuple[bytes, bytes, int]] = Counter()
    listening: set[int] = set()
    seen = []
    close_wait = 0
    for one in host_sockets() if sockets is None else sockets:
        state = STATES.get(one.state)
        if state is None:
            continue
        states[state] += 1
        close_wait += state is State.CLOSE_WAIT and one.inode != 0
        if state is State.LISTEN:
            listening.add(one.lport)
        else:
            seen.append((state, one))
    first, last = profile.ip_local_port_range
    for state, one in seen:
        # A listener's port in the ephemeral range: its connections came in, nobody here chose that port.
        if first <= one.lport <= last and one.lport not in listening:
            pair = (one.local, one.remote, one.rport)
            used[pair] += 1
            waiting[pair] += state is State.TIME_WAIT
    pairs = [
        Crowding(str(ip_address(local)), str(ip_address(remote)), rport, n, waiting[local, remote, rport])
        for (local, remote, rport), n in used.most_common()
    ]
    ports = last - first + 1 - sum(first <= port <= last for port in profile.ip_local_reserved_ports)
    return HostState(
        dict(states), pairs, ports, profile.tcp_max_tw_buckets, profile.tcp_max_orphans, close_wait
    )
