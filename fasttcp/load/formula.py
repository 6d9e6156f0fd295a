"""The closed formula: what a steady load needs, without simulating anything.

It stands beside the simulation so that each can be checked against the other, and shares nothing with it. All of it is
Little's law, L = lambda W (Little, Operations Research 9(3), 1961): what is there on average is the rate of arrival times the
time that each one stays. Symbols and units:

    r   connections a second        n   pairs (source, destination, destination port)     p   ports of one pair
    d   lifetime, s                 t   2MSL, s                                             s   share that the server closes
    h   how long a port in TIME_WAIT is blocked: t, or less where tcp_tw_reuse or a cap on buckets lets go of it earlier

What it leaves out: the time of the handshake and of closing, chance, the grain of timers, the pattern in which exhausted
ports come back (in bursts, one lifetime and 2MSL apart), how often a server's TIME_WAIT is reopened when only a share of
the connections is the server's, and what a policy that forbids reopening costs. The simulation has all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Formula", "first_failure", "formula"]


@dataclass(frozen=True, slots=True)
class Formula:
    """What the formula says of a load. Counts are of sockets, rates a second, times seconds."""

    alive: float  # connections at a time: r d
    client_time_wait: float  # where the client closes first: r (1 - s) t, at most the cap
    server_time_wait: float  # where the server does: r s t, at most the cap
    ports_wanted: float  # ports of one pair that the load would hold: r/n (d + (1 - s) h)
    ports: int  # ports of one pair that there are
    wall: float  # connections a second that all pairs carry for ever: n p / (d + (1 - s) h)
    first_failure_s: float | None  # when the first connect finds no port, from an empty start
    failures_a_second: float  # after that, on average: r - wall


def first_failure(rate: float, ports: int, lifetime_s: float, blocked_s: float, server_share: float) -> float | None:
    """When `ports` ports run out under `rate` connects a second from an empty start; None: never.

    Nothing is given back before `lifetime_s`; from then on the share that the server closes; from lifetime_s + blocked_s on
    the rest too, and the level stays where it is. So ports in use are piecewise linear in time, and this is where that line
    meets the number of ports.
    """
    if rate <= 0 or rate * (lifetime_s + (1 - server_share) * blocked_s) <= ports:
        return None
    if rate * lifetime_s >= ports:
        return ports / rate
    return lifetime_s + (ports - rate * lifetime_s) / (rate * (1 - server_share))


def _distinct(connects: float, pool: float) -> float:
    """How many different ports of a pool that many connects use, where ports may be taken again out of TIME_WAIT.

    Linux passes over 0 to 7 of the pool's ports after each choice, 4.5 steps on average, so one round uses a port with
    probability 2/9, and connects * 4.5 / pool rounds leave pool * (7/9)^rounds unused.
    """
    return min(connects, pool * (1 - math.pow(7 / 9, connects * 4.5 / pool)))


def formula(
    *,
    rate: float,
    lifetime_s: float,
    pairs: int,
    busiest_share: float | None = None,
    ports: int,
    server_share: float,
    time_wait_s: float,
    reuse_after_s: float | None = None,
    buckets: int | None = None,
    even_first: bool = False,
    reopens: bool = True,
) -> Formula:
    """The formula for one load.

    Parameters
    ----------
    rate : float
        Connections a second, over all pairs.
    lifetime_s, time_wait_s : float
        Seconds from connect to the first close; 2MSL.
    pairs, ports : int
        Pairs, and ephemeral ports that each has.
    busiest_share : float or None
        Share of the connections that the busiest pair gets; None: 1 / pairs.
    server_share : float
        Share of the connections that the server closes first, 0 to 1.
    reuse_after_s : float or None
        Time in TIME_WAIT after which a connect may take the port all the same (tcp_tw_reuse_delay); None: never.
    buckets : int or None
        tcp_max_tw_buckets of each host; None: no limit.
    even_first : bool
        Whether ports are chosen as Linux does, every other one first and with random gaps.
    reopens : bool
        Whether a SYN may open the server's TIME_WAIT anew (time_wait_syn_reopens).
    """
    client_share = 1 - server_share
    n = pairs if busiest_share is None else 1 / busiest_share
    blocked = time_wait_s if reuse_after_s is None else min(time_wait_s, reuse_after_s)
    cap = float("inf") if buckets is None else float(buckets)
    held = lifetime_s + client_share * blocked
    wall = n * ports / held if held > 0 else float("inf")
    if wall * client_share * blocked > cap:  # the cap is met before the ports run out: n p = r d + cap
        wall = max(0.0, n * ports - cap) / lifetime_s if lifetime_s > 0 else float("inf")
    if rate * client_share * blocked > cap:
        blocked = cap / (rate * client_share)  # on average: whoever finds the buckets full does not wait at all
    carried = min(rate, wall)
    alive = carried * lifetime_s
    room = max(0.0, n * ports - alive)  # a 4-tuple is in TIME_WAIT once
    client_wait = carried * client_share * time_wait_s
    server_wait = carried * server_share * time_wait_s
    pool = n * ports / 2
    if even_first and reuse_after_s is not None:
        client_wait = min(_distinct(client_wait, pool), max(0.0, pool - alive))
    client_wait = min(client_wait, cap, room)
    if even_first and reopens and server_share == 1 and alive < pool:
        server_wait = _distinct(server_wait, pool) * (1 - alive / pool)  # some of them live again
    return Formula(
        alive=alive,
        client_time_wait=client_wait,
        server_time_wait=min(server_wait, cap, room - client_wait),  # its client's port is free
        ports_wanted=rate / n * (lifetime_s + client_share * blocked),
        ports=ports,
        wall=wall,
        first_failure_s=first_failure(rate / n, ports, lifetime_s, blocked, server_share),
        failures_a_second=rate - carried,
    )
