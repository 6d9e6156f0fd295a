"""A forged segment moves nothing; the far side of a real hole in the capture is found again all the same.

Far away is what no window and no small hole explains. Only both hosts together are believed about it.
"""

import random

import pytest
from wire import MS, Wire

OPEN = ("ESTABLISHED", "ESTABLISHED")
FAR = 1 << 30


def forged(wire, sender, flags, *, seq=0, ack=0, **fields):
    """A segment that the host did not send: relative to what it would send, and it knows nothing of it."""
    me = wire.hosts[sender]
    wire.send(
        sender, flags, seq=(me.next + seq) % 2**32, ack=(me.heard + ack) % 2**32, absolute=True, window=1000, **fields
    )


def busy(scaled=True):
    wire = Wire()
    if scaled:
        wire.opened()
    else:
        wire.hosts[0].heard = wire.hosts[1].next
    wire.a("PA", payload=500)
    wire.b("PA", payload=700)
    wire.a("A")
    return wire


def goes_on_and_closes(wire, missed=0):
    """Nothing that follows is taken for a repetition or a gap."""
    wire.a("PA", payload=500)
    wire.b("A")
    wire.b("PA", payload=900)
    wire.a("A")
    assert (wire.states, wire.tallies["missed_bytes"], wire.tallies["retransmitted"]) == (OPEN, missed, 0)
    wire.closed()
    assert wire.states == ("TIME_WAIT", "CLOSED")
    assert (wire.tallies["missed_bytes"], wire.tallies["retransmitted"]) == (missed, 0)


@pytest.mark.parametrize("scaled", [True, False], ids=["from its SYN", "from its middle"])
@pytest.mark.parametrize("sender", [0, 1])
@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ("A", {"ack": FAR}),  # in its own sequence: an ACK of what nobody sent
        ("PA", {"ack": FAR, "seq": -10, "payload": 10}),
        ("A", {"seq": FAR}),
        ("PA", {"seq": FAR, "payload": 1000}),
        ("PA", {"seq": FAR, "ack": FAR, "payload": 1}),
        ("PA", {"seq": 2**31 - 1200, "payload": 1000}),
        ("FA", {"seq": FAR}),
        ("FA", {"seq": FAR, "ack": FAR}),
        ("FA", {"seq": 20 << 20}),
    ],
)
def test_one_forged_segment_far_ahead_moves_nothing(scaled, sender, flags, fields):
    wire = busy(scaled)
    before = wire.summary
    forged(wire, sender, flags, **fields)
    assert (wire.states, wire.tallies["suspect"], wire.tallies["missed_bytes"]) == (OPEN, 1, 0)
    assert wire.summary["orig_isn"] == before["orig_isn"]
    goes_on_and_closes(wire)


def test_many_forged_segments_of_one_host_move_nothing():
    wire = busy()
    for i in range(50):
        forged(wire, i % 2, "PA", seq=FAR + 1000 * i, payload=1000)
        forged(wire, i % 2, "A", ack=FAR // 2 + 1000 * i)
    assert (wire.states, wire.tallies["missed_bytes"]) == (OPEN, 0)
    goes_on_and_closes(wire)


def test_a_forged_close_is_not_acknowledged_by_an_impossible_number():
    wire = busy()
    wire.a("FA")
    forged(wire, 1, "A", ack=FAR)
    assert wire.states == ("FIN_WAIT_1", "CLOSE_WAIT")
    wire.b("A")
    assert wire.states == ("FIN_WAIT_2", "CLOSE_WAIT")


@pytest.mark.parametrize("seed", range(30))
def test_forged_segments_anywhere_leave_the_account_as_it_is(seed):
    """Any number of them, far away in either number, between the segments of an exchange."""
    rng = random.Random(seed)
    wire = Wire()
    wire.opened()
    sent = [0, 0]
    for _ in range(40):
        sender = rng.randrange(2)
        if rng.random() < 0.5:
            size = rng.choice((0, 1, 1448))
            wire.send(sender, "PA", payload=size, after=5 * MS)
            sent[sender] += size
        else:
            far = rng.randrange(1 << 27, 1 << 28) << 2 * sender  # two hosts that never say the same
            which = rng.choice(({"seq": far}, {"ack": far}, {"seq": far, "ack": far}))
            forged(wire, sender, rng.choice(("A", "PA", "FA")), payload=0, **which)
    assert (wire.states, wire.tallies["missed_bytes"], wire.tallies["retransmitted"]) == (OPEN, 0, 0)
    summary = wire.summary
    assert (summary["orig_bytes"], summary["resp_bytes"]) == tuple(sent)
    wire.closed()
    assert wire.states == ("TIME_WAIT", "CLOSED")


# ---- real holes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hole", [3_000, 16_000_000, 50_000_000, 2_000_000_000])
@pytest.mark.parametrize("first", [0, 1])
def test_one_direction_lost_and_found(hole, first):
    """What `a` sent was not captured for a while; then either host shows where it is now."""
    wire = busy()
    wire.hosts[0].next = (wire.hosts[0].next + hole) % 2**32
    wire.hosts[1].heard = wire.hosts[0].next
    for sender in (first, 1 - first):
        wire.send(sender, "A")
    goes_on_and_closes(wire, missed=hole)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0, 1), (1, 1, 0)])
def test_both_directions_lost_and_found(order):
    wire = busy()
    holes = (50_000_000, 70_000_000)
    for host, peer, hole in ((0, 1, holes[0]), (1, 0, holes[1])):
        wire.hosts[host].next = (wire.hosts[host].next + hole) % 2**32
        wire.hosts[peer].heard = wire.hosts[host].next
    for sender in order:
        wire.send(sender, "A")
    goes_on_and_closes(wire, missed=sum(holes))


def test_a_peer_that_was_never_captured_cannot_confirm():
    """Only one direction is in the capture: the same host must say it twice."""
    wire = Wire()
    wire.hosts[0].heard = wire.hosts[1].next
    wire.a("PA", payload=1000)
    wire.hosts[0].next += 100_000_000
    wire.a("PA", payload=1000)
    assert wire.tallies["missed_bytes"] == 0
    wire.a("PA", payload=1000)
    assert (wire.tallies["missed_bytes"], wire.tallies["suspect"]) == (100_001_000, 1)
    wire.a("PA", payload=1000)
    assert (wire.tallies["missed_bytes"], wire.tallies["retransmitted"]) == (100_001_000, 0)
    wire.a("FA")
    assert wire.states == ("FIN_WAIT_1", "CLOSE_WAIT")


def test_a_claim_that_is_not_confirmed_does_not_help_another():
    wire = busy()
    forged(wire, 0, "PA", seq=FAR, payload=10)
    forged(wire, 1, "A", ack=FAR // 2)
    forged(wire, 0, "A", seq=FAR // 4)
    assert (wire.tallies["suspect"], wire.tallies["missed_bytes"]) == (3, 0)
    goes_on_and_closes(wire)
