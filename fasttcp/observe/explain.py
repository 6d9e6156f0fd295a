"""`explain`: the whole story of the connections of one 4-tuple, as data: what was seen, what came of it, and why.

What must not stand here: how it looks on a screen.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from fasttcp.core.segments import INFO_BAD_CHECKSUM, INFO_BAD_HEADER, flag_names
from fasttcp.core.steps import TraceStep
from fasttcp.errors import SegmentError
from fasttcp.observe.story import Teller
from fasttcp.observe.track import Track, track
from fasttcp.observe.tracker import Connection
from fasttcp.spec import Event, State
from fasttcp.verdicts import Verdict

__all__ = ["Moment", "NoSuchConnection", "Pause", "Story", "explain"]

MOST_MOMENTS = 20_000  # of one connection; what comes after is counted
Ends = tuple[tuple[str, int], tuple[str, int]]

# Steps that end a connection because another one begins, or because nobody spoke: they are not the new one's.
_ENDINGS = {Event.REPLACED, Event.EVICTED, Event.TIMEOUT_IDLE, Event.TIMEOUT_2MSL}

#: What is odd about a segment with this verdict, in words.
ODD = {
    Verdict.REPLACED: "a SYN with another sequence number on the same 4-tuple: the connection before it is over",
    Verdict.PARTIAL: "the capture begins in the middle of this connection",
    Verdict.RETRANSMITTED: "it brought nothing new: a retransmission, a keepalive, or a window probe",
    Verdict.DUPLICATE: "the same packet, captured twice",
    Verdict.GAP: "it follows, or acknowledges, data that were not captured",
    Verdict.ILLEGAL: "flags that no stack sends: SYN with FIN or RST, or none at all",
    Verdict.LATE: "its time is older than that of the segment before it",
    Verdict.STRAY: "nothing can be learnt from it yet",
    Verdict.VOID: "damaged: it counts for nothing",
}


_SUSPECT = {
    "RST": "not believed: this RST stands outside the window",
    "SYN": "not believed: a SYN on a live connection, until the other end answers it",
    "FIN": "not believed: a FIN that this end, in its state, cannot send",
    "": "not believed: it acknowledges what was never sent, or speaks for an end that is closed",
}


@dataclass(frozen=True)
class Moment:
    """One segment that mattered. `sender` is 0 for the originator; states are (originator, responder)."""

    time_ns: int
    file: str
    packet: int
    offset: int
    sender: int
    flags: str
    seq: int  # relative to the sender's first number
    ack: int | None
    payload: int
    window: int
    before: tuple[State, State]
    after: tuple[State, State]
    steps: tuple[tuple[int, TraceStep], ...]  # whose half (0: the originator's), what it did
    odd: tuple[str, ...]


@dataclass(frozen=True)
class Pause:
    """Segments between two moments of which nothing came: by sender, the originator first."""

    first_ns: int
    last_ns: int
    segments: tuple[int, int]
    payload: tuple[int, int]


@dataclass
class Story:
    """One connection: what is said of it in the log, and everything that happened, in order."""

    connection: Connection
    happened: list[Moment | Pause] = field(default_factory=list)
    left_out: int = 0  # moments beyond the first 20,000


class NoSuchConnection(LookupError):
    """No connection of the capture has this 4-tuple or uid; `near` are some that come close, as text."""

    def __init__(self, message: str, near: list[str]) -> None:
        super().__init__(message)
        self.near = near


def parse_ends(text: str) -> Ends | str:
    """Both ends of "a:port b:port" (or with - > , between them), or the uid that the text is. ValueError otherwise."""
    text = text.strip()
    if re.fullmatch(r"C[0-9A-Za-z]{17}", text):
        return text
    parts = re.split(r"\s*(?:<->|->|[>,-])\s*|\s+", text)
    if len(parts) != 2:
        raise ValueError(f"{text!r} names no connection: give 'address:port address:port', or a uid")
    return _end(parts[0]), _end(parts[1])


def _end(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} has no port from 0 to 65535 behind its address: {_example(text)}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets: [{host}]:{port}")
    try:
        return str(ip_address(host)), int(port)
    except ValueError:
        raise ValueError(f"{host!r} is no IPv4 or IPv6 address") from None


def _example(text: str) -> str:
    return f"[{text}]:443" if text.count(":") > 1 and not text.startswith("[") else "10.0.0.1:443"


def explain(source: Any, connection: str, *, problems: list[Any] | None = None, **options: Any) -> list[Story]:
    """The stories of all connections with this 4-tuple, in their order; of the one with this uid.

    Parameters
    ----------
    source : as for `track`; "-" and streams can only be searched for a 4-tuple, as they are read once
    connection : str
        "address:port address:port", either end first (also with - > , between them; IPv6 in brackets), or a uid.
    problems : list, optional
        What was wrong with the capture is appended to it: `Track.failures` and `Track.damages`.
    options : profile, checksums, tunnels, max_connections, as for `track`

    Raises
    ------
    NoSuchConnection
        None has it. ValueError: the text names none. OSError, CaptureError: as from `track`.

    Cost: one pass over the capture, and another one for a uid, or when nothing was found.
    """
    wanted = parse_ends(connection)
    if isinstance(wanted, str):
        uid, ends = wanted, _ends_of(track(source, **options), wanted)
    else:
        uid, ends = None, wanted
    followed = track(source, **options)
    stories = list(_stories(followed, ends))
    if problems is not None:
        problems += [*followed.failures, *followed.damages]
    if uid is not None:
        stories = [story for story in stories if story.connection.uid == uid]
    if not stories:
        again = (isinstance(source, (str, bytes)) and source != "-") or (not hasattr(source, "read") and source != "-")
        near = _near(track(source, **options), ends) if again else []
        raise NoSuchConnection(f"no connection between {_text(ends[0])} and {_text(ends[1])}", near)
    return stories


def _text(end: tuple[str, int]) -> str:
    return f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"


def _ends_of(followed: Track, uid: str) -> Ends:
    total = 0
    for one in followed:
        total += 1
        if one.uid == uid:
            return (one.orig_addr, one.orig_port), (one.resp_addr, one.resp_port)
    raise NoSuchConnection(f"none of the {total:,} connections has the uid {uid}", [])


def _likeness(ends: Ends, one: Connection) -> int:
    """How much a connection has in common with what was asked for, either way round."""
    own = ((one.orig_addr, one.orig_port), (one.resp_addr, one.resp_port))

    def score(left: tuple[str, int], right: tuple[str, int]) -> int:
        same_net = left[0].rpartition(".")[0] == right[0].rpartition(".")[0] != ""
        return 4 * (left[0] == right[0]) + same_net + 3 * (left[1] == right[1])

    return max(score(ends[0], own[i]) + score(ends[1], own[1 - i]) for i in (0, 1))


def _near(followed: Track, ends: Ends) -> list[str]:
    """Up to three 4-tuples that have most in common with the one that was asked for."""
    found: dict[str, int] = {}

    def candidates() -> Iterable[tuple[int, str]]:
        for one in followed:
            name = f"{_text((one.orig_addr, one.orig_port))} {_text((one.resp_addr, one.resp_port))}"
            yield _likeness(ends, one), name

    for score, name in heapq.nlargest(12, candidates(), key=lambda pair: pair[0]):
        found.setdefault(name, score)
    return list(found)[:3]


# ---- one connection after the other ----------------------------------------------------------------------------------


def _stories(followed: Track, ends: Ends) -> Iterator[Story]:
    try:
        teller = Teller(followed.profile, ends)
    except SegmentError as wrong:
        raise ValueError(str(wrong)) from None
    told: list[list[tuple[Any, ...]]] = []  # a list for each connection
    left_out: list[int] = []
    names: list[str] = []
    loose: list[tuple[Any, ...]] = []  # before any connection: they belong to none, and are told with the next

    def take(events: list[tuple[Any, ...]], file: str) -> None:
        for event in events:
            if event[0] == "segment" and event[11] & Verdict.NEW:
                told.append(loose.copy())
                left_out.append(0)
                loose.clear()
            if not told:
                del loose[: len(loose) - 99]
                loose.append((*event, file))
            elif len(told[-1]) < MOST_MOMENTS:
                told[-1].append((*event, file))
            else:
                left_out[-1] += 1

    while followed.reader is not None:
        name = followed.reader.name or "-"
        names.append(name)
        while (events := teller.feed(followed.reader)) is not None:
            take(events, name)
        followed.next_reader()
    last, connections = teller.finish()
    take(last, names[-1] if names else "")
    for connection, events, more in zip(connections, told, left_out, strict=False):
        yield Story(connection, list(_arranged(events, _originator(connection, teller, ends))), more)


def _originator(connection: Connection, teller: Teller, ends: Ends) -> int:
    """Which of the table's sides it is."""
    is_first = (connection.orig_addr, connection.orig_port) == ends[0]
    return teller.first_side if is_first else 1 - teller.first_side


def _arranged(events: list[tuple[Any, ...]], originator: int) -> Iterator[Moment | Pause]:
    """Sides become ends, numbers relative."""
    base: list[int | None] = [None, None]
    for event in events:
        if event[0] == "quiet":
            _, first_ns, last_ns, segments, payload, _ = event
            yield Pause(first_ns, last_ns, _turned(segments, originator), _turned(payload, originator))
            continue
        (_, packet, offset, time_ns, side, flags, seq, ack, payload, window, info, verdict, before, after, steps,
         file) = event  # fmt: skip
        if base[side] is None or flags & 0x02:
            base[side] = seq if flags & 0x02 else (seq - 1) & 0xFFFFFFFF
        if flags & 0x10 and base[1 - side] is None:
            base[1 - side] = (ack - 1) & 0xFFFFFFFF
        own = base[side] or 0
        own_steps = [step for step in steps if not (Verdict(verdict) & Verdict.NEW and step.event in _ENDINGS)]
        yield Moment(
            time_ns, file, packet, offset, side ^ originator, flag_names(flags), (seq - own) & 0xFFFFFFFF,
            (ack - (base[1 - side] or 0)) & 0xFFFFFFFF if flags & 0x10 else None, payload, window,
            _turned(tuple(map(State, before)), originator), _turned(tuple(map(State, after)), originator),
            tuple((step.side ^ originator, step) for step in own_steps),
            tuple(_oddities(verdict, info, flags, window)),
        )  # fmt: skip


def _turned(pair: Any, originator: int) -> Any:
    return (pair[1], pair[0]) if originator else (pair[0], pair[1])


def _oddities(verdict: int, info: int, flags: int, window: int) -> Iterator[str]:
    if info & INFO_BAD_CHECKSUM:
        yield "its TCP checksum is wrong"
    if info & INFO_BAD_HEADER:
        yield "its TCP header is cut short, or contradicts itself"
    if verdict & Verdict.SUSPECT:
        names = flag_names(flags).split("|")
        yield _SUSPECT[next((name for name in ("RST", "SYN", "FIN") if name in names), "")]
    for bit, words in ODD.items():
        if verdict & bit:
            yield words
    if window == 0 and not flags & 0x04 and not info & INFO_BAD_HEADER:
        yield "its window is shut: the other end may send no data"
