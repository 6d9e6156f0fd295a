"""Replays an exchange through nf_conntrack and through the observer seat, and lists where the two accounts part.

conntrack has one state for a connection where the observer seat has one for each half. `MAPPING` states which single
state a pair of halves must show as; whose half is whose does not matter. Of the segment itself both have an opinion:

    conntrack   INVALID   it is no part of the connection: a firewall drops it     -> the observer must object, too
                ignored   let through, but counted and believed only if it is      -> the observer may object or not
                          answered (a SYN on a live connection, say)
                counted                                                            -> the observer must not object
"""

from typing import NamedTuple

from kernel.conntrack import Gateway

from fasttcp.core.segments import SegmentBatch
from fasttcp.core.table import ConnectionTable
from fasttcp.verdicts import Verdict
from kernel_witness.script import Exchange, Segment

MAPPING: dict[str, tuple[tuple[str, str], ...]] = {
    "SYN_SENT": (("SYN_SENT", "LISTEN"), ("SYN_SENT", "SYN_RCVD")),  # a SYN was seen
    "SYN_SENT2": (("SYN_RCVD", "SYN_RCVD"),),  # SYNs both ways, a simultaneous open
    "SYN_RECV": (("ESTABLISHED", "SYN_RCVD"),),  # a SYN+ACK was seen
    "ESTABLISHED": (("ESTABLISHED", "ESTABLISHED"),),  # an ACK was seen
    "FIN_WAIT": (("FIN_WAIT_1", "CLOSE_WAIT"), ("FIN_WAIT_1", "ESTABLISHED")),  # a FIN was seen
    "CLOSE_WAIT": (("FIN_WAIT_2", "CLOSE_WAIT"),),  # an ACK of it was seen
    "LAST_ACK": (  # a FIN after a FIN, and not every FIN acknowledged
        ("TIME_WAIT", "LAST_ACK"), ("FIN_WAIT_2", "LAST_ACK"), ("FIN_WAIT_1", "LAST_ACK"), ("CLOSING", "CLOSING"),
        ("CLOSING", "LAST_ACK"), ("TIME_WAIT", "CLOSING"), ("FIN_WAIT_1", "CLOSING"),
    ),
    "TIME_WAIT": (("TIME_WAIT", "CLOSED"), ("TIME_WAIT", "TIME_WAIT")),  # the last ACK was seen
    "CLOSE": (("CLOSED", "CLOSED"),),  # a RST was seen
}  # fmt: skip
EXPECTED = {frozenset(pair): state for state, pairs in MAPPING.items() for pair in pairs}
MAY_OBJECT = {"INVALID": (True,), "ignored": (True, False), "counted": (False,)}
OBJECTIONS = Verdict.ILLEGAL | Verdict.SUSPECT | Verdict.STRAY | Verdict.VOID


class Step(NamedTuple):
    """Both accounts after one segment."""

    kernel: str | None  # conntrack's state; None: no entry
    kernel_opinion: str  # "INVALID", "ignored" or "counted"
    kernel_new: bool  # the segment made a new entry
    ours: tuple[str, str] | None  # of a and b; None: no connection
    ours_objects: str  # "suspect", "illegal", "stray", or ""
    ours_new: bool

    @property
    def agrees(self) -> bool:
        return (
            self.kernel == (EXPECTED[frozenset(self.ours)] if self.ours else None)
            and bool(self.ours_objects) in MAY_OBJECT[self.kernel_opinion]
            and self.kernel_new == self.ours_new
        )

    @property
    def kernel_words(self) -> str:
        opinion = [] if self.kernel_opinion == "counted" else [self.kernel_opinion]
        return ", ".join([self.kernel or "none", *opinion, *["new"] * self.kernel_new])

    @property
    def our_words(self) -> str:
        pair = " / ".join(self.ours) if self.ours else "none"
        return ", ".join([pair, *[self.ours_objects] * bool(self.ours_objects), *["new"] * self.ours_new])


def options(raw: bytes) -> dict[str, int | bool]:
    """The options that SegmentBatch knows, by its names. A malformed rest is left out."""
    found: dict[str, int | bool] = {}
    at = 0
    while at < len(raw) and raw[at] != 0:
        if raw[at] == 1:
            at += 1
            continue
        if at + 1 >= len(raw) or raw[at + 1] < 2:
            break
        kind, value = raw[at], raw[at + 2 : at + raw[at + 1]]
        if kind == 2:
            found["mss"] = int.from_bytes(value, "big")
        elif kind == 3:
            found["wscale"] = value[0]
        elif kind == 4:
            found["sack_permitted"] = True
        elif kind == 8:
            found["tsval"], found["tsecr"] = int.from_bytes(value[:4], "big"), int.from_bytes(value[4:], "big")
        at += raw[at + 1]
    return found


class Ours:
    """The observer seat, one `receive` a segment."""

    def __init__(self, exchange: Exchange) -> None:
        self.ends = {"a": exchange.a, "b": exchange.b}
        self.table = ConnectionTable(16, profile="linux", seat="observer", seed=1)

    def receive(self, segment: Segment) -> tuple[tuple[str, str] | None, str, bool]:
        """The states of a and b, the objection, and whether a connection began."""
        sender, receiver = self.ends[segment.side], self.ends["b" if segment.side == "a" else "a"]
        batch = SegmentBatch(1)
        batch.append(
            src=sender[0], sport=sender[1], dst=receiver[0], dport=receiver[1], flags=segment.flags, seq=segment.seq,
            ack=segment.ack, window=segment.window, payload=segment.payload, time_ns=segment.time_ns,
            **options(segment.options),
        )  # fmt: skip
        handle, verdict = self.table.receive(batch[0])
        self.table.check_invariants()
        objection = "".join(flag.name.lower() for flag in Verdict if flag & verdict & OBJECTIONS and flag.name)
        states = None
        if handle is not None:
            orig, resp = (state.name for state in self.table.state(handle))
            a_began = self.table.summary(handle)["orig_port"] == self.ends["a"][1]
            states = (orig, resp) if a_began else (resp, orig)
        return states, objection, bool(verdict & Verdict.NEW)


def replay(exchange: Exchange, gateway: Gateway) -> list[Step]:
    """Both accounts after each segment. The gateway has forgotten what was before."""
    gateway.flush()
    ours = Ours(exchange)
    steps = []
    before = None
    for segment in exchange.segments:
        passed = gateway.send(segment.side, segment.packet)
        entry = gateway.entry(exchange.a, exchange.b)
        begins = entry is not None and (before is None or entry.born != before.born)
        counted = entry is None or begins or before is None or entry.packets > before.packets
        opinion = "INVALID" if not passed else "counted" if counted else "ignored"
        steps.append(Step(entry.state if entry else None, opinion, begins, *ours.receive(segment)))
        before = entry
    return steps


class Found(NamedTuple):
    """A run of segments over which the two accounts part in the same words."""

    exchange: str
    first: int  # segments count from 1
    last: int
    kernel: str
    ours: str


def differences(exchange: Exchange, steps: list[Step]) -> list[Found]:
    found: list[Found] = []
    for number, step in enumerate(steps, 1):
        if step.agrees:
            continue
        new = Found(exchange.name, number, number, step.kernel_words, step.our_words)
        if found and found[-1]._replace(first=number, last=number) == new and found[-1].last == number - 1:
            found[-1] = found[-1]._replace(last=number)
        else:
            found.append(new)
    return found
