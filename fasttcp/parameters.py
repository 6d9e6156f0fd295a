"""One parameter of a profile: its name, kind, range and words, and how a value is read, checked and shown.

Times are read here, in `to_ns`, and nowhere else: text or seconds come in, an int of nanoseconds comes out.

This file does not know which parameters there are; fasttcp/profiles.py holds that table.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fasttcp.errors import ProfileError

__all__ = ["LONGEST", "UNITS", "Parameter", "format_ns", "to_ns"]

UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
_TIME = re.compile(r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*([a-z]+)\s*", re.ASCII)
LONGEST = "10000d"      # the limit for any time: two of them, and any epoch of this century, still fit in an int64 of ns


def to_ns(value: Any) -> int:
    """A time as the user writes it, in nanoseconds.

    Parameters
    ----------
    value : int, float or str
        Seconds, or a number with one of the units ns, us, ms, s, min, h, d: "200ms", "1.5s", "2min".

    Raises
    ------
    ProfileError
        Not a time, negative, not finite, or text that is no whole number of nanoseconds. Floats are rounded to one.
    """
    if isinstance(value, str):
        match = _TIME.fullmatch(value)
        if not match or match[2] not in UNITS:
            raise ProfileError(f"{value!r} is not a time: write a number and one of {', '.join(UNITS)}, as in '200ms'")
        digits, _, decimals = match[1].partition(".")
        exact, rest = divmod(int(digits + decimals) * UNITS[match[2]], int(10 ** len(decimals)))
        if rest:
            raise ProfileError(f"{value!r} is not a whole number of nanoseconds")
        return exact
    try:
        if isinstance(value, bool):
            raise TypeError
        whole = hasattr(value, "__index__")     # also a numpy integer; a float is exact to 1 ns up to some 100 days
        ns: int = operator.index(value) * UNITS["s"] if whole else round(float(value) * UNITS["s"])
    except (TypeError, ValueError, OverflowError):      # the latter two: round() of nan and of infinity
        raise ProfileError(f"{value!r} is not a time: give seconds, or text as '200ms'") from None
    if ns < 0:
        raise ProfileError(f"{value!r} is not a time: it is negative")
    return ns


def format_ns(ns: int) -> str:
    """Nanoseconds as the shortest text that `to_ns` turns back into exactly the same number: 75_000_000_000 is "75s"."""
    unit = next(unit for unit, size in reversed(UNITS.items()) if ns % size == 0 and (ns or unit == "s"))
    return f"{ns // UNITS[unit]}{unit}"


class Parameter:
    """One row of the table: what a parameter is called, what it may be, what it is by default, who says so, what it means.

    It takes its names from where it is written down in the class of profiles: `attribute`, by which a profile's value is read,
    and `name`, which leaves out `_ns`. `group` is "endpoint" or "observer". `kind` is one of time, count, flag,
    choice, range (first, last), ports, port_times ((port, ns), ...). `low` and `high` are in stored form (nanoseconds for a
    time) and hold for each item of a tuple. `none` says what None means, and is empty where None is not allowed. `defaults` has
    the stored value for each built-in profile.
    """

    __slots__ = ("attribute", "choices", "defaults", "group", "high", "kind", "low", "meaning", "name", "none", "source", "unit")

    def __init__(self, group: str, kind: str, source: str, meaning: str, *, unit: str, low: int, high: int, none: str,
                 choices: tuple[Any, ...], defaults: Mapping[str, Any]) -> None:
        self.group, self.kind, self.source, self.meaning = group, kind, source, meaning
        self.unit, self.low, self.high, self.none, self.choices = unit, low, high, none, choices
        self.defaults = defaults

    def __set_name__(self, owner: type, attribute: str) -> None:
        self.attribute = attribute
        self.name = attribute.removesuffix("_ns")
        self.defaults = MappingProxyType({base: self.convert(value) for base, value in self.defaults.items()})

    def convert(self, value: Any) -> Any:
        """What the user wrote, in stored form and checked. Raises ProfileError with name, unit and range."""
        try:
            if value is None:
                return self.check(None)
            if self.kind == "time":
                return self.check(to_ns(value))
            if self.kind == "port_times":
                items = value.items() if isinstance(value, Mapping) else value
                return self.check([(port, to_ns(time)) for port, time in items])
        except ProfileError as error:
            if str(error).startswith(f"{self.name} = "):
                raise
            raise ProfileError(f"{self.name} = {value!r}: {error}; it must be {self.limits}") from None
        except (TypeError, ValueError):
            raise self._refuse(value) from None
        return self.check(value)

    def check(self, value: Any) -> Any:
        """A value in stored form, made canonical (a tuple for a list, True for 1); ProfileError if it is not allowed."""
        if value is None:
            if not self.none:
                raise self._refuse(value)
            return None
        try:
            if self.kind == "choice":
                return self.choices[self.choices.index(value)]
            if self.kind == "flag":
                return (False, True)[(False, True).index(value)]
            if self.kind in ("time", "count"):
                return self._number(value)
            if self.kind == "port_times":
                return tuple(sorted({self._port(p): self._number(ns) for p, ns in value}.items()))
            ports = tuple(self._port(port) for port in value)
        except (TypeError, ValueError):
            raise self._refuse(value) from None
        if self.kind == "ports":
            return tuple(sorted(set(ports)))
        if len(ports) != 2 or ports[0] > ports[1]:
            raise self._refuse(value)
        return ports

    def code(self, value: Any) -> int:
        """A choice as a small int, its place in `choices`: the form in which compiled code holds it."""
        return self.choices.index(value)

    def human(self, value: Any) -> Any:
        """A stored value as `replace()` takes it: times as text."""
        if value is None or self.kind not in ("time", "port_times"):
            return value
        return format_ns(value) if self.kind == "time" else {port: format_ns(ns) for port, ns in value}

    def text(self, value: Any) -> str:
        """A stored value as the documentation shows it."""
        if value is None:
            return self.none
        if self.kind == "flag":
            return "on" if value else "off"
        if self.kind == "range":
            return f"{value[0]} to {value[1]}"
        if self.kind == "ports":
            return " ".join(map(str, value)) or "none"
        if self.kind == "port_times":
            return ", ".join(f"{port}: {format_ns(ns)}" for port, ns in value) or "none"
        return str(self.human(value))

    @property
    def limits(self) -> str:
        """The range in words: "1 to 127 (retransmissions)", "1ms to 10000d, or None (for ever)"."""
        spans = {
            "time": f"a time, {format_ns(self.low)} to {format_ns(self.high)}",
            "count": f"{self.low} to {self.high} ({self.unit})",
            "flag": "True or False",
            "choice": "one of " + ", ".join(map(repr, self.choices)),
            "range": "(first, last) with first <= last, each a port, 1 to 65535",
            "ports": "ports, each 1 to 65535",
            "port_times": f"{{port: time}}, a port 1 to 65535, a time {format_ns(self.low)} to {format_ns(self.high)}",
        }
        return spans[self.kind] + (f", or None ({self.none})" if self.none else "")

    def _number(self, value: Any) -> int:
        number = operator.index(value)
        if isinstance(value, bool) or not self.low <= number <= self.high:
            raise ValueError
        return number

    @staticmethod
    def _port(value: Any) -> int:
        port = operator.index(value)
        if isinstance(value, bool) or not 1 <= port <= 65535:
            raise ValueError
        return port

    def _refuse(self, value: Any) -> ProfileError:
        shown = value
        if self.kind == "time" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            shown = format_ns(value)
        return ProfileError(f"{self.name} = {shown!r}: it must be {self.limits}")
