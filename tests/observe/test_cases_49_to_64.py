"""The observer seat, case by case: segments as they appear on a wire, and what the tap must make of them."""

import pytest
from wire import MS, SECOND, Wire

from fasttcp.spec import Event

OPEN = ("ESTABLISHED", "ESTABLISHED")


@pytest.fixture
def wire():
    return Wire()


# ---- 49: flag precedence RST > SYN > FIN > ACK; illegal combinations are counted and change no state ---


@pytest.mark.parametrize("flags", ["SF", "SR", "SRA", "SFA", "-", "F", "FR", "FRA", "P"])
def test_case_49_illegal_combinations_are_counted_and_change_nothing(wire, flags):
    wire.opened()
    before = wire.states
    wire.a(flags)
    assert wire.states == before == OPEN
    assert wire.tallies["illegal"] == 1


def test_case_49_illegal_combinations_open_nothing(wire):
    for flags in ("SF", "SR", "-", "F"):
        wire.a(flags, absolute=True, seq=1)
    assert len(wire.table) == 0
    assert wire.tallies["illegal"] == 4


def test_case_49_rst_goes_before_ack_and_fin_before_ack(wire):
    wire.opened()
    wire.a("FA")
    assert wire.states == ("FIN_WAIT_1", "CLOSE_WAIT")
    wire.b("RA")
    assert wire.states == ("CLOSED", "CLOSED")


# ---- 50: SYN, SYN+ACK, FIN again -----------------------------------------------------------------


def test_case_50_retransmissions_are_counted_and_change_nothing(wire):
    wire.a("S")
    wire.a("S", seq=-1, after=1000 * MS)
    assert (len(wire.table), wire.tallies["connections"]) == (1, 1)
    wire.b("SA")
    wire.b("SA", seq=-1, after=1000 * MS)
    assert wire.states == ("ESTABLISHED", "SYN_RCVD")
    wire.a("A")
    wire.a("FA")
    wire.a("FA", seq=-1, after=300 * MS)
    assert wire.states == ("FIN_WAIT_1", "CLOSE_WAIT")
    assert wire.tallies["retransmitted"] == 3
    assert (wire.summary["orig_retransmitted"], wire.summary["resp_retransmitted"]) == (2, 1)


def test_case_50_same_syn_in_time_wait_is_no_new_connection(wire):
    wire.opened()
    isn = wire.hosts[0].isn
    wire.closed()
    wire.a("S", seq=isn, absolute=True, after=500 * MS)
    assert wire.states == ("TIME_WAIT", "CLOSED")
    assert wire.tallies["connections"] == 1


# ---- 51: SYN on a 4-tuple whose connection is closed or in TIME_WAIT -----------------------------


def test_case_51_syn_in_time_wait_ends_the_old_and_begins_a_new(wire):
    wire.opened()
    wire.closed()
    assert wire.states == ("TIME_WAIT", "CLOSED")
    wire.a("S", seq=100_000)
    assert wire.states == ("SYN_SENT", "SYN_RCVD")
    (old,) = wire.ended()
    assert (old["orig_state"], old["resp_state"]) == (10, 0)
    assert wire.tallies["replaced"] == 1


def test_case_51_syn_after_a_reset_begins_a_new(wire):
    wire.opened()
    wire.b("RA")
    wire.b("S", seq=5, absolute=True)  # and the roles may be the other way round
    assert wire.states == ("SYN_RCVD", "SYN_SENT")
    assert wire.summary["orig_port"] == 80
    assert len(wire.ended()) == 1


# ---- 52: SYN with another sequence number on a live connection -----------------------------------


def test_case_52_syn_on_a_live_connection_waits_for_its_answer(wire):
    wire.opened()
    wire.a("S", seq=777_000, absolute=True)
    assert (wire.states, wire.tallies["connections"], wire.tallies["suspect"]) == (OPEN, 1, 1)
    wire.b("A")  # the challenge of a live host
    assert wire.states == OPEN
    wire.b("SA", seq=9_000, ack=777_001, absolute=True)
    assert wire.states == ("ESTABLISHED", "SYN_RCVD")
    (old,) = wire.ended()
    assert (old["orig_state"], old["resp_state"]) == (4, 4)


def test_case_52_profile_may_begin_anew_at_once():
    wire = Wire(observer_reuse="isn")
    wire.opened()
    wire.a("S", seq=777_000, absolute=True)
    assert wire.states == ("SYN_SENT", "SYN_RCVD")
    assert wire.tallies["connections"] == 2


# ---- 53: SYN+ACK before or without the SYN -------------------------------------------------------


def test_case_53_the_sender_of_a_syn_ack_is_the_responder(wire):
    wire.hosts[0].next += 1
    wire.hosts[1].heard = wire.hosts[0].next
    wire.b("SA", wscale=7)
    assert wire.states == ("ESTABLISHED", "SYN_RCVD")
    assert wire.summary["orig_port"] == 40000
    wire.a("A")
    assert wire.states == OPEN
    assert wire.tallies["partial"] == 0


def test_case_53_syn_that_its_syn_ack_has_overtaken(wire):
    isn = wire.hosts[0].isn
    wire.hosts[0].next = (isn + 1) % 2**32
    wire.hosts[1].heard = wire.hosts[0].next
    wire.b("SA", wscale=7)
    wire.a("S", seq=isn, absolute=True, wscale=7)
    wire.a("A")
    assert wire.states == OPEN
    assert (wire.tallies["connections"], wire.tallies["retransmitted"], wire.tallies["suspect"]) == (1, 0, 0)


def test_case_53_handshake_captured_backwards_is_one_connection(wire):
    wire.a("A", seq=101, ack=501, absolute=True)
    wire.b("SA", seq=500, ack=101, absolute=True)
    wire.a("S", seq=100, absolute=True)
    assert wire.states == OPEN
    assert (wire.tallies["connections"], wire.tallies["suspect"]) == (1, 0)


# ---- 54: the first segment is neither SYN nor SYN+ACK --------------------------------------------


def test_case_54_mid_stream_is_picked_up_and_marked(wire):
    wire.hosts[0].heard = wire.hosts[1].next
    wire.a("PA", payload=100)
    assert wire.states == OPEN
    assert wire.tallies["partial"] == 1
    wire.closed()
    assert wire.states == ("TIME_WAIT", "CLOSED")


def test_case_54_windows_are_trusted_only_once_scales_are_known(wire):
    # A RST far beyond an unscaled window of 1000, but not beyond what an unknown scale may make of it.
    wire.hosts[0].heard = wire.hosts[1].next
    wire.a("PA", payload=10, window=1000)
    wire.b("A", window=1000)
    wire.a("R", seq=50_000)
    assert wire.states == ("CLOSED", "CLOSED")
    known = Wire()
    known.a("S")
    known.b("SA")
    known.a("A", window=1000)
    known.b("A", window=1000)
    known.a("R", seq=50_000)
    assert known.states == OPEN


def test_case_54_strict_profile_picks_nothing_up():
    wire = Wire(nf_conntrack_tcp_loose=False)
    wire.a("PA", payload=10, absolute=True, seq=5, ack=5)
    assert (len(wire.table), wire.tallies["stray"]) == (0, 1)


def test_case_54_rst_for_nobody_opens_nothing(wire):
    wire.a("R", seq=5, absolute=True)
    assert (len(wire.table), wire.tallies["stray"]) == (0, 1)


# ---- 55: data or FIN that acks what was never captured -------------------------------------------


def test_case_55_a_hole_in_the_capture_is_no_error(wire):
    wire.opened()
    wire.a("A", ack=5000)
    assert wire.states == OPEN
    assert (wire.tallies["missed_bytes"], wire.tallies["suspect"]) == (5000, 0)
    wire.hosts[0].next += 3000
    wire.a("PA", payload=100)
    assert wire.tallies["missed_bytes"] == 8000


def test_case_55_third_segment_missing(wire):
    wire.a("S")
    wire.b("SA")
    wire.b("PA", payload=10)
    assert wire.states == OPEN


def test_case_55_syn_ack_missing(wire):
    wire.a("S")
    wire.a("A", seq=0, ack=900_001, absolute=False)
    assert wire.states == OPEN


def test_case_55_fin_that_was_acknowledged_before_it_was_seen(wire):
    wire.opened()
    wire.b("A", ack=1)  # the FIN of a was not captured
    assert wire.states == OPEN
    wire.a("FA", seq=0)  # it comes again, as its ACK was lost
    assert wire.states == ("FIN_WAIT_2", "CLOSE_WAIT")


def test_case_55_both_directions_jump_far_and_the_connection_goes_on(wire):
    wire.opened(window=500)
    wire.hosts[0].next += 50_000_000
    wire.hosts[1].next += 70_000_000
    wire.hosts[0].heard = wire.hosts[1].next
    wire.hosts[1].heard = wire.hosts[0].next
    wire.a("PA", payload=10)
    wire.b("PA", payload=10)
    wire.a("A")
    wire.closed()
    assert wire.states == ("TIME_WAIT", "CLOSED")


def test_case_55_ack_of_the_impossible_moves_nothing(wire):
    wire.opened()
    wire.a("A", seq=-100, ack=500_000_000)
    assert wire.tallies["suspect"] == 1
    wire.b("PA", payload=10)
    assert wire.tallies["retransmitted"] == 0
    wire.closed()
    assert wire.states == ("TIME_WAIT", "CLOSED")


# ---- 56, 57: RST outside and inside the window ---------------------------------------------------


@pytest.mark.parametrize("distance", [-2, -70_000, 20_000_000])
def test_case_56_rst_outside_the_window_is_counted(wire, distance):
    wire.opened()
    wire.a("PA", payload=1000)
    wire.b("A")
    wire.a("R", seq=distance)
    assert wire.states == OPEN
    assert wire.tallies["suspect"] == 1


def test_case_56_profile_may_believe_any_rst():
    wire = Wire(observer_rst_in_window=False)
    wire.opened()
    wire.a("R", seq=20_000_000)
    assert wire.states == ("CLOSED", "CLOSED")


@pytest.mark.parametrize(("sender", "flags"), [(0, "R"), (1, "R"), (0, "RA"), (1, "RA")])
def test_case_57_rst_in_the_window_closes_both(wire, sender, flags):
    wire.opened()
    wire.a("PA", payload=50)
    wire.b("A")
    wire.send(sender, flags)
    assert wire.states == ("CLOSED", "CLOSED")


def test_case_57_rst_of_a_host_that_counts_no_fin(wire):
    wire.opened()
    wire.a("FA")
    wire.b("A")
    wire.a("R", seq=-1)
    assert wire.states == ("CLOSED", "CLOSED")


# ---- 58: SYN answered by RST ---------------------------------------------------------------------


def test_case_58_refused_and_freed_after_a_short_linger(wire):
    wire.a("S")
    wire.b("RA", seq=0, absolute=True, ack=(wire.hosts[0].isn + 1) % 2**32)
    assert wire.states == ("CLOSED", "CLOSED")
    wire.wait(9 * SECOND)
    wire.table.advance(wire.now)
    assert len(wire.table) == 1
    wire.wait(2 * SECOND)
    wire.table.advance(wire.now)
    assert len(wire.table) == 0
    (ended,) = wire.ended()
    assert ended["ended_by"] == Event.RCV_RST


def test_case_58_rst_with_a_wrong_ack_refuses_nothing(wire):
    wire.a("S")
    wire.b("RA", seq=0, absolute=True, ack=12345)
    assert wire.states == ("SYN_SENT", "SYN_RCVD")
    assert wire.tallies["suspect"] == 1


# ---- 59: the last ACK, and stray ACKs after the close --------------------------------------------


def test_case_59_strays_after_the_close_belong_to_it(wire):
    wire.opened()
    wire.closed()
    for _ in range(3):
        wire.a("A", after=100 * MS)
        wire.b("A", after=100 * MS)
    assert wire.states == ("TIME_WAIT", "CLOSED")
    assert wire.tallies["connections"] == 1


def test_case_59_strays_do_not_make_time_wait_longer(wire):
    wire.opened()
    wire.closed()
    closed_at = wire.now
    for _ in range(5):
        wire.a("A", after=10 * SECOND)
    wire.now = closed_at + 61 * SECOND
    wire.table.advance(wire.now)
    assert len(wire.table) == 0


def test_case_59_a_repeated_fin_makes_time_wait_longer(wire):
    wire.opened()
    wire.closed()
    wire.b("FA", seq=-1, after=50 * SECOND)
    wire.now += 20 * SECOND
    wire.table.advance(wire.now)
    assert wire.states == ("TIME_WAIT", "CLOSED")


# ---- 60: simultaneous open and close -------------------------------------------------------------


def test_case_60_simultaneous_open_passes_through_syn_rcvd(wire):
    wire.a("S")
    wire.b("S")
    assert wire.states == ("SYN_RCVD", "SYN_RCVD")
    wire.a("SA", seq=-1)
    assert wire.states == ("SYN_RCVD", "ESTABLISHED")
    wire.b("SA", seq=-1)
    assert wire.states == OPEN
    assert wire.tallies["connections"] == 1


def test_case_60_simultaneous_close_passes_through_closing(wire):
    wire.opened()
    wire.a("FA")
    wire.b("FA", ack=-1)
    assert wire.states == ("CLOSING", "CLOSING")
    wire.a("A")
    assert wire.states == ("CLOSING", "TIME_WAIT")
    wire.b("A")
    assert wire.states == ("TIME_WAIT", "TIME_WAIT")


# ---- 61: packets out of time order ---------------------------------------------------------------


def test_case_61_time_may_go_back(wire):
    wire.opened()
    wire.a("PA", payload=10, after=-3600 * SECOND)
    wire.b("A", after=1 * MS)
    assert wire.states == OPEN
    assert wire.tallies["late"] == 2
    assert wire.summary["last_ns"] >= wire.summary["first_ns"]
    wire.table.advance(0)
    wire.table.check_invariants()


def test_case_61_timers_never_fire_early(wire):
    wire.opened()
    wire.closed()
    done = wire.now
    wire.now -= 1000 * SECOND
    wire.a("A")
    wire.table.advance(done + 60 * SECOND - 1)
    assert wire.states == ("TIME_WAIT", "CLOSED")
    wire.table.advance(done + 60 * SECOND + 20 * MS)
    assert len(wire.table) == 0


# ---- 62: the same packet captured twice ----------------------------------------------------------


def test_case_62_a_twin_is_a_duplicate(wire):
    wire.a("S")
    wire.a("S", seq=-1, after=20_000)
    wire.b("SA")
    wire.b("SA", seq=-1, after=20_000)
    wire.a("A")
    wire.a("PA", payload=700)
    wire.a("PA", seq=-700, payload=700, after=20_000)
    wire.a("FA")
    wire.a("FA", seq=-1, after=20_000)
    assert (wire.tallies["duplicates"], wire.tallies["retransmitted"]) == (4, 0)
    assert wire.states == ("FIN_WAIT_1", "CLOSE_WAIT")


def test_case_62_what_comes_later_is_a_retransmission(wire):
    wire.opened()
    wire.a("PA", payload=700)
    wire.a("PA", seq=-700, payload=700, after=200 * MS)
    assert (wire.tallies["duplicates"], wire.tallies["retransmitted"]) == (0, 1)


def test_case_62_profile_may_switch_it_off():
    wire = Wire(observer_duplicate_window=None)
    wire.opened()
    wire.a("PA", payload=700)
    wire.a("PA", seq=-700, payload=700, after=1000)
    assert (wire.tallies["duplicates"], wire.tallies["retransmitted"]) == (0, 1)


# ---- 63: long silence on a live connection -------------------------------------------------------


def test_case_63_silence_is_no_close(wire):
    wire.opened()
    wire.a("A", after=4 * 86400 * SECOND)
    assert wire.states == OPEN
    assert wire.tallies["connections"] == 1
    wire.table.advance(wire.now + 5 * 86400 * SECOND + SECOND)
    (ended,) = wire.ended()
    assert (ended["orig_state"], ended["resp_state"], ended["ended_by"]) == (4, 4, Event.TIMEOUT_IDLE)


# ---- 64: the capture ends with connections open --------------------------------------------------


def test_case_64_every_open_connection_is_emitted_with_its_states():
    wire = Wire(tracker=True)
    wire.a("S")
    live = wire.entry()
    assert (live.orig_state.name, live.resp_state.name) == ("SYN_SENT", "SYN_RCVD")
    assert (live.end, live.ended_ns) == ("open", None)
    wire.b("SA")
    wire.a("A")
    wire.a("FA")
    live = wire.entry()
    assert (live.orig_state.name, live.resp_state.name, live.end) == ("FIN_WAIT_1", "CLOSE_WAIT", "open")
    assert len(wire.table) == 1


# ---- what is damaged -----------------------------------------------------------------------------


def test_damaged_segments_count_for_nothing_where_checksums_do():
    wire = Wire(ignore_checksums=False)
    wire.opened()
    wire.a("R", info=0x02)
    assert wire.states == OPEN
    assert wire.tallies["damaged"] == 1
    assert wire.summary["orig_packets"] == 2
    lenient = Wire()
    lenient.opened()
    lenient.a("R", info=0x02)
    assert lenient.states == ("CLOSED", "CLOSED")
    lenient.a("S", seq=3, absolute=True, info=0x04)
    assert lenient.tallies["damaged"] == 1


def test_invariants_hold_after_everything():
    wire = Wire(tracker=True, profile="zeek")
    wire.a("R", seq=5, absolute=True)
    wire.a("-", seq=5, absolute=True)
    wire.a("S", info=0x02)
    wire.opened()
    wire.closed()
    wire.table.check_invariants()
