"""Conversations by hand: impossible numbers, resets, a SYN on a connection that lives or has just ended, and closing.

A function's docstring says what happens; `a` opens, and closes first, where nothing else is said. Must not know
any state.
"""

from kernel_witness.script import ISN_A, ISN_B, Script, by_hand

# ---- sequence and acknowledgement numbers that cannot be (cases 15, 16, 22) ------------------------------------------


@by_hand
def ack_of_the_impossible(s: Script) -> None:
    """An ACK of 2^30 bytes more than were sent (RFC 5961 section 5), between ordinary data."""
    s.talked()
    s.b("A", ack=1 << 30)
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def forged_data_far_ahead(s: Script) -> None:
    """Data 2^30 above the window, as a blind attacker would inject them, between ordinary data."""
    s.talked()
    s.a("PA", seq=1 << 30, payload=10)
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def forged_data_far_behind(s: Script) -> None:
    """Data 2^30 below what was acknowledged, between ordinary data."""
    s.talked()
    s.a("PA", seq=-(1 << 30), payload=10)
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def ack_far_behind(s: Script) -> None:
    """An ACK 2^30 below SND.UNA, older than any window, with data (RFC 5961 section 5)."""
    s.talked()
    s.a("PA", ack=-(1 << 30), payload=10)
    s.a("PA", seq=0, payload=20)
    s.b("A")


@by_hand
def zero_window_and_probe(s: Script) -> None:
    """The receiver closes its window, is probed with one byte and with none, and opens it again."""
    s.talked()
    s.b("A", window=0)
    s.a("A", seq=-1)
    s.b("A", window=0)
    s.a("PA", at=s.hosts["a"].next, payload=1)
    s.b("A", window=0)
    s.b("A", window=512)
    s.a("PA", payload=100)
    s.b("A")


@by_hand
def keepalive(s: Script) -> None:
    """A keepalive probe, one byte below SND.NXT, without and with a garbage byte, each answered (case 48)."""
    s.talked()
    s.a("A", seq=-1)
    s.b("A")
    s.a("A", seq=-1, payload=1)
    s.b("A")


# ---- resets (cases 18 to 20, 42, 56, 57) -----------------------------------------------------------------------------


@by_hand
def rst_exact(s: Script) -> None:
    """RST at RCV.NXT (RFC 5961 section 3.2): the connection is gone. An ACK that was under way still comes."""
    s.talked()
    s.b("RA")
    s.a("A")


@by_hand
def rst_in_window(s: Script) -> None:
    """RST inside the window but not at RCV.NXT: a challenge ACK answers it, then data go on (RFC 5961 section 3.2)."""
    s.talked()
    s.a("R", seq=1000)
    s.b("A")
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def rst_in_window_meant(s: Script) -> None:
    """RST inside the window, a challenge ACK, and the RST that answers the challenge at the number it asks for."""
    s.talked()
    s.a("R", seq=1000)
    s.b("A")
    s.a("R")


@by_hand
def rst_outside_the_window(s: Script) -> None:
    """RST 2^30 above and 2^30 below RCV.NXT, both forged; data go on (case 56)."""
    s.talked()
    s.a("R", seq=1 << 30)
    s.a("R", seq=-(1 << 30))
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def rst_just_below(s: Script) -> None:
    """RST one below RCV.NXT on a live connection: outside the window, no challenge, data go on."""
    s.talked()
    s.a("R", seq=-1)
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def rst_in_time_wait(s: Script) -> None:
    """A full close; then a late RST from the end that was in LAST_ACK (RFC 1337)."""
    s.talked()
    s.closed()
    s.b("R")


@by_hand
def rst_after_half_close(s: Script) -> None:
    """The client has closed, the server sends data, and the client, whose process is gone, resets (case 34)."""
    s.talked()
    s.a("FA")
    s.b("A")
    s.b("PA", payload=100)
    s.a("R")


@by_hand
def rst_repeated(s: Script) -> None:
    """RST at RCV.NXT, then twice more, as answers to data that were under way."""
    s.talked()
    s.a("R")
    s.b("PA", payload=100)
    s.a("R")
    s.b("PA", payload=100)
    s.a("R")


# ---- a SYN on a connection that lives, or has just ended (cases 21, 41, 51, 52) --------------------------------------


@by_hand
def syn_on_a_live_connection(s: Script) -> None:
    """A forged SYN with another number; it is challenged (RFC 5961 section 4.2), and data go on."""
    s.talked()
    s.a("S", at=0x20000000)
    s.b("A")
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def syn_in_the_window(s: Script) -> None:
    """A forged SYN inside the window, challenged just the same; data go on."""
    s.talked()
    s.a("S", seq=100)
    s.b("A")
    s.a("PA", payload=10)
    s.b("A")


@by_hand
def syn_challenge_and_reset(s: Script) -> None:
    """The opener has rebooted: its SYN is challenged, it answers the challenge by RST, and its next SYN opens anew."""
    s.talked()
    old = s.hosts["b"].heard
    s.restart("a", 0x20000000)
    s.a("S", at=0x20000000)
    s.b("A", acks=old)
    s.a("R", at=old)
    s.a("S")
    s.restart("b", 0x90000000)
    s.hosts["b"].heard = 0x20000001
    s.b("SA")
    s.a("A")


@by_hand
def syn_on_a_half_open_connection(s: Script) -> None:
    """Both ends have lost the old connection unseen: a SYN with another number is answered by SYN+ACK (case 52)."""
    s.talked()
    s.restart("a", 0x20000000)
    s.a("S")
    s.restart("b", 0x90000000)
    s.hosts["b"].heard = 0x20000001
    s.b("SA")
    s.a("A")
    s.a("PA", payload=10)


@by_hand
def syn_from_the_responder_on_a_live_connection(s: Script) -> None:
    """The responder's end sends a SYN on the live connection; it is challenged, data go on."""
    s.talked()
    s.b("S", at=0x20000000)
    s.a("A")
    s.b("PA", payload=10)
    s.a("A")


@by_hand
def syn_reopens_time_wait(s: Script) -> None:
    """A full close, then a SYN above the last number opens the next connection from the same port (RFC 9293 3.6.1)."""
    s.talked()
    s.closed()
    s.a("S", at=ISN_A + 100_000)
    s.hosts["a"].next = s.hosts["b"].heard = (ISN_A + 100_001) % (1 << 32)
    s.restart("b", 0x90000000)
    s.hosts["b"].heard = s.hosts["a"].next
    s.b("SA")
    s.a("A")


@by_hand
def syn_below_in_time_wait(s: Script) -> None:
    """A full close, then a SYN below the last number: TIME_WAIT answers with its last ACK (RFC 9293 3.10.7.4)."""
    s.talked()
    s.closed()
    s.b("S", at=ISN_B - 100_000)
    s.a("A")


@by_hand
def syn_again_after_close(s: Script) -> None:
    """A full close, then the very first SYN once more, an old duplicate."""
    s.talked()
    s.closed()
    s.a("S", at=ISN_A)


@by_hand
def syn_after_rst(s: Script) -> None:
    """A reset connection, then a handshake from the same port."""
    s.talked()
    s.a("R")
    s.restart("a", 0x20000000)
    s.a("S")
    s.restart("b", 0x90000000)
    s.hosts["b"].heard = 0x20000001
    s.b("SA")
    s.a("A")


@by_hand
def syn_after_refusal(s: Script) -> None:
    """A SYN is refused by RST, the next one with another number is accepted."""
    s.a("S")
    s.b("RA", at=0)
    s.restart("a", 0x20000000)
    s.a("S")
    s.restart("b", 0x90000000)
    s.hosts["b"].heard = 0x20000001
    s.b("SA")
    s.a("A")


# ---- closing ---------------------------------------------------------------------------------------------------------


@by_hand
def simultaneous_close(s: Script) -> None:
    """Two FINs cross, then two ACKs (RFC 9293 figure 13)."""
    s.talked()
    seq_a, seq_b = s.hosts["a"].next, s.hosts["b"].next
    s.a("FA", at=seq_a)
    s.b("FA", at=seq_b)
    s.hosts["a"].next = s.hosts["b"].heard = (seq_a + 1) % (1 << 32)
    s.hosts["b"].next = s.hosts["a"].heard = (seq_b + 1) % (1 << 32)
    s.a("A")
    s.b("A")


@by_hand
def half_close(s: Script) -> None:
    """`a` closes, `b` goes on sending for three runs, then closes as well (case 31)."""
    s.talked()
    s.a("FA")
    s.b("A")
    for _ in range(3):
        s.b("PA", payload=500)
        s.a("A")
    s.b("FA")
    s.a("A")


@by_hand
def data_in_the_fin(s: Script) -> None:
    """Both FINs carry data."""
    s.talked()
    s.a("FPA", payload=100)
    s.b("A")
    s.b("FPA", payload=50)
    s.a("A")


@by_hand
def fin_acknowledged_only_in_part(s: Script) -> None:
    """A FIN with 100 bytes: first the bytes are acknowledged, later the FIN (case 28)."""
    s.talked()
    s.a("FPA", payload=100)
    s.b("A", ack=-1)
    s.b("A")
    s.b("FA")
    s.a("A")


@by_hand
def responder_closes_first(s: Script) -> None:
    """The end that was called closes first, in four segments."""
    s.talked()
    s.b("FA")
    s.a("A")
    s.a("FA")
    s.b("A")
