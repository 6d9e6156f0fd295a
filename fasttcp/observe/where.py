"""Filters in the words of `ss`: text into a program that sieve.pyx runs on entries.

    expression = term { ("or" | "|" | "||") term }
    term       = factor { ["and" | "&" | "&&"] factor }
    factor     = ("not" | "!") factor | "(" expression ")" | states | ends | ports
    states     = ["orig" | "resp"] ("state" | "exclude") NAME { ("state" | "exclude") NAME }
    ends       = ("src" | "dst") ["=" | "!="] HOST
    ports      = ("sport" | "dport") [OPERATOR] [":"] PORT

`src` and `sport` are the originator's address and port, `dst` and `dport` the responder's. A connection has two ends, a
socket has one: `state` asks whether an end is in one of the states that are named, `exclude` whether no end is;
`orig` and `resp` before them ask for one end. The model is ssfilter of iproute2 (man ss).

What must not stand here: how an entry is looked at. The program is postfix: values are pushed, operators take them off.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from difflib import get_close_matches
from typing import NamedTuple, NoReturn

from fasttcp.errors import FilterError
from fasttcp.spec import SYNCHRONIZED, State

__all__ = ["compile_filter"]

# Op of sieve.pxd: kind, side, compare, prefix; port, states; address
_OP = struct.Struct("=BBBBHH16s")
_STATES, _PORT, _NET, _AND, _OR, _NOT = range(6)
_ORIGINATOR, _RESPONDER, _EITHER = 0, 1, 2
_EQ, _NE, _GT, _LT, _GE, _LE = range(6)
_DEEPEST = 48  # brackets and "not" inside one another: the sieve's stack has 64 places

_TOKEN = re.compile(r"\s+|(&&|\|\||==|!=|>=|<=|[()!&|=<>]|[^\s()!&|=<>]+)")
_AND_WORDS = ("and", "&", "&&")
_OR_WORDS = ("or", "|", "||")
_NOT_WORDS = ("not", "!")
_COMPARE = {
    "=": _EQ, "==": _EQ, "eq": _EQ, "!=": _NE, "ne": _NE, "neq": _NE, ">": _GT, "gt": _GT, "<": _LT, "lt": _LT,
    ">=": _GE, "ge": _GE, "geq": _GE, "<=": _LE, "le": _LE, "leq": _LE,
}  # fmt: skip
_SIDES = {"orig": _ORIGINATOR, "resp": _RESPONDER}
_ENDS = {"src": _ORIGINATOR, "dst": _RESPONDER, "sport": _ORIGINATOR, "dport": _RESPONDER}
_PREDICATES = ("state", "exclude", "orig", "resp", "src", "dst", "sport", "dport")
_FOREIGN = ("dev", "fwmark", "cgroup", "autobound")  # what ss knows of sockets of its own host

_CONNECTED = frozenset(State) - {State.CLOSED, State.LISTEN}
_BUCKET = frozenset({State.TIME_WAIT, State.SYN_RCVD})
_GROUPS: dict[str, frozenset[State]] = {
    "all": frozenset(State),
    "connected": _CONNECTED,
    "synchronized": frozenset(SYNCHRONIZED) | {State.SYN_RCVD},  # ss: connected, without syn-sent
    "bucket": _BUCKET,
    "big": frozenset(State) - _BUCKET,
}
#: What may stand after `state` and `exclude`: the names of ss, those of RFC 9293, and groups.
STATES: dict[str, frozenset[State]] = {state.name.lower().replace("_", "-"): frozenset({state}) for state in State}
STATES |= {"syn-recv": STATES["syn-rcvd"], "listening": STATES["listen"], "unconnected": STATES["closed"]} | _GROUPS

# A few names for ports; not the system's list, so that a filter means the same everywhere.
_SERVICES = {
    "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "http": 80, "pop3": 110, "imap": 143, "bgp": 179,
    "ldap": 389, "https": 443, "smb": 445, "submission": 587, "ldaps": 636, "imaps": 993, "pop3s": 995, "mqtt": 1883,
    "nfs": 2049, "mysql": 3306, "rdp": 3389, "postgresql": 5432, "amqp": 5672, "redis": 6379, "kafka": 9092,
}  # fmt: skip


class _Word(NamedTuple):
    text: str
    start: int
    end: int

    @property
    def low(self) -> str:
        return self.text.lower()


def compile_filter(text: str) -> bytes:
    """The program for a filter; b"" for one without words, which lets everything pass. Raises FilterError."""
    parser = _Parser(text)
    if not parser.words:
        return b""
    parser.expression(0)
    if parser.at < len(parser.words):
        word = parser.words[parser.at]
        parser.fail("this closes nothing" if word.text == ")" else f"{word.text!r} is not expected here", word)
    return b"".join(parser.program)


class _Parser:
    """Recursive descent, one method a line of the grammar; `program` grows as it goes."""

    def __init__(self, text: str) -> None:
        self.text = " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
        self.words = [
            _Word(match[1], match.start(1), match.end(1)) for match in _TOKEN.finditer(self.text) if match[1]
        ]
        self.at = 0
        self.program: list[bytes] = []

    def fail(self, message: str, word: _Word | None = None) -> NoReturn:
        """At this word; without one, behind the last."""
        start, end = (len(self.text.rstrip()), len(self.text.rstrip()) + 1) if word is None else (word.start, word.end)
        raise FilterError(message, self.text, start, end)

    def peek(self) -> str:
        return self.words[self.at].low if self.at < len(self.words) else ""

    def next(self, wanted: str) -> _Word:
        if self.at == len(self.words):
            self.fail(f"{wanted} is missing")
        self.at += 1
        return self.words[self.at - 1]

    def emit(
        self, kind: int, *, side: int = 0, compare: int = _EQ, prefix: int = 0, port: int = 0, states: int = 0,
        address: bytes = b"",
    ) -> None:  # fmt: skip
        self.program.append(_OP.pack(kind, side, compare, prefix, port, states, address))

    # -- the grammar -------------------------------------------------------------------------------------------------

    def expression(self, depth: int) -> None:
        self.term(depth)
        while self.peek() in _OR_WORDS:
            self.at += 1
            self.term(depth)
            self.emit(_OR)

    def term(self, depth: int) -> None:
        self.factor(depth)
        while self.at < len(self.words) and self.peek() not in (*_OR_WORDS, ")"):
            if self.peek() in _AND_WORDS:
                self.at += 1
            self.factor(depth)
            self.emit(_AND)

    def factor(self, depth: int) -> None:
        word = self.next("a condition")
        if depth == _DEEPEST:
            self.fail(f"more than {_DEEPEST} brackets inside one another", word)
        if word.low in _NOT_WORDS:
            self.factor(depth + 1)
            self.emit(_NOT)
        elif word.text == "(":
            self.expression(depth + 1)
            if self.peek() != ")":
                self.fail("this is never closed", word)
            self.at += 1
        elif word.low in ("state", "exclude", *_SIDES):
            self.states(word)
        elif word.low in ("src", "dst"):
            self.host(word)
        elif word.low in ("sport", "dport"):
            self.ports(word)
        else:
            self.fail(_no_condition(word), word)

    def states(self, word: _Word) -> None:
        side = _EITHER
        if word.low in _SIDES:
            side = _SIDES[word.low]
            word = self.next("'state' or 'exclude'")
            if word.low not in ("state", "exclude"):
                self.fail(f"{word.text!r} stands where 'state' or 'exclude' is expected", word)
        named: dict[str, frozenset[State]] = {"state": frozenset(), "exclude": frozenset()}
        while True:
            named[word.low] |= self.state()
            if self.peek() not in named:
                break
            word = self.next("a state")
        for kind, states in named.items():
            if states:
                self.emit(_STATES, side=side, states=sum(1 << state for state in states))
                if kind == "exclude":
                    self.emit(_NOT)
        if all(named.values()):
            self.emit(_AND)

    def state(self) -> frozenset[State]:
        word = self.next("a state")
        name = word.low.replace("_", "-")
        if name not in STATES:
            self.fail(f"there is no state {word.text!r}; {_near(name, STATES)}", word)
        return STATES[name]

    def ports(self, predicate: _Word) -> None:
        compare = self.operator(tuple(_COMPARE))
        word = self.next("a port")
        port = self.port(word, word.text.removeprefix(":"), word.start + word.text.startswith(":"))
        if port is not None:
            self.emit(_PORT, side=_ENDS[predicate.low], compare=compare, port=port)
        else:
            self.fail("a port is a number from 0 to 65535 here, not *", word)

    def operator(self, allowed: tuple[str, ...]) -> int:
        if self.peek() not in _COMPARE:
            return _EQ
        word = self.next("an operator")
        if word.low not in allowed:
            self.fail(f"{word.text!r} cannot compare addresses; = and != can", word)
        return _COMPARE[word.low]

    def host(self, predicate: _Word) -> None:
        compare = self.operator(("=", "==", "eq", "!=", "ne", "neq"))
        word = self.next("an address")
        host, port, at = _split_host(word.text)
        side = _ENDS[predicate.low]
        parts = 0
        if host not in ("", "*"):
            network = self.network(word, host)
            mapped = network.version == 4
            address = (b"\0" * 10 + b"\xff\xff" if mapped else b"") + network.network_address.packed
            self.emit(_NET, side=side, prefix=network.prefixlen + 96 * mapped, port=4 if mapped else 6, address=address)
            parts += 1
        number = self.port(word, port, word.start + at) if port is not None else None
        if number is not None:
            self.emit(_PORT, side=side, port=number)
            parts += 1
        if parts == 0:
            self.emit(_STATES, side=_EITHER, states=0xFFFF)  # any address, any port
        if parts == 2:
            self.emit(_AND)
        if compare == _NE:
            self.emit(_NOT)

    def network(self, word: _Word, host: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        try:
            return ipaddress.ip_network(host, strict=False)
        except ValueError:
            pass
        address, _, prefix = host.partition("/")
        try:
            version = ipaddress.ip_address(address).version
        except ValueError:
            self.fail(f"{address!r} is no IPv4 or IPv6 address", word)
        self.fail(f"{prefix!r} is no prefix length from 0 to {32 if version == 4 else 128}", word)
        return None

    def port(self, word: _Word, text: str, at: int) -> int | None:
        """None for *: any port."""
        place = _Word(text, at, word.end) if text else word
        if text == "*":
            return None
        if text.isascii() and text.isdigit():
            if int(text) > 65535:
                self.fail(f"{text} is no port: they end at 65535", place)
            return int(text)
        if text.lower() not in _SERVICES:
            self.fail(f"{text!r} is no port: a number, or a name: {_near(text.lower(), _SERVICES)}", place)
        return _SERVICES[text.lower()]


# ---- words -----------------------------------------------------------------------------------------------------------


def _split_host(text: str) -> tuple[str, str | None, int]:
    """Address with its prefix length, port or None, and where the port begins."""
    if text.startswith("["):
        inside, closed, rest = text[1:].partition("]")
        if closed:
            prefix, colon, port = rest.partition(":")
            return inside + prefix, port if colon else None, len(text) - len(port)
        return text, None, 0
    if text.count(":") > 1:  # IPv6 without brackets has no port
        return text, None, 0
    host, colon, port = text.partition(":")
    return host, port if colon else None, len(host) + 1


def _near(name: str, known: object) -> str:
    names = list(known)  # type: ignore[call-overload]
    near = get_close_matches(name, names, n=3)
    return f"nearest: {', '.join(near)}" if near else f"there are {', '.join(names)}"


def _no_condition(word: _Word) -> str:
    if word.low in _FOREIGN:
        return f"{word.text!r} is known for sockets of this host only, not for a capture"
    if word.text == ")" or word.low in (*_AND_WORDS, *_OR_WORDS, *_COMPARE):
        return f"a condition is missing before {word.text!r}"
    if word.low.replace("_", "-") in STATES:
        return f"a state stands after 'state' or 'exclude': state {word.text}"
    return f"{word.text!r} begins no condition; {_near(word.low, _PREDICATES)}"
