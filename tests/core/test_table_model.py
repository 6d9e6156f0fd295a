"""The table against a model: a dict of connections and a heap of deadlines, nothing clever.

The model's transitions are taken by the interpreted machine (`fasttcp.transition`), its deadlines come from
`silence_ns`. It plays two hosts of each connection, as a tap that misses nothing sees them, and says after each
segment what the table must say: the states of both, what lives, what is counted, who was evicted. After each step the
table checks its own invariants.

At least 50,000 steps with CI=true, 3,000 otherwise. A step is one segment, or one call of advance.
"""

import heapq
import os
from collections import Counter
from typing import ClassVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from table_traffic import MS, TICK, S, batch_of, observer, send

from fasttcp import LINUX, Action, Event, State, Verdict, transition
from fasttcp.core.silence import silence_ns

STEPS = 50_000 if os.environ.get("CI") == "true" else 3_000
RULES = 50  # in one run of the machine

SILENCE = silence_ns(LINUX)
V4, V6 = ("10.0.0.5", "10.0.0.6"), ("2001:db8::5", "2001:db8::6")
# Both directions between neighbours, one port that both use, and IPv6.
ENDS = [
    *(((V4[0], port), (V4[1], 80)) for port in (1, 2, 3, 80)),
    *(((V4[1], port), (V4[0], 80)) for port in (1, 2, 3)),
    *(((V6[i], port), (V6[1 - i], 443)) for i in range(2) for port in (7, 8)),
    ((V4[0], 9), (V4[0], 80)),
]
CLOSED, LISTEN, SYN_SENT, SYN_RCVD, ESTABLISHED = (State(i) for i in range(5))
CLOSING = {State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK}
EXPECTED = Verdict(0)
FAR = 0x60000000  # outside every window


def class_of(states):
    """Who may be sacrificed, in this order; None: nobody."""
    if State.TIME_WAIT in states or states == [CLOSED, CLOSED]:
        return 1
    if CLOSING & set(states):
        return 3
    return 2 if ESTABLISHED not in states else None


class Connection:
    """Two hosts; 0 is the originator. `which` is the place of the 4-tuple in ENDS, `ends` the two in the order of the
    hosts."""

    def __init__(self, ends, isn):
        self.ends = ends
        self.states = [CLOSED, CLOSED]
        self.isn = list(isn)
        self.snd_nxt = list(isn)
        self.acked = [isn[1], isn[0]]  # what each has acknowledged
        self.syn_seen = [False, False]
        self.fin_sent = [False, False]
        self.data_sent = [0, 0]
        self.packets = [0, 0]
        self.partial = False
        self.pending = None  # a SYN on the living connection: (host, sequence number)
        self.due = None
        self.handle = None
        self.sacrifice = None  # (class, when it entered)


class TableAgainstModel(RuleBasedStateMachine):
    total = 0
    sound = False  # made, and no verdict was wrong
    seen: ClassVar = Counter()  # events, verdicts, and how connections went

    @initialize(
        kind=st.sampled_from(["grow", "evict", "raise"]),
        room=st.integers(3, 9),
        epoch=st.sampled_from([0, 5, -(10**15), 2**60 + 1]),
    )
    def make(self, kind, room, epoch):
        self.evict = kind == "evict"
        self.room = 64 if kind == "grow" else room
        self.table = observer(
            1 if kind == "grow" else room, max_capacity=self.room, on_full="evict" if self.evict else "raise",
            keep_ended=True,
        )  # fmt: skip
        self.now = self.epoch = epoch
        self.started = False
        self.sound = True
        self.living = {}
        self.deadlines = []
        self.order = 0
        self.gone = []
        self.single = False

    # ---- the model ---------------------------------------------------------------------------------------------------

    def fire(self, connection, host, event):
        row = transition(connection.states[host], event)
        self.seen[event] += 1
        connection.states[host] = row.next
        entered = class_of(connection.states)
        if entered != (connection.sacrifice or (None,))[0]:
            self.order += 1
            connection.sacrifice = None if entered is None else (entered, self.order)
        return row.actions

    def arm(self, which, connection):
        ticks = -(-(self.now - self.epoch) // TICK) + SILENCE[connection.states[0] * 16 + connection.states[1]] // TICK
        connection.due = self.epoch + ticks * TICK
        heapq.heappush(self.deadlines, (connection.due, which))

    def end(self, which):
        self.gone.append(self.living.pop(which).handle)

    def expire(self):
        while self.deadlines and self.deadlines[0][0] <= self.now:
            due, which = heapq.heappop(self.deadlines)
            if which in self.living and self.living[which].due == due:
                self.end(which)
                self.seen["expired"] += 1

    def make_room(self):
        """Whether there is a row for one more."""
        if len(self.living) < self.room:
            return True
        victims = [(c.sacrifice, which) for which, c in self.living.items() if c.sacrifice]
        if not self.evict or not victims:
            return False
        self.end(min(victims)[1])
        self.seen["evicted"] += 1
        return True

    # ---- one segment -------------------------------------------------------------------------------------------------

    def apply(self, which, ends, flags, seq, ack, payload, expected):
        """Feed it and compare the verdict; returns whether it has a row."""
        segment = send(self.now, *ends, flags, seq, ack if "ACK" in flags else 0, payload)
        self.single = not self.single
        if self.single:
            (verdict,) = self.table.apply(batch_of(segment))
            said, row = Verdict(verdict["flags"]), verdict["row"]
            handle = None if row == 0xFFFFFFFF else self.table.handle(row)
        elif Verdict.FULL in expected:
            (verdict,) = self.table.apply(batch_of(segment))
            said, handle = Verdict(verdict["flags"]), None
        else:
            handle, said = self.table.receive(batch_of(segment))
        self.sound = said == expected
        assert self.sound, (said, expected, segment)
        self.seen.update(f"{each.name}" for each in Verdict if each & said)
        self.started = True
        self.stepped()
        return handle

    def stepped(self):
        TableAgainstModel.total += 1
        self.table.check_invariants()

    def clock(self, ns):
        if not self.started:
            self.epoch = self.now + ns
        self.now += ns
        self.expire()

    def begin(self, which, ends, flags, isn, replaced=EXPECTED, payload=0):
        """The first segment of a connection: a SYN, a SYN+ACK, or an ACK in mid-stream."""
        if replaced:
            self.end(which)
        news = Verdict.NEW | Verdict.CHANGED | replaced
        if not self.make_room():
            self.apply(which, ends, flags, isn[0], isn[1], payload, Verdict.FULL)
            return
        self.order += 1
        if flags == "SYN":
            c = Connection(ends, (isn[0], 0))
            self.fire(c, 0, Event.OPEN_ACTIVE)
            self.fire(c, 1, Event.OPEN_PASSIVE)
            self.fire(c, 1, Event.RCV_SYN)
            c.syn_seen[0] = True
            c.snd_nxt[0] = isn[0] + 1
        elif flags == "SYN|ACK":
            c = Connection(ends[::-1], (isn[1] - 1, isn[0]))
            self.fire(c, 0, Event.OPEN_ACTIVE)
            self.fire(c, 1, Event.OPEN_PASSIVE)
            self.fire(c, 1, Event.RCV_SYN)
            self.fire(c, 0, Event.RCV_SYN_ACK)
            c.syn_seen[1] = True
            c.snd_nxt = [isn[1], isn[0] + 1]
            c.acked[1] = isn[1]
        else:
            c = Connection(ends, isn)
            c.partial = True
            self.fire(c, 0, Event.PICKED_UP)
            self.fire(c, 1, Event.PICKED_UP)
            c.snd_nxt[0] += payload
            c.data_sent[0] = payload
            news |= Verdict.PARTIAL
        self.living[which] = c
        c.handle = self.apply(which, ends, flags, isn[0], isn[1], payload, news)
        c.packets[c.ends.index(ends[0])] += 1
        self.arm(which, c)

    def segment(self, which, host, flags, seq, ack, payload, expected, actions=Action.NONE, suspect=False):
        """A segment on a known connection, the model's states being those after it."""
        c = self.living[which]
        assert self.apply(which, (c.ends[host], c.ends[1 - host]), flags, seq, ack, payload, expected) == c.handle
        c.packets[host] += 1
        if State.TIME_WAIT in c.states:
            if actions & Action.START_2MSL:
                self.arm(which, c)
        elif c.states != [CLOSED, CLOSED] or Verdict.CHANGED in expected:
            self.arm(which, c)

    def acknowledge(self, c, host, ack, payload):
        """The ACK part: what it proves of the other half. Returns (actions, whether a state changed)."""
        other = 1 - host
        before, actions = list(c.states), Action.NONE
        inferred = SYN_RCVD in c.states or SYN_SENT in c.states
        if c.states[other] is SYN_RCVD:
            self.fire(c, other, Event.RCV_ACK_OF_SYN)
        if c.states[host] is SYN_RCVD and payload and c.syn_seen[host]:
            self.fire(c, host, Event.RCV_ACK_OF_SYN)
        if ack == c.snd_nxt[other] and c.states[other] in (State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK):
            actions |= self.fire(c, other, Event.RCV_ACK_OF_FIN)
        c.acked[host] = max(c.acked[host], ack)
        return actions, inferred or c.states != before

    # ---- what can happen ---------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, len(ENDS) - 1), moves=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9))
    def live_on(self, which, moves):
        """Moves of an ordinary life: open, say something, close."""
        for move in moves:
            self.clock(5 * MS)
            c = self.living.get(which)
            if c is None or all(state in (CLOSED, State.TIME_WAIT) for state in c.states):
                if c is None or move not in (n & 0xFFFFFFFF for n in c.isn):
                    ends = ENDS[which][:: -1 if move & 1 else 1]
                    self.begin(which, ends, "SYN", (move, 0), EXPECTED if c is None else Verdict.REPLACED)
            elif c.states == [SYN_SENT, SYN_RCVD]:
                self.answer(which, c, move)
            elif SYN_RCVD in c.states and SYN_SENT not in c.states:
                self.say(which, c, 1 - c.states.index(SYN_RCVD))
            else:
                host = move & 1
                if c.states[host] in (CLOSED, SYN_SENT):
                    host = 1 - host
                if c.states[host] in (ESTABLISHED, State.CLOSE_WAIT):
                    self.say(
                        which, c, host, payload=move >> 8 & 0xFFF, fin=move >> 1 & 3 != 0, crossed=move >> 3 & 1 == 1
                    )
                elif c.states[host] not in (CLOSED, SYN_SENT, SYN_RCVD) and c.states[1 - host] is not SYN_SENT:
                    self.say(which, c, host)

    @rule(
        which=st.integers(0, len(ENDS) - 1),
        turned=st.booleans(),
        isn=st.integers(0, 2**32 - 1),
        pause=st.integers(0, 50),
    )
    def syn(self, which, turned, isn, pause):
        """A SYN on any 4-tuple, known or not."""
        self.clock(pause * MS)
        ends = ENDS[which][::-1] if turned else ENDS[which]
        c = self.living.get(which)
        if c is None:
            self.begin(which, ends, "SYN", (isn, 0))
            return
        host = c.ends.index(ends[0])
        if isn == c.isn[host] & 0xFFFFFFFF:
            return
        if all(state in (CLOSED, State.TIME_WAIT) for state in c.states):
            self.begin(which, ends, "SYN", (isn, 0), Verdict.REPLACED)
        elif c.states[host] is SYN_RCVD and c.states[1 - host] is SYN_SENT and not c.syn_seen[host]:
            c.isn[host] = isn
            c.syn_seen[host] = True
            c.snd_nxt[host] = isn + 1
            self.fire(c, host, Event.CROSSED_SYN)
            self.fire(c, 1 - host, Event.RCV_SYN)
            self.segment(which, host, "SYN", isn, 0, 0, Verdict.CHANGED)
        else:
            c.pending = host, isn
            self.segment(which, host, "SYN", isn, 0, 0, Verdict.SUSPECT)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), isn=st.integers(0, 2**32 - 1), pause=st.integers(0, 50))
    def syn_ack(self, data, isn, pause):
        self.clock(pause * MS)
        which, c = self.choose(data, lambda c: c.states[0] is SYN_SENT or SYN_RCVD in c.states or c.pending)
        if c is None:
            return
        if c.pending and c.isn[1 - c.pending[0]] & 0xFFFFFFFF != isn:
            host, seq = c.pending
            self.begin(which, (c.ends[1 - host], c.ends[host]), "SYN|ACK", (isn, seq + 1), Verdict.REPLACED)
        elif c.states == [SYN_SENT, SYN_RCVD]:
            self.answer(which, c, isn)
        elif c.states == [SYN_RCVD, SYN_RCVD]:
            self.fire(c, 0, Event.RCV_ACK_OF_SYN)
            self.segment(which, 1, "SYN|ACK", c.isn[1], c.snd_nxt[0], 0, Verdict.CHANGED)

    @precondition(lambda self: self.living)
    @rule(
        data=st.data(),
        host=st.integers(0, 1),
        payload=st.sampled_from([0, 0, 1, 1460, 10**6]),
        fin=st.booleans(),
        crossed=st.booleans(),
        pause=st.integers(5, 500),
    )
    def speak(self, data, host, payload, fin, crossed, pause):
        """An ACK, data, a FIN, or all at once, from a host that may send it; `crossed`: the peer's FIN has not
        arrived."""
        self.clock(pause * MS)
        able = (SYN_RCVD, ESTABLISHED, State.CLOSE_WAIT) if payload or fin else tuple(State)[3:]
        which, c = self.choose(data, lambda c: c.states[host] in able and c.states[1 - host] is not SYN_SENT)
        if c is not None:
            self.say(which, c, host, payload, fin, crossed)

    def answer(self, which, c, isn):
        """The SYN+ACK."""
        c.isn[1], c.snd_nxt[1], c.syn_seen[1] = isn, isn + 1, True
        self.fire(c, 0, Event.RCV_SYN_ACK)
        c.acked[1] = c.snd_nxt[0]
        self.segment(which, 1, "SYN|ACK", isn, c.snd_nxt[0], 0, Verdict.CHANGED)

    def say(self, which, c, host, payload=0, fin=False, crossed=False):
        """ACK, data and FIN of a host that may send them."""
        other = 1 - host
        crossed = crossed and fin and c.states[host] is State.CLOSE_WAIT
        ack = c.snd_nxt[other] - crossed
        if not fin and not payload:
            ack = max(c.acked[host], ack)
        actions, changed = self.acknowledge(c, host, ack, payload)
        seq = c.snd_nxt[host]
        c.snd_nxt[host] += payload + fin
        c.data_sent[host] += payload
        if fin:
            c.fin_sent[host] = changed = True
            self.fire(c, host, Event.CROSSED_FIN if crossed else Event.CLOSE)
            if c.states[other] in (ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2):
                actions |= self.fire(c, other, Event.RCV_FIN)
        expected = Verdict.CHANGED if changed else EXPECTED
        self.segment(which, host, "FIN|ACK" if fin else "ACK", seq, ack, payload, expected, actions)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), host=st.integers(0, 1), pause=st.integers(5, 500))
    def repeat(self, data, host, pause):
        """The SYN, a byte, or the FIN once more."""
        self.clock(pause * MS)
        which, c = self.choose(data, lambda c: c.fin_sent[host] and c.states[1 - host] is State.TIME_WAIT)
        if c is None:
            which, c = self.choose(data, lambda c: c.syn_seen[host] or c.fin_sent[host] or c.data_sent[host])
        if c is None:
            return
        other = 1 - host
        if c.fin_sent[host] or c.data_sent[host]:
            back = 1 if c.fin_sent[host] else c.data_sent[host]
            if c.states[other] in (SYN_SENT, SYN_RCVD) or c.states[host] in (SYN_SENT, SYN_RCVD):
                return
            actions, changed = self.acknowledge(c, host, c.acked[host], 0)
            if c.fin_sent[host] and c.states[other] is State.TIME_WAIT:
                actions |= self.fire(c, other, Event.RCV_FIN_AGAIN)
            expected = Verdict.RETRANSMITTED | (Verdict.CHANGED if changed else EXPECTED)
            flags, payload = ("FIN|ACK", 0) if c.fin_sent[host] else ("ACK", 1)
            self.segment(which, host, flags, c.snd_nxt[host] - back, c.acked[host], payload, expected, actions)
        elif host == 0 and not c.partial:
            self.segment(which, host, "SYN", c.isn[host], 0, 0, Verdict.RETRANSMITTED)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), host=st.integers(0, 1), true=st.booleans(), pause=st.integers(5, 50))
    def reset(self, data, host, true, pause):
        """A RST, where its sender stands or far away from there."""
        self.clock(pause * MS)
        which, c = self.choose(data, lambda c: c.syn_seen[host] or c.partial or not true)
        if c is None:
            return
        other = 1 - host
        if c.states == [CLOSED, CLOSED]:
            expected = Verdict.RETRANSMITTED
        elif not true:
            expected = Verdict.SUSPECT
        else:
            expected = Verdict.CHANGED
            if c.states[other] is not CLOSED:
                self.fire(c, other, Event.RCV_RST)
            if c.states[host] is not CLOSED:
                self.fire(c, host, Event.ABORT)
        seq = c.snd_nxt[host] + (0 if true else FAR)
        ack = c.snd_nxt[other] + (0 if true else FAR)
        self.segment(which, host, "RST|ACK", seq, ack, 0, expected)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), host=st.integers(0, 1), flags=st.sampled_from(["SYN|FIN", "SYN|RST", "PSH", "FIN"]))
    def nonsense(self, data, host, flags):
        which, _ = self.choose(data, lambda c: True)
        self.segment(which, host, flags, 5, 0, 0, Verdict.ILLEGAL)

    @rule(
        which=st.integers(0, len(ENDS) - 1),
        flags=st.sampled_from(["RST", "ACK", "ACK", "PSH"]),
        isn=st.integers(0, 2**32 - 1),
        payload=st.sampled_from([0, 5]),
    )
    def out_of_nowhere(self, which, flags, isn, payload):
        """No SYN, on a 4-tuple that nobody knows."""
        if which in self.living:
            return
        if flags == "ACK":
            self.begin(which, ENDS[which], "ACK", (isn, isn ^ 0x55555555), payload=payload)
        else:
            expected = Verdict.STRAY if flags == "RST" else Verdict.ILLEGAL
            assert self.apply(which, ENDS[which], flags, isn, 0, 0, expected) is None

    @rule(
        ns=st.one_of(
            st.integers(0, 2 * S), st.integers(0, 130).map(S.__mul__), st.sampled_from([400 * S, 5 * 86400 * S, 10**17])
        ),
        budget=st.sampled_from([None, None, 1, 3]),
    )
    def wait(self, ns, budget):
        if ns == 10**17:
            budget = None  # such a jump may not meet a backlog, see wheel_tick
            self.table.advance(self.now)
        self.clock(ns)
        done = self.table.advance(self.now, budget)
        self.started = True
        assert done or budget is not None
        self.stepped()

    @rule(ns=st.integers(1, 10**12))
    def look_back(self, ns):
        """An older time is the newest seen."""
        if self.started:
            self.table.advance(self.now)
            self.table.advance(self.now - ns)
            assert self.table.now_ns == self.now
            self.stepped()

    def choose(self, data, able):
        """One of the living connections that are able, or (None, None)."""
        which = [which for which, c in self.living.items() if able(c)]
        if not which:
            return None, None
        which = which[data.draw(st.integers(0, len(which) - 1))]
        return which, self.living[which]

    # ---- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def table_says_what_the_model_says(self):
        if not self.sound:
            return
        table = self.table
        if table.now_ns != self.now:  # the clock has moved and nobody has spoken
            table.advance(self.now, 1)
            self.started = True
            self.stepped()
        assert len(table) >= len(self.living)
        told = {record["handle"]: record for record in np.asarray(table.summaries())}
        assert told.keys() == {c.handle for c in self.living.values()}
        for which, ends in enumerate(ENDS):
            c = self.living.get(which)
            assert table.find(*ends[0], *ends[1]) == table.find(*ends[1], *ends[0]) == (c and c.handle)
            if c:
                record = told[c.handle]
                assert (record["orig_state"], record["resp_state"]) == tuple(c.states)
                assert (record["orig_packets"], record["resp_packets"]) == tuple(c.packets)
                assert record["orig_port"] == c.ends[0][1]
        for handle in self.gone[-5:]:
            assert handle not in table
        assert table.tallies()["connections"] == len(self.living) + len(self.gone)
        assert len(table) == len(self.living), "looking for them has let the last expired ones go"
        states = [state for c in self.living.values() for state in c.states]
        assert {state: count for state, count in table.counts().items() if count} == {
            s: states.count(s) for s in set(states)
        }

    def teardown(self):
        if self.sound:
            self.table.advance(self.now + 10**16)
            assert len(self.table) == 0
            assert len(self.table.take_ended()) == len(self.gone) + len(self.living)
            assert len(set(self.gone)) == len(self.gone), "no handle was ever given out twice"
            self.table.check_invariants()


def test_table_against_the_model():
    TableAgainstModel.total = 0
    TableAgainstModel.seen.clear()
    run_state_machine_as_test(
        TableAgainstModel,
        settings=settings(
            max_examples=STEPS * 5 // 4 // RULES, stateful_step_count=RULES, deadline=None, derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    assert TableAgainstModel.total >= STEPS
    seen = TableAgainstModel.seen
    events = {Event.RCV_SYN_ACK, Event.RCV_ACK_OF_SYN, Event.RCV_ACK_OF_FIN, Event.CROSSED_SYN, Event.CROSSED_FIN,
              Event.RCV_FIN_AGAIN, Event.RCV_RST, Event.PICKED_UP}  # fmt: skip
    # What is drawn depends on the modules that are loaded (hypothesis takes constants from them): a short run may miss one.
    least = STEPS // 1500 if STEPS >= 50_000 else 0
    assert min(seen[each] for each in events | {"REPLACED", "FULL", "evicted", "expired"}) >= least, seen
