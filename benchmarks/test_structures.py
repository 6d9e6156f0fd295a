"""The core's parts alone: index, wheel, machine."""

from __future__ import annotations

import pytest
from fasttcp.core._timing import Rows, Timers, transitions

TICKS_2MSL = 6_000


@pytest.mark.benchmark(group="index")
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_index_insert(measure, connections, ipv6):
    rows = Rows(connections, ipv6=ipv6)
    rows.insert()
    measure(rows.insert, connections, setup=rows.remove)


@pytest.mark.benchmark(group="index")
@pytest.mark.parametrize("ahead", [True, False], ids=["prefetched", "one at a time"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_index_find(measure, connections, ahead, ipv6):
    rows = Rows(connections, ipv6=ipv6)
    rows.insert()
    assert measure(rows.find, connections, args=(ahead,)) == connections


@pytest.mark.benchmark(group="index")
def test_index_remove(measure, connections):
    rows = Rows(connections)
    measure(rows.remove, connections, setup=rows.insert)


@pytest.mark.benchmark(group="wheel")
def test_wheel_insert(measure, connections):
    timers = Timers(connections)
    measure(timers.insert, connections, setup=lambda: (timers.cancel(), ((1, 32_000), {}))[1])


@pytest.mark.benchmark(group="wheel")
def test_wheel_cancel(measure, connections):
    timers = Timers(connections)
    measure(timers.cancel, connections, setup=lambda: timers.insert(1, 32_000))


@pytest.mark.benchmark(group="wheel")
def test_wheel_expire(measure, connections):
    timers = Timers(connections)

    def setup():
        timers.insert(1, TICKS_2MSL)
        return (TICKS_2MSL,), {}

    assert measure(timers.expire, connections, setup=setup) == connections


@pytest.mark.benchmark(group="wheel")
def test_wheel_burst_in_one_tick(measure, connections):
    timers = Timers(connections)
    some = connections // 10

    def setup():
        timers.gather(some, 100)
        timers.expire(99)
        return (1,), {}

    assert measure(timers.expire, some, setup=setup) == some


@pytest.mark.benchmark(group="machine")
def test_machine_transitions(measure):
    measure(transitions, 1_000_000, args=(1_000_000,))
