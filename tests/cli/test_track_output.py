"""`fasttcp track`: filters, every format to a file and to a pipe, interim rows, a file that still grows."""

import contextlib
import csv
import io
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fasttcp.observe.track import track

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
CLOSE = CAPTURES / "close_by_client.pcap"
FILES = sorted(CAPTURES.glob("close_*.pcap"))
COMMAND = [sys.executable, "-m", "fasttcp"]
PCAP_HEADER = 24
SECOND = 1_000_000_000


def run(*args, **options):
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, timeout=60, check=False, **options)


# ---- formats -----------------------------------------------------------------------------------------------------


def rows_of(form, data):
    """[(id.orig_p, history)] of an output."""
    if form == "json":
        return [(row["id.orig_p"], row["history"]) for row in map(json.loads, data.splitlines())]
    if form == "csv":
        return [(int(row["id.orig_p"]), row["history"]) for row in csv.DictReader(io.StringIO(data.decode()))]
    if form in ("arrow", "parquet"):
        pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        if form == "arrow":
            rows = pa.ipc.open_stream(data).read_all().to_pylist()
        else:
            import pyarrow.parquet as pq

            rows = pq.read_table(io.BytesIO(data)).to_pylist()
        return [(row["id.orig_p"], row["history"]) for row in rows]
    lines = [line for line in data.decode().splitlines() if not line.startswith("#")]
    cells = [line.split() for line in lines if line]
    return [(int(port), history) for port, history in (cells[1:] if form == "table" else cells)]


@pytest.mark.parametrize("form", ["table", "zeek", "json", "csv", "arrow", "parquet"])
def test_every_format_into_a_pipe_and_into_a_file(form, tmp_path):
    if form in ("arrow", "parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    expected = [(c.orig_port, c.history) for c in track(FILES)]
    options = ("--format", form, "--fields", "id.orig_p,history", "--no-summary")
    piped = run("track", *FILES, *options)
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert rows_of(form, piped.stdout) == expected
    path = tmp_path / "out"
    written = run("track", *FILES, *options, "-o", path)
    assert (written.returncode, written.stdout, written.stderr) == (0, b"", b"")
    assert rows_of(form, path.read_bytes()) == expected


def test_summary_of_a_table_that_went_into_a_file_is_on_stderr(tmp_path):
    done = run("track", CLOSE, "-o", tmp_path / "out")
    assert done.stdout == b""
    assert b"connections      1" in done.stderr
    assert b"connections" not in (tmp_path / "out").read_bytes()


def test_output_that_cannot_be_written_is_one_line(tmp_path):
    done = run("track", CLOSE, "-o", tmp_path / "no" / "where")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"No such file" in done.stderr


def test_a_capture_is_not_overwritten(tmp_path):
    path = tmp_path / "x.pcap"
    path.write_bytes(CLOSE.read_bytes())
    done = run("track", path, "-o", path, "--format", "json")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"overwritten" in done.stderr
    assert path.read_bytes() == CLOSE.read_bytes()


def test_parquet_without_pyarrow_names_the_extra(tmp_path):
    (tmp_path / "pyarrow.py").write_text("raise ImportError('none here')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = run("track", CLOSE, "--format", "parquet", env=environment)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert b"fasttcp[parquet]" in done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks a pipe how full it is")
def test_stopped_and_continued_in_the_middle_of_a_write_nothing_is_lost(tmp_path):
    """As by Ctrl-Z: the kernel then writes less than was asked, and `python -u` alone would not write the rest."""
    import fcntl
    import termios

    path = many_connections(tmp_path / "many.pcap", 9000)
    options = ["track", str(path), "--format", "json", "--checksums", "ignore", "--no-summary"]
    expected = run(*options).stdout
    child = subprocess.Popen([sys.executable, "-u", "-m", "fasttcp", *options], stdout=subprocess.PIPE)
    room = fcntl.fcntl(child.stdout, fcntl.F_GETPIPE_SZ)
    assert len(expected) > 2 * room
    wait_for(lambda: int.from_bytes(fcntl.ioctl(child.stdout, termios.FIONREAD, bytes(4)), sys.byteorder) == room)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    child.send_signal(signal.SIGCONT)
    written = child.communicate(timeout=60)[0]
    assert child.returncode == 0
    assert written == expected


def test_wrong_fields_write_nothing(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    done = run("track", CLOSE, "--format", "parquet", "--fields", "histry")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert b"nearest: history" in done.stderr


@pytest.mark.parametrize("form", ["zeek", "parquet"])
def test_wrong_fields_leave_a_file_as_it_was(form, tmp_path):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("kept")
    for path in (old, new):
        done = run("track", CLOSE, "--format", form, "--fields", "histry", "-o", path)
        assert done.returncode == 2
        assert done.stderr.startswith(b"fasttcp: --fields: there is no field 'histry'")
    assert old.read_text() == "kept"
    assert not new.exists()


def test_a_capture_that_comes_as_stdin_is_not_overwritten(tmp_path):
    path = tmp_path / "in.pcap"
    path.write_bytes(CLOSE.read_bytes())
    with path.open("rb") as file:
        done = run("track", "-", "-o", path, stdin=file)
    assert done.returncode == 1
    assert b"it would be overwritten" in done.stderr
    assert path.read_bytes() == CLOSE.read_bytes()


# ---- filters -----------------------------------------------------------------------------------------------------


def test_filter_applies_to_every_text_format():
    every = sorted(CAPTURES.glob("*.pcap"))
    text = "state established exclude closed and dport = :80"
    expected = [(c.orig_port, c.history) for c in track(every, where=text)]
    assert 0 < len(expected) < len(list(track(every)))
    for form in ("table", "zeek", "json", "csv"):
        done = run("track", *every, "--where", text, "--format", form, "--fields", "id.orig_p,history", "--no-summary")
        assert rows_of(form, done.stdout) == expected


def test_wrong_filter_points_at_the_word_and_is_a_wrong_argument():
    done = run("track", CLOSE, "--where", "state time-wayt and dport = :443")
    assert (done.returncode, done.stdout) == (2, b"")
    first, text, mark = done.stderr.decode().splitlines()
    assert first == "fasttcp: --where: there is no state 'time-wayt'; nearest: time-wait"
    assert text[mark.index("^") : len(mark)] == "time-wayt"


def test_summary_says_how_many_rows_the_filter_let_through():
    done = run("track", *FILES, "--where", "orig state time-wait")
    count = int(re.search(rb"shown +(\d+) rows", done.stdout)[1])
    assert count == sum(c.orig_state.name == "TIME_WAIT" for c in track(FILES)) > 0


# ---- interim rows ------------------------------------------------------------------------------------------------


def test_interim_rows_come_before_the_last_and_have_its_name():
    done = run("track", CLOSE, "--interim", "0.1", "--json", "--fields", "uid,end,orig_pkts,resp_pkts,orig_state,ts")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["end"] for row in rows] == ["interim"] * 3 + ["closed"]
    assert len({(row["uid"], row["ts"]) for row in rows}) == 1
    packets = [row["orig_pkts"] + row["resp_pkts"] for row in rows]
    assert packets == sorted(packets)
    assert packets[-1] == 11
    assert b"connections      1: closed 1" in done.stderr


def interim_rows(data, seconds, **options):
    return [c for c in track(data, interim=seconds, **options) if c.end == "interim"]


def test_interim_rows_hold_what_was_captured_before_their_mark():
    """Against a count by hand: how many of the connection's packets lie before each mark."""
    data = CLOSE.read_bytes()
    times, at = [], PCAP_HEADER
    resolution = 1 if data[:4] in (b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d") else 1000
    while at < len(data):
        seconds, fraction, length, _ = (int.from_bytes(data[at + 4 * i : at + 4 * i + 4], "little") for i in range(4))
        times.append(seconds * SECOND + fraction * resolution)
        at += 16 + length
    for every in (0.05, 0.1, 0.2, 0.3):
        step = round(every * 1e9)
        marks, mark = [], times[0] + step
        for before, now in itertools.pairwise(times):
            if before < mark <= now:
                marks.append(sum(time < mark for time in times))
                mark = times[0] + ((now - times[0]) // step + 1) * step
        rows = interim_rows(data, every)
        assert [row.orig_packets + row.resp_packets for row in rows] == marks
        assert all(row.ended_ns is None for row in rows)


def test_what_is_over_has_no_interim_row():
    data = CAPTURES.joinpath("refused.pcap").read_bytes()
    assert interim_rows(data, 0.001) == [] or all(c.orig_state.name != "CLOSED" for c in interim_rows(data, 0.001))


def many_connections(path, number, last_after=0):
    """A capture of one SYN each from the ports 0 to `number` - 1, and of one more, so many seconds later."""
    data = CAPTURES.joinpath("left_half_open.pcap").read_bytes()
    first = data[PCAP_HEADER : PCAP_HEADER + 16 + int.from_bytes(data[32:36], "little")]
    port = 16 + 14 + 20
    with path.open("wb") as file:
        file.write(data[:PCAP_HEADER])
        for i in range(number + 1):
            copy = bytearray(first)
            copy[port : port + 2] = i.to_bytes(2, "big")
            if i == number:
                copy[0:4] = (int.from_bytes(copy[0:4], "little") + last_after).to_bytes(4, "little")
            file.write(copy)
    return path


def test_interim_rows_of_many_connections_do_not_wait_for_one_another(tmp_path):
    """More rows at one mark than may wait at once: all come, once each, and memory for no more is taken."""
    path = many_connections(tmp_path / "many.pcap", 20_000, last_after=3)
    followed = track(path, checksums="ignore", profile="linux", interim=2)
    most = 0
    ports = []
    for _ in followed.steps():
        if followed.reader is not None:
            most = max(most, followed.tracker.waiting)
        ports += [c.orig_port for c in followed.tracker.take() if c.end == "interim"]
    assert sorted(ports) == list(range(20_000))
    assert most <= 8192


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", "1e10"])
def test_wrong_interim_is_a_wrong_argument(text):
    done = run("track", CLOSE, f"--interim={text}")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no number of seconds" in done.stderr
    with pytest.raises(ValueError, match="interim"):
        track(CLOSE, interim=-1.0)


# ---- a file that still grows -------------------------------------------------------------------------------------


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def has_read(process, path):
    """Whether a child's open file stands at its end. What the child closes while one looks is not that file."""
    base = Path(f"/proc/{process.pid}")
    for number in os.listdir(base / "fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(base / "fd" / number) == str(path):
                position = (base / "fdinfo" / number).read_text().split()[1]
                return int(position) == path.stat().st_size
    return False


linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc how far the child has come")


@linux_only
@pytest.mark.parametrize("form", ["json", "arrow"])
def test_follow_shows_what_is_there_and_ends_cleanly(tmp_path, form):
    """Rows are out at each quiet moment; a record may come in two halves; Ctrl-C ends with all that is known, status 0."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed") if form == "arrow" else None
    data = CLOSE.read_bytes()
    path = tmp_path / "growing.pcap"
    path.write_bytes(data[: PCAP_HEADER + 50])
    child = subprocess.Popen(
        [*COMMAND, "track", path, "--follow", "--interim", "0.1", "--format", form, "--fields", "end,history"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        end = PCAP_HEADER + 50
        for until in (400, 700, len(data) - 100):
            wait_for(lambda: has_read(child, path))
            with path.open("ab") as file:
                file.write(data[end:until])
            end = until
        # What is known is out before the end: the capture's time has passed an interim mark.
        ready, _, _ = select.select([child.stdout], [], [], 60)
        assert ready
        early = os.read(child.stdout.fileno(), 1 << 16)
        assert early
        with path.open("ab") as file:
            file.write(data[end:])
    finally:
        child.send_signal(signal.SIGINT)  # at once: what the file holds is read all the same
        out, err = child.communicate(timeout=60)
    out = early + out
    rows = pa.ipc.open_stream(out).read_all().to_pylist() if pa else [json.loads(line) for line in out.splitlines()]
    assert (child.returncode, b"Traceback" in err) == (0, False), err
    assert [row["end"] for row in rows] == ["interim"] * 3 + ["closed"]
    assert rows[-1]["history"] == "ShADaGdgFf"


@linux_only
def test_interrupted_parquet_is_whole(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as pq

    path = tmp_path / "out.parquet"
    child = subprocess.Popen(
        [*COMMAND, "track", "-", "--format", "parquet", "-o", path, "--fields", "history"], stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    child.stdin.write(CLOSE.read_bytes())
    child.stdin.flush()
    waits = Path(f"/proc/{child.pid}/wchan")
    if waits.read_text() in ("", "0") and os.geteuid() != 0:
        child.kill()
        child.communicate()
        pytest.skip("this kernel does not tell what a process waits for")
    wait_for(lambda: "pipe" in waits.read_text())
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"Traceback" not in err
    assert pq.read_table(path).to_pylist() == [{"history": "ShADaGdgFf"}]


def test_ctrl_c_between_two_batches_is_remembered_and_counts_once():
    from fasttcp.cli.output import _Interruptible

    followed = track(CLOSE)
    steps = _Interruptible(followed)
    steps._pressed()  # not while a step is under way: nothing is raised
    next(steps)
    assert steps.interrupted
    assert [connection.end for connection in followed.tracker.take()] == ["open"] * len(followed.tracker.table)
    with pytest.raises(StopIteration):
        next(steps)
    steps._inside = True
    with pytest.raises(KeyboardInterrupt):
        steps._pressed()
