"""Benchmarks with pytest-benchmark. Plain `pytest` does not collect them; `pytest benchmarks` does.

    pytest benchmarks                                             one million connections, some minutes
    pytest benchmarks --connections 100000
    pytest benchmarks --benchmark-timer=time.process_time --benchmark-compare=benchmarks/reference.json
    pytest benchmarks --benchmark-timer=time.process_time --benchmark-json=benchmarks/reference.json    make a new reference

The reference counts CPU time, which other programs on the machine disturb least (of two threads, both count); it says
what machine it is of, and figures of another one say nothing about the code.

Every benchmark says in its extra_info how many operations a round has, and `ns` is the median a piece.
"""

from __future__ import annotations

import statistics

import pytest

from fasttcp.load.churn import SEGMENT_BYTES, ChurnStream

ROUNDS = 9


def pytest_addoption(parser):
    parser.addoption("--connections", type=int, default=1_000_000, help="size of the tables (1000000)")


def pytest_benchmark_update_machine_info(config, machine_info):
    """What the figures depend on; not the name of the machine."""
    machine_info.pop("node", None)
    cpu = machine_info["cpu"]
    machine_info["cpu"] = {name: cpu[name] for name in ("brand_raw", "count") if name in cpu}


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """The commit, but no names of branches and folders."""
    output_json["commit_info"] = {name: output_json["commit_info"].get(name) for name in ("id", "time", "dirty")}
    for one in output_json["benchmarks"]:
        one["stats"].pop("data", None)


@pytest.fixture(scope="session")
def connections(request):
    return request.config.getoption("--connections")


@pytest.fixture
def measure(benchmark):
    """measure(function, n, setup=..., rounds=...): time whole rounds of n operations each."""

    def run(function, n, *, setup=None, rounds=ROUNDS, args=()):
        if setup is None:
            answer = benchmark.pedantic(function, args=args, rounds=rounds, warmup_rounds=1)
        else:
            answer = benchmark.pedantic(function, setup=setup, rounds=rounds)
        benchmark.extra_info["operations"] = n
        if benchmark.enabled:
            benchmark.extra_info["ns"] = round(statistics.median(benchmark.stats.stats.data) * 1e9 / n, 2)
        return answer

    return run


class Churned:
    """A table in steady state and the stream that goes on."""

    def __init__(self, table, stream, batch):
        self.table, self.stream = table, stream
        self.piece = bytearray(batch * SEGMENT_BYTES)
        chunk = bytearray(65_536 * SEGMENT_BYTES)
        while stream.segments < stream.warm_up:
            stream.write_into(chunk)
            table.apply(chunk)

    def next(self):
        """The next batch, in the same memory."""
        self.stream.write_into(self.piece)
        return self.piece


@pytest.fixture
def churned():
    """churned(make_table, connections, mix, batch): see Churned."""

    def make(make_table, connections, mix="ipv4", batch=262_144):
        stream = ChurnStream(connections, mix=mix, seed=1)
        return Churned(make_table(round(connections * 1.05) + 1024), stream, batch)

    return make
