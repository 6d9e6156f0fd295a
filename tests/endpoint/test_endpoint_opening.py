"""CLOSED, LISTEN, SYN_SENT, SYN_RCVD: from nothing to a connection."""

import pytest
from exchange import (
    CALL_BAD_LOCAL,
    CALL_BAD_REMOTE,
    LOCAL,
    OUT_ACCEPTED,
    OUT_DROPPED,
    OUT_ESTABLISHED,
    OUT_NEW,
    REMOTE,
    SECOND,
    THEIRS,
    Exchange,
    ip4,
    outcome,
    pack,
    unpack,
)

from fasttcp.spec import Event, State

PROFILES = ("linux", "bsd", "rfc9293")


def replies(x):
    found, x.sent = x.sent, []
    return [(one["flags"], one["seq"], one["ack"]) for one in found]


RST, RST_ACK, SYN_ACK = 0x04, 0x14, 0x12

# ---- CLOSED ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_case_01_closed_answers_with_a_reset(profile):
    x = Exchange(profile)
    ack = 0xFFFFFFFF
    x.gets("A 5 len 10", ack=ack)
    x.gets("SA 5", ack=ack)
    x.gets("FA 5", ack=ack)
    assert replies(x) == [(RST, ack, 0)] * 3
    after = (THEIRS + 5) % 2**32
    x.gets("S 5")
    x.gets("F 5 len 7")
    x.gets("P 70 len 100")
    assert replies(x) == [
        (RST_ACK, 0, after + 1),
        (RST_ACK, 0, after + 8),
        (RST_ACK, 0, (THEIRS + 170) % 2**32),
    ]
    assert len(x.seat) == 0


def test_case_01_the_reply_goes_back_whence_the_segment_came():
    x = Exchange(local=bytes(15) + b"\x09", remote=b"\x20\x01" + bytes(13) + b"\x01")
    x.gets("A 5", ack=9)
    (one,) = x.sent
    assert (one["src"], one["dst"], one["sport"], one["dport"]) == (x.local, x.remote, x.lport, x.rport)
    assert (one["ip_bytes"], one["info"] & 1, one["time_ns"]) == (60, 1, x.now)


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_case_02_closed_never_answers_a_reset(flags):
    x = Exchange()
    assert x.gets(f"{flags} 5", ack=1).events == [Event.RCV_RST_DROPPED]
    x.quiet()


def test_closed_is_silent_to_what_no_stack_sends():
    x = Exchange()
    for flags in ("SF", "SR", "SFRPAU", "-"):
        assert x.gets(f"{flags} 5").events == [Event.RCV_ILLEGAL]
    x.quiet()


@pytest.mark.parametrize("source", ["224.0.0.1", "255.255.255.255", "0.0.0.0", "239.1.2.3"])
@pytest.mark.parametrize("listening", [False, True])
def test_segments_from_addresses_that_no_host_has_are_dropped(source, listening):
    x = Exchange()
    if listening:
        x.listen()
    result = x.gets("S 5", src=ip4(source))
    assert result.flags & OUT_DROPPED and not result.events
    x.quiet()
    assert len(x.seat) == listening


@pytest.mark.parametrize("info", [2, 4])
def test_a_damaged_segment_is_dropped_and_counted(info):
    x = Exchange().in_state(State.ESTABLISHED)
    assert x.gets("RA 1 ack 1", info=info).flags & OUT_DROPPED
    assert (x.state, x.seat.counts()["dropped"]) == (State.ESTABLISHED, 1)


# ---- LISTEN ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_case_03_listen_looks_at_rst_then_ack_then_syn(profile):
    x = Exchange(profile)
    x.handle = listener = x.listen()
    assert x.gets("RA 5 ack 5").events == [Event.RCV_RST_DROPPED]
    assert x.gets("R 5").events == [Event.RCV_RST_DROPPED]
    x.quiet()
    assert x.gets("SA 5", ack=77).events == [Event.RCV_BAD_ACK]
    assert x.gets("A 5 len 9", ack=77).events == [Event.RCV_BAD_ACK]
    assert replies(x) == [(RST, 77, 0)] * 2
    assert x.gets("P 5 len 9").events == [Event.RCV_STRAY]
    x.quiet()
    result = x.gets("S 0 mss 1000")
    assert (result.events, result.after) == ([Event.RCV_SYN], State.SYN_RCVD)
    assert result.flags & OUT_NEW and result.handle != listener
    x.sends("SA 0 ack 1")
    assert (x.state, x.seat.state(listener)) == (State.SYN_RCVD, State.LISTEN)


def test_listener_for_any_address_and_the_exact_one_first():
    x = Exchange()
    anywhere = x.listen(local=ip4("0.0.0.0"))
    here = x.listen()
    x.gets("S 0")
    assert x.seat.listener(here)["half_open"] == 1
    x.gets("S 0", dst=ip4("10.0.0.2"))
    assert (x.seat.listener(here)["half_open"], x.seat.listener(anywhere)["half_open"]) == (1, 1)
    x.gets("S 0", dst=bytes(15) + b"\x01", src=bytes(15) + b"\x01")  # IPv6: nobody listens
    assert replies(x)[2][0] == RST_ACK


def test_listening_twice_or_badly_is_refused():
    x = Exchange()
    x.handle = x.listen()
    assert x.refuses("listen", LOCAL, x.lport, 5, x.now) == "connection already exists"
    assert x.seat.listen(ip4("224.0.0.1"), 80, 5, x.now)[0] == CALL_BAD_LOCAL
    assert x.seat.listen(LOCAL, 0, 5, x.now)[0] == CALL_BAD_LOCAL
    assert len(x.seat) == 1


def test_a_listener_has_no_peer_to_send_to():
    x = Exchange().in_state(State.LISTEN)
    assert x.refuses("send", x.handle, 10, x.now) == "remote socket unspecified"


def test_closing_a_listener():
    x = Exchange().in_state(State.LISTEN)
    assert x.close(half=False).end == "closed"
    x.quiet()
    assert len(x.seat) == 0
    x.gets("S 0")
    assert replies(x) == [(RST_ACK, 0, THEIRS + 1)]


def test_a_half_open_connection_whose_listener_has_gone_is_reset():
    x = Exchange()
    listener = x.listen()
    x.gets("S 0")
    x.sends("SA 0 ack 1")
    x.call("close", listener, False, x.now)
    assert x.gets("A 1 ack 1").end == "aborted"
    x.sends("R 1")
    assert len(x.seat) == 0


def test_a_listener_turned_active():
    x = Exchange()
    listener = x.listen()
    result = x.call("open_listener", listener, REMOTE, x.rport, x.now)
    assert (result.before, result.after) == (State.LISTEN, State.SYN_SENT)
    x.handle = result.handle
    x._rebase(True)
    x.sends("S 0")
    x.gets("SA 0 ack 1")
    x.sends("A 1 ack 1")
    assert listener not in x.seat and x.seat.counts()["listeners"] == 0


# ---- SYN_SENT --------------------------------------------------------------------------------------------------------


def test_our_syn_says_what_the_profile_offers():
    x = Exchange("linux")
    x.open()
    syn = x.sends("S 0 mss 1460 ws 7 sack win 65535")
    assert (syn["ack"], syn["tsecr"], syn["options"], syn["ip_bytes"]) == (0, 0, 15, 60)
    plain = Exchange("linux", tcp_timestamps=0, tcp_window_scaling=False, tcp_sack=False)
    plain.open()
    syn = plain.sends("S 0 mss 1460")
    assert (syn["options"], syn["ip_bytes"]) == (1, 44)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("ack", [0, -1, 2, 1 << 31, -(1 << 31) + 2])
def test_case_04_syn_sent_refuses_a_wrong_ack(profile, ack):
    x = Exchange(profile).in_state(State.SYN_SENT)
    for flags in ("A", "SA", "FA"):
        assert x.gets(f"{flags} 0 ack {ack}").events == [Event.RCV_BAD_ACK]
        x.sends(f"R {ack if ack != 1 << 31 else -(1 << 31)}")
        assert x.state == State.SYN_SENT
    x.quiet()


def test_case_05_syn_sent_drops_a_reset_that_proves_nothing():
    x = Exchange().in_state(State.SYN_SENT)
    for text in ("R 0", "R 1", "RA 0 ack 0", "RA 0 ack 2"):
        assert x.gets(text).events == [Event.RCV_RST_DROPPED]
    x.quiet()
    assert x.state == State.SYN_SENT


def test_case_06_syn_sent_believes_a_reset_with_our_ack():
    x = Exchange().in_state(State.SYN_SENT)
    assert x.gets("RA 0 ack 1").end == "refused"
    x.quiet()
    assert len(x.seat) == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_case_07_simultaneous_open(profile):
    x = Exchange(profile).in_state(State.SYN_SENT)
    assert x.gets("S 0 mss 1000 ws 2").events == [Event.RCV_SYN]
    x.sends("SA 0 ack 1 mss 1460")
    assert x.state == State.SYN_RCVD
    result = x.gets("SA 0 ack 1")  # the peer did the same (section 3.5, figure 7)
    assert (result.events, x.state) == ([Event.RCV_ACK_OF_SYN], State.ESTABLISHED)
    assert result.flags & OUT_ESTABLISHED and not result.flags & OUT_ACCEPTED
    x.quiet()


def test_case_07_simultaneous_open_ended_by_a_plain_ack():
    x = Exchange().in_state(State.SYN_RCVD)
    assert x.gets("A 1 ack 1").events == [Event.RCV_ACK_OF_SYN]
    assert (x.state, x.una(), x.rcv()) == (State.ESTABLISHED, 1, 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_case_07_connecting_to_oneself(profile):
    x = Exchange(profile, remote=LOCAL, rport=40000)
    x.open(rebase=False)
    for _ in range(10):
        for one in x.sent[:]:
            x.sent.remove(one)
            x._after(x.seat.receive(pack(**one), x.now))
    assert x.state == State.ESTABLISHED
    assert x.irs == x.iss and x.snd_una == x.snd_nxt == x.rcv_nxt


@pytest.mark.parametrize(
    ("profile", "linear", "times", "end"),
    [
        ("linux", 0, [1, 3, 7, 15, 31, 63], 127),
        ("linux", 4, [1, 2, 3, 4, 5, 7, 11, 19, 35, 67], 131),
        ("rfc9293", 0, [1, 3, 7, 15, 31, 63, 123], 183),
    ],
)
def test_case_08_syn_again_with_back_off(profile, linear, times, end):
    x = Exchange(profile, tcp_syn_linear_timeouts=linear).in_state(State.SYN_SENT)
    assert x.wait(end - 0.02) == [(float(at), "S 0") for at in times]
    assert x.state == State.SYN_SENT
    assert x.wait(0.04) == []
    assert [one.end for one in x.ended] == ["timeout"] and len(x.seat) == 0


def test_syn_sent_queues_data_until_it_is_established():
    x = Exchange().in_state(State.SYN_SENT)
    x.send(100)
    x.quiet()
    x.gets("SA 0 ack 1")
    x.sends("A 1 ack 1 len 100")
    x.quiet()


def test_syn_sent_closes_without_a_word():
    x = Exchange().in_state(State.SYN_SENT)
    assert x.close().end == "closed"
    x.quiet()
    assert len(x.seat) == 0


@pytest.mark.parametrize("text", ["F 0", "P 0 len 5", "- 0"])
def test_syn_sent_ignores_what_proves_nothing(text):
    x = Exchange().in_state(State.SYN_SENT)
    assert x.gets(text).events in ([Event.RCV_STRAY], [Event.RCV_ILLEGAL])
    x.quiet()
    assert x.state == State.SYN_SENT


def test_opening_what_is_open_is_refused():
    x = Exchange().in_state(State.ESTABLISHED)
    assert x.refuses("open", x.local, x.lport, x.remote, x.rport, x.now) == "connection already exists"


@pytest.mark.parametrize(
    ("local", "remote", "rport", "answer"),
    [
        (LOCAL, ip4("0.0.0.0"), 80, CALL_BAD_REMOTE),
        (LOCAL, ip4("224.0.0.5"), 80, CALL_BAD_REMOTE),
        (LOCAL, REMOTE, 0, CALL_BAD_REMOTE),
        (ip4("0.0.0.0"), REMOTE, 80, CALL_BAD_LOCAL),
        (bytes(15) + b"\x01", REMOTE, 80, CALL_BAD_LOCAL),
    ],
)
def test_opening_to_nowhere_is_refused(local, remote, rport, answer):
    x = Exchange()
    assert x.seat.open(local, 0, remote, rport, x.now)[0] == answer
    assert len(x.seat) == 0


# ---- SYN_RCVD --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passive", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
def test_case_09_the_same_syn_again(profile, passive):
    x = Exchange(profile).in_state(State.SYN_RCVD, passive=passive)
    due = x.deadline_ns
    x.now += SECOND // 2
    assert x.gets("S 0").events == [Event.RCV_SYN]
    x.sends("SA 0 ack 1")
    x.quiet()
    assert (x.state, x.deadline_ns) == (State.SYN_RCVD, due)


@pytest.mark.parametrize("passive", [False, True])
@pytest.mark.parametrize("ack", [0, 2, -5, 1 << 30])
def test_case_10_syn_rcvd_resets_a_wrong_ack(passive, ack):
    x = Exchange().in_state(State.SYN_RCVD, passive=passive)
    assert x.gets(f"A 1 ack {ack}").events == [Event.RCV_BAD_ACK]
    x.sends(f"R {ack}")
    assert x.state == State.SYN_RCVD


@pytest.mark.parametrize("profile", PROFILES)
def test_case_11_reset_in_syn_rcvd(profile):
    x = Exchange(profile)
    listener = x.listen()
    x.gets("S 0")
    x.sends("SA 0 ack 1")
    result = x.gets("R 1")
    assert (result.events, result.end) == ([Event.RCV_RST_PASSIVE], "reset")
    assert x.seat.state(listener) == State.LISTEN and x.seat.listener(listener)["half_open"] == 0
    assert len(x.seat) == 1
    active = Exchange(profile).in_state(State.SYN_RCVD)
    assert active.gets("R 1").end == "refused"
    assert len(active.seat) == 0
    for one in (x, active):
        one.quiet()


def test_case_12_close_in_syn_rcvd():
    x = Exchange().in_state(State.SYN_RCVD, passive=True)
    x.close()
    x.sends("FA 1 ack 1")
    assert x.state == State.FIN_WAIT_1
    assert x.gets("A 1 ack 1").events == [Event.RCV_ACK]  # of the SYN only
    assert x.state == State.FIN_WAIT_1
    assert x.gets("A 1 ack 2").events == [Event.RCV_ACK_OF_FIN]
    assert x.state == State.FIN_WAIT_2


def test_case_12_both_syn_and_fin_are_repeated_until_acknowledged():
    x = Exchange().in_state(State.SYN_RCVD, passive=True)
    x.close()
    x.sends("FA 1 ack 1")
    assert x.wait(1.1) == [(1.0, "SA 0 ack 1")]
    x.gets("A 1 ack 1")
    x.sends("FA 1 ack 1")  # what was sent behind the lost SYN+ACK follows at once
    assert x.gets("A 1 ack 2").after == State.FIN_WAIT_2


@pytest.mark.parametrize(
    ("profile", "times", "end"),
    [("linux", [1, 3, 7, 15, 31], 63), ("bsd", [1, 3, 7], 15), ("rfc9293", [1, 3, 7, 15, 31, 63, 123], 183)],
)
def test_case_13_syn_ack_again_until_the_half_open_row_is_freed(profile, times, end):
    x = Exchange(profile)
    listener = x.listen()
    x.gets("S 0")
    x.sends("SA 0 ack 1")
    assert x.wait(end - 0.02) == [(float(at), "SA 0 ack 1") for at in times]
    assert x.seat.listener(listener)["half_open"] == 1
    assert x.wait(0.04) == []
    assert [one.end for one in x.ended] == ["timeout"]
    assert x.seat.listener(listener)["half_open"] == 0 and len(x.seat) == 1


def test_the_third_segment_may_carry_data_and_fin():
    x = Exchange().in_state(State.SYN_RCVD, passive=True)
    result = x.gets("FA 1 ack 1 len 200")
    assert result.events == [Event.RCV_ACK_OF_SYN, Event.RCV_DATA, Event.RCV_FIN]
    assert (result.delivered, x.state) == (200, State.CLOSE_WAIT)
    assert result.flags & OUT_ACCEPTED
    x.sends("A 1 ack 202")
    x.quiet()


def test_the_peers_syn_sets_the_sizes():
    x = Exchange("linux").established(passive=True, options="mss 1000 ws 5 ts 500:0 sack", window=1000)
    assert (x.mss, x.local_shift, x.remote_shift) == (988, 7, 5)
    assert x.snd_wnd == 1000 << 5  # from the third segment, not from the SYN
    bare = Exchange("linux").established(passive=True, window=1000)
    assert (bare.mss, bare.local_shift, bare.remote_shift, bare.snd_wnd) == (536, 0, 0, 1000)
    tiny = Exchange("linux").established(passive=True, options="mss 1")
    assert tiny.mss == 48


def test_our_syn_ack_agrees_to_no_more_than_was_offered():
    x = Exchange("linux")
    x.listen()
    x.gets("S 0 mss 1400")
    assert x.sends("SA 0 ack 1 mss 1460")["options"] == 1
    y = Exchange("linux")
    y.listen()
    y.gets("S 0 mss 1400 ws 3 ts 9:0 sack")
    both = y.sends("SA 0 ack 1 ws 7 sack")
    assert (both["options"], both["tsecr"]) == (15, 9)


def test_outcome_of_a_stale_handle():
    x = Exchange().in_state(State.SYN_SENT)
    handle = x.handle
    x.abort()
    with pytest.raises(LookupError):
        x.seat.state(handle)


def test_segments_are_complete_records():
    x = Exchange(local=bytes(15) + b"\x01", remote=bytes(15) + b"\x02")
    x.open()
    syn = x.sends("S 0")
    assert (syn["time_ns"], syn["info"] & 1, syn["ip_bytes"], syn["mss"]) == (x.now, 1, 80, 1440)
    assert unpack(pack(**syn)) == syn
    assert outcome(x.seat.receive(x.segment("SA 0 ack 1"), x.now)).after == State.ESTABLISHED


# ---- the peer still holds an old connection --------------------------------------------------------------------------


def test_an_ack_that_is_not_our_syns_is_reset_and_linux_asks_again_at_once():
    x = Exchange("linux")
    x.open()
    x.sends("S 0")
    assert x.gets("A 5000 ack -3000").events == [Event.RCV_BAD_ACK]
    x.sends("R -3000")
    assert x.wait(0.05) == [(0.01, "S 0")]
    # Once only: then the usual times, so that two hosts cannot keep each other busy.
    x.gets("A 5000 ack -3000")
    x.sends("R -3000")
    assert x.wait(0.9) == []
    x.gets("SA 0 ack 1")
    x.sends("A 1 ack 1")
    assert x.state == State.ESTABLISHED


@pytest.mark.parametrize("profile", ["bsd", "rfc9293"])
def test_others_ask_again_when_the_syn_times_out(profile):
    x = Exchange(profile)
    x.open()
    x.sends("S 0")
    x.gets("A 5000 ack -3000")
    x.sends("R -3000")
    assert x.wait(0.9) == []
    assert x.wait(0.2) == [(0.1, "S 0")]
