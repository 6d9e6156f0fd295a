"""`fasttcp plan` as its user meets it: text, JSON, plots, exit status."""

import json
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from fasttcp.cli.main import main

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
FAST = ["--set", "msl=1s", "--ports", "20001-21000", "--lifetime", "100ms", "--duration", "10s"]


@pytest.fixture
def plan(capsys):
    """Runs the verb: (exit status, stdout, stderr)."""

    def call(*words):
        try:
            status = main(["plan", *words])
        except SystemExit as refusal:
            status = refusal.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(name))


def test_the_answer_stands_twice(plan):
    status, text, _ = plan("--rate", "900/s", *FAST, "--no-advice")
    assert status == 0
    formula, simulation = row(text, "TIME_WAIT on the client, steady").split()[-2:]
    assert formula == "952.4" and float(simulation) == pytest.approx(952.4, rel=0.01)
    assert row(text, "first connect fails after").split()[-4:] == ["1.1", "s", "1.1", "s"]
    assert row(text, "ports in use, busiest pair").split()[-2:] == ["1,000", "1,000"]
    assert "these pairs carry 476 connections a second" in text.lower()


def test_what_if_is_one_table(plan):
    status, text, _ = plan(
        "--rate", "900/s", *FAST, "--no-advice", "--what-if", "tcp_tw_reuse=1,tcp_tw_reuse_delay=300ms", "--what-if",
        "sources=8", "--what-if", "net.ipv4.tcp_max_tw_buckets=100", "--what-if", "who_closes=server",
    )  # fmt: skip
    assert status == 0
    at = {line.split("  ")[0]: line for line in text.splitlines()}
    assert at["as it is"].split()[-2:] == ["0", "0"]
    assert "never" in at["sources=8"]
    assert int(at["tcp_tw_reuse=1,tcp_tw_reuse_delay=300ms"].split()[-2].replace(",", "")) > 5000
    assert at["net.ipv4.tcp_max_tw_buckets=100"].split()[1] == "100"
    server = at["who_closes=server"].split()
    assert server[1] == "0" and 300 < float(server[2].replace(",", "")) < 500  # half of the ports, reopened


def test_advice_is_simulated_and_names_its_risk(plan):
    status, text, _ = plan("--rate", "900/s", *FAST)
    assert status == 0
    for word in ("keep-alive", "source addresses", "ip_local_port_range", "tcp_tw_reuse = 1", "RFC 6191", "RFC 1337"):
        assert word in text
    recycle = text[text.index("tcp_tw_recycle") :]
    assert "4.12" in recycle and "0 of one's and 20 of the other's" in recycle


def test_a_load_far_from_the_wall_needs_no_advice(plan):
    _, text, _ = plan("--rate", "50/s", *FAST)
    assert "No connect fails." in text and "1. " not in text


def test_json_holds_everything(plan):
    status, text, _ = plan("--rate", "900/s", *FAST, "--what-if", "sources=2", "--json")
    told = json.loads(text)
    assert status == 0
    figures = told["plan"]["simulation"]
    assert figures["connect_failures"] > 0 and figures["first_failure"] == pytest.approx(1.111, abs=0.01)
    assert told["plan"]["formula"]["wall"] == pytest.approx(476.19, abs=0.01)
    series = told["plan"]["series"]
    assert len(series["time_ns"]) == len(series["client_time_wait"]) > 100
    assert told["what_if"][0]["change"] == "sources=2" and told["what_if"][0]["simulation"]["connect_failures"] == 0
    assert {"what", "changes", "effect", "risk", "source"} <= set(told["advice"][0])
    assert "Infinity" not in text and "NaN" not in text


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        (["connect_failures > 0"], 99),
        (["connect_failures == 0"], 0),
        (["connect_failures == 0", "client_time_wait_peak >= 1000"], 99),
        (["first_failure < 5"], 99),
    ],
)
def test_fail_if(plan, conditions, status):
    words = [word for text in conditions for word in ("--fail-if", text)]
    got, _, complaint = plan("--rate", "900/s", *FAST, "--no-advice", *words)
    assert got == status
    assert ("holds" in complaint) == (status == 99)


def test_a_figure_that_there_is_none_of_fulfils_nothing(plan):
    assert plan("--rate", "50/s", *FAST, "--fail-if", "first_failure < 1000")[0] == 0


def test_figures_are_listed(plan):
    status, text, _ = plan("--fail-if", "help")
    assert status == 0 and "connect_failures" in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--rate 2000/s"),
        (["--rate", "fast"], "'fast' is no rate"),
        (["--rate", "0/s"], "rate is 0/s"),
        (["--rate", "1/s", "--ports", "9-8"], "no range of ports"),
        (["--rate", "1/s", "--lifetime", "2 fortnights"], "is not a time"),
        (["--rate", "1/s", "--sources", "0"], "sources is 0"),
        (["--rate", "1/s", "--sources", "many"], "sources is 'many'"),
        (["--rate", "1/s", "--who-closes", "nobody"], "'nobody' is none of client, server, mix"),
        (["--rate", "1/s", "--what-if", "tcp_tw_reus=1"], "nearest: tcp_tw_reuse"),
        (["--rate", "1/s", "--what-if", "tcp_tw_reuse"], "write NAME=VALUE"),
        (["--rate", "1/s", "--what-if", "tcp_tw_reuse=7"], "tcp_tw_reuse = 7"),
        (["--rate", "1/s", "--what-if", "msl=1s,msl=2s"], "msl is given twice"),
        (["--rate", "1/s", "--set", "tcp_rfc1337=maybe"], "write 0 or 1"),
        (["--rate", "1/s", "--fail-if", "failures > 0"], "'failures' is no figure"),
        (["--rate", "1/s", "--fail-if", "connect_failures"], "is no condition"),
        (["--rate", "1/s", "--plot", "tw.gif"], "as .svg or .png"),
        (["--rate", "1/s", "--tick", "1us"], "at least 1ms"),
        (["--rate", "1/s", "--profile", "windows"], "invalid choice"),
    ],
)
def test_wrong_arguments_end_with_2_and_one_line(plan, words, complaint):
    status, text, told = plan(*words)
    assert (status, text) == (2, "")
    assert complaint in told


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--from", "nowhere.pcap"], "nowhere.pcap: No such file"),
        (["--rate", "1/s", "--duration", "20000d"], "from 0.01 s to 10 days"),
        (["--rate", "50/s", *FAST, "--plot", "no/such/folder/tw.svg"], "no/such/folder/tw.svg: No such file"),
    ],
)
def test_other_failures(plan, words, complaint):
    status, _, told = plan(*words)
    assert status in (1, 2) and complaint in told
    assert told.count("\n") == 1


# ---- plots -----------------------------------------------------------------------------------------------------------


def test_a_plot_as_svg(plan, tmp_path):
    file = tmp_path / "tw.svg"
    assert plan("--rate", "900/s", *FAST, "--no-advice", "--what-if", "sources=2", "--plot", str(file))[0] == 0
    root = xml.etree.ElementTree.parse(file).getroot()
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4  # TIME_WAIT and free ports, each for two policies
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "TIME_WAIT on the client" in texts and "free ports of the busiest pair" in texts and "sources=2" in texts


def test_a_plot_as_png(plan, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "tw.png"
    assert plan("--rate", "900/s", *FAST, "--no-advice", "--who-closes", "mix", "--plot", str(file))[0] == 0
    assert file.read_bytes().startswith(b"\x89PNG\r\n")


def test_png_without_matplotlib_says_what_is_missing(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, _, told = plan("--rate", "50/s", *FAST, "--plot", str(tmp_path / "tw.png"))
    assert status == 1 and "pip install 'fasttcp[plot]'" in told and told.count("\n") == 1


# ---- loads from elsewhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "client", "server"),
    [("close_by_client", True, False), ("close_by_server", False, True), ("reset_by_linger", False, False)],
)
def test_from_a_capture_the_closer_is_who_it_was(plan, name, client, server):
    status, text, _ = plan(
        "--from", str(CAPTURES / f"{name}.pcap"), "--set", "msl=1s", "--duration", "10s", "--json", "--no-advice"
    )
    assert status == 0
    figures = json.loads(text)["plan"]["simulation"]
    assert figures["opened"] >= 10
    assert (figures["client_time_wait_peak"] > 0) == client
    assert (figures["server_time_wait_peak"] > 0) == server


def test_from_a_capture_with_other_closers_and_rate(plan):
    status, text, _ = plan(
        "--from", str(CAPTURES / "close_by_client.pcap"), "--set", "msl=1s", "--duration", "10s", "--who-closes", "server",
        "--rate", "100/s", "--lifetime", "10ms", "--sources", "3", "--no-advice", "--json",
    )  # fmt: skip
    figures = json.loads(text)["plan"]["simulation"]
    assert status == 0 and figures["pairs"] == 3
    assert figures["opened"] == pytest.approx(1000, abs=2)
    assert figures["client_time_wait_peak"] == 0 < figures["server_time_wait_peak"]


def test_a_capture_without_an_opening(plan):
    status, _, told = plan("--from", str(CAPTURES / "connect_timeout.pcap"))
    assert status == 2 and "no connection whose opening was seen" in told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc/sys/net and inet_diag")
def test_from_host_changes_nothing_and_tells_the_distance(plan):
    def sysctls():
        return {
            path.name: path.read_text()
            for path in Path("/proc/sys/net/ipv4").glob("tcp_*") if path.stat().st_mode & 0o400 and path.name not in UNSTABLE
        }

    before = sysctls()
    status, text, _ = plan("--from-host", "--rate", "100/s", "--duration", "5s", "--json", "--no-advice")
    assert status == 0 and sysctls() == before
    told = json.loads(text)
    assert told["host"]["sysctls"]["tcp_fin_timeout"] == before["tcp_fin_timeout"].strip()
    assert told["host"]["ports"] > 0 and told["plan"]["simulation"]["opened"] == pytest.approx(500, abs=1)
    assert "ports" in plan("--from-host")[1]


UNSTABLE = {"tcp_fastopen_key"}  # readable by root only, and of no interest
