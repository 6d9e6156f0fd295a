"""Scenario files: the fields of Scenario, in TOML."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from fasttcp.load.scenario import count, draw, per_second, seconds, stage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

__all__ = ["read_scenario"]

_READ: dict[str, Callable[[Any], Any]] = {
    "hold": count, "churn": per_second, "rate": per_second, "duration": seconds, "life": draw, "think": draw,
    "timeout": seconds, "grace": seconds, "connecting": count, "max_connections": count, "body": count, "requests": count,
    "server_processes": count, "arrivals": str, "expect": str, "expect_line": str, "close": str, "profile": str, "server": str,
    "seed": int, "threads": count, "half_close": bool, "ipv6": bool, "expect_bytes": count,
    "request": lambda text: str(text).encode(), "set": lambda given: tuple(f"{name}={value}" for name, value in given.items()),
    "source": lambda given: tuple(map(str, given)),
    "ports": lambda given: (int(given[0]), int(given[1])), "stage": lambda given: tuple(map(stage, given)),
}  # fmt: skip


def read_scenario(file: str) -> dict[str, Any]:
    """The fields that a file gives. OSError, and ValueError with the file and the field, for what cannot be read.

    The target is not one of them: who may be tested is said on the command line.
    """
    with open(file, "rb") as opened:
        try:
            given = tomllib.load(opened)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file}: {error}") from None
    found = {}
    for name, value in given.items():
        field = name.replace("-", "_")
        if field not in _READ:
            raise ValueError(f"{file}: {name!r} is none of {', '.join(sorted(_READ))}")
        try:
            found[field] = _READ[field](value)
        except (ValueError, TypeError, IndexError) as error:
            raise ValueError(f"{file}: {name}: {error}") from None
    return found
