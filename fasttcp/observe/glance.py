"""What there is to see at one moment, of an interface, of a capture that is replayed, or of this host's own sockets.

A `Glance` is plain numbers; how they are drawn is not known here. Rates are over the time since the glance before, in the
source's own time: a capture replayed at ten times its speed has the rates that it had.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from fasttcp.core.segments import SegmentBatch
from fasttcp.observe.talkers import Talkers
from fasttcp.observe.track import Track
from fasttcp.packets.inet_diag import host_sockets
from fasttcp.spec import State

__all__ = ["Glance", "Talker", "glances_of_host", "glances_of_replay", "glances_of_track"]

BATCH = 4096  # segments of a replay that are read together
SLICE = 0.05  # s between two looks at what is due, in a replay

# include/net/tcp_states.h, from 1 on; 12 is a request that no socket serves yet
_KERNEL = (
    State.ESTABLISHED, State.SYN_SENT, State.SYN_RCVD, State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT, State.CLOSED,
    State.CLOSE_WAIT, State.LAST_ACK, State.LISTEN, State.CLOSING, State.SYN_RCVD, State.CLOSED,
)  # fmt: skip
_SNMP = {
    "opened": ("ActiveOpens", "PassiveOpens"), "segments in": ("InSegs",), "segments out": ("OutSegs",),
    "retransmitted": ("RetransSegs",), "failed": ("AttemptFails",), "reset": ("EstabResets",),
}  # fmt: skip


@dataclass(frozen=True)
class Talker:
    """One row of the busiest: a connection of a capture, or a remote host of this host's sockets."""

    name: str
    states: str
    recent: float  # bytes a second since the glance before; for a remote host: sockets
    total: int  # bytes in all; for a remote host: of its sockets, those in TIME_WAIT


@dataclass(frozen=True)
class Glance:
    """One look. `states` counts ends (of a host: sockets); `counts` has for each name its total and its rate a second."""

    title: str
    now_ns: int
    states: dict[State, int]
    connections: int
    counts: dict[str, tuple[int, float]]
    talkers: list[Talker] = field(default_factory=list)
    talkers_are: str = "connections"
    note: str = ""


class _Rates:
    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._then_ns = 0

    def of(self, totals: dict[str, int], now_ns: int) -> dict[str, tuple[int, float]]:
        seconds = (now_ns - self._then_ns) / 1e9
        known = bool(self._before) and seconds > 0
        rated = {
            name: (total, (total - self._before.get(name, 0)) / seconds if known else 0.0)
            for name, total in totals.items()
        }
        self._before, self._then_ns = totals, now_ns
        return rated


# ---- captures and interfaces -----------------------------------------------------------------------------------------


class _Looker:
    """Makes glances of a Track, in the capture's time."""

    def __init__(self, followed: Track, title: str, most: int) -> None:
        self._followed, self._title, self._most = followed, title, most
        self._talkers = Talkers(followed.tracker)
        self._rates = _Rates()
        self._last_ns = 0

    def look(self, note: str = "") -> Glance:
        tracker = self._followed.tracker
        tracker.discard()
        table = tracker.table
        tallies = table.tallies()
        now_ns = table.now_ns
        seconds = (now_ns - self._last_ns) / 1e9 if self._last_ns else 0.0
        self._last_ns = now_ns
        counted = {
            "opened": tallies["connections"], "ended": tallies["ended"], "segments": tallies["segments"],
            "retransmitted": tallies["retransmitted"], "doubtful": tallies["suspect"] + tallies["illegal"],
            "evicted": tallies["evicted"],
        }  # fmt: skip
        busiest = [
            Talker(
                f"{_end(one['orig_addr'], one['orig_port'])} > {_end(one['resp_addr'], one['resp_port'])}",
                f"{one['orig_state'].name} {one['resp_state'].name}",
                one["recent"] / seconds if seconds > 0 else 0.0, one["bytes"],
            )
            for one in self._talkers.look(self._most)
        ]  # fmt: skip
        return Glance(
            self._title, now_ns, table.counts(), len(table), self._rates.of(counted, now_ns), busiest, "connections",
            note,
        )  # fmt: skip


def _end(addr: str, port: int) -> str:
    return f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"


def glances_of_track(followed: Track, title: str, every: float, *, most: int = 20) -> Iterator[Glance]:
    """A glance every so many seconds while the Track is read as it comes (an interface, a file that grows)."""
    looker = _Looker(followed, title, most)
    due = time.monotonic() + every
    for _ in followed.steps():
        followed.tracker.discard()
        if time.monotonic() >= due:
            due = time.monotonic() + every
            yield looker.look()
    yield looker.look("the capture has ended")


def glances_of_replay(followed: Track, title: str, every: float, *, speed: float, most: int = 20) -> Iterator[Glance]:
    """A glance every so many seconds while a capture is played at `speed` times its own; 0: as fast as it can be read."""
    looker = _Looker(followed, title, most)
    pace = _Pace(speed)
    due = time.monotonic() + every
    for piece in _pieces(followed, pace):
        if piece is not None:
            followed.tracker.apply(piece)
        elif pace.due_ns is not None:
            followed.tracker.table.advance(pace.due_ns)
        followed.tracker.discard()
        if time.monotonic() >= due:
            due = time.monotonic() + every
            yield looker.look()
    yield looker.look("the capture has ended")


class _Pace:
    """Up to which time of the capture it may be played by now."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._began = time.monotonic()
        self._first_ns: int | None = None

    @property
    def due_ns(self) -> int | None:
        """None: without a limit, or nothing was read yet."""
        if not self._speed or self._first_ns is None:
            return None
        return self._first_ns + int((time.monotonic() - self._began) * 1e9 * self._speed)

    def begin(self, first_ns: int) -> None:
        if self._first_ns is None:
            self._first_ns, self._began = first_ns, time.monotonic()


def _pieces(followed: Track, pace: _Pace) -> Iterator[SegmentBatch | None]:
    """The segments in order, none before its time; None while nothing is due."""
    batch = SegmentBatch(BATCH)
    while followed.reader is not None:
        if not followed.reader.read_batch(batch):
            followed.next_reader()
            continue
        pace.begin(batch[0].time_ns)
        at = 0
        while at < len(batch):
            end = _due(batch, at, pace.due_ns)
            if end == at:
                time.sleep(SLICE)
                yield None
                continue
            with memoryview(batch) as records:  # a window on the same memory, given back before the next reading
                piece = SegmentBatch(records[at:end])
                yield piece
                del piece
            at = end


def _due(batch: SegmentBatch, at: int, limit_ns: int | None) -> int:
    """Behind the last segment, from `at` on, before the first that is later than the limit."""
    if limit_ns is None or batch[len(batch) - 1].time_ns <= limit_ns:
        return len(batch)
    while at < len(batch) and batch[at].time_ns <= limit_ns:
        at += 1
    return at


# ---- this host -------------------------------------------------------------------------------------------------------


def glances_of_host(every: float, *, most: int = 20) -> Iterator[Glance]:
    """A glance every so many seconds at the sockets of this host (of the caller's network namespace). Linux only."""
    rates = _Rates()
    while True:
        yield _look_at_host(rates, most)
        time.sleep(every)


def _look_at_host(rates: _Rates, most: int) -> Glance:
    now_ns = time.time_ns()
    states: Counter[State] = Counter()
    remote: dict[bytes, Counter[State]] = {}
    connections = 0
    for one in host_sockets():
        state = _KERNEL[one.state - 1] if 1 <= one.state <= len(_KERNEL) else State.CLOSED
        states[state] += 1
        if state == State.LISTEN:
            continue
        connections += 1
        remote.setdefault(one.remote, Counter())[state] += 1
    busiest = sorted(remote.items(), key=lambda item: -item[1].total())[:most]
    talkers = [
        Talker(
            str((IPv4Address if len(host) == 4 else IPv6Address)(host)),
            ", ".join(f"{state.name} {n:,}" for state, n in counted.most_common(3)), float(counted.total()),
            counted[State.TIME_WAIT],
        )
        for host, counted in busiest
    ]  # fmt: skip
    counts = rates.of(_snmp(), now_ns)
    return Glance(
        "this host's sockets", now_ns, {state: states[state] for state in State}, connections, counts, talkers, "hosts"
    )


def _snmp() -> dict[str, int]:
    """The kernel's counters of TCP (RFC 4022), as far as it gives them."""
    try:
        with open("/proc/net/snmp", encoding="ascii") as file:
            lines: list[Any] = [line.split() for line in file if line.startswith("Tcp:")]
    except OSError:
        return {}
    if len(lines) != 2:
        return {}
    known = dict(zip(lines[0][1:], map(int, lines[1][1:]), strict=False))
    return {name: sum(known.get(part, 0) for part in parts) for name, parts in _SNMP.items()}
