"""Two hosts and a wire on which every segment's fate is decided by a script: for experiments, one connection at a time.

    lab = Lab(client="linux", server="linux")
    lab.connect()
    lab.run()                                   # until nothing is on its way
    lab.client.close()
    lab.wire.lose("A", sender=lab.client)       # the next such segment is lost
    lab.run(seconds=5)
    print(lab.ladder())                         # every segment, and the state of both ends after it

The tables are the engine's; they count bytes and hold none, so the lab holds the bytes: what each side has sent, by sequence
number, and what each side's application has read, which tells whether a stream arrived as it was sent.

Must not stand here: any rule of TCP. States and reasons are read from the tables' traces (`explain`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from fasttcp.core.outcomes import Outcome
from fasttcp.core.segments import Segment, flag_names
from fasttcp.core.steps import TraceStep
from fasttcp.core.table import ConnectionTable
from fasttcp.errors import FastTCPError
from fasttcp.profiles import Profile, profile
from fasttcp.spec import Event, State

__all__ = ["Host", "Lab", "Line"]

SECOND = 1_000_000_000
_MODULO = 1 << 32


@dataclass(slots=True)
class Line:
    """One line of a ladder: a segment on its way, or (without one) something that was done or happened at one side."""

    sent_ns: int
    side: int  # 0 client, 1 server: who sent it, or where it happened
    text: str
    arrived_ns: int | None = None
    states: tuple[str, str] = ("", "")  # of client and server: the sender's after sending, the other's after it arrived
    segment: bool = True
    fate: str = ""  # "lost", "delayed", or a remark


class Host:
    """One end: a table in the endpoint seat, its application, and the one connection that an experiment is about."""

    def __init__(self, lab: Lab, name: str, side: int, policy: Profile, address: str, port: int) -> None:
        self.lab, self.name, self.side, self.address, self.port = lab, name, side, address, port
        self.table = ConnectionTable(64, profile=policy, seed=side + 1, trace=4096, keep_ended=True)
        self.profile = policy
        self.base: int | None = None  # the first ISN that it used: sequence numbers are told relative to it
        self.iss = 0
        self.outbox = bytearray()  # all that this connection was given to send
        self.inbox: dict[int, int] = {}  # bytes that arrived, by sequence number; the first to come stays
        self.rcv_nxt = 0
        self.read = bytearray()  # what the application has read
        self.ends: list[str] = []  # how connections ended: "closed", "reset", ...
        self.story: list[TraceStep] = []  # steps of connections that are over

    @property
    def peer(self) -> Host:
        """The other end."""
        return self.lab.hosts[1 - self.side]

    @property
    def handle(self) -> int | None:
        """The connection on this experiment's 4-tuple, or None."""
        return self.table.find(self.address, self.port, self.peer.address, self.peer.port)

    @property
    def state(self) -> str:
        """The state of that connection; of a host that only listens, LISTEN."""
        handle = self.handle
        if handle is not None:
            state: State = self.table.state(handle)
            return state.name
        return "LISTEN" if self.table.counts()[State.LISTEN] else "CLOSED"

    # ---- calls

    def send(self, data: bytes) -> None:
        """SEND."""
        self.outbox += data
        self._call(f"send {len(data):,} bytes", lambda handle: self.table.send(handle, len(data), self.lab.now_ns))

    def close(self, *, half: bool = False) -> None:
        """CLOSE of both directions, or (half) of the sending one."""
        self._call(
            "shutdown(SHUT_WR)" if half else "close()", lambda handle: self.table.close(handle, self.lab.now_ns, half=half)
        )

    def abort(self) -> None:
        """ABORT."""
        self._call("abort", lambda handle: self.table.abort(handle, self.lab.now_ns))

    def _call(self, text: str, call: Callable[[int], Outcome]) -> None:
        handle = self.handle
        if handle is None:
            self.lab.note(self, f"{text}: there is no connection")
            return
        self.lab.note(self, text)
        self._told(call(handle))
        self.lab.drain()

    # ---- inside

    def _told(self, outcome: Outcome) -> None:
        if outcome.end is not None:
            self.ends.append(outcome.end)
        for at in range(self.rcv_nxt, self.rcv_nxt + outcome.delivered):
            self.read.append(self.inbox.pop(at % _MODULO, ord("?")))
        self.rcv_nxt = (self.rcv_nxt + outcome.delivered) % _MODULO

    def receive(self, segment: Segment, data: bytes) -> None:
        """A segment arrives."""
        if segment.flags & 0x02:  # SYN
            self.inbox.clear()
            self.rcv_nxt = (segment.seq + 1) % _MODULO
        # The engine has the say which bytes count; those from RCV.NXT on that came first stay.
        before = {
            (segment.seq + i) % _MODULO: byte for i, byte in enumerate(data)
            if (segment.seq + i - self.rcv_nxt) % _MODULO < 1 << 31 and (segment.seq + i) % _MODULO not in self.inbox
        }
        self.inbox |= before
        _, outcome = self.table.receive(segment)
        assert isinstance(outcome, Outcome)
        if Event.RCV_DATA not in outcome.events:
            for at in before:
                self.inbox.pop(at, None)
        self._told(outcome)


class _Wire:
    """What happens to segments between the hosts: each rule is for the next segment that it fits."""

    def __init__(self) -> None:
        self.rules: list[tuple[str, Host, str]] = []
        self.kept: list[tuple[Segment, bytes, Host]] = []

    def lose(self, flags: str, *, sender: Host) -> None:
        """The sender's next segment with exactly these flags ("FA", "A", "S", "SA", "PA") does not arrive."""
        self.rules.append(("lose", sender, flags))

    def duplicate(self, flags: str, *, sender: Host) -> None:
        """The sender's next segment with these flags arrives, and a copy of it stays somewhere on the way until `release`."""
        self.rules.append(("copy", sender, flags))

    def fate(self, segment: Segment, sender: Host) -> str:
        flags = _letters(segment)
        for at, (what, host, wanted) in enumerate(self.rules):
            if host is sender and wanted == flags:
                del self.rules[at]
                return what
        return ""


class Lab:
    """Two hosts, a wire, a clock that only `run` moves. client, server: a profile, or its name. delay_ms: one way."""

    def __init__(
        self, *, client: str | Profile = "linux", server: str | Profile = "linux", delay_ms: float = 50, listen: bool = True
    ) -> None:
        self.hosts = (
            Host(self, "client", 0, profile(client), "192.0.2.1", 40000),
            Host(self, "server", 1, profile(server), "192.0.2.2", 80),
        )
        self.client, self.server = self.hosts
        self.wire = _Wire()
        self.now_ns = 0
        self.lines: list[Line] = []
        self._delay_ns = round(delay_ms * 1e6)
        self._events: list[tuple[int, int, Host, Segment, bytes, Line]] = []
        self._order = 0
        if listen:
            self.server.table.listen(self.server.address, self.server.port, 0)

    # ---- what happens

    def connect(self) -> bool:
        """The client's active OPEN, always from the same port. False when it is refused: TIME_WAIT forbids it."""
        for host in self.hosts:
            host.outbox.clear()
            host.read.clear()
        self.note(self.client, "connect()")
        client, server = self.hosts
        try:
            client.table.open(client.address, client.port, server.address, server.port, self.now_ns)
        except FastTCPError as refusal:
            self.lines[-1].fate = f"refused: {refusal}"
            return False
        self.drain()
        return True

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass until nothing is on its way, and so many seconds at least; timers fire."""
        until = self.now_ns + round(seconds * SECOND)
        while True:
            timers = [when for host in self.hosts if (when := host.table.next_timer_ns) is not None]
            arrival = self._events[0][0] if self._events else None
            if arrival is None and not (timers and min(timers) <= until):
                break
            if arrival is not None and (not timers or arrival <= min(timers)):
                self.now_ns = max(self.now_ns, arrival)
                self._arrive(*heapq.heappop(self._events)[2:])
            else:
                self.now_ns = max(self.now_ns, min(timers))
                self._fire()
            self.drain()
        self.now_ns = max(self.now_ns, until)
        self._fire()
        self.drain()

    def release(self) -> None:
        """Copies that stayed on the way arrive now."""
        for segment, data, sender in self.wire.kept:
            line = Line(self.now_ns, sender.side, self._text(segment, sender), fate="an old duplicate")
            self.lines.append(line)
            self._push(self.now_ns, sender.peer, segment, data, line)
        self.wire.kept.clear()
        self.run()

    def note(self, host: Host, text: str) -> None:
        """A line without a segment."""
        self.lines.append(Line(self.now_ns, host.side, text, segment=False, states=(self.client.state, self.server.state)))

    def drain(self) -> None:
        """What the tables have to send goes on its way."""
        for host in self.hosts:
            while host.table.output_count:
                for segment in host.table.take_output():
                    self._send(host, segment)

    # ---- what came of it

    def ladder(self) -> str:
        """The segments in the style of RFC 9293 figures 6 to 9: both ends' states after each."""
        from fasttcp.endpoint.ladder import ladder

        return ladder(self.lines)

    def why(self, host: Host, *, only: tuple[State, ...] = ()) -> str:
        """The steps of this host's connection as `explain` tells them, with the source of each."""
        steps = [*host.story, *(host.table.explain(host.handle) if host.handle is not None else [])]
        return "\n".join(
            f"{step.time_ns / SECOND:8.3f} s  {host.name}: {step.state.name} --{step.event.name}--> {step.next.name}\n"
            f"            {step.why} [{step.source}]"
            for step in steps if not only or step.next in only or step.state in only
        )  # fmt: skip

    # ---- inside

    def _push(self, when_ns: int, to: Host, segment: Segment, data: bytes, line: Line) -> None:
        self._order += 1
        heapq.heappush(self._events, (when_ns, self._order, to, segment, data, line))

    def _send(self, host: Host, segment: Segment) -> None:
        if host.base is None:
            host.base = segment.seq
        if segment.flags & 0x02:
            host.iss = segment.seq
        at = (segment.seq - host.iss - 1) % _MODULO
        data = bytes(host.outbox[at : at + segment.payload]) if segment.payload else b""
        line = Line(self.now_ns, host.side, self._text(segment, host))
        line.states = (host.state, "") if host.side == 0 else ("", host.state)
        self.lines.append(line)
        fate = self.wire.fate(segment, host)
        if fate == "lose":
            line.fate = "lost"
            return
        if fate == "copy":
            self.wire.kept.append((segment, data, host))
            line.fate = "and a copy is delayed"
        self._push(self.now_ns + self._delay_ns, host.peer, segment, data, line)

    def _arrive(self, host: Host, segment: Segment, data: bytes, line: Line) -> None:
        handle = host.handle
        self._fire()
        host.receive(_at(segment, self.now_ns), data)
        self._keep_story(host, handle)
        line.arrived_ns = self.now_ns
        line.states = (line.states[0], host.state) if host.side == 1 else (host.state, line.states[1])

    def _fire(self) -> None:
        for host in self.hosts:
            handle, before = host.handle, host.state
            host.table.advance(self.now_ns)
            if handle is not None and host.handle is None:
                self._keep_story(host, handle)
                self.note(host, f"a timer ends {before}")

    def _keep_story(self, host: Host, handle: int | None) -> None:
        """Steps of a connection that is over: its handle names nobody, but the trace still holds them."""
        if handle is not None and host.handle != handle:
            host.story += host.table.explain(handle)

    def _text(self, segment: Segment, sender: Host) -> str:
        words = [f"{flag_names(segment.flags)} seq={_signed(segment.seq - (sender.base or 0))}"]
        if segment.flags & 0x10:
            words.append(f"ack={_signed(segment.ack - (sender.peer.base or 0))}")
        if segment.payload:
            words.append(f"len={segment.payload}")
        return " ".join(words)


def _at(segment: Segment, now_ns: int) -> Segment:
    return segment._replace(time_ns=now_ns)


def _signed(number: int) -> int:
    number %= _MODULO
    return number - _MODULO if number >= _MODULO // 2 else number


def _letters(segment: Segment) -> str:
    return "".join(letter for letter, bit in (("S", 2), ("F", 1), ("R", 4), ("P", 8), ("A", 16)) if segment.flags & bit)


