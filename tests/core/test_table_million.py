"""One million connections, opened, closed and expired, ten times over in one table: as fast and as large as at
first."""

import os
import sys

import numpy as np
import pytest
from table_traffic import MS, S, observer

from fasttcp import SEGMENT_DTYPE, State, Verdict
from fasttcp.core.segments import ACK, FIN, SYN

MILLION = 1_000_000
CHUNK = 50_000
ROUNDS = 10


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def template():
    """CHUNK segments from the client of each connection; `turn` makes them its server's."""
    batch = np.zeros(CHUNK, np.dtype(SEGMENT_DTYPE))
    mapped = np.frombuffer(b"\0" * 10 + b"\xff\xff" + bytes([10, 0, 0, 1]), "u1")
    batch["src"], batch["dst"] = mapped, mapped
    batch["dst"][:, 13] = 200
    batch["sport"] = 1024 + np.arange(CHUNK)
    batch["dport"] = 443
    batch["window"] = 0xFFFF
    return batch


def turn(batch):
    for one, other in (("src", "dst"), ("sport", "dport")):
        batch[one], batch[other] = batch[other].copy(), batch[one].copy()


# Who speaks (0: the client), its flags, its sequence number and what it acknowledges, counted from the first of each.
EXCHANGE = [
    (0, SYN, 0, 0), (1, SYN | ACK, 0, 1), (0, ACK, 1, 1),
    (0, FIN | ACK, 1, 1), (1, FIN | ACK, 1, 2), (0, ACK, 2, 2),
]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_a_million_connections_ten_times_over():
    table = observer(MILLION)
    client = template()
    server = client.copy()
    turn(server)
    now = 0
    sizes = []
    for round_ in range(ROUNDS):
        first = np.arange(CHUNK, dtype="u4") * 77777 + np.uint32(round_ * 12345)
        for said, (who, flags, seq, ack) in enumerate(EXCHANGE):
            batch, address = (client, "src") if who == 0 else (server, "dst")
            batch["flags"] = flags
            batch["seq"] = first + np.uint32(seq)
            batch["ack"] = first + np.uint32(ack)
            for chunk in range(MILLION // CHUNK):
                now += MS
                batch["time_ns"] = now
                batch[address][:, 14] = chunk
                verdicts = np.asarray(table.apply(batch))
                assert (verdicts["flags"] == (Verdict.CHANGED | (Verdict.NEW if said == 0 else 0))).all()
            assert len(table) == MILLION
        counts = table.counts()
        assert (counts[State.TIME_WAIT], counts[State.CLOSED]) == (MILLION, MILLION)
        if round_ in (0, ROUNDS - 1):
            table.check_invariants()
        assert table.advance(now + 59 * S) is True
        assert len(table) == MILLION
        now += 61 * S
        calls = 1
        while not table.advance(now, budget=100_000):
            calls += 1
        assert 10 <= calls <= 12
        assert len(table) == 0
        sizes.append((resident(), table.nbytes))
    table.check_invariants()
    assert table.tallies()["connections"] == table.tallies()["ended"] == ROUNDS * MILLION
    assert table.tallies()["segments"] == len(EXCHANGE) * ROUNDS * MILLION
    memory = [size for size, _ in sizes]
    assert max(memory[1:]) - memory[1] < 2 << 20, memory
    assert len({nbytes for _, nbytes in sizes[1:]}) == 1
    assert sizes[-1][1] <= 128 * MILLION
