"""What stands in the way of a load, looked at before it: each thing with the command that mends it.

Nothing is changed here, and nothing is fatal: what cannot work at all fails where it is done.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from ipaddress import ip_address

from fasttcp.load.netlink import local_addresses
from fasttcp.load.scenario import Scenario

__all__ = ["Preflight", "look"]


@dataclass
class Preflight:
    """What was found; each warning ends with what mends it."""

    warnings: list[str] = field(default_factory=list)


def _read(name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError), open("/proc/sys/" + name.replace(".", "/")) as file:
        return int(file.read().split()[0])
    return None


def look(scenario: Scenario, target: tuple[str, int], own: bool) -> Preflight:
    """Look at the target and at this machine's settings. `own`: the server is ours, in a network of its own."""
    found = Preflight()
    say = found.warnings.append
    if own:
        return found
    address = ip_address(target[0])
    local = str(address) in local_addresses() or address.is_loopback
    key = "net.ipv4.ip_forward" if address.version == 4 else "net.ipv6.conf.all.forwarding"
    if not local and _read(key) == 0:
        say(f"this machine does not forward, so the target will never hear of us: `sysctl -w {key}=1`")
    if not local:
        for network in scenario.source:
            say(
                f"the target's network must route {network} to this machine: `ip route add {network} via THIS_MACHINE` "
                "on the target or its router"
            )
    limit, used = _read("net.netfilter.nf_conntrack_max"), _read("net.netfilter.nf_conntrack_count")
    if limit is not None and used is not None and limit - used < scenario.most_held * 1.1 + 1000:
        say(
            f"conntrack has room for {limit - used} connections more: `sysctl -w net.netfilter.nf_conntrack_max="
            f"{round(scenario.most_held * 1.5) + used + 100_000}`, or `iptables -t raw -A PREROUTING -j NOTRACK`"
        )
    if local:
        backlog = _read("net.core.somaxconn")
        if backlog is not None and backlog < scenario.connecting:
            say(f"the target's accept queue is at most {backlog}: `sysctl -w net.core.somaxconn=65535`")
        files = _read("fs.nr_open")
        if files is not None and files < scenario.most_held:
            say(
                f"a server process can have {files} files open, {scenario.most_held} connections need more: "
                f"`sysctl -w fs.nr_open={scenario.most_held * 2}` and `ulimit -n` likewise"
            )
    rp_filter = _read("net.ipv4.conf.all.rp_filter")
    if rp_filter == 1 and address.version == 4 and not local:
        say("strict reverse path filtering may drop answers: `sysctl -w net.ipv4.conf.all.rp_filter=2`")
    return found
