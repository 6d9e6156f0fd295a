"""The simulation behind `plan`: against the closed formula, against naive models, and its own promises."""

import random
import struct

import pytest

from fasttcp import ConnectionTable, PortsExhausted, State
from fasttcp.load.formula import first_failure, formula
from fasttcp.load.loads import ANY_PAIR, RECORD, Load
from fasttcp.load.plan import make_plan
from fasttcp.load.simulation import PLANNED, SAMPLE_FIELDS, Simulation
from fasttcp.profiles import LINUX

SECOND = 10**9
# TIME_WAIT 2 s, 1,000 ports: a minute in a second
SHORT = LINUX.replace(msl="1s", ip_local_port_range=(20001, 21000), port_choice="in_turn")
EVEN = {"port_choice": "even_first"}


def plan(rate, profile=SHORT, seconds=20, **load):
    return make_plan(Load(rate=rate, **{"lifetime_ns": 100_000_000, **load}), profile, duration_ns=seconds * SECOND)


def near(value, wanted, share=0.02, least=3):
    return abs(value - wanted) <= max(least, share * abs(wanted))


# ---- the formula and the simulation say the same ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "load", "changes"),
    [
        (300, {}, {}),
        (300, {"server_share": 1.0}, {}),
        (300, {"server_share": 0.5}, {}),
        (900, {}, {}),
        (900, {"sources": 3}, {}),
        (2000, {"sources": 2, "destinations": 2}, {}),
        (900, {}, {"tcp_max_tw_buckets": 200}),
        (900, {"server_share": 0.5}, {"tcp_max_tw_buckets": 100}),
        (900, {}, {"tcp_tw_reuse": 1, "tcp_tw_reuse_delay": "500ms"}),
        (900, {"loopback": True}, {"tcp_tw_reuse": 2, "tcp_tw_reuse_delay": "500ms"}),
        (900, {}, {"tcp_tw_reuse": 2}),
        (900, {}, {"tcp_tw_reuse": 1, "tcp_timestamps": 0}),
        (900, {}, EVEN),
        (300, {"server_share": 1.0}, EVEN),
        (2000, {"server_share": 1.0, "sources": 2}, EVEN),
        (300, {"server_share": 1.0}, {**EVEN, "time_wait_syn_reopens": "seq"}),
        (900, {}, {**EVEN, "tcp_tw_reuse": 1, "tcp_tw_reuse_delay": "100ms"}),
        (900, {}, {**EVEN, "ip_local_port_range": (20001, 20999)}),
        (900, {}, {"msl": "250ms"}),
        (400, {"lifetime_ns": 4 * SECOND}, {}),
        (900, {"lifetime_ns": 2 * SECOND, "server_share": 1.0}, {}),
        (900, {}, {"ip_local_reserved_ports": tuple(range(20001, 20501))}),
    ],
)
def test_formula_and_simulation_agree(rate, load, changes):
    p = plan(rate, SHORT.replace(**changes), **load)
    f, s = p.formula, p.figures
    assert near(s["client_time_wait_steady"], f.client_time_wait)
    assert near(s["server_time_wait_steady"], f.server_time_wait)
    assert near(s["alive_steady"], f.alive, least=8)
    assert near(s["carried_per_second"], min(f.wall, rate))
    assert near(s["failures_per_second"], f.failures_a_second, least=rate * 0.01)
    assert (s["first_failure"] is None) == (f.first_failure_s is None)
    if f.first_failure_s is not None:
        assert near(s["first_failure"], f.first_failure_s, least=0.05)
    assert s["connects"] == s["opened"] + s["no_port"]
    assert s["refused"] == s["timed_out"] == 0


def test_first_failure_by_hand():
    assert first_failure(470, 28232, 0.0, 60, 0) is None  # 28,200 ports are wanted
    assert first_failure(2000, 28232, 0.2, 60, 0) == pytest.approx(14.116)
    assert first_failure(100, 1000, 60, 60, 1.0) == pytest.approx(10)  # alive connections alone fill the ports
    assert first_failure(100, 1000, 5, 60, 0.5) == pytest.approx(5 + 500 / 50)  # from 5 s on half come back
    assert first_failure(100, 1000, 5, 60, 1.0) is None


def test_the_formula_of_the_well_known_wall():
    """28,232 ports and 60 s: 470 connections a second for each pair."""
    f = formula(rate=1000, lifetime_s=0, pairs=1, ports=28232, server_share=0, time_wait_s=60)
    assert f.wall == pytest.approx(470.53, abs=0.01)
    assert f.client_time_wait == pytest.approx(28232)


# ---- what the tables are after it ------------------------------------------------------------------------------------


def simulation(profile, load, seconds=10, sample_ns=SECOND // 10):
    client = ConnectionTable(64, max_capacity=1 << 20, profile=profile, seed=1)
    server = ConnectionTable(64, max_capacity=1 << 20, profile=profile, seed=2)
    script, period = load.script
    run = Simulation(
        client, server, load.pairs, script, period, delay_ns=load.rtt_ns // 2, answer_ns=load.answer_ns,
        sample_ns=sample_ns, duration_ns=seconds * SECOND,
    )  # fmt: skip
    return client, server, run


@pytest.mark.parametrize("reuse", [0, 1, 2])
@pytest.mark.parametrize("server_share", [0.0, 0.5, 1.0])
def test_tables_keep_their_promises_while_ports_are_short(reuse, server_share):
    """Also crowds.pyx: a bit that is set for a port that may be free would be found here."""
    profile = SHORT.replace(tcp_tw_reuse=reuse, tcp_tw_reuse_delay="300ms")
    load = Load(rate=3000, lifetime_ns=400_000_000, sources=2, server_share=server_share, loopback=reuse == 2)
    client, server, run = simulation(profile, load)
    for until in range(1, 101):
        run.run(until * SECOND // 10)
        client.check_invariants()
        server.check_invariants()
    assert run.counts()["opened"] > 9_000


def test_samples_are_what_the_tables_hold():
    client, server, run = simulation(SHORT, Load(rate=700, lifetime_ns=50_000_000, server_share=0.5))
    run.run(3 * SECOND)
    last = dict(zip(SAMPLE_FIELDS, run.samples()[-1], strict=True))
    assert last["time_ns"] == 3 * SECOND and len(run.samples()) == 30
    assert last["client_time_wait"] == pytest.approx(client.counts()[State.TIME_WAIT], abs=2)
    assert last["server_time_wait"] == pytest.approx(server.counts()[State.TIME_WAIT], abs=2)
    assert last["ports_in_use"] == last["busiest_pair"] == pytest.approx(len(client), abs=3)


def test_two_runs_are_the_same_run():
    runs = []
    for _ in range(2):
        _, _, run = simulation(SHORT, Load(rate=1500, server_share=0.3))
        run.run(5 * SECOND)
        run.run(10 * SECOND)
        runs.append((run.samples(), run.counts()))
    assert runs[0] == runs[1]


def test_memory_follows_what_is_alive_not_the_length():
    load = Load(rate=400)
    sizes = []
    for seconds in (10, 100):
        _, _, run = simulation(SHORT, load, seconds, sample_ns=seconds * SECOND // 10)
        run.run(seconds * SECOND)
        sizes.append(run.nbytes)
    assert sizes[1] == sizes[0]


def test_a_peer_that_never_closes_piles_up_close_wait():
    """The client's FIN_WAIT_2 ends after tcp_fin_timeout; the server keeps every one of its sockets."""
    p = plan(100, SHORT.replace(tcp_fin_timeout="2s"), seconds=6, answer_ns=None)
    assert near(p.figures["client_fin_wait_2_peak"], 200)
    assert p.figures["client_time_wait_peak"] == 0
    assert near(p.figures["server_close_wait_peak"], 590)


def test_a_late_peer_holds_fin_wait_2_for_as_long():
    p = plan(100, SHORT, answer_ns=SECOND)
    assert near(p.figures["client_fin_wait_2_peak"], 100)
    assert near(p.figures["client_time_wait_steady"], 200)
    assert near(p.figures["server_close_wait_peak"], 100)


def test_resets_leave_no_time_wait():
    script = RECORD.pack(0, 1_000_000, ANY_PAIR, 2)
    client = ConnectionTable(64, profile=SHORT)
    server = ConnectionTable(64, profile=SHORT)
    run = Simulation(client, server, [("10.0.0.1", "10.0.0.2", 80)], script, 10_000_000, duration_ns=SECOND)
    run.run(SECOND)
    assert run.counts()["opened"] >= 99 and len(client) <= 1
    assert client.counts()[State.TIME_WAIT] == server.counts()[State.TIME_WAIT] == 0


def test_a_table_that_cannot_grow_says_so():
    load = Load(rate=1000, lifetime_ns=SECOND)
    script, period = load.script
    client = ConnectionTable(100, profile=SHORT)
    run = Simulation(client, ConnectionTable(4000), load.pairs, script, period, duration_ns=SECOND)
    with pytest.raises(MemoryError, match="100 on the client's side"):
        run.run(SECOND)
    client.check_invariants()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"period_ns": 0}, "period_ns is 0"),
        ({"delay_ns": 0}, "delay_ns is 0"),
        ({"pairs": []}, "at least one"),
        ({"pairs": [("10.0.0.1", "10.0.0.2", 0)]}, "port: 0 is outside"),
        ({"pairs": [("nowhere", "10.0.0.2", 80)]}, "source"),
        ({"script": b"123"}, "3 bytes"),
        ({"script": RECORD.pack(5, 1, 7, 0)}, "a pair or a closer that there is not"),
        ({"script": RECORD.pack(5, 1, 0, 3)}, "a pair or a closer that there is not"),
        ({"script": RECORD.pack(SECOND, 1, 0, 0)}, "out of order, or of the period"),
        ({"script": RECORD.pack(5, -1, 0, 0)}, "lives -1 ns"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    given = {"pairs": [("10.0.0.1", "10.0.0.2", 80)], "script": RECORD.pack(5, 1, 0, 0), "period_ns": SECOND} | change
    pairs, script, period = given.pop("pairs"), given.pop("script"), given.pop("period_ns")
    with pytest.raises(ValueError, match=message):
        Simulation(ConnectionTable(9), ConnectionTable(9), pairs, script, period, duration_ns=SECOND, **given)


def test_the_script_has_the_layout_that_is_told():
    assert struct.calcsize(PLANNED) == RECORD.size == 24


# ---- crowded remote ends: the same port is chosen as by looking at each ----------------------------------------------


def first_free(taken, first, many, start, step):
    """The first port from `start` on, in steps, that is not taken; going round. None: all of them are."""
    ports = (first + (start - first + k) % many for k in range(0, many, step))
    return next((port for port in ports if port not in taken), None)


def candidates(choice, taken, first, many, last):
    """Which ports a naive search may come to, after `last` was chosen before."""
    if choice == "in_turn":
        return {first_free(taken, first, many, last + 1, 1)}
    begin = last + 2 if (last - first) % 2 == 0 else last + 1
    found = set()
    for start in range(begin, begin + 16, 2):
        even = first_free(taken, first, many, start, 2)
        found.add(first_free(taken, first, many, start + 1, 2) if even is None else even)
    return found


@pytest.mark.parametrize("choice", ["in_turn", "even_first"])
@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_changes_no_choice(seed, choice):
    """A naive model: the next port in turn that no connection to this remote end has."""
    chance = random.Random(seed)
    first, many = 30001, 1500
    profile = LINUX.replace(ip_local_port_range=(first, first + many - 1), port_choice=choice)
    table = ConnectionTable(4000, profile=profile, seed=seed)
    live, last, failed = {}, None, 0
    for turn in range(9000):
        now = turn * 1000
        if live and chance.random() < (0.2 if turn // 2500 % 2 == 0 else 0.7):
            port = chance.choice(list(live))
            table.abort(live.pop(port), now)
            continue
        try:
            handle = table.open("10.0.0.1", 0, "10.0.0.2", 443, now)
        except PortsExhausted:
            assert len(live) == many
            failed += 1
            continue
        port = table.summary(handle)["orig_port"]
        if last is not None:
            assert port in candidates(choice, live, first, many, last)
        live[port], last = handle, port
        if turn % 500 == 0:
            table.check_invariants()
    assert failed > 20
    table.take_output()


def test_of_an_odd_number_of_ports_linux_leaves_out_the_last():
    table = ConnectionTable(20, profile=LINUX.replace(ip_local_port_range=(30000, 30004)))
    ports = [table.summary(table.open("10.0.0.1", 0, "10.0.0.2", 443, 0))["orig_port"] for _ in range(4)]
    assert set(ports[:2]) == {30000, 30002} and set(ports[2:]) == {30001, 30003}
    with pytest.raises(PortsExhausted):
        table.open("10.0.0.1", 0, "10.0.0.2", 443, 0)
    alone = ConnectionTable(20, profile=LINUX.replace(ip_local_port_range=(30000, 30000)))
    assert alone.summary(alone.open("10.0.0.1", 0, "10.0.0.2", 443, 0))["orig_port"] == 30000


def test_a_search_in_a_crowd_looks_at_no_row():
    """28,232 taken ports are passed over a word at a time: thousands of failing connects take no time."""
    table = ConnectionTable(30_000, seed=1)
    for _ in range(28_232):
        table.open("10.0.0.1", 0, "10.0.0.2", 443, 0)
    for _ in range(5_000):
        with pytest.raises(PortsExhausted):
            table.open("10.0.0.1", 0, "10.0.0.2", 443, 0)
    table.open("10.0.0.1", 0, "10.0.0.2", 444, 0)
    table.check_invariants()
