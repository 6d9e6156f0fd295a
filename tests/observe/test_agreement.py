"""One machine, two seats: whatever two halves did to each other is what the observer says of their packets.

Each run is a `Life` (lives.py): connections of one 4-tuple over a link that delays, repeats, reorders and loses, with
an observer at some point of it. Whenever the link is quiet, the observer's two states are those of the halves. `TOLERATED`
names all that a tap cannot know; each use is proved by what became of the segments, and counted.

FASTTCP_AGREEMENT_RUNS sets the number of runs.
"""

import os
from collections import Counter

import numpy as np
import pytest
from lives import PORTS, SECOND, Life, tap_that_sees_all, told_to

from fasttcp import Event, State, profile
from fasttcp.spec import TRANSITIONS

RUNS = int(os.environ.get("FASTTCP_AGREEMENT_RUNS", "3000"))

TOLERATED = {
    "silent end": "a half that ends without a segment (it gives up, its time is up, ABORT where nobody is left to be told) "
    "is CLOSED; the tap goes on with the state it ended from, or that which later segments would have led to",
    "lost behind the tap": "a segment that the tap saw never arrived: the half would be where the tap puts it, had it",
    "lost before the tap": "a segment was lost before the tap: a tap that had seen it would say what the half says",
    "nobody answered": "only SYNs of one side were seen, and are taken for received; the other half is where it was. Or a "
    "SYN+ACK was seen and not its SYN: it answers an old SYN that came again, of a host that is gone",
    "another SYN": "a SYN with another number waits for an answer (case 52), and only a SYN+ACK is one: to the tap the host "
    "is still where its old connection was",
    "challenged": "a RST in the window but not at RCV.NXT is challenged (RFC 5961), and the challenge or its answer was lost; "
    "the tap believes it (case 57)",
    "refused while crossing": "a RST that refuses a SYN counts in SYN_SENT; the tap has taken a crossing SYN for received",
    "rfc1337": "a half that obeys tcp_rfc1337 ignores a RST in TIME_WAIT; the tap believes it",
}
# Loss, repetition, spread of the delay; the most of all checks that may need each tolerance.
LINKS = {
    "in order": (0.0, 0.0, 0, {name: 0.03 for name in TOLERATED if not name.startswith("lost")}),
    "repeated": (0.0, 0.3, 100, {name: 0.03 for name in TOLERATED if not name.startswith("lost")}),
    "lossy": (0.1, 0.1, 50, dict.fromkeys(TOLERATED, 0.03)),
    "bad": (0.3, 0.2, 300, dict.fromkeys(TOLERATED, 0.08)),
}
HOSTS = (
    ("linux", "linux"),
    ("rfc9293", "linux"),
    ("bsd", "rfc9293"),
    ("linux", "bsd"),
    (profile("linux").replace(tcp_tw_reuse=1), profile("linux").replace(tcp_syncookies=2)),
    (profile("rfc9293").replace(rcv_wnd=2000), profile("linux").replace(rfc5961=False)),
)
# An observer that never tires: its time-outs are longer than any silence of the hosts.
PATIENT = profile("linux").replace(
    msl="1h",
    **{
        f"nf_conntrack_tcp_timeout_{name}": "1d"
        for name in ("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "close")
    },
)
SILENT = {
    Event.GIVE_UP: set(State),
    Event.TIMEOUT_2MSL: set(State),
    Event.TIMEOUT_FIN_WAIT_2: set(State),
    Event.TIME_WAIT_OVERFLOW: set(State),
    Event.ABORT: {State.SYN_SENT, State.CLOSING, State.LAST_ACK, State.TIME_WAIT},
    Event.CLOSE: {State.SYN_SENT},
}
ARRIVALS = {
    0x02: (Event.RCV_SYN,),
    0x12: (Event.RCV_SYN_ACK, Event.RCV_ACK_OF_SYN),
    0x10: (Event.RCV_ACK_OF_SYN, Event.RCV_ACK_OF_FIN),
    0x11: (Event.RCV_ACK_OF_SYN, Event.RCV_ACK_OF_FIN, Event.RCV_FIN),
    0x04: (Event.RCV_RST,),
}


def would_be(state, flags):
    """Where segments with these flags may lead a half that is gone: by the machine alone."""
    found = {state}
    for each in flags:
        for event in ARRIVALS[each]:
            found |= {TRANSITIONS[at, event].next for at in found if (at, event) in TRANSITIONS}
    return found


def reason(life, side, says, tap):
    """Why this tap may say that of one half: a name of TOLERATED, "" when it is the truth, None when it may not."""
    truth = life.state(side)
    if says == truth:
        return ""
    towards = [fate for fate in life.fates(1 - side) if fate.tapped_ns or tap is not life.tap]
    lost = [fate for fate in towards if not fate.arrived_ns]
    if truth == State.CLOSED:
        before, event, ended_ns = life.last_end(side)
        if before in SILENT.get(event, ()):
            if says == before:
                return "silent end"
            late = [fate.flags for fate in towards if not fate.arrived_ns or min(fate.arrived_ns) >= ended_ns]
            if says in would_be(before, late):
                return "silent end"
        if (before, event, says) == (State.SYN_SENT, Event.RCV_RST, State.SYN_RCVD):
            return "refused while crossing"
    if says == State.CLOSED and truth == State.TIME_WAIT and life.hosts[side].profile.tcp_rfc1337:
        return "rfc1337"
    if not life.answered(side, tap) and (says == State.SYN_RCVD or (says, truth) == (State.ESTABLISHED, State.CLOSED)):
        return "nobody answered"
    if State.SYN_SENT in (truth, life.last_end(side)[0]) and life.gave_up_a_syn(side, tap):
        return "another SYN"
    if says == State.CLOSED and life.hosts[side].tallies()["rcv_rst_suspect"]:
        return "challenged"
    if lost and told_to(life.hosts[side], lost, life.names(side)) == says:
        return "lost behind the tap"
    return None


def explained(life):
    """The names of TOLERATED that account for what the tap says now; None when they do not."""

    def reasons(tap):
        says = life.seen_states(tap) or (State.CLOSED, State.CLOSED)
        return [reason(life, side, says[side], tap) for side in (0, 1)]

    found = reasons(life.tap)
    if None in found and not all(fate.tapped_ns for fate in life.wire.fates):
        found = [*reasons(tap_that_sees_all(life, PATIENT)), "lost before the tap"]
    return None if None in found else found


def numbers_agree(life):
    """Where both halves live, the observer knows their numbers too."""
    handle, halves = life.seen(), [life.half(0), life.half(1)]
    if handle is None or None in halves or not all(life.state(side) >= State.ESTABLISHED for side in (0, 1)):
        return
    row = handle & 0xFFFFFFFF
    summary = life.tap.summary(handle)
    swapped = int(np.asarray(life.tap.column("port_0"))[row] != PORTS[0])
    for side, name in enumerate(("orig_isn", "resp_isn") if summary["orig_port"] == PORTS[0] else ("resp_isn", "orig_isn")):
        own = life.hosts[side]
        if life.answered(side, life.tap):  # else its SYN was not seen, and its number is a guess
            assert summary[name] == own.summary(halves[side])["orig_isn"]
        sent = np.asarray(own.column("snd_nxt"))[halves[side] & 0xFFFFFFFF]
        assert np.asarray(life.tap.column(f"snd_nxt_{side ^ swapped}"))[row] == sent


def live(life):
    """The script of one run, phase by phase; the caller lets the link become quiet after each."""
    rng = life.rng
    for _ in range(rng.choice((1, 1, 2, 3))):
        opener = rng.randrange(2)
        kind = rng.choice(("answered",) * 6 + ("crossed", "crossed", "refused"))
        life.begin()
        life.listen(opener, False)
        life.listen(1 - opener, kind == "answered")
        life.soon(200 if kind == "crossed" else 1, life.open, opener)
        if kind == "crossed":
            life.soon(200, life.open, 1 - opener)
        if rng.random() < 0.15:
            life.soon(400, rng.choice((life.abort, life.close)), rng.randrange(2))
        yield
        for _ in range(rng.randrange(3)):
            life.soon(500, life.send, rng.randrange(2), rng.choice((1, 700, 9000)))
        yield
        how = rng.choice(("opener", "opener", "other", "both", "half", "abort"))
        first = opener if how != "other" else 1 - opener
        if how in ("opener", "other"):
            life.soon(100, life.close, first, half=rng.random() < 0.5)
            if rng.random() < 0.5:
                yield
            life.soon(1000, life.close, 1 - first, half=rng.random() < 0.5)
        elif how == "both":
            life.soon(30, life.close, 0)
            life.soon(30, life.close, 1)
        elif how == "half":
            life.soon(50, life.close, first)
            yield
            life.soon(500, life.send, 1 - first, rng.choice((1, 700, 9000)))
            yield
            life.soon(500, life.close, 1 - first)
        else:
            life.soon(500, life.abort, rng.randrange(2))
            life.soon(500, life.send, rng.randrange(2), rng.choice((0, 3000)))
        yield
    for side in (0, 1):
        life.listen(side, False)
        life.soon(1, life.close, side, half=False)
    yield


def nothing_is_left(life):
    life.finish()
    for table in life.hosts:
        table.check_invariants()
        assert (len(table), table.next_timer_ns, table.output_count) == (0, None, 0)
    for tap, ends in zip(life.taps, life.tap_ends, strict=True):
        tap.check_invariants()
        tap.advance(life.wire.now_ns + 6 * 86400 * SECOND)
        assert len(tap) == 0
        tap.check_invariants()
        tallies = tap.tallies()
        assert tallies["connections"] == tallies["ended"] == len(ends) + len(tap.take_ended())


@pytest.mark.parametrize("link", LINKS)
def test_the_observer_agrees_with_both_halves_whenever_the_link_is_quiet(link):
    loss, duplicate, spread_ms, allowed = LINKS[link]
    uses = Counter()
    checks = exact = 0
    for seed in range(RUNS // len(LINKS)):
        life = Life(
            seed, loss=loss, duplicate=duplicate, spread_ms=spread_ms, profiles=HOSTS[seed % len(HOSTS)],
            observers=(PATIENT, "linux"),
        )  # fmt: skip
        for _ in live(life):
            life.settle()
            checks += 1
            reasons = explained(life)
            assert reasons is not None, f"{link}, seed {seed}: {life.account()}"
            uses.update(set(reasons) - {""})
            if not any(reasons):
                exact += 1
                numbers_agree(life)
            if (weary := life.seen_states(life.taps[1])) != life.seen_states():
                assert life.tired(), f"{link}, seed {seed}: {weary}, and {life.seen_states()} with more patience"
        tallies = life.tap.tallies()
        assert tallies["partial"] == 0, f"{link}, seed {seed}"
        assert loss or duplicate or tallies["missed_bytes"] == 0
        assert len(life.met) <= tallies["connections"] <= life.opened()
        nothing_is_left(life)
    assert checks > 3 * (RUNS // len(LINKS))
    print(f"{link}: {checks} checks, {exact} agree as they are, {dict(uses)}")
    assert set(uses) <= set(allowed)
    for name, count in uses.items():
        assert count <= 5 + allowed[name] * checks, (name, count, checks)
