"""Scenario files: the fields of Scenario, in TOML."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from fasttcp.load.loads import parse_ports
from fasttcp.load.scenario import CHOICES, count, draw, per_second, seconds, source_network, stage
from fasttcp.profiles import profile as find_profile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

__all__ = ["read_scenario"]

# Who may be tested, and where the report goes, is said by whoever starts the load, not by a file that was handed on.
COMMAND_LINE = ("target", "i_may_test_this_target", "fail_if", "json", "csv", "html", "quiet", "scenario")


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false (TOML's own, without quotes)")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number (1, without quotes)")
    return value


def _count(value: Any) -> int:
    return count(value if isinstance(value, str) else _whole(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is no text (in quotes, "...")')
    return value


def _one_of(field: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in CHOICES[field]:
            raise ValueError(f"{value!r} is none of {', '.join(CHOICES[field])}")
        return _text(value)

    return read


def _expect(value: Any) -> str:
    """As --expect: a number in quotes is one of bytes."""
    return value if isinstance(value, str) and value.isdecimal() else _one_of("expect")(value)


def _profile(value: Any) -> str:
    find_profile(_text(value))  # a name that there is not is said with the file
    return _text(value)


def _list(value: Any) -> list[Any]:
    """An option that can be given several times; once needs no brackets."""
    return value if isinstance(value, list) else [value]


def _ports(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        return parse_ports(value)
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f'{value!r} is no range of ports: write it as [1024, 65535] or "1024-65535"')
    return parse_ports(f"{_whole(value[0])}-{_whole(value[1])}")


def _settings(value: Any) -> tuple[str, ...]:
    """A table of parameters, or "NAME=VALUE" as --set takes it, once or in a list."""
    if isinstance(value, Mapping):
        words = {True: "on", False: "off"}
        return tuple(f"{name}={words[one] if isinstance(one, bool) else one}" for name, one in value.items())
    for text in _list(value):
        if not _text(text).partition("=")[2]:
            raise ValueError(f'{text!r} is no parameter of the profile: write "msl=15s", or a table {{ msl = "15s" }}')
    return tuple(_list(value))


_READ: dict[str, Callable[[Any], Any]] = {
    "hold": _count, "churn": per_second, "rate": per_second, "duration": seconds, "life": draw, "think": draw,
    "timeout": seconds, "grace": seconds, "connecting": _count, "max_connections": _count, "body": _count,
    "requests": _count, "server_processes": _count, "arrivals": _one_of("arrivals"), "expect": _expect,
    "expect_line": _text, "close": _one_of("close"), "profile": _profile, "server": _one_of("server"), "seed": _whole,
    "threads": _count, "half_close": _flag, "ipv6": _flag, "expect_bytes": _count, "http": _flag,
    "request": lambda value: _text(value).encode(), "set": _settings, "ports": _ports,
    "source": lambda value: tuple(source_network(_text(one)) for one in _list(value)),
    "stage": lambda value: tuple(map(stage, _list(value))),
}  # fmt: skip


def read_scenario(file: str) -> dict[str, Any]:
    """The fields that a file gives, and "http" if it has that. OSError, and ValueError with the file and the field, for what
    cannot be read."""
    with open(file, "rb") as opened:
        try:
            given = tomllib.load(opened)
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: byte {error.start} is no UTF-8, which a TOML file is in") from None
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    found = {}
    for name, value in given.items():
        field = name.replace("-", "_")
        if field in COMMAND_LINE:
            options = ", ".join(COMMAND_LINE).replace("_", "-")
            raise ValueError(f"{file}: {name}: only the command line can say this ({options})")
        if field not in _READ:
            raise ValueError(f"{file}: {name!r} is none of {', '.join(sorted(_READ))}")
        try:
            found[field] = _READ[field](value)
        except ValueError as error:
            raise ValueError(f"{file}: {name}: {error}") from None
    if found.get("expect", "").isdecimal():
        found |= {"expect": "bytes", "expect_bytes": int(found["expect"])}
    return found
