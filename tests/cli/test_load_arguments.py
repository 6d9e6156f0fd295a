"""What `fasttcp load` and `fasttcp serve` refuse before anything is sent, and what becomes of their report and their command."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

COMMAND = [sys.executable, "-m", "fasttcp"]
LOAD = [*COMMAND, "load", "--hold", "5", "--duration", "100ms", "--quiet"]


def run(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("port", ["0", "65536", "99999", "-1", "http"])
def test_a_port_that_there_is_not(port):
    done = run(*COMMAND, "load", f"127.0.0.1:{port}", "--hold", "1")
    assert done.returncode == 2
    assert f"'127.0.0.1:{port}' is no ADDRESS:PORT" in done.stderr


def test_what_does_not_fit_together_is_told_with_the_scenario_file(tmp_path):
    file = tmp_path / "busy.toml"
    file.write_text('rate = "1k/s"\nchurn = "5k/s"\n')
    for words, where in ((["--scenario", file], f"with {file}: "), (["--rate", "1k/s", "--churn", "5k/s"], "")):
        done = run(*COMMAND, "load", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"fasttcp load: {where}churn replaces held connections: give hold as well\n"


@pytest.mark.parametrize("option", ["--json", "--csv", "--html"])
def test_a_report_that_cannot_be_written_is_told_before_the_load(option, tmp_path):
    for path, says in ((tmp_path, "is a folder"), (tmp_path / "none" / "file", "there is no folder")):
        done = run(*LOAD, option, path)
        assert (done.returncode, done.stdout) == (2, "")
        assert str(path) in done.stderr and says in done.stderr


@pytest.fixture
def possible():
    if not sys.platform.startswith("linux"):
        pytest.skip("a TUN device needs Linux")
    done = run(*LOAD)
    if done.returncode != 0:
        pytest.skip(f"no load here: {done.stderr.strip()}")


@pytest.mark.usefixtures("possible")
def test_one_output_that_fails_keeps_nothing_from_the_others(tmp_path):
    page = tmp_path / "page.html"
    done = run(*LOAD, "--json", "/dev/full", "--csv", "/dev/full/x", "--html", page)
    assert done.returncode == 2 and "/dev/full" in done.stderr, "that is no folder, which is seen before"
    done = run(*LOAD, "--json", "/dev/full", "--html", page)
    assert done.returncode == 1 and "/dev/full" in done.stderr
    assert "\n  ok " in done.stdout and page.read_text().startswith("<!doctype html>")


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("condition", ["errors >= 0", "first_byte_p99 < 5s"], ids=["so", "not measured"])
def test_a_condition_counts_whoever_reads_the_report(condition, tmp_path):
    """Nobody reads it here: the end of the pipe is closed at once."""
    file = tmp_path / "report.json"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*LOAD, "--json", file, "--fail-if", condition], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30, check=False
    )
    os.close(writer)
    assert done.returncode == 99 and f"failed: {condition}" in done.stderr
    assert json.loads(file.read_text())["outcomes"]["ok"] == 5


def test_a_condition_of_nothing_is_refused_before_the_load():
    done = run(*LOAD, "--fail-if", "nope > 1")
    assert (done.returncode, done.stdout) == (2, "") and "nope is nothing that a report has" in done.stderr


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_load_that_is_told_to_end_closes_and_reports(sent):
    child = subprocess.Popen([*COMMAND, "load", "--hold", "50", "--duration", "60s", "--json"], stdout=subprocess.PIPE, text=True)
    time.sleep(1.5)
    child.send_signal(sent)
    told = json.loads(child.communicate(timeout=30)[0])
    assert child.returncode == 0 and told["interrupted"] == 1 and told["outcomes"]["ok"] == 50


def test_what_belongs_to_the_server_of_its_own_has_no_place_beside_a_target():
    done = run(*COMMAND, "load", "127.0.0.1:80", "--source", "198.19.0.0/24", "--hold", "1", "--body", "5")
    assert (done.returncode, done.stdout) == (2, "") and "--body is of the server of its own" in done.stderr


def test_more_connections_than_memory_are_refused_at_once():
    done = run(*COMMAND, "load", "--hold", "900M")
    assert (done.returncode, done.stdout) == (2, "") and "hold is 900,000,000: there is memory for " in done.stderr


def test_two_reports_in_one_file_are_refused(tmp_path):
    done = run(*LOAD, "--json", tmp_path / "a", "--csv", tmp_path / "a")
    assert (done.returncode, done.stdout) == (2, "") and "one file" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--listen", "127.0.0.0/8"], "loopback"), (["--listen", "198.19.0.0/24", "--ipv6"], "no IPv6"),
     (["--read-rate", "0"], "--read-rate"), (["--max-connections", "0"], "--max-connections")],
)  # fmt: skip
def test_what_serve_cannot_serve(words, says):
    done = run(*COMMAND, "serve", *words, "--run", "true")
    assert (done.returncode, done.stdout) == (2, "") and says in done.stderr


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_its_command_when_it_is_ended(sent, tmp_path):
    told = tmp_path / "pid"
    script = f"echo $$ >{shlex.quote(str(told))}; exec sleep 60"
    server = subprocess.Popen([*COMMAND, "serve", "--run", f"sh -c {shlex.quote(script)}"], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not (told.exists() and told.read_text().strip()):
        assert server.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    pid = int(told.read_text())
    server.send_signal(sent)
    server.communicate(timeout=20)
    assert server.returncode == 128 + signal.SIGTERM, "the command's, as a shell has it"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("command", ["", "  "])
def test_serve_wants_a_command_behind_run(command):
    done = run(*COMMAND, "serve", "--run", command)
    assert done.returncode == 2
    assert "there is no command in it" in done.stderr


@pytest.mark.usefixtures("possible")
def test_serve_names_what_it_cannot_find():
    done = run(*COMMAND, "serve", "--run", "no-such-command")
    assert done.returncode == 1
    assert "no-such-command: No such file" in done.stderr
    done = run(*COMMAND, "serve", "--answer", "@no-such-file", "--run", "true")
    assert done.returncode == 2
    assert "no-such-file: No such file" in done.stderr
