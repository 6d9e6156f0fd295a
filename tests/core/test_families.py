"""An IPv4 connection that has the very key of an IPv6 one is another connection."""

import ipaddress

import numpy as np
import pytest

from fasttcp import ConnectionTable
from fasttcp.core.segments import SegmentBatch


def batch(ends, steps, first_ms=0):
    segments = SegmentBatch(len(steps))
    for time_ms, (sender, flags, seq, ack) in enumerate(steps, first_ms):
        src, dst = ends[sender], ends[1 - sender]
        segments.append(
            time_ns=time_ms * 1_000_000, src=src[0], sport=src[1], dst=dst[0], dport=dst[1], flags=flags, seq=seq, ack=ack
        )
    return segments


def test_a_row_of_the_other_family_is_not_taken_for_ones_own():
    """What stands for the addresses in an IPv6 row are 64 bits of their hash: any two IPv4 addresses may have the same."""
    steps = [(0, "SYN", 100, 0), (1, "SYN ACK", 900, 101), (0, "ACK", 101, 901)]
    for host in range(1, 50):
        table = ConnectionTable(64, seat="observer", seed=1)
        wide = [(f"2001:db8::{host:x}", 40000), ("2001:db8::ffff", 40001)]
        table.apply(batch(wide, steps))
        row = int(np.asarray(table.column("generation")).argmax())
        words = [int(np.asarray(table.column(f"addr_{side}"))[row]) for side in (0, 1)]
        if words[0] < words[1]:  # else the sides of the IPv4 pair would stand the other way round
            break
    else:
        pytest.fail("no pair of addresses whose hash is in order")
    narrow = [(str(ipaddress.IPv4Address(word)), port) for word, (_, port) in zip(words, wide, strict=True)]
    table.apply(batch(narrow, [(0, "ACK", 101, 901)], 3))
    assert len(table) == 2
    assert table.find(*wide[0], *wide[1]) != table.find(*narrow[0], *narrow[1])
