"""Segments for the tests of the table: conversations of two hosts, as dicts for `SegmentBatch.append`."""

from fasttcp import ConnectionTable, SegmentBatch

MS = 1_000_000
S = 1_000_000_000
TICK = 10 * MS

A = ("10.0.0.1", 40000)
B = ("10.0.0.2", 80)
# The client's numbers wrap in the handshake, the server's lie far away from them.
ISN_A = 0xFFFFFFFF
ISN_B = 0x70000000


def observer(capacity=16, **more):
    return ConnectionTable(capacity, seat="observer", **{"seed": 1, **more})


def send(time_ns, src, dst, flags, seq=0, ack=0, payload=0, window=0xFFFF, **more):
    return {
        "time_ns": time_ns, "src": src[0], "sport": src[1], "dst": dst[0], "dport": dst[1], "flags": flags,
        "seq": seq & 0xFFFFFFFF, "ack": ack & 0xFFFFFFFF, "payload": payload, "window": window, **more,
    }  # fmt: skip


def opening(time_ns=0, a=A, b=B):
    return [
        send(time_ns, a, b, "SYN", ISN_A),
        send(time_ns + MS, b, a, "SYN|ACK", ISN_B, ISN_A + 1),
        send(time_ns + 2 * MS, a, b, "ACK", ISN_A + 1, ISN_B + 1),
    ]


def closing(time_ns=3 * MS, a=A, b=B):
    """`a` closes first and ends in TIME_WAIT, `b` in CLOSED."""
    return [
        send(time_ns, a, b, "FIN|ACK", ISN_A + 1, ISN_B + 1),
        send(time_ns + MS, b, a, "FIN|ACK", ISN_B + 1, ISN_A + 2),
        send(time_ns + 2 * MS, a, b, "ACK", ISN_A + 2, ISN_B + 2),
    ]


def batch_of(*segments):
    batch = SegmentBatch(max(len(segments), 1))
    for segment in segments:
        batch.append(**segment)
    return batch


def feed(table, *segments):
    """Apply dicts as one batch; the verdicts as a list of dicts."""
    return list(table.apply(batch_of(*segments)))


def clients(n, network="10.1", port=1024):
    """n different client ends."""
    return [(f"{network}.{i >> 16 & 255}.{i >> 8 & 255}", port + (i & 255)) for i in range(n)]
