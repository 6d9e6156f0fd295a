"""The committed captures are what they say they are, and this kernel still behaves like the one that made them.

Read with tests/kernel's parser, not fasttcp's: they are the independent side of later comparisons.
"""

import ipaddress
import json
import subprocess
import sys
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from captures import record
from captures.exchanges import EXCHANGES
from kernel import frames, netns, pcap

FOLDER = Path(__file__).resolve().parent / "captures"
NAMES = sorted(EXCHANGES)
TOUCHING_WIRE = [name for name in NAMES if name != "self_connect"]
KEYS = [
    "name", "what", "kernel", "sysctls", "recorded_at", "a", "b", "connections", "opened_by", "closed_first_by",
    "outcome", "bytes", "packets", "lost", "forged", "final", "states",
]  # fmt: skip

# RFC 9293 figure 5, as one end moves between two looks at it. LISTEN is not shown: a passive end starts from CLOSED.
# FIN_WAIT_1 to TIME_WAIT is section 3.6's FIN that acknowledges ours. Each state but TIME_WAIT may be left for CLOSED.
MOVES = {
    "CLOSED": {"SYN_SENT", "SYN_RCVD"},
    "SYN_SENT": {"SYN_RCVD", "ESTABLISHED", "CLOSED"},
    "SYN_RCVD": {"ESTABLISHED", "FIN_WAIT_1", "CLOSED"},
    "ESTABLISHED": {"FIN_WAIT_1", "CLOSE_WAIT", "CLOSED"},
    "FIN_WAIT_1": {"FIN_WAIT_2", "CLOSING", "TIME_WAIT", "CLOSED"},
    "FIN_WAIT_2": {"TIME_WAIT", "CLOSED"},
    "CLOSE_WAIT": {"LAST_ACK", "CLOSED"},
    "CLOSING": {"TIME_WAIT", "CLOSED"},
    "LAST_ACK": {"CLOSED"},
    "TIME_WAIT": {"SYN_RCVD", "CLOSED"},  # SYN_RCVD: section 3.6.1, MAY-2
}

# Who sent which flags, "data" runs left out, in order. Only where the exchange leaves the kernel no choice.
OPEN = "aS bSA aA"
TALK = "aA bA bA aA"
A_FIRST = "aFA bA bFA aA"
B_FIRST = "bFA aA aFA bA"
FLAGS = {
    "close_by_client": f"{OPEN} {TALK} {A_FIRST}",
    "close_by_server": f"{OPEN} {TALK} {B_FIRST}",
    "close_three_segments": f"{OPEN} {TALK} aFA bFA aA",
    "close_simultaneous": f"{OPEN} {TALK} aFA bFA aA bA",
    "self_connect": "aS aSA aA aA aA aFA aA",
    "half_close": f"{OPEN} aA bA aFA bA bA aA bA aA bA aA bFA aA",
    "ipv6_close": f"{OPEN} {TALK} {A_FIRST}",
    "arp_first": f"{OPEN} {A_FIRST}",
    "vlan": f"{OPEN} {TALK} {B_FIRST}",
    "refused": "aS bRA",
    "reset_by_linger": f"{OPEN} {TALK} aRA",
    "reset_unread_data": f"{OPEN} aA bA bRA",
    "reset_data_after_close": f"{OPEN} aFA bA bA aR",
    "reset_while_connecting": "aS bSA aR",
    "forged_reset": f"{OPEN} aR bA {A_FIRST}",
    "forged_syn": f"{OPEN} aS bA {A_FIRST}",
    "connect_timeout": "aS aS",
    "syn_lost": f"aS {OPEN} {A_FIRST}",
    "handshake_ack_lost": f"{OPEN} aA bA {A_FIRST}",
    "fin_lost": f"{OPEN} aFA {A_FIRST}",
    "last_ack_lost": f"{OPEN} {A_FIRST} bFA aA",
    "keepalive_answered": f"{OPEN} {TALK} aA bA aA bA {A_FIRST}",
    "keepalive_timeout": f"{OPEN} aA aA aRA",
    "orphan_fin_wait_2": f"{OPEN} aFA bA",
    "time_wait_reopened": f"{OPEN} {TALK} {B_FIRST} {OPEN} {TALK}",
    "left_established": f"{OPEN} {TALK}",
    "left_half_closed": f"{OPEN} aFA bA bA aA",
    "left_connecting": "aS",
    "left_half_open": "aS bSA",
    "mid_stream": f"{TALK} {A_FIRST}",
}


def load(name, folder=FOLDER):
    """(account, [(record, Tcp or None)])"""
    account = json.loads((folder / f"{name}.json").read_text())
    return account, [(each, frames.parse(each.data)) for each in pcap.read(folder / f"{name}.pcap")]


def side_of(segment, account):
    return "a" if [segment.source, segment.source_port] == account["a"] else "b"


def segments(name, folder=FOLDER):
    """(account, [(side, Tcp)]), nothing but TCP."""
    account, packets = load(name, folder)
    return account, [(side_of(tcp, account), tcp) for _, tcp in packets if tcp]


def flags(name, folder=FOLDER):
    return " ".join(side + tcp.names for side, tcp in segments(name, folder)[1])


def moves(account):
    """For each end, the states that it was seen in, without repetition."""
    return {side: [state for state, _ in groupby(entry[side] for entry in account["states"])] for side in "ab"}


def covered(side, packets):
    """Payload bytes that a side put on the wire, each sequence number counted once, retransmissions or not."""
    runs = [(tcp.seq, tcp.length) for sender, tcp in packets if sender == side and tcp.length]
    if not runs:
        return 0
    total = end = 0
    # Relative to the first, as numbers wrap; the lowest comes first even where the capture has it later.
    for start, length in sorted((((seq - runs[0][0] + 2**31) % 2**32), length) for seq, length in runs):
        total += max(0, start + length - max(start, end))
        end = max(end, start + length)
    return total


def test_every_exchange_is_committed_and_nothing_else():
    assert {path.stem for path in FOLDER.glob("*.pcap")} == set(NAMES)
    assert {path.stem for path in FOLDER.glob("*.json")} == set(NAMES)
    assert all(path.stat().st_size < 8192 for path in FOLDER.glob("*.[pj]*") if path.suffix != ".py")


@pytest.mark.parametrize("name", NAMES)
def test_account_follows_the_schema(name):
    account, packets = load(name)
    assert list(account) == KEYS
    assert account["name"] == name
    assert account["what"] == EXCHANGES[name].what
    assert account["kernel"].startswith("Linux ")
    assert account["recorded_at"] == EXCHANGES[name].options.get("recorded_at", "wire")
    assert account["packets"] == len(packets)
    assert account["opened_by"] in ("a", "both")
    assert account["closed_first_by"] in ("a", "b", "both", None)
    assert account["connections"] == (2 if name == "time_wait_reopened" else 1)
    assert all(1 <= number <= len(packets) for number in account["lost"] + account["forged"])
    assert {"tcp_syn_retries", "tcp_fin_timeout", "tcp_timestamps"} <= set(account["sysctls"])
    for side in "ab":
        address, port = account[side]
        network = "fd00::/8" if ":" in address else "198.18.0.0/15"
        assert ipaddress.ip_address(address) in ipaddress.ip_network(network)
        assert port in (80, 40000)
        assert set(account["bytes"][side]) == {"sent", "received"}
        assert account["outcome"][side] in (None, "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT")
        assert account["final"][side] == account["states"][-1][side]


@pytest.mark.parametrize("name", NAMES)
def test_time_line_is_in_order_and_on_the_clock_of_the_capture(name):
    account, packets = load(name)
    line = account["states"]
    assert all(list(entry) == ["time_ns", "packets", "a", "b", "event"] for entry in line)
    assert {entry[side] for entry in line for side in "ab"} <= set(MOVES)
    assert (line[0]["packets"], line[-1]["packets"]) == (0, len(packets))
    for before, after in pairwise(line):
        assert before["time_ns"] < after["time_ns"]
        assert before["packets"] <= after["packets"]
    times = [each.time_ns for each, _ in packets]
    assert times == sorted(times)
    for entry in line:
        assert all(time_ns <= entry["time_ns"] for time_ns in times[: entry["packets"]])
        assert all(time_ns > entry["time_ns"] for time_ns in times[entry["packets"] :])


@pytest.mark.parametrize("name", NAMES)
def test_packets_are_whole_enough_and_right(name):
    account, packets = load(name)
    ends = {tuple(account["a"]), tuple(account["b"])}
    for each, tcp in packets:
        if tcp is None:  # neighbour discovery (type 135, 136) or ARP, only where it is asked for
            assert not EXCHANGES[name].options.get("neighbours", True)
            assert each.data[54] in (135, 136) if name == "ipv6_close" else each.data[12:14] == b"\x08\x06"
            continue
        assert {(tcp.source, tcp.source_port), (tcp.destination, tcp.destination_port)} == ends
        assert tcp.vlan == (10 if name == "vlan" else None)
        assert tcp.checksum_ok is (True if len(each.data) == each.wire_length else None)
        assert len(each.data) == min(each.wire_length, 128)


@pytest.mark.parametrize("name", NAMES)
def test_payload_on_the_wire_is_what_the_sockets_sent(name):
    account, packets = segments(name)
    for side, other in (("a", "b"), ("b", "a")):
        assert covered(side, packets) == account["bytes"][side]["sent"]
        if name != "self_connect":
            assert account["bytes"][other]["received"] <= account["bytes"][side]["sent"]
    if name == "self_connect":
        assert account["bytes"]["a"] == {"sent": 50, "received": 50}


@pytest.mark.parametrize("name", NAMES)
def test_roles_are_those_on_the_wire(name):
    account, packets = segments(name)
    genuine = [each for number, each in enumerate(packets, 1) if number not in account["forged"]]
    openers = {side for side, tcp in genuine if tcp.names == "S"}
    assert openers == {"a": {"a"}, "both": {"a", "b"}}[account["opened_by"]] or name == "mid_stream"
    enders = [(side, tcp) for side, tcp in genuine if tcp.flags & (frames.FIN | frames.RST)]
    if name == "refused" or account["closed_first_by"] is None:
        assert all(tcp.flags & frames.RST for _, tcp in enders)
    elif account["closed_first_by"] == "both":
        first, second = enders[:2]
        assert {first[0], second[0]} == {"a", "b"}
        assert all(one.ack == other.seq for one, other in ((first[1], second[1]), (second[1], first[1])))
    elif enders[0][0] != account["closed_first_by"]:
        pytest.fail(f"{enders[0][0]} ended first on the wire")


@pytest.mark.parametrize("name", TOUCHING_WIRE)
def test_each_end_moved_along_arcs_of_figure_5(name):
    account, _ = load(name)
    for side, seen in moves(account).items():
        for before, after in pairwise(seen):
            assert after in MOVES[before], f"{side}: {before} to {after}"


@pytest.mark.parametrize("name", sorted(FLAGS))
def test_flags_are_those_of_the_exchange(name):
    assert flags(name) == FLAGS[name]


# What the table of flags cannot say.


def test_open_simultaneous_passes_syn_rcvd_on_both_sides():
    account, packets = segments("open_simultaneous")
    assert [side + tcp.names for side, tcp in packets[:4]] == ["aS", "bS", "aSA", "bSA"]
    for states in moves(account).values():
        assert states[:4] == ["CLOSED", "SYN_SENT", "SYN_RCVD", "ESTABLISHED"]


def test_close_simultaneous_passes_closing_on_both_sides():
    account, _ = load("close_simultaneous")
    for states in moves(account).values():
        assert states[-4:] == ["ESTABLISHED", "FIN_WAIT_1", "CLOSING", "TIME_WAIT"]


def test_close_three_segments_skips_fin_wait_2():
    states = moves(load("close_three_segments")[0])
    assert states["a"][-2:] == ["FIN_WAIT_1", "TIME_WAIT"]
    assert states["b"][-3:] == ["CLOSE_WAIT", "LAST_ACK", "CLOSED"]


def test_forged_segments_are_answered_and_change_no_state():
    for name in ("forged_reset", "forged_syn"):
        account, packets = segments(name)
        (number,) = account["forged"]
        assert packets[number][0] + packets[number][1].names == "bA"
        around = [entry for entry in account["states"] if number - 1 <= entry["packets"] <= number + 1]
        assert {entry[side] for entry in around for side in "ab"} <= {"ESTABLISHED", "FIN_WAIT_1"}


def test_time_wait_reopened_by_a_syn():
    account, _ = load("time_wait_reopened")
    assert "TIME_WAIT SYN_RCVD ESTABLISHED" in " ".join(moves(account)["b"])
    assert account["final"] == {"a": "ESTABLISHED", "b": "ESTABLISHED"}


def test_syn_ack_lost_repeats_the_handshake_and_opens_once():
    account, packets = segments("syn_ack_lost")
    names = [side + tcp.names for side, tcp in packets]
    assert account["lost"] == [2]
    assert names[:3] == ["aS", "bSA", "aS"]
    assert len({tcp.seq for side, tcp in packets if "S" in tcp.names and side == "a"}) == 1
    assert " ".join(names).endswith(A_FIRST)


def test_data_lost_is_sent_again():
    account, packets = segments("data_lost")
    (number,) = account["lost"]
    lost = packets[number - 1][1]
    again = [tcp for side, tcp in packets[number:] if side == "a" and tcp.seq == lost.seq and tcp.length]
    assert len(again) == 1
    assert account["bytes"]["b"]["received"] == 6000


def test_data_lost_before_the_tap_leaves_a_hole_that_is_filled_later():
    account, packets = segments("data_lost_before_tap")
    runs = [tcp for side, tcp in packets if side == "b" and tcp.length]
    assert len(runs) == 6  # seven were sent, one of them never came this far
    assert [tcp.seq for tcp in runs] != sorted(tcp.seq for tcp in runs)
    assert account["bytes"]["a"]["received"] == 6000


def test_data_reordered_has_a_fin_before_its_data():
    account, packets = segments("data_reordered")
    (fin,) = [number for number, (side, tcp) in enumerate(packets) if side == "a" and "F" in tcp.names]
    last = max(number for number, (side, tcp) in enumerate(packets) if side == "a" and tcp.length)
    assert fin < last
    after_fin = [entry["b"] for entry in account["states"] if entry["packets"] == fin + 2]  # the FIN and its answer
    assert after_fin[0] == "ESTABLISHED"
    assert account["bytes"]["b"]["received"] == 1900


def test_zero_window_is_announced_and_probed():
    account, packets = segments("zero_window")
    closed = next(number for number, (side, tcp) in enumerate(packets) if side == "b" and tcp.window == 0)
    assert packets[closed + 1][0] == "a"
    assert packets[closed + 1][1].length == 0
    assert account["bytes"]["b"]["received"] == 8000
    assert " ".join(side + tcp.names for side, tcp in packets).endswith(A_FIRST)


def test_keepalive_probes_are_one_below_snd_nxt():
    _, packets = segments("keepalive_answered")
    nxt = packets[6][1].seq
    assert [tcp.seq for side, tcp in packets[7:11] if side == "a"] == [nxt - 1, nxt - 1]


def test_data_both_ways_crosses():
    account, packets = segments("data_both_ways")
    assert account["bytes"]["a"] == account["bytes"]["b"] == {"sent": 6000, "received": 6000}
    senders = "".join(side for side, tcp in packets if tcp.length)
    assert senders.count("aabb") == 3


def test_orphan_in_fin_wait_2_is_gone_without_a_packet():
    account, packets = load("orphan_fin_wait_2")
    assert moves(account)["a"][-2:] == ["FIN_WAIT_2", "CLOSED"]
    assert account["states"][-1]["packets"] == account["states"][-2]["packets"] == len(packets)
    assert account["final"]["b"] == "CLOSE_WAIT"


# This kernel, now.


@pytest.fixture(scope="module")
def can_record():
    if reason := netns.why_not():
        pytest.skip(reason)


@pytest.mark.parametrize(
    "name",
    ["close_three_segments", "close_simultaneous", "open_simultaneous", "refused", "self_connect", "left_half_open"],
)
@pytest.mark.usefixtures("can_record")
def test_this_kernel_does_it_again(name, tmp_path):
    committed, _ = load(name)
    for _ in range(3):  # a machine that stalls us for 40 ms lets a delayed ACK out, for 200 ms a retransmission
        now = record.record(name, tmp_path)
        if flags(name, tmp_path) == flags(name):
            break
    assert json.loads((tmp_path / f"{name}.json").read_text()) == now
    assert flags(name, tmp_path) == flags(name)
    assert moves(now) == moves(committed)
    for key in set(KEYS) - {"kernel", "sysctls", "states"}:
        assert now[key] == committed[key]
    for _, tcp in segments(name, tmp_path)[1]:
        assert tcp.checksum_ok is not False


def test_recorder_lists_what_there_is(capsys):
    assert record.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(EXCHANGES)


def test_recorder_refuses_an_unknown_exchange(capsys):
    with pytest.raises(SystemExit):
        record.main(["refused", "nonsense"])
    assert "no exchange named nonsense" in capsys.readouterr().err


def test_recorder_says_why_it_cannot_run(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(netns, "why_not", lambda: "needs root")
    assert record.main(["--into", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "record.py: cannot record here: needs root\n"
    assert not list(tmp_path.iterdir())


def test_recorder_runs_as_a_script_from_anywhere(tmp_path):
    script = FOLDER / "record.py"
    command = [sys.executable, str(script), "--list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert "close_by_client" in done.stdout
