"""RFC 6298 on the wire: two hosts in simulated time, a path that loses what it is told to, and the formulas written again.

`Reference` is RFC 6298 in a few lines, with the profile's least and Linux's way of applying it; the times at which a host
sends a segment again must be its times: never early, and late by one tick at most for each time-out.
"""

import random

import pytest

from fasttcp import ConnectionTable, State, profile

SECOND, MS = 1_000_000_000, 1_000_000
A, B = "10.0.0.1", "192.0.2.7"
TICK = MS
SYN, FIN, ACK = 2, 1, 16


class Reference:
    """RFC 6298 sections 2, 3 and 5, in seconds."""

    def __init__(self, rules):
        self.rules = rules
        self.least, self.most = rules.rto_min_ns / SECOND, rules.rto_max_ns / SECOND
        self.srtt = self.rttvar = None
        self.rto, self.doubled = rules.rto_initial_ns / SECOND, 0

    def sample(self, rtt):
        if self.srtt is None:
            self.srtt, self.rttvar = rtt, rtt / 2
        else:
            self.rttvar = 0.75 * self.rttvar + 0.25 * abs(self.srtt - rtt)
            self.srtt = 0.875 * self.srtt + 0.125 * rtt
        grain = self.least if self.rules.rto_min_bounds_variance else TICK / SECOND
        self.rto = min(max(self.srtt + max(4 * self.rttvar, grain), self.least), self.most)
        self.doubled = 0

    def waits(self, n):
        """The next n time-outs of one segment; the back-off stays."""
        out = [min(self.rto * 2 ** (self.doubled + i), self.most) for i in range(n)]
        self.doubled += n
        return out


class Hosts:
    """Two tables and the path between them: `one_way(n)` seconds for the n-th segment, `lose(segment)` drops it."""

    def __init__(self, rules, one_way=lambda: 0.05, lose=lambda segment: False):
        self.now, self.one_way, self.lose = 0, one_way, lose
        self.tables = {
            A: ConnectionTable(8, profile=rules, seed=1, tick_ns=TICK, keep_ended=True),
            B: ConnectionTable(8, profile=rules, seed=2, tick_ns=TICK),
        }
        self.wire = []  # (arrival, n, segment)
        self.sent = []  # (time, segment) of A
        self.n = 0

    def run(self, seconds):
        end = self.now + round(seconds * SECOND)
        while True:
            self.collect()
            timers = [t.next_timer_ns for t in self.tables.values() if t.next_timer_ns is not None]
            due = min([*(each[0] for each in self.wire), *(max(t, self.now + TICK) for t in timers), end])
            self.now = due
            while self.wire and self.wire[0][0] <= due:
                _, _, segment = self.wire.pop(0)
                self.tables[str(segment.dst)].receive(segment._replace(time_ns=due))
            for table in self.tables.values():
                table.advance(due)
            if due >= end:
                self.collect()
                return

    def collect(self):
        for name, table in self.tables.items():
            for segment in table.take_output():
                if name == A:
                    self.sent.append((segment.time_ns, segment))
                if not self.lose(segment):
                    self.n += 1
                    self.wire.append((self.now + round(self.one_way() * SECOND), self.n, segment))
        self.wire.sort(key=lambda each: each[:2])

    def times(self, wanted):
        """When A sent each segment that `wanted` takes, in seconds."""
        return [when / SECOND for when, segment in self.sent if wanted(segment)]


def rules_of(name, **changes):
    return profile(name).replace(**{"tcp_timestamps": 0, "tcp_syn_linear_timeouts": 0, "so_keepalive": False, **changes})


def is_syn(segment):
    return segment.flags & SYN


def has_data(segment):
    return segment.payload > 0


def check(times, waits):
    """Each gap is its time-out: never early, late by a tick or two (the timer's, and the one of the time itself)."""
    assert len(times) == len(waits) + 1, (times, waits)
    for n, wait in enumerate(waits):
        gap = times[n + 1] - times[n]
        assert wait - 2e-6 * (1 + wait) <= gap <= wait + 2.001 * TICK / SECOND, (n, times, waits)


@pytest.mark.parametrize("name", ["linux", "rfc9293", "bsd"])
@pytest.mark.parametrize("lost", [0, 1, 3])
def test_case_08_the_first_time_out_is_a_second_and_doubles(name, lost):
    left = [lost]

    def lose(segment):
        if segment.flags & (SYN | ACK) == SYN and left[0]:
            left[0] -= 1
            return True
        return False

    hosts = Hosts(rules_of(name), lose=lose)
    hosts.tables[B].listen(B, 80, 0)
    handle = hosts.tables[A].open(A, 4000, B, 80, 0)
    hosts.run(20)
    reference = Reference(rules_of(name))
    assert reference.rto == 1
    check(hosts.times(is_syn), reference.waits(lost))
    assert hosts.tables[A].state(handle) == State.ESTABLISHED


@pytest.mark.parametrize("name", ["linux", "rfc9293", "bsd"])
@pytest.mark.parametrize("kind", ["data", "fin"])
@pytest.mark.parametrize("seed", range(6))
def test_time_outs_after_samples_of_a_changing_round_trip(name, kind, seed):
    """Some round trips of 2 to 800 ms, then a segment is lost five times, is acknowledged, and the next is lost twice."""
    chance, rules = random.Random(seed), rules_of(name)
    delay, left = [0.0], [0]

    def lose(segment):
        if left[0] and str(segment.src) == A and (segment.payload or segment.flags & FIN):
            left[0] -= 1
            return True
        return False

    hosts, reference = Hosts(rules, one_way=lambda: delay[0] / 2, lose=lose), Reference(rules)
    a = hosts.tables[A]
    hosts.tables[B].listen(B, 80, 0)
    delay[0] = chance.uniform(0.002, 0.3)
    handle = a.open(A, 4000, B, 80, 0)
    hosts.run(1)
    reference.sample(2 * round(delay[0] / 2 * SECOND) / SECOND)
    for _ in range(chance.randrange(8)):
        delay[0] = chance.uniform(0.002, 0.8)
        if delay[0] > reference.rto - 0.01:
            delay[0] = reference.rto / 2  # no time-out that nobody lost anything for
        a.send(handle, 10, hosts.now)
        hosts.run(2)
        reference.sample(2 * round(delay[0] / 2 * SECOND) / SECOND)
    hosts.sent.clear()
    left[0] = 5
    if kind == "fin":
        a.close(handle, hosts.now, half=True)
        hosts.run(500)
        check(hosts.times(lambda segment: segment.flags & FIN), reference.waits(5))
        assert a.state(handle) == State.FIN_WAIT_2
        return
    a.send(handle, 10, hosts.now)
    hosts.run(500)
    check(hosts.times(has_data), reference.waits(5))
    # Karn: what came for the sixth transmission is no sample, so the back-off holds for the next segment as well.
    hosts.sent.clear()
    left[0] = 2
    a.send(handle, 10, hosts.now)
    hosts.run(600)
    check(hosts.times(has_data), reference.waits(2))
    hosts.sent.clear()
    a.send(handle, 10, hosts.now)
    hosts.run(2)
    reference.sample(2 * round(delay[0] / 2 * SECOND) / SECOND)
    left[0] = 1
    hosts.sent.clear()
    a.send(handle, 10, hosts.now)
    hosts.run(300)
    check(hosts.times(has_data), reference.waits(1))


@pytest.mark.parametrize("name", ["linux", "rfc9293", "bsd"])
def test_after_a_lost_syn_data_wait_three_seconds(name):
    lost = []

    def lose(segment):
        first = str(segment.src) == A and ((segment.flags & SYN and not lost) or (segment.payload and len(lost) < 3))
        if first:
            lost.append(segment)
        return bool(first)

    hosts = Hosts(rules_of(name), lose=lose)
    hosts.tables[B].listen(B, 80, 0)
    handle = hosts.tables[A].open(A, 4000, B, 80, 0)
    hosts.run(2)
    hosts.tables[A].send(handle, 10, hosts.now)
    hosts.run(30)
    check(hosts.times(is_syn), [1])
    check(hosts.times(has_data), [3, 6])  # RFC 6298 section 5.7


@pytest.mark.parametrize("name", ["linux", "bsd"])
def test_back_off_stops_at_rto_max(name):
    rules = rules_of(name, rto_max="5s", tcp_retries2=8, retries_are_time=False)
    hosts = Hosts(rules, lose=lambda segment: segment.payload > 0)
    hosts.tables[B].listen(B, 80, 0)
    handle = hosts.tables[A].open(A, 4000, B, 80, 0)
    hosts.run(1)
    hosts.tables[A].send(handle, 10, hosts.now)
    hosts.run(100)
    reference = Reference(rules)
    reference.sample(0.1)
    check(hosts.times(has_data), reference.waits(8))
    assert len(hosts.tables[A]) == 0


def test_timestamps_tell_of_a_segment_sent_twice():
    """RFC 6298 section 3: with timestamps an ACK is a sample even then, and the back-off ends with it."""
    left = [2]

    def lose(segment):
        if segment.payload and left[0]:
            left[0] -= 1
            return True
        return False

    rules = rules_of("linux", tcp_timestamps=1)
    hosts = Hosts(rules, lose=lose)
    hosts.tables[B].listen(B, 80, 0)
    handle = hosts.tables[A].open(A, 4000, B, 80, 0)
    hosts.run(1)
    hosts.tables[A].send(handle, 10, hosts.now)
    hosts.run(5)
    reference = Reference(rules)
    reference.sample(0.1)
    check(hosts.times(has_data), reference.waits(2))
    reference.sample(0.1)
    hosts.sent.clear()
    left[0] = 1
    hosts.tables[A].send(handle, 10, hosts.now)
    hosts.run(5)
    check(hosts.times(has_data), reference.waits(1))
