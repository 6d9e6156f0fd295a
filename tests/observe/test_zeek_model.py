"""Random exchanges, sane and insane, through the journal and through the naive model: every row, every value."""

import random

import pytest
from wire import CUT, LETTERS, SECOND
from zeek_model import Wrapped, play

from fasttcp.core.segments import SegmentBatch
from fasttcp.observe.tracker import Tracker
from fasttcp.profiles import profile

ZEEK = profile("zeek")
START = 1_700_000_000 * SECOND
ADDRESS = {"a": "198.18.0.1", "b": "198.18.0.2"}
QUICK_NS = (1000, 1000, 1000, 1_000_000)
SLOW_NS = (300_000_000, *(n * SECOND for n in (2, 5, 6, 61, 300)), 5 * SECOND - 1)


class Talk:
    """Two hosts that more or less follow TCP; `chaos` is how often they do not."""

    def __init__(self, chance, chaos):
        self.chance = chance
        self.chaos = chaos
        self.next = {"a": 1000, "b": 500_000}
        self.heard = {"a": 0, "b": 0}
        self.sent = []
        self.now = START
        self.out = []

    def send(self, sender, flags, payload=0, seq=None, window=1000, captured=True):
        peer = "ba"[sender == "b"]
        s = {
            "flags": flags, "seq": self.next[sender] if seq is None else seq,
            "ack": self.heard[sender] if "A" in flags else 0, "payload": payload, "window": window, "ip_bytes": 40 + payload,
        }  # fmt: skip
        if seq is None:
            self.next[sender] += payload + ("S" in flags) + ("F" in flags)
            self.heard[peer] = self.next[sender]
        self.sent.append((sender, s))
        if captured:
            self.put(sender, s)

    def put(self, sender, s):
        self.now += self.chance.choice(QUICK_NS if self.chance.random() > self.chaos else QUICK_NS + SLOW_NS)
        self.out.append((sender, self.now, dict(s)))

    def step(self):
        chance = self.chance
        side = chance.choice("ab")
        if chance.random() < self.chaos:
            kind = chance.randrange(9)
            if kind == 0:
                odd = chance.choice(("S", "SA", "FA", "RA", "R", "SF", "SR", "FR", "", "F", "A"))
                self.send(side, odd, chance.choice((0, 0, 7)))
            elif kind == 1 and self.sent:
                self.put(*chance.choice(self.sent[-8:]))  # again, or late
            elif kind == 2:
                self.send(side, "PA", chance.randrange(1, 40), captured=False)
            elif kind == 3:
                self.next[side] += chance.randrange(1, 60)
            elif kind == 4:
                self.send(side, "A", 0, window=0)
            elif kind == 5:
                elsewhere = chance.choice((5, 1000, 500_000, 900, 2_000_000))
                self.send(side, chance.choice(("S", "R", "A", "FA")), 0, seq=elsewhere)
            elif kind == 6:
                self.heard[side] = max(0, self.heard[side] - chance.randrange(1, 50))
            elif kind == 7 and len(self.out) > 1:
                (x, t, s), (y, u, r) = self.out[-2:]
                self.out[-2:] = [(y, t, r), (x, u, s)]  # captured the other way round
            else:
                self.send(side, chance.choice(("S", "SA")), 0)
            return
        self.send(side, chance.choice(("A", "A", "PA", "PA", "PA", "FA")), chance.choice((0, 1, 10, 30)))

    def run(self):
        if self.chance.random() < 0.8:
            self.send("a", "S")
            self.send("b", "SA", captured=self.chance.random() > self.chaos / 2)
            self.send("a", "A", captured=self.chance.random() > self.chaos / 2)
        else:
            self.heard = {"a": 500_000, "b": 1000}
        for _ in range(self.chance.randrange(2, 40)):
            self.step()
        return self.out


ENDS = {
    "closed": ("aFA", "bA", "bFA", "aA"),
    "closed at once": ("bFA", "aFA", "bA"),
    "half closed": ("aFA", "bA", "bPA", "aA", "bPA", "aA", "bFA", "aA"),
    "reset": ("aRA",),
    "reset by the responder": ("bR",),
    "reset after a FIN": ("aFA", "bRA", "aA"),
    "reset, with numbers of the peer's": ("aPA", "bRA", "bA"),
    "open": (),
}
ODD = (
    "", "", "lost", "again", "late", "zero window", "old ack", "ack ahead", "hole", "cut", "nothing", "reset", "syn", "slow",
    "below", "large",
)  # fmt: skip


class Plain(Talk):
    """Connections as most are, one after the other on one 4-tuple: each goes the usual way, but for one odd thing."""

    def __init__(self, chance, wraps):
        super().__init__(chance, 0)
        self.wraps = wraps

    def plan(self):
        chance = self.chance
        kind = chance.randrange(8)
        if kind == 0:
            return ["aS", chance.choice(("bRA", "bRA", "bR"))] + ["aS"] * chance.randrange(2)
        begin = [] if kind == 1 else ["aS", "bSA", "aA"]
        talk = [chance.choice("ab") + chance.choice(("A", "PA", "PA")) for _ in range(chance.randrange(1, 8))]
        return begin + talk + list(ENDS[chance.choice(list(ENDS))])

    def connection(self):
        chance = self.chance
        self.next = {side: number + chance.randrange(1, 300) for side, number in self.next.items()}
        self.heard = {"a": self.next["b"], "b": self.next["a"]}
        plan = self.plan()
        odd, at = chance.choice(ODD), chance.randrange(len(plan))
        for i, step in enumerate(plan):
            side, flags = step[0], step[1:]
            payload = chance.choice((1, 10, 100, 1448)) if "P" in flags or ("F" in flags and chance.random() < 0.1) else 0
            # Without its SYN a SYN+ACK would begin anew in mid-stream: the journal still counts the wraps from before.
            tame = i != at or (self.wraps and "S" in flags and odd in ("lost", "late"))
            self.odd_step("" if tame else odd, side, flags, payload)

    def odd_step(self, odd, side, flags, payload):
        chance = self.chance
        if odd == "old ack":
            self.heard[side] -= chance.randrange(1, 50)
        elif odd == "ack ahead":
            self.heard[side] += chance.randrange(1, 50)
        elif odd == "hole":
            self.next[side] += chance.randrange(1, 50)
        elif odd == "below":
            self.next[side] -= chance.randrange(1, 5)
        elif odd == "nothing":
            self.send(side, "")
        elif odd == "reset":
            self.send(side, "R", 0, seq=self.next[side] + chance.choice((0, -1, 1, 5)))
        elif odd == "syn":
            self.send(side, "S", 0, seq=self.next[side] - chance.choice((0, 1, 1, 9)))
        elif odd == "slow":
            self.now += chance.choice(SLOW_NS)
        elif odd == "large" and "P" in flags:
            payload = chance.choice((16384, 16385, 20000))
        self.send(side, flags, payload, window=0 if odd == "zero window" else 1000, captured=odd != "lost")
        if odd == "cut" and payload:
            self.out[-1][2]["cut"] = True
        elif odd == "again":
            self.put(*self.sent[-1])
        elif odd == "late" and len(self.out) > 1:
            (x, t, s), (y, u, r) = self.out[-2:]
            self.out[-2:] = [(y, t, r), (x, u, s)]

    def run(self):
        for _ in range(3):
            self.connection()
            self.now += self.chance.choice((1000, SECOND, 7 * SECOND))
        return self.out


NOWHERE = {"a": 0, "b": 0}


def ours(segments, ports, isn=NOWHERE):
    """isn: what is added to the numbers of each side, modulo 2^32."""
    tracker = Tracker(ZEEK, max_connections=16, seed=1)
    batch = SegmentBatch(len(segments))
    for sender, now, s in segments:
        peer = "ba"[sender == "b"]
        batch.append(
            src=ADDRESS[sender], sport=ports[sender], dst=ADDRESS[peer], dport=ports[peer], time_ns=now,
            seq=(s["seq"] + isn[sender]) % 2**32, ack=(s["ack"] + isn[peer]) % 2**32,
            flags=sum(LETTERS[letter] for letter in s["flags"]), payload=s["payload"], window=s["window"],
            ip_bytes=s["ip_bytes"], info=CUT if s.get("cut") else 0,
        )  # fmt: skip
    tracker.apply(batch)
    tracker.table.check_invariants()
    tracker.finish()
    return [
        {
            "first_ns": each.first_ns,
            "orig": "a" if each.orig_addr == ADDRESS["a"] else "b",
            "conn_state": each.conn_state,
            "history": each.history,
            "duration_ns": each.duration_ns,
            "bytes": (each.orig_bytes, each.resp_bytes),
            "packets": (each.orig_packets, each.resp_packets),
            "ip_bytes": (each.orig_ip_bytes, each.resp_ip_bytes),
            "missed": each.missed_bytes,
        }
        for each in tracker.take()
    ]


@pytest.mark.parametrize("chaos", [0, 0.05, 0.2, 0.5, 0.9])
def test_rows_are_the_models(chaos):
    for seed in range(300):
        chance = random.Random(f"{chaos} {seed}")
        ports = chance.choice(({"a": 40000, "b": 7000}, {"a": 40000, "b": 80}, {"a": 443, "b": 80}))
        segments = Talk(chance, chaos).run()
        serves = {80, 443}.__contains__
        try:
            expected = play(segments, serves, ports)
        except Wrapped:
            continue
        found = sorted(ours(segments, ports), key=lambda row: row["first_ns"])
        assert found == expected, f"chaos {chaos}, seed {seed}"


@pytest.mark.parametrize("where", ["far from any end", "at the end of the circle", "at its middle"])
def test_rows_of_plain_connections_are_the_models(where):
    """Wherever the numbers of the two sides lie: the model's never wrap."""
    end = {"far from any end": None, "at the end of the circle": 2**32, "at its middle": 2**31}[where]
    for seed in range(700):
        chance = random.Random(f"plain {where} {seed}")
        ports = chance.choice(({"a": 40000, "b": 7000}, {"a": 40000, "b": 80}, {"a": 443, "b": 80}))
        talk = Plain(chance, end is not None)
        isn = NOWHERE
        if end:
            isn = {side: end - number - chance.randrange(2, 4000) for side, number in talk.next.items()}
        segments = talk.run()
        try:
            expected = play(segments, {80, 443}.__contains__, ports)
        except Wrapped:
            continue
        found = sorted(ours(segments, ports, isn), key=lambda row: row["first_ns"])
        assert found == expected, f"{where}, seed {seed}"
