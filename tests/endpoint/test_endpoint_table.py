"""The endpoint seat as `ConnectionTable` shows it: arguments, errors, results, and what waits to be sent."""

import ipaddress

import numpy as np
import pytest

from fasttcp import (
    ConnectionTable,
    Event,
    OutcomeFlag,
    PortsExhausted,
    ProfileError,
    Segment,
    SegmentBatch,
    SegmentError,
    StaleHandle,
    State,
    StateError,
    TableFull,
    TupleInUse,
    profile,
)

SECOND = 1_000_000_000
HERE, THERE = "10.0.0.1", "192.0.2.7"
FLAGS = {"S": 0x02, "SA": 0x12, "A": 0x10, "FA": 0x11}


def table(capacity=64, **options):
    return ConnectionTable(capacity, **{"seed": 1, **options})


def reply(segment, flags, **fields):
    """What the other end sends in answer to `segment`."""
    answer = {
        "time_ns": segment.time_ns,
        "src": segment.dst,
        "sport": segment.dport,
        "dst": segment.src,
        "dport": segment.sport,
        "flags": FLAGS[flags],
        "seq": segment.ack,
        "ack": (segment.seq + segment.payload + bool(segment.flags & 3)) % 2**32,
        "window": 65535,
        **fields,
    }
    batch = SegmentBatch(1)
    batch.append(**answer)
    return batch


def established(t, now=0, lport=0):
    handle = t.open(HERE, lport, THERE, 443, now)
    (syn,) = t.take_output()
    back, outcome = t.receive(reply(syn, "SA", seq=7000, mss=1460))
    assert back == handle and outcome.after == State.ESTABLISHED
    t.take_output()
    return handle


def test_a_connection_by_hand():
    t = table()
    handle = t.open(HERE, 0, THERE, 443, 5 * SECOND)
    assert (t.state(handle), handle in t, len(t), list(t)) == (State.SYN_SENT, True, 1, [handle])
    (syn,) = t.take_output()
    assert (syn.src, syn.dst, syn.dport, syn.mss, syn.time_ns) == (HERE, THERE, 443, 1460, 5 * SECOND)
    assert 32768 <= syn.sport <= 60999 and t.output_count == 0
    found, outcome = t.receive(reply(syn, "SA", seq=7000))
    assert found == handle
    assert outcome.events == (Event.RCV_SYN_ACK,) and outcome.flags == OutcomeFlag.ESTABLISHED
    assert (outcome.before, outcome.after, outcome.sent, outcome.end) == (State.SYN_SENT, State.ESTABLISHED, 1, None)
    assert t.find(HERE, syn.sport, THERE, 443) == handle and t.find(THERE, 443, HERE, syn.sport) is None
    assert t.counts()[State.ESTABLISHED] == 1 and sum(t.counts().values()) == 1
    t.take_output()
    assert t.send(handle, 100, 6 * SECOND).sent == 1
    assert t.close(handle, 6 * SECOND).after == State.FIN_WAIT_1
    assert [(s.payload, s.flags & 1) for s in t.take_output()] == [(100, 0), (0, 1)]
    t.check_invariants()


def test_results_can_be_read_in_bulk():
    t = table(trace=1024)
    t.listen(HERE, 80, 0)
    batch = SegmentBatch(4)
    for port in (1, 2, 3):
        batch.append(src=THERE, dst=HERE, sport=port, dport=80, flags=0x02, seq=port)
    batch.append(src=THERE, dst=HERE, sport=1, dport=81, flags=0x02)
    told = t.apply(batch)
    array = np.asarray(told)
    assert array.dtype.itemsize == 32
    assert array["after"].tolist() == [State.SYN_RCVD] * 3 + [State.CLOSED]
    assert array["events"].tolist() == [1 << Event.RCV_SYN] * 3 + [1 << Event.RCV_STRAY]
    assert array["sent"].tolist() == [1, 1, 1, 1] and array["handle"][3] == 0
    assert [t.state(int(handle)) for handle in array["handle"][:3]] == [State.SYN_RCVD] * 3
    assert told[0]["flags"] == OutcomeFlag.NEW
    assert [str(step.event.name) for step in t.explain(int(array["handle"][0]))] == ["OPEN_PASSIVE", "RCV_SYN"]
    assert len(t.take_output(2)) == 2 and t.output_count == 2


def test_columns_of_the_local_half():
    t = table()
    handle = established(t)
    row = handle & 0xFFFFFFFF
    assert np.asarray(t.column("state_0"))[row] == State.ESTABLISHED
    assert np.asarray(t.column("rcv_nxt"))[row] == 7001
    assert np.asarray(t.column("irs"))[row] == 7000 and np.asarray(t.column("port_1"))[row] == 443
    assert np.asarray(t.column("segments_sent"))[row] == 2
    with pytest.raises(KeyError, match="snd_una"):
        t.column("isn_0")
    assert set(t.columns) >= {"snd_una", "snd_nxt", "srtt_us", "timer", "first_ns"}


def test_summaries_and_ends():
    t = table(keep_ended=True)
    handle = established(t)
    t.send(handle, 30, SECOND)
    assert t.summary(handle)["orig_bytes"] == 0  # not acknowledged yet
    (data,) = t.take_output()
    t.receive(reply(data, "A", payload=0))
    found = t.summary(handle)
    assert (found["orig_addr"], found["resp_port"], found["orig_bytes"], found["resp_isn"]) == (HERE, 443, 30, 7000)
    assert (found["orig_packets"], found["resp_packets"], State(found["orig_state"])) == (3, 2, State.ESTABLISHED)
    assert len(t.summaries()) == 1 and not len(t.take_ended())
    assert t.abort(handle, 2 * SECOND).end == "aborted"
    (end,) = t.take_ended()
    assert (end["ended_by"], end["ended_ns"], end["orig_bytes"]) == (Event.ABORT, 2 * SECOND, 30)
    assert t.tallies()["abort"] == 1 and t.tallies()["segments_out"] == 4


def test_time_wait_ends_when_it_was_due_however_late_anyone_looks():
    t = table(keep_ended=True)
    handle = established(t)
    t.close(handle, SECOND)
    (fin,) = t.take_output()
    t.receive(reply(fin, "FA"))
    assert t.state(handle) == State.TIME_WAIT
    assert t.advance(1000 * SECOND) and len(t) == 0
    assert t.take_ended()[0]["ended_ns"] == pytest.approx(61 * SECOND, abs=10_000_000)


def test_an_overdue_time_wait_is_gone_before_advance_comes_round_to_it():
    t = table()
    handle = established(t, lport=4000)
    t.close(handle, SECOND)
    (fin,) = t.take_output()
    t.receive(reply(fin, "FA"))
    t.take_output()
    assert not t.advance(100 * SECOND, 1) or handle not in t
    again = t.open(HERE, 4000, THERE, 443, 200 * SECOND)
    assert handle not in t and t.state(again) == State.SYN_SENT
    t.check_invariants()


def test_when_the_next_timer_is_due():
    t = table()
    assert t.next_timer_ns is None
    t.open(HERE, 0, THERE, 443, 5 * SECOND)
    assert 6 * SECOND <= t.next_timer_ns <= 6 * SECOND + 10_000_000
    t.take_output()
    t.advance(t.next_timer_ns)
    assert t.output_count == 1
    while t.next_timer_ns is not None:
        before = t.next_timer_ns
        t.advance(before)
        assert t.next_timer_ns is None or t.next_timer_ns > before
    assert len(t) == 0 and before >= 131 * SECOND


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_calls_say_why_they_are_refused():
    t = table()
    handle = established(t, lport=4000)
    t.close(handle, 0, half=True)
    with pytest.raises(StateError, match=r"close\(\) in FIN_WAIT_1: connection closing \(RFC 9293 §3.10.4\)"):
        t.close(handle, 0, half=True)
    with pytest.raises(StateError, match=r"send\(\) in FIN_WAIT_1"):
        t.send(handle, 1, 0)
    with pytest.raises(TupleInUse, match="connection already exists"):
        t.open(HERE, 4000, THERE, 443, 0)
    listener = t.listen("::", 80, 0)
    with pytest.raises(TupleInUse):
        t.listen("::", 80, 0)
    with pytest.raises(StateError, match="remote socket unspecified"):
        t.send(listener, 5, 0)
    assert len(t) == 2


def test_limits_have_their_own_errors():
    t = table(2, profile=profile("linux").replace(ip_local_port_range=(5000, 5001)))
    t.open(HERE, 0, THERE, 443, 0)
    t.open(HERE, 0, THERE, 443, 0)
    with pytest.raises(PortsExhausted, match=r"from 5000 to 5001 of 10.0.0.1 .* towards 192.0.2.7:443"):
        t.open(HERE, 0, THERE, 443, 0)
    with pytest.raises(TableFull, match="all 2 rows"):
        t.open(HERE, 0, THERE, 444, 0)
    with pytest.raises(TableFull):
        t.listen(HERE, 80, 0)
    assert len(t) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((HERE, 0, "::1", 443, 0), "IP version"),
        ((HERE, 0, THERE, 0, 0), "rport"),
        ((HERE, 70000, THERE, 1, 0), "lport"),
        (("nonsense", 0, THERE, 1, 0), "local"),
        ((HERE, 0, "224.0.0.1", 1, 0), "remote"),
        (("0.0.0.0", 0, THERE, 1, 0), "local"),
    ],
)
def test_addresses_and_ports_that_cannot_be(arguments, error):
    t = table()
    with pytest.raises(SegmentError, match=error):
        t.open(*arguments)
    assert len(t) == 0


def test_other_bad_arguments():
    t = table()
    handle = established(t)
    for call in (lambda: t.send(handle, -1, 0), lambda: t.send(handle, 1 << 31, 0), lambda: t.read(handle, 1, 0)):
        with pytest.raises(ValueError, match="nbytes"):
            call()
    with pytest.raises(TypeError, match="now_ns"):
        t.send(handle, 1, 1.5)
    with pytest.raises(SegmentError, match="port"):
        t.listen(HERE, 0, 0)
    with pytest.raises(SegmentError, match="nobody can listen"):
        t.listen("224.0.0.1", 80, 0)
    with pytest.raises(ValueError, match="output_limit"):
        table(output_limit=0)
    with pytest.raises(ProfileError, match="larger tick_ns"):
        table(tick_ns=1)


def test_a_handle_that_is_over():
    t = table()
    handle = established(t)
    t.abort(handle, 0)
    t.take_output()
    for call in (
        lambda: t.send(handle, 1, 0),
        lambda: t.close(handle, 0),
        lambda: t.abort(handle, 0),
        lambda: t.state(handle),
        lambda: t.keepalive(handle, True, 0),
        lambda: t.accept(handle),
        lambda: t.read(handle, 0, 0),
    ):
        with pytest.raises(StaleHandle):
            call()
    other = established(t)
    assert other & 0xFFFFFFFF == handle & 0xFFFFFFFF and handle not in t


def test_the_calls_belong_to_the_endpoint_seat():
    observer = ConnectionTable(4, seat="observer")
    for call in (
        lambda: observer.open(HERE, 0, THERE, 1, 0),
        lambda: observer.listen(HERE, 1, 0),
        observer.take_output,
    ):
        with pytest.raises(StateError, match="observer seat"):
            call()


# ---- options ---------------------------------------------------------------------------------------------------------


def test_reading_and_accepting_are_the_applications_where_it_wants():
    t = table(read_all=False, accept_all=False)
    listener = t.listen(HERE, 80, 0, backlog=3)
    batch = SegmentBatch(1)
    batch.append(src=THERE, dst=HERE, sport=5, dport=80, flags=0x02, seq=100)
    child, outcome = t.receive(batch)
    assert outcome.flags == OutcomeFlag.NEW and t.accept(listener) is None
    (answer,) = t.take_output()
    _, outcome = t.receive(reply(answer, "A", payload=500))
    assert outcome.flags == OutcomeFlag.ESTABLISHED | OutcomeFlag.ACCEPTED and outcome.delivered == 500
    assert (t.accept(listener), t.accept(listener)) == (child, None)
    assert [s.window for s in t.take_output()] == [65035]
    t.read(child, 500, 0)
    assert np.asarray(t.column("rcv_unread"))[child & 0xFFFFFFFF] == 0
    assert t.close(child, 0).after == State.FIN_WAIT_1


def test_addresses_in_every_form():
    t = table()
    for local, remote in (
        (ipaddress.ip_address(HERE), bytes([192, 0, 2, 7])),
        ("2001:db8::1", ipaddress.ip_address("2001:db8::2")),
    ):
        handle = t.open(local, 4000, remote, 80, 0)
        assert t.find(local, 4000, remote, 80) == handle
    listener = t.listen("0.0.0.0", 81, 0)
    assert t.find("0.0.0.0", 81, "0.0.0.0", 0) == listener
    text = [(s.src, s.dst) for s in t.take_output()]
    assert text == [(HERE, THERE), ("2001:db8::1", "2001:db8::2")]


def test_segments_as_tuples():
    t = table()
    handle = t.open(HERE, 0, THERE, 443, 0)
    (syn,) = t.take_output()
    segment = syn._replace(
        src=syn.dst, sport=syn.dport, dst=syn.src, dport=syn.sport, flags=0x14, ack=syn.seq + 1 & 0xFFFFFFFF, seq=0
    )
    assert isinstance(segment, Segment)
    _, outcome = t.receive(segment)
    assert (outcome.handle, outcome.end) == (handle, "refused")


def test_a_full_output_loses_and_counts():
    t = table(output_limit=1)
    t.open(HERE, 0, THERE, 443, 0)
    t.open(HERE, 0, THERE, 443, 0)
    assert (t.output_count, t.tallies()["output_full"]) == (1, 1)


def test_equal_seeds_are_equal_runs():
    def run(seed):
        t = table(seed=seed)
        for _ in range(5):
            t.open(HERE, 0, THERE, 443, 0)
        return [(s.sport, s.seq) for s in t.take_output()]

    assert run(5) == run(5) != run(6)
    assert run(None) != run(None)


def test_memory_of_a_connection_is_bounded():
    t = ConnectionTable(100_000, seed=1)
    assert t.nbytes / 100_000 < 64 + 128 + 20


def test_a_saved_endpoint_goes_on_as_if_nothing_had_happened(tmp_path):
    t = table(keep_ended=True, trace=256, read_all=False)
    listener = t.listen(HERE, 80, 0, backlog=5)
    waiting = established(t, lport=4000)
    closing = established(t, lport=4001)
    t.close(closing, SECOND)
    batch = SegmentBatch(1)
    batch.append(src=THERE, dst=HERE, sport=5, dport=80, flags=0x02, seq=100, time_ns=SECOND)
    child, _ = t.receive(batch)
    t.open("2001:db8::1", 0, "2001:db8::2", 80, SECOND)
    t.save(tmp_path / "table")
    again = ConnectionTable.load(tmp_path / "table")
    again.check_invariants()
    assert (again.seat, again.counts(), again.tallies(), list(again)) == (t.seat, t.counts(), t.tallies(), list(t))
    assert {listener, waiting, closing, child} <= set(again)
    for each in (t, again):
        each.send(waiting, 10, 2 * SECOND)
        each.open(HERE, 0, THERE, 443, 2 * SECOND)
        each.advance(30 * SECOND)
    sent = [sorted(each.take_output(), key=repr) for each in (t, again)]  # timers that are due in one tick fire in any order
    assert sent[0] == sent[1] and len(sent[0]) == 10
    for each in (t, again):
        for seconds in range(40, 4000, 20):
            each.advance(seconds * SECOND)
    assert again.counts() == t.counts() and len(t) == 1         # the listener
    assert [end["ended_by"] for end in again.take_ended()] == [end["ended_by"] for end in t.take_ended()]
