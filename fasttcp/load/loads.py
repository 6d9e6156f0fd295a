"""What is asked of `fasttcp plan`: a load, the hosts' policy, and changes to both by name.

Here stands how a load is written and checked, and how it becomes the script that the simulation repeats. What must not: any
rule of TCP, any result.

A change ("what if") is text, `NAME=VALUE[,NAME=VALUE...]`, where NAME is a name of the load (LOAD_NAMES), or a parameter of
the profile, with or without the sysctl's prefix (net.ipv4.tcp_tw_reuse). A bare number has the unit that the sysctl has.
"""

from __future__ import annotations

import difflib
import math
import random
import re
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fasttcp.errors import ProfileError
from fasttcp.parameters import to_ns
from fasttcp.profiles import PARAMETERS, Profile

__all__ = ["LOAD_NAMES", "Captured", "Load", "apply_changes", "parse_changes", "parse_ports", "parse_rate", "sysctl_value"]

LOAD_NAMES = ("rate", "lifetime", "sources", "destinations", "ports", "who_closes", "rtt", "peer_closes_after")
CLOSERS = {"client": 0.0, "server": 1.0, "mix": 0.5}
ANY_PAIR = 0xFFFFFFFF
RECORD = struct.Struct("=qqII")  # fasttcp.load.simulation.PLANNED
LEAST = 1000  # connections of a script
#: a bare number in /proc/sys has this unit; all others that are times are in seconds
UNITS = {"tcp_tw_reuse_delay": "ms", "tcp_invalid_ratelimit": "ms", "rto_min": "us", "rto_max": "ms"}
SPELLINGS = {"tcp_rto_min_us": "rto_min", "tcp_rto_max_ms": "rto_max"}


@dataclass(frozen=True, slots=True)
class Captured:
    """Connections as a capture has them: when (ns from its first), how long (ns), which pair, who closed first."""

    arrivals: tuple[tuple[int, int, int, int], ...]
    pairs: tuple[tuple[str, str, int], ...]
    period_ns: int  # the length of the capture; then it begins again
    name: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """A load: who connects to whom, how often, how long, and who closes first.

    rate: connections a second. lifetime_ns: from connect to the first close. sources, destinations: addresses on either side;
    each combination is a pair with ephemeral ports of its own. server_share: share of the connections that the server closes
    first, 0 to 1. rtt_ns: round-trip time. answer_ns: from receiving a FIN to closing as well; None: never. loopback: the
    addresses are of 127.0.0.0/8, for tcp_tw_reuse = 2. captured: replayed instead of rate, lifetime and closers.
    """

    rate: float
    lifetime_ns: int = 200_000_000
    sources: int = 1
    destinations: int = 1
    server_share: float = 0.0
    rtt_ns: int = 1_000_000
    answer_ns: int | None = 0
    loopback: bool = False
    captured: Captured | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1e7:
            raise ValueError(f"rate is {self.rate:g}/s: it must be more than 0 and at most 10,000,000/s")
        for name in ("sources", "destinations"):
            if not 1 <= getattr(self, name) <= 65536:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be from 1 to 65536")
        if self.sources * self.destinations > 1_000_000:
            raise ValueError(f"{self.sources} sources and {self.destinations} destinations are more than 1,000,000 pairs")
        if not 0 <= self.server_share <= 1:
            raise ValueError(f"who_closes: the server's share is {self.server_share}: it must be from 0 to 1")
        if not 2 <= self.rtt_ns <= 10 * 10**9:
            raise ValueError(f"rtt is {self.rtt_ns} ns: it must be from 2ns to 10s")

    @property
    def pairs(self) -> list[tuple[str, str, int]]:
        """(source, destination, destination port), one for each combination."""
        if self.captured is not None:
            return list(self.captured.pairs)
        base = 0x7F000000 if self.loopback else 0x0A000000
        hosts = [_dotted(base + 1 + i) for i in range(self.sources)]
        # Destinations: addresses of TEST-NET-1 in turn, then further ports of them. Loopback: ports only.
        places = [
            ("127.0.0.1" if self.loopback else _dotted(0xC0000201 + i % 200), 443 + (i if self.loopback else i // 200))
            for i in range(self.destinations)
        ]
        return [(host, *place) for host in hosts for place in places]

    @property
    def script(self) -> tuple[bytes, int]:
        """The records of one period for the simulation, and the period in ns."""
        if self.captured is not None:
            return b"".join(RECORD.pack(*one) for one in self.captured.arrivals), self.captured.period_ns
        # Whole seconds, and so many that chance in the order of closers does not repeat soon.
        many = max(1, round(self.rate * math.ceil(LEAST / self.rate)))
        closers = _closers(many, self.server_share)
        records = (
            RECORD.pack(int(i * 1e9 / self.rate), self.lifetime_ns, ANY_PAIR, closer) for i, closer in enumerate(closers)
        )
        return b"".join(records), max(1, round(many * 1e9 / self.rate))

    @property
    def busiest_share(self) -> float:
        """Share of the connections that the busiest pair gets."""
        if self.captured is None:
            return 1 / (self.sources * self.destinations)
        if self.captured.arrivals[0][2] == ANY_PAIR:
            return 1 / len(self.captured.pairs)
        counts = [0] * len(self.captured.pairs)
        for _, _, pair, _ in self.captured.arrivals:
            counts[pair] += 1
        return max(counts) / len(self.captured.arrivals)


def _closers(many: int, server_share: float) -> list[int]:
    """0 and 1 (the server), exactly that share of them, in an order without any pattern: a pattern could keep step with
    the pairs, or with the connections that take the ports of those before them."""
    closers = [1] * round(many * server_share)
    closers += [0] * (many - len(closers))
    random.Random(many).shuffle(closers)
    return closers


def _dotted(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def parse_rate(text: str) -> float:
    """"2000/s", "2000", "2k/s", "120/min": connections a second."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([kKM]?)\s*(?:/\s*(s|min|h))?\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is no rate: write it as 2000/s, 2k/s or 120/min")
    try:
        number = float(match[1])
    except ValueError:
        raise ValueError(f"{text!r} is no rate: {match[1]!r} is no number") from None
    return number * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6}[match[2]] / {None: 1, "s": 1, "min": 60, "h": 3600}[match[3]]


def parse_ports(text: str) -> tuple[int, int]:
    """"32768-60999" or "32768 60999": the first and the last port."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[-\s:]\s*(\d{1,5})\s*", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]) <= 65535:
        raise ValueError(f"{text!r} is no range of ports: write it as 32768-60999, the first not above the last")
    return int(match[1]), int(match[2])


def sysctl_value(name: str, text: str) -> Any:
    """The value of a parameter as a user or /proc/sys writes it, ready for `Profile.replace`."""
    parameter = PARAMETERS[name]
    text = text.strip()
    if parameter.none and text.lower() in ("none", "no limit", "unlimited", "for ever", "never", parameter.none):
        return None
    if parameter.kind == "range":
        return parse_ports(text)
    if parameter.kind == "ports":
        return tuple(
            port for part in re.split(r"[,\s]+", text) if part
            for port in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)
        )  # fmt: skip
    if parameter.kind == "time":
        return text + UNITS.get(name, "s") if re.fullmatch(r"[\d.]+", text) else text
    if parameter.kind == "flag":
        words = {"0": False, "1": True, "off": False, "on": True, "no": False, "yes": True, "false": False, "true": True}
        if text.lower() not in words:
            raise ProfileError(f"{name} = {text!r}: write 0 or 1")
        return words[text.lower()]
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def parse_changes(text: str) -> dict[str, str]:
    """"msl=30s,tcp_max_tw_buckets=5000" as {name: value}. Raises ValueError for anything else, naming what is wrong."""
    changes: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        name = name.strip().replace("-", "_")
        name = name.removeprefix("net.ipv4.").removeprefix("net.core.")
        name = SPELLINGS.get(name, name)
        if not sign or not value.strip():
            raise ValueError(f"{part.strip()!r} in {text!r}: write NAME=VALUE")
        if name not in LOAD_NAMES and name not in PARAMETERS:
            near = difflib.get_close_matches(name, [*LOAD_NAMES, *PARAMETERS], n=3, cutoff=0.5)
            hint = f"; nearest: {', '.join(near)}" if near else f"; of the load there are {', '.join(LOAD_NAMES)}"
            raise ValueError(f"{name!r} is neither a sysctl nor a name of the load{hint}")
        if name in changes:
            raise ValueError(f"{name} is given twice in {text!r}")
        changes[name] = value.strip()
    return changes


def apply_changes(load: Load, profile: Profile, changes: dict[str, str]) -> tuple[Load, Profile]:
    """The load and the profile with these changes. Raises ValueError (ProfileError) for a value out of range."""
    new: dict[str, Any] = {}
    policy: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "ports":
            policy["ip_local_port_range"] = parse_ports(value)
        elif name not in LOAD_NAMES:
            policy[name] = sysctl_value(name, value)
        elif name == "rate":
            new["rate"] = parse_rate(value)
        elif name in ("lifetime", "rtt"):
            new[name + "_ns"] = to_ns(value)
        elif name == "peer_closes_after":
            new["answer_ns"] = None if value == "never" else to_ns(value)
        elif name == "who_closes":
            new["server_share"] = parse_closer(value)
        else:
            if not value.isdecimal():
                raise ValueError(f"{name} is {value!r}: it must be a whole number")
            new[name] = int(value)
    if load.captured is not None and new:
        new["captured"] = _rewritten(load, new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tcp_tw_recycle: the plan itself says what it breaks
        return replace(load, **new), profile.replace(**policy) if policy else profile


def parse_closer(text: str) -> float:
    """"client", "server", "mix" (half of each), or the server's share as "30%"."""
    if text in CLOSERS:
        return CLOSERS[text]
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", text)
    if match is None or float(match[1]) > 100:
        raise ValueError(f"who closes: {text!r} is none of client, server, mix, nor the server's share as 30%")
    return float(match[1]) / 100


def _rewritten(load: Load, new: dict[str, Any]) -> Captured:
    """The capture with another rate, lifetime, closer, or number of sources or destinations."""
    old = load.captured
    assert old is not None
    arrivals: Sequence[tuple[int, int, int, int]] = old.arrivals
    pairs, period = old.pairs, old.period_ns
    if "rate" in new:
        scale = load.rate / new["rate"]
        period = max(1, round(period * scale))
        arrivals = [(min(int(at * scale), period - 1), life, pair, closer) for at, life, pair, closer in arrivals]
    if "lifetime_ns" in new:
        arrivals = [(at, new["lifetime_ns"], pair, closer) for at, _, pair, closer in arrivals]
    if "server_share" in new:
        share = new["server_share"]
        arrivals = [
            (at, life, pair, closer)
            for (at, life, pair, _), closer in zip(arrivals, _closers(len(arrivals), share), strict=True)
        ]
    if "sources" in new or "destinations" in new:
        plain = replace(load, captured=None, **{k: new[k] for k in ("sources", "destinations") if k in new})
        pairs = tuple(plain.pairs)
        arrivals = [(at, life, ANY_PAIR, closer) for at, life, _, closer in arrivals]
    return Captured(tuple(arrivals), pairs, period, old.name)
