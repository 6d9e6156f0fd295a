"""`fasttcp track` as a user meets it: a process with arguments, output, messages and an exit status."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fasttcp.errors import CaptureError
from fasttcp.observe.track import track

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
CLOSE = CAPTURES / "close_by_client.pcap"
COMMAND = [sys.executable, "-m", "fasttcp"]
PCAP_HEADER, RECORD_HEADER = 24, 16


def run(*args, **options):
    return subprocess.run(
        [*COMMAND, *map(str, args)], capture_output=True, text=not isinstance(options.get("input"), bytes), timeout=60,
        **options,
    )  # fmt: skip


def records(data):
    """Where each record of a little-endian pcap begins, and its end."""
    at = PCAP_HEADER
    places = []
    while at < len(data):
        length = int.from_bytes(data[at + 8 : at + 12], "little")
        places.append(at)
        at += RECORD_HEADER + length
    return [*places, at]


# ---- what comes out ------------------------------------------------------------------------------


@pytest.mark.smoke
def test_table_and_summary():
    done = run("track", CLOSE)
    assert (done.returncode, done.stderr) == (0, "")
    head, row, empty, *summary = done.stdout.splitlines()
    assert head.split()[:4] == ["originator", "responder", "orig_state", "resp_state"]
    assert row.split()[:4] == ["198.18.0.1:40000", "198.18.0.2:80", "TIME_WAIT", "CLOSED"]
    assert empty == ""
    text = "\n".join(summary)
    for expected in ("connections      1: closed 1", "CLOSED 1, TIME_WAIT 1", "retransmissions  0", "packets/s"):
        assert expected in text


def test_json_is_one_object_a_line():
    done = run("track", CLOSE, "--json", "--no-summary")
    (line,) = done.stdout.splitlines()
    row = json.loads(line)
    assert (row["id.orig_h"], row["id.resp_p"], row["conn_state"]) == ("198.18.0.1", 80, "SF")
    assert (row["orig_state"], row["resp_state"], row["end"]) == ("TIME_WAIT", "CLOSED", "closed")
    assert row["community_id"].startswith("1:")
    assert "service" not in row
    assert done.stderr == ""


def test_zeek_log_has_zeeks_header_and_order():
    done = run("track", CLOSE, "--format", "zeek")
    lines = done.stdout.splitlines()
    assert lines[0] == "#separator \\x09"
    fields = next(line for line in lines if line.startswith("#fields")).split("\t")[1:]
    types = next(line for line in lines if line.startswith("#types")).split("\t")[1:]
    assert fields[:7] == ["ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p", "proto"]
    assert types[:7] == ["time", "string", "addr", "port", "addr", "port", "enum"]
    row = dict(zip(fields, lines[-1].split("\t"), strict=True))
    assert (row["proto"], row["conn_state"], row["service"], row["ip_proto"]) == ("tcp", "SF", "-", "6")
    assert "connections" in done.stderr  # the summary must not stand in a log


def test_csv_and_chosen_fields():
    done = run("track", CLOSE, "--format", "csv", "--fields", "id.resp_p,history,end", "--no-summary")
    assert done.stdout.splitlines() == ["id.resp_p,history,end", "80,ShADaGdgFf,closed"]


def test_two_formats_are_one_too_many():
    done = run("track", CLOSE, "--json", "--format", "csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--format: not allowed with argument --json" in done.stderr


def test_profile_linux_has_the_same_connection_without_zeeks_gaps():
    done = run("track", CLOSE, "--profile", "linux", "--fields", "history", "--no-summary")
    assert done.stdout.split() == ["history", "ShADadFf"]


def test_fields_are_listed():
    done = run("track", CLOSE, "--fields", "help")
    assert done.returncode == 0
    assert {"ts", "conn_state", "rtt"} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_version_and_help():
    assert run("--version").stdout.startswith("fasttcp ")
    assert "--format" in run("track", "--help").stdout
    assert "track" in run("--help").stdout


# ---- where it comes from -------------------------------------------------------------------------


def test_standard_input_plain_and_compressed():
    expected = run("track", CLOSE, "--json", "--no-summary").stdout
    data = CLOSE.read_bytes()
    for bytes_in in (data, gzip.compress(data)):
        done = run("track", "-", "--json", "--no-summary", input=bytes_in)
        assert (done.returncode, done.stdout.decode()) == (0, expected)


def test_several_files_are_one_stream_in_the_order_of_their_times(tmp_path):
    data = CLOSE.read_bytes()
    places = records(data)
    (tmp_path / "b-first.pcap").write_bytes(data[: places[5]])
    (tmp_path / "a-second.pcap").write_bytes(data[:PCAP_HEADER] + data[places[5] :])
    whole = run("track", CLOSE, "--json", "--no-summary").stdout
    second, first = sorted(tmp_path.iterdir())
    assert run("track", second, first, "--json", "--no-summary").stdout == whole
    assert run("track", tmp_path, "--json", "--no-summary").stdout == whole
    assert run("track", tmp_path / "*.pcap", "--json", "--no-summary").stdout == whole


def test_directory_passes_over_what_is_no_capture(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing to see here, and certainly no capture")
    (tmp_path / "x.pcap").write_bytes(CLOSE.read_bytes())
    done = run("track", tmp_path, "--json", "--no-summary")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


def test_one_unreadable_file_of_several_does_not_stop_the_others(tmp_path):
    missing = tmp_path / "missing.pcap"
    done = run("track", CLOSE, missing, "--json", "--no-summary")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert done.stderr == f"fasttcp: {missing}: No such file or directory\n"


# ---- what can be wrong ---------------------------------------------------------------------------


def one_line(done, *parts, status=1):
    """Failed with one clear line on stderr, no traceback, nothing else."""
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("fasttcp: ")
    for part in parts:
        assert str(part) in done.stderr


def test_missing_file(tmp_path):
    one_line(run("track", tmp_path / "nowhere.pcap"), "nowhere.pcap", "No such file")


def test_text_file(tmp_path):
    path = tmp_path / "readme.txt"
    path.write_text("This is not the file that you are looking for.\n")
    one_line(run("track", path), "readme.txt", "text")


def test_empty_file_and_empty_directory(tmp_path):
    one_line(run("track", tmp_path), tmp_path, "no files")
    path = tmp_path / "empty.pcap"
    path.write_bytes(b"")
    one_line(run("track", path), "empty.pcap", "empty")


def test_directory_without_captures(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text("words and words and words and words")
    one_line(run("track", tmp_path), tmp_path, "capture")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_no_permission(tmp_path):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "secret.pcap"
    path.write_bytes(CLOSE.read_bytes())
    path.chmod(0)
    if os.geteuid() == 0:
        with pytest.MonkeyPatch.context() as patch:
            # Root may read everything, so somebody else has to try: the file's own message comes from open().
            patch.setattr("builtins.open", refuse)
            with pytest.raises(PermissionError):
                track(path)
        return
    one_line(run("track", path), "secret.pcap", "Permission denied")


def test_unknown_field_names_the_nearest():
    one_line(run("track", CLOSE, "--fields", "histori"), "histori", "history", status=2)


def test_wrong_arguments():
    wrong = [("track", CLOSE, "--format", "xml"), ("track", CLOSE, "--max-connections", "0")]
    for arguments in ((), ("track",), ("fly",), *wrong):
        done = run(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_truncated_file_shows_what_could_be_read(tmp_path):
    data = CLOSE.read_bytes()
    path = tmp_path / "cut.pcap"
    path.write_bytes(data[:-7])
    done = run("track", path, "--json", "--no-summary")
    assert done.returncode == 0
    assert json.loads(done.stdout)["history"] == "ShADaGdgFf"
    last = records(data)[-2]
    assert done.stderr.startswith(f"fasttcp: {path}: truncated at byte {last}")


def test_corrupt_file_says_where(tmp_path):
    data = bytearray(CLOSE.read_bytes())
    broken = records(data)[3]
    data[broken + 8 : broken + 12] = (0x7FFFFFFF).to_bytes(4, "little")
    path = tmp_path / "broken.pcap"
    path.write_bytes(data)
    done = run("track", path, "--json", "--no-summary")
    assert done.returncode == 0
    assert json.loads(done.stdout)["history"] == "ShA"
    assert done.stderr.startswith(f"fasttcp: {path}: corrupt at byte {broken}")


@pytest.mark.parametrize("length", [1, 10, 23])
def test_nothing_could_be_read(tmp_path, length):
    path = tmp_path / "stump.pcap"
    path.write_bytes(CLOSE.read_bytes()[:length])
    one_line(run("track", path), "stump.pcap")


def test_damage_before_the_first_packet_is_status_1(tmp_path):
    path = tmp_path / "headless.pcap"
    path.write_bytes(CLOSE.read_bytes()[: PCAP_HEADER + 5])
    done = run("track", path, "--json", "--no-summary")
    assert (done.returncode, done.stdout) == (1, "")
    assert "truncated at byte 24" in done.stderr


def test_capture_without_any_packet_is_no_error(tmp_path):
    path = tmp_path / "nobody.pcap"
    path.write_bytes(CLOSE.read_bytes()[:PCAP_HEADER])
    done = run("track", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "connections      0" in done.stdout


def test_offloaded_checksums_are_named_once(tmp_path):
    data = bytearray(CLOSE.read_bytes())
    places = records(data)
    ip = RECORD_HEADER + 14
    for at in places[:-1]:
        if data[at + ip + 12 : at + ip + 16] == bytes([198, 18, 0, 1]) and data[at + ip + 9] == 6:
            data[at + ip + 20 + 16] ^= 0x55
    path = tmp_path / "offload.pcap"
    path.write_bytes(data)
    done = run("track", path)
    assert done.stderr.count("--checksums ignore") == 1
    assert "198.18.0.1" in done.stderr
    assert "198.18.0.2" not in done.stderr
    assert run("track", path, "--checksums", "ignore").stderr == ""


# ---- the terminal --------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="a shell with head")
def test_a_reader_that_has_enough_is_no_failure(tmp_path):
    data = CLOSE.read_bytes()
    # Enough rows that the pipe is closed while there is more to write.
    sink = tmp_path / "err"
    body = data[PCAP_HEADER:]
    big = tmp_path / "big.pcap"
    big.write_bytes(data[:PCAP_HEADER] + body)
    command = f"{sys.executable} -m fasttcp track {big} --format zeek 2>{sink} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], timeout=60, check=False)
    assert done.returncode == 0
    assert "Traceback" not in sink.read_text()
    assert "Exception" not in sink.read_text()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_reports_what_is_known(tmp_path):
    data = CLOSE.read_bytes()
    child = subprocess.Popen(
        [*COMMAND, "track", "-", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdin.write(data[: records(data)[5]])
    child.stdin.flush()
    deadline = time.monotonic() + 20
    # It has read what there is when it sleeps in read(); there is nothing to be asked, so it gets some time.
    while time.monotonic() < deadline and Path(f"/proc/{child.pid}/wchan").exists():
        if "pipe" in Path(f"/proc/{child.pid}/wchan").read_text():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert json.loads(out.decode().splitlines()[0])["history"] == "ShADaG"
    assert b"Traceback" not in err
    assert b"stopped" in err


# ---- any bytes at all ----------------------------------------------------------------------------


def test_mutated_captures_never_crash():
    chance = random.Random(7)
    originals = [path.read_bytes() for path in sorted(CAPTURES.glob("*.pcap"))]
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        data = bytearray(chance.choice(originals))
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        del data[chance.randrange(len(data)) :: chance.choice((1, 10**9))]
        try:
            rules = {"profile": chance.choice(("zeek", "linux")), "checksums": chance.choice(("validate", "ignore"))}
            tracked = track(bytes(data), **rules)
            for connection in tracked:
                assert connection.duration_ns >= 0
                assert repr(connection)
            tracked.tracker.table.check_invariants()
            outcomes["read"] += 1
        except CaptureError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 100
    assert outcomes["refused"] > 10


def test_full_table_makes_room(tmp_path):
    tracked = track(list(CAPTURES.glob("close_*.pcap")), max_connections=1)
    assert len(list(tracked)) >= 4
    assert len(tracked.tracker.table) <= 1
