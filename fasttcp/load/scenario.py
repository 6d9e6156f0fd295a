"""A load as data: what is opened, said, expected and closed, and when. Read from words, checked, nothing done yet.

Must not know sockets, devices or terminals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address, ip_network
from typing import Any

__all__ = [
    "CHOICES", "Scenario", "Stage", "count", "draw", "http_get", "is_safe", "per_second", "seconds", "source_network", "stage",
]  # fmt: skip

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
SCALE = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
SAFE = (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # loopback; RFC 1918
    "198.18.0.0/15", "2001:2::/48",  # benchmarks: RFC 2544, RFC 5180
    "::1/128", "fc00::/7",  # loopback; RFC 4193
)  # fmt: skip
SAFE_NETWORKS = tuple(ip_network(text) for text in SAFE)
NOBODYS = (  # no host sends from these, so no kernel answers to them
    ("0.0.0.0/8", "'this network'"), ("127.0.0.0/8", "loopback"),  # RFC 1122 section 3.2.1.3
    ("224.0.0.0/4", "multicast"), ("240.0.0.0/4", "reserved or broadcast"),  # RFC 5771; RFC 1112 section 4, RFC 919
    ("::/128", "unspecified"), ("::1/128", "loopback"), ("ff00::/8", "multicast"),  # RFC 4291 sections 2.5.2, 2.5.3, 2.7
)  # fmt: skip
NOBODYS_NETWORKS = tuple((ip_network(text), what) for text, what in NOBODYS)
ENDS = ("nothing", "bytes", "line", "close", "content-length", "http")  # the last two are the same
CLOSES = ("fin", "rst", "peer")
KINDS = ("fixed", "exponential", "pareto", "lognormal", "forever")
SHAPES = {"pareto": 1.5, "lognormal": 1.0}  # where none is given
WORDS = {"on": True, "off": False, "none": None}  # of a parameter's value
DURATION = 10.0  # seconds, where none is given
LONGEST = 1e7  # seconds, four months: what is longer is a mistake
MOST_ROWS = 1 << 28
MOST_BODY, MOST_PROCESSES = 1 << 28, 4096  # of the server of its own
MOST_THREADS = 256  # as many queues as a TUN device has, linux drivers/net/tun.c MAX_TAP_QUEUES
SERVERS = ("http", "http-close", "echo", "sink", "backlog")
CHOICES = {"arrivals": ("constant", "poisson"), "expect": ENDS, "close": CLOSES, "server": SERVERS}

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kmg]?)", re.ASCII)
_TIME = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(us|ms|s|min|m|h)?", re.ASCII)


def count(value: Any) -> int:
    """10000, "10k", "1M": a whole number of things. ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _NUMBER.fullmatch(str(value).lower())
    if not match or float(match[1]) * SCALE[match[2]] % 1:
        raise ValueError(f"{value!r} is no number of things (10000, 10k, 1M)")
    return round(float(match[1]) * SCALE[match[2]])


def per_second(value: Any) -> float:
    """5000, "5k", "5k/s": a number a second."""
    text = str(value).lower().removesuffix("/s")
    match = _NUMBER.fullmatch(text)
    if not match:
        raise ValueError(f"{value!r} is no rate (5000, 5k/s, 0.5/s)")
    return float(match[1]) * SCALE[match[2]]


def seconds(value: Any) -> float:
    """30, "30s", "200ms", "2m", "1h": a time, in seconds."""
    match = _TIME.fullmatch(str(value).lower())
    if not match:
        raise ValueError(f"{value!r} is no time (30, 30s, 200ms, 2m)")
    return float(match[1]) * UNITS[match[2] or "s"]


def draw(value: Any) -> tuple[str, float, float]:
    """ "5s", "exponential:5s", "pareto:5s:1.5", "lognormal:5s:1", "forever": (kind, mean in ns, shape)."""
    if isinstance(value, tuple):
        return value
    text = str(value)
    kind, _, rest = text.partition(":")
    if text == "forever":
        return ("forever", 0.0, 0.0)
    if kind not in KINDS:
        kind, rest = "fixed", text
    mean, colon, shape = rest.partition(":")
    try:
        if kind == "forever" or (colon and kind not in SHAPES):
            raise ValueError(shape)
        number = float(shape) if colon else SHAPES.get(kind, 0.0)
        if (kind == "pareto" and not 1 < number < 1e3) or (kind == "lognormal" and not 0 < number < 10):
            raise ValueError(shape)
        return (kind, seconds(mean) * 1e9, number)
    except ValueError:
        raise ValueError(
            f"{value!r} is no distribution of times (5s, exponential:5s, pareto:5s:1.5 with a shape above 1, lognormal:5s:1 with a "
            "sigma below 10, forever)"
        ) from None


def http_get(given: Mapping[str, Any], host: str = "fasttcp", path: str = "/") -> dict[str, Any]:
    """What --http, and http = true of a scenario file, stand for beside the fields that are given.

    Who leaves the close to the peer says so with the only request, as HTTP/1.1 keeps connections open (RFC 9112 section 9.6).
    """
    ends = given.get("close") == "peer" and given.get("requests", 1) == 1
    close = "Connection: close\r\n" if ends else ""
    return {"request": f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{close}\r\n".encode(), "expect": "http"}


@dataclass(frozen=True, slots=True)
class Stage:
    """For `seconds` s: open `rate` connections a second, keep `hold` open, replace `churn` of those a second. None: as
    before. A stage with neither rate nor hold opens nothing."""

    seconds: float
    rate: float = 0.0
    hold: int | None = None
    churn: float | None = None


def stage(value: Any) -> Stage:
    """ "30s:50k/s" opens at a rate; "2m:hold" opens nothing; "1m:hold=100k,churn=5k/s" holds and replaces."""
    if isinstance(value, Stage):
        return value
    if isinstance(value, Mapping):
        known = {"for", "rate", "hold", "churn"}
        if set(value) - known or "for" not in value:
            raise ValueError(f"a stage has `for` and some of rate, hold, churn; not {', '.join(value) or 'nothing'}")
        return Stage(
            seconds(value["for"]), per_second(value.get("rate", 0)),
            count(value["hold"]) if "hold" in value else None,
            per_second(value["churn"]) if "churn" in value else None,
        )  # fmt: skip
    length, colon, what = str(value).partition(":")
    try:
        if not colon:
            raise ValueError
        given: dict[str, Any] = {}
        for word in what.split(","):
            name, equals, number = word.partition("=")
            if not equals and word != "hold":
                name, number = "rate", word
            if name in given or name not in ("hold", "churn", "rate"):
                raise ValueError
            given[name] = None if word == "hold" else count(number) if name == "hold" else per_second(number)
        return Stage(seconds(length), given.get("rate", 0.0), given.get("hold"), given.get("churn"))
    except ValueError:
        raise ValueError(f"{value!r} is no stage (30s:50k/s, 2m:hold, 1m:hold=100k,churn=5k/s)") from None


def is_safe(address: str) -> bool:
    """Whether an address may be tested without being asked twice: loopback, private, or meant for benchmarks."""
    given = ip_address(address)
    return any(given.version == network.version and given in network for network in SAFE_NETWORKS)


def source_network(text: str) -> str:
    """A network to connect from, without bits of hosts. ValueError for none, and for addresses that no host can have."""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network (198.19.0.0/24, 2001:2:0:1::/120)") from None
    for nobodys, what in NOBODYS_NETWORKS:
        if network.version == nobodys.version and network.overlaps(nobodys):
            instead = "198.19.0.0/16" if network.version == 4 else "2001:2:0:1::/64"
            raise ValueError(f"{text} has addresses of {nobodys} ({what}), which no host can have: take some of {instead}")
    return str(network)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a load is to be. Times in seconds, rates a second; every field has the name of its option.

    ValueError, naming the field, for what does not fit together.
    """

    target: tuple[str, int] | None = None  # an address and a port; None: a server of its own in a network of its own
    source: tuple[str, ...] = ()  # networks to connect from
    hold: int = 0
    churn: float = 0.0
    rate: float = 0.0
    arrivals: str = "constant"
    duration: float = DURATION
    stage: tuple[Stage, ...] = ()
    request: bytes = b""
    expect: str = "nothing"
    expect_bytes: int = 0
    expect_line: str | None = None
    requests: int = 1
    close: str = "fin"
    half_close: bool = False
    life: tuple[str, float, float] | None = None  # None: forever when connections are held, else 0
    think: tuple[str, float, float] = ("fixed", 0.0, 0.0)
    timeout: float = 0.0  # 0: TCP's own
    grace: float = 15.0  # for closing at the end
    connecting: int = 512
    max_connections: int = 0  # rows, TIME_WAIT included; 0: what the memory allows, at most 16 million
    profile: str = "linux"
    set: tuple[str, ...] = ()  # "tcp_tw_reuse=1": the profile's parameters by name
    ports: tuple[int, int] | None = None
    seed: int = 1
    threads: int = 1
    server: str = "http"
    server_processes: int = 0
    body: int = 64
    ipv6: bool = False
    may_test_this_target: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in self.set:
            if not text.partition("=")[2]:
                raise ValueError(f"set {text!r}: give NAME=VALUE, a parameter of the profile")
        for text in self.source:
            try:
                source_network(text)
            except ValueError as refusal:
                raise ValueError(f"source {refusal}") from None
        for name, words in CHOICES.items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it can be {', '.join(words)}")
        for name in ("hold", "churn", "rate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("timeout", "grace"):
            if not 0 <= getattr(self, name) <= LONGEST:
                raise ValueError(f"{name} is {getattr(self, name):g} s: it must be from 0 to {LONGEST:g}")
        if not 0 < self.seconds <= LONGEST:
            raise ValueError(f"duration is {self.seconds:g} s: it must be more than 0, and at most {LONGEST:g}")
        if self.stage and (self.hold or self.churn or self.rate or self.duration != DURATION):
            raise ValueError("stages say what is held, replaced and opened, and how long: no hold, churn, rate, duration beside")
        if self.think[0] == "forever":
            raise ValueError("think is forever: the next request would never come; give requests = 1 and life = forever")
        if not (self.hold or self.rate or any(each.rate or each.hold for each in self.stage)):
            raise ValueError("nothing would be opened: give hold, rate or a stage with one of them")
        if not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads is {self.threads}: it must be from 1 to {MOST_THREADS}")
        if self.connecting < self.threads:
            raise ValueError(f"connecting is {self.connecting}: each of {self.threads} threads needs at least one")
        if self.churn and not self.hold:
            raise ValueError("churn replaces held connections: give hold as well")
        if self.half_close and self.close == "rst":
            raise ValueError("half_close and close by RST do not go together")
        if self.expect_line is not None and self.expect == "nothing":
            raise ValueError("expect_line needs an answer: give expect as well (line, bytes, close, http)")
        if (self.expect == "bytes") != (self.expect_bytes > 0):
            raise ValueError(f"expect is {self.expect!r}, of {self.expect_bytes} bytes: give their number, at least 1")
        if self.arrivals != "constant" and not (self.rate or any(each.rate for each in self.stage)):
            raise ValueError(f"arrivals are those of a rate: give one, or no {self.arrivals}")
        for name, most in (("max_connections", MOST_ROWS), ("body", MOST_BODY), ("server_processes", MOST_PROCESSES)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}: it can be {most} at most")
        if self.target and not self.may_test_this_target and not is_safe(self.target[0]):
            raise ValueError(
                f"{self.target[0]} is no loopback, private or benchmark address (198.18.0.0/15): give "
                "--i-may-test-this-target if its owner has allowed you to test it"
            )

    @property
    def changes(self) -> dict[str, Any]:
        """What `set` and `ports` change in the profile."""
        given: dict[str, Any] = {}
        for text in self.set:
            name, _, value = text.partition("=")
            given[name] = int(value) if value.isdecimal() else WORDS.get(value, value)
        if self.ports is not None:
            given["ip_local_port_range"] = self.ports
        return given

    @property
    def lifetime(self) -> tuple[str, float, float]:
        holds = self.hold or any(each.hold for each in self.stage) or any(not each.rate for each in self.stage)
        return self.life or (("forever", 0.0, 0.0) if holds else ("fixed", 0.0, 0.0))

    @property
    def most_held(self) -> int:
        """How many connections may be open at once, as far as the scenario says."""
        most, opened = self.hold, 0.0
        for each in self.stage:
            opened += each.rate * each.seconds
            most = max(most, each.hold or 0)
        if self.lifetime[0] == "forever":
            most = max(most, round(opened + self.rate * (0 if self.stage else self.duration)))
        return most

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.stage) if self.stage else self.duration

    def as_dict(self) -> dict[str, Any]:
        told = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "extra"}
        told["request"] = self.request.decode("latin-1")
        told["stage"] = [{"for": s.seconds, "rate": s.rate, "hold": s.hold, "churn": s.churn} for s in self.stage]
        return told
