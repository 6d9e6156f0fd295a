"""Conversations by hand: illegal flags, repetitions, the opening of a connection, and what a tap has missed.

A function's docstring says what happens; `a` opens, and closes first, where nothing else is said. Must not know
any state.
"""

from kernel_witness.script import ISN_A, ISN_B, Script, by_hand

# ---- flags that no stack sends (case 49) -----------------------------------------------------------------------------


@by_hand
def illegal_flags(s: Script) -> None:
    """Established; then SYN+FIN, SYN+RST, no flag, FIN without ACK, FIN+RST and everything at once, then data."""
    s.opened()
    for flags in ("SF", "SR", "-", "F", "FRA", "FSRPAU", "PU"):
        s.a(flags, at=s.hosts["a"].next)
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def illegal_flags_first(s: Script) -> None:
    """SYN+FIN, no flag and FIN without ACK before any connection; then a handshake."""
    for flags in ("SF", "-", "F"):
        s.a(flags, at=ISN_A)
    s.opened()


@by_hand
def fin_without_ack(s: Script) -> None:
    """Established; a FIN without ACK that continues the numbers, as a scanner sends, then the real one."""
    s.talked()
    s.a("F", at=s.hosts["a"].next)
    s.closed()


@by_hand
def urgent_and_ecn(s: Script) -> None:
    """A handshake that asks for ECN, then data with URG, CWR and ECE: none of them moves a connection."""
    s.a("SEW")
    s.b("SAE")
    s.a("A")
    s.a("PAUW", payload=5)
    s.b("AE")
    s.closed()


# ---- repetitions (cases 50, 59, 62) ----------------------------------------------------------------------------------


@by_hand
def everything_twice(s: Script) -> None:
    """Each segment of a connection with a request and a response is seen twice in a row."""
    s.talked()
    s.closed()
    doubled = [each for each in s.segments for _ in range(2)]
    s.segments[:] = [each._replace(time_ns=each.time_ns + i) for i, each in enumerate(doubled)]


@by_hand
def handshake_again_later(s: Script) -> None:
    """Established, data; then the SYN and the SYN+ACK of the handshake come once more, late."""
    s.talked()
    s.a("S", at=ISN_A)
    s.b("SA", at=ISN_B, acks=ISN_A + 1)
    s.a("A")


@by_hand
def fin_again(s: Script) -> None:
    """The FIN is sent three times before it is acknowledged, the answering FIN twice, and again in TIME_WAIT."""
    s.talked()
    for _ in range(3):
        s.a("FA", at=s.hosts["a"].next)
    s.hosts["a"].next = s.hosts["b"].heard = s.hosts["a"].next + 1
    s.b("A")
    s.b("FA")
    s.b("FA", seq=-1)
    s.a("A")
    s.b("FA", seq=-1)
    s.a("A")


@by_hand
def stray_acks_after_the_close(s: Script) -> None:
    """After a full close both ends still acknowledge, and the server repeats its last data."""
    s.talked()
    s.closed()
    s.b("A")
    s.a("A")
    s.b("PA", seq=-301, payload=300)
    s.a("A")


# ---- opening ---------------------------------------------------------------------------------------------------------


@by_hand
def syn_ack_of_another_syn(s: Script) -> None:
    """The SYN+ACK acknowledges a number that was never sent, is answered by RST, and the right one comes (case 4)."""
    s.a("S")
    s.b("SA", at=ISN_B, acks=ISN_A + 5000)
    s.a("R", at=ISN_A + 5000)
    s.b("SA")
    s.a("A")


@by_hand
def rst_of_another_syn(s: Script) -> None:
    """A RST+ACK answers the SYN with a number that was never sent; the handshake goes on."""
    s.a("S")
    s.b("RA", at=0, acks=ISN_A + 5000)
    s.b("SA")
    s.a("A")


@by_hand
def rst_without_ack_answers_syn(s: Script) -> None:
    """A SYN is answered by a RST without ACK, whose number means nothing; the handshake goes on."""
    s.a("S")
    s.b("R", at=0)
    s.b("SA")
    s.a("A")


@by_hand
def opener_gives_up(s: Script) -> None:
    """SYN, SYN+ACK, and the opener resets with the number that the SYN+ACK asked for."""
    s.a("S")
    s.b("SA")
    s.a("R")


@by_hand
def syn_with_another_isn_before_an_answer(s: Script) -> None:
    """The opener gives up and tries again from the same port with another number; the second SYN is answered."""
    s.a("S")
    s.restart("a", 0x20000000)
    s.a("S")
    s.b("SA")
    s.a("A")
    s.a("PA", payload=10)


@by_hand
def syn_with_data(s: Script) -> None:
    """The SYN carries 50 bytes, which the SYN+ACK acknowledges (RFC 7413)."""
    s.a("S", payload=50)
    s.b("SA")
    s.a("A")
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def syn_with_data_not_taken(s: Script) -> None:
    """The SYN carries 50 bytes, the SYN+ACK acknowledges only the SYN, the bytes are sent again."""
    s.a("S", payload=50)
    s.b("SA", at=ISN_B, acks=ISN_A + 1)
    s.hosts["b"].next = s.hosts["a"].heard = ISN_B + 1
    s.a("PA", seq=-50, payload=50)
    s.b("A")


@by_hand
def fin_completes_the_handshake(s: Script) -> None:
    """The third segment of the handshake already carries the FIN."""
    s.a("S")
    s.b("SA")
    s.a("FA")
    s.b("A")
    s.b("FA")
    s.a("A")


@by_hand
def data_completes_the_handshake(s: Script) -> None:
    """The third segment was lost before the tap: the opener's data come next."""
    s.a("S")
    s.b("SA")
    s.a("PA", payload=100)
    s.b("A")
    s.closed()


@by_hand
def server_speaks_first(s: Script) -> None:
    """The third segment was lost before the tap: the server's data come next, then the client's ACK."""
    s.a("S")
    s.b("SA")
    s.b("PA", payload=100)
    s.a("A")


@by_hand
def server_closes_before_the_third_segment(s: Script) -> None:
    """SYN, SYN+ACK, and the server, which has accepted nothing, sends FIN at once (RFC 9293 figure 5, SYN_RCVD)."""
    s.a("S")
    s.b("SA")
    s.b("FA")
    s.a("A")
    s.a("FA")
    s.b("A")


@by_hand
def simultaneous_open(s: Script) -> None:
    """Two SYNs cross and two SYN+ACKs cross (RFC 9293 figure 7), then data."""
    s.a("S", at=ISN_A)
    s.b("S", at=ISN_B)
    s.hosts["a"].next = s.hosts["b"].heard = ISN_A + 1
    s.hosts["b"].next = s.hosts["a"].heard = ISN_B + 1
    s.a("SA", seq=-1)
    s.b("SA", seq=-1)
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def simultaneous_open_with_plain_acks(s: Script) -> None:
    """Two SYNs cross and each is answered by an ACK without SYN, as older stacks do."""
    s.a("S", at=ISN_A)
    s.b("S", at=ISN_B)
    s.hosts["a"].next = s.hosts["b"].heard = ISN_A + 1
    s.hosts["b"].next = s.hosts["a"].heard = ISN_B + 1
    s.a("A")
    s.b("A")
    s.a("PA", payload=10)


# ---- what the tap has missed (cases 53, 54, 55, 61) ------------------------------------------------------------------


@by_hand
def syn_ack_first(s: Script) -> None:
    """The SYN took another way: SYN+ACK, ACK and data are all that is seen."""
    s.a("S")
    s.b("SA")
    s.a("A")
    s.a("PA", payload=10)
    s.b("A")
    del s.segments[0]


@by_hand
def syn_overtaken_by_syn_ack(s: Script) -> None:
    """Two taps, merged wrongly: the SYN+ACK comes before its SYN."""
    s.opened()
    s.segments[:2] = s.segments[1::-1]
    s.a("PA", payload=10)


@by_hand
def syn_ack_missing(s: Script) -> None:
    """One direction of the handshake is missing: SYN, then the opener's ACK and data, then an ACK of them."""
    s.opened()
    del s.segments[1]
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def one_direction_only(s: Script) -> None:
    """An asymmetric route: only what the opener sends is seen, from SYN to the last ACK."""
    s.talked()
    s.closed()
    s.segments[:] = [each for each in s.segments if each.side == "a"]


@by_hand
def mid_stream_data(s: Script) -> None:
    """A connection that began earlier: data, ACKs and a close in four segments."""
    s.hosts["a"].heard, s.hosts["b"].heard = ISN_B, ISN_A
    s.a("PA", payload=100)
    s.b("A")
    s.b("PA", payload=200)
    s.a("A")
    s.closed()


@by_hand
def mid_stream_fin(s: Script) -> None:
    """All that is seen of an old connection is its close."""
    s.hosts["a"].heard, s.hosts["b"].heard = ISN_B, ISN_A
    s.closed()


@by_hand
def mid_stream_rst(s: Script) -> None:
    """A RST for a connection that nobody knows, then a handshake on the same tuple."""
    s.b("RA", at=12345, acks=ISN_A)
    s.opened()


@by_hand
def acknowledged_but_never_seen(s: Script) -> None:
    """The capture lost 3,000 bytes that the other end has received: their ACK comes, the stream goes on behind them."""
    s.talked()
    s.hosts["a"].next = s.hosts["b"].heard = s.hosts["a"].next + 3000
    s.b("A")
    s.a("PA", payload=100)
    s.b("A")


@by_hand
def hole_that_is_filled_later(s: Script) -> None:
    """Three runs of data, the first comes last."""
    s.talked()
    s.a("PA", seq=100, payload=100)
    s.a("PA", seq=200, payload=100)
    s.b("A")
    s.a("PA", payload=100)
    s.hosts["a"].next = s.hosts["b"].heard = s.hosts["a"].next + 200
    s.b("A")


@by_hand
def fin_before_its_data(s: Script) -> None:
    """The FIN overtakes the last run of data (case 26)."""
    s.talked()
    s.a("FA", seq=100)
    s.b("A")
    s.a("PA", payload=100)
    s.hosts["a"].next = s.hosts["b"].heard = s.hosts["a"].next + 1
    s.b("A")
    s.b("FA")
    s.a("A")


@by_hand
def fin_never_seen(s: Script) -> None:
    """The opener's FIN was lost before the tap, its ACK is seen, then the other end's close."""
    s.talked()
    s.a("FA")
    del s.segments[-1]
    s.b("A")
    s.b("FA")
    s.a("A")


@by_hand
def last_ack_overtaken(s: Script) -> None:
    """The second FIN comes before the ACK of the first, with the ACK of the first in it (three segments)."""
    s.talked()
    s.a("FA")
    s.b("FA")
    s.b("A")
    s.a("A")
