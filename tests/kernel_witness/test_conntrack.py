"""The kernel's nf_conntrack and the observer seat agree on every exchange, but for the differences that are listed."""

import platform
import re
from pathlib import Path

import pytest
from kernel import conntrack, netns

from kernel_witness import document, living
from kernel_witness.compare import EXPECTED, MAPPING, Ours, differences, replay
from kernel_witness.differences import CAUSES, DIFFERENCES, OLDEST
from kernel_witness.exchanges import LEFT_OUT, captured, exchanges
from kernel_witness.script import BY_HAND, Script

KNOWN = {each.name: each for each in exchanges()}
LISTED = [found for rows in DIFFERENCES.values() for found in rows]


@pytest.fixture(scope="module")
def gateway():
    if reason := netns.why_not() or conntrack.why_not():
        pytest.skip(reason)
    release = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
    if release < OLDEST:
        pytest.skip(f"the list is that of Linux {OLDEST[0]}.{OLDEST[1]} and later, this is {platform.release()}")
    hosts = [sorted({getattr(each, side)[0] for each in KNOWN.values()}) for side in "ab"]
    with conntrack.Gateway(*hosts) as made:
        yield made


@pytest.mark.parametrize("name", KNOWN)
def test_accounts_differ_exactly_as_listed(name, gateway):
    steps = replay(KNOWN[name], gateway)
    assert len(steps) == len(KNOWN[name].segments) > 0
    assert differences(KNOWN[name], steps) == sorted(found for found in LISTED if found.exchange == name)


# The witness itself: what it says must mean what the comparison takes it for.


def script(play):
    made = Script()
    play(made)
    return made.segments


def test_witness_drops_a_wrong_checksum_and_knows_no_connection_then(gateway):
    gateway.flush()
    (syn,) = script(lambda s: s.a("S"))
    broken = bytearray(syn.packet)
    broken[36] ^= 0xFF  # within the TCP checksum
    a, b = KNOWN["hand/rst_exact"].a, KNOWN["hand/rst_exact"].b
    assert gateway.send("a", bytes(broken)) is False
    assert gateway.entry(a, b) is None
    assert gateway.send("a", syn.packet) is True
    entry = gateway.entry(a, b)
    assert (entry.state, entry.originator, entry.packets) == ("SYN_SENT", a, 1)
    assert gateway.entry(b, a) == entry


def test_witness_counts_what_it_believes_and_not_what_it_ignores(gateway):
    gateway.flush()
    counts = []
    exchange = KNOWN["hand/syn_on_a_live_connection"]
    for segment in exchange.segments:
        assert gateway.send(segment.side, segment.packet)
        counts.append(gateway.entry(exchange.a, exchange.b).packets)
    assert exchange.segments[7].letters == "S"
    assert counts[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert counts[7] == 7


def test_witness_forgets_and_tells_two_entries_of_one_tuple_apart(gateway):
    exchange = KNOWN["hand/rst_exact"]
    births = []
    for _ in range(3):
        gateway.flush()
        assert gateway.entry(exchange.a, exchange.b) is None
        assert gateway.send("a", exchange.segments[0].packet)
        births.append(gateway.entry(exchange.a, exchange.b).born)
    assert len(set(births)) == 3


def test_reason_where_the_kernel_has_no_connection_tracking(gateway, monkeypatch):
    def refuse():
        raise OSError(95, "nf_tables: Operation not supported")

    monkeypatch.setattr(conntrack, "drop_invalid", refuse)
    reason = conntrack.why_not()
    assert reason is not None and "nf_tables: Operation not supported" in reason


# The list, the mapping and the page, without a kernel.


def test_list_names_known_exchanges_and_segments_once():
    assert set(DIFFERENCES) == set(CAUSES)
    assert len(LISTED) == len(set(LISTED))
    for found in LISTED:
        assert 1 <= found.first <= found.last <= len(KNOWN[found.exchange].segments)
    assert {cause.right for cause in CAUSES.values()} <= {"fasttcp", "conntrack", "both", "neither"}
    for cause in CAUSES.values():
        assert "RFC" in cause.why


def test_mapping_is_one_state_for_each_pair_and_covers_conntrack():
    assert len(EXPECTED) == sum(len(pairs) for pairs in MAPPING.values())
    assert set(MAPPING) == set(conntrack.STATES) - {"NONE"}


def test_every_capture_is_replayed_or_left_out_for_a_reason():
    assert {each.name for each in captured()} | LEFT_OUT == {
        path.stem for path in (Path(__file__).resolve().parent.parent / "captures").glob("*.pcap")
    }
    assert len({play.__name__ for play in BY_HAND}) == len(BY_HAND)
    assert all(play.__doc__ for play in BY_HAND)


@pytest.mark.tree
def test_page_is_fresh():
    assert document.main(["--check"]) == 0


# What the comparison has found, held where no kernel can be asked.


def states_and_objections(play):
    made = Script()
    play(made)
    exchange = KNOWN["hand/rst_exact"]._replace(segments=made.segments)
    ours = Ours(exchange)
    return [ours.receive(segment)[:2] for segment in made.segments]


def test_case_20_a_rst_one_below_is_no_reset_before_a_fin():
    told = states_and_objections(living.rst_just_below)
    assert told[7:] == [
        (("ESTABLISHED", "ESTABLISHED"), "suspect"),
        (("ESTABLISHED", "ESTABLISHED"), ""),
        (("ESTABLISHED", "ESTABLISHED"), ""),
    ]


def test_case_20_a_rst_one_below_is_a_reset_after_a_fin():
    def play(s):
        s.talked()
        s.a("FA")
        s.b("A")
        s.a("R", seq=-1)

    assert states_and_objections(play)[-2:] == [(("FIN_WAIT_2", "CLOSE_WAIT"), ""), (("CLOSED", "CLOSED"), "")]
