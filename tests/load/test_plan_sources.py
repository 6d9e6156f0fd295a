"""Where a plan's load and policy come from: text, captures, and this host."""

import socket
import struct
import sys
from types import SimpleNamespace

import pytest

from fasttcp.errors import ProfileError
from fasttcp.load.captured import captured_load
from fasttcp.load.host import STATES, host_profile, host_state
from fasttcp.load.loads import Load, apply_changes, parse_changes, parse_closer, parse_ports, parse_rate, sysctl_value
from fasttcp.load.nat import two_clients_behind_nat
from fasttcp.packets.inet_diag import HostSocket, host_sockets
from fasttcp.profiles import LINUX
from fasttcp.spec import State

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "rate"), [("2000/s", 2000), ("2000", 2000), ("2k/s", 2000), ("120/min", 2), ("1.5/s", 1.5), ("3600/h", 1)]
)
def test_rates(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


def test_ports_and_closers():
    assert parse_ports("32768-60999") == parse_ports("32768\t60999") == (32768, 60999)
    assert [parse_closer(text) for text in ("client", "mix", "30%", "server")] == [0, 0.5, 0.3, 1]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tcp_fin_timeout", "30", "30s"),
        ("tcp_fin_timeout", "500ms", "500ms"),
        ("tcp_tw_reuse_delay", "1000", "1000ms"),
        ("rto_min", "200000", "200000us"),
        ("tcp_rfc1337", "1", True),
        ("tcp_tw_reuse", "2", 2),
        ("tcp_max_tw_buckets", "no limit", None),
        ("ip_local_port_range", "32768\t60999", (32768, 60999)),
        ("ip_local_reserved_ports", "8080,9000-9002", (8080, 9000, 9001, 9002)),
    ],
)
def test_a_bare_number_has_the_unit_of_the_sysctl(name, text, value):
    assert sysctl_value(name, text) == value
    LINUX.replace(**{name: sysctl_value(name, text)})


def test_changes_go_to_the_load_or_to_the_profile():
    load, profile = apply_changes(
        Load(rate=100), LINUX, parse_changes("msl=15s,net.ipv4.tcp_tw_reuse=1,sources=8,peer-closes-after=never")
    )
    assert (load.sources, load.answer_ns, profile.msl_ns, profile.tcp_tw_reuse) == (8, None, 15 * SECOND, 1)
    with pytest.raises(ProfileError, match="tcp_fin_timeout"):
        apply_changes(load, profile, {"tcp_fin_timeout": "0"})


def test_every_pair_has_its_name_once():
    pairs = Load(rate=1, sources=30, destinations=900).pairs
    assert len(set(pairs)) == len(pairs) == 27_000
    assert all(source.startswith("127.") for source, _, _ in Load(rate=1, sources=300, loopback=True).pairs)


def test_closers_of_a_mix_follow_no_pattern_of_the_pairs():
    records, _ = Load(rate=4000, sources=4, server_share=0.25).script
    closers = [closer for _, _, _, closer in struct.iter_unpack("=qqII", records)]
    for pair in range(4):
        assert sum(closers[pair::4]) == pytest.approx(250, abs=50)
    assert sum(closers) == 1000


# ---- captures --------------------------------------------------------------------------------------------------------


def connection(at, life, history, source="10.0.0.1", port=443):
    return SimpleNamespace(
        first_ns=at, duration_ns=life, history=history, orig_addr=source, resp_addr="10.0.0.9", resp_port=port, end="closed"
    )


def test_a_captured_load_keeps_arrivals_lifetimes_pairs_and_closers():
    load = captured_load([
        connection(7 * SECOND, SECOND, "ShADadfF"),
        connection(5 * SECOND, 2 * SECOND, "ShADadFf"),
        connection(6 * SECOND, SECOND, "S"),  # never answered
        connection(9 * SECOND, 3 * SECOND, "ShADaR", source="10.0.0.2"),
    ])  # fmt: skip
    captured = load.captured
    assert captured.arrivals == ((0, 2 * SECOND, 0, 0), (2 * SECOND, SECOND, 0, 1), (4 * SECOND, 3 * SECOND, 1, 2))
    assert captured.pairs == (("10.0.0.1", "10.0.0.9", 443), ("10.0.0.2", "10.0.0.9", 443))
    assert captured.period_ns == 6 * SECOND and load.rate == pytest.approx(0.5)
    assert (load.sources, load.destinations, load.server_share) == (2, 1, 0.5)
    assert load.busiest_share == pytest.approx(2 / 3)


# ---- this host -------------------------------------------------------------------------------------------------------


def test_sysctls_become_a_profile(tmp_path):
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "core").mkdir()
    for name, text in {
        "ipv4/tcp_fin_timeout": "30\n", "ipv4/tcp_tw_reuse": "1\n", "ipv4/ip_local_port_range": "15000\t61000\n",
        "ipv4/tcp_max_tw_buckets": "5000\n", "ipv4/ip_local_reserved_ports": "20000-20009\n", "core/somaxconn": "128\n",
        "ipv4/tcp_rto_min_us": "100000\n", "ipv4/tcp_syncookies": "9\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    profile, read = host_profile(str(tmp_path))
    assert profile.changes() == {
        "tcp_fin_timeout": "30s", "tcp_tw_reuse": 1, "ip_local_port_range": (15000, 61000), "tcp_max_tw_buckets": 5000,
        "ip_local_reserved_ports": tuple(range(20000, 20010)), "somaxconn": 128, "rto_min": "100ms",
    }  # fmt: skip
    assert "tcp_syncookies" not in read  # a value that nobody knows: the default stands
    with pytest.raises(FileNotFoundError, match="no sysctls"):
        host_profile(str(tmp_path / "nothing"))


def made_up(state, lport, rport=443, remote=b"\x0a\0\0\x09", inode=0):
    number = next(n for n, one in STATES.items() if one is state)
    return HostSocket(number, b"\x0a\0\0\x01", lport, remote, rport, 0, 0, inode)


def test_the_distance_from_the_wall():
    profile = LINUX.replace(ip_local_port_range=(40000, 40999), tcp_max_tw_buckets=10_000)
    sockets = [made_up(State.TIME_WAIT, 40000 + i) for i in range(600)]
    sockets += [made_up(State.ESTABLISHED, 40700 + i, inode=5) for i in range(100)]
    sockets += [made_up(State.TIME_WAIT, 443, 50000 + i) for i in range(50)]  # we are the server there
    sockets += [made_up(State.LISTEN, 40999, 0), made_up(State.TIME_WAIT, 40999, 7)]  # a listener in the range
    sockets += [made_up(State.CLOSE_WAIT, 80, 9, inode=3)]
    host = host_state(profile, sockets)
    assert host.states[State.TIME_WAIT] == 651
    assert [(pair.used, pair.time_wait) for pair in host.pairs] == [(700, 600)]
    text = "\n".join(host.lines(profile))
    assert "10.0.0.1 -> 10.0.0.9:443: 700 of 1,000 in use (70.0%), 600 in TIME_WAIT: 10.0 connections/s" in text
    assert "the wall is at 17/s" in text and "651 of tcp_max_tw_buckets = 10,000 (6.5%)" in text
    assert "1 connections that the peer has closed" in text
    load = host.load(profile)
    assert load.rate == pytest.approx(10) and load.lifetime_ns == 10 * SECOND and load.sources == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inet_diag is Linux's")
def test_the_hosts_sockets_are_listed_by_inet_diag():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            mine = client.getsockname()[1]
            server, _ = listener.accept()
            found = {(one.lport, one.rport): one for one in host_sockets() if port in (one.lport, one.rport)}
            assert STATES[found[port, 0].state] is State.LISTEN
            assert STATES[found[mine, port].state] is State.ESTABLISHED
            assert found[mine, port].names == ("127.0.0.1", "127.0.0.1") and found[mine, port].inode != 0
            client.close()
            server.close()
        found = {(one.lport, one.rport): one for one in host_sockets() if port in (one.lport, one.rport)}
        assert STATES[found[mine, port].state] is State.TIME_WAIT
        assert 0 < found[mine, port].expires_ms <= 62_100 and found[mine, port].inode == 0
        listing = list(host_sockets(1 << 10))
        assert port in {one.lport for one in listing} and {STATES[one.state] for one in listing} == {State.LISTEN}


def test_tcp_tw_recycle_locks_one_of_two_clients_behind_a_nat_out():
    result = two_clients_behind_nat(LINUX)
    assert result.tried == 20 and sorted(result.failed) == [0, 20] and result.failed_without == 0
