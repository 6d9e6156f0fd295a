"""What becomes of the command when its streams are full, closed, or speak another character set: never a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CLOSE = Path(__file__).resolve().parent.parent / "captures" / "close_by_client.pcap"
FASTTCP = f"{sys.executable} -m fasttcp"
PLAN = "plan --rate 10/s --no-advice"
VERBS = ["--version", "--help", "track --fields help", f"track {CLOSE}", f"track {CLOSE} --format json", PLAN, f"{PLAN} --json"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="redirections of a POSIX shell")


def shell(command, **options):
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_one_line(verb):
    done = shell(f"{FASTTCP} {verb} >/dev/full")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "packets" not in line]
    assert line.startswith("fasttcp") and line.endswith("No space left on device")


@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_stdout_is_nowhere(verb):
    done = shell(f"{FASTTCP} {verb} >&-")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_a_closed_stdin_is_an_empty_capture():
    done = shell(f"{FASTTCP} track - <&-")
    assert done.returncode == 1
    assert done.stderr.startswith("fasttcp: -") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_that_has_enough_is_no_failure(verb):
    done = shell(f"({FASTTCP} {verb}; echo $? >&2) | true")
    assert done.stderr.splitlines()[-1:] == ["0"]
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr


@pytest.mark.parametrize("option", ["", "--ascii"])
def test_a_story_in_ascii(option):
    fields = "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p"
    found = json.loads(shell(f"{FASTTCP} track {CLOSE} --format json --fields {','.join(fields)}").stdout)
    command = f"{FASTTCP} explain {option} {CLOSE} {{}}:{{}} {{}}:{{}}".format(*map(found.get, fields))
    done = shell(f"LC_ALL=C PYTHONIOENCODING=ascii {command}")
    assert done.returncode == 0, done.stderr
    assert "RFC 9293 3." in done.stdout and done.stdout.isascii()
