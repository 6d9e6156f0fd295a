"""Answers of HTTP/1.1 in all their forms, in pieces of any size and behind holes; and their statuses in what is reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("http_forms.py")


@pytest.mark.parametrize(("loss", "head"), [(0, False), (0, True), (0.02, False)], ids=["", "HEAD", "2 percent lost, reordered"])
def test_every_answer_of_a_connection_ends_where_it_ends(loss, head):
    told = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps([loss, head])], capture_output=True, text=True, timeout=90
    )
    if "a network of its own" in told.stderr or "user namespace" in told.stderr or "/dev/net/tun" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stderr
    counts, said = json.loads(told.stdout)
    assert counts["ok"] == counts["opened"] >= 20 and counts["answered"] == 5 * counts["opened"]
    assert {digit: counts[f"http_{digit}xx"] for digit in said} == said and len(said) == 4
    if loss:
        assert counts["retransmitted"] > 0


def served(answer, *arguments, **more):
    """A load against `fasttcp serve` with this answer: exit status, and what is said."""
    load = f"'{sys.executable}' -m fasttcp load 198.19.0.1:80 --source 198.18.64.0/24 --hold 20 --life 0 --duration 300ms --http"
    told = subprocess.run(
        [sys.executable, "-m", "fasttcp", "serve", "--answer", answer, "--run", " ".join([load, "--quiet", *arguments])],
        capture_output=True, text=True, timeout=60, **more,
    )  # fmt: skip
    if "a network of its own" in told.stderr or "user namespace" in told.stderr or "/dev/net/tun" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    return told


def test_statuses_are_reported_where_one_is_an_error(tmp_path):
    page = tmp_path / "page.html"
    told = served(
        r"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "--requests", "3", "--fail-if",
        "'http_5xx > 0'", "--html", str(page),
    )  # fmt: skip
    assert told.returncode == 99 and "http_5xx > 0" in told.stderr
    (line,) = [each for each in told.stdout.splitlines() if each.startswith("status ")]
    assert line.startswith("status       5xx ") and told.stdout.index("  ok ") < told.stdout.index(line)
    assert f"<p>HTTP status: {line[13:]}.</p>" in page.read_text()
    assert not [name for name in ("refused", "reset", "unexpected") if f"  {name} " in told.stdout]


def test_statuses_are_counted_over_all_threads_and_not_said_where_none_is_an_error():
    told = served(r"HTTP/1.1 204 \r\n\r\n", "--threads", "2", "--json")
    report = json.loads(told.stdout[told.stdout.index("{") : told.stdout.rindex("}") + 1])
    assert report["counts"]["http_2xx"] == report["counts"]["answered"] == report["outcomes"]["ok"] > 20
    assert sum(each["counts"]["http_2xx"] for each in report["threads"]) == report["counts"]["http_2xx"]
    assert "status  " not in served(r"HTTP/1.1 204 \r\n\r\n").stdout
