"""Zeek's rules, one by one: letters, states, sizes, gaps, timers, splitting, who is the originator."""

import pytest
from wire import BAD_CHECKSUM, BAD_HEADER, CUT, MS, SECOND, Wire


@pytest.fixture
def wire():
    return Wire("zeek", tracker=True, ports=(40000, 7000))


def rows(wire):
    """(conn_state, history) of every connection."""
    return [(each.conn_state, each.history) for each in wire.entries()]


# ---- conn_state ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ("aS", ("S0", "S")),
        ("aS bSA", ("S1", "Sh")),
        ("aS bSA aA", ("S1", "ShA")),
        ("aS bSA aA aFA bA bFA aA", ("SF", "ShAFaf")),
        ("aS bSA aA aFA bA", ("S2", "ShAFa")),
        ("aS bSA aA bFA aA", ("S3", "ShAf")),
        ("aS bRA", ("REJ", "Sr")),
        ("aS bSA aA aR", ("RSTO", "ShAR")),
        ("aS bSA aA bR", ("RSTR", "ShAr")),
        ("aS aR", ("RSTOS0", "SR")),
        ("aS aA aD aFA", ("SH", "SADF")),
        ("aS bA aR", ("RSTOS0", "SaR")),
        ("bSA aA", ("OTH", "^hA")),
        ("bSA bRA", ("OTH", "HR")),
        ("aA bA", ("OTH", "Aa")),
        ("aD bA aFA bFA", ("SF", "DaFf")),
        ("aR", ("OTH", "R")),
        ("aFA", ("SH", "F")),
    ],
)
def test_conn_state_and_history(wire, segments, expected):
    wire.hosts[0].heard, wire.hosts[1].heard = wire.hosts[1].next, wire.hosts[0].next
    for segment in segments.split():
        data = segment.endswith("D")
        wire.send(0 if segment[0] == "a" else 1, "PA" if data else segment[1:], payload=10 if data else 0)
    assert rows(wire) == [expected]


# ---- letters -------------------------------------------------------------------------------------


def test_letters_come_once_and_t_in_decades(wire):
    wire.opened()
    wire.a("PA", payload=10)
    for _ in range(100):
        wire.a("PA", seq=-10, payload=10, after=300 * MS)
    assert wire.entry().history == "ShADTTT"


def test_syn_again_only_with_another_number(wire):
    wire.a("S")
    wire.a("S", seq=-1, after=SECOND)
    assert wire.entry().history == "S"


def test_fin_and_rst_again_only_with_another_number(wire):
    wire.opened()
    wire.a("FA")
    wire.a("FA", seq=-1, after=300 * MS)
    wire.a("FA", seq=0, payload=5, after=300 * MS)
    wire.b("R")
    wire.b("R")
    wire.b("R", seq=10)
    assert wire.entry().history == "ShAFFrr"


@pytest.mark.parametrize(("fin", "expected"), [(1000, "RF"), (-1000, "RFRF")])
def test_a_rst_has_another_number_after_a_wrap(wire, fin, expected):
    """A FIN that follows a lone RST moves the numbers on, from below by nearly a round of the circle; so the same FIN
    has another number the second time, too."""
    for _ in range(2):
        wire.a("R", absolute=True, seq=3_000_000)
        wire.a("FA", absolute=True, seq=3_000_000 + fin, ack=1, payload=5)
        wire.a("R", absolute=True, seq=3_000_000)
    assert wire.entry().history == expected


def test_many_letters_outgrow_the_page(wire):
    wire.opened()
    for i in range(300):
        wire.a("R", seq=10 * i)
    assert wire.entry().history == "ShA" + "R" * 300
    assert wire.entry().history == "ShA" + "R" * 300  # and the row still has its own


def test_odd_flags_have_letters_of_their_own(wire):
    wire.a("SF")
    wire.b("RFA")
    assert wire.entry().history == "Qi"


def test_zero_window_is_told_but_not_after_the_peers_fin(wire):
    wire.opened()
    wire.a("A", window=0)
    wire.b("FA")
    wire.a("A", window=0)
    assert wire.entry().history == "ShAWf"


def test_bad_checksum_leaves_c_and_nothing_else(wire):
    wire.a("S", info=BAD_CHECKSUM)
    entry = wire.entry()
    assert (entry.conn_state, entry.history, entry.orig_packets, entry.duration_ns) == ("OTH", "C", 0, 0)


def test_bad_header_leaves_nothing_but_a_row(wire):
    wire.a("A", info=BAD_HEADER)
    entry = wire.entry()
    assert (entry.conn_state, entry.history, entry.orig_packets) == ("OTH", "", 0)


def test_bad_checksums_are_looked_over_if_asked():
    wire = Wire("zeek", tracker=True, ignore_checksums=True)
    wire.a("S", info=BAD_CHECKSUM)
    assert wire.entry().history == "S"


# ---- who is the originator -----------------------------------------------------------------------


def test_first_sender_unless_it_serves():
    for source, target, expected in ((50000, 7000, "D"), (80, 50000, "^d"), (80, 443, "^d"), (443, 80, "D")):
        wire = Wire("zeek", tracker=True, ports=(source, target))
        wire.a("PA", payload=10, seq=5, ack=5, absolute=True)
        assert wire.entry().history == expected, (source, target)


def test_a_syn_is_never_turned_round():
    wire = Wire("zeek", tracker=True, ports=(80, 50000))
    wire.a("S")
    assert (wire.entry().history, wire.entry().orig_port) == ("S", 80)


def test_syn_ack_between_two_servers_is_not_turned_round():
    wire = Wire("zeek", tracker=True, ports=(80, 443))
    wire.a("SA", seq=5, ack=5, absolute=True)
    assert wire.entry().history == "H"


def test_syn_ack_then_ack_turns_round(wire):
    wire.hosts[0].next += 1
    wire.hosts[1].heard = wire.hosts[0].next
    wire.b("SA")
    wire.a("A")
    wire.b("PA", payload=10)
    entry = wire.entry()
    assert (entry.history, entry.orig_port, entry.resp_packets) == ("^hAd", 40000, 2)


def test_syn_ack_then_its_syn_turns_round(wire):
    isn = wire.hosts[0].isn
    wire.hosts[0].next = (isn + 1) % 2**32
    wire.hosts[1].heard = wire.hosts[0].next
    wire.b("SA")
    wire.a("S", seq=isn, absolute=True)
    wire.a("A")
    entry = wire.entry()
    assert (entry.history, entry.conn_state, entry.orig_port) == ("Hs^A", "S1", 40000)


def test_letters_stay_with_the_role_when_the_originator_turns_round():
    again = Wire("zeek", tracker=True, ports=(40000, 7000))
    again.b("SA", seq=500, ack=101, absolute=True)
    again.a("A", seq=101, ack=501, absolute=True)
    again.b("SA", seq=500, ack=101, absolute=True)  # a responder has had no letter yet
    assert again.entry().history == "^hAh"
    late = Wire("zeek", tracker=True, ports=(40000, 7000))
    late.b("SA", seq=500, ack=101, absolute=True)
    late.a("A", seq=101, ack=501, absolute=True)
    late.a("S", seq=100, absolute=True)  # the originator's was given to the SYN+ACK
    assert (late.entry().history, late.entry().orig_packets) == ("^hA", 2)


def test_a_rst_after_a_turn_refuses_nothing(wire):
    """Refused is a SYN that nothing but a RST answers; the SYN+ACK that this one began with had answered it before."""
    wire.hosts[0].next += 1
    wire.hosts[1].heard = wire.hosts[0].next
    wire.b("SA")
    wire.a("A")
    wire.b("RA")
    assert (wire.entry().history, wire.entry().end) == ("^hAr", "reset")
    again = Wire("zeek", tracker=True, ports=(40000, 7000))
    again.a("S")
    again.b("RA")
    assert (again.entry().history, again.entry().end) == ("Sr", "refused")


@pytest.mark.parametrize("silent", [0, 1])
def test_after_a_turn_nobodys_next_segment_is_a_first_one(silent):
    """Else the first one of the silent host would make it a connection that was picked up, where a missing byte at the
    very beginning is no gap: it may be a keep-alive's."""
    wire = Wire("zeek", tracker=True, ports=(40000, 7000), report_gaps_for_partial=True)
    wire.send(1 - silent, "SA", seq=500, ack=101, absolute=True)
    wire.send(1 - silent, "A", seq=501, ack=101, absolute=True)  # turns it round
    wire.send(silent, "A", seq=101, ack=501, absolute=True)
    wire.send(1 - silent, "A", seq=501, ack=102, absolute=True)  # 101 was never seen
    assert (wire.entry().history, wire.entry().missed_bytes) == ("^haA", 1)


# ---- timers --------------------------------------------------------------------------------------


def test_an_attempt_lasts_five_seconds_to_the_nanosecond(wire):
    wire.a("S")
    wire.a("S", seq=-1, after=5 * SECOND - 1)
    assert wire.entry().orig_packets == 2
    again = Wire("zeek", tracker=True, ports=(40000, 7000))
    again.a("S")
    again.a("S", seq=-1, after=5 * SECOND)
    assert rows(again) == [("S0", "S"), ("S0", "S")]


def test_an_answered_attempt_is_no_attempt(wire):
    wire.a("S")
    wire.b("SA")
    wire.a("A", after=55 * SECOND)
    assert rows(wire) == [("S1", "ShA")]


def test_after_a_close_packets_belong_to_it_for_five_seconds(wire):
    wire.opened()
    wire.closed()
    last = wire.now - 1 * MS  # the second FIN: what comes after it does not count
    wire.a("A", after=last + 5 * SECOND - 1 - wire.now)
    assert rows(wire) == [("SF", "ShAFaf")]
    wire.a("A", after=1)
    assert rows(wire) == [("SF", "ShAFaf"), ("OTH", "A")]


def test_duration_ends_when_both_have_closed(wire):
    wire.opened()
    began = wire.now - 2 * MS
    wire.closed()
    fin = wire.now - 1 * MS
    wire.a("A", after=SECOND)
    entry = wire.entry()
    assert entry.duration_ns == fin - began
    assert entry.orig_packets == 5


def test_after_a_reset_packets_belong_to_it_for_five_seconds(wire):
    wire.opened()
    wire.b("R")
    wire.a("A", after=4 * SECOND)
    wire.a("A", after=2 * SECOND)
    assert [state for state, _ in rows(wire)] == ["RSTR", "OTH"]


@pytest.mark.parametrize(("port", "seconds"), [(7000, 300), (22, 3600)])
def test_silence_ends_an_established_connection(port, seconds):
    wire = Wire("zeek", tracker=True, ports=(40000, port))
    wire.opened()
    wire.a("A", after=seconds * SECOND - 1)
    assert len(wire.entries()) == 1
    wire.a("A", after=seconds * SECOND)
    assert len(wire.entries()) == 2


def test_silence_in_the_handshake_is_shorter(wire):
    wire.hosts[0].next += 1
    wire.b("SA")
    wire.b("SA", seq=-1, after=61 * SECOND)
    assert len(wire.entries()) == 2


def test_half_closed_lives_until_silence_ends_it(wire):
    wire.opened()
    wire.a("FA")
    wire.b("A")
    wire.b("PA", payload=10, after=200 * SECOND)
    wire.a("A", after=299 * SECOND)
    assert [state for state, _ in rows(wire)] == ["S2"]


def test_rows_of_nothing_but_damage_go_at_the_first_check(wire):
    wire.a("A", info=BAD_CHECKSUM)
    wire.a("A", info=BAD_CHECKSUM, after=4 * SECOND)
    assert len(wire.entries()) == 1
    wire.a("A", info=BAD_CHECKSUM, after=8 * SECOND)
    assert [each.history for each in wire.entries()] == ["C", "C"]


def test_a_reset_after_its_own_fin_ends_with_an_expiry_check(wire):
    wire.opened()
    wire.a("FA", after=500 * MS)
    wire.a("R", after=1 * MS)
    wire.b("A", after=4900 * MS)
    assert len(wire.entries()) == 1
    wire.b("A", after=5100 * MS)
    assert [state for state, _ in rows(wire)] == ["RSTO", "OTH"]


def test_the_first_fin_begins_checks_of_its_own():
    wire = Wire("zeek", tracker=True, ports=(40000, 7000))
    wire.opened()  # checked 5 seconds later
    wire.a("FA", after=3 * SECOND)
    wire.a("R", after=1 * MS)  # checked 6 seconds after the FIN, too
    other = Wire("zeek", tracker=True, ports=(40001, 7000))
    other.tracker, other.now = wire.tracker, wire.now
    other.a("S", after=2500 * MS)  # the first check finds nothing
    wire.b("A", after=6100 * MS)
    assert [each.conn_state for each in wire.entries() if each.orig_port != 40001] == ["RSTO", "OTH"]


def test_a_connection_that_began_with_damage_is_checked_like_others(wire):
    wire.hosts[0].heard, wire.hosts[1].heard = wire.hosts[1].next, wire.hosts[0].next
    wire.a("A", info=BAD_CHECKSUM)
    wire.a("A")
    wire.a("FA", after=20 * SECOND)
    wire.b("A")
    wire.a("R")
    wire.b("A", after=12 * SECOND)
    assert [state for state, _ in rows(wire)] == ["OTH", "OTH"]


def test_checks_go_on_every_six_seconds_while_they_can_find_nothing(wire):
    """The first one 5 seconds after the first segment: so one at 29 seconds finds it idle for more than 5. The first of
    those that the FIN begins would come later, at 29.5."""
    began = wire.now
    other = Wire("zeek", tracker=True, ports=(40001, 7000))
    other.tracker = wire.tracker

    def at(seconds, send, *segment, **fields):
        wire.now = other.now = began + int(seconds * SECOND)
        send(*segment, after=0, **fields)

    wire.hosts[0].heard, wire.hosts[1].heard = wire.hosts[1].next, wire.hosts[0].next
    at(0, wire.a, "A", info=BAD_CHECKSUM)  # a check may find nothing but this
    at(1, wire.a, "A")
    at(1, wire.b, "A")
    for seconds in (5, 11, 17, 23):
        at(seconds, other.a, "S")
    at(23.5, wire.a, "FA")
    at(23.5, wire.a, "R")  # a check may find a reset
    at(23.6, other.a, "S")
    at(29.2, wire.b, "A")
    assert [each.history for each in wire.entries() if each.orig_port != 40001] == ["CAaFR", "A"]


def test_when_time_goes_back_a_timer_that_was_set_before_still_holds(wire):
    wire.opened()
    wire.a("PA", payload=10, after=-1000 * SECOND)
    wire.b("A")
    wire.b("PA", payload=10)
    assert [(state, history) for state, history in rows(wire)] == [("S1", "ShADad")]


def test_when_time_goes_back_silence_is_counted_from_the_latest_time(wire):
    wire.opened()
    wire.a("PA", payload=10, after=200 * SECOND)
    latest = wire.now
    wire.a("PA", payload=10, after=-1000 * SECOND)
    other = Wire("zeek", tracker=True, ports=(40001, 7000))
    other.tracker, other.now = wire.tracker, latest + 150 * SECOND
    other.a("S")  # the timer that was set at the beginning
    wire.now = other.now
    wire.b("A")
    assert [each.history for each in wire.entries() if each.orig_port == 40000] == ["ShADa"]


def test_when_time_goes_back_a_timer_that_is_set_then_is_due_at_once():
    attempt = Wire("zeek", tracker=True, ports=(40000, 7000))
    attempt.a("S")
    attempt.b("SA", after=-1000 * SECOND)  # from here on it may be silent for 300 seconds
    attempt.a("A")
    assert rows(attempt) == [("S1", "Sh"), ("OTH", "A")]
    other = Wire("zeek", tracker=True, ports=(40001, 7000))
    other.a("S")
    late = Wire("zeek", tracker=True, ports=(40000, 7000))
    late.tracker, late.now = other.tracker, other.now - 1000 * SECOND
    late.a("S")
    late.b("SA")
    assert sorted(each.history for each in late.entries()) == ["H", "S", "S"]


@pytest.mark.parametrize(
    ("silence_ns", "expected"),
    [(300 * SECOND - 1, [("S1", "ShAa")]), (300 * SECOND, [("S1", "ShA"), ("OTH", "A")])],
)
def test_a_timer_that_is_set_in_the_past_holds_when_time_goes_back_further(wire, silence_ns, expected):
    """The answer to the SYN allows 300 seconds of silence from its own time on, 10 seconds before the SYN's."""
    wire.a("S")
    wire.b("SA", after=-10 * SECOND)
    answered = wire.now
    wire.a("A", after=-990 * SECOND)
    wire.b("A", after=answered + silence_ns - wire.now)
    assert rows(wire) == expected


# ---- a SYN on a known 4-tuple --------------------------------------------------------------------


def test_syn_with_another_number_splits_at_once(wire):
    wire.opened()
    wire.a("S", seq=9999, absolute=True)
    assert rows(wire) == [("S1", "ShA"), ("S0", "S")]


def test_any_syn_splits_after_a_close(wire):
    wire.opened()
    isn = wire.hosts[0].isn
    wire.closed()
    wire.a("S", seq=isn, absolute=True)
    assert rows(wire) == [("SF", "ShAFaf"), ("S0", "S")]


def test_syn_ack_splits_only_a_half_connection(wire):
    wire.opened()
    wire.b("SA", seq=123, ack=5, absolute=True)
    assert len(wire.entries()) == 1
    half = Wire("zeek", tracker=True, ports=(40000, 80))
    half.b("SA", seq=500, ack=100, absolute=True)
    half.b("SA", seq=500, ack=100, absolute=True)
    assert len(half.entries()) == 1
    half.b("SA", seq=777, ack=100, absolute=True)
    assert len(half.entries()) == 2


def test_a_syn_whose_options_were_cut_off_still_splits():
    wire = Wire("zeek", tracker=True, ports=(40000, 80))
    wire.a("S", seq=100, absolute=True, info=BAD_HEADER)
    wire.b("SA", seq=500, ack=101, absolute=True, info=BAD_HEADER)
    wire.a("A", seq=101, ack=501, absolute=True)
    found = [(each.conn_state, each.history, each.orig_port, each.orig_packets) for each in wire.entries()]
    assert found == [("OTH", "", 40000, 0), ("OTH", "^A", 40000, 1)]


# ---- sizes and gaps ------------------------------------------------------------------------------


def test_sizes_are_sequence_numbers(wire):
    wire.opened()
    wire.a("PA", payload=1000)
    wire.a("PA", seq=-1000, payload=1000, after=300 * MS)
    wire.b("A")
    wire.b("PA", payload=20)
    wire.closed()
    entry = wire.entry()
    assert (entry.orig_bytes, entry.resp_bytes, entry.orig_payload) == (1000, 20, 2000)


@pytest.mark.parametrize(("syn", "expected"), [("S", (10, 0)), ("SA", (0, 10))])
def test_the_same_syn_again_does_not_begin_the_numbers_anew(wire, syn, expected):
    """A SYN+ACK without its SYN turns out to be the responder's."""
    wire.a(syn, seq=500, ack=101, absolute=True)
    wire.a("PA", seq=501, ack=101, absolute=True, payload=10)
    wire.a(syn, seq=500, ack=101, absolute=True, after=300 * MS)
    assert (wire.entry().orig_bytes, wire.entry().resp_bytes) == expected


def test_acknowledged_data_count_even_if_never_captured(wire):
    wire.opened()
    wire.b("A", ack=5000)
    entry = wire.entry()
    assert (entry.orig_bytes, entry.missed_bytes, entry.history) == (5000, 5000, "ShAaG")


def test_a_hole_that_is_filled_is_no_gap(wire):
    wire.opened()
    wire.a("PA", seq=100, payload=100)
    wire.a("PA", seq=-200, payload=100)
    wire.b("A")
    entry = wire.entry()
    assert (entry.orig_bytes, entry.missed_bytes, entry.history) == (200, 0, "ShADTa")


def test_gaps_around_what_was_seen(wire):
    wire.opened()
    wire.a("PA", seq=100, payload=100)
    wire.a("PA", seq=300, payload=100)
    wire.b("A", ack=100)
    assert (wire.entry().missed_bytes, wire.entry().history) == (100 + 300 + 100, "ShADaG")


def test_no_gap_where_the_beginning_was_not_seen(wire):
    wire.hosts[0].heard, wire.hosts[1].heard = wire.hosts[1].next, wire.hosts[0].next
    wire.a("PA", payload=10)
    wire.b("A", ack=5000)
    assert (wire.entry().missed_bytes, wire.entry().history) == (0, "Da")


def test_cut_payload_was_not_seen(wire):
    wire.opened()
    wire.hosts[1].heard += 100
    wire.a("PA", payload=100, info=CUT)
    wire.b("A")
    assert (wire.entry().missed_bytes, wire.entry().orig_bytes) == (100, 100)


def test_a_side_that_is_never_acknowledged_is_given_up_above_a_hole(wire):
    wire.opened()
    wire.a("PA", seq=100, payload=20_000)
    wire.b("A")
    assert (wire.entry().missed_bytes, wire.entry().history) == (0, "ShADa")


def test_a_close_waits_until_the_peers_data_are_acknowledged(wire):
    wire.opened()
    wire.b("PA", payload=10)
    wire.a("FA", ack=-10)
    wire.a("A")  # now it has closed
    wire.b("FA")
    wire.a("A", after=6 * SECOND)
    assert [state for state, _ in rows(wire)] == ["SF", "OTH"]


def test_a_close_that_waits_is_forgotten_when_the_other_side_ends_first(wire):
    wire.opened()
    wire.b("PA", payload=10)
    wire.a("FA", ack=-10)
    wire.b("FA")
    wire.a("A")
    wire.a("A", after=6 * SECOND)
    assert [state for state, _ in rows(wire)] == ["SF"]


def test_a_syn_after_a_reset_out_of_nowhere_begins_the_numbers_anew(wire):
    wire.b("R", seq=500, absolute=True)
    wire.b("SA", seq=499, ack=101, absolute=True)
    wire.a("A", seq=101, ack=530, absolute=True)
    wire.b("SA", seq=499, ack=101, absolute=True)
    assert wire.entry().orig_bytes == 0


def test_what_was_acknowledged_beyond_a_fin_is_not_seen_afterwards(wire):
    wire.opened()
    wire.b("FA", payload=5)
    wire.a("A", ack=15)
    wire.b("PA", seq=2, payload=40)  # 12 bytes of them were acknowledged before
    wire.b("FA", seq=100)
    wire.a("A", ack=-1)
    assert wire.entry().missed_bytes == 16 + 100


def test_sizes_beyond_four_gigabytes():
    wire = Wire("zeek", tracker=True, ports=(40000, 7000))
    wire.opened()
    for _ in range(9):
        wire.hosts[0].next = (wire.hosts[0].next + 2**30) % 2**32
        wire.hosts[1].heard = wire.hosts[0].next
        wire.b("A")
    assert wire.entry().orig_bytes == 9 * 2**30
