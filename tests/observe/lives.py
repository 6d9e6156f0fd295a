"""Two hosts, what their applications do, and a wire that remembers what became of every segment.

A `Life` is one seeded run: two tables in the endpoint seat on a simulated link, an observer on its tap, and a script of
connections on one pair of addresses. The script goes in phases; after each phase the link becomes quiet, which is when
the two halves and the observer can be compared.
"""

from __future__ import annotations

import random
import struct
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fasttcp import ConnectionTable, Event, PortsExhausted, State, StateError, TupleInUse
from fasttcp.core.segments import SegmentBatch
from fasttcp.endpoint.link import Link

MS, SECOND = 1_000_000, 1_000_000_000
ADDRESSES = (("10.0.0.1", "192.0.2.7"), ("2001:db8::1", "2001:db8::2"))
PORTS = (4000, 5000)
BUSY_TIMERS = (1, 2)  # core/tcb.pxd: TIMER_RETRANSMIT, TIMER_PERSIST
SYN, PSH = 0x02, 0x08
SYN_SEEN = 0x0008  # core/layout.pxd: ROW_SCALED_0, of side 1 shifted by 1
TIMED_OUT = (Event.TIMEOUT_IDLE, Event.TIMEOUT_2MSL)
_TAP, _ARRIVAL = 0, 1


@dataclass
class Fate:
    """What became of one segment that a host sent."""

    side: int  # who sent it: 0 for a, 1 for b
    record: bytes
    sent_ns: int
    tapped_ns: list[int] = field(default_factory=list)  # when its copies passed the tap
    arrived_ns: list[int] = field(default_factory=list)

    @property
    def flags(self):
        return struct.unpack_from("=H", self.record, 66)[0] & ~PSH

    @property
    def seq(self):
        return struct.unpack_from("=I", self.record, 44)[0]

    def at(self, when_ns):
        """The segment as it is seen at that time."""
        return struct.pack("=q", when_ns) + self.record[8:]


class Wire(Link):
    """A link that keeps the fate of every segment."""

    def __init__(self, *tables, **options):
        super().__init__(*tables, **options)
        self.fates: list[Fate] = []

    def _enter(self, side, record):
        self.fates.append(Fate(side, record, self.now_ns))
        super()._enter(side, record)

    def _push(self, when_ns, kind, side, what):
        if kind == _TAP:
            self.fates[-1].tapped_ns.append(when_ns)
        elif kind == _ARRIVAL:
            self.fates[-1].arrived_ns.append(when_ns)
        super()._push(when_ns, kind, side, what)

    @property
    def under_way(self):
        """Whether a segment is on its way, or a call of an application is still to come."""
        return bool(self._events)

    def next_ns(self):
        """When something happens next; None when nothing will."""
        times = [self._events[0][0]] if self._events else []
        times += [time for table in self.tables if (time := table.next_timer_ns) is not None]
        return min(times, default=None)


class Life:
    """Hosts a and b, side 0 and 1, each with its profile; the taps, all at one point of the wire, the first of which is
    `tap`."""

    def __init__(self, seed, *, loss, duplicate, spread_ms, profiles, observers):
        self.rng = rng = random.Random(seed)
        self.addresses = rng.choice(ADDRESSES)
        self.hosts = tuple(
            ConnectionTable(8, profile=name, seed=seed * 2 + i, keep_ended=True) for i, name in enumerate(profiles)
        )
        self.taps = [
            ConnectionTable(8, seat="observer", profile=name, seed=seed, keep_ended=True) for name in observers
        ]
        self.tap = self.taps[0]
        self.wire = Wire(
            *self.hosts,
            uniform=rng.random,
            loss=loss,
            duplicate=duplicate,
            delay_ns=(5 * MS, (5 + spread_ms) * MS),
            tap=rng.random(),
            start_ns=rng.randrange(1 << 40),
        )
        self.listeners: list[int | None] = [None, None]
        self.opening = False
        self.lives: list[int] = []  # the first fate of each connection
        self.met: set[tuple[int, int]] = set()  # handles of both halves that were established together
        self.ends: list[list[tuple[State, Event, int]]] = [[], []]
        self.tap_ends: list[list[Event]] = [[] for _ in self.taps]

    # ---- what happens

    def begin(self):
        """The next OPEN that is allowed begins another connection; so does not one that crosses it."""
        self.opening = True

    def run(self, until_ns):
        for batch in self.wire.run(until_ns):
            for tap in self.taps:
                tap.apply(batch)

    def watch(self):
        """The taps' clocks come to now."""
        for tap, ends in zip(self.taps, self.tap_ends, strict=True):
            tap.advance(self.wire.now_ns)
            ends.extend(Event(end["ended_by"]) for end in tap.take_ended())

    def busy(self):
        """Whether anything will still be sent without a call of an application."""
        if self.wire.under_way:
            return True
        return any(
            np.isin(np.asarray(table.column("timer"))[[handle & 0xFFFFFFFF for handle in table]], BUSY_TIMERS).any()
            for table in self.hosts
        )

    def settle(self):
        """Until nothing is on its way and nobody waits for an answer."""
        while self.busy():
            self.run(max(self.wire.next_ns(), self.wire.now_ns + 50 * MS))
        self.watch()
        if self.lives and min(self.state(0), self.state(1)) >= State.ESTABLISHED:
            self.met.add((self.half(0), self.half(1)))

    def finish(self):
        """Until no timer runs anywhere."""
        while (time := self.wire.next_ns()) is not None:
            self.run(max(time, self.wire.now_ns + SECOND))
        self.watch()

    def soon(self, most_ms, call, *arguments, **options):
        """A call of an application at some time of this phase."""

        def act(now):
            with suppress(StateError, TupleInUse, PortsExhausted):
                call(*arguments, now, **options)

        self.wire.at(self.wire.now_ns + self.rng.randrange(most_ms * MS), act)

    # ---- where it stands

    def names(self, side):
        """The connection as host `side` calls it."""
        return self.addresses[side], PORTS[side], self.addresses[1 - side], PORTS[1 - side]

    def half(self, side):
        """The handle of the connection that host `side` has, or None."""
        return self.hosts[side].find(*self.names(side))

    def state(self, side):
        handle = self.half(side)
        return State.CLOSED if handle is None else self.hosts[side].state(handle)

    def seen(self, tap=None):
        """The tap's handle, or None."""
        (here, there), (mine, others) = self.addresses, PORTS
        return (tap or self.tap).find(here, mine, there, others)

    def seen_states(self, tap=None):
        """What the tap says of a and of b, None when it knows of no connection."""
        tap = tap or self.tap
        handle = self.seen(tap)
        if handle is None:
            return None
        states = tap.state(handle)
        return tuple(states) if tap.summary(handle)["orig_port"] == PORTS[0] else tuple(reversed(states))

    def gave_up_a_syn(self, side, tap):
        """Whether that side has sent another SYN since the connection that the tap sees began."""
        handle = self.seen(tap)
        if handle is None:
            return False
        summary = tap.summary(handle)
        began = summary["orig_isn" if summary["orig_port"] == PORTS[side] else "resp_isn"]
        sent = [fate.seq for fate in self.wire.fates if fate.side == side and fate.flags & SYN and fate.tapped_ns]
        return began in sent and sent[-1] != began

    def answered(self, side, tap):
        """Whether the connection that the tap sees has a SYN of that side."""
        handle = self.seen(tap)
        if handle is None:
            return True
        row = handle & 0xFFFFFFFF
        first = np.asarray(tap.column("port_0"))[row] == PORTS[side]
        return bool(np.asarray(tap.column("flags"))[row] & (SYN_SEEN if first else SYN_SEEN << 1))

    def fates(self, side):
        """Of the segments that host `side` has sent since the connection began."""
        return [fate for fate in self.wire.fates[self.lives[-1] if self.lives else 0 :] if fate.side == side]

    def last_end(self, side):
        """(state, event, when) with which host `side`'s last connection ended; None three times while there was none."""
        self.ends[side].extend(
            (State(end["orig_state"]), Event(end["ended_by"]), int(end["ended_ns"]))
            for end in self.hosts[side].take_ended()
            if end["orig_state"] != State.LISTEN
        )
        return self.ends[side][-1] if self.ends[side] else (None, None, None)

    def tired(self):
        """Whether the last tap has let go of a connection because of silence."""
        return any(event in TIMED_OUT for event in self.tap_ends[-1])

    def opened(self):
        """How many SYNs of their own number passed the tap."""
        return len({(fate.side, fate.seq) for fate in self.wire.fates if fate.flags & SYN and fate.tapped_ns})

    def account(self):
        """Where it stands, for whom it may concern."""
        names = [[self.state(side).name, *self.last_end(side)] for side in (0, 1)]
        return f"halves {names}, seen {self.seen_states()}, connection {len(self.lives)}, at {self.wire.now_ns} ns"

    # ---- what applications do, each a call with the time last

    def open(self, side, now):
        self.hosts[side].open(*self.names(side), now)
        if self.opening:
            self.opening = False
            self.lives.append(len(self.wire.fates))

    def listen(self, side, on):
        if on and self.listeners[side] is None:
            self.listeners[side] = self.hosts[side].listen(self.addresses[side], PORTS[side], self.wire.now_ns)
        elif not on and self.listeners[side] is not None:
            self.hosts[side].close(self.listeners[side], self.wire.now_ns)
            self.listeners[side] = None

    def send(self, side, nbytes, now):
        if (handle := self.half(side)) is not None:
            self.hosts[side].send(handle, nbytes, now)

    def close(self, side, now, *, half=True):
        if (handle := self.half(side)) is not None:
            self.hosts[side].close(handle, now, half=half)

    def abort(self, side, now):
        if (handle := self.half(side)) is not None:
            self.hosts[side].abort(handle, now)


def told_to(host, fates, names):
    """The state of a connection in a copy of `host` that receives these segments too."""
    with tempfile.TemporaryDirectory() as folder:
        host.save(Path(folder) / "host")
        copy = ConnectionTable.load(Path(folder) / "host")
    for fate in fates:
        copy.receive(fate.at(copy.now_ns))
    handle = copy.find(*names)
    return State.CLOSED if handle is None else copy.state(handle)


def tap_that_sees_all(life, profile):
    """A tap at the same point that also sees what was lost before it, at about the time when it would have passed."""
    tap = ConnectionTable(8, seat="observer", profile=profile, seed=1)
    passed = [
        (when, number, fate)
        for number, fate in enumerate(life.wire.fates)
        for when in (fate.tapped_ns or [fate.sent_ns + 5 * MS])
    ]
    records = [fate.at(when) for when, _, fate in sorted(passed, key=lambda each: each[:2])]
    if records:
        tap.apply(SegmentBatch(bytearray(b"".join(records))))
    return tap
