"""The harness and its verb: what a run reports, how it ends."""

import argparse
import json

import pytest

from fasttcp.cli import churn
from fasttcp.load.harness import run_churn


def verb(*words):
    parser = argparse.ArgumentParser()
    churn.add_parser(parser.add_subparsers())
    args = parser.parse_args(["churn", *words])
    return args.run(args)


def test_a_run_by_events():
    report = run_churn(1000, events=20_000, seed=2)
    assert report.events == 20_000
    assert report.steady and not report.interrupted
    assert report.live == pytest.approx(1000, rel=0.1)
    assert 0.45 < report.time_wait_share < 0.62
    assert report.connections_ended == pytest.approx(20_000 / 8, rel=0.05)
    assert report.expiry_lag_ticks == 0
    assert report.worst_call_ns >= report.median_call_ns > 0
    assert report.seconds > 0
    assert report.ns_an_event == pytest.approx(report.seconds * 1e9 / 20_000)
    assert report.events_a_second == pytest.approx(20_000 / report.seconds)


def test_a_run_by_seconds():
    report = run_churn(1000, seconds=0.01)
    assert 0.01 <= report.seconds < 1
    assert report.events > 0


def test_two_threads_do_the_same_work():
    one, two = (run_churn(1000, events=20_000, seed=2, threads=threads) for threads in (1, 2))
    assert (two.threads, two.events, two.live) == (2, one.events, one.live)
    assert two.connections_ended == one.connections_ended
    assert two.time_wait_share == one.time_wait_share


def test_progress_is_told_of_both_phases_and_an_interrupt_reports_what_is_known(monkeypatch):
    phases = []

    def progress(phase, done, report):
        phases.append(phase)
        assert done >= 0
        if phase == "measuring":
            raise KeyboardInterrupt

    monkeypatch.setattr("fasttcp.load.harness.time.monotonic", iter(range(1, 10**6)).__next__)
    report = run_churn(20_000, events=10**9, progress=progress)
    assert report.interrupted and report.steady
    assert set(phases) == {"filling", "measuring"}
    assert 0 < report.events < 10**9


def test_an_interrupt_while_filling_says_so():
    def progress(phase, done, report):
        raise KeyboardInterrupt

    report = run_churn(20_000, events=10**9, progress=progress)
    assert report.interrupted and not report.steady
    assert report.events > 0


def test_arguments_that_do_not_fit():
    with pytest.raises(ValueError, match="exclude each other"):
        run_churn(1000, events=1, seconds=1)
    for wrong in ({"events": 0}, {"seconds": 0}, {"seconds": -1}, {"threads": 0}, {"mix": "x"}):
        with pytest.raises(ValueError):
            run_churn(1000, **wrong)


def test_verb_as_text(capsys):
    assert verb("--connections", "1k", "--events", "5k") == 0
    out, err = capsys.readouterr()
    for name in ("events/s", "ns an event", "connections/s", "in TIME_WAIT", "expiry lag", "worst pause", "bytes a connection"):
        assert name in out
    assert err == ""  # no progress where nobody watches


def test_verb_as_json(capsys):
    assert verb("--connections", "1000", "--events", "5000", "--mix", "all", "--seed", "9", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["events"] == 5000 and report["mix"] == "all" and report["seed"] == 9


def test_verb_refuses_what_it_cannot_do(capsys):
    assert verb("--connections", "10") == 2
    assert "connections is 10" in capsys.readouterr().err
    for words in (("--connections", "many"), ("--events", "0"), ("--seconds", "nan"), ("--mix", "ipv5"), ("--events", "1", "--seconds", "1")):  # noqa: E501
        with pytest.raises(SystemExit) as end:
            verb(*words)
        assert end.value.code == 2
