"""Every state meets every kind of segment, in both roles, beside a Linux socket in the same place.

After each segment the kernel's state (inet_diag) and its answer must be ours; differences.py lists where they are not.
"""

import re
from pathlib import Path

import pytest
from kernel.netns import why_not

from oracle.differences import CROWDS, DIFFERENCES, REASONS, SCENES, TIMED
from oracle.twin import LISTENING, PLACE, VERSIONS, Host, Twin

REASON = why_not()
ALWAYS = {"reset", "twice", "abort", "one_more", "blocks"}  # taken into account where they occur
needs_kernel = pytest.mark.skipif(REASON is not None, reason=REASON or "")
STATES = ("SYN_RCVD", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSING", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK")

# Segments for a connection whose RCV.NXT is {r} and whose SND.NXT is {n}.
PROBES = {
    "case_15_old_data": "A {r-5} ack {n} len 3",
    "case_15_data_beyond_the_window": "A {r+200000} ack {n} len 3",
    "case_15_empty_ack_beyond_the_window": "A {r+200000} ack {n}",
    "case_15_empty_ack_before_the_window": "A {r-1} ack {n}",
    "case_15_no_ack_flag": "P {r} len 3",
    "case_16_data_overlapping": "A {r-2} ack {n} len 6",
    "case_18_reset_at_rcv_nxt": "R {r}",
    "case_18_reset_with_ack_at_rcv_nxt": "RA {r} ack {n}",
    "case_19_reset_in_the_window": "R {r+1000}",
    "case_19_reset_outside_the_window": "R {r+200000}",
    "case_20_reset_before_rcv_nxt": "R {r-1}",
    "case_21_syn_in_the_window": "S {r+100} mss 1460",
    "case_21_syn_outside_the_window": "S {r-100000} mss 1460",
    "case_21_syn_ack_again": "SA 0 ack 1 mss 1460",
    "case_22_ack_of_the_future": "A {r} ack {n+1000}",
    "case_22_ack_of_the_far_past": "A {r} ack {n-300000}",
    "case_22_ack_of_the_near_past": "A {r} ack 0",
    "case_26_data_in_order": "A {r} ack {n} len 100",
    "case_26_fin_in_order": "FA {r} ack {n}",
    "case_26_data_and_fin": "FA {r} ack {n} len 100",
    "case_26_data_beyond_a_hole": "A {r+50} ack {n} len 10",
    "case_26_fin_beyond_a_hole": "FA {r+50} ack {n}",
    "case_30_fin_without_our_last_ack": "FA {r} ack 1",
    "case_37_fin_again": "FA {r-1} ack {n}",
    "pure_ack": "A {r} ack {n}",
    "pure_ack_again": "A {r} ack 1",
    "no_flags": "- {r} len 3",
    "syn_and_fin": "SF {r} mss 1460",
    "syn_and_reset": "SR {r}",
    "fin_without_ack": "F {r}",
    "everything": "SFRPAU {r} ack {n}",
}

# Segments for nobody, for a listener, and for whoever has sent a SYN.
OPENING = {
    "ack": "A 100 ack 77",
    "data": "A 100 ack 77 len 5",
    "syn_ack": "SA 100 ack 77 mss 1460",
    "fin": "FA 100 ack 77",
    "fin_without_ack": "F 100",
    "no_flags": "- 100 len 4",
    "no_flags_at_iss": "- 0 ack 1",
    "syn": "S 0 mss 1460",
    "syn_with_data": "S 0 mss 1460 len 20",
    "syn_fin": "SF 100 mss 1460",
    "syn_fin_at_0": "SF 0 mss 1460",
    "syn_ack_fin": "SFA 0 ack 1 mss 1460",
    "syn_reset": "SR 100",
    "syn_reset_with_ack": "SRA 0 ack 1",
    "reset": "R 100",
    "reset_with_ack": "RA 100 ack 77",
    "urgent": "U 100 len 2",
    "everything": "SFRPAU 100 ack 77",
    "good_syn_ack": "SA 0 ack 1 mss 1460 ws 7",
    "good_syn_ack_with_data": "SA 0 ack 1 mss 1460 len 10",
    "good_ack": "A 0 ack 1",
    "good_fin": "FA 0 ack 1",
    "good_reset": "RA 0 ack 1",
    "case_04_ack_of_iss": "A 0 ack 0",
    "case_04_syn_ack_of_iss": "SA 0 ack 0 mss 1460",
    "case_04_syn_ack_of_the_future": "SA 0 ack 2 mss 1460",
    "case_05_reset_without_ack": "R 0",
    "case_05_reset_of_iss": "RA 0 ack 0",
    "case_05_reset_of_the_future": "RA 0 ack 2",
}


def filled(words, r, n):
    for name, value in (("r", r), ("n", n)):
        while f"{{{name}" in words:
            begin = words.index(f"{{{name}")
            end = words.index("}", begin)
            words = f"{words[:begin]}{value + int(words[begin + 2 : end] or 0)}{words[end + 1 :]}"
    return words


@pytest.fixture(scope="module", params=VERSIONS)
def host(request):
    with Host(VERSIONS[request.param]) as made:
        yield made


def told(twin, state, role, probe):
    known = DIFFERENCES.get((state, role, probe))
    if known is None:
        assert not twin.differences, "\n".join([*twin.log, *twin.differences])
    else:
        assert twin.differences, f"no difference any more: take {(state, role, probe)} ({known}) out of differences.py"


@needs_kernel
@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("role", ["active", "passive"])
@pytest.mark.parametrize("state", STATES)
def test_every_segment_in_every_synchronized_state(host, state, role, probe):
    r, n = PLACE[state]
    with Twin(host, passive=role == "passive") as twin:
        twin.in_state(state, role == "passive")
        if state == "SYN_RCVD" and role == "active":
            twin.differences.clear()  # the options of a crossed SYN+ACK
        assert not twin.differences, "\n".join(twin.differences)
        twin.get(filled(PROBES[probe], r, n))
        # And what follows shows what the segment left behind.
        twin.get(f"A {r} ack {n}")
        twin.get(f"R {r}")
        told(twin, state, role, probe)


@needs_kernel
@pytest.mark.parametrize("probe", OPENING)
@pytest.mark.parametrize("state", ["CLOSED", "LISTEN", "SYN_SENT"])
def test_every_segment_before_a_connection(host, state, probe):
    with Twin(host, passive=state != "SYN_SENT") as twin:
        if state == "CLOSED":
            for side in twin.sides:
                side.lport = LISTENING + 1
        twin.in_state(state)
        # After a wrong ACK both send the SYN again within some milliseconds; when exactly is for test_timers.py.
        twin.forgiven = re.compile("^S 0 .*")
        twin.get(OPENING[probe])
        twin.get("A 1 ack 1")
        twin.get("R 1")
        told(twin, state, "any", probe)


# ---- calls -----------------------------------------------------------------------------------------------------------

def without_ack(twin):
    """The differences, a RST of Linux's that carries an ACK taken for one that does not (differences.py, "reset")."""
    return [each for each in twin.differences if not re.search(r"sent \['RA (\d+) ack \d+'\].*sent \['R \1'\]", each)]


@needs_kernel
@pytest.mark.parametrize("call", ["send", "shutdown", "close", "abort", "read"])
@pytest.mark.parametrize("role", ["active", "passive"])
@pytest.mark.parametrize("state", STATES[1:])
def test_every_call_in_every_synchronized_state(host, state, role, call):
    r, n = PLACE[state]
    with Twin(host, passive=role == "passive") as twin:
        twin.in_state(state, role == "passive")
        if call == "send":
            twin.send(100)
        else:
            getattr(twin, call)()
        if (state, call) == ("TIME_WAIT", "abort"):
            assert [side.state for side in twin.sides] == ["TIME_WAIT", "CLOSED"]  # differences.py, "abort"
            return
        if call == "shutdown" and state not in ("ESTABLISHED", "CLOSE_WAIT"):
            twin.differences = [each for each in twin.differences if not each.endswith("sent [] (refused)")]  # "twice"
        twin.get(f"A {r} ack {n}")
        assert not without_ack(twin), "\n".join([*twin.log, *twin.differences])


@needs_kernel
@pytest.mark.parametrize("isn", [0, 0x7FFFFFF0, 0xFFFFFFF0])
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("role", ["active", "passive"])
def test_case_16_a_conversation_through_the_wrap(host, role, timestamps, isn):
    with Twin(host, passive=role == "passive", isn=isn, timestamps=timestamps) as twin:
        twin.established(role == "passive")
        for n in range(4):
            twin.get(f"A {1 + 50 * n} ack {1 + 30 * n} len 50")
            twin.read()
            twin.send(30)
            twin.get(f"A {51 + 50 * n} ack {31 + 30 * n}")
        twin.shutdown()
        twin.get("A 201 ack 122")
        twin.get("A 201 ack 122 len 10")  # case 31: half-closed, and still receiving
        twin.read()
        twin.get("FA 211 ack 122")
        twin.get("FA 211 ack 122")  # case 40
        assert not twin.differences, "\n".join([*twin.log, *twin.differences])
        assert twin.sides[1].state == "TIME_WAIT"


@needs_kernel
@pytest.mark.parametrize("role", ["active", "passive"])
def test_case_34_close_with_unread_data_resets(host, role):
    with Twin(host, passive=role == "passive") as twin:
        twin.established(role == "passive")
        twin.get("A 1 ack 1 len 10")
        twin.close()
        assert not without_ack(twin), "\n".join(twin.differences)
        assert twin.last[0].startswith("R")


@needs_kernel
@pytest.mark.parametrize("role", ["active", "passive"])
@pytest.mark.parametrize("acked", [False, True])
def test_case_34_data_after_a_full_close_resets(host, role, acked):
    with Twin(host, passive=role == "passive") as twin:
        twin.established(role == "passive")
        twin.close()
        if acked:
            twin.get("A 1 ack 2")
        twin.get(f"A 1 ack {2 if acked else 1} len 10")
        assert not twin.differences, "\n".join(twin.differences)


@needs_kernel
@pytest.mark.parametrize("passive", [False, True], ids=["case_08_syn", "case_13_syn_ack"])
def test_an_opening_is_sent_again_after_a_second(host, passive):
    with Twin(host, passive=passive) as twin:
        twin.in_state("SYN_RCVD" if passive else "SYN_SENT", passive)
        twin.wait(1.1)
        mss = 1500 - host.version.header - 20  # what the MTU leaves
        assert twin.last == ([f"SA 0 ack 1 mss {mss} ws"] if passive else [f"S 0 mss {mss} sack ts ws"])
        assert not twin.differences, "\n".join(twin.differences)


@needs_kernel
def test_case_39_a_fin_is_sent_again(host):
    with Twin(host) as twin:
        twin.established()
        twin.shutdown()
        # Before the first sample of a round trip is large, Linux waits 200 ms and a round trip; so do we.
        twin.wait(0.35)
        assert twin.last and set(twin.last) == {"FA 1 ack 1"}
        twin.get("A 1 ack 2")
        assert twin.sides[1].state == "FIN_WAIT_2"


@needs_kernel
@pytest.mark.parametrize("dated", ["later", "same"])
def test_case_41_time_wait_is_opened_again_by_a_newer_syn_only(host, dated):
    with Twin(host, passive=True) as twin:
        twin.in_state("TIME_WAIT", passive=True)
        twin.get(f"S {500 if dated == 'later' else -500} mss 1460")
        assert not [each for each in twin.differences if "SYN_RCVD" not in each], "\n".join(twin.differences)
        assert twin.sides[0].state == twin.sides[1].state == ("SYN_RCVD" if dated == "later" else "TIME_WAIT")


@pytest.mark.tree
def test_the_documentation_has_every_difference_with_its_reason():
    text = (Path(__file__).parents[2] / "docs/against-linux.md").read_text()
    sections = dict(part.split("\n\n", 1) for part in text.split("\n## ")[1:])
    assert sorted(sections) == sorted(REASONS.values())
    assert all(len(reason) > 60 for reason in sections.values())
    assert {*DIFFERENCES.values(), *TIMED.values(), *CROWDS.values(), *SCENES.values(), *ALWAYS} == set(REASONS)
