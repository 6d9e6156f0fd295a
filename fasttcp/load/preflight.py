"""What stands in the way of a load, looked at before it: each thing with the command that mends it.

Nothing is changed here, and nothing is fatal: what cannot work at all fails where it is done. What cannot be seen from
here (the target's routes) is told of when nothing comes back.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from fasttcp.load.netlink import Route
from fasttcp.load.scenario import Scenario
from fasttcp.packets.inet_diag import LISTEN, host_sockets

__all__ = ["Preflight", "look", "silence"]

PAUSE = 0.1  # seconds in which a busy server may not accept: its queue has to hold what comes meanwhile
CONNTRACK_STAYS = 120  # seconds after a connection, sysctl nf_conntrack_tcp_timeout_time_wait
SPARE_FILES = 64


@dataclass
class Preflight:
    """What was found; each warning ends with what mends it."""

    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Listener:
    """The sockets of this machine that listen at a target: their accept queues together, how many are in them, and who accepts."""

    sockets: int
    backlog: int
    waiting: int
    pids: tuple[int, ...]  # without a parent that only holds them for its children; empty when they cannot be seen


def _path(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


def _read(name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError), open(_path(name)) as file:
        return int(file.read().split()[0])
    return None


def look(scenario: Scenario, target: tuple[str, int], route: Route | None, tuns: Sequence[str]) -> Preflight:
    """Look at this machine's settings, and at the target where it is this machine.

    route: by which the target is reached; None: the server is ours, in a network of its own. tuns: our devices. Cost: one
    look at each open file of each process when the target is this machine.
    """
    found = Preflight()
    if route is None:
        return found
    found.warnings += _conntrack(scenario)
    if route.local:
        found.warnings += _server(scenario, target)
    else:
        found.warnings += _forwarding(target[0], (*tuns, route.interface))
    return found


def silence(scenario: Scenario, target: str, route: Route | None) -> str | None:
    """What to say when the target has answered nothing at all; None for a server of our own."""
    if route is None:
        return None
    if route.local:
        with contextlib.suppress(OSError):
            listener = find_listener(*(scenario.target or (target, 0)))
            if listener is not None and listener.waiting > listener.backlog:
                queue = f"its accept queue is full (`ss -ltn`: Recv-Q {listener.waiting}, Send-Q {listener.backlog})"
                return f"nothing has come back from {target}: {queue}; the server does not accept"
        return f"nothing has come back from {target}: a firewall of this machine (`nft list ruleset`) drops what it is sent"
    back = "; ".join(f"ip route add {network} via {route.source or 'THIS_MACHINE'}" for network in scenario.source)
    text = f"nothing has come back from {target}: the answers need a route to here, on the target or on its router: `{back}`"
    text += "; and no firewall between may drop them (here: `nft list ruleset`, FORWARD)"
    if ip_address(target).version == 4 and _read("net.ipv4.conf.all.rp_filter") == 1:
        text += "; if they come in by another interface than they go out, `sysctl -w net.ipv4.conf.all.rp_filter=2`"
    return text


def _forwarding(target: str, devices: tuple[str, ...]) -> list[str]:
    """Packets pass from the one device to the other only if both forward."""
    version = ip_address(target).version
    key = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
    shut = [each for each in devices if _read(f"net.ipv{version}.conf.{each}.forwarding") == 0]
    if not shut:
        return []
    mend = [f"{key}=1"] if _read(key) == 0 else [f"net.ipv{version}.conf.{each}.forwarding=1" for each in shut]
    return [f"this machine does not forward packets, so nothing reaches the target: `sysctl -w {' '.join(mend)}`"]


def _conntrack(scenario: Scenario) -> list[str]:
    name = "net.netfilter.nf_conntrack_max"
    limit, used = _read(name), _read("net.netfilter.nf_conntrack_count")
    rate = max([scenario.rate, scenario.churn, *(max(each.rate, each.churn or 0) for each in scenario.stage)])
    needed = round(scenario.most_held + rate * min(scenario.seconds, CONNTRACK_STAYS))
    if limit is None or used is None or limit - used > needed:
        return []
    where = "" if os.access(_path(name), os.W_OK) else " outside of this network namespace"
    mend = f"`sysctl -w {name}={used + needed * 5 // 4 + 1000}`{where}"
    return [f"conntrack has room for {limit - used} connections more, this load may need {needed}: {mend}"]


def _server(scenario: Scenario, target: tuple[str, int]) -> list[str]:
    """What a server on this machine may lack."""
    with contextlib.suppress(OSError):  # a kernel that does not list its sockets
        listener = find_listener(*target)
        if listener is None:
            return [f"nothing on this machine listens at {target[0]} port {target[1]} (`ss -ltn`): start the server"]
        return _backlog(scenario, listener) + _files(scenario, listener)
    return []


def _backlog(scenario: Scenario, listener: Listener) -> list[str]:
    holds = scenario.hold or any(each.hold for each in scenario.stage)
    rate = max([scenario.rate, *(each.rate for each in scenario.stage)])
    burst = max(min(scenario.connecting, scenario.most_held) if holds else 0, math.ceil(rate * PAUSE))
    if listener.backlog + listener.sockets >= burst:  # a queue takes one more than it was given
        return []
    text = f"the server's accept queue has room for {listener.backlog} connections (`ss -ltn`: Send-Q), {burst} may come at once: "
    most = _read("net.core.somaxconn") or 0
    if most * listener.sockets < burst:
        return [f"{text}`sysctl -w net.core.somaxconn=65535`, then start the server again"]
    return [f"{text}let it listen with a larger backlog (nginx: `listen 80 backlog=65535`)"]


def _files(scenario: Scenario, listener: Listener) -> list[str]:
    """A connection is an open file of the process that accepts it."""
    room = sum(max(0, _file_limit(pid) - SPARE_FILES) for pid in listener.pids)
    many = len(listener.pids)
    if not many or room >= scenario.most_held:
        return []
    each = math.ceil(scenario.most_held * (1 if many == 1 else 1.25) / many) + 2 * SPARE_FILES
    text = f"the server can have some {room} connections open, {scenario.most_held} are to be held: `"
    if each > (_read("fs.nr_open") or each):
        text += f"sysctl -w fs.nr_open={each}; "
    mend = "; ".join(f"prlimit --pid {pid} --nofile={each}" for pid in listener.pids)
    return [f"{text}{mend}`"]


def _file_limit(pid: int) -> int:
    """Files that a process may have open; as good as no limit when it cannot be read."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open(f"/proc/{pid}/limits") as file:
        line = next(line for line in file if line.startswith("Max open files"))
        return int(line.split()[3])
    return 1 << 40


def find_listener(address: str, port: int) -> Listener | None:
    """Who listens at an address and port of this network. OSError when the kernel does not list its sockets."""
    given = ip_address(address)
    takes = {given.packed, bytes(4), bytes(16)} if given.version == 4 else {given.packed, bytes(16)}
    if given.version == 4:
        takes.add(bytes(10) + b"\xff\xff" + given.packed)
    found = [one for one in host_sockets(1 << LISTEN) if one.lport == port and one.local in takes]
    if not found:
        return None
    backlog, waiting = sum(one.backlog for one in found), sum(one.waiting for one in found)
    return Listener(len(found), backlog, waiting, _holders({one.inode for one in found}))


def _holders(inodes: set[int]) -> tuple[int, ...]:
    names = {f"socket:[{inode}]" for inode in inodes}
    parents = {}
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError), os.scandir(f"/proc/{entry}/fd") as files:
            if any(os.readlink(file.path) in names for file in files):
                with open(f"/proc/{entry}/stat") as file:
                    parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
    return tuple(sorted(pid for pid in parents if pid not in parents.values()))
