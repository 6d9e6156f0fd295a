"""What ICMP says of a load's segments: read from its packets, and done about connections that a router refuses for real."""

import json
import socket
import struct
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel.netns import Namespace, veth_pair, why_not

from fasttcp.load import _testing
from load.kernel_server import serving

NETWORK, HOST, PORT, FORBIDDEN, TOO_LARGE = 1, 2, 3, 4, 5
OURS, THEIRS, ROUTER = b"\xc6\x13\x00\x01", b"\xc6\x12\x00\x02", b"\xc6\x12\x00\x09"
TCP = struct.pack("!HHII", 40000, 443, 0xFFFFFFF0, 7)
V4 = {0: NETWORK, 1: HOST, 2: PORT, 3: PORT, 4: TOO_LARGE, 5: HOST, 6: NETWORK, 7: HOST, 8: HOST, 9: FORBIDDEN, 10: FORBIDDEN,
      11: NETWORK, 12: HOST, 13: FORBIDDEN, 14: FORBIDDEN, 15: FORBIDDEN}  # fmt: skip
V6 = {0: NETWORK, 1: FORBIDDEN, 2: NETWORK, 3: HOST, 4: PORT, 5: FORBIDDEN, 6: FORBIDDEN}


def ip4(protocol, source, destination, data, options=b"", fragment=0):
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(data), 0, fragment, 64, protocol, 0)
    return head + source + destination + options + data


def ip6(header, source, destination, data):
    long = b"\xfd" + bytes(11)
    return struct.pack("!IHBB", 6 << 28, len(data), header, 64) + long + source + long + destination + data


def told(packet):
    found = _testing.unreachable(packet)
    if found is None:
        return None
    what, batch = found
    (segment,) = batch
    assert (segment.sport, segment.dport, segment.seq) == (40000, 443, 0xFFFFFFF0)
    assert segment.ip_bytes == (1280 if what == TOO_LARGE else 0)
    assert segment.src.endswith(("198.19.0.1", "c613:1")) and segment.dst.endswith(("198.18.0.2", "c612:2"))
    return what


@pytest.mark.parametrize("options", [b"", b"\x01" * 8])
@pytest.mark.parametrize("code", V4)
def test_every_code_of_destination_unreachable(code, options):
    quoted = ip4(6, OURS, THEIRS, TCP[:8], options)  # no more is sure to be there (RFC 792)
    assert told(ip4(1, ROUTER, OURS, struct.pack("!BBHI", 3, code, 0, 1280) + quoted, options)) == V4[code]


@pytest.mark.parametrize("code", V6)
def test_every_code_of_version_6(code):
    quoted = ip6(6, OURS, THEIRS, TCP)
    assert told(ip6(58, ROUTER, OURS, struct.pack("!BBHI", 1, code, 0, 0) + quoted)) == V6[code]
    assert told(ip6(58, ROUTER, OURS, struct.pack("!BBHI", 2, code, 0, 1280) + quoted)) == TOO_LARGE


def test_what_is_of_no_segment():
    unreachable = struct.pack("!BBHI", 3, 1, 0, 0)
    quoted = ip4(6, OURS, THEIRS, TCP)
    for packet in (
        ip4(1, ROUTER, OURS, struct.pack("!BBHI", 11, 0, 0, 0) + quoted),  # time exceeded
        ip4(17, ROUTER, OURS, unreachable + quoted),
        ip4(1, ROUTER, OURS, unreachable + ip4(17, OURS, THEIRS, TCP)),
        ip4(1, ROUTER, OURS, unreachable + ip4(6, OURS, THEIRS, TCP, fragment=5)),
        ip4(1, ROUTER, OURS, unreachable + quoted[:27]),
        ip6(58, ROUTER, OURS, struct.pack("!BBHI", 3, 0, 0, 0) + ip6(6, OURS, THEIRS, TCP)),
        ip6(58, ROUTER, OURS, struct.pack("!BBHI", 1, 0, 0, 0) + ip6(17, OURS, THEIRS, TCP)),
    ):
        assert told(packet) is None


BEGINNINGS = [b"", ip4(1, ROUTER, OURS, b"\x03\x01"), ip4(1, ROUTER, OURS, bytes([3, 1, *bytes(6), 0x4F])), b"`" + bytes(5) + b":@"]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(BEGINNINGS), st.binary(max_size=120))
def test_any_bytes(begin, data):
    found = _testing.unreachable(begin + data)
    assert found is None or (found[0] in (NETWORK, HOST, PORT, FORBIDDEN, TOO_LARGE) and len(found[1]) == 1)


# ---- for real: a router says so

ROUTES = {"unreachable": "icmp_host", "prohibit": "icmp_forbidden", None: "icmp_network"}


def routed(namespace, commands):
    namespace.link_up("lo")
    namespace.run(subprocess.run, ["sh", "-ec", commands]).check_returncode()


def load(namespace, *words):
    child = namespace.popen(
        [sys.executable, "-m", "fasttcp", "load", *words, "--duration", "300ms", "--json", "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, said = child.communicate(timeout=30)
    assert (child.returncode, said) == (0, "")
    report = json.loads(out)
    return report, report["counts"], report["outcomes"]


@pytest.mark.skipif(bool(why_not()), reason=str(why_not()))
@pytest.mark.parametrize("route", ROUTES)
def test_a_connection_that_a_router_refuses_ends_at_once(route):
    with Namespace() as here, Namespace() as router:
        veth_pair(here, "to-router", router, "to-here")
        forward = "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0; ip address add"
        refuse = f"ip route add {route} 198.18.9.9/32" if route else ""
        routed(here, f"{forward} 198.18.1.1/24 dev to-router; ip route add default via 198.18.1.2")
        routed(router, f"{forward} 198.18.1.2/24 dev to-here; ip route add 198.19.0.0/24 via 198.18.1.1; {refuse}")
        report, counts, outcomes = load(here, "198.18.9.9:80", "--source", "198.19.0.0/24", "--rate", "100")
    assert outcomes == {**dict.fromkeys(outcomes, 0), "unreachable": counts["opened"]} and counts["opened"] > 10
    assert counts["retransmitted"] == 0 and counts[ROUTES[route]] == counts["other_packets"] == counts["opened"]
    assert report["samples"][-1]["seconds"] < 2


def reached(namespace, address):
    """IPv6 addresses are at work some time after they were added only."""
    end = time.monotonic() + 5
    while True:
        with namespace.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as channel:
            channel.settimeout(0.2)
            try:
                return channel.connect((address, 80))
            except OSError:
                assert time.monotonic() < end, f"{address} is not reached"
                time.sleep(0.05)


@pytest.mark.skipif(bool(why_not()), reason=str(why_not()))
@pytest.mark.parametrize(
    ("address", "other", "source", "mtu"),
    [("198.18.1.2", "198.18.1.1", "198.19.0.0/24", 900), ("fd00:1::2", "fd00:1::1", "fd00:2::/120", 1300)],
    ids=["IPv4", "IPv6"],
)  # fmt: skip
def test_packets_too_large_for_the_path_go_out_in_smaller_ones(address, other, source, mtu, tmp_path):
    (tmp_path / "request").write_bytes(b"POST / HTTP/1.1\r\n" + b"x" * 20_000 + b"\r\n\r\n")
    bits = 64 if ":" in address else 24
    target = f"[{address}]:80" if ":" in address else f"{address}:80"
    with Namespace() as here, Namespace() as there:
        veth_pair(here, "to-there", there, "to-here")
        forward = "net.ipv6.conf.all.forwarding=1" if ":" in address else "net.ipv4.ip_forward=1"
        limit = "net.ipv6.icmp.ratelimit=0" if ":" in address else "net.ipv4.icmp_ratelimit=0"
        link = f"ip address add {other}/{bits} dev to-there nodad; ip link set to-there mtu {mtu}"
        routed(here, f"sysctl -qw {forward} {limit}; {link}")
        routed(there, f"ip address add {address}/{bits} dev to-here nodad; ip route add {source} via {other}")
        server = serving(there, address)
        reached(here, address)
        _, counts, outcomes = load(
            here, target, "--source", source, "--rate", "100", "--request", f"@{tmp_path / 'request'}", "--expect", "http"
        )
        server.communicate()
    assert outcomes == {**dict.fromkeys(outcomes, 0), "ok": counts["opened"]} and counts["opened"] > 10
    assert counts["answered"] == counts["opened"] and 0 < counts["icmp_too_large"] < 20 * counts["opened"]
