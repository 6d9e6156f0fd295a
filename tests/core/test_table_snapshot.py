"""save() and load(): the same table again, and no trust in what a file claims."""

import json
import os
import random
import struct
import threading
import time
import zlib
from contextlib import suppress

import numpy as np
import pytest
from table_traffic import ISN_A, ISN_B, MS, A, B, S, batch_of, clients, closing, feed, observer, opening, send

from fasttcp import LINUX, ConnectionTable, Event, InvariantError, SnapshotError, StaleHandle, StateError


def busy(**more):
    """A table with everything in it: v4 and v6, free rows, timers far and near, steps, ended ones, a backlog."""
    table = observer(8, **{"max_capacity": 200, "keep_ended": True, "trace": 64, "on_full": "evict", "seed": 7, **more})
    feed(table, *(s for a in clients(30) for s in opening(0, a)))
    feed(table, *closing(S, clients(30)[3]), *opening(S, ("2001:db8::1", 5), ("2001:db8::2", 80)))
    feed(table, *(opening(2 * S + i * MS, a)[0] for i, a in enumerate(clients(20, "10.2"))))
    feed(table, *(s for a in clients(30)[7:15] for s in closing(3 * S, a)))
    table.take_ended()
    table.advance(70 * S, budget=7)
    feed(table, *(opening(70 * S, a)[0] for a in clients(3, "10.3")))
    feed(table, *(opening(90 * S + i * MS, a)[0] for i, a in enumerate(reversed(clients(5, "10.4")))))
    return table


def told(table):
    """All that can be seen of a table."""
    return {
        "summaries": bytes(memoryview(table.summaries())), "handles": list(table), "counts": table.counts(),
        "tallies": table.tallies(),
        "sizes": (len(table), table.capacity, table.max_capacity, table.now_ns),
        "made": (table.profile, table.seat, table.on_full, table.seed),
        "steps": [table.explain(handle) for handle in table],
        "columns": {name: np.array(table.column(name)).tolist() for name in table.columns},
    }  # fmt: skip


def through_a_file(table, path):
    table.save(path)
    return ConnectionTable.load(path)


def test_table_comes_back_as_it_was(tmp_path):
    table = busy()
    again = through_a_file(table, tmp_path / "table")
    assert told(again) == told(table)
    assert bytes(memoryview(again.take_ended())) == bytes(memoryview(table.take_ended())) != b""
    again.check_invariants()


def test_both_go_on_alike(tmp_path):
    """What happens later depends on nothing that was not saved: timers, free rows, order of eviction, secret."""
    table = busy()
    again = through_a_file(table, tmp_path / "table")
    for each in (table, again):
        for i in range(40):
            feed(each, *(opening(100 * S + i * MS, a)[0] for a in clients(10, f"10.{20 + i}")))
            each.check_invariants()
        feed(each, *opening(101 * S, ("2001:db8::7", 5), ("2001:db8::2", 80)))
        each.advance(140 * S)
    assert told(again) == told(table)
    ended = [
        [(r["orig_addr"], r["orig_port"], r["ended_ns"], r["ended_by"]) for r in each.take_ended()]
        for each in (table, again)
    ]
    assert sorted(ended[0]) == sorted(ended[1])
    evicted = [[r for r in each if r[3] == Event.EVICTED] for each in ended]
    assert evicted[0] == evicted[1] != []
    for each in (table, again):
        each.advance(10**7 * S)
        assert len(each) == 0


def test_handles_hold_and_stale_ones_stay_stale(tmp_path):
    table = observer(4)
    feed(table, *opening(), *closing())
    old = table.find(*A, *B)
    table.advance(100 * S)
    feed(table, *opening(100 * S))
    again = through_a_file(table, tmp_path / "table")
    assert again.find(*A, *B) == table.find(*A, *B) in again
    with pytest.raises(StaleHandle):
        again.state(old)


@pytest.mark.parametrize(
    "more", [{}, {"seed": None}, {"on_full": "raise"}, {"trace": 0, "keep_ended": False}, {"tick_ns": S}]
)
def test_every_kind_of_table(tmp_path, more):
    table = observer(20, **more)
    assert told_without_steps(through_a_file(table, tmp_path / "empty")) == told_without_steps(table)
    feed(table, *opening(), *opening(0, ("2001:db8::1", 5), ("2001:db8::2", 80)))
    again = through_a_file(table, tmp_path / "table")
    assert told_without_steps(again) == told_without_steps(table)
    again.check_invariants()


def told_without_steps(table):
    return {key: value for key, value in told_or_none(table).items() if key != "steps"}


def told_or_none(table):
    try:
        return told(table)
    except StateError:
        table_ = {"summaries": bytes(memoryview(table.summaries())), "handles": list(table), "counts": table.counts()}
        return table_ | {
            "tallies": table.tallies(),
            "columns": {n: np.array(table.column(n)).tolist() for n in table.columns},
        }


def test_profile_of_ones_own_and_a_subclass(tmp_path):
    class Mine(ConnectionTable):
        pass

    table = Mine(4, seat="observer", profile=LINUX.replace(msl="3s", nf_conntrack_tcp_timeout_close="1s"))
    table.save(tmp_path / "table")
    again = Mine.load(tmp_path / "table")
    assert type(again) is Mine
    assert again.profile == table.profile
    feed(again, *opening(), *closing())
    again.advance(6 * S + 20 * MS)
    assert len(again) == 0


def test_saving_replaces_the_file_at_once_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "table"
    path.write_text("precious")
    table = observer(4)
    table.save(path)
    assert os.listdir(tmp_path) == ["table"]
    assert (path.stat().st_mode & 0o77) == 0 or os.name == "nt", "the secret is in it"
    ConnectionTable.load(str(path)).save(str(path))
    for bad, error in ((tmp_path / "no" / "folder", FileNotFoundError), (tmp_path, OSError)):
        with pytest.raises(error):
            table.save(bad)
    assert os.listdir(tmp_path) == ["table"]
    with pytest.raises(TypeError):
        table.save(7.5)
    with pytest.raises(FileNotFoundError):
        ConnectionTable.load(tmp_path / "missing")
    with pytest.raises(StateError):
        ConnectionTable.__new__(ConnectionTable).save(path)
    feed(table, *opening())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_only_a_file_is_replaced_and_a_link_stays_one(tmp_path):
    table = observer(4)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is a device or a pipe"):
        table.save(pipe)
    assert pipe.is_fifo()
    kept, link = tmp_path / "kept", tmp_path / "link"
    kept.write_text("old")
    link.symlink_to(kept)
    table.save(link)
    assert link.is_symlink()
    assert len(ConnectionTable.load(kept)) == 0


def test_failed_saving_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table"
    table = observer(4)
    table.save(path)
    old = path.read_bytes()
    feed(table, *opening())
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        table.save(path)
    assert (os.listdir(tmp_path), path.read_bytes()) == (["table"], old)
    assert len(feed(table, *closing())) == 3, "the table is free for the next call"


def test_others_wait_while_a_table_is_saved(tmp_path):
    """The file holds one moment, though batches come from another thread."""
    table = observer(20_000)
    ends = clients(3000)
    array = np.array(np.asarray(batch_of(*(s for a in ends for s in opening(0, a)))))
    stop = threading.Event()

    def feeder():
        while not stop.is_set():
            table.apply(array)
            array["time_ns"] += 200 * S

    thread = threading.Thread(target=feeder)
    thread.start()
    try:
        for i in range(10):
            time.sleep(0.01)
            again = through_a_file(table, tmp_path / str(i))
            again.check_invariants()
            assert len(again) in (0, 3000)
    finally:
        stop.set()
        thread.join()


# ---- files that are no tables ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "table"
    busy().save(path)
    return path.read_bytes()


def load(data, path):
    path.write_bytes(data)
    return ConnectionTable.load(path)


def refused(data, path, words=None):
    with pytest.raises(SnapshotError, match=words) as error:
        load(data, path)
    assert error.value.file == str(path)
    assert 0 <= error.value.offset <= len(data)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file ends within the head"),
        (b"\x89FTCP\r\n\x1a", "the file ends within the head"),
        (b"x" * 100, "this is no saved table"),
        (b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + b"\0" * 80, "this is no saved table"),
        (
            b"\x89FTCP\r\n\x1a" + struct.pack("<III", 2, 2, 0) + b"{}",
            "form 2 of a saved table, this fasttcp reads form 1",
        ),
        (b"\x89FTCP\r\n\x1a" + struct.pack("<III", 1, 2**32 - 1, 0) + b"{}", "a head of 4294967295 bytes cannot be"),
        (b"\x89FTCP\r\n\x1a" + struct.pack("<III", 1, 2, 0) + b"{}", "its checksum is wrong"),
        (b"\x89FTCP\r\n\x1a" + struct.pack("<III", 1, 1, zlib.crc32(b"{")) + b"{", "no JSON object"),
        (b"\x89FTCP\r\n\x1a" + struct.pack("<III", 1, 1, zlib.crc32(b"7")) + b"7", "no JSON object"),
        (b"\x89FTCP\r\n\x1a" + struct.pack("<III", 1, 2, zlib.crc32(b"{}")) + b"{}", "no table can be made of this"),
    ],
)
def test_file_that_is_no_table_is_refused(tmp_path, data, words):
    refused(data, tmp_path / "bad", words)


def test_file_cut_short_anywhere_is_refused(saved, tmp_path):
    for length in sorted({*range(100), *range(100, len(saved), 97), *range(len(saved) - 40, len(saved))}):
        refused(saved[:length], tmp_path / "cut")
    refused(saved + b"x", tmp_path / "long", "something follows")
    assert len(load(saved, tmp_path / "whole")) > 0


def test_damage_of_any_byte_is_found(saved, tmp_path):
    random_ = random.Random(1)
    places = {*range(60), *range(len(saved) - 60, len(saved)), *(random_.randrange(len(saved)) for _ in range(300))}
    for place in places:
        damaged = bytearray(saved)
        damaged[place] ^= 1 << random_.randrange(8)
        refused(bytes(damaged), tmp_path / "damaged")


def parts(data):
    """The head as a dict, and {section: bytes}."""
    (length,) = struct.unpack_from("<I", data, 12)
    head = json.loads(data[20 : 20 + length])
    at, sections = 20 + length, {}
    while at < len(data):
        name, length = struct.unpack_from("<8sQ", data, at)
        sections[name.rstrip(b"\0")] = data[at + 16 : at + 16 + length]
        at += 20 + length
    return head, sections


def joined(head, sections):
    """The bytes of a file whose checksums are right, whatever stands in it."""
    text = json.dumps(head).encode()
    data = b"\x89FTCP\r\n\x1a" + struct.pack("<III", 1, len(text), zlib.crc32(text)) + text
    for name, section in sections.items():
        section = struct.pack("<8sQ", name, len(section)) + section
        data += section + struct.pack("<I", zlib.crc32(section))
    return data


def test_parts_can_be_joined_again(saved, tmp_path):
    assert told(load(joined(*parts(saved)), tmp_path / "a")) == told(load(saved, tmp_path / "b"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("byteorder", "middle", "byteorder is 'middle' there"),
        ("row", 72, "row is 72 there and 64 here"),
        ("cold", 48, "cold is 48 there and 40 here"),
        ("secret", "00", "a secret of 1 bytes"),
        ("secret", "xx" * 32, "non-hexadecimal"),
        ("seat", "tap", "seat is 'tap'"),
        ("profile", {"base": "linux", "flux_capacitor": 1}, "unknown parameter 'flux_capacitor'"),
        ("profile", {"base": "plan9"}, "unknown profile 'plan9'"),
        ("capacity", -1, "capacity is -1"),
        ("capacity", 1, "high is"),
        ("high", 10**6, "high is 1000000"),
        ("high", 3, "section 'rows' has"),
        ("free", 5000, "the list of free rows breaks"),
        ("now_ns", -1, "a clock at -1 ns"),
        ("epoch_ns", 2**63, "epoch_ns is"),
        ("started", False, "the clock was never seen"),
        ("written", 3, "section 'steps' has"),
        ("trace", 2**40, "trace is"),
        ("ended", 1, "section 'ended' has"),
        ("keep_ended", False, "ended is"),
        ("on_full", "raise", "cannot be evicted"),
        ("tallies", {}, "no table can be made of this"),
        ("tallies", 5, "no table can be made of this"),
    ],
)
def test_head_that_lies_is_refused(saved, tmp_path, name, value, words):
    head, sections = parts(saved)
    refused(joined(head | {name: value}, sections), tmp_path / "lie", words)
    del head[name]
    refused(joined(head, sections), tmp_path / "lie", "no table can be made of this")


def test_section_out_of_place_is_refused(saved, tmp_path):
    head, sections = parts(saved)
    turned = dict(reversed(sections.items()))
    refused(joined(head, turned), tmp_path / "bad", "section 'rows' was expected")
    for name in sections:
        missing = {key: value for key, value in sections.items() if key != name}
        refused(joined(head, missing), tmp_path / "bad", "expected|ends within")
        refused(joined(head, sections | {name: sections[name] + b"\0" * 7}), tmp_path / "bad", "has|follows")


def test_forged_rows_are_refused_or_make_a_sound_table(saved, tmp_path):
    """Every checksum is right and a byte of the data is not: an error, or a table that holds together; never a
    crash."""
    random_ = random.Random(2)
    head, sections = parts(saved)
    outcomes = [0, 0]
    for _ in range(600):
        name = random_.choice([b"rows", b"rows", b"cold", b"addr6", b"order", b"steps", b"ended"])
        data = bytearray(sections[name])
        for _ in range(random_.choice([1, 1, 3])):
            data[random_.randrange(len(data))] = random_.choice([0, 1, 0x7F, 0xFF, random_.randrange(256)])
        try:
            table = load(joined(head, sections | {name: bytes(data)}), tmp_path / "forged")
        except SnapshotError:
            outcomes[0] += 1
            continue
        outcomes[1] += 1
        table.check_invariants()
        for handle in table:
            table.summary(handle), table.explain(handle)
        list(table.take_ended())
        feed(table, *(opening(200 * S, a)[0] for a in clients(20)), send(201 * S, A, B, "ACK", ISN_A, ISN_B))
        table.advance(10**9 * S)
        assert len(table) == 0
        with suppress(InvariantError):  # forged states lead to events that cannot be, never to a broken structure
            table.check_invariants()
    assert min(outcomes) > 50
