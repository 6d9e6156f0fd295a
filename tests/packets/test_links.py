"""Every link layer, tunnel and shape of IP: one frame in, the segment that went into it out."""

import random
import struct

import pytest

from fasttcp.core import segments as core
from fasttcp.core.segments import SegmentBatch
from fasttcp.packets.reader import CaptureReader
from packets import build
from packets.build import (
    CLIENT,
    CLIENT6,
    SERVER,
    SERVER6,
    SYN,
    amsdu,
    ethernet,
    extension,
    fabricpath,
    fragment6,
    ip4,
    ip6,
    mpls,
    options,
    packet4,
    packet6,
    pcap,
    ppp,
    pppoe,
    radiotap,
    sll,
    sll2,
    snap,
    tag,
    tcp,
    udp,
    wifi,
)  # fmt: skip

ETHERNET, PPP, FDDI, RAW, NULL, LOOP, WIFI, RADIOTAP = 1, 9, 10, 101, 0, 108, 105, 127
SLL, SLL2, IPV4, IPV6, C_HDLC, PPI, PRISM, AVS, NFLOG, PPP_ETHER, PPP_HDLC = (
    113, 276, 228, 229, 104, 192, 119, 163, 239, 51, 50,
)  # fmt: skip


def read(frames, *, link=ETHERNET, **how):
    """All segments of a capture of these frames, and its counters without the zeros."""
    reader = CaptureReader(pcap(frames, link=link), **how)
    found = list(reader)
    assert reader.damage is None
    return found, {name: count for name, count in reader.counters().items() if count}


# Without 64 bytes behind it a frame goes the long way; with this one behind it, which is no segment, it may take the short.
FILLER = ethernet(b"\xff" * 80, 0x88B5)


def only(frame, **how):
    found, counted = read([frame], **how)
    assert counted["segments"] == len(found) == 1, counted
    if how.get("link", ETHERNET) == ETHERNET:
        assert read([frame, FILLER], **how)[0] == found
    return found[0]


def verdict(frame, **how):
    """The one reason for which this frame is no segment."""
    found, counted = read([frame], **how)
    assert not found
    (name,) = counted.keys() - {"packets", "reassembly_pending", "reassembly_failed"}
    assert counted[name] == 1
    return name


P4 = packet4(b"hello", seq=0xFFFFFFFE, ack=3, window=700)
P6 = packet6(b"hello", seq=0xFFFFFFFE, ack=3, window=700)
ETH4 = ethernet(P4)

AROUND_EITHER = {
    "ethernet": (ETHERNET, ethernet),
    "ethernet padded": (ETHERNET, lambda p: ethernet(p) + b"\0" * 6),
    "vlan": (ETHERNET, lambda p: ethernet(tag(p), 0x8100)),
    "qinq": (ETHERNET, lambda p: ethernet(tag(tag(p), 0x8100), 0x88A8)),
    "qinq before 802.1ad": (ETHERNET, lambda p: ethernet(tag(tag(p), 0x9200), 0x9100)),
    "four vlan tags": (ETHERNET, lambda p: ethernet(tag(tag(tag(tag(p), 0x8100), 0x8100), 0x8100), 0x8100)),
    "vlan around llc": (ETHERNET, lambda p: ethernet(tag(snap(p), len(snap(p))), 0x8100)),
    "802.3 with snap": (ETHERNET, lambda p: ethernet(snap(p), len(snap(p)))),
    "vn-tag": (ETHERNET, lambda p: ethernet(b"\0\0\0\0" + struct.pack("!H", build.ip_type(p)) + p, 0x8926)),
    "mpls": (ETHERNET, lambda p: ethernet(mpls(p, 16), 0x8847)),
    "mpls, three labels": (ETHERNET, lambda p: ethernet(mpls(p, 16, 17, 18), 0x8848)),
    "ethernet over mpls": (ETHERNET, lambda p: ethernet(mpls(b"\0\0\0\0" + ethernet(p), 16, 17), 0x8847)),
    "pppoe": (ETHERNET, lambda p: ethernet(pppoe(p), 0x8864)),
    "vlan, pppoe": (ETHERNET, lambda p: ethernet(tag(pppoe(p), 0x8864), 0x8100)),
    "pbb": (ETHERNET, lambda p: ethernet(tag(b"\0\0\0\x09" + ethernet(tag(p), 0x8100), 0x88E7), 0x88A8)),
    "fabricpath": (ETHERNET, lambda p: fabricpath(ethernet(p))),
    "fabricpath, vlan": (ETHERNET, lambda p: fabricpath(ethernet(tag(p), 0x8100))),
    "bridged ethernet": (ETHERNET, lambda p: ethernet(ethernet(p), 0x6558)),
    "raw": (RAW, bytes),
    "raw 12": (12, bytes),
    "raw 14": (14, bytes),
    "ppp": (PPP, ppp),
    "ppp, compressed protocol": (PPP, lambda p: ppp(p, compressed=True)),
    "ppp without address": (PPP, lambda p: ppp(p, framed=False)),
    "ppp with mpls": (PPP, lambda p: b"\xff\x03\x02\x81" + mpls(p, 16)),
    "ppp hdlc": (PPP_HDLC, ppp),
    "ppp ether": (PPP_ETHER, pppoe),
    "cisco hdlc": (C_HDLC, lambda p: b"\x0f\0" + struct.pack("!H", build.ip_type(p)) + p),
    "fddi": (FDDI, lambda p: b"\x50" + b"\0\4\0\x82\xa7\xaa" * 2 + snap(p)),
    "sll": (SLL, sll),
    "sll with vlan": (SLL, lambda p: sll(tag(p), 0x8100)),
    "sll with llc": (SLL, lambda p: sll(snap(p), 4)),
    "sll2": (SLL2, sll2),
    "sll2 with llc": (SLL2, lambda p: sll2(snap(p), 4)),
    "wifi": (WIFI, lambda p: wifi(snap(p))),
    "wifi qos": (WIFI, lambda p: wifi(snap(p), qos=True, subtype=8)),
    "wifi qos, ht control": (WIFI, lambda p: wifi(snap(p), qos=True, order=True)),
    "wifi, four addresses": (WIFI, lambda p: wifi(snap(p), four_addresses=True)),
    "radiotap": (RADIOTAP, lambda p: radiotap(wifi(snap(p)))),
    "radiotap, time and flags": (RADIOTAP, lambda p: radiotap(wifi(snap(p), qos=True), tsft=True, flags=0x10)),
    "radiotap, padded header": (
        RADIOTAP, lambda p: radiotap(wifi(snap(p), qos=True, pad=True), tsft=True, flags=0x20),
    ),
    "radiotap, more present words": (
        RADIOTAP, lambda p: radiotap(wifi(snap(p), qos=True, pad=True), flags=0x20, more_present=2),
    ),
    "prism": (PRISM, lambda p: b"\0\0\0\x44" + b"\0" * 140 + wifi(snap(p))),
    "avs": (AVS, lambda p: b"\x80\x21\x10\x01\0\0\0\x40" + b"\0" * 56 + wifi(snap(p))),
    "ppi": (PPI, lambda p: b"\0\0\x0c\0" + struct.pack("<I", ETHERNET) + b"\0" * 4 + ethernet(p)),
    "nflog": (NFLOG, lambda p: b"\2\0\0\0" + b"\7\0\1\0abc\0" + struct.pack("<HH", 4 + len(p), 9) + p),
}  # fmt: skip
AROUND_IPV4 = {
    "llc with the SAP of IP": (ETHERNET, lambda p: ethernet(b"\x06\x06\x03" + p, 3 + len(p))),
    "null": (NULL, lambda p: struct.pack("<I", 2) + p),
    "null, other byte order": (NULL, lambda p: struct.pack(">I", 2) + p),
    "loop": (LOOP, lambda p: struct.pack(">I", 2) + p),
    "ipv4": (IPV4, bytes),
}
AROUND_IPV6 = {
    "null, linux": (NULL, lambda p: struct.pack("<I", 10) + p),
    "null, freebsd": (NULL, lambda p: struct.pack("<I", 28) + p),
    "null, darwin": (NULL, lambda p: struct.pack("<I", 30) + p),
    "loop, openbsd": (LOOP, lambda p: struct.pack(">I", 24) + p),
    "ipv6": (IPV6, bytes),
}
CASES = [
    pytest.param(link, around, packet, id=f"{name}, {version}")
    for table, packets in (
        (AROUND_EITHER, {"ipv4": P4, "ipv6": P6}), (AROUND_IPV4, {"ipv4": P4}), (AROUND_IPV6, {"ipv6": P6}),
    )
    for name, (link, around) in table.items()
    for version, packet in packets.items()
]  # fmt: skip


@pytest.mark.parametrize(("link", "around", "packet"), CASES)
def test_link_layer(link, around, packet):
    s = only(around(packet), link=link)
    six = packet is P6
    assert (s.src, s.dst) == ((CLIENT6, SERVER6) if six else (CLIENT, SERVER))
    assert (s.sport, s.dport, s.seq, s.ack, s.window, s.flags) == (40000, 443, 0xFFFFFFFE, 3, 700, core.ACK)
    assert (s.payload, s.ip_bytes, s.info) == (5, 40 + 20 * six + 5, core.INFO_IPV6 if six else 0)


@pytest.mark.parametrize(("link", "around", "packet"), CASES)
def test_link_layer_cut_short_anywhere(link, around, packet):
    """A snapshot length may leave any number of bytes: a segment comes out if and only if 20 bytes of TCP are left."""
    frame = around(packet)
    enough = frame.rindex(packet) + len(packet) - 5
    for captured in range(len(frame)):
        found, counted = read([build.Packet(frame[:captured], 0, len(frame))], link=link)
        assert len(found) == (captured >= enough), (captured, counted)
        assert sum(counted.values()) == 2


@pytest.mark.parametrize(
    ("frame", "link", "reason"),
    [
        (ethernet(b"\0\1" * 14, 0x0806), ETHERNET, "not_ip"),
        (ethernet(b"\x42\x42\x03" + b"\0" * 40, 43), ETHERNET, "not_ip"),
        (ethernet(snap(P4, 0x0600)[:3] + b"\0\0\x0c" + P4, 40), ETHERNET, "not_ip"),
        (ethernet(P4, 0x05F0), ETHERNET, "link_malformed"),
        (ethernet(mpls(b"\x10" + b"\0" * 40, 16), 0x8847), ETHERNET, "not_ip"),
        (ethernet(b"\x11\x09\0\0\0\0" + b"\0" * 40, 0x8864), ETHERNET, "not_ip"),
        (ethernet(b"\x21\0\0\0\0\0" + b"\0" * 40, 0x8864), ETHERNET, "link_malformed"),
        (ethernet(b"\x75" + P4[1:]), ETHERNET, "ip_malformed"),
        (ppp(P4)[:2] + b"\xc0\x21" + b"\0" * 40, PPP, "not_ip"),
        (struct.pack("<I", 7) + P4, NULL, "not_ip"),
        (sll(P4, 1), SLL, "not_ip"),
        (sll2(P4, 3), SLL2, "not_ip"),
        (b"\x80\0" + b"\0" * 60, WIFI, "not_ip"),
        (wifi(snap(P4), subtype=4), WIFI, "not_ip"),
        (wifi(snap(P4), protected=True), WIFI, "encrypted"),
        (b"\0\0\4\0\0\0\0\0" + wifi(snap(P4)), RADIOTAP, "link_malformed"),
        (b"\0\0\x08\0" + struct.pack("<I", 192) + P4, PPI, "not_ip"),
        (b"\2\1\0\0" + P4, NFLOG, "link_malformed"),
        (b"\2\0\0\0" + struct.pack("<HH", 0, 1) + P4, NFLOG, "link_malformed"),
    ],
)
def test_frame_without_ip(frame, link, reason):
    assert verdict(frame, link=link) == reason


def test_aggregated_wifi_frame_holds_several_segments():
    parts = [packet4(b"x" * n, seq=n) for n in (1, 2, 3, 40)]
    parts[2] = ip4(udp(b"x", dport=53), protocol=17)
    frame = wifi(amsdu(*map(snap, parts)), qos="amsdu")
    for capacity in (1, 2, 3, 64):
        reader = CaptureReader(pcap([frame, wifi(snap(packet4(seq=77)))], link=WIFI))
        batch, got = SegmentBatch(capacity), []
        while reader.read_batch(batch):
            got += [s.seq for s in batch]
        assert got == [1, 2, 40, 77]
        counted = reader.counters()
        assert (counted["packets"], counted["segments"], counted["not_tcp"]) == (2, 4, 1)


def test_aggregated_wifi_frame_padded_as_zeek_expects():
    """By the remainder of the subframe's length, rather than to a multiple of four."""
    made = b""
    for n in (4, 5, 6, 7, 8):
        subframe = snap(packet4(b"x" * n, seq=n))
        made += b"\x02" * 12 + struct.pack("!H", len(subframe)) + subframe + b"\0" * (len(subframe) % 4)
    found, _ = read([wifi(made, qos="amsdu")], link=WIFI)
    assert [s.seq for s in found] == [4, 5, 6, 7, 8]


def test_aggregated_wifi_frame_inside_a_tunnel():
    parts = [packet4(b"x" * n, seq=n) for n in (1, 2, 40)]
    parts.insert(1, ip4(P4, protocol=4))
    frame = ethernet(ip4(gre(wifi(amsdu(*map(snap, parts)), qos="amsdu"), 0x8200), protocol=47))
    for capacity in (1, 3, 64):
        reader = CaptureReader(pcap([frame, ethernet(packet4(seq=77))]))
        batch, got = SegmentBatch(capacity), []
        while reader.read_batch(batch):
            got += [s.seq for s in batch]
        assert got == [1, 0xFFFFFFFE, 2, 40, 77]
        assert reader.counters()["tunnelled"] == 4
    cut = build.Packet(frame[:-1], 0, len(frame))
    assert [s.seq for s in read([cut])[0]] == [1, 0xFFFFFFFE, 2]  # as in Zeek, a subframe is there whole or not at all


def test_a_datagram_does_not_reach_beyond_its_subframe():
    subframe = snap(P4)
    body = b"\x02" * 12 + struct.pack("!H", len(subframe) - 1) + subframe
    found, counted = read([wifi(body, qos="amsdu")], link=WIFI)
    assert (found, counted["ip_length"]) == ([], 1)


def test_aggregated_wifi_frame_of_hostile_lengths():
    for length in (0, 1, 7, 0xFFFF):
        body = (b"\x02" * 12 + struct.pack("!H", length)) * 700
        found, counted = read([wifi(body, qos="amsdu")], link=WIFI)
        assert found == [] and counted["packets"] == 1


# IP


def test_ip_options_and_extension_headers():
    assert only(ethernet(ip4(tcp(b"abc"), opts=b"\x94\4\0\0" * 3))).ip_bytes == 20 + 12 + 23
    inside = tcp(b"abc", src=CLIENT6, dst=SERVER6)
    chain = extension(60) + extension(51) + b"\x2b\1\0\0\0\0\0\1\0\0\0\1" + extension(6, b"\0\0" + b"\0" * 4) + inside
    s = only(ethernet(ip6(chain, next_header=0)))
    assert (s.payload, s.ip_bytes, s.dport) == (3, 40 + len(chain), 443)


def test_routing_header_gives_the_final_destination():
    final = "2001:db8::f:1"
    for body in (
        b"\0\1\0\0\0\0" + build.address(final),  # type 0
        b"\2\1\0\0\0\0" + build.address(final),  # type 2, mobile IPv6
        b"\4\1\0\0\0\0" + build.address(final),  # type 4, segment routing
    ):
        chain = extension(6, body) + tcp(b"abc", src=CLIENT6, dst=final)
        assert only(ethernet(ip6(chain, next_header=43))).dst == final
    done = extension(6, b"\0\0\0\0\0\0" + build.address("2001:db8::5")) + tcp(b"abc", src=CLIENT6, dst=SERVER6)
    assert only(ethernet(ip6(done, next_header=43))).dst == SERVER6


def test_home_address_is_the_source():
    home = "2001:db8::a:a"
    body = b"\x01\x02\0\0\xc9\x10" + build.address(home)
    chain = extension(6, body) + tcp(b"abc", src=home, dst=SERVER6)
    s = only(ethernet(ip6(chain, next_header=60)))
    assert (s.src, s.info) == (home, core.INFO_IPV6)


def test_the_first_of_several_routing_headers_and_home_addresses_counts():
    final, home = "2001:db8::f:1", "2001:db8::a:a"
    routes = [b"\0\0\0\0\0\0" + build.address("2001:db8::5")[:8] * 2]  # no segments left
    routes += [b"\0\1\0\0\0\0" + build.address(each) for each in (final, "2001:db8::5")]
    homes = [b"\x01\x02\0\0\xc9\x10" + build.address(each) for each in (home, "2001:db8::6")]
    chain = b"".join(extension(43, each) for each in routes[:2]) + extension(60, routes[2])
    chain += extension(60, homes[0]) + extension(6, homes[1]) + tcp(b"abc", src=home, dst=final)
    s = only(ethernet(ip6(chain, next_header=43)))
    assert (s.src, s.dst, s.info) == (home, final, core.INFO_IPV6)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ip4(udp(b"x", dport=53), protocol=17), "not_tcp"),
        (ip4(b"\3\1\0\0\0\0\0\0" + P4, protocol=1), "not_tcp"),
        (ip6(b"\1\4\0\0\0\0\0\0" + P6, next_header=58), "not_tcp"),
        (ip6(b"", next_header=59), "not_tcp"),
        (ip4(tcp(), protocol=51), "not_tcp"),
        (ip4(tcp(), protocol=50), "encrypted"),
        (ip6(tcp(), next_header=50), "encrypted"),
        (ip4(tcp(), checksum=0xBEEF), "ip_checksum"),
        (ip4(tcp(), total=0), "ip_zero_length"),
        (ip6(extension(6) + tcp(), next_header=60, length=0), "ip_malformed"),
        (ip4(tcp(), total=1400), "ip_length"),
        (ip6(tcp(), length=1400), "ip_length"),
        (b"\x44" + P4[1:], "ip_malformed"),
        (b"\x4f" + P4[1:30] + b"\0" * 40, "ip_malformed"),
        (ip4(tcp()[:19]), "tcp_truncated"),
        (ip6(tcp()[:12]), "tcp_truncated"),
        (ip6(extension(6)[:1] + b"\x40" + tcp(), next_header=60), "ip_malformed"),
        (ip4(b"", protocol=6), "tcp_truncated"),
    ],
)
def test_datagram_without_segment(packet, reason):
    assert verdict(ethernet(packet)) == reason


def test_lengths_of_segmentation_offload_are_taken_from_the_capture():
    s = only(ethernet(ip4(tcp(b"x" * 3000), total=0)), checksums="ignore")
    assert (s.payload, s.ip_bytes, s.info) == (3000, 0, 0)


def test_a_datagram_that_claims_no_payload_carries_what_was_captured():
    """As in Zeek: segmentation offload with IPv6, and the padding behind a bare header. It sees ports and flags there, and no
    whole header."""
    segment = tcp(b"abc", src=CLIENT6, dst=SERVER6, flags=SYN)
    for checksums in ("validate", "ignore"):
        s = only(ethernet(ip6(segment, length=0)), checksums=checksums)
        bad = core.INFO_IPV6 | core.INFO_BAD_HEADER
        assert (s.dport, s.flags, s.payload, s.ip_bytes, s.info) == (443, SYN, 0, 40, bad)
        s = only(ethernet(ip4(b"", protocol=6)) + b"\0" * 26, checksums=checksums)
        assert (s.sport, s.dport, s.ip_bytes, s.info) == (0, 0, 20, core.INFO_BAD_HEADER)
    assert verdict(ethernet(ip4(b"", protocol=6)) + b"\0" * 19) == "tcp_truncated"


@pytest.mark.parametrize(
    "around",
    [
        lambda length: ethernet(b"\x11\0\0\7" + struct.pack("!HH", 2 + length, 0x21) + P4, 0x8864),
        lambda length: ethernet(snap(P4), 8 + length),
        lambda length: ethernet(tag(snap(P4), 8 + length), 0x8100),
    ],
    ids=["pppoe", "802.3", "vlan around 802.3"],
)
def test_what_lies_behind_the_length_of_a_link_header_is_not_there(around):
    """How long the datagram was, IP says."""
    s = only(around(len(P4) - 1))
    assert (s.payload, s.ip_bytes, s.info) == (5, 45, core.INFO_CUT)
    assert only(around(len(P4)) + b"\0" * 4).info == only(around(len(P4) + 7)).info == 0


def test_jumbogram():
    chain = extension(6, b"\xc2\4" + struct.pack("!I", 8 + 20 + 70000)) + tcp(b"x" * 70000, checksum=0)
    s = only(ethernet(ip6(chain, next_header=0, length=0)))
    assert (s.payload, s.ip_bytes) == (70000, 40 + 8 + 20 + 70000)
    chain = chain[:4] + struct.pack("!I", 1 << 30) + chain[8:]
    assert verdict(ethernet(ip6(chain, next_header=0, length=0))) == "ip_length"


# Tunnels


def vxlan(frame):
    return udp(b"\x08\0\0\0\0\0\7\0" + frame, dport=4789)


def geneve(inside, kind, opts=b""):
    return udp(bytes([len(opts) // 4, 0]) + struct.pack("!H", kind) + b"\0\0\7\0" + opts + inside, dport=6081)


def gtp(inside, flags=0x30, extra=b"", message=255, **ports):
    return udp(bytes([flags, message]) + struct.pack("!HI", len(extra + inside), 9) + extra + inside, **ports)


def gre(inside, kind, flags=0, extra=b""):
    return struct.pack("!HH", flags, kind) + extra + inside


TEREDO6 = ip6(tcp(b"hello", src="2001:0:1::5", dst=SERVER6), src="2001:0:1::5")
OTHER6 = ip6(tcp(b"hello", src=CLIENT6, dst=SERVER6))
TUNNELS = {
    "ip in ip": (P4, 4),
    "6in4": (P6, 41),
    "gre": (gre(P4, 0x0800), 47),
    "gre, ipv6": (gre(P6, 0x86DD), 47),
    "gre, all fields": (gre(P4, 0x0800, 0xB000, b"\0" * 12), 47),
    "gre, ethernet": (gre(ETH4, 0x6558), 47),
    "gre, mpls": (gre(mpls(P4, 16), 0x8847), 47),
    "gre, pptp": (gre(ppp(P4), 0x880B, 0x3081, b"\0" * 12), 47),
    "erspan I": (gre(ETH4, 0x88BE), 47),
    "erspan II": (gre(b"\x10" + b"\0" * 7 + ETH4, 0x88BE, 0x1000, b"\0" * 4), 47),
    "erspan III": (gre(b"\x20" + b"\0" * 11 + ETH4, 0x22EB, 0x1000, b"\0" * 4), 47),
    "erspan III, platform header": (
        gre(b"\x20" + b"\0" * 10 + b"\1" + b"\0" * 8 + ETH4, 0x22EB, 0x1000, b"\0" * 4), 47,
    ),
    "gre, 802.11": (gre(wifi(snap(P4)), 0x8200), 47),
    "gre in udp": (udp(gre(P4, 0x0800), dport=4754), 17),
    "vxlan": (vxlan(ETH4), 17),
    "geneve": (geneve(ETH4, 0x6558), 17),
    "geneve, options": (geneve(P4, 0x0800, b"\0" * 8), 17),
    "gtp-u": (gtp(P4, dport=2152), 17),
    "gtp-u, from the port": (gtp(P4, sport=2152, dport=30000), 17),
    "gtp-u, sequence": (gtp(P6, 0x32, b"\0\5\0\0", dport=2152), 17),
    "gtp-u, extensions": (gtp(P4, 0x34, b"\0\0\0\x85\1\0\0\xc0\1\0\0\0", dport=2152), 17),
    "teredo": (udp(TEREDO6, dport=3544), 17),
    "teredo, origin": (udp(b"\0\0\x12\x34\xf5\xff\xff\xfe" + OTHER6, dport=3544), 17),
    "teredo, authentication and origin": (
        udp(b"\0\1\2\3ccaaannnnnnnn\0" + b"\0\0\x12\x34\xf5\xff\xff\xfe" + OTHER6, dport=3544), 17,
    ),
    "teredo between clients": (udp(TEREDO6, sport=50001, dport=50002), 17),
    "teredo, origin, any port": (udp(b"\0\0\x12\x34\xf5\xff\xff\xfe" + OTHER6, dport=50002), 17),
    "ayiya": (udp(b"\x41\x52\x11\x29" + b"\0" * (4 + 16 + 20) + P6, dport=5072), 17),
    "ayiya, any port": (udp(b"\x41\x52\x11\x29" + b"\0" * (4 + 16 + 20) + P6, dport=50003), 17),
    "no udp checksum": (udp(b"\x08\0\0\0\0\0\7\0" + ETH4, dport=4789, checksum=0), 17),
}  # fmt: skip


@pytest.mark.parametrize(("inside", "protocol"), TUNNELS.values(), ids=TUNNELS)
def test_tunnel(inside, protocol):
    frame = ethernet(ip4(inside, protocol=protocol, src="172.16.0.1", dst="172.16.0.2")) if protocol != 17 else None
    frame = frame or ethernet(ip4(inside, protocol=17))
    found, counted = read([frame])
    assert counted == {"packets": 1, "segments": 1, "tunnelled": 1}
    assert (found[0].payload, found[0].dport, found[0].info & ~core.INFO_IPV6) == (5, 443, 0)
    assert verdict(frame, tunnels=False) == "not_tcp"


@pytest.mark.parametrize(("inside", "protocol"), TUNNELS.values(), ids=TUNNELS)
def test_tunnel_cut_short_anywhere(inside, protocol):
    frame = ethernet(ip4(inside, protocol=protocol))
    ports = struct.unpack("!HH", inside[:4]) if protocol == 17 else ()
    whole = protocol in (4, 41) or {2152, 3544, 50002} & set(ports)  # Zeek opens these only if all is there
    for captured in range(14, len(frame)):
        found, counted = read([build.Packet(frame[:captured], 0, len(frame))])
        assert len(found) == (captured >= len(frame) - 5 and not whole), (captured, counted)


@pytest.mark.parametrize(
    ("inside", "protocol"),
    [
        (P4 + b"\0", 4),
        (P6, 4),
        (P6 + b"\0", 41),
        (P4, 41),
        (gtp(P4 + b"\0", dport=2152), 17),
        (gtp(P4, 0x34, b"\0\0\0\0", dport=2152), 17),
        (udp(TEREDO6 + b"\0", dport=3544), 17),
        (gre(ppp(P4, framed=False), 0x880B, 0x3081, b"\0" * 12), 47),
        (gre(ppp(P4, compressed=True), 0x880B, 0x3081, b"\0" * 12), 47),
        (udp(b"\0\1\2\3ccaaannnnnnnn\0" + OTHER6, dport=50002), 17),
        (udp(b"\0\1\2\3ccaaan\0\0nnnnn\0" + OTHER6, dport=50002), 17),
    ],
)
def test_tunnel_that_zeek_does_not_open(inside, protocol):
    assert verdict(ethernet(ip4(inside, protocol=protocol))) in ("tunnel_malformed", "not_tcp", "not_ip")


def test_gtp_inside_of_gtp_is_somebodys_udp():
    inner = ip4(gtp(P4, dport=2152), protocol=17)
    for port in (2123, 2152):
        assert verdict(ethernet(ip4(gtp(inner, dport=port), protocol=17))) == "not_tcp"
    for between in (ip4(inner, protocol=4), ip4(vxlan(ethernet(inner)), protocol=17)):
        found, counted = read([ethernet(ip4(gtp(between, dport=2152), protocol=17))])
        assert (len(found), counted["tunnelled"]) == (1, 1)


def test_udp_checksum_around_tunnels():
    """Over IPv6 only VXLAN may do without; and what is summed is as long as IP says."""
    ends = {"src": CLIENT6, "dst": SERVER6}
    without = {
        "segments": udp(b"\x08\0\0\0\0\0\7\0" + ETH4, dport=4789, checksum=0, **ends),
        "tunnel_checksum": udp(b"\0\0\x08\0\0\0\7\0" + P4, dport=6081, checksum=0, **ends),
    }
    for expected, datagram in without.items():
        frame = ethernet(ip6(datagram, next_header=17))
        assert read([frame])[1][expected] == 1
        assert len(read([frame], checksums="ignore")[0]) == 1
    shorter = udp(b"\0\0\x08\0\0\0\7\0" + P4, dport=6081) + b"\0"  # right by its own length
    assert verdict(ethernet(ip4(shorter, protocol=17))) == "tunnel_checksum"


def test_tunnels_nest_four_deep():
    packet = P4
    for depth in range(1, 7):
        packet = ip4(packet, protocol=4)
        found, counted = read([ethernet(packet)])
        assert len(found) == (depth <= 4)
        assert counted.get("tunnel_depth", 0) == (depth > 4)


@pytest.mark.parametrize(
    ("inside", "protocol", "reason"),
    [
        (gre(P4, 0x0800, 0x4000), 47, "tunnel_malformed"),
        (gre(P4, 0x0800, 0x0002), 47, "tunnel_malformed"),
        (gre(P4, 0x0800, 0x0001), 47, "tunnel_malformed"),
        (gre(b"", 0x0800), 47, "not_tcp"),
        (gre(ppp(P4)[:2] + b"\xc0\x21", 0x880B, 0x3001, b"\0" * 8), 47, "not_ip"),
        (udp(b"\x41\x52\x21\x29" + b"\0" * (4 + 16 + 20) + P6, dport=50003), 17, "not_tcp"),  # not the usual AYIYA
        (gre(b"", 0x880B, 0x2081, b"\0" * 8), 47, "not_tcp"),  # an acknowledgment
        (udp(b"\0\0\0\0\0\0\7\0" + ETH4, dport=4789), 17, "tunnel_malformed"),
        (udp(b"\x40\0\x65\x58\0\0\7\0" + ETH4, dport=6081), 17, "tunnel_malformed"),
        (gtp(P4, message=1, dport=2152), 17, "not_tcp"),
        (gtp(P4, 0x50, dport=2152), 17, "tunnel_malformed"),
        (gtp(P4, 0x34, b"\0\0\0\x85\0\0\0\0", dport=2152), 17, "tunnel_malformed"),
        (udp(b"\x08\0\0\0\0\0\7\0" + ETH4, dport=4789, checksum=1), 17, "tunnel_checksum"),
        (udp(TEREDO6 + b"x", dport=50002), 17, "not_tcp"),
        (udp(b"\0\1\2\3ccaaannnnnnnn\0" + OTHER6, dport=50002), 17, "not_tcp"),
        (udp(b"", dport=4789), 17, "tunnel_malformed"),
    ],
)
def test_tunnel_that_is_none(inside, protocol, reason):
    assert verdict(ethernet(ip4(inside, protocol=protocol))) == reason


# TCP


def test_header_and_options():
    opts = options(mss=1460, wscale=7, sack_permitted=True, timestamps=(0xFFFFFFFF, 5))
    s = only(ethernet(packet4(flags=SYN | 0xC0, opts=opts, seq=9, ack=0, window=64240)))
    assert s == core.Segment(
        0, CLIENT, 40000, SERVER, 443, SYN | 0xC0, 9, 0, 64240, 0, 1460, 7, True, 0xFFFFFFFF, 5, 40 + len(opts), 0
    )
    s = only(ethernet(packet4(b"xyz", opts=b"\1\1\x08\x0a" + struct.pack("!II", 7, 8))))
    assert (s.payload, s.mss, s.wscale, s.sack_permitted, s.tsval, s.tsecr) == (3, None, None, False, 7, 8)


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        (b"\2\4\5\xb4", {"mss": 1460}),
        (b"\2\3\5\0", {}),  # a known option of the wrong length
        (b"\2\0\5\xb4", {}),  # length 0 must not loop
        (b"\2\1\5\xb4", {}),
        (b"\3\3\x0e\2", {"wscale": 14}),  # an option without a length at the end
        (b"\1\1\1\2", {}),
        (b"\0\2\4\5", {}),  # behind the end of options
        (b"\xfe\4\0\0\2\4\5\xb4", {"mss": 1460}),  # an unknown one is passed over
        (b"\x08\x0a\0\0\0\1\0\0\0\2\2\4\5\xb4\0\0", {"tsval": 1, "tsecr": 2, "mss": 1460}),
        (b"\x08\x0a\0\0", {}),  # reaches beyond the header
        (b"\4\2\xff\xff", {"sack_permitted": True}),
    ],
)
def test_options_however_broken(opts, expected):
    s = only(ethernet(packet4(b"data", opts=opts)))
    assert s.payload == 4
    got = {name: getattr(s, name) for name in ("mss", "wscale", "sack_permitted", "tsval", "tsecr")}
    assert {name: value for name, value in got.items() if value not in (None, False)} == expected


def test_bad_data_offset_leaves_ports_numbers_and_flags():
    for offset in (0, 4, 15):
        s = only(ethernet(packet4(b"data", offset=offset, flags=SYN, seq=9, ack=8)))
        assert s.info == core.INFO_BAD_HEADER
        assert (s.sport, s.dport, s.flags, s.seq, s.ack, s.payload, s.ip_bytes) == (40000, 443, SYN, 9, 8, 0, 44)
    # The header is whole on the wire but not in the capture.
    frame = ethernet(packet4(b"data", opts=b"\1" * 12))
    assert only(build.Packet(frame[:-10], 0, len(frame))).info == core.INFO_BAD_HEADER


def test_checksum_is_checked_when_the_segment_is_whole():
    for make, six in ((packet4, 0), (packet6, core.INFO_IPV6)):
        for size in range(70):
            frame = ethernet(make(bytes(range(size))))
            assert only(frame).info == six
            if size:
                wrong = frame[:-1] + bytes([frame[-1] ^ 0x40])
                assert only(wrong).info == six | core.INFO_BAD_CHECKSUM
                assert only(wrong, checksums="ignore").info == six
                assert only(build.Packet(wrong[:-1], 0, len(wrong))).info == six | core.INFO_CUT
    found, counted = read([ethernet(packet4(checksum=1)), ethernet(packet4(offset=2)), ethernet(packet4())])
    assert (len(found), counted["bad_checksum"], counted["bad_header"]) == (3, 1, 1)


def test_one_flipped_bit_is_always_seen():
    """No single bit of a plain frame below Ethernet can change without the datagram being dropped or marked."""
    frame = ethernet(packet4(b"some payload"))
    for at in range(14, len(frame)):
        for bit in range(8):
            flipped = frame[:at] + bytes([frame[at] ^ 1 << bit]) + frame[at + 1 :]
            found, _ = read([flipped, FILLER])
            assert not found or found[0].info & (core.INFO_BAD_CHECKSUM | core.INFO_BAD_HEADER)


# The short way and the long way


def ethertype_of(packet):
    return 0x86DD if packet[0] >> 4 == 6 else 0x0800


def long_way(packet, ethertype=None):
    """A frame that no short way knows: a provider's tag."""
    return ethernet(tag(packet, ethertype or ethertype_of(packet)), 0x88A8)


def test_both_ways_agree():
    """Plain frames take the short way; the same packets inside a provider's tag take the long one."""
    packets = [
        packet4(b"p" * size, opts=opts, flags=flags, seq=size * 1000003 & 0xFFFFFFFF, window=size)
        for size in (0, 1, 5, 6, 1400)
        for opts in (b"", options(timestamps=(1, 2)), options(mss=9, wscale=1, sack_permitted=True))
        for flags in (SYN, build.ACK, build.FIN | build.ACK, 0xFF)
    ]
    packets += [packet4(checksum=5), packet4(b"z" * 9, offset=3), packet4(b"z" * 9, offset=9)]
    for checksums in ("validate", "ignore"):
        short, _ = read([*map(ethernet, packets), FILLER], checksums=checksums)
        long, _ = read(map(long_way, packets), checksums=checksums)
        assert short == long
        assert len(short) == len(packets)


LAYOUTS = {
    "Linux SYN": "020405b4 0402 080a 01020304 05060708 01 030307",
    "Linux": "0101080a 01020304 05060708",
    "Windows SYN": "020405b4 01 030308 01 01 0402",
    "macOS SYN": "020405b4 01 030306 0101 080a 01020304 00000000 0402 0000",
    "SACK": "0101080a 01020304 05060708 0101 050a 00000001 00000002",
    "none": "",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_both_ways_agree_on_options(layout):
    """The usual layouts, and each with any one byte changed: checksums are right in all of them."""
    layout = bytes.fromhex(layout.replace(" ", ""))
    packets = [make(b"x", opts=layout, flags=SYN) for make in (packet4, packet6)]
    for at in range(len(layout)):
        for octet in {0, 1, 2, 3, 4, 8, 10, 0xFF, layout[at] ^ 1} - {layout[at]}:
            packets.append(packet4(opts=layout[:at] + bytes([octet]) + layout[at + 1 :], flags=SYN))
    short, counted = read([*map(ethernet, packets), FILLER])
    long, _ = read(map(long_way, packets))
    assert short == long
    assert len(short) == len(packets)
    assert "bad_checksum" not in counted


@pytest.mark.parametrize("opts", ["none", "Linux", "Linux SYN", "SACK"])
@pytest.mark.parametrize("six", [False, True])
def test_checksums_of_every_length_on_the_short_way(six, opts):
    make = packet6 if six else packet4
    opts = bytes.fromhex(LAYOUTS[opts])
    chance = random.Random(11)
    right, wrong = [], []
    for size in [*range(200), 1400, 1447, 1448, 9000, 65000]:
        packet = make(chance.randbytes(size) if size % 3 else b"\xff" * size, opts=opts)
        at = chance.randrange(len(packet) - size - 4 - len(opts), len(packet))
        right.append(ethernet(packet))
        wrong.append(ethernet(packet[:at] + bytes([packet[at] ^ 1 << chance.randrange(8)]) + packet[at + 1 :]))
    found, counted = read([*right, FILLER])
    assert len(found) == len(right)
    assert "bad_checksum" not in counted
    found, counted = read([*wrong, FILLER])
    assert (len(found), counted["bad_checksum"]) == (len(wrong), len(wrong))


@pytest.mark.parametrize("layout", ["none", "Linux", "Linux SYN", "Windows SYN"])
@pytest.mark.parametrize("make", [packet4, packet6])
def test_both_ways_agree_on_every_flipped_bit(make, layout):
    """From the EtherType on, one of the payload too; each such frame whole, and cut off where the bit is. Behind a VLAN's tag
    a frame takes the short way as well."""
    for size in (1, 60):
        packet = make(bytes(range(size)), opts=bytes.fromhex(LAYOUTS[layout]), flags=0x55, window=0x8001)
        short, tagged, long = [], [], []
        for at in [*range(len(packet) - size + 3), len(packet) + 1]:
            for bit in range(8):
                changed = bytearray(struct.pack("!H", ethertype_of(packet)) + packet)
                changed[at] ^= 1 << bit
                kind, inner = changed[0] << 8 | changed[1], bytes(changed[2:])
                for kept in (len(packet), max(at - 2, 0)):
                    short.append(build.Packet(ethernet(inner, kind)[: 14 + kept], 0, 14 + len(packet)))
                    tagged.append(build.Packet(ethernet(tag(inner, kind), 0x8100)[: 18 + kept], 0, 18 + len(packet)))
                    long.append(build.Packet(long_way(inner, kind)[: 18 + kept], 0, 18 + len(packet)))
        for checksums in ("validate", "ignore"):
            expected = read([*long, FILLER], checksums=checksums)
            assert read([*short, FILLER], checksums=checksums) == expected
            assert read([*tagged, FILLER], checksums=checksums) == expected


def test_padding_and_what_follows_is_not_summed():
    """Any bytes behind the datagram: padding of the frame, the next record, and what is behind that."""
    chance = random.Random(3)
    frames = []
    for size in range(140):
        for make in (packet4, packet6):
            frame = ethernet(make(b"y" * size, seq=size)) + chance.randbytes(size % 5 * 16)
            frames.append(build.Packet(frame, chance.randrange(2**60)))
    found, counted = read([*frames, FILLER])
    assert [s.seq for s in found] == [size for size in range(140) for _ in "46"]
    assert "bad_checksum" not in counted


def test_both_ways_agree_on_damage():
    """Any byte of the headers changed to anything, and any length cut off: both ways see the same and count the same."""
    chance = random.Random(5)
    short, long = [], []
    for _ in range(3000):
        make = chance.choice((packet4, packet6))
        opts = chance.choice((b"", options(timestamps=(3, 4)), options(mss=1460, wscale=7)))
        whole = bytearray(make(bytes(chance.randrange(40)), opts=opts))
        for _ in range(chance.choice((0, 0, 1, 2))):
            whole[chance.randrange(min(len(whole), 64))] = chance.choice((0, 1, 6, 0x11, 0x45, 0x60, 0xFF))
        kept = len(whole) - chance.choice((0, 0, 0, chance.randrange(len(whole))))
        ethertype = chance.choice((0x0800, 0x86DD)) if chance.random() < 0.05 else 0x0800 if make is packet4 else 0x86DD
        padding = bytes(chance.choice((0, 0, 6)) if kept == len(whole) else 0)
        plain, tagged = ethernet(bytes(whole), ethertype), long_way(bytes(whole), ethertype)
        short.append(build.Packet(plain[: 14 + kept] + padding, 0, len(plain + padding)))
        long.append(build.Packet(tagged[: 18 + kept] + padding, 0, len(tagged + padding)))
    for checksums in ("validate", "ignore"):
        assert read(short, checksums=checksums) == read(long, checksums=checksums)


# Fragments


def cut(payload, *sizes):
    """Pieces of these sizes (multiples of 8), then the rest: (offset, bytes, more)."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append((at, payload[at : at + size], True))
        at += size
    return [*pieces, (at, payload[at:], False)]


def fragments4(payload, *sizes, **fields):
    return [
        ethernet(ip4(piece, fragment=at // 8 | 0x2000 * more, **fields)) for at, piece, more in cut(payload, *sizes)
    ]


def fragments6(payload, *sizes, identification=9):
    return [
        ethernet(ip6(fragment6(6, at, more, identification) + piece, next_header=44))
        for at, piece, more in cut(payload, *sizes)
    ]


BIG = bytes(range(256)) * 20


@pytest.mark.parametrize("order", ["forward", "backward", "doubled", "first again"])
@pytest.mark.parametrize("version", [4, 6])
def test_fragments_are_put_together(version, order):
    ends = {"src": CLIENT6, "dst": SERVER6} if version == 6 else {}
    whole = tcp(BIG, seq=5, **ends)
    frames = (fragments6 if version == 6 else fragments4)(whole, 1000, 8, 2000)
    if order == "backward":
        frames.reverse()
    elif order == "doubled":
        frames = [frame for frame in frames[:-1] for _ in "12"] + frames[-1:]
    elif order == "first again":
        frames.insert(-1, frames[0])
    found, counted = read(frames)
    assert [(s.seq, s.payload, s.info) for s in found] == [(5, len(BIG), core.INFO_IPV6 if version == 6 else 0)]
    assert found[0].ip_bytes == len(whole) + (40 if version == 6 else 20)
    assert counted["reassembled"] == 1
    assert counted["fragment_held"] == counted["packets"] - 1


def test_the_longest_datagram_that_fragments_may_make():
    whole = tcp(bytes(65535 - 20))
    pieces = [whole[:32000], whole[32000:64000], whole[64000:]]
    frames = [ethernet(ip4(piece, fragment=n * 32000 // 8 | 0x2000 * (n < 2))) for n, piece in enumerate(pieces)]
    found, _ = read(frames)
    assert [s.payload for s in found] == [65535 - 20]
    assert verdict(ethernet(ip4(pieces[2] + b"x", fragment=64000 // 8))) == "fragment_lost"


def test_fragments_of_different_datagrams_do_not_mix():
    first, second = tcp(b"A" * 100, seq=1), tcp(b"B" * 100, seq=2)
    frames = [
        frame
        for pair in zip(fragments4(first, 40), fragments4(second, 40, identification=8), strict=True)
        for frame in pair
    ]
    found, _ = read(frames)
    assert [(s.seq, s.info) for s in found] == [(1, 0), (2, 0)]


def test_what_came_first_stays():
    whole = tcp(b"A" * 100)
    first, last = fragments4(whole, 64)
    liar = fragments4(whole[:24] + b"B" * 40 + whole[64:], 64)[0]
    found, _ = read([first, liar, last])
    assert [s.info for s in found] == [0]


def test_fragments_cut_by_the_capture():
    first, last = fragments4(tcp(b"A" * 100, seq=3), 64)
    found, counted = read([build.Packet(first[:60], 0, len(first)), build.Packet(last[:40], 0, len(last))])
    assert [(s.seq, s.payload) for s in found] == [(3, 44)]  # the first still shows the header, as in Zeek
    assert counted["fragment_lost"] == 1


def test_atomic_fragment():
    whole = tcp(b"abc", src=CLIENT6, dst=SERVER6)
    frame = ethernet(ip6(fragment6(6, 0, 0) + whole, next_header=44))
    s = only(frame)
    assert (s.payload, s.ip_bytes, s.info) == (3, 40 + len(whole), core.INFO_IPV6)
    s = only(build.Packet(frame[:-1], 0, len(frame)))  # cut by the capture, it is not put together
    assert (s.payload, s.ip_bytes) == (3, 40 + 8 + len(whole))


def test_ip6_fragments_have_the_protocol_of_the_one_at_the_beginning():
    whole = tcp(b"A" * 100, src=CLIENT6, dst=SERVER6)
    first = ethernet(ip6(fragment6(6, 0, 1) + whole[:64], next_header=44))
    last = ethernet(ip6(fragment6(17, 64, 0) + whole[64:], next_header=44))
    for frames in ([first, last], [last, first]):
        assert [s.payload for s in read(frames)[0]] == [100]


def test_of_an_aggregated_frame_in_fragments_the_first_part_is_read():
    """The others would have to be read from memory that the next datagram may take."""
    body = gre(wifi(amsdu(*(snap(packet4(seq=n)) for n in (1, 2, 3))), qos="amsdu"), 0x8200)
    for capacity in (1, 64):
        reader = CaptureReader(pcap([*fragments4(body, 64, protocol=47), ethernet(packet4(seq=77))]))
        batch, got = SegmentBatch(capacity), []
        while reader.read_batch(batch):
            got += [s.seq for s in batch]
        assert got == [1, 77]


def test_contradicting_fragments():
    """What does not fit together is put together as Zeek does it."""
    whole = tcp(b"A" * 200)
    pieces = fragments4(whole, 64, 64)
    # Of two lengths the larger counts, and what comes behind the last piece makes the datagram longer.
    shorter = ethernet(ip4(whole[64:72], fragment=64 // 8))
    found, _ = read([pieces[1], shorter, pieces[2], pieces[0]])
    assert [(s.payload, s.info) for s in found] == [(200, 0)]
    # What came before the last piece, behind a hole, does not count; the bytes without a hole do.
    stray = ethernet(ip4(b"x" * 8, fragment=0x2000 | 400 // 8))
    found, counted = read([stray, *pieces])
    assert [(s.payload, s.info) for s in found] == [(200, 0)]
    assert "reassembly_pending" not in counted
    # Nor is there a hole before these.
    stray = ethernet(ip4(b"x" * 8, fragment=0x2000 | 216 // 8))
    assert [s.payload for s in read([stray, *pieces])[0]] == [204]
    # A piece that says "more follow" need not be a multiple of 8 long.
    odd = [ethernet(ip4(whole[:61], fragment=0x2000)), ethernet(ip4(b"?" * 5 + whole[61:], fragment=56 // 8))]
    found, _ = read(odd)
    assert [(s.payload, s.info) for s in found] == [(200, 0)]
    # Neither protocol nor header length is compared: those of the piece that came first count.
    found, _ = read([
        pieces[2], ethernet(ip4(whole[:64], protocol=17, fragment=0x2000, opts=b"\x94\4\0\0")), pieces[1],
    ])  # fmt: skip
    assert [(s.payload, s.ip_bytes) for s in found] == [(200, 20 + len(whole))]
    assert verdict(ethernet(ip4(b"x" * 800, fragment=0x2000 | 0x1FFF))) == "fragment_lost"  # beyond 65,535 bytes
    found, counted = read([ethernet(ip4(b"", fragment=0x2000)), *pieces])
    assert len(found) == 1
    # A last piece without bytes says how long the datagram is, and completes nothing.
    begin, end = ethernet(ip4(whole[:216], fragment=0x2000)), ethernet(ip4(b"", fragment=216 // 8))
    found, counted = read([begin, end])
    assert (found, counted["fragment_held"]) == ([], 2)
    assert len(read([begin, end, begin])[0]) == 1


def test_fragments_put_together_as_by_a_plain_model():
    """Any pieces, in any order: which bytes are there, and how many, is what a dict of bytes says."""
    chance = random.Random(17)
    for _ in range(400):
        have, size, expected = {}, 0, None
        frames = []
        for _ in range(chance.randrange(2, 9)):
            offset, length = 8 * chance.randrange(8), chance.choice((1, 7, 8, 9, 24, 40))
            more = offset == 0 or chance.random() < 0.7
            data = chance.randbytes(length)
            frames.append(ethernet(ip4(data, protocol=17, fragment=offset // 8 | 0x2000 * more)))
            if expected is not None:
                continue
            if not more or size:
                size = max(size, offset + length)
            for at, octet in enumerate(data, offset):
                have.setdefault(at, octet)
            here = next(n for n in range(200) if n not in have)
            if size and here >= size:
                expected = len(frames)
        _, counted = read(frames)
        assert ("reassembled" in counted) == (expected is not None)
        if expected is not None:
            assert read(frames[:expected])[1]["reassembled"] == 1
            assert "reassembled" not in read(frames[: expected - 1])[1]


def test_old_fragments_are_given_up():
    first, last = fragments4(tcp(b"A" * 100), 64)
    within = [build.Packet(first, 0), build.Packet(last, 299 * 10**9)]
    after = [build.Packet(first, 0), build.Packet(last, 300 * 10**9)]
    assert len(read(within)[0]) == 1
    found, counted = read(after)
    assert (found, counted["reassembly_failed"], counted["reassembly_pending"]) == ([], 1, 1)


def test_fragments_in_bounded_memory():
    """More unfinished datagrams than there is room for: the oldest go, a late whole one still comes out."""
    flood = [
        ethernet(ip4(b"x" * 8, fragment=0x2000 | 0x1FF0, identification=n & 0xFFFF, src=f"10.9.{n >> 16}.1"))
        for n in range(70000)
    ]
    found, counted = read([*flood, *fragments4(tcp(b"A" * 100), 64)])
    assert len(found) == 1
    assert counted["reassembly_pending"] <= 1024
    assert counted["reassembly_failed"] + counted["reassembly_pending"] == 70000


def test_tunnel_of_fragments_of_a_tunnel():
    inner = tcp(b"A" * 500, seq=6)
    inner_pieces = [ip4(piece, fragment=at // 8 | 0x2000 * more) for at, piece, more in cut(inner, 256)]
    frames = []
    for number, piece in enumerate(inner_pieces):
        frames += fragments4(piece, 64, protocol=4, identification=number, src="172.16.0.1", dst="172.16.0.2")
    found, counted = read(frames)
    assert [(s.src, s.dst, s.seq, s.payload, s.info) for s in found] == [(CLIENT, SERVER, 6, 500, 0)]
    assert counted["reassembled"] == 3
