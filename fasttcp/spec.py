"""The TCP state machine, written once, as data.

Every transition that any part of fasttcp makes is a row of ``TRANSITIONS`` below; the compiled core, the diagram in
the documentation and the tests are derived from it. This file knows no packets, no clocks and no sequence numbers:
whether an ACK covers our FIN, or a RST stands exactly at RCV.NXT, is answered by *classification* before the table is
asked, and the answer is an ``Event``. So no rule hides in a guard.

A segment becomes an ordered sequence of events, its ACK part first, then its data, then its FIN. "FIN + ACK of our
FIN" in FIN_WAIT_1 is therefore two rows, FIN_WAIT_1 -> FIN_WAIT_2 -> TIME_WAIT, and needs no row of its own.

Both seats use the same rows. In the endpoint seat a CLOSE is a call of the application; in the observer seat a FIN on
the wire is the evidence of that call at its sender and RCV_FIN at its receiver.

Source: RFC 9293, "Transmission Control Protocol (TCP)", unless a row says otherwise. "kernel" is Linux.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, IntFlag, unique
from typing import NamedTuple

__all__ = [
    "EVENTS",
    "SYNCHRONIZED",
    "TRANSITIONS",
    "Action",
    "Event",
    "EventInfo",
    "State",
    "Transition",
    "transition",
]


@unique
class State(IntEnum):
    """The eleven states of RFC 9293 section 3.3.2. The numbers are those of the ``state`` columns."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RCVD = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10


# The short names keep a row of the table below on one or two lines.
CLOSED, LISTEN, SYN_SENT, SYN_RCVD, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT = State

#: Both sides have each other's sequence numbers (RFC 9293 section 3.5.2, third group).
SYNCHRONIZED = (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT)


class Action(IntFlag):
    """What a transition asks for, besides the new state. Endpoints carry actions out; an observer only uses some."""

    NONE = 0
    SEND_SYN = 1 << 0  # <SEQ=ISS><CTL=SYN>
    SEND_SYN_ACK = 1 << 1  # <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK>
    SEND_ACK = 1 << 2  # <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>
    SEND_CHALLENGE_ACK = 1 << 3  # the same, at most one per tcp_invalid_ratelimit and connection (RFC 5961 section 7)
    SEND_DATA = 1 << 4  # what the window allows of the queued data
    SEND_FIN = 1 << 5  # after all queued data
    SEND_RST = 1 << 6  # <SEQ=SEG.ACK><CTL=RST>
    SEND_RST_ACK = 1 << 7  # <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
    SEND_ABORT_RST = 1 << 8  # <SEQ=SND.NXT><CTL=RST>
    SEND_COOKIE = 1 << 9  # a SYN+ACK whose sequence number is the state (RFC 4987 section 3.6)
    RESEND = 1 << 10  # the segment that starts at SND.UNA
    SEND_PROBE = 1 << 11  # <SEQ=SND.NXT-1><ACK=RCV.NXT><CTL=ACK>
    QUEUE = 1 << 12  # keep the data until the connection is established
    DELIVER = 1 << 13  # the data go to the application
    START_RETRANSMIT = 1 << 14  # arm the retransmission timer (RFC 6298)
    START_FIN_WAIT_2 = 1 << 15  # arm tcp_fin_timeout if the connection is an orphan
    START_2MSL = 1 << 16  # arm the TIME_WAIT timer, anew if it runs
    START_KEEPALIVE = 1 << 17  # arm the keepalive timer if the application asked for it
    DELETE = 1 << 18  # the row is freed
    REJECT = 1 << 19  # an illegal call: it raises StateError and changes nothing
    NEVER = 1 << 20  # classification does not produce this event in this state


@unique
class Event(IntEnum):
    """What can happen to one half of a connection. ``EVENTS`` says what each one means."""

    # calls (RFC 9293 section 3.9.1)
    OPEN_PASSIVE = 0
    OPEN_ACTIVE = 1
    OPEN_REUSE = 2
    SEND = 3
    SEND_UNSPECIFIED = 4
    CLOSE = 5
    CLOSE_UNREAD = 6
    RELEASE = 7
    ABORT = 8
    # segments that arrive
    RCV_SYN = 9
    RCV_SYN_ACK = 10
    RCV_ACK_OF_SYN = 11
    RCV_ACK = 12
    RCV_ACK_OF_FIN = 13
    RCV_DATA = 14
    RCV_DATA_UNWANTED = 15
    RCV_FIN = 16
    RCV_FIN_AGAIN = 17
    RCV_RST = 18
    RCV_RST_PASSIVE = 19
    RCV_RST_SUSPECT = 20
    RCV_RST_DROPPED = 21
    RCV_SYN_SUSPECT = 22
    RCV_SYN_FATAL = 23
    RCV_SYN_NEW = 24
    RCV_SYN_DROPPED = 25
    RCV_SYN_COOKIE = 26
    RCV_COOKIE_ACK = 27
    RCV_UNACCEPTABLE = 28
    RCV_PAWS = 29
    RCV_ACK_SUSPECT = 30
    RCV_ACK_DROPPED = 31
    RCV_BAD_ACK = 32
    RCV_STRAY = 33
    RCV_ILLEGAL = 34
    # timers
    RETRANSMIT = 35
    PROBE_WINDOW = 36
    GIVE_UP = 37
    KEEPALIVE = 38
    TIMEOUT_FIN_WAIT_2 = 39
    TIMEOUT_2MSL = 40
    TIMEOUT_IDLE = 41
    # policies of the table
    EVICTED = 42
    TIME_WAIT_OVERFLOW = 43
    REPLACED = 44
    # what only a tap can find out
    PICKED_UP = 45
    CROSSED_SYN = 46
    CROSSED_FIN = 47
    # a timer
    KEEPALIVE_FAILED = 48


class EventInfo(NamedTuple):
    """What an event means, and why it cannot happen in the states that have no row for it."""

    kind: str  # "call", "segment", "timer", "policy" or "tap"
    meaning: str
    elsewhere: str  # why no other state has a row; "" when every state has one


#: Each event's meaning: the classification rules in words.
EVENTS: dict[Event, EventInfo] = {
    Event.OPEN_PASSIVE: EventInfo("call", "passive OPEN: listen", ""),
    Event.OPEN_ACTIVE: EventInfo("call", "active OPEN: connect", ""),
    Event.OPEN_REUSE: EventInfo(
        "call",
        "active OPEN on a 4-tuple in TIME_WAIT that tcp_tw_reuse allows: timestamps in use, a second passed",
        "the question arises in TIME_WAIT only; in every other state the call is OPEN_ACTIVE",
    ),
    Event.SEND: EventInfo("call", "SEND: data from the application", ""),
    Event.SEND_UNSPECIFIED: EventInfo(
        "call",
        "SEND on a passive OPEN that names no remote socket",
        "only a listener has no remote socket; elsewhere the call is SEND",
    ),
    Event.CLOSE: EventInfo("call", "CLOSE: the application has no more to send", ""),
    Event.CLOSE_UNREAD: EventInfo(
        "call",
        "CLOSE of both directions while received data wait unread",
        "no data wait unread before ESTABLISHED; in TIME_WAIT both directions are complete: it is CLOSE or RELEASE",
    ),
    Event.RELEASE: EventInfo(
        "call",
        "CLOSE of the receiving direction too, after a CLOSE of the sending direction alone",
        "before our CLOSE there is nothing to add to it: the call is CLOSE",
    ),
    Event.ABORT: EventInfo("call", "ABORT: give the connection up at once", ""),
    Event.RCV_SYN: EventInfo(
        "segment",
        "SYN without ACK that opens, or repeats the opening",
        "CLOSED answers it as RCV_STRAY, synchronized states see RCV_SYN_SUSPECT, TIME_WAIT also RCV_SYN_NEW",
    ),
    Event.RCV_SYN_ACK: EventInfo(
        "segment",
        "SYN with an ACK of our SYN, ISS < SEG.ACK <= SND.NXT",
        "only SYN_SENT waits for one; elsewhere it is classified by its ACK or its SYN",
    ),
    Event.RCV_ACK_OF_SYN: EventInfo(
        "segment",
        "acceptable ACK that covers our SYN",
        "our SYN waits for its ACK alone in SYN_RCVD",
    ),
    Event.RCV_ACK: EventInfo(
        "segment",
        "acceptable ACK that does not cover a FIN of ours for the first time",
        "before synchronization an ACK is RCV_ACK_OF_SYN, RCV_SYN_ACK or RCV_BAD_ACK",
    ),
    Event.RCV_ACK_OF_FIN: EventInfo(
        "segment",
        "acceptable ACK that covers our FIN for the first time",
        "our FIN is unacknowledged in FIN_WAIT_1, CLOSING and LAST_ACK only",
    ),
    Event.RCV_DATA: EventInfo(
        "segment",
        "data in the receive window, or a FIN beyond a hole in the data, after the ACK part was processed",
        "before synchronization data wait for the ACK part, which leads to ESTABLISHED first, or are not acceptable",
    ),
    Event.RCV_DATA_UNWANTED: EventInfo(
        "segment",
        "new data after the application closed both directions",
        "the application cannot have closed both directions and still expect a FIN in any other state",
    ),
    Event.RCV_FIN: EventInfo(
        "segment",
        "FIN for the first time, everything before it received",
        "the ACK part comes first and leads out of SYN_RCVD; after the first FIN it is RCV_FIN_AGAIN",
    ),
    Event.RCV_FIN_AGAIN: EventInfo(
        "segment",
        "the FIN that was received before",
        "no FIN was received before these states",
    ),
    Event.RCV_RST: EventInfo(
        "segment",
        "RST that must be believed: exactly at RCV.NXT, in SYN_SENT with an acceptable ACK",
        "CLOSED and LISTEN drop every RST: RCV_RST_DROPPED",
    ),
    Event.RCV_RST_PASSIVE: EventInfo(
        "segment",
        "RCV_RST for a connection that came out of LISTEN",
        "after SYN_RCVD it no longer matters who opened: RCV_RST",
    ),
    Event.RCV_RST_SUSPECT: EventInfo(
        "segment",
        "RST inside the window but not at RCV.NXT",
        "there is no window yet",
    ),
    Event.RCV_RST_DROPPED: EventInfo("segment", "RST outside the window, with a wrong ACK, or for nobody", ""),
    Event.RCV_SYN_SUSPECT: EventInfo(
        "segment",
        "SYN on a connection that has one already",
        "CLOSED sees RCV_STRAY or RCV_BAD_ACK; LISTEN and SYN_SENT see RCV_SYN or RCV_SYN_ACK",
    ),
    Event.RCV_SYN_FATAL: EventInfo(
        "segment",
        "SYN inside the window, where RFC 5961 is not followed",
        "there is no window yet",
    ),
    Event.RCV_SYN_NEW: EventInfo(
        "segment",
        "SYN in TIME_WAIT with a sequence number above RCV.NXT or a newer timestamp",
        "only TIME_WAIT may be reopened",
    ),
    Event.RCV_SYN_DROPPED: EventInfo(
        "segment",
        "SYN for which the backlog has no place, or which tcp_tw_recycle mistakes for an old one",
        "the backlog belongs to LISTEN",
    ),
    Event.RCV_SYN_COOKIE: EventInfo(
        "segment", "SYN answered with a cookie because the backlog is full", "the backlog belongs to LISTEN"
    ),
    Event.RCV_COOKIE_ACK: EventInfo(
        "segment", "ACK that carries a valid cookie back", "cookies are handed out by LISTEN only"
    ),
    Event.RCV_UNACCEPTABLE: EventInfo(
        "segment",
        "segment that fails the four-case acceptability test",
        "there is no receive window before the peer's SYN",
    ),
    Event.RCV_PAWS: EventInfo(
        "segment",
        "segment whose timestamp is older than the last one accepted",
        "no timestamp is on record before the peer's SYN",
    ),
    Event.RCV_ACK_SUSPECT: EventInfo(
        "segment",
        "ACK of what was never sent, or older than SND.UNA - MAX.SND.WND",
        "before synchronization it is RCV_BAD_ACK",
    ),
    Event.RCV_ACK_DROPPED: EventInfo(
        "segment",
        "ACK of our SYN while the accept queue of the listener has no place",
        "only a connection that comes out of LISTEN needs a place there",
    ),
    Event.RCV_BAD_ACK: EventInfo(
        "segment",
        "ACK of something that this half never sent",
        "synchronized states answer with an ACK: RCV_ACK_SUSPECT",
    ),
    Event.RCV_STRAY: EventInfo("segment", "neither SYN (in CLOSED: even SYN) nor RST nor ACK", ""),
    Event.RCV_ILLEGAL: EventInfo("segment", "SYN with FIN or RST, or no flag at all", ""),
    Event.RETRANSMIT: EventInfo(
        "timer", "the retransmission timer fires", "nothing that waits for an ACK is in flight"
    ),
    Event.PROBE_WINDOW: EventInfo(
        "timer",
        "the persist timer fires: data or a FIN wait for a window that is shut",
        "nothing can wait for a window before ESTABLISHED, nor after our FIN was acknowledged",
    ),
    Event.GIVE_UP: EventInfo(
        "timer", "the retry limit is reached", "nothing that waits for an answer is in flight"
    ),
    Event.KEEPALIVE: EventInfo(
        "timer", "the keepalive timer fires", "keepalive runs only while the peer may be silent for long"
    ),
    Event.KEEPALIVE_FAILED: EventInfo(
        "timer", "the last keepalive probe has no answer", "keepalive runs only while the peer may be silent for long"
    ),
    Event.TIMEOUT_FIN_WAIT_2: EventInfo(
        "timer", "an orphan's tcp_fin_timeout passes", "the timer is armed in FIN_WAIT_2 only"
    ),
    Event.TIMEOUT_2MSL: EventInfo("timer", "2MSL pass", "the timer is armed in TIME_WAIT only"),
    Event.TIMEOUT_IDLE: EventInfo("timer", "an observed connection was silent for longer than its time-out", ""),
    Event.EVICTED: EventInfo("policy", "the table is full and this row is the one to go", ""),
    Event.TIME_WAIT_OVERFLOW: EventInfo(
        "policy", "tcp_max_tw_buckets is exceeded", "the cap counts TIME_WAIT only"
    ),
    Event.REPLACED: EventInfo("policy", "a new connection on the same 4-tuple proves that this one is over", ""),
    Event.PICKED_UP: EventInfo(
        "tap", "the capture begins in the middle of the connection", "a half that was seen before is not picked up"
    ),
    Event.CROSSED_SYN: EventInfo(
        "tap",
        "a half that was taken for the responder sends a SYN without ACK",
        "only an unanswered opening can be crossed by another",
    ),
    Event.CROSSED_FIN: EventInfo(
        "tap",
        "a half sends its FIN without acknowledging the FIN it was thought to have received",
        "only a half that has received a FIN and not sent one can turn out to have closed first",
    ),
}


class Transition(NamedTuple):
    """One row: in ``state``, ``event`` leads to ``next`` and asks for ``actions``.

    ``outcome`` is set where the connection ends: what its owner is told.
    """

    state: State
    event: Event
    next: State
    actions: Action
    source: str
    why: str
    outcome: str | None = None


#: The whole machine: (state, event) -> Transition. A pair that is missing cannot happen; EVENTS says why.
TRANSITIONS: dict[tuple[State, Event], Transition] = {}


def _row(
    states: State | Iterable[State],
    event: Event,
    to: State | None,  # None: the state is kept
    actions: Action,
    source: str,
    why: str,
    outcome: str | None = None,
) -> None:
    for state in (states,) if isinstance(states, State) else states:
        if (state, event) in TRANSITIONS:
            raise AssertionError(f"two rows for {state.name} and {event.name}")
        TRANSITIONS[state, event] = Transition(
            state, event, state if to is None else to, actions, source, why, outcome
        )


def _section(number: str) -> str:
    return f"RFC 9293 §{number}"


_SYN = Action.SEND_SYN | Action.START_RETRANSMIT
_SYN_ACK = Action.SEND_SYN_ACK | Action.START_RETRANSMIT
_FIN = Action.SEND_FIN | Action.START_RETRANSMIT
_EVERY = tuple(State)
_OPENING = (SYN_RCVD, *SYNCHRONIZED)

# ---- calls -----------------------------------------------------------------------------------------------------------

_row(CLOSED, Event.OPEN_PASSIVE, LISTEN, Action.NONE, _section("3.10.1"), "wait for any remote host")
_row(_EVERY[1:], Event.OPEN_PASSIVE, None, Action.REJECT, _section("3.10.1"), "connection already exists")

_row(CLOSED, Event.OPEN_ACTIVE, SYN_SENT, _SYN, _section("3.10.1"), "choose an ISS and ask the peer for its own")
_row(LISTEN, Event.OPEN_ACTIVE, SYN_SENT, _SYN, _section("3.10.1"), "a passive open may be turned into an active one")
_row(_EVERY[2:], Event.OPEN_ACTIVE, None, Action.REJECT, _section("3.10.1"), "connection already exists")
_row(
    TIME_WAIT, Event.OPEN_REUSE, SYN_SENT, _SYN, "kernel tcp_twsk_unique, RFC 6191 §2",
    "a newer timestamp tells old duplicates apart, so the wait is not needed",
)  # fmt: skip

_row(CLOSED, Event.SEND, None, Action.REJECT, _section("3.10.2"), "connection does not exist")
_row(LISTEN, Event.SEND, SYN_SENT, _SYN | Action.QUEUE, _section("3.10.2"), "sending turns a passive open active")
_row(LISTEN, Event.SEND_UNSPECIFIED, None, Action.REJECT, _section("3.10.2"), "remote socket unspecified")
_row((SYN_SENT, SYN_RCVD), Event.SEND, None, Action.QUEUE, _section("3.10.2"), "data wait for ESTABLISHED")
_row((ESTABLISHED, CLOSE_WAIT), Event.SEND, None, Action.SEND_DATA, _section("3.10.2"), "our direction is open")
_row(
    (FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK, TIME_WAIT), Event.SEND, None, Action.REJECT, _section("3.10.2"),
    "connection closing",
)  # fmt: skip

_row(CLOSED, Event.CLOSE, None, Action.REJECT, _section("3.10.4"), "connection does not exist")
_row(LISTEN, Event.CLOSE, CLOSED, Action.DELETE, _section("3.10.4"), "nobody was promised anything", "closed")
_row(SYN_SENT, Event.CLOSE, CLOSED, Action.DELETE, _section("3.10.4"), "the peer has not answered yet", "closed")
_row(SYN_RCVD, Event.CLOSE, FIN_WAIT_1, _FIN, _section("3.10.4"), "the peer knows of us, so it must be told")
_row(ESTABLISHED, Event.CLOSE, FIN_WAIT_1, _FIN, _section("3.10.4"), "our direction ends, the peer's stays open")
_row(CLOSE_WAIT, Event.CLOSE, LAST_ACK, _FIN, _section("3.10.4"), "the peer closed first; only our FIN was missing")
_row(
    (FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK, TIME_WAIT), Event.CLOSE, None, Action.REJECT, _section("3.10.4"),
    "connection closing",
)  # fmt: skip

_row(
    (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK), Event.CLOSE_UNREAD, CLOSED,
    Action.SEND_ABORT_RST | Action.DELETE, "RFC 1122 §4.2.2.13, RFC 2525 §2.17",
    "the peer must learn that its data were lost", "aborted",
)  # fmt: skip
_row(
    (FIN_WAIT_1, CLOSING, LAST_ACK, TIME_WAIT), Event.RELEASE, None, Action.NONE, "kernel tcp_close",
    "our FIN was sent already; from now on nobody reads",
)  # fmt: skip
_row(
    FIN_WAIT_2, Event.RELEASE, None, Action.START_FIN_WAIT_2, "kernel tcp_close, tcp_fin_timeout",
    "our FIN was sent already; from now on nobody reads, and the wait for the peer's FIN ends some day",
)  # fmt: skip

_row(CLOSED, Event.ABORT, None, Action.REJECT, _section("3.10.5"), "connection does not exist")
_row((LISTEN, SYN_SENT), Event.ABORT, CLOSED, Action.DELETE, _section("3.10.5"), "no peer to be told", "aborted")
_row(
    (SYN_RCVD, ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT), Event.ABORT, CLOSED,
    Action.SEND_ABORT_RST | Action.DELETE, _section("3.10.5"), "the peer must not go on alone", "aborted",
)  # fmt: skip
_row(
    (CLOSING, LAST_ACK, TIME_WAIT), Event.ABORT, CLOSED, Action.DELETE, _section("3.10.5"),
    "both directions are closed: a RST has nobody left to stop", "aborted",
)  # fmt: skip

# ---- the opening -----------------------------------------------------------------------------------------------------

_row(LISTEN, Event.RCV_SYN, SYN_RCVD, _SYN_ACK, _section("3.10.7.2"), "answer with our own SYN")
_row(SYN_SENT, Event.RCV_SYN, SYN_RCVD, _SYN_ACK, _section("3.10.7.3"), "simultaneous open (§3.5 figure 7)")
_row(SYN_RCVD, Event.RCV_SYN, None, Action.SEND_SYN_ACK, _section("3.10.7.4"), "our SYN+ACK was lost; timer kept")
_row(
    LISTEN, Event.RCV_SYN_DROPPED, None, Action.NONE, "RFC 4987 §2.2",
    "no place for another half-open connection; the peer will ask again",
)  # fmt: skip
_row(
    LISTEN, Event.RCV_SYN_COOKIE, None, Action.SEND_COOKIE, "RFC 4987 §3.6",
    "the state travels in our sequence number and costs no row",
)  # fmt: skip
_row(
    SYN_RCVD, Event.RCV_ACK_DROPPED, None, Action.NONE, "kernel tcp_check_req, tcp_abort_on_overflow",
    "the SYN+ACK is sent again until the application accepts, or both give up",
)  # fmt: skip
_row(
    LISTEN, Event.RCV_COOKIE_ACK, ESTABLISHED, Action.START_KEEPALIVE, "RFC 4987 §3.6",
    "only a host that got our SYN+ACK can know the cookie",
)  # fmt: skip
_row(
    SYN_SENT, Event.RCV_SYN_ACK, ESTABLISHED, Action.SEND_ACK | Action.START_KEEPALIVE, _section("3.10.7.3"),
    "both sequence numbers are known and ours is acknowledged",
)  # fmt: skip
_row(
    SYN_RCVD, Event.RCV_ACK_OF_SYN, ESTABLISHED, Action.START_KEEPALIVE, _section("3.10.7.4"),
    "the third segment: the peer has our sequence number",
)  # fmt: skip

# ---- data and acknowledgments ----------------------------------------------------------------------------------------

_row(SYNCHRONIZED, Event.RCV_ACK, None, Action.NONE, _section("3.10.7.4"), "SND.UNA and the window move, no more")
_row(
    (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2), Event.RCV_DATA, None, Action.DELIVER | Action.SEND_ACK,
    _section("3.10.7.4"), "the peer's direction is open, also after our FIN (half-close, §3.6)",
)  # fmt: skip
_row(
    (CLOSE_WAIT, CLOSING, LAST_ACK, TIME_WAIT), Event.RCV_DATA, None, Action.NONE, _section("3.10.7.4"),
    "nothing can follow the peer's FIN",
)  # fmt: skip
_row(
    (FIN_WAIT_1, FIN_WAIT_2), Event.RCV_DATA_UNWANTED, CLOSED, Action.SEND_ABORT_RST | Action.DELETE,
    "RFC 1122 §4.2.2.13", "nobody will ever read them; the peer must know", "aborted",
)  # fmt: skip

# ---- the closing -----------------------------------------------------------------------------------------------------

_row(
    FIN_WAIT_1, Event.RCV_ACK_OF_FIN, FIN_WAIT_2, Action.START_FIN_WAIT_2, _section("3.10.7.4"),
    "our direction is over for both; the peer may go on",
)  # fmt: skip
_row(
    CLOSING, Event.RCV_ACK_OF_FIN, TIME_WAIT, Action.START_2MSL, _section("3.10.7.4"),
    "both FINs are acknowledged, but our last ACK may be lost",
)  # fmt: skip
_row(
    LAST_ACK, Event.RCV_ACK_OF_FIN, CLOSED, Action.DELETE, _section("3.10.7.4"),
    "the other side closed first and keeps the wait; we need none", "closed",
)  # fmt: skip
_row(ESTABLISHED, Event.RCV_FIN, CLOSE_WAIT, Action.SEND_ACK, _section("3.10.7.4"), "the peer closed; we may go on")
_row(
    FIN_WAIT_1, Event.RCV_FIN, CLOSING, Action.SEND_ACK, _section("3.10.7.4"),
    "simultaneous close (§3.6 case 3): the two FINs crossed",
)  # fmt: skip
_row(
    FIN_WAIT_2, Event.RCV_FIN, TIME_WAIT, Action.SEND_ACK | Action.START_2MSL, _section("3.10.7.4"),
    "we closed first: our ACK may be lost, and old segments must die before the 4-tuple lives again",
)  # fmt: skip
_row(
    (CLOSE_WAIT, CLOSING, LAST_ACK), Event.RCV_FIN_AGAIN, None, Action.SEND_ACK, _section("3.10.7.4"),
    "our ACK of it was lost",
)  # fmt: skip
_row(
    TIME_WAIT, Event.RCV_FIN_AGAIN, None, Action.SEND_ACK | Action.START_2MSL, _section("3.10.7.4"),
    "our last ACK was lost: this is what TIME_WAIT is for",
)  # fmt: skip
_row(
    TIME_WAIT, Event.RCV_SYN_NEW, SYN_RCVD, _SYN_ACK, _section("3.6.1") + " MAY-2, RFC 6191 §2",
    "the peer starts anew above everything the old connection used",
)  # fmt: skip

# ---- resets and what must be doubted ---------------------------------------------------------------------------------

_row(SYN_SENT, Event.RCV_RST, CLOSED, Action.DELETE, _section("3.10.7.3"), "nobody listens there", "refused")
_row(SYN_RCVD, Event.RCV_RST, CLOSED, Action.DELETE, _section("3.10.7.4"), "the peer of our open backed out", "refused")
_row(
    SYN_RCVD, Event.RCV_RST_PASSIVE, LISTEN, Action.DELETE, _section("3.10.7.4"),
    "the half-open connection goes, the listener goes on", "reset",
)  # fmt: skip
_row(
    (ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT), Event.RCV_RST, CLOSED, Action.DELETE, _section("3.10.7.4"),
    "the peer has no such connection, or gave it up", "reset",
)  # fmt: skip
_row(
    (CLOSING, LAST_ACK), Event.RCV_RST, CLOSED, Action.DELETE, _section("3.10.7.4"),
    "the peer is gone; nothing but its last ACK was missing", "closed",
)  # fmt: skip
_row(
    TIME_WAIT, Event.RCV_RST, CLOSED, Action.DELETE, _section("3.10.7.4"),
    "TIME_WAIT assassination (RFC 1337); with tcp_rfc1337 it is RCV_RST_DROPPED", "closed",
)  # fmt: skip
_row(
    _OPENING, Event.RCV_RST_SUSPECT, None, Action.SEND_CHALLENGE_ACK, "RFC 5961 §3.2",
    "a true peer answers the challenge with a RST at RCV.NXT; a blind attacker can't",
)  # fmt: skip
_row(_EVERY, Event.RCV_RST_DROPPED, None, Action.NONE, "RFC 9293 §3.10.7, RFC 5961 §3.2", "a RST is never answered")
_row(
    _OPENING, Event.RCV_SYN_SUSPECT, None, Action.SEND_CHALLENGE_ACK, "RFC 5961 §4.2",
    "a peer that restarted answers the challenge with a RST; an attacker gains nothing",
)  # fmt: skip
_row(
    _OPENING, Event.RCV_SYN_FATAL, CLOSED, Action.SEND_ABORT_RST | Action.DELETE, _section("3.10.7.4") + " (RFC 793)",
    "the original rule: one of the two hosts has lost its state", "reset",
)  # fmt: skip
_row(
    _OPENING, Event.RCV_UNACCEPTABLE, None, Action.SEND_CHALLENGE_ACK, _section("3.4") + ", §3.10.7.4",
    "tell the peer where we stand",
)  # fmt: skip
_row(
    _OPENING, Event.RCV_PAWS, None, Action.SEND_CHALLENGE_ACK, "RFC 7323 §5.3",
    "an old duplicate whose sequence number has come round again",
)  # fmt: skip
_row(
    SYNCHRONIZED, Event.RCV_ACK_SUSPECT, None, Action.SEND_CHALLENGE_ACK, "RFC 5961 §5.2",
    "it acknowledges what was never sent, or is too old to be true",
)  # fmt: skip
_row(
    (CLOSED, LISTEN, SYN_SENT, SYN_RCVD), Event.RCV_BAD_ACK, None, Action.SEND_RST, _section("3.5.3"),
    "the peer believes in a connection that we don't have",
)  # fmt: skip
_row(CLOSED, Event.RCV_STRAY, None, Action.SEND_RST_ACK, _section("3.10.7.1"), "nobody listens here")
_row(_EVERY[1:], Event.RCV_STRAY, None, Action.NONE, _section("3.10.7"), "without an ACK it proves nothing")
_row(_EVERY, Event.RCV_ILLEGAL, None, Action.NONE, "RFC 9293 §3.1, kernel", "no stack sends it; counted, no more")

# ---- timers ----------------------------------------------------------------------------------------------------------

_AGAIN = Action.START_RETRANSMIT
_row(SYN_SENT, Event.RETRANSMIT, None, Action.SEND_SYN | _AGAIN, "RFC 9293 §3.8.3, RFC 6298 §5", "no answer yet")
_row(SYN_RCVD, Event.RETRANSMIT, None, Action.SEND_SYN_ACK | _AGAIN, "RFC 9293 §3.8.1, RFC 6298 §5", "no answer yet")
_row(
    (ESTABLISHED, FIN_WAIT_1, CLOSE_WAIT, CLOSING, LAST_ACK), Event.RETRANSMIT, None, Action.RESEND | _AGAIN,
    "RFC 9293 §3.8.1, RFC 6298 §5", "the data or the FIN at SND.UNA may be lost",
)  # fmt: skip
_row(
    (ESTABLISHED, FIN_WAIT_1, CLOSE_WAIT, CLOSING, LAST_ACK), Event.PROBE_WINDOW, None, Action.SEND_PROBE | _AGAIN,
    _section("3.8.6.1"), "the segment that opened the window may be lost, and nobody would ever speak again",
)  # fmt: skip
_row(
    (SYN_SENT, SYN_RCVD, ESTABLISHED, FIN_WAIT_1, CLOSE_WAIT, CLOSING, LAST_ACK), Event.GIVE_UP, CLOSED,
    Action.DELETE, "RFC 9293 §3.8.3, RFC 1122 §4.2.3.5", "the peer is not there any more", "timeout",
)  # fmt: skip
_row(
    (ESTABLISHED, FIN_WAIT_2, CLOSE_WAIT), Event.KEEPALIVE, None, Action.SEND_PROBE | Action.START_KEEPALIVE,
    _section("3.8.4"), "a live peer answers a segment below its window",
)  # fmt: skip
_row(
    (ESTABLISHED, FIN_WAIT_2, CLOSE_WAIT), Event.KEEPALIVE_FAILED, CLOSED, Action.SEND_ABORT_RST | Action.DELETE,
    _section("3.8.4") + ", kernel tcp_keepalive_timer", "no probe was answered; a peer that lives after all shall know",
    "timeout",
)  # fmt: skip
_row(
    FIN_WAIT_2, Event.TIMEOUT_FIN_WAIT_2, CLOSED, Action.DELETE, "kernel tcp_fin_timeout",
    "nobody is left to read, and the peer may never close", "timeout",
)  # fmt: skip
_row(
    TIME_WAIT, Event.TIMEOUT_2MSL, CLOSED, Action.DELETE, _section("3.10.8"),
    "every segment of the old connection has died out", "closed",
)  # fmt: skip
_row(_EVERY, Event.TIMEOUT_IDLE, CLOSED, Action.DELETE, "observer", "nothing was heard for too long", "idle")

# ---- policies of the table, and what only a tap can find out ---------------------------------------------------------

_row(_EVERY, Event.EVICTED, CLOSED, Action.DELETE, "table policy on_full", "its row is needed for another", "evicted")
_row(
    TIME_WAIT, Event.TIME_WAIT_OVERFLOW, CLOSED, Action.DELETE, "kernel tcp_max_tw_buckets",
    "the cap protects memory at the price of the wait", "closed",
)  # fmt: skip
_row(_EVERY, Event.REPLACED, CLOSED, Action.DELETE, "observer", "its 4-tuple lives again as another", "replaced")
_row(CLOSED, Event.PICKED_UP, ESTABLISHED, Action.NONE, "observer", "segments without a handshake: it began before")
_row(
    SYN_RCVD, Event.CROSSED_SYN, None, Action.NONE, _section("3.5") + " figure 7",
    "its own SYN was on the way: a simultaneous open",
)  # fmt: skip
_row(
    CLOSE_WAIT, Event.CROSSED_FIN, CLOSING, Action.NONE, _section("3.6") + " case 3",
    "its FIN was on the way before the other arrived: a simultaneous close",
)  # fmt: skip


def transition(state: State | int, event: Event | int) -> Transition:
    """The row for ``event`` in ``state``.

    Raises LookupError, with the reason, where classification does not produce that event in that state.
    """
    state, event = State(state), Event(event)
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LookupError(f"{event.name} does not occur in {state.name}: {EVENTS[event].elsewhere}") from None
