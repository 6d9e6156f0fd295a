"""ESTABLISHED, FIN_WAIT_1, FIN_WAIT_2, CLOSE_WAIT, CLOSING, LAST_ACK: from a connection to its end."""

from itertools import pairwise

import pytest
from exchange import SECOND, Exchange

from fasttcp.spec import SYNCHRONIZED, Event, State

PROFILES = ("linux", "bsd", "rfc9293")
CLOSED_BY_US = (State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.LAST_ACK, State.TIME_WAIT)

# ---- ESTABLISHED -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_case_25_close(half):
    x = Exchange().established()
    assert x.close(half).after == State.FIN_WAIT_1
    x.sends("FA 1 ack 1")
    x.quiet()
    assert x.refuses("close", x.handle, True, x.now) == "connection closing"
    assert x.refuses("send", x.handle, 1, x.now) == "connection closing"


def test_case_25_the_fin_goes_behind_the_data():
    x = Exchange().established(window=1000)
    x.send(1500)
    x.sends("A 1 ack 1 len 536")
    x.close()
    assert x.state == State.FIN_WAIT_1
    x.quiet()  # 464 bytes of window are no full segment, and an ACK is to come
    x.gets("A 1 ack 537 win 1000")
    x.sends("A 537 ack 1 len 536")
    x.sends("FA 1073 ack 1 len 428")
    x.quiet()


def test_case_26_fin():
    x = Exchange().established()
    assert x.gets("FA 1 ack 1 len 10").events == [Event.RCV_ACK, Event.RCV_DATA, Event.RCV_FIN]
    x.sends("A 1 ack 12")
    x.quiet()  # one ACK, not one for each
    assert x.state == State.CLOSE_WAIT


@pytest.mark.parametrize("profile", PROFILES)
def test_case_26_a_fin_beyond_a_hole_waits(profile):
    x = Exchange(profile).established()
    result = x.gets("FA 101 ack 1 len 50")
    assert (x.state, result.delivered) == (State.ESTABLISHED, 0)
    x.sends("A 1 ack 1")
    result = x.gets("A 1 ack 1 len 60")
    assert (x.state, result.delivered) == (State.ESTABLISHED, 60)
    x.sends("A 1 ack 61")
    result = x.gets("A 61 ack 1 len 40")
    assert (x.state, result.delivered) == (State.CLOSE_WAIT, 90)
    assert result.events == [Event.RCV_ACK, Event.RCV_DATA, Event.RCV_FIN]
    x.sends("A 1 ack 152")
    x.quiet()


def test_case_26_a_bare_fin_beyond_a_hole_waits_and_is_answered():
    x = Exchange().established()
    assert Event.RCV_FIN not in x.gets("FA 101 ack 1").events
    x.sends("A 1 ack 1")  # a duplicate ACK: the peer learns of the hole
    assert x.gets("A 1 ack 1 len 100").after == State.CLOSE_WAIT
    x.sends("A 1 ack 102")


def test_case_26_what_a_peer_sends_beyond_its_fin_is_nobodys():
    x = Exchange().established()
    x.gets("A 301 ack 1 len 100")
    x.gets("FA 101 ack 1")
    result = x.gets("A 1 ack 1 len 100")
    assert (result.delivered, x.state, x.rcv(), x.ahead) == (100, State.CLOSE_WAIT, 102, [])


def test_case_26_a_fin_beyond_the_window_is_not_seen():
    x = Exchange(rcv_wnd=1000).established()
    assert x.gets("FA 1 ack 1 len 1000").after == State.ESTABLISHED
    x.sends("A 1 ack 1001")
    assert x.gets("FA 1001 ack 1").after == State.CLOSE_WAIT


# ---- FIN_WAIT_1 ------------------------------------------------------------------------------------------------------


def test_case_27_ack_of_our_fin():
    x = Exchange().in_state(State.FIN_WAIT_1)
    assert x.gets("A 1 ack 2").events == [Event.RCV_ACK_OF_FIN]
    assert x.state == State.FIN_WAIT_2
    x.quiet()


def test_case_28_ack_that_does_not_cover_our_fin():
    x = Exchange().established()
    x.send(100)
    x.close()
    x.sends("A 1 ack 1 len 100")
    x.sends("FA 101 ack 1")
    for ack in (1, 50, 101, 100):
        assert x.gets(f"A 1 ack {ack}").events == [Event.RCV_ACK]
        assert x.state == State.FIN_WAIT_1
    assert x.una() == 101
    assert x.gets("A 1 ack 102").after == State.FIN_WAIT_2


def test_case_28_the_fin_is_not_acknowledged_before_it_is_sent():
    x = Exchange().established(window=100)
    x.send(200)
    x.close()
    x.sends("A 1 ack 1 len 100")
    assert x.gets("A 1 ack 101 win 0").events == [Event.RCV_ACK]
    assert x.state == State.FIN_WAIT_1
    assert x.gets("A 1 ack 102 win 0").events == [Event.RCV_ACK_SUSPECT]


def test_case_29_fin_and_ack_of_our_fin_in_one_segment():
    x = Exchange().in_state(State.FIN_WAIT_1)
    result = x.gets("FA 1 ack 2")
    assert result.events == [Event.RCV_ACK_OF_FIN, Event.RCV_FIN]
    assert (result.before, result.after, x.state) == (State.FIN_WAIT_1, State.TIME_WAIT, State.TIME_WAIT)
    x.sends("A 2 ack 2")
    x.quiet()


def test_case_30_simultaneous_close():
    x = Exchange().in_state(State.FIN_WAIT_1)
    assert x.gets("FA 1 ack 1").events == [Event.RCV_ACK, Event.RCV_FIN]
    assert x.state == State.CLOSING
    x.sends("A 2 ack 2")
    x.quiet()


# ---- FIN_WAIT_2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.FIN_WAIT_1, State.FIN_WAIT_2])
def test_case_31_data_after_our_fin(state):
    x = Exchange().in_state(state)
    assert x.gets(f"A 1 ack {x.nxt()} len 500").delivered == 500
    x.sends("A 2 ack 501")


@pytest.mark.parametrize("profile", PROFILES)
def test_case_32_fin_in_fin_wait_2(profile):
    x = Exchange(profile).in_state(State.FIN_WAIT_2)
    assert x.gets("FA 1 ack 2").events == [Event.RCV_ACK, Event.RCV_FIN]
    x.sends("A 2 ack 2")
    assert x.state == State.TIME_WAIT
    assert 0 <= x.deadline_ns - x.now - x.profile.time_wait_ns < 10_000_000


@pytest.mark.parametrize(("profile", "seconds"), [("linux", 60), ("bsd", 600)])
def test_case_33_an_orphan_does_not_wait_for_ever(profile, seconds):
    x = Exchange(profile).in_state(State.FIN_WAIT_2, orphan=True)
    assert x.wait(seconds - 0.01) == [] and x.state == State.FIN_WAIT_2
    assert x.wait(0.03) == []
    assert [(one.end, one.events) for one in x.ended] == [("timeout", [Event.TIMEOUT_FIN_WAIT_2])]
    assert x.seat.counts()["orphans"] == 0


def test_case_33_rfc_9293_waits_for_ever():
    x = Exchange("rfc9293").in_state(State.FIN_WAIT_2, orphan=True)
    x.wait(10 * 365 * 86400)
    assert x.state == State.FIN_WAIT_2


def test_case_33_only_orphans_are_timed():
    x = Exchange("linux").in_state(State.FIN_WAIT_2)
    x.wait(1_000_000)
    assert x.state == State.FIN_WAIT_2
    x.close(half=False)  # the application lets go of the receiving direction too
    x.quiet()
    x.wait(61)
    assert [one.end for one in x.ended] == ["timeout"]


# ---- case 34: data that nobody will read -----------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", [State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2])
def test_case_34_close_with_unread_data(profile, state):
    x = Exchange(profile, seat={"auto_read": False}).established()
    x.gets("A 1 ack 1 len 100")
    x.sends("A 1 ack 101")
    if state == State.CLOSE_WAIT:
        x.gets("FA 101 ack 1")
    elif state != State.ESTABLISHED:
        x.close(half=True)
        x.sends("FA 1")
    if state == State.FIN_WAIT_2:
        x.gets("A 101 ack 2")
    x.sent.clear()
    assert x.state == state
    nxt = x.nxt()
    result = x.close(half=False)
    assert (result.end, result.events) == ("aborted", [Event.CLOSE_UNREAD])
    x.sends(f"R {nxt}")
    assert len(x.seat) == 0


def test_case_34_what_was_read_is_no_reason():
    x = Exchange(seat={"auto_read": False}).established()
    x.gets("A 1 ack 1 len 100")
    x.read(100)
    x.sent.clear()
    assert x.close(half=False).after == State.FIN_WAIT_1


def test_case_34_half_close_keeps_reading():
    x = Exchange(seat={"auto_read": False}).established()
    x.gets("A 1 ack 1 len 100")
    assert x.close(half=True).after == State.FIN_WAIT_1


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", [State.FIN_WAIT_1, State.FIN_WAIT_2])
def test_case_34_new_data_after_a_full_close(profile, state):
    x = Exchange(profile).in_state(state, orphan=True)
    nxt = x.nxt()
    result = x.gets(f"A 1 ack {nxt} len 1")
    assert (result.events[-1], result.end, result.delivered) == (Event.RCV_DATA_UNWANTED, "aborted", 0)
    x.sends(f"R {nxt}")
    x.quiet()
    assert x.seat.counts()["orphans"] == 0


def test_case_34_the_reset_stands_where_the_peer_waits_for_us():
    x = Exchange().in_state(State.FIN_WAIT_1, orphan=True)
    x.gets("A 1 ack 1 len 1")  # it has not seen our FIN: a RST behind that would only be challenged
    x.sends("R 1")


def test_case_34_old_data_after_a_full_close_is_only_acknowledged():
    x = Exchange().established()
    x.gets("A 1 ack 1 len 100")
    x.close(half=False)
    x.sent.clear()
    x.gets("A 1 ack 2 len 100")  # sent again, since our ACK was lost
    assert x.state == State.FIN_WAIT_1
    x.sends("A 2 ack 101")


# ---- CLOSE_WAIT, LAST_ACK, CLOSING -----------------------------------------------------------------------------------


def test_case_35_close_in_close_wait():
    x = Exchange().in_state(State.CLOSE_WAIT)
    x.send(10)  # our direction is still open
    x.sends("A 1 ack 2 len 10")
    assert x.close().after == State.LAST_ACK
    x.sends("FA 11 ack 2")


@pytest.mark.parametrize("profile", PROFILES)
def test_case_36_ack_of_our_fin_in_last_ack(profile):
    x = Exchange(profile).in_state(State.LAST_ACK)
    assert x.gets("A 2 ack 1").after == State.LAST_ACK
    result = x.gets("A 2 ack 2")
    assert (result.end, result.events, len(x.seat)) == ("closed", [Event.RCV_ACK_OF_FIN], 0)
    x.quiet()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", [State.CLOSE_WAIT, State.CLOSING, State.LAST_ACK])
def test_case_37_the_peers_fin_again(profile, state):
    x = Exchange(profile).in_state(state)
    nxt = x.nxt()
    for _ in range(3):  # never limited: the peer waits for it
        assert x.gets("FA 1 ack 1").events == [Event.RCV_ACK, Event.RCV_FIN_AGAIN]
        x.sends(f"A {nxt} ack 2")
        x.quiet()
        assert x.state == state


def test_case_37_with_the_data_before_it():
    x = Exchange().established()
    x.gets("FA 1 ack 1 len 300")
    x.sends("A 1 ack 302")
    assert Event.RCV_FIN_AGAIN in x.gets("FA 1 ack 1 len 300").events
    x.sends("A 1 ack 302")
    x.quiet()
    assert x.state == State.CLOSE_WAIT


def test_case_38_ack_of_our_fin_in_closing():
    x = Exchange().in_state(State.CLOSING)
    assert x.gets("A 2 ack 2").events == [Event.RCV_ACK_OF_FIN]
    assert x.state == State.TIME_WAIT
    x.quiet()


@pytest.mark.parametrize("state", [State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK])
@pytest.mark.parametrize(
    ("profile", "orphan", "retries"),
    [("linux", True, 8), ("linux", False, 15), ("rfc9293", True, 9), ("rfc9293", False, 9), ("bsd", False, 12)],
)
def test_case_39_our_fin_is_never_acknowledged(profile, orphan, retries, state):
    x = Exchange(profile).in_state(state, orphan=orphan)
    acked = 1 if state == State.FIN_WAIT_1 else 2
    happened = x.wait(3600)
    assert [text for _, text in happened] == [f"FA 1 ack {acked}"] * retries
    assert [one.end for one in x.ended] == ["timeout"]
    times = [0.0, *(at for at, _ in happened)]
    waits = [round(b - a, 2) for a, b in pairwise(times)]
    first = x.profile.rto_min_ns / SECOND
    most = x.profile.rto_max_ns / SECOND
    expected = [min(first * 2**k, most) for k in range(retries)]
    assert all(want <= got <= want + 0.011 for got, want in zip(waits, expected, strict=True)), waits
    assert len(x.seat) == 0 and x.seat.counts()["orphans"] == 0


def test_case_39_orphan_retries_as_the_profile_says():
    x = Exchange("linux", tcp_orphan_retries=3, rto_min="220ms").in_state(State.FIN_WAIT_1, orphan=True)
    assert len(x.wait(600)) == 3


def test_too_many_orphans_are_reset():
    x = Exchange(tcp_max_orphans=1).established()
    x.close(half=False)
    x.sends("FA 1")
    x.lport += 1
    x.established()
    assert x.close(half=False).end == "aborted"
    x.sends("R 1")
    assert (x.seat.counts()["orphans"], x.seat.counts()["orphans_reset"]) == (1, 1)


# ---- ABORT -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("state", [State.SYN_RCVD, *SYNCHRONIZED])
def test_case_47_abort(profile, state):
    x = Exchange(profile).in_state(state)
    nxt = x.nxt()
    assert x.abort().end == "aborted"
    if state not in (State.CLOSING, State.LAST_ACK, State.TIME_WAIT):  # both directions are over there (section 3.10.5)
        x.sends(f"R {nxt}")
    x.quiet()
    assert len(x.seat) == 0


@pytest.mark.parametrize("state", CLOSED_BY_US)
def test_what_is_closed_cannot_be_closed_or_sent_on(state):
    x = Exchange().in_state(state)
    assert x.refuses("close", x.handle, True, x.now) == "connection closing"
    assert x.refuses("send", x.handle, 1, x.now) == "connection closing"
    x.close(half=False)  # letting go of the rest is no second CLOSE
    assert x.state == state
    if state != State.TIME_WAIT:
        assert x.seat.counts()["orphans"] == 1
    assert x.refuses("close", x.handle, False, x.now) == "connection closing"
