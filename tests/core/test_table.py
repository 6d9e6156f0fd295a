"""ConnectionTable in the observer seat: its calls, one at a time and in batches."""

import ctypes
import ipaddress
import subprocess
import sys
from array import array

import numpy as np
import pytest
from table_traffic import ISN_A, ISN_B, MS, TICK, A, B, S, batch_of, clients, closing, feed, observer, opening, send

from fasttcp import (
    LINUX,
    SEGMENT_DTYPE,
    ConnectionTable,
    ProfileError,
    SegmentBatch,
    SegmentError,
    StaleHandle,
    State,
    StateError,
    TableFull,
    Verdict,
)
from fasttcp.load.churn import ChurnStream

NO_ROW = 0xFFFFFFFF


# ---- making one ------------------------------------------------------------------------------------------------------


def test_table_says_what_it_was_made_with():
    table = observer(8, max_capacity=100, profile="bsd", on_full="evict", seed=-7)
    assert (table.capacity, table.max_capacity, table.seat, table.on_full, table.seed) == (
        8,
        100,
        "observer",
        "evict",
        -7,
    )
    assert table.profile.base == "bsd"
    assert (len(table), table.now_ns) == (0, 0)
    assert repr(table) == "<ConnectionTable observer: 0 of 100 connections, profile('bsd')>"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"capacity": 0}, ValueError, "capacity is 0: it must be from 1 to 2147483648"),
        ({"capacity": 2**31 + 1}, ValueError, "capacity is 2147483649"),
        ({"capacity": "many"}, TypeError, "capacity is 'many'"),
        ({"capacity": 1.5}, TypeError, "capacity is 1.5"),
        ({"capacity": True}, TypeError, "capacity is True"),
        ({"max_capacity": 3}, ValueError, "max_capacity is 3: it must be from 4"),
        ({"profile": "windows"}, ProfileError, "unknown profile 'windows'"),
        ({"seat": "both"}, ValueError, "seat is 'both'"),
        ({"on_full": "drop"}, ValueError, "on_full is 'drop'"),
        ({"seed": "x"}, TypeError, "seed is 'x'"),
        ({"seed": 1 << 64}, ValueError, "seed is 18446744073709551616"),
        ({"tick_ns": 0}, ValueError, "tick_ns is 0"),
        ({"trace": -1}, ValueError, "trace is -1"),
        ({"tick_ns": 1}, ProfileError, "use a larger tick_ns"),
    ],
)
def test_argument_out_of_range_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        ConnectionTable(**{"capacity": 4, "seat": "observer", **arguments})


def test_numbers_of_numpy_are_numbers():
    table = observer(np.int32(4), tick_ns=np.int64(MS))
    assert table.capacity == 4
    assert table.advance(np.int64(5 * S)) is True
    assert table.now_ns == 5 * S


def calls(table):
    """Every call and attribute of a table, by name."""
    batch = batch_of(*opening())
    return {
        "apply": lambda: table.apply(batch),
        "receive": lambda: table.receive(batch[0]),
        "advance": lambda: table.advance(0),
        "find": lambda: table.find(*A, *B),
        "handle": lambda: table.handle(0),
        "summary": lambda: table.summary(1 << 32),
        "state": lambda: table.state(1 << 32),
        "explain": lambda: table.explain(1 << 32),
        "len": lambda: len(table),
        "in": lambda: (1 << 32) in table,
        "iter": lambda: list(table),
        "counts": table.counts,
        "tallies": table.tallies,
        "summaries": table.summaries,
        "take_ended": table.take_ended,
        "column": lambda: table.column("flags"),
        "capacity": lambda: table.capacity,
        "max_capacity": lambda: table.max_capacity,
        "now_ns": lambda: table.now_ns,
        "nbytes": lambda: table.nbytes,
        "check_invariants": table.check_invariants,
        "save": lambda: table.save("never written"),
        "__arrow_c_stream__": table.__arrow_c_stream__,
    }


@pytest.mark.parametrize("name", calls(observer()))
def test_table_that_was_never_opened_refuses_every_call(name):
    with pytest.raises(StateError, match="not open"):
        calls(ConnectionTable.__new__(ConnectionTable))[name]()


def test_every_public_name_is_in_the_list_of_calls():
    public = {name for name in vars(ConnectionTable) if not name.startswith("_")}
    attributes = {"profile", "seat", "on_full", "seed", "columns", "load"}  # no engine behind them
    assert public - attributes <= set(calls(observer()))
    assert repr(ConnectionTable.__new__(ConnectionTable)) == "<ConnectionTable, not open>"


def test_opening_twice_is_refused_and_changes_nothing():
    table = observer(4)
    feed(table, *opening())
    with pytest.raises(StateError, match="opened before"):
        table.__init__(100, seat="observer")
    assert (len(table), table.capacity) == (1, 4)


def test_table_can_be_opened_after_a_failed_attempt():
    table = ConnectionTable.__new__(ConnectionTable)
    for bad in ({"seat": "x"}, {"tick_ns": 1}, {"max_capacity": 0}):
        with pytest.raises(ValueError, match=r"."):
            table.__init__(4, **{"seat": "observer", **bad})
        with pytest.raises(StateError):
            len(table)
    table.__init__(4, seat="observer")
    assert len(table) == 0


LITTLE_MEMORY = """
import resource
from fasttcp import ConnectionTable
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
many = {"capacity": 100_000_000}, {"capacity": 4, "max_capacity": 1 << 31}, {"capacity": 4, "trace": 1 << 30}
for arguments in many:
    table = ConnectionTable.__new__(ConnectionTable)
    try:
        table.__init__(**arguments, seat="observer")
    except MemoryError as error:
        print(error)
    table.__init__(4, seat="observer")
    table.check_invariants()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept by Linux")
def test_memory_that_cannot_be_had_is_an_error():
    child = subprocess.run([sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, check=True)
    blocks = "no address space for a block of 6400000000 bytes", "no address space for a block of 137438953472 bytes"
    assert child.stdout.splitlines() == [*blocks, f"no memory for a trace of {1 << 30} steps ({1 << 35} bytes)"]


# ---- segments --------------------------------------------------------------------------------------------------------


def test_whole_life_of_a_connection_with_its_verdicts():
    table = observer()
    verdicts = feed(table, *opening(), *closing())
    assert [Verdict(v["flags"]) for v in verdicts] == [
        Verdict.NEW | Verdict.CHANGED, Verdict.CHANGED, Verdict.CHANGED, Verdict.CHANGED, Verdict.CHANGED,
        Verdict.CHANGED,
    ]  # fmt: skip
    assert [(State(v["state_0"]).name, State(v["state_1"]).name) for v in verdicts] == [
        ("SYN_SENT", "SYN_RCVD"),
        ("ESTABLISHED", "SYN_RCVD"),
        ("ESTABLISHED", "ESTABLISHED"),
        ("FIN_WAIT_1", "CLOSE_WAIT"),
        ("TIME_WAIT", "LAST_ACK"),
        ("TIME_WAIT", "CLOSED"),
    ]
    assert {v["row"] for v in verdicts} == {0}
    table.check_invariants()
    assert table.advance(5 * MS + 60 * S) is True
    assert len(table) == 1, "never early"
    assert table.advance(5 * MS + 60 * S + 20 * MS) is True
    assert len(table) == 0, "at most one tick late"
    table.check_invariants()


def conversation():
    """Several connections, v4 and v6, with all kinds of verdicts, in the order of time."""
    segments = []
    for i, a in enumerate([*clients(5), ("2001:db8::1", 50000)]):
        b = B if i < 5 else ("2001:db8::2", 443)
        segments += opening(i * MS, a, b)
        segments.append(send((i + 9) * MS, b, a, "ACK", ISN_B + 1, ISN_A + 1, payload=100))
        segments.append(send((i + 500) * MS, b, a, "ACK", ISN_B + 1, ISN_A + 1, payload=100))
        segments.append(send((i + 500) * MS, b, a, "ACK", ISN_B + 500, ISN_A + 1, payload=100))
        segments.append(send((i + 501) * MS, b, a, "RST", ISN_B - 10**9))
        segments.append(send((i + 502) * MS, a, b, "SYN|FIN", 5))
        segments += closing((i + 600) * MS, a, b)
    segments.append(send(700 * MS, ("10.7.7.7", 7), B, "RST", 1))
    segments.append(send(100 * MS, A, B, "ACK", 1, 1, payload=5))
    segments.append(send(700 * MS, A, B, "ACK", 6, 1))
    return sorted(segments, key=lambda segment: segment["time_ns"])


@pytest.mark.parametrize("size", [1, 7, 31, 32, 33, 1000])
def test_batches_of_any_size_and_single_calls_agree(size):
    segments = conversation()
    one, many = observer(keep_ended=True, trace=1000), observer(keep_ended=True, trace=1000)
    single = []
    for segment in segments:
        handle, flags = one.receive(batch_of(segment))
        single.append((NO_ROW if handle is None else handle & 0xFFFFFFFF, flags))
        one.check_invariants()
    batched = []
    for at in range(0, len(segments), size):
        batched += [(v["row"], v["flags"]) for v in feed(many, *segments[at : at + size])]
    assert batched == single
    seen = {Verdict(flags) & each for _, flags in single for each in Verdict}
    assert {Verdict.NEW, Verdict.RETRANSMITTED, Verdict.GAP, Verdict.SUSPECT, Verdict.ILLEGAL, Verdict.STRAY} <= seen
    assert bytes(memoryview(one.summaries())) == bytes(memoryview(many.summaries()))
    assert one.tallies() == many.tallies()
    assert one.counts() == many.counts()
    assert [one.explain(handle) for handle in one] == [many.explain(handle) for handle in many]


@pytest.mark.parametrize(("mix", "more"), [
    ("ipv4", {}), ("all", {}), ("all", {"on_full": "evict", "max_capacity": 700}), ("flood", {"profile": "bsd"}),
])  # fmt: skip
def test_the_short_ways_come_to_what_the_general_path_comes_to(mix, more, tmp_path):
    """A table that records its steps takes every segment by the general path and fires every event."""
    short, whole = (
        observer(64, keep_ended=True, trace=trace, **{"max_capacity": 100_000, **more}) for trace in (0, 16)
    )
    stream = ChurnStream(500, mix=mix, seed=3)
    for size in [1, 1, 7, 400, 3000] * 12:
        segments = np.array(np.frombuffer(stream.take(size), SEGMENT_DTYPE))
        # What a stream of churn lacks: SYNs with data, without a window scale or with one that is too large; an ACK that is
        # older than the one before, a SYN+ACK with a FIN.
        segments["payload"][::11] += (segments["flags"][::11] == 2) * np.uint32(5)
        segments["options"][::3] &= 0xFD
        segments["wscale"][::5] = 77
        segments["ack"][::13] -= (segments["flags"][::13] & 0x16 == 0x10) * np.uint32(1)
        segments["flags"][::17] |= segments["flags"][::17] == 0x12
        assert bytes(short.apply(segments)) == bytes(whole.apply(segments))
        assert bytes(short.summaries()) == bytes(whole.summaries())
        assert bytes(short.take_ended()) == bytes(whole.take_ended())
        assert (short.tallies(), short.counts()) == (whole.tallies(), whole.counts())
    for table, name in ((short, "short"), (whole, "whole")):
        table.check_invariants()
        table.save(tmp_path / name)
    assert short.tallies()["ended"] > 500
    kept = [(tmp_path / name).read_bytes() for name in ("short", "whole")]
    kept = [data[data.index(b"rows\0\0\0\0") : data.index(b"addr6\0\0\0")] for data in kept]
    assert len(kept[0]) > 64 * 500
    assert kept[0] == kept[1], "rows, cold records, and where their timers stand"


def test_apply_takes_every_form_of_a_batch():
    batch = batch_of(*opening())
    records = np.asarray(batch)
    expected = feed(observer(), *opening())
    for form in (
        batch,
        records,
        memoryview(batch),
        records.tobytes(),
        bytearray(records.tobytes()),
        records[:3],
        records.view("u1"),
    ):
        assert list(observer().apply(form)) == expected
    assert len(observer().apply(SegmentBatch(4))) == 0
    assert len(observer().apply(b"")) == 0
    assert next(iter(observer().apply(records[1:])))["flags"] == Verdict.NEW | Verdict.CHANGED


def test_receive_takes_every_form_of_a_segment():
    batch = batch_of(opening()[0])
    packed = np.asarray(batch).tobytes()
    for form in (
        batch,
        batch[0],
        np.asarray(batch),
        np.asarray(batch)[0],
        packed,
        memoryview(batch),
        memoryview(packed),
        memoryview(bytearray(80) + packed)[80:],
        memoryview(packed).cast("B", (8, 10)),
    ):
        table = observer()
        handle, flags = table.receive(form)
        assert (table.find(*A, *B), flags) == (handle, Verdict.NEW | Verdict.CHANGED)
    options = batch_of(send(5, A, B, "SYN", 7, mss=1460, wscale=9, sack_permitted=True, tsval=1, tsecr=0))
    one, other = observer(), observer()
    one.receive(options)
    other.receive(options[0])
    assert bytes(memoryview(one.summaries())) == bytes(memoryview(other.summaries()))


def _released(view):
    view.release()
    return view


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([1, 2, 3], "list is no batch of segments"),
        (None, "NoneType is no batch of segments"),
        (b"x" * 79, "79 bytes in items of 1: segments are records of 80 bytes"),
        (np.zeros(80, "u4"), "320 bytes in items of 4"),
        (np.zeros(4, np.dtype(SEGMENT_DTYPE))[::2], "no contiguous buffer of segments"),
        (memoryview(bytes(88))[4:84], "8-byte boundary"),
        (memoryview(bytes(160))[::2], "no contiguous buffer of segments"),
        (memoryview(bytes(320)).cast("I"), "320 bytes in items of 4"),
        (memoryview(array("I", bytes(80))), "80 bytes in items of 4"),
        (_released(memoryview(bytes(80))), "released"),
    ],
)
@pytest.mark.parametrize("call", ["apply", "receive"])
def test_bad_buffer_is_named_and_nothing_happens(call, segments, words):
    table = observer()
    with pytest.raises(SegmentError, match=words):
        getattr(table, call)(segments)
    assert table.tallies()["segments"] == 0
    assert len(table.apply(batch_of(*opening()))) == 3, "the table is free for the next call"


def test_receive_wants_exactly_one():
    with pytest.raises(SegmentError, match="240 bytes: one segment is a record of 80 bytes"):
        observer().receive(batch_of(*opening()))
    with pytest.raises(SegmentError, match="0 bytes"):
        observer().receive(b"")


def test_buffer_is_released_after_each_call():
    batch = batch_of(*opening())
    table = observer()
    table.apply(batch)
    with pytest.raises(SegmentError):
        table.receive(batch)
    assert batch.exports == 0
    batch.reserve(100)


# ---- looking up ------------------------------------------------------------------------------------------------------


def test_find_in_both_directions_and_in_every_form_of_address():
    table = observer()
    feed(table, *opening())
    handle = table.handle(0)
    packed = ipaddress.ip_address(A[0]).packed
    for a in (
        A[0],
        packed,
        bytearray(packed),
        ipaddress.ip_address(A[0]),
        "::ffff:10.0.0.1",
        b"\0" * 10 + b"\xff\xff" + packed,
    ):
        assert table.find(a, A[1], *B) == handle
        assert table.find(*B, a, A[1]) == handle
    assert table.find(A[0], A[1] + 1, *B) is None
    assert table.find(A[0], B[1], B[0], A[1]) is None, "addresses and ports belong together"


def test_find_ipv6():
    table = observer()
    a, b = ("2001:db8::1", 40000), ("2001:db8::2", 80)
    feed(table, *opening(0, a, b), *opening(0, a, ("2001:db8::3", 80)))
    assert table.find(*a, *b) == table.find(*b, *a) == table.handle(0)
    assert table.find("2001:0db8:0:0::0001", a[1], *b) == table.handle(0)
    assert table.find(*a, "2001:db8::3", 80) == table.handle(1)
    assert table.summary(table.handle(0))["orig_addr"] == "2001:db8::1"
    table.check_invariants()


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (("10.0.0", 1, "10.0.0.2", 2), "src: '10.0.0' is not an IPv4 or IPv6 address"),
        (("10.0.0.1", 1, b"123", 2), "dst: an address has 4 or 16 bytes, got 3"),
        (("10.0.0.1", 65536, "10.0.0.2", 2), r"sport: 65536 is outside 0\.\.65535"),
        (("10.0.0.1", 1, "10.0.0.2", "http"), "dport: expected an integer"),
        (("10.0.0.1", 1, "::1", 2), "not of one IP version"),
    ],
)
def test_find_names_a_bad_end(ends, words):
    with pytest.raises(SegmentError, match=words):
        observer().find(*ends)


def test_one_host_talking_to_itself():
    table = observer()
    here = ("127.0.0.1", 5000)
    feed(table, *opening(0, here, ("127.0.0.1", 5001)))
    assert table.find("127.0.0.1", 5001, *here) == table.handle(0)
    feed(table, send(MS, here, here, "SYN", 5))
    assert table.find(*here, *here) == table.handle(1)
    table.check_invariants()


# ---- handles ---------------------------------------------------------------------------------------------------------


def test_handle_of_a_row_that_lives_again_is_stale():
    table = observer(1)
    handles = []
    for life in range(5):
        feed(table, *opening(life * 1000 * S), *closing(life * 1000 * S + 3 * MS))
        handles.append(table.find(*A, *B))
        table.advance(life * 1000 * S + 100 * S)
    assert len(set(handles)) == 5
    assert {handle & 0xFFFFFFFF for handle in handles} == {0}
    feed(table, *opening(9000 * S))
    living = table.handle(0)
    assert list(table) == [living]
    for handle in handles:
        assert handle not in table
        for call in (table.state, table.summary):
            with pytest.raises(StaleHandle, match=f"handle {handle} names no live connection"):
                call(handle)
    assert table.state(living) == (State.ESTABLISHED, State.ESTABLISHED)


@pytest.mark.parametrize("handle", [0, 1, 1 << 32, -1, 1 << 64, 0xFFFFFFFF, (1 << 64) - 1, 2 << 32])
def test_handle_that_was_never_given_out_is_stale(handle):
    table = observer()
    with pytest.raises(StaleHandle):
        table.state(handle)
    assert handle not in table
    feed(table, *opening())
    assert (handle in table) == (handle == 1 << 32)


def test_handles_of_numpy_work_and_other_things_do_not():
    table = observer()
    feed(table, *opening())
    (handle,) = np.asarray(table.summaries())["handle"]
    assert handle in table
    assert table.state(handle) == (State.ESTABLISHED, State.ESTABLISHED)
    assert "x" not in table
    assert None not in table
    with pytest.raises(TypeError, match="handle is 'x'"):
        table.state("x")


def test_handle_of_a_row():
    table = observer()
    feed(table, *opening())
    assert table.handle(np.uint32(0)) == 1 << 32
    for row in (1, 15, 16, NO_ROW):
        with pytest.raises(StaleHandle, match=f"row {row} holds no connection"):
            table.handle(row)
    for row in (-1, 1 << 32):
        with pytest.raises(ValueError, match="row is"):
            table.handle(row)


def test_iteration_leaves_out_what_ends_meanwhile():
    table = observer(64)
    for a in clients(20):
        feed(table, *opening(0, a))
    found = []
    for handle in table:
        found.append(handle)
        if len(found) == 10:
            table.advance(10**6 * S)
    assert len(found) == 10
    assert list(table) == []


# ---- counting --------------------------------------------------------------------------------------------------------


def test_counts_agree_with_a_scan():
    table = observer(256)
    for i, a in enumerate(clients(100)):
        feed(table, *(opening(i * MS, a) + closing((i + 3) * MS, a))[: 1 + i % 6])
    states = np.concatenate([np.asarray(table.column(f"state_{side}")) for side in range(2)])
    living = np.tile(np.asarray(table.column("generation")) % 2 == 1, 2)
    numbers, found = np.unique(states[living], return_counts=True)
    scanned = {State(number): int(count) for number, count in zip(numbers, found, strict=True)}
    assert {state: count for state, count in table.counts().items() if count} == scanned
    assert set(table.counts()) == set(State)
    assert sum(table.counts().values()) == 2 * len(table) == 200


def test_tallies_count_what_happened():
    table = observer(keep_ended=True)
    feed(table, *conversation())
    tallies = table.tallies()
    assert tallies["segments"] == len(conversation())
    assert tallies["connections"] == len(table) == 7
    assert (tallies["partial"], tallies["late"], tallies["ended_lost"]) == (1, 0, 0)
    assert tallies["illegal"] == 6
    assert tallies["stray"] == 1
    table.advance(10**6 * S)
    assert table.tallies()["ended"] == 7


# ---- what is told of a connection ------------------------------------------------------------------------------------


def test_summary_tells_originator_and_responder():
    table = observer()
    # The responder's end is the lower one, so it is side 0.
    a, b = ("10.0.0.9", 50000), ("10.0.0.1", 80)
    feed(table, *opening(5 * S, a, b), send(6 * S, b, a, "ACK", ISN_B + 1, ISN_A + 1, payload=1000))
    (summary,) = table.summaries()
    assert summary == table.summary(table.find(*a, *b))
    assert summary == {
        "handle": 1 << 32, "first_ns": 5 * S, "last_ns": 6 * S, "ended_ns": 0, "orig_addr": "10.0.0.9",
        "resp_addr": "10.0.0.1",
        "orig_packets": 2, "resp_packets": 2, "orig_bytes": 0, "resp_bytes": 1000, "orig_isn": ISN_A, "resp_isn": ISN_B,
        "orig_retransmitted": 0, "resp_retransmitted": 0, "orig_port": 50000, "resp_port": 80,
        "orig_state": State.ESTABLISHED, "resp_state": State.ESTABLISHED, "ended_by": 255, "flags": 0,
    }  # fmt: skip


def test_summaries_are_a_copy_for_numpy():
    table = observer()
    feed(table, *opening(0, ("10.0.0.9", 50000)), *opening(0))
    records = table.summaries()
    array = np.asarray(records)
    assert array.dtype.itemsize == 120
    assert array.dtype.names == records.fields
    assert array["orig_port"].tolist() == [50000, 40000]
    assert array["orig_addr"][0].tobytes() == ipaddress.ip_address("::ffff:10.0.0.9").packed
    assert not array.flags.writeable
    table.advance(10**6 * S)
    assert array["orig_port"].tolist() == [50000, 40000]
    assert len(table.summaries()) == 0


@pytest.mark.parametrize("repeated", [True, False])
def test_counters_carry_beyond_their_low_halves(repeated):
    table = observer()
    feed(table, *opening())
    big = 0x7FFFFFFF
    for turn in range(3):
        seq = ISN_B + 1 if repeated else (ISN_B + 1 + turn * big) % (1 << 32)
        feed(table, send(S + turn, B, A, "ACK", seq, ISN_A + 1, payload=big))
    same = batch_of(*[send(2 * S, A, B, "ACK", ISN_A + 1, ISN_B + 1)] * 1000)
    for _ in range(70):
        table.apply(same)
    (summary,) = table.summaries()
    assert summary["resp_bytes"] == 3 * big > 1 << 32
    assert summary["orig_packets"] == 70_002 > 1 << 16
    table.check_invariants()


@pytest.mark.parametrize("payload", [0x7FFFFFFF, 0x80000000, 0x80000005, 0xFFFFFFFF])
def test_more_bytes_than_any_packet_holds_are_the_same_to_both_ways(payload):
    """A record of steps is kept by the general path alone."""
    segments = opening()
    segments.append(send(3 * MS, A, B, "ACK", ISN_A + 1, ISN_B + 1, payload))
    segments.append(send(4 * MS, B, A, "ACK", ISN_B + 1, ISN_A + 1))
    short, general = observer(), observer(trace=64)
    assert feed(short, *segments) == feed(general, *segments)
    assert bytes(memoryview(short.summaries())) == bytes(memoryview(general.summaries()))


def test_a_free_row_is_nobodys():
    """Its key is all zeros, its link to the next free row looks like a deadline: a segment of zeros must not find it."""
    table = observer(128, tick_ns=10 * S)
    ends = clients(101)
    for a in ends:
        feed(table, *opening(0, a))
    for turn, a in enumerate((ends[100], ends[0])):  # so that row 0 is linked to row 100, further on than the clock
        feed(table, *closing((1 + 90 * turn) * S, a))
        table.advance((1 + 90 * turn + 89) * S)
    assert len(table) == 99
    nobody = ("0.0.0.0", 0)
    (verdict,) = feed(table, send(181 * S, nobody, nobody, "ACK", 0, 0))
    assert verdict["flags"] & Verdict.NEW
    assert len(table) == 100
    table.check_invariants()


def test_ended_connections_are_handed_out_once():
    table = observer(64, keep_ended=True)
    ends = clients(10)
    for i, a in enumerate(ends):
        feed(table, *opening(i * S, a), *closing(i * S + 3 * MS, a))
    assert len(table.take_ended()) == 0
    table.advance(64 * S + 500 * MS)
    first = table.take_ended()
    assert [record["orig_port"] for record in first] == [port for _, port in ends[:5]]
    assert {(State(record["orig_state"]), State(record["resp_state"])) for record in first} == {
        (State.TIME_WAIT, State.CLOSED)
    }, "the last states, before the row was let go"
    assert all(60 * S <= r["ended_ns"] - r["last_ns"] < 60 * S + 2 * TICK for r in first), (
        "when it was due, not when we looked"
    )
    table.advance(10**6 * S)
    assert len(table.take_ended()) == 5
    assert len(table.take_ended()) == 0
    assert len(first) == 5, "what was taken stays"
    with pytest.raises(StateError, match="keep_ended=True"):
        observer().take_ended()


def test_records_are_a_sequence():
    table = observer()
    verdicts = table.apply(batch_of(*opening()))
    assert len(verdicts) == 3
    assert verdicts[-1] == verdicts[2] == list(verdicts)[2]
    assert verdicts[:2] == [verdicts[0], verdicts[1]]
    assert verdicts[::-1][0] == verdicts[2]
    assert repr(verdicts) == "<3 records of row, flags, state_0, state_1>"
    for place in (3, -4):
        with pytest.raises(IndexError, match=f"record {place} of 3"):
            verdicts[place]
    assert memoryview(verdicts).readonly
    with pytest.raises(TypeError, match="not writable"):
        ctypes.c_char.from_buffer(verdicts)
    with pytest.raises(TypeError, match="made by the calls"):
        type(verdicts)()
    empty = type(verdicts).__new__(type(verdicts))
    assert (len(empty), empty.fields, bytes(memoryview(empty))) == (0, (), b"")


# ---- full ------------------------------------------------------------------------------------------------------------


def test_full_table_refuses_and_counts():
    table = observer(2)
    ends = clients(3)
    verdicts = feed(table, *(opening(0, a)[0] for a in ends))
    assert [Verdict(v["flags"]) for v in verdicts] == [*[Verdict.NEW | Verdict.CHANGED] * 2, Verdict.FULL]
    assert (verdicts[2]["row"], verdicts[2]["state_0"]) == (NO_ROW, State.CLOSED)
    with pytest.raises(TableFull, match="all 2 rows are in use"):
        table.receive(batch_of(opening(0, ends[2])[0]))
    assert table.tallies()["full"] == 2
    assert table.receive(batch_of(opening(MS, ends[0])[1]))[1] == Verdict.CHANGED, "what has a row goes on"
    table.advance(200 * S)
    assert table.receive(batch_of(opening(200 * S, ends[2])[0]))[0] is not None
    table.check_invariants()


def test_full_table_evicts_in_the_stated_order():
    table = observer(6, on_full="evict", keep_ended=True)
    kinds = {
        "established": opening, "half_open": lambda t, a: opening(t, a)[:1], "closing": lambda t, a: opening(t,
        a) + closing(t, a)[:1],
        "time_wait": lambda t, a: opening(t, a) + closing(t, a),
    }  # fmt: skip
    ends = dict(
        zip(
            ["closing", "half_open 1", "time_wait 1", "established", "half_open 2", "time_wait 2"],
            clients(6),
            strict=True,
        )
    )
    for i, (kind, a) in enumerate(ends.items()):
        feed(table, *kinds[kind.split()[0]](i * MS, a))
    order = []
    for i in range(6):
        newcomer = opening(S + 10 * i * MS, ("10.9.9.9", 1000 + i))
        (verdict, *_) = feed(table, *newcomer)
        order += [name for r in table.take_ended() for name, a in ends.items() if a == (r["orig_addr"], r["orig_port"])]
        if i == 5:
            assert verdict["flags"] == Verdict.FULL, "an established connection is never sacrificed"
        table.check_invariants()
    assert order == ["time_wait 1", "time_wait 2", "half_open 1", "half_open 2", "closing"]
    assert table.tallies()["evicted"] == 5
    with pytest.raises(TableFull):
        table.receive(batch_of(opening(2 * S, ("10.9.9.9", 5))[0]))


def test_eviction_takes_what_has_expired_first():
    table = observer(4, on_full="evict", keep_ended=True)
    ends = clients(4)
    for a in ends[:2]:
        feed(table, opening(0, a)[0])
    for a in ends[2:]:
        feed(table, *opening(100 * S, a), *closing(100 * S, a))
    table.advance(130 * S, budget=1)
    feed(table, opening(130 * S, ("10.9.9.9", 5))[0])
    assert table.tallies()["evicted"] == 0
    assert len(table) == 3


# ---- explaining ------------------------------------------------------------------------------------------------------


def test_explain_tells_every_step_with_its_source():
    table = observer(trace=100)
    feed(table, *opening(), *closing())
    handle = table.find(*A, *B)
    steps = table.explain(handle)
    assert [(s.time_ns // MS, s.side, s.event.name, s.next.name) for s in steps] == [
        (0, 0, "OPEN_ACTIVE", "SYN_SENT"),
        (0, 1, "OPEN_PASSIVE", "LISTEN"),
        (0, 1, "RCV_SYN", "SYN_RCVD"),
        (1, 0, "RCV_SYN_ACK", "ESTABLISHED"),
        (2, 1, "RCV_ACK_OF_SYN", "ESTABLISHED"),
        (3, 0, "CLOSE", "FIN_WAIT_1"),
        (3, 1, "RCV_FIN", "CLOSE_WAIT"),
        (4, 0, "RCV_ACK_OF_FIN", "FIN_WAIT_2"),
        (4, 1, "CLOSE", "LAST_ACK"),
        (4, 0, "RCV_FIN", "TIME_WAIT"),
        (5, 1, "RCV_ACK_OF_FIN", "CLOSED"),
    ]
    assert all(step.source and step.why for step in steps)
    assert str(steps[0]) == "0 side 0: CLOSED --OPEN_ACTIVE--> SYN_SENT  [RFC 9293 §3.10.1] " + steps[0].why
    assert (steps[3].seq, steps[3].ack, steps[3].flags) == (ISN_B, 0, 0x12)
    table.advance(1000 * S)
    assert [step.event.name for step in table.explain(handle)][-1] == "TIMEOUT_2MSL", "ended ones are told of too"
    feed(table, *opening(1000 * S))
    assert table.explain(table.handle(0))[0].time_ns == 1000 * S, "the next life of the row has its own story"


def test_ring_of_steps_forgets_the_oldest():
    table = observer(64, trace=6)  # rounded up to 8
    ends = clients(3)
    for a in ends:
        feed(table, opening(0, a)[0])  # three steps each
    lengths = [len(table.explain(table.find(*a, *B))) for a in ends]
    assert lengths == [2, 3, 3]
    assert table.explain(12345) == []
    long = observer(trace=4096)
    feed(long, *opening())
    for i in range(300):
        feed(long, send(S + i * S, B, A, "ACK", ISN_B + 1, ISN_A + 1), *(opening(S, a)[0] for a in clients(1)))
    assert len(long.explain(long.find(*A, *B))) == 5


def test_explain_without_a_record_is_refused():
    table = observer()
    with pytest.raises(StateError, match="trace=N"):
        table.explain(1)
    assert len(feed(table, *opening())) == 3, "the table is free for the next call"
    with pytest.raises(TypeError, match="handle is 'x'"):
        observer(trace=1).explain("x")


# ---- reproducible ----------------------------------------------------------------------------------------------------


def test_one_seed_gives_one_run():
    runs = []
    for _ in range(2):
        table = observer(64, seed=42, keep_ended=True, trace=64)
        feed(table, *conversation())
        table.advance(10**6 * S)
        ended = table.take_ended()
        runs.append((bytes(memoryview(ended)), table.tallies(), [table.explain(record["handle"]) for record in ended]))
    assert runs[0] == runs[1]


def test_two_tables_have_two_secrets():
    """The hash of an IPv6 pair stands in the row, so it can be seen."""

    def hashed(**more):
        table = ConnectionTable(4, seat="observer", **more)
        feed(table, *opening(0, ("2001:db8::1", 1), ("2001:db8::2", 2)))
        return int(np.asarray(table.column("addr_0"))[0]), int(np.asarray(table.column("addr_1"))[0])

    assert hashed(seed=5) == hashed(seed=5)
    assert len({hashed(seed=seed) for seed in (5, 6, -5, 2**63)} | {hashed() for _ in range(4)}) == 8


def test_profile_rules_the_timeouts():
    short = LINUX.replace(msl="1s", nf_conntrack_tcp_timeout_syn_sent="3s", nf_conntrack_tcp_timeout_syn_recv="3s")
    table = observer(profile=short)
    feed(table, opening(0)[0])
    table.advance(3 * S - 1)
    assert len(table) == 1
    table.advance(3 * S)
    assert len(table) == 0
    strict = observer(profile=LINUX.replace(nf_conntrack_tcp_loose=False))
    assert feed(strict, send(0, A, B, "ACK", 1, 1))[0]["flags"] == Verdict.STRAY
