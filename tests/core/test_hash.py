"""Keys: both directions of a connection have one name; its hash is the stated formula; other forms agree with ours."""

import ipaddress
import random

from hypothesis import given
from hypothesis import strategies as st

from fasttcp.core import _testing as core

SECRET = (0x0123456789ABCDEF, 0xFEDCBA9876543210, 0x1111111111111111, 0x8000000000000001)
M64, M128 = (1 << 64) - 1, (1 << 128) - 1

word = st.integers(0, M64)
port = st.integers(0, 65535)
v4 = st.integers(0, 2**32 - 1).map(lambda n: bytes(10) + b"\xff\xff" + n.to_bytes(4, "big"))
v6 = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=2, max_size=2).map(lambda tail: b"\x20\x01" + bytes(12) + tail),
    st.integers(0, 7).map(lambda n: bytes(15) + bytes([n])),
)
address = st.one_of(v4, v6)


def is_v4(a):
    return a[:12] == bytes(10) + b"\xff\xff"


def stir(r):
    r ^= r >> 32
    r = r * 0x9E3779B97F4A7C15 & M64
    return r ^ r >> 32


def model(secret, a, aport, b, bport):
    """The hash of an ordered pair of ends, in plain integers."""
    w = core.expand(secret)
    m = [w[i] | w[i + 1] << 64 for i in range(0, 16, 2)]
    if is_v4(a) and is_v4(b):
        addr = a[12:] + b[12:]
    else:
        x = [int.from_bytes((a + b)[i:i + 8], "big") for i in range(0, 32, 8)]
        pair = m[3] * x[0] + m[4] * x[1] + m[5] * x[2] + m[6] * x[3] + m[7] & M128
        addr = (pair >> 64).to_bytes(8, "big")
    x = int.from_bytes(addr[:4], "big") << 16 | aport
    y = int.from_bytes(addr[4:], "big") << 16 | bport
    return addr, stir((m[0] * x + m[1] * y + m[2] & M128) >> 64)


def test_chacha_block_is_that_of_rfc_8439_section_2_3_2():
    key = [int.from_bytes(bytes(range(i, i + 4)), "little") for i in range(0, 32, 4)]
    state = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *key, 1, 0x09000000, 0x4A000000, 0]
    assert core.chacha(state) == [
        0xE4E7F110, 0x15593BD1, 0x1FDD0F50, 0xC47120A3, 0xC7F4D1C7, 0x0368C033, 0x9AAA2204, 0x4E6CD4C3,
        0x466482D2, 0x09AA9F07, 0x05D7C214, 0xA2028BD9, 0xD19C12B5, 0xB94E16DE, 0xE883D0CB, 0x4E3C50A2,
    ]


def test_multipliers_are_the_chacha_stream_of_the_secret():
    halves = [h for w in SECRET for h in (w & 0xFFFFFFFF, w >> 32)]
    stream = []
    for counter in (0, 1):
        stream += core.chacha([0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *halves, counter, 0, 0, 0])
    assert core.expand(SECRET) == [stream[i] | stream[i + 1] << 32 for i in range(0, 32, 2)]
    assert len(set(core.expand(SECRET))) == 16


@given(word, word)
def test_products_are_exact_in_both_forms(a, b):
    assert core.multiply(a, b) == (a * b, a * b)


def test_products_at_the_edges():
    edges = [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, M64]
    for a in edges:
        for b in edges:
            assert core.multiply(a, b) == (a * b, a * b)


wide = st.integers(0, M128)


@given(wide, wide, word, wide, word)
def test_dot_is_the_formula_modulo_2_128(plus, a, x, b, y):
    assert core.dot(plus, a, x, b, y) == plus + a * x + b * y & M128


def test_dot_carries_at_the_edges():
    edges = [0, 1, M64, M64 + 1, M128 - M64, M128]
    for plus in edges:
        for a in edges:
            for b in edges:
                assert core.dot(plus, a, M64, b, M64) == plus + a * M64 + b * M64 & M128


@given(st.tuples(word, word, word, word), address, port, address, port)
def test_endpoint_key_is_the_formula(secret, a, aport, b, bport):
    key = core.endpoint(secret, a, aport, b, bport)
    assert (key["addr"], key["hash"]) == model(secret, a, aport, b, bport)
    assert key["v6"] == (not (is_v4(a) and is_v4(b)))
    assert key["wide"] == ((a, b) if key["v6"] else None)
    assert (key["port"], key["side"]) == ((aport, bport), 0)


@given(address, port, address, port)
def test_observed_key_is_one_for_both_directions(a, aport, b, bport):
    there = core.observed(SECRET, a, aport, b, bport)
    back = core.observed(SECRET, b, bport, a, aport)
    low, high = sorted([(a, aport), (b, bport)])
    for key, sender in ((there, (a, aport)), (back, (b, bport))):
        assert (key["addr"], key["hash"]) == model(SECRET, *low, *high)
        assert key["port"] == (low[1], high[1])
        assert key["v6"] == (not (is_v4(a) and is_v4(b)))
        assert key["wide"] == ((low[0], high[0]) if key["v6"] else None)
        assert (low, high)[key["side"]] == sender
    assert low == high or there["side"] != back["side"]


def test_sides_stand_in_the_order_of_numbers():
    def mapped(text):
        return bytes(10) + b"\xff\xff" + ipaddress.ip_address(text).packed

    assert core.observed(SECRET, mapped("10.0.0.2"), 80, mapped("9.255.255.255"), 65535)["side"] == 1
    assert core.observed(SECRET, mapped("1.0.0.10"), 80, mapped("10.0.0.1"), 80)["side"] == 0
    assert core.observed(SECRET, mapped("10.0.0.1"), 256, mapped("10.0.0.1"), 255)["side"] == 1
    assert core.observed(SECRET, mapped("10.0.0.1"), 80, mapped("10.0.0.1"), 80)["side"] == 0


def test_two_ends_of_one_loopback_connection_are_two_endpoint_keys():
    lo = bytes(10) + b"\xff\xff\x7f\x00\x00\x01"
    assert core.endpoint(SECRET, lo, 40000, lo, 80)["hash"] != core.endpoint(SECRET, lo, 80, lo, 40000)["hash"]


def test_every_secret_gives_another_hash():
    a, b = bytes(15) + b"\x01", bytes(15) + b"\x02"
    assert len({core.observed((i, 0, 0, 0), a, 1, b, 2)["hash"] for i in range(100)}) == 100


def spread(values, places):
    """Chi-square of how values fall into equal places, in standard deviations from its mean."""
    counts = [0] * places
    for v in values:
        counts[v] += 1
    mean = len(values) / places
    chi = sum((c - mean) ** 2 / mean for c in counts)
    return (chi - (places - 1)) / (2 * (places - 1)) ** 0.5


def test_counting_addresses_and_ports_spread_like_chance():
    """Neighbouring names, as real ones are, in every part of the hash that the index uses. Fixed secrets: no luck."""
    server = bytes(10) + b"\xff\xff\xc0\xa8\x00\x01"
    server6 = bytes.fromhex("20010db8000000000000000000000001")
    rng = random.Random(1)
    for _ in range(3):
        secret = tuple(rng.getrandbits(64) for _ in range(4))
        names = [(bytes(10) + b"\xff\xff\x0a\x00" + bytes([i >> 6, i & 63]), p, server, 443)
                 for i in range(256) for p in range(32768, 32832)]
        names6 = [(server6[:14] + bytes([i >> 6, i & 63]), p, server6, 443) for i in range(256) for p in range(1, 65)]
        for these in (names, names6):
            hashes = [core.observed(secret, *name)["hash"] for name in these]
            assert len(set(hashes)) == len(hashes)
            for shift in (0, 12, 24, 32, 44, 52, 56):
                assert abs(spread([h >> shift & 255 for h in hashes], 256)) < 5


def test_each_bit_of_a_key_reaches_each_bit_of_the_hash():
    rng = random.Random(2)
    changed = [[0] * 64 for _ in range(96)]
    rounds = 200
    for _ in range(rounds):
        key = rng.getrandbits(96)
        hashes = []
        for k in [key] + [key ^ 1 << i for i in range(96)]:
            raw = k.to_bytes(12, "big")
            hashes.append(core.endpoint(SECRET, bytes(10) + b"\xff\xff" + raw[:4], int.from_bytes(raw[4:6], "big"),
                                        bytes(10) + b"\xff\xff" + raw[6:10], int.from_bytes(raw[10:], "big"))["hash"])
        for i in range(96):
            for j in range(64):
                changed[i][j] += (hashes[0] ^ hashes[i + 1]) >> j & 1
    assert min(map(min, changed)) > rounds * 0.2
    assert max(map(max, changed)) < rounds * 0.8
