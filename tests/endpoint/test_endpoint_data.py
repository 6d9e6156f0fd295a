"""Data: windows, holes, retransmission, probes, keepalive."""

from itertools import pairwise

import pytest
from exchange import CALL_TOO_MUCH, SECOND, TICK, Exchange

from fasttcp.spec import Event, State

PROFILES = ("linux", "bsd", "rfc9293")


def held(profile="linux", **changes):
    """The application reads only when it is told to."""
    return Exchange(profile, seat={"auto_read": False}, **changes)


# ---- sending ---------------------------------------------------------------------------------------------------------


def test_data_go_out_in_segments_of_the_peers_size():
    x = Exchange().established(options="mss 1000")
    x.send(2500)
    x.sends("A 1 ack 1 len 1000")
    x.sends("A 1001 ack 1 len 1000")
    assert x.sends("PA 2001 ack 1 len 500")["ip_bytes"] == 540
    x.quiet()
    x.gets("A 1 ack 2501")
    assert (x.una(), x.timer) == (2501, 0)


def test_the_peers_window_is_the_limit():
    x = Exchange().established(options="mss 1000", window=2500)
    x.send(5000)
    x.sends("A 1 ack 1 len 1000")
    x.sends("A 1001 ack 1 len 1000")
    x.quiet()  # 500 are left: no full segment while an ACK is to come
    x.gets("A 1 ack 1001 win 2500")
    x.sends("A 2001 ack 1 len 1000")
    x.quiet()
    x.gets("A 1 ack 3001 win 10000")
    x.sends("A 3001 ack 1 len 1000")
    x.sends("A 4001 ack 1 len 1000")
    x.quiet()


def test_a_small_window_is_used_when_nothing_is_in_flight():
    x = Exchange().established(options="mss 1000", window=300)
    x.send(1000)
    x.sends("A 1 ack 1 len 300")


def test_an_old_segment_does_not_set_the_window():
    x = Exchange().established(window=1000)
    x.gets("A 101 ack 1 len 10 win 500")
    assert x.snd_wnd == 500
    x.gets("A 1 ack 1 len 10 win 9000")  # older by its SEQ (SND.WL1)
    assert x.snd_wnd == 500


def test_queued_bytes_have_a_limit():
    x = Exchange().established(window=0)
    assert x.seat.send(x.handle, 0x80000000, x.now)[0] == CALL_TOO_MUCH
    x.send(0x7FFFFFFF)
    assert x.seat.send(x.handle, 1, x.now)[0] == CALL_TOO_MUCH
    assert x.snd_queued == 0x7FFFFFFF


def test_data_that_go_out_carry_the_ack():
    x = Exchange().established(window=100)
    x.send(150)
    x.sends("A 1 ack 1 len 100")
    x.gets("A 1 ack 101 len 20 win 100")
    x.sends("A 101 ack 21 len 50")
    x.quiet()


# ---- receiving -------------------------------------------------------------------------------------------------------


def test_data_in_order_are_delivered_and_acknowledged():
    x = Exchange().established()
    for n in range(3):
        assert x.gets(f"PA {1 + 100 * n} ack 1 len 100").delivered == 100
        x.sends(f"A 1 ack {101 + 100 * n} win 65535")


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 1, 0), (1, 2, 1, 0), (2, 2, 1, 1, 0)])
def test_holes_are_filled(order):
    x = Exchange().established()
    delivered = [x.gets(f"A {1 + 100 * i} ack 1 len 100").delivered for i in order]
    assert delivered == [0] * (len(order) - 1) + [300]
    for _ in order[:-1]:
        x.sends("A 1 ack 1")
    x.sends("A 1 ack 301")
    assert x.ahead == []


def test_runs_are_joined_and_the_furthest_is_dropped():
    x = Exchange().established()
    x.gets("A 501 ack 1 len 100")
    x.gets("A 301 ack 1 len 100")
    assert [((a - x.theirs) % 2**32, (b - x.theirs) % 2**32) for a, b in x.ahead] == [(301, 401), (501, 601)]
    x.gets("A 101 ack 1 len 100")  # a third one: the furthest goes
    assert x.seat.counts()["run_dropped"] == 1
    assert [((a - x.theirs) % 2**32, (b - x.theirs) % 2**32) for a, b in x.ahead] == [(101, 201), (301, 401)]
    x.gets("A 151 ack 1 len 200")  # it touches both
    assert [((a - x.theirs) % 2**32, (b - x.theirs) % 2**32) for a, b in x.ahead] == [(101, 401)]
    assert x.gets("A 1 ack 1 len 100").delivered == 400


def test_data_are_trimmed_to_the_window():
    x = held(rcv_wnd=1000).established()
    assert x.gets("A 1 ack 1 len 1460").delivered == 1000
    x.sends("A 1 ack 1001 win 0")
    x.read(1000)
    x.sends("A 1 ack 1001 win 1000")
    assert x.gets("A 501 ack 1 len 700").delivered == 200
    x.sends("A 1 ack 1201 win 800")


def test_the_window_opens_when_it_is_worth_a_segment():
    x = held(rcv_wnd=4000).established(options="mss 1000")
    x.gets("A 1 ack 1 len 4000")
    x.sends("A 1 ack 4001 win 0")
    x.read(999)
    x.quiet()
    x.read(1)
    x.sends("A 1 ack 4001 win 1000")
    assert x.seat.read(x.handle, 3001, x.now)[0] == CALL_TOO_MUCH
    x.read(3000)
    x.sends("A 1 ack 4001 win 4000")


def test_data_after_the_peers_fin_change_nothing():
    x = Exchange().in_state(State.CLOSE_WAIT)
    assert x.gets("A 2 ack 1 len 100").delivered == 0
    x.quiet()
    assert x.rcv() == 2


# ---- retransmission --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "retries"), [("linux", 15), ("bsd", 12), ("rfc9293", 9)])
@pytest.mark.parametrize("state", [State.ESTABLISHED, State.CLOSE_WAIT])
def test_one_run_is_sent_again_with_back_off_until_the_limit(profile, retries, state):
    x = Exchange(profile).in_state(state)
    x.send(100)
    x.sends("A 1 len 100")
    happened = x.wait(7200)
    assert len(happened) == retries and {text[:3] for _, text in happened} == {"PA "}
    assert [one.end for one in x.ended] == ["timeout"]
    first, most = x.profile.rto_min_ns / SECOND, x.profile.rto_max_ns / SECOND
    waits = [b - a for (a, _), (b, _) in pairwise(happened)]
    for n, wait in enumerate(waits):
        assert -1e-6 <= wait - min(first * 2 ** (n + 1), most) <= 0.011


def test_never_early_at_most_one_tick_late():
    for odd in (0, 1, 3_333_333, 9_999_999):
        x = Exchange().established()
        x.now += odd
        rto = x.rto_us * 1000
        x.send(10)
        x.sent.clear()
        x.now += rto - 1
        assert x.seat.advance(x.now)[0] == []
        x.now += TICK
        assert len(x.seat.advance(x.now)[0]) == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_an_ack_restarts_the_timer_and_a_new_round_trip_ends_the_back_off(profile):
    """RFC 6298 section 5: an ACK of what was sent twice is no sample, so the back-off stays (Karn)."""
    x = Exchange(profile, so_keepalive=False).established(options="mss 1000")
    first = x.rto_us / 1e6
    x.send(2000)
    x.sent.clear()
    assert [at for at, _ in x.wait(3.5 * first)] == pytest.approx([first, 3 * first], abs=0.021)
    assert x.backoff == 2
    x.gets("A 1 ack 1001")
    x.sends("A 1001 ack 1 len 1000")  # lost too, as far as anybody knows
    assert (x.backoff, x.retries) == (2, 0)
    x.quiet()
    x.gets("A 1 ack 2001")
    assert (x.timer, x.backoff, x.seat.counts()["retransmitted"]) == (0, 2, 3)
    x.send(10)
    x.sends("A 2001 ack 1 len 10")
    assert x.deadline_ns - x.now == pytest.approx(4 * first * SECOND, abs=TICK)
    x.gets("A 1 ack 2011")
    x.send(10)
    assert (x.backoff, x.deadline_ns - x.now) == (0, pytest.approx(first * SECOND, abs=TICK))


def test_without_a_sample_the_back_off_of_the_syn_does_not_stay():
    x = Exchange(tcp_syn_linear_timeouts=0, tcp_timestamps=0).in_state(State.SYN_SENT)
    x.wait(3.5)
    assert x.backoff == 2
    x.gets("SA 0 ack 1")
    assert (x.backoff, x.rto_us) == (0, 3_000_000)  # RFC 6298 section 5.7


@pytest.mark.parametrize(
    ("profile", "changes", "round_trip_ms", "times"),
    [
        # An RTO of 200 ms, the first sent again after 200 ms: at 6.2 s only 6 s of 6.2 are over. With 220 ms they are.
        ("linux", {"tcp_retries2": 4}, 0, [0.2, 0.6, 1.4, 3.0, 6.2]),
        ("linux", {"tcp_retries2": 4, "rto_min": "220ms"}, 0, [0.22, 0.66, 1.54, 3.3]),
        # 900 ms: 3 s, the time of three that begin at 200 ms, are over after 1.8 and 3.6 s.
        ("linux", {"tcp_retries2": 3}, 300, [0.9, 2.7]),
        ("linux", {"tcp_retries2": 3, "retries_are_time": False}, 300, [0.9, 2.7, 6.3]),
        # 50 ms, but the time counts 200 ms all the same: 6.2 s are not over before 6.3 s.
        ("linux", {"tcp_retries2": 4, "rto_min": "50ms"}, 0, [0.05, 0.15, 0.35, 0.75, 1.55, 3.15]),
        ("linux", {"tcp_retries2": 4, "rto_max": "1s"}, 0, [0.2, 0.6, 1.4, 2.4, 3.4]),
        ("linux", {"tcp_retries2": 0}, 0, [0.2]),
        ("rfc9293", {"tcp_retries2": 3}, 300, [1, 3, 7]),
        ("bsd", {"tcp_retries2": 3}, 300, [0.9, 2.7, 6.3]),
    ],
)
def test_how_long_is_so_many_retries(profile, changes, round_trip_ms, times):
    x = Exchange(profile, tcp_timestamps=0, **changes).in_state(State.SYN_SENT)
    x.now += round_trip_ms * 1_000_000
    x.gets("SA 0 ack 1")
    x.sent.clear()
    x.send(10)
    x.sent.clear()
    assert [at for at, _ in x.wait(1000)] == pytest.approx(times, abs=0.011 * len(times) + 0.01)
    assert [one.end for one in x.ended] == ["timeout"]


@pytest.mark.parametrize("retries", [20, 33, 40, 100])
def test_many_retries_are_as_many(retries):
    x = Exchange(tcp_retries2=retries).established()
    x.send(10)
    x.sent.clear()
    assert len(x.wait(20_000)) == retries
    assert [one.end for one in x.ended] == ["timeout"]


@pytest.mark.parametrize(("retries", "linear", "times"), [(6, 4, 10), (1, 2, 2), (2, 0, 2), (0, 0, 0), (1, 0, 1), (3, 8, 10)])
def test_linear_syns_do_not_make_linux_wait_longer_than_the_others_would(retries, linear, times):
    """tcp_syn_retries of 1 stands for 3 s: 1 and 2; SYNs a second apart end then too."""
    x = Exchange(tcp_syn_retries=retries, tcp_syn_linear_timeouts=linear).in_state(State.SYN_SENT)
    assert len(x.wait(1000)) == times
    assert [one.end for one in x.ended] == ["timeout"]


def test_the_first_unacknowledged_segment_is_what_is_sent_again():
    x = Exchange().established(options="mss 1000")
    x.send(2500)
    x.close()
    x.sent.clear()
    x.gets("A 1 ack 501")
    assert [text for _, text in x.wait(0.22)] == ["A 501 ack 1 len 1000"]
    x.gets("A 1 ack 1501")
    x.sends("FA 1501 ack 1 len 1000")  # the FIN that followed the run is sent again with its end
    x.quiet()
    assert x.gets("A 1 ack 2502").after == State.FIN_WAIT_2


def test_the_last_segment_again_carries_the_fin():
    x = Exchange().established()
    x.send(100)
    x.close()
    x.sends("A 1 ack 1 len 100")
    x.sends("FA 101 ack 1")
    assert [text for _, text in x.wait(0.22)] == ["FPA 1 ack 1 len 100"]


def rtt(x, ms):
    x.send(10)
    x.now += ms * 1_000_000
    x.gets(f"A {x.rcv()} ack {x.nxt()}")
    x.sent.clear()
    return x.srtt_us, x.rttvar_us, x.rto_us


def test_rto_follows_the_round_trip():
    """RFC 6298 section 2, by hand: the handshake took no time, then 400 ms and 200 ms."""
    x = Exchange("rfc9293", rto_min="1ms").established()
    assert (x.srtt_us, x.rttvar_us) == (1, 0)
    assert rtt(x, 400) == (50_000, 99_999, 50_000 + 399_996)
    assert rtt(x, 200) == (68_750, 112_499, 68_750 + 449_996)
    floor = Exchange("rfc9293").established()
    assert rtt(floor, 1)[2] == 1_000_000


def test_the_least_time_out_of_linux_comes_on_top_of_the_round_trip():
    """net/ipv4/tcp_input.c: rto_min bounds the variance, so that a steady path is never asked too early."""
    x = Exchange("linux").established()
    steady = Exchange("linux", rto_min_bounds_variance=False).established()
    for _ in range(60):
        ours, theirs = rtt(x, 300), rtt(steady, 300)
    assert ours[2] == ours[0] + 200_000 == pytest.approx(500_000, abs=2000)
    assert theirs[2] == pytest.approx(310_000, abs=2000)


def test_karn_a_segment_sent_twice_tells_nothing():
    x = Exchange().established()
    before = x.srtt_us
    x.send(10)
    x.wait(0.25)
    x.now += 3 * SECOND
    x.gets("A 1 ack 11")
    assert x.srtt_us == before


def test_timestamps_tell_which_copy_arrived():
    x = Exchange(tcp_timestamps=2).established(options="ts 5:0")
    x.now += SECOND  # an echo of 0 says nothing
    x.send(10)
    first = x.sent.pop()
    x.wait(0.25)
    x.now += SECOND
    x.gets(f"A 1 ack 11 ts 6:{first['tsval']}")
    assert x.srtt_us > 100_000  # an eighth of 1.25 s


@pytest.mark.parametrize("profile", PROFILES)
def test_after_a_lost_syn_the_rto_is_three_seconds(profile):
    x = Exchange(profile, tcp_syn_linear_timeouts=0, tcp_timestamps=0).in_state(State.SYN_SENT)
    x.wait(1.5)
    x.gets("SA 0 ack 1")
    assert x.rto_us == 3_000_000  # RFC 6298 section 5.7


# ---- a shut window ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_shut_window_is_probed_with_back_off(profile):
    x = Exchange(profile).established(window=0)
    x.send(100)
    x.quiet()
    assert x.timer == 2
    happened = x.wait(8 * x.rto_us / 1e6 - 0.1)
    first = x.profile.rto_min_ns / SECOND
    assert [text for _, text in happened] == ["A 0 ack 1"] * 3
    assert [at for at, _ in happened] == pytest.approx([first, 3 * first, 7 * first], abs=0.035)
    x.gets("A 1 ack 1 win 0")
    assert x.retries == 0  # the peer lives
    assert x.gets("A 1 ack 1 win 1000").events == [Event.RCV_ACK]
    x.sends("A 1 ack 1 len 100")
    assert x.timer == 1


def test_a_fin_waits_for_the_window_too():
    x = Exchange().established(window=0)
    x.close()
    x.quiet()
    assert (x.state, x.timer) == (State.FIN_WAIT_1, 2)
    x.gets("A 1 ack 1 win 1")
    x.sends("FA 1 ack 1")
    assert x.gets("A 1 ack 2 win 0").after == State.FIN_WAIT_2


def test_a_peer_that_answers_probes_is_never_given_up():
    x = Exchange(tcp_retries2=3).established(window=0)
    x.send(1)
    for _ in range(20):
        due = (x.deadline_ns - x.now) / SECOND
        assert len(x.wait(due)) == 1
        x.gets("A 1 ack 1 win 0")
    assert (x.state, due) == (State.ESTABLISHED, pytest.approx(120, abs=0.02))


def test_a_peer_that_is_silent_is_given_up():
    x = Exchange(tcp_retries2=3).established(window=0)
    x.send(1)
    assert len(x.wait(1000)) == 3
    assert [one.end for one in x.ended] == ["timeout"]


# ---- case 48: keepalive ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "idle", "interval", "probes"),
    [("linux", 7200, 75, 9), ("bsd", 7200, 75, 8), ("rfc9293", 7200, 75, 9)],
)
@pytest.mark.parametrize("state", [State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_2])
def test_case_48_keepalive(profile, idle, interval, probes, state):
    x = Exchange(profile, so_keepalive=True).in_state(state)
    probe = f"A {x.nxt() - 1} ack {x.rcv()}"
    happened = x.wait(idle + probes * interval - 0.02)
    assert happened == [(float(idle + n * interval), probe) for n in range(probes)]
    assert x.state == state
    reset = f"R {x.nxt()}"
    assert [text for _, text in x.wait(0.04)] == [reset]
    assert ([one.end for one in x.ended], len(x.seat)) == (["timeout"], 0)


def test_case_48_any_answer_starts_it_anew():
    x = Exchange(so_keepalive=True).established()
    assert len(x.wait(7200 + 75 * 3 + 1)) == 4
    x.gets("A 1 ack 1")
    assert x.wait(7199.9) == []
    assert len(x.wait(0.2)) == 1


def test_case_48_off_unless_asked_for():
    x = Exchange("linux").established()
    assert x.wait(1_000_000) == [] and x.timer == 0
    x.seat.keepalive(x.handle, True, x.now)
    assert x.timer == 3
    assert len(x.wait(10)) == 1  # idle long enough already
    x.seat.keepalive(x.handle, False, x.now)
    assert x.wait(1_000_000) == [] and x.state == State.ESTABLISHED


def test_case_48_not_while_something_is_in_flight():
    x = Exchange(so_keepalive=True).established()
    x.send(10)
    assert x.timer == 1
    x.gets("A 1 ack 11")
    assert x.timer == 3
