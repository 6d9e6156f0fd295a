"""`fasttcp load` for real: its own server, its own network, real connections. Each test is a process of its own, since
a process that has entered its private network cannot leave it. All of them run twice: with an io_uring, and where the
kernel refuses one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fasttcp
from load.refusal import BEFORE

HTTP = ["--http"]


def load(*arguments, timeout=60, **more):
    return subprocess.run(
        [*BEFORE, sys.executable, "-m", "fasttcp", "load", *arguments], capture_output=True, text=True, timeout=timeout, **more
    )


@pytest.fixture(scope="module", autouse=True)
def _possible(both_ways):
    if not sys.platform.startswith("linux"):
        pytest.skip("a TUN device needs Linux")
    told = load("--hold", "1", "--duration", "10ms", "--json")
    if told.returncode != 0:
        pytest.skip(f"no network of its own here: {told.stderr.strip()}")
    if both_ways == "plain":
        assert json.loads(told.stdout)["counts"]["io_uring"] == 0
    elif json.loads(told.stdout)["counts"]["io_uring"] == 0:
        pytest.skip("no io_uring here")


def report(*arguments, **more):
    told = load(*arguments, "--json", **more)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def clean(told):
    """Every connection ended well, and none is left."""
    counts, outcomes = told["counts"], told["outcomes"]
    assert outcomes == {**dict.fromkeys(outcomes, 0), "ok": counts["opened"]}
    assert counts["established"] == counts["opened"] > 0
    assert counts["live"] == counts["connecting"] == counts["closing"] == counts["lost_out"] == 0


def test_in_a_folder_that_holds_another_fasttcp(tmp_path):
    """As in a source tree that is installed but not built in place."""
    (tmp_path / "here" / "fasttcp").mkdir(parents=True)
    (tmp_path / "here" / "fasttcp" / "__init__.py").write_text("raise ImportError('the wrong one')")
    (tmp_path / "command.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(fasttcp.__file__).parent.parent)!r})\n"
        "from fasttcp.cli.main import main; sys.exit(main())"
    )
    told = subprocess.run(
        [*BEFORE, sys.executable, str(tmp_path / "command.py"), "load", "--hold", "5", "--duration", "50ms", *HTTP],
        capture_output=True, text=True, cwd=tmp_path / "here",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr


def test_hold_and_churn_with_answers_counted_by_the_kernel_as_well():
    told = report("--hold", "500", "--churn", "500", "--duration", "1s", *HTTP)
    clean(told)
    assert told["held"]["live"] == 500
    # The kernel may still have what was just replaced.
    assert 500 <= told["held"]["kernel_established"] <= 520
    assert told["counts"]["answered"] == told["counts"]["opened"] > 600
    assert told["held"]["states"]["TIME_WAIT"] > 100
    assert told["latency"]["connect"]["count"] == told["counts"]["opened"]
    assert told["latency"]["close"]["count"] == told["counts"]["opened"]
    assert 0 < told["latency"]["connect"]["p50_us"] <= told["latency"]["first_byte"]["max_us"]


def test_open_model_keeps_its_rate():
    told = report("--rate", "1000", "--arrivals", "poisson", "--duration", "1s", *HTTP)
    clean(told)
    assert 800 < told["counts"]["opened"] < 1200, "1000 expected, 32 is one standard deviation"
    assert told["held"]["live"] < 200


@pytest.mark.parametrize("how", ["fin", "rst", "peer"])
@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_ways_to_close(how, version):
    server = "http-close" if how == "peer" else "http"
    more = ["--ipv6"] if version == "ipv6" else []
    told = report("--rate", "400", "--duration", "300ms", "--close", how, "--server", server, *HTTP, *more)
    clean(told)
    time_wait = told["samples"][-1]["states"].get("TIME_WAIT", 0)
    assert time_wait == (told["counts"]["opened"] if how == "fin" else 0), "who closes first has the TIME_WAIT"


def test_several_requests_with_think_time_and_numbers_in_them():
    told = report(
        "--hold", "20", "--life", "0", "--duration", "500ms", "--server", "echo", "--requests", "3", "--think", "5ms",
        "--request", r"number {n} and {n} again\n", "--expect", "line", "--expect-line", "^number ([0-9]+) and \\1 again$",
    )  # fmt: skip
    clean(told)
    # The end of the run spares the last 20 what they had still to ask.
    assert 3 * (told["counts"]["opened"] - 20) <= told["counts"]["answered"] <= 3 * told["counts"]["opened"]
    assert told["counts"]["opened"] > 40


@pytest.mark.parametrize("version", [[], ["--ipv6"]], ids=["ipv4", "ipv6"])
def test_long_requests_go_out_many_segments_at_a_time(version, tmp_path):
    # The end of the request, and so the answer, comes only if every byte before it has come to its place.
    (tmp_path / "request").write_bytes(b"POST / HTTP/1.1\r\n" + b"x" * 300_000 + b"\r\n\r\n")
    told = report(
        "--hold", "5", "--life", "0", "--duration", "300ms", "--request", f"@{tmp_path / 'request'}", "--expect", "content-length",
        *version,
    )  # fmt: skip
    clean(told)
    counts = told["counts"]
    assert counts["answered"] == counts["opened"]
    assert counts["bytes_out"] > 300_000 * counts["opened"]
    assert counts["packets_out"] > 200 * counts["opened"] and counts["writes"] < counts["packets_out"] / 5


def test_each_long_request_has_its_own_number_at_both_ends(tmp_path):
    # 40 connections at once, so segments of different ones follow each other; the kernel's echo shows what arrived.
    (tmp_path / "request").write_bytes(b"number {n} " + b"x" * 900 + b" {n}\n")
    told = report(
        "--hold", "40", "--life", "0", "--duration", "300ms", "--server", "echo", "--request", f"@{tmp_path / 'request'}",
        "--expect", "line", "--expect-line", "^number ([0-9]+) x{900} \\1$",
        "--set", "advmss_v4=100",
    )  # fmt: skip
    clean(told)
    assert told["counts"]["answered"] == told["counts"]["opened"] > 40
    assert told["counts"]["packets_out"] > 10 * told["counts"]["opened"] > told["counts"]["writes"]


def test_half_close_and_an_answer_that_ends_with_the_close():
    told = report(
        "--rate", "200", "--duration", "300ms", "--server", "echo", "--request", "ping", "--half-close", "--expect", "close",
    )  # fmt: skip
    clean(told)
    assert told["counts"]["payload_in"] == 4 * told["counts"]["opened"]


def test_an_answer_that_is_not_as_expected():
    told = report("--rate", "200", "--duration", "300ms", *HTTP, "--expect-line", "^HTTP/1.1 503")
    assert told["outcomes"]["unexpected"] == told["counts"]["opened"] > 0
    told = report(
        "--rate",
        "200",
        "--duration",
        "300ms",
        "--server",
        "http-close",
        "--body",
        "10",
        "--request",
        r"a\r\n\r\n",
        "--expect",
        "5000",
    )
    assert told["outcomes"]["unexpected"] == told["counts"]["opened"] > 0


def test_a_server_that_never_answers_is_timed_out():
    told = report(
        "--rate", "200", "--duration", "300ms", "--server", "sink", *HTTP, "--timeout", "100ms", "--grace", "1s"
    )
    assert told["outcomes"]["timed_out"] == told["counts"]["opened"] > 0


def test_an_empty_pool_of_ports_is_an_outcome():
    told = report("--rate", "2000", "--duration", "300ms", "--source", "198.19.7.1/32", "--ports", "40000-40099")
    assert told["outcomes"]["ok"] == 100 and told["ports"] == 100
    assert told["outcomes"]["port_pool_empty"] > 100
    assert "source pool" in told["limit"]


def test_a_stage_that_holds_fewer_closes_the_others():
    told = report("--stage", "400ms:hold=200", "--stage", "1200ms:hold=50", "--stage", "400ms:hold=80", *HTTP)
    clean(told)
    assert told["held"]["live"] == 80 and told["counts"]["opened"] == 230
    assert 50 in [sample["live"] for sample in told["samples"]]


def test_a_server_that_stands_still_is_seen_in_full_by_what_is_replaced():
    """500 replaced a second; the server's processes are stopped for a second: half of those of 2 s wait for it."""
    child = subprocess.Popen(
        [
            *BEFORE, sys.executable, "-m", "fasttcp", "load", "--hold", "20", "--churn", "500", "--duration", "2500ms", *HTTP,
            "--json",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1.2)
    servers = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _parent(pid) == child.pid]
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    for pid in servers:
        os.kill(pid, signal.SIGCONT)
    told = json.loads(child.communicate(timeout=60)[0])
    clean(told)
    assert servers and told["counts"]["opened"] > 1000
    assert told["latency"]["first_byte"]["p90_us"] > 400_000, "a tenth of them would be 20 if the schedule stood still as well"


def _parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.parametrize(("more", "limit"), [(["--ports", "40000-40049"], "source pool"), (["--max-connections", "50"], "table")])
def test_connections_that_cannot_be_held_are_told_of(more, limit):
    told = report("--hold", "100", "--duration", "300ms", "--source", "198.19.7.1/32", *more)
    clean(told)  # what is tried again is not lost
    assert told["held"]["live"] == told["counts"]["opened"] == 50 and limit in told["limit"]
    ran_out = [told["counts"][name] for name in ("ports_ran_out", "rows_ran_out")]
    assert (ran_out[0] > 0, ran_out[1] > 0) == (limit == "source pool", limit == "table")


@pytest.mark.parametrize("change", ["tcp_tw_reuse=1", "msl=100ms", "tcp_tw_reuse=0"])
def test_time_wait_and_its_reuse_follow_the_profile(change):
    told = report(
        "--hold", "10", "--churn", "40", "--duration", "2500ms", "--source", "198.19.7.1/32", "--ports", "40000-40049", "--set",
        change,
    )  # fmt: skip
    opened, reused = told["counts"]["opened"], told["counts"]["time_wait_reused"]
    if change == "tcp_tw_reuse=0":
        # 50 ports, each for one connection: what is not opened leaves the pool empty.
        assert opened == 50 and reused == 0 and told["outcomes"]["port_pool_empty"] > 0
        return
    assert opened > 80 and told["outcomes"]["ok"] == opened
    assert (reused > 20) == (change == "tcp_tw_reuse=1"), "200 ms of TIME_WAIT need no reuse"


def test_a_parameter_that_does_not_exist():
    told = load("--hold", "1", "--set", "tcp_tw_rouse=1")
    assert told.returncode == 2 and "tcp_tw_reuse" in told.stderr


def test_stages_follow_each_other():
    told = report("--stage", "300ms:1k/s", "--stage", "300ms:hold", "--stage", "200ms:500/s")
    clean(told)
    assert 250 < told["counts"]["opened"] < 450 and told["held"]["live"] == told["counts"]["opened"]


def test_a_stage_replaces_what_an_earlier_one_opened():
    told = report("--stage", "200ms:1k/s", "--stage", "600ms:hold=200,churn=500/s")
    clean(told)
    assert told["held"]["live"] == 200 and 200 <= told["held"]["kernel_established"] <= 220
    assert 350 < told["counts"]["opened"] < 550, "200, and 300 of them replaced"


def test_without_a_load_described_it_fills_and_replaces():
    told = report("--duration", "1s")
    clean(told)
    # One more when the last opening of the first stage and the end of its time fall together.
    assert 1000 <= told["held"]["live"] <= 1001 and told["counts"]["answered"] == told["counts"]["opened"]
    assert 1200 < told["counts"]["opened"] < 1850, "a thousand, and a thousand a second for 800 ms"


def test_a_connection_held_by_a_distribution_of_lifetimes():
    told = report("--rate", "500", "--duration", "1s", "--life", "exponential:100ms")
    clean(told)
    assert 15 < told["held"]["live"] < 110, "500 a second for 100 ms each: 50 at once"


def test_conditions_and_exit_statuses():
    quick = ["--hold", "5", "--duration", "50ms"]
    failed = load(*quick, "--fail-if", "connect_p50 > 0us", "--fail-if", "errors > 0")
    assert failed.returncode == 99 and "connect_p50 > 0us" in failed.stderr and "errors" not in failed.stderr
    assert load(*quick, "--fail-if", "no_such_thing > 0").returncode == 2
    assert load("--hold", "5", "--close", "politely").returncode == 2
    refused = load("8.8.8.8:80", "--hold", "5")
    assert refused.returncode == 2 and "--i-may-test-this-target" in refused.stderr


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_closes_and_a_second_one_resets(presses):
    # A closed server process leaves FINs unanswered when it is stopped: the close then takes until the second Ctrl-C.
    child = subprocess.Popen(
        [*BEFORE, sys.executable, "-m", "fasttcp", "load", "--hold", "200", "--duration", "60s", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1.5)
    stopped = []
    if presses == 2:
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(child.pid)], capture_output=True, text=True).stdout
        stopped = [int(pid) for pid in children.split()]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
    for _ in range(presses):
        child.send_signal(signal.SIGINT)
        time.sleep(0.4)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    out, err = child.communicate(timeout=30)
    told = json.loads(out)
    assert child.returncode == 0 and told["interrupted"] == presses, err
    assert told["seconds"] < 20
    assert told["outcomes"]["ok" if presses == 1 else "cut_off"] == 200


@pytest.mark.parametrize("given", [("--source", "198.18.0.0/24"), ("--ipv6", "--source", "2001:2::/112")])
def test_a_source_network_with_the_server_in_it_is_refused(given):
    told = load("--hold", "5", *given)
    assert told.returncode == 2 and f"{given[-1]} holds" in told.stderr and "the address of the server" in told.stderr


@pytest.mark.parametrize("network", ["10.9.0.0/24", "198.18.64.0/24", "fd00:9::/120"])
def test_any_other_source_network_is_routed(network):
    clean(report("--hold", "20", "--duration", "300ms", "--source", network, *["--ipv6"] * (":" in network)))


def test_outputs(tmp_path):
    told = load(
        "--hold", "50", "--churn", "50", "--duration", "1200ms", *HTTP,
        "--csv", str(tmp_path / "a.csv"), "--json", str(tmp_path / "a.json"),
        "--html", str(tmp_path / "a.html"),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert re.search(r"^  ok +\d+ +100.00%", told.stdout, re.M) and "p99.99" in told.stdout
    page = (tmp_path / "a.html").read_text()
    assert page.count("<svg") == page.count("</svg>") >= 5 and "Connections by state" in page and "ESTABLISHED" in page
    assert not re.search(r"https?://|<script|url\(", page), "the page needs nothing else"
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0].startswith("seconds,phase,live,opened_a_second") and len(lines) >= 3
    assert lines[0].endswith("SYN_RCVD,ESTABLISHED,FIN_WAIT_1,FIN_WAIT_2,CLOSE_WAIT,CLOSING,LAST_ACK,TIME_WAIT")
    assert json.loads((tmp_path / "a.json").read_text())["outcomes"]["ok"] > 50


def test_scenario_file(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        'request = "a\\r\\n\\r\\n"\nexpect = "content-length"\n'
        'server = "http"\n[[stage]]\nfor = "300ms"\nhold = "40"\n'
    )
    told = report("--scenario", str(file))
    clean(told)
    assert told["held"]["live"] == 40
    file.write_text("hodl = 30\n")
    assert "'hodl' is none of" in load("--scenario", str(file)).stderr


@pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="only root can become somebody else")
def test_as_somebody_without_privileges():
    nobody = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/"}
    try:
        told = load("--hold", "100", "--churn", "100", "--duration", "500ms", "--json", **nobody)
    except PermissionError:
        pytest.skip("nobody may not run this Python")
    if "No module named" in told.stderr or "a network of its own" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stderr
    clean(json.loads(told.stdout))
