"""What the short ways of the journal leave to the long one: limits and sizes that no random exchange reaches."""

import pytest
from wire import BAD_CHECKSUM, SECOND, Host, Wire

DECADES = (0, 1, 10, 100, 1000)  # so many times, that many letters


def talking(ports=(40000, 7000), **changes):
    """A connection whose numbers are far from any end."""
    wire = Wire("zeek", tracker=True, ports=ports, **changes)
    wire.hosts = (Host("198.18.0.1", ports[0], 1000), Host("198.18.0.2", ports[1], 500_000))
    wire.opened()
    return wire


@pytest.mark.parametrize("again", range(5))
@pytest.mark.parametrize("damaged", range(2, 5))
def test_a_history_passes_the_end_of_its_page(again, damaged):
    wire = talking()
    for side in (wire.a, wire.b):
        for _ in range(DECADES[damaged]):
            side("PA", payload=3, info=BAD_CHECKSUM)
    for _ in range(1000):
        wire.a("A", window=0)
    wire.a("PA", payload=10)
    for _ in range(DECADES[again]):
        wire.a("PA", seq=-10, payload=10)
    wire.b("A")
    wire.b("PA", payload=5)
    wire.a("FA")
    wire.b("FA")
    wire.a("A")
    assert wire.entry().history == "ShA" + "C" * damaged + "c" * damaged + "WWWWD" + "T" * again + "adFf"


@pytest.mark.parametrize("last", ["PA", "A", "FA", "RA"])
def test_ip_bytes_are_counted_beyond_32_bits(last):
    wire = talking()
    for _ in range(4):
        wire.a("PA", payload=10, ip_bytes=0x70000000)
    wire.a(last, ip_bytes=0x7FFFFFFF)
    wire.a(last, seq=-1 if "F" in last else 0, ip_bytes=0xFFFFFFFF)
    before = talking().entry().orig_ip_bytes
    assert wire.entry().orig_ip_bytes == before + 4 * 0x70000000 + 0x7FFFFFFF + 0xFFFFFFFF


def large(pieces, window):
    """So many MiB, a gap, an orderly end, and the first SYN again; all of it goes the long way with a window of 0."""
    wire = talking()
    for _ in range(pieces):
        wire.a("PA", payload=1 << 20, window=window)
        wire.b("A", window=window)
    wire.hosts[0].next += 50
    wire.a("PA", payload=10, window=window)
    wire.b("A", window=window)
    wire.closed()
    wire.a("S", seq=1000, absolute=True)
    return [
        (each.conn_state, each.history.replace("W", "").replace("w", ""), each.orig_bytes, each.missed_bytes)
        for each in wire.entries()
    ]


@pytest.mark.parametrize("pieces", [2047, 2048, 2049, 2054, 4090, 4100])
def test_sizes_beyond_31_bits(pieces):
    rows = large(pieces, 1000)
    assert rows == large(pieces, 0)
    assert rows[0][2] == (pieces << 20) + 60


@pytest.mark.parametrize(("unacknowledged", "history"), [(3, "ShADaG"), (4, "ShADa")])
def test_gaps_are_not_counted_after_too_much_without_an_acknowledgment(unacknowledged, history):
    wire = talking(tcp_excessive_data_without_further_acks=3500)
    wire.a("PA", payload=1000)
    wire.b("A")
    for _ in range(unacknowledged):
        wire.a("PA", payload=1000)
    wire.b("A")
    wire.hosts[0].next += 50
    wire.a("PA", payload=10)
    wire.b("A")
    assert wire.entry().history == history


@pytest.mark.parametrize("window", [0, 1000])       # with 0 the data go the long way
@pytest.mark.parametrize(("heard", "connections"), [(10, 1), (0, 2)])
def test_an_older_acknowledgment_takes_nothing_back(heard, connections, window):
    """A close waits for the ACK of the peer's data, unless the peer's ACKs take another way: then the SYN begins anew."""
    wire = talking()
    wire.a("PA", payload=10)
    wire.b("A", ack=heard - 10)
    wire.b("A", ack=-10)
    wire.a("PA", payload=20_000, window=window)
    wire.b("FA", ack=heard - 20_010)
    wire.a("S", seq=1000, absolute=True)
    assert len(wire.entries()) == connections


@pytest.mark.parametrize(("closing", "silence_s", "connections"), [("A", 59, 1), ("A", 61, 2), ("FA", 59, 1), ("FA", 61, 2)])
def test_silence_of_a_port_may_be_shorter_than_others(closing, silence_s, connections):
    wire = talking(port_inactivity_timeouts_ns=((7000, 60 * SECOND),))
    wire.a(closing)
    wire.b("PA", payload=10, after=silence_s * SECOND)
    assert len(wire.entries()) == connections


@pytest.mark.parametrize("first", ["R", "RA"])
def test_a_row_that_only_a_rst_has_opened_is_not_gone_on_from(first):
    """Its zeros are no states and no numbers, though an ACK of zeros fits them."""
    wire = Wire("zeek", tracker=True)
    wire.a(first, seq=0, ack=0, absolute=True)
    assert wire.states == ("CLOSED", "CLOSED")
    wire.a("A", seq=0, ack=0, absolute=True)
    assert wire.states == ("ESTABLISHED", "ESTABLISHED")
