"""A small language for exchanges of one endpoint with a peer that the test plays.

    x = Exchange("linux")
    x.open()                            # active OPEN; our SYN is out
    x.sends("S 0 mss 1460")             # what the endpoint sends next, in order; fields not named are not looked at
    x.gets("SA 0 ack 1 win 1000")       # what the peer sends; returns the outcome
    x.sends("A 1 ack 1")
    x.quiet()                           # nothing else was sent
    assert x.state == State.ESTABLISHED

A segment is: flags (S F R P A U, "-" for none), sequence number, then any of
    ack N    win N    len N    mss N    ws N    ts VALUE:ECHO    sack
Numbers of sequence are relative to each side's ISN: ours for what we send and what the peer acknowledges, the peer's
for the other two. The real ISNs differ hugely, and both streams wrap within the first few hundred bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fasttcp.core._testing_endpoint import Seat

from fasttcp.profiles import profile as find_profile
from fasttcp.spec import TRANSITIONS, Action, Event, State
from fasttcp.verdicts import OutcomeFlag

SECOND = 1_000_000_000
TICK = 10_000_000
FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10, "U": 0x20}
SEGMENT = struct.Struct("<q16s16sHHIIIIIHHHBBII")
FIELDS = ["time_ns", "src", "dst", "sport", "dport", "seq", "ack", "payload", "tsval", "tsecr", "window", "flags"]
FIELDS += ["mss", "wscale", "options", "ip_bytes", "info"]
OPT_MSS, OPT_WSCALE, OPT_SACK, OPT_TIMESTAMPS = 1, 2, 4, 8

OURS = 0xFFFFFF80  # our ISN: wraps after 128 bytes
THEIRS = 0x7FFFFFC0  # the peer's: crosses the sign after 64 bytes

CALL_REJECTED, CALL_NO_PORT, CALL_FULL, CALL_NO_MEMORY, CALL_BAD_LOCAL, CALL_BAD_REMOTE, CALL_TOO_MUCH = range(1, 8)
OUT_NEW, OUT_ENDED, OUT_ESTABLISHED, OUT_ACCEPTED, OUT_DROPPED, OUT_FULL = OutcomeFlag


def ip4(text: str) -> bytes:
    return bytes(10) + b"\xff\xff" + bytes(int(part) for part in text.split("."))


LOCAL, REMOTE = ip4("10.0.0.1"), ip4("192.0.2.7")


def pack(**fields) -> bytes:
    return SEGMENT.pack(*(fields.get(name, bytes(16) if name in ("src", "dst") else 0) for name in FIELDS))


def unpack(record: bytes) -> dict:
    return dict(zip(FIELDS, SEGMENT.unpack(record), strict=True))


@dataclass
class Outcome:
    """What one input did; the names of core/tcb.pxd's Outcome are attributes too."""

    events: list[Event]
    end: str | None  # "refused", "reset", ... where the connection ended
    before: State
    after: State
    told: dict

    def __getattr__(self, name):
        return self.told[name]


def outcome(told: dict) -> Outcome:
    events = [event for event in Event if told["events"] >> event & 1]
    end = None
    if told["flags"] & OUT_ENDED:
        end = TRANSITIONS[State(told["origin"]), Event(told["last"])].outcome
    return Outcome(events, end, State(told["before"]), State(told["after"]), told)


def signed(n: int) -> int:
    n &= 0xFFFFFFFF
    return n - (1 << 32) if n >> 31 else n


def show(record: dict, seq_from: int, ack_from: int) -> str:
    """A segment in the language of this file, without its options."""
    text = "".join(name for name, bit in FLAGS.items() if record["flags"] & bit) or "-"
    text += f" {signed(record['seq'] - seq_from)}"
    if record["flags"] & FLAGS["A"]:
        text += f" ack {signed(record['ack'] - ack_from)}"
    return text + (f" len {record['payload']}" if record["payload"] else "")


class Exchange:
    """One seat, one connection of it, and its peer."""

    def __init__(
        self,
        profile="linux",
        *,
        now=1_000 * SECOND,
        local=LOCAL,
        remote=REMOTE,
        lport=40000,
        rport=443,
        seat=None,
        **changes,
    ):
        self.profile = find_profile(profile).replace(**changes)
        self.seat = Seat(self.profile, **(seat or {}))
        self.now = now
        self.local, self.remote, self.lport, self.rport = local, remote, lport, rport
        self.ours, self.theirs = OURS, THEIRS
        self.handle = None
        self.sent: list[dict] = []
        self.ended: list[Outcome] = []  # connections that ended by a timer

    # ---- what the application does

    def call(self, name, *arguments) -> Outcome:
        """A call that must be allowed."""
        answer, told = getattr(self.seat, name)(*arguments)
        assert answer == 0, f"{name} was answered with {answer}: {outcome(told)}"
        return self._after(told)

    def open(self, *, rebase=True):
        """Active OPEN. Our ISN becomes OURS (`rebase=False` keeps the one that was chosen)."""
        result = self.call("open", self.local, self.lport, self.remote, self.rport, self.now)
        self.handle = result.handle
        self._rebase(rebase)
        return result

    def listen(self, backlog=16, *, local=None):
        """Passive OPEN on lport: the listener's handle."""
        return self.call("listen", local or self.local, self.lport, backlog, self.now).handle

    def send(self, n):
        return self.call("send", self.handle, n, self.now)

    def read(self, n):
        return self.call("read", self.handle, n, self.now)

    def close(self, half=True):
        return self.call("close", self.handle, half, self.now)

    def abort(self):
        return self.call("abort", self.handle, self.now)

    def refuses(self, name, *arguments) -> str:
        """A call that the machine rejects, changing nothing and sending nothing: its why."""
        before = self.seat.fields(self.handle)
        answer, told = getattr(self.seat, name)(*arguments)
        assert answer == CALL_REJECTED, f"{name} was answered with {answer}"
        row = TRANSITIONS[State(told["origin"]), Event(told["last"])]
        assert row.actions & Action.REJECT
        assert self.seat.fields(self.handle) == before
        self._after(told)
        self.quiet()
        return row.why

    # ---- what the peer does

    def segment(self, text: str, **overrides) -> bytes:
        """The record of a segment from the peer, in the language of this file."""
        words = text.split()
        record = {
            "time_ns": self.now,
            "src": self.remote,
            "dst": self.local,
            "sport": self.rport,
            "dport": self.lport,
            "flags": 0 if words[0] == "-" else sum(FLAGS[letter] for letter in words[0]),
            "seq": (int(words[1]) + self.theirs) % 2**32,
            "window": 65535,
            "options": 0,
        }
        rest = iter(words[2:])
        for word in rest:
            if word == "ack":
                record["ack"] = (int(next(rest)) + self.ours) % 2**32
            elif word == "win":
                record["window"] = int(next(rest))
            elif word == "len":
                record["payload"] = int(next(rest))
            elif word == "sack":
                record["options"] |= OPT_SACK
            elif word == "mss":
                record["mss"] = int(next(rest))
                record["options"] |= OPT_MSS
            elif word == "ws":
                record["wscale"] = int(next(rest))
                record["options"] |= OPT_WSCALE
            elif word == "ts":
                value, echo = next(rest).split(":")
                record["tsval"], record["tsecr"] = int(value) % 2**32, int(echo) % 2**32
                record["options"] |= OPT_TIMESTAMPS
            else:
                raise ValueError(f"{word!r} in {text!r}")
        return pack(**{**record, **overrides})

    def gets(self, text: str, **overrides) -> Outcome:
        result = self._after(self.seat.receive(self.segment(text, **overrides), self.now))
        if result.flags & OUT_NEW:
            self.handle = result.handle
            self._rebase(True)
        return result

    # ---- what the endpoint sends

    def sends(self, text: str) -> dict:
        """The next segment out is this one; its record."""
        assert self.sent, f"nothing was sent, expected: {text}"
        got = self.sent.pop(0)
        wanted = unpack(self.segment(text))
        words = text.split()
        message = f"sent: {show(got, self.ours, self.theirs)} {got}, expected: {text}"
        assert got["flags"] & ~FLAGS["P"] == wanted["flags"] & ~FLAGS["P"], message
        assert (got["src"], got["dst"], got["sport"], got["dport"]) == (self.local, self.remote, self.lport, self.rport)
        assert signed(got["seq"] - self.ours) == int(words[1]), message
        assert got["payload"] == wanted["payload"], message
        if "ack" in words:
            assert signed(got["ack"] - self.theirs) == int(words[words.index("ack") + 1]), message
        for word, name in (("win", "window"), ("mss", "mss"), ("ws", "wscale")):
            if word in words:
                assert got[name] == wanted[name], message
        for word, bit in (("mss", OPT_MSS), ("ws", OPT_WSCALE), ("ts", OPT_TIMESTAMPS), ("sack", OPT_SACK)):
            if word in words:
                assert got["options"] & bit, message
        if "ts" in words:
            assert (got["tsval"], got["tsecr"]) == (wanted["tsval"], wanted["tsecr"]), message
        return got

    def quiet(self):
        """Nothing more was sent."""
        assert not self.sent, "sent: " + "; ".join(show(one, self.ours, self.theirs) for one in self.sent)

    # ---- time

    def wait(self, seconds: float) -> list[tuple[float, str]]:
        """Let time pass, stopping at each deadline as a driver would. What was sent meanwhile, as (seconds, segment),
        is taken out of the queue; ends of connections go to `ended`."""
        start, end = self.now, self.now + round(seconds * SECOND)
        happened, told = [], None
        while True:
            due = [
                fields["deadline_ns"] for fields in map(self.seat.fields, self.seat.handles()) if fields["deadline_ns"]
            ]
            # One that was past due when it was armed fires with the next tick.
            self.now = min(max(self.now + TICK if told == [] else self.now, min([*due, end])), end)
            told, done = self.seat.advance(self.now)
            assert done
            for one in told:
                result = self._after(one)
                if result.end is not None:
                    self.ended.append(result)
            happened += [
                (round((self.now - start) / SECOND, 2), show(one, self.ours, self.theirs)) for one in self.sent
            ]
            self.sent.clear()
            if self.now >= end and not told:
                return happened

    # ---- readings; any field of the control block is an attribute

    @property
    def state(self) -> State:
        """CLOSED when the row is gone."""
        return State(self.seat.state(self.handle)) if self.handle in self.seat else State.CLOSED

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self.seat.fields(self.handle)[name]

    def una(self):
        return signed(self.snd_una - self.ours)

    def nxt(self):
        return signed(self.snd_nxt - self.ours)

    def rcv(self):
        return signed(self.rcv_nxt - self.theirs)

    # ---- ready-made beginnings

    def established(self, *, passive=False, options="", window=65535) -> Exchange:
        """Through the handshake, all of its segments taken out of the queue."""
        self.in_state(State.SYN_RCVD if passive else State.SYN_SENT, passive=passive, options=options, window=window)
        if passive:
            self.gets(f"A 1 ack 1 win {window}" + self.echo(options))
        else:
            self.gets(f"SA 0 ack 1 win {window} {options}")
            self.sends("A 1 ack 1")
        assert self.state == State.ESTABLISHED
        self.quiet()
        return self

    def in_state(self, state: State, *, passive=False, options="", orphan=False, window=65535) -> Exchange:
        """A connection in `state`, by the shortest exchange that leads there; nothing waits to be sent."""
        end = self.echo(options)
        half = not orphan
        if state == State.LISTEN:
            self.handle = self.listen()
            return self
        if state in (State.SYN_SENT, State.SYN_RCVD):
            if passive and state == State.SYN_RCVD:
                self.listen()
            else:
                self.open()
                self.sends("S 0")
            if state == State.SYN_RCVD:
                self.gets(f"S 0 win {window} {options}")
                self.sends("SA 0 ack 1")
            assert self.state == state
            self.quiet()
            return self
        self.established(passive=passive, options=options, window=window)
        if state in (State.CLOSE_WAIT, State.LAST_ACK):
            self.gets("FA 1 ack 1" + end)
            self.sends("A 1 ack 2")
        if state in (State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.TIME_WAIT, State.LAST_ACK):
            self.close(half)
            self.sends("FA 1")
        if state in (State.FIN_WAIT_2, State.TIME_WAIT):
            self.gets("A 1 ack 2" + end)
        if state == State.CLOSING:
            self.gets("FA 1 ack 1" + end)
            self.sends("A 2 ack 2")
        if state == State.TIME_WAIT:
            self.gets("FA 1 ack 2" + end)
            self.sends("A 2 ack 2")
        assert self.state == state
        self.quiet()
        return self

    def echo(self, options: str) -> str:
        """The timestamps of later segments of a peer whose SYN carried these options."""
        words = options.split()
        return f" ts {words[words.index('ts') + 1]}" if "ts" in words else ""

    # ---- inside

    def _after(self, told: dict) -> Outcome:
        records = self.seat.take()
        self.sent += [unpack(records[at : at + 80]) for at in range(0, len(records), 80)]
        self.seat.check()
        return outcome(told)

    def _rebase(self, wanted: bool):
        """Our ISN is OURS from now on; a SYN that was sent with the chosen one is read as if it had been."""
        if not wanted or self.state not in (State.SYN_SENT, State.SYN_RCVD):
            self.ours = self.iss
            return
        chosen, self.ours = self.iss, OURS
        self.seat.preset_sequence(self.handle, OURS)
        for one in self.sent:
            if one["flags"] & FLAGS["S"]:
                one["seq"] = (one["seq"] - chosen + OURS) % 2**32
