"""The observer's answers do not depend on where on the circle of 2^32 the sequence numbers of a connection lie."""

import pytest

from fasttcp import ConnectionTable, SegmentBatch, State

QUARTERS = (1, 0x40000000, 0x80000000, 0xC0000000, 0xFFFFFFFF)
CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)


def conversation(client_isn, server_isn, closer):
    """SYN, SYN+ACK, ACK, data of the client, and the first FIN; (sender, flags, seq, ack, payload)."""
    c, s = client_isn + 1, server_isn + 1
    yield 0, "SYN", client_isn, 0, 0
    yield 1, "SYN|ACK", server_isn, c, 0
    yield 0, "ACK", c, s, 0
    yield 0, "ACK|PSH", c, s, 100
    yield (0, "FIN|ACK", c + 100, s, 0) if closer == 0 else (1, "FIN|ACK", s, c + 100, 0)


def states_after(segments):
    table = ConnectionTable(4, seat="observer", seed=1)
    batch = SegmentBatch(8)
    for time, (sender, flags, seq, ack, payload) in enumerate(segments):
        src, dst = (CLIENT, SERVER) if sender == 0 else (SERVER, CLIENT)
        batch.append(
            time_ns=time, src=src[0], sport=src[1], dst=dst[0], dport=dst[1], flags=flags, seq=seq % 2**32, ack=ack % 2**32,
            payload=payload, window=1000,
        )  # fmt: skip
    table.apply(batch)
    (handle,) = table
    return table.state(handle)


@pytest.mark.parametrize("client_isn", QUARTERS)
@pytest.mark.parametrize("server_isn", QUARTERS)
@pytest.mark.parametrize("closer", [0, 1])
@pytest.mark.parametrize("missing", [None, 1], ids=["all seen", "SYN+ACK missing"])
def test_a_fin_is_not_acknowledged_before_it_is(client_isn, server_isn, closer, missing):
    segments = list(conversation(client_isn, server_isn, closer))
    if missing is not None:
        del segments[missing]
    closing, other = State.FIN_WAIT_1, State.CLOSE_WAIT
    assert states_after(segments) == ((closing, other) if closer == 0 else (other, closing))
