"""`fasttcp explain`: one connection's story, as a ladder and as JSON; what is said when there is no such connection."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fasttcp.observe.explain import Moment, NoSuchConnection, Pause, explain, parse_ends
from fasttcp.observe.track import track
from fasttcp.spec import TRANSITIONS, State

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
FILES = sorted(CAPTURES.glob("*.pcap"))
CLOSE = CAPTURES / "close_by_client.pcap"
ENDS = "198.18.0.1:40000 198.18.0.2:80"


def run(*args, **options):
    return subprocess.run(
        [sys.executable, "-m", "fasttcp", "explain", *map(str, args)], capture_output=True, text=True, timeout=60,
        encoding="utf-8", env=options.pop("env", None), check=False,
    )  # fmt: skip


def ends_of(connection):
    def end(addr, port):
        return f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"

    return f"{end(connection.orig_addr, connection.orig_port)} {end(connection.resp_addr, connection.resp_port)}"


# ---- the story ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["zeek", "linux"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_story_holds_together(path, profile):
    """For every connection of every capture: it is the log's, its states follow from one another, nothing is lost."""
    found = 0
    for connection in track(path, profile=profile):
        stories = [s for s in explain(path, ends_of(connection), profile=profile) if s.connection.uid == connection.uid]
        (story,) = stories
        found += 1
        assert repr(story.connection) == repr(connection)
        states = [State.CLOSED, State.CLOSED]
        packets = 0
        for event in story.happened:
            if isinstance(event, Pause):
                packets += sum(event.segments)
                continue
            assert list(event.before) == states
            for half, step in event.steps:
                row = TRANSITIONS[step.state, step.event]
                assert (step.next, step.source, step.why) == (row.next, row.source, row.why)
                assert step.state == states[half]
                states[half] = step.next
            assert list(event.after) == states
            packets += not any("damaged" in words for words in event.odd)
        assert tuple(states) == (connection.orig_state, connection.resp_state)
        assert packets == connection.orig_packets + connection.resp_packets
    assert found


def test_a_closed_connection_step_by_step():
    (story,) = explain(CLOSE, ENDS)
    moments = [event for event in story.happened if isinstance(event, Moment)]
    assert [moment.flags for moment in moments] == ["SYN", "SYN|ACK", "ACK", "FIN|ACK", "ACK", "FIN|ACK", "ACK"]
    assert [moment.sender for moment in moments] == [0, 1, 0, 0, 1, 1, 0]
    assert [(moment.seq, moment.ack) for moment in moments[:3]] == [(0, None), (0, 1), (1, 1)]
    assert [state.name for state in moments[-1].after] == ["TIME_WAIT", "CLOSED"]
    assert [moment.packet for moment in moments] == [1, 2, 3, 8, 9, 10, 11]
    (pause,) = (event for event in story.happened if isinstance(event, Pause))
    assert (pause.segments, pause.payload) == ((2, 2), (100, 300))
    assert "RFC 9293 §3.10.7.4" in {step.source for moment in moments for _, step in moment.steps}


def odd(name):
    return [words for story in explain(CAPTURES / name, ENDS) for event in story.happened
            if isinstance(event, Moment) for words in event.odd]  # fmt: skip


def test_what_was_odd_is_said():
    assert any("brought nothing new" in words for words in odd("syn_lost.pcap"))
    assert any("window is shut" in words for words in odd("zero_window.pcap"))
    assert any("in the middle" in words for words in odd("mid_stream.pcap"))
    assert any("FIN that this end" in words for words in odd("forged_reset.pcap"))
    assert odd("close_by_client.pcap") == []


def test_two_connections_of_one_4_tuple_are_two_stories_and_a_uid_names_one():
    path = CAPTURES / "time_wait_reopened.pcap"
    first, second = explain(path, ENDS)
    assert first.connection.first_ns < second.connection.first_ns
    (one,) = explain(path, second.connection.uid)
    assert repr(one.connection) == repr(second.connection)
    assert one.happened == second.happened


def test_capture_in_pieces_is_one_story(tmp_path):
    data = CLOSE.read_bytes()
    at = 24
    for _ in range(5):
        at += 16 + int.from_bytes(data[at + 8 : at + 12], "little")
    (tmp_path / "2.pcap").write_bytes(data[:at])
    (tmp_path / "1.pcap").write_bytes(data[:24] + data[at:])
    (whole,), (pieces,) = explain(CLOSE, ENDS), explain(tmp_path, ENDS)
    assert [(type(e), getattr(e, "after", None)) for e in whole.happened] == [
        (type(e), getattr(e, "after", None)) for e in pieces.happened
    ]
    assert {Path(e.file).name for e in pieces.happened if isinstance(e, Moment)} == {"1.pcap", "2.pcap"}


# ---- how it looks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ladder_fits_100_columns(path, capsys):
    from fasttcp.cli.main import main

    (ends, *_) = {ends_of(connection): None for connection in track(path)}
    assert main(["explain", str(path), *ends.split(), "--ascii"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 100


def test_ladder_as_a_user_sees_it():
    done = run(CLOSE, *ENDS.split(), "--ascii")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1] == ["198.18.0.1:40000", "198.18.0.2:80"]
    syn = next(row for row in rows if "SYN" in row)
    assert (syn[0], syn[1], syn[-1]) == ("0.000000", "SYN_SENT", "SYN_RCVD")
    assert syn[-2].endswith("->")
    assert ["TIME_WAIT", "CLOSED"] in rows
    assert "RFC 9293 3.10.7.4" in done.stdout


def test_json_is_one_object_a_connection():
    done = run(CAPTURES / "time_wait_reopened.pcap", *ENDS.split(), "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["conn_state"], second["conn_state"]) == ("SF", "S1")
    kinds = {event["kind"] for event in first["happened"]}
    assert kinds == {"segment", "pause"}
    last = [event for event in first["happened"] if event["kind"] == "segment"][-1]
    assert last["after"] == ["CLOSED", "TIME_WAIT"]
    assert last["steps"][0]["source"] == "RFC 9293 §3.10.7.4"


# ---- what can be wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["198.18.0.1:40000 198.18.0.2:80", "198.18.0.2:80-198.18.0.1:40000", "198.18.0.1:40000 -> 198.18.0.2:80",
     "198.18.0.1:40000>198.18.0.2:80", " 198.18.0.1:40000, 198.18.0.2:80 "],
)  # fmt: skip
def test_a_tuple_can_be_written_in_many_ways(text):
    assert len(explain(CLOSE, text)) == 1


def test_ipv6_stands_in_brackets():
    assert parse_ends("[fd00::1]:40000 [FD00:0::2]:80") == (("fd00::1", 40000), ("fd00::2", 80))
    with pytest.raises(ValueError, match=r"brackets: \[fd00::1\]:40000"):
        parse_ends("fd00::1:40000 [::2]:80")


@pytest.mark.parametrize("text", ["", "198.18.0.1:40000", "a:1 b:2", "1.2.3.4:70000 1.2.3.4:1", "1.2.3.4 1.2.3.5", "C123"])
def test_a_text_that_names_none_is_a_wrong_argument(text):
    done = run(CLOSE, text)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_nothing_found_names_what_comes_near():
    done = run(CLOSE, "198.18.0.1:40001", "198.18.0.2:80")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.endswith(
        "no connection between 198.18.0.1:40001 and 198.18.0.2:80; nearest: 198.18.0.1:40000 198.18.0.2:80\n"
    )
    with pytest.raises(NoSuchConnection, match="none of the 1 connections has the uid"):
        explain(CLOSE, "C" + "0" * 17)


def test_unreadable_captures_are_one_line(tmp_path):
    done = run(tmp_path / "none.pcap", *ENDS.split())
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No such file" in done.stderr
    (tmp_path / "text.pcap").write_text("nothing of the kind, only words and words")
    assert "text, not a pcap" in run(tmp_path / "text.pcap", *ENDS.split()).stderr


def test_a_damaged_capture_is_told_as_far_as_it_goes(tmp_path):
    path = tmp_path / "cut.pcap"
    path.write_bytes(CLOSE.read_bytes()[:-7])
    done = run(path, *ENDS.split())
    assert done.returncode == 0
    assert f"{path}: truncated at byte" in done.stderr
    assert "SYN_SENT" in done.stdout
