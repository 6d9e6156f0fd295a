"""Two clients behind one address of a NAT, and a server with tcp_tw_recycle: what the option breaks, run and counted.

The clients have clocks of their own (each table its own offset of timestamps, RFC 7323 section 7.1), the NAT gives each a
part of the ports, and the server sees one address.
"""

from __future__ import annotations

import struct
import sys
import warnings
from dataclasses import dataclass

from fasttcp.core.segments import SEGMENT_BYTES
from fasttcp.core.table import ConnectionTable
from fasttcp.profiles import Profile
from fasttcp.spec import State

__all__ = ["NatResult", "two_clients_behind_nat"]

PUBLIC, SERVER, PORT = "198.51.100.7", "192.0.2.1", 443
PORTS = ((32768, 45000), (45001, 60999))
STEP_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class NatResult:
    """Of `tried` connects of each client, how many were not answered within a second; without the option, of both."""

    tried: int
    failed: tuple[int, int]
    failed_without: int


def two_clients_behind_nat(profile: Profile, tried: int = 20) -> NatResult:
    """Let both clients connect and close in turn, with tcp_tw_recycle at the server and without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with_it = profile.replace(tcp_tw_recycle=True, tcp_timestamps=1)
    failed = _run(profile, with_it, tried)
    return NatResult(tried, failed, sum(_run(profile, profile.replace(tcp_tw_recycle=False, tcp_timestamps=1), tried)))


def _run(client_profile: Profile, server_profile: Profile, tried: int) -> tuple[int, int]:
    clients = [
        ConnectionTable(256, seed=seed, profile=client_profile.replace(tcp_timestamps=1, ip_local_port_range=ports))
        for seed, ports in zip((1, 2), PORTS, strict=True)
    ]
    server = ConnectionTable(1024, seed=3, profile=server_profile)
    server.listen(SERVER, PORT, 0)
    now, failed = 0, [0, 0]
    for _ in range(tried):
        for who, client in enumerate(clients):
            handle = client.open(PUBLIC, 0, SERVER, PORT, now)
            now = _carry(clients, server, now)
            if client.state(handle) is not State.ESTABLISHED:
                failed[who] += 1
                client.abort(handle, now)
            else:
                # The server closes, so TIME_WAIT, and the memory of the timestamp, are on its side.
                theirs = server.find(SERVER, PORT, PUBLIC, int(client.summary(handle)["orig_port"]))
                assert theirs is not None
                server.close(theirs, now)
                now = _carry(clients, server, now)
                client.close(handle, now)
            now = _carry(clients, server, now) + 500_000_000
            for table in (*clients, server):
                table.advance(now)
    return failed[0], failed[1]


def _carry(clients: list[ConnectionTable], server: ConnectionTable, now: int) -> int:
    """Let segments go to and fro until nobody has one to send; a step of time each."""
    while any(table.output_count for table in (*clients, server)):
        now += STEP_NS
        for table in clients:
            for record in _records(table):
                server.receive(_at(record, now))
        for record in _records(server):
            port = int.from_bytes(record[42:44], sys.byteorder)
            client = clients[0 if port <= PORTS[0][1] else 1]
            client.receive(_at(record, now))
    return now


def _records(table: ConnectionTable) -> list[bytes]:
    if not table.output_count:
        return []
    data = bytes(memoryview(table.take_output()))
    return [data[at : at + SEGMENT_BYTES] for at in range(0, len(data), SEGMENT_BYTES)]


def _at(record: bytes, now: int) -> bytes:
    return struct.pack("=q", now) + record[8:]
