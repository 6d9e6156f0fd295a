"""`fasttcp top`: what it counts, how it draws it, and a whole run on a terminal of its own."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kernel.netns import Namespace, why_not

from fasttcp.core.segments import SegmentBatch
from fasttcp.observe.glance import Glance, Talker, glances_of_host, glances_of_replay, glances_of_track
from fasttcp.observe.talkers import Talkers
from fasttcp.observe.track import track
from fasttcp.observe.tracker import Tracker
from fasttcp.profiles import profile
from fasttcp.spec import State

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
COMMAND = [sys.executable, "-m", "fasttcp", "top"]
SECOND = 10**9


# ---- the busiest -------------------------------------------------------------------------------------------------


def test_the_busiest_are_those_that_a_dictionary_finds():
    """Random traffic over hundreds of connections, and the top ten after each round, against a count by hand."""
    chance = random.Random(3)
    tracker = Tracker(profile("linux"), max_connections=1000, seed=1)
    talkers = Talkers(tracker)
    numbers, total = {}, {}
    now = 10**18
    for _ in range(12):
        recent = {}
        for _ in range(300):
            port, payload = chance.randrange(1, 400), chance.choice((0, 1, 50, 1000, 60000))
            now += 1000
            batch = SegmentBatch(1)
            batch.append(src="10.0.0.1", sport=port, dst="10.0.0.2", dport=80, flags="ACK", seq=numbers.get(port, 1), ack=1,
                         payload=payload, time_ns=now)  # fmt: skip
            tracker.apply(batch)
            numbers[port] = numbers.get(port, 1) + payload
            recent[port] = recent.get(port, 0) + payload
            total[port] = total.get(port, 0) + payload
        found = talkers.look(10)
        expected = sorted((n for n in recent.values() if n), reverse=True)[:10]
        assert [one["recent"] for one in found] == expected
        for one in found:
            port = next(p for p in (one["orig_port"], one["resp_port"]) if p != 80 or one["orig_port"] == 80)
            assert one["recent"] == recent[port]
            assert one["bytes"] == total[port]
    assert talkers.look(10) == []
    assert talkers.look(0) == []


def test_a_new_connection_in_an_old_row_is_counted_from_its_own_beginning():
    tracker = Tracker(profile("linux"), max_connections=1, seed=1)
    talkers = Talkers(tracker)
    for i, payload in enumerate((5000, 70)):
        batch = SegmentBatch(1)
        batch.append(src="10.0.0.1", sport=1000 + i, dst="10.0.0.2", dport=80, flags="SYN", seq=1, payload=payload,
                     time_ns=10**18 + i)  # fmt: skip
        tracker.apply(batch)
        (one,) = talkers.look()
        assert (one["orig_port"], one["recent"]) == (1000 + i, payload)


# ---- glances -----------------------------------------------------------------------------------------------------


def test_a_replay_ends_where_the_capture_does():
    glances = list(glances_of_replay(track(CAPTURES / "close_by_client.pcap", profile="linux"), "x", 0.05, speed=0))
    last = glances[-1]
    assert last.note == "the capture has ended"
    assert {state.name: n for state, n in last.states.items() if n} == {"TIME_WAIT": 1, "CLOSED": 1}
    assert last.counts["segments"][0] == 11
    assert last.connections == 1


def test_a_replay_keeps_its_pace():
    """0.35 s of capture at half speed take 0.7 s, and at no moment is more shown than is due."""
    path = CAPTURES / "close_by_client.pcap"
    times = [segment.time_ns for segment in _segments(path)]
    began = time.monotonic()
    seen = []
    for glance in glances_of_replay(track(path, profile="linux"), "x", 0.1, speed=0.5):
        played = (time.monotonic() - began) * SECOND * 0.5
        shown = glance.counts["segments"][0]
        assert shown <= sum(when - times[0] <= played for when in times)
        seen.append(shown)
    assert seen == sorted(seen)
    assert seen[-1] == 11
    assert len(set(seen)) > 2
    assert time.monotonic() - began >= (times[-1] - times[0]) / SECOND / 0.5


def _segments(path):
    from fasttcp.packets.reader import CaptureReader

    with CaptureReader(path) as reader:
        return list(reader)


def test_rates_are_in_the_time_of_the_source():
    data = (CAPTURES / "data_both_ways.pcap").read_bytes()
    glances = list(glances_of_track(track(data, profile="linux"), "x", 0.05))
    first, second = glances[0], glances[-1]
    assert all(rate == 0 for _, rate in first.counts.values()) or first.counts["segments"][1] > 0
    assert second.counts["segments"][0] == 31


def test_sockets_of_a_host():
    if reason := why_not(tap=False):
        pytest.skip(reason)
    with Namespace() as host:
        host.link_up("lo")
        with host.socket() as listener:
            listener.bind(("127.0.0.1", 8080))
            listener.listen()
            kept = []
            for i in range(5):
                caller = host.socket()
                caller.connect(("127.0.0.1", 8080))
                answer, _ = listener.accept()
                kept += [caller, answer]
                if i < 2:
                    caller.close()
                    answer.close()
            time.sleep(0.05)
            glances = glances_of_host(0.05)
            first, second = host.run(lambda: (next(glances), next(glances)))
            for one in kept:
                one.close()
    states = {state.name: n for state, n in second.states.items() if n}
    assert states == {"LISTEN": 1, "ESTABLISHED": 6, "TIME_WAIT": 2}
    assert (second.connections, second.talkers_are) == (8, "hosts")
    (talker,) = second.talkers
    assert (talker.name, talker.recent, talker.total) == ("127.0.0.1", 8, 2)
    assert first.counts.keys() == second.counts.keys() >= {"opened", "retransmitted"}


# ---- drawing -----------------------------------------------------------------------------------------------------


def test_a_view_has_every_number(tmp_path):
    console = pytest.importorskip("rich.console", reason="rich is not installed: the extra fasttcp[top]")
    from fasttcp.cli.top import render

    states = {state: 1000 * i + i for i, state in enumerate(State)}
    glance = Glance(
        "eth0", 1_700_000_000 * SECOND, states, 55_000, {"opened": (1_234_567, 890.5), "ended": (7, 0.0)},
        [Talker("[2001:db8::1]:40000 > [2001:db8::2]:443", "ESTABLISHED ESTABLISHED", 123456.7, 9_876_543_210)],
    )  # fmt: skip
    recorder = console.Console(record=True, width=100, file=(tmp_path / "x").open("w", encoding="utf-8"))
    recorder.print(render(glance))
    text = recorder.export_text()
    recorder.file.close()
    assert max(map(len, text.splitlines())) <= 100
    for expected in (
        "eth0", "2023-11-14 22:13:20 UTC", "55,000 connections", "1,234,567", "890.5", "123,457", "9,876,543,210",
        "[2001:db8::1]:40000 > [2001:db8::2]:443", *(state.name for state in State), "10,010", "█" * 24,
    ):  # fmt: skip
        assert expected in text
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert rows["CLOSED"].count("█") == 0
    assert rows["TIME_WAIT"].count("█") == 24
    assert rows["FIN_WAIT_1"].count("█") == 12


@pytest.mark.parametrize(("encoding", "block"), [("utf-8", "█"), ("ascii", "#")])
def test_a_narrow_view_has_short_bars_and_no_line_is_wrapped(encoding, block):
    pytest.importorskip("rich", reason="rich is not installed: the extra fasttcp[top]")
    done = subprocess.run(
        [*COMMAND, CAPTURES / "close_by_client.pcap", "--speed", "0"], capture_output=True, timeout=60, check=False,
        encoding=encoding, env={**os.environ, "COLUMNS": "40", "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[1].rstrip() == "the capture has ended"
    (bar,) = (line for line in lines if line.startswith("TIME_WAIT"))
    assert bar.count(block) == 40 - bar.index(block) == len(bar.split()[-1])


def test_a_reader_that_has_enough_is_no_failure():
    pytest.importorskip("rich", reason="rich is not installed: the extra fasttcp[top]")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, CAPTURES / "close_by_client.pcap", "--speed", "0"], stdout=write, stderr=subprocess.PIPE, timeout=60,
        check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_a_terminal_views_are_printed():
    pytest.importorskip("rich", reason="rich is not installed: the extra fasttcp[top]")
    done = subprocess.run(
        [*COMMAND, CAPTURES / "close_by_client.pcap", "--speed", "0"], capture_output=True, timeout=60, check=False,
        encoding="utf-8",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "198.18.0.1:40000 > 198.18.0.2:80" in done.stdout
    assert "the capture has ended" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="a pty")
def test_on_a_terminal_the_screen_comes_back_and_the_last_view_stays():
    pytest.importorskip("rich", reason="rich is not installed: the extra fasttcp[top]")
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, CAPTURES / "data_both_ways.pcap", "--speed", "0.1", "--every", "0.2"], stdin=slave, stdout=slave,
        stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
    )  # fmt: skip
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + 30
    interrupted = False
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 0.2)
        if ready:
            try:
                piece = os.read(master, 1 << 16)
            except OSError:  # Linux's way to say that nobody has the other end open
                break
            if not piece:
                break
            shown += piece
        if shown.count(b"ESTABLISHED") >= 4 and not interrupted:
            process.send_signal(signal.SIGINT)
            interrupted = True
    os.close(master)
    _, err = process.communicate(timeout=10)
    assert interrupted
    assert (process.returncode, err) == (0, b"")
    assert b"\x1b[?1049h" in shown
    entered, left = shown.index(b"\x1b[?1049h"), shown.index(b"\x1b[?1049l")
    assert entered < left
    assert b"TIME_WAIT" in shown[left:]  # the last view, on the screen as it was


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("-i", "lo", "x.pcap"), 2, "not both"), (("--speed", "-1", "x.pcap"), 2, "no speed"),
        (("--every", "0",), 2, "no number of seconds"), (("--rows", "x",), 2, "'x' is no whole number"),
        (("--rows", "-1"), 2, "'-1' is no whole number from 1 to 10"), (("--count", "-1"), 2, "'-1' is no whole number"),
        (("--count", "1.5"), 2, "'1.5' is no whole number"), (("--filter", "tcp"), 2, "--filter 'tcp' is for the packets"),
        (("--filter", "tcp", "x.pcap"), 2, "with -i"), (("--speed", "2"), 2, "--speed 2 is for a capture"),
        (("--speed", "1", "-i", "lo"), 2, "--speed 1 is for a capture"),
        (("nowhere.pcap",), 1, "nowhere.pcap: No such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_one_line(args, status, words):
    pytest.importorskip("rich", reason="rich is not installed: the extra fasttcp[top]")
    done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_extra_is_named(tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError('none here')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*COMMAND, "--count", "1"], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fasttcp: top needs rich: pip install 'fasttcp[top]'\n"
