"""Recorded exchanges of the Linux kernel: what the tap says of both ends, and what the kernel said of its sockets."""

import json
from pathlib import Path

import pytest

from fasttcp.observe.track import track

FOLDER = Path(__file__).resolve().parent.parent / "captures"
NAMES = sorted(path.stem for path in FOLDER.glob("*.pcap"))

# Where the tap must say something else than the kernel: (a, b) and why.
DIFFERENT = {
    "connect_timeout": (("SYN_SENT", "SYN_RCVD"), "giving up is no packet; what was sent is taken for received"),
    "left_connecting": (("SYN_SENT", "SYN_RCVD"), "the SYN was lost behind the tap"),
    "left_half_open": (("ESTABLISHED", "SYN_RCVD"), "the SYN+ACK was lost behind the tap"),
    "keepalive_timeout": (("CLOSED", "CLOSED"), "the RST was lost behind the tap"),
    "forged_reset": (("CLOSED", "CLOSED"), "a RST in the window is believed (case 57); this kernel challenges it"),
    "orphan_fin_wait_2": (("FIN_WAIT_2", "CLOSE_WAIT"), "tcp_fin_timeout passes without a packet"),
}
# One tuple for both ends: the tap sees one host that does everything, and can tell no second one.
ONE_END = "self_connect"


def ends(connection, account):
    """The states of a and b."""
    orig = [connection.orig_addr, connection.orig_port]
    states = (connection.orig_state.name, connection.resp_state.name)
    return states if orig == account["a"] else states[::-1]


@pytest.mark.parametrize("name", [name for name in NAMES if name != ONE_END])
def test_final_states_are_the_kernels(name):
    account = json.loads((FOLDER / f"{name}.json").read_text())
    connections = list(track(FOLDER / f"{name}.pcap", profile="linux"))
    assert len(connections) == account["connections"]
    kernel = (account["final"]["a"], account["final"]["b"])
    expected, why = DIFFERENT.get(name, (kernel, ""))
    assert ends(connections[-1], account) == expected, why
    assert (name in DIFFERENT) == (expected != kernel), f"{name} is no exception any more"


@pytest.mark.parametrize("name", [name for name in NAMES if name != ONE_END])
def test_packets_and_bytes_are_those_on_the_wire(name):
    account = json.loads((FOLDER / f"{name}.json").read_text())
    tracked = track(FOLDER / f"{name}.pcap", profile="linux")
    connections = list(tracked)
    counters = tracked.counters()
    assert counters["packets"] == account["packets"]
    assert sum(each.orig_packets + each.resp_packets for each in connections) == counters["segments"]
    # The forged RST is believed, its number too; in mid-stream what came before is not known.
    if name in ("mid_stream", "forged_reset") or account["connections"] != 1:
        return
    only = connections[0]
    sizes = {(only.orig_addr, only.orig_port): only.orig_bytes, (only.resp_addr, only.resp_port): only.resp_bytes}
    for side in "ab":
        assert sizes[tuple(account[side])] == account["bytes"][side]["sent"]


def test_self_connect_is_one_host_talking_to_itself():
    (only,) = track(FOLDER / f"{ONE_END}.pcap", profile="linux")
    assert (only.orig_addr, only.orig_port) == (only.resp_addr, only.resp_port)
    assert only.resp_packets == 0
    assert only.history.upper() == only.history


def test_time_wait_reopened_is_two_connections_and_the_first_one_closed():
    first, second = track(FOLDER / "time_wait_reopened.pcap", profile="linux")
    assert (first.end, second.end) == ("closed", "open")
    assert first.last_ns <= second.first_ns


def test_handshake_round_trip_is_that_of_the_recorded_packets():
    (only,) = track(FOLDER / "close_by_client.pcap")
    assert 0 < only.rtt_ns < 5_000_000
    (repeated,) = track(FOLDER / "syn_lost.pcap")
    assert repeated.rtt_ns is None


@pytest.mark.parametrize(
    ("name", "conn_state", "history"),
    [
        ("close_by_client", "SF", "ShADadFf"),
        ("close_by_server", "SF", "ShADadfF"),
        ("data_lost", "SF", "ShADaTFf"),
        ("refused", "REJ", "Sr"),
        ("reset_by_linger", "RSTO", "ShADadR"),
        ("reset_unread_data", "RSTR", "ShADar"),
        ("connect_timeout", "S0", "S"),
        ("left_established", "S1", "ShADad"),
        ("left_half_closed", "S2", "ShAFad"),
        ("zero_window", "SF", "ShADawTFf"),
        ("mid_stream", "SF", "DadAFf"),
    ],
)
def test_letters_of_the_same_exchanges(name, conn_state, history):
    (only,) = track(FOLDER / f"{name}.pcap", profile="linux")
    assert (only.conn_state, only.history, only.missed_bytes) == (conn_state, history, 0)


def test_zeek_misses_the_payload_that_was_not_captured():
    (only,) = track(FOLDER / "close_by_client.pcap", profile="zeek")
    assert (only.history, only.missed_bytes) == ("ShADaGdgFf", 400)
