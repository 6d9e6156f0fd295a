"""What the connections of a churn stream are like, as data: the names that ``fasttcp churn --mix`` takes.

This file knows no segment and no table; fasttcp/load/churn.pyx makes the segments.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MIXES", "Mix", "mix"]


@dataclass(frozen=True, slots=True)
class Mix:
    """One way of churning. Shares are fractions from 0 to 1.

    The plain connection has eight segments: SYN, SYN+ACK, ACK, data, FIN, ACK, FIN, ACK.
    """

    name: str
    what: str
    ipv6: float = 0.0  # of the connections
    reset: float = 0.0  # of the connections: a RST after the data instead of the four closing segments
    reuse: float = 0.0  # of the connections: followed by a SYN on the same 4-tuple while it is in TIME_WAIT
    flood: float = 0.0  # SYNs from made-up addresses, never answered, for each segment of a true connection
    longest: int = 1  # segments with data: 1, or Pareto-distributed (alpha 1.2, as web flows are) up to so many


MIXES = {
    one.name: one
    for one in (
        Mix("ipv4", "eight segments a connection over IPv4"),
        Mix("ipv6", "the same over IPv6", ipv6=1.0),
        Mix("both", "half of the connections over IPv6", ipv6=0.5),
        Mix("heavy", "lifetimes with a heavy tail: 1 to 1,000 segments with data", longest=1000),
        Mix("flood", "one SYN of a flood for every eight segments", flood=0.125),
        Mix("reset", "half of the connections end by RST", reset=0.5),
        Mix("reuse", "half of the 4-tuples are opened again within their TIME_WAIT", reuse=0.5),
        Mix(
            "all", "everything at once", ipv6=0.5, reset=0.2, reuse=0.2, flood=0.125, longest=100,
        ),
    )
}


def mix(name: str | Mix) -> Mix:
    """The mix of that name. Raises ValueError, with the names there are."""
    if isinstance(name, Mix):
        return name
    try:
        return MIXES[name]
    except KeyError:
        raise ValueError(f"no mix {name!r}; there are {', '.join(MIXES)}") from None
