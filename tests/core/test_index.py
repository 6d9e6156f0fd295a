"""The index against a dict: any order of insertions, deletions and growth; chains as short after long churn as when
fresh."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttcp.core import _testing as core


def v4(n):
    return bytes(10) + b"\xff\xff" + n.to_bytes(4, "big")


def name(n):
    """The n-th of many different connections to one server, each fifth over IPv6."""
    if n % 5 == 4:
        prefix = bytes.fromhex("20010db8") + bytes(8)
        return prefix + (n >> 12).to_bytes(4, "big"), 1024 + (n & 4095), bytes(15) + b"\x01", 443
    return v4(0x0A000000 + (n >> 12)), 1024 + (n & 4095), v4(0xC0A80001), 443


def turned(n):
    src, sport, dst, dport = name(n)
    return dst, dport, src, sport


@given(st.binary(min_size=16, max_size=16), st.integers(0, 255))
def test_tags_match_like_a_loop_in_both_forms(bucket, wanted):
    expected = sum(1 << i for i in range(12) if bucket[i] == wanted)
    assert core.tags(bucket, wanted)[:2] == (expected, expected)


def test_tags_that_differ_by_a_carry_are_told_apart():
    for wanted in (0, 1, 2, 127, 128, 129, 254, 255):
        for other in (wanted ^ 1, wanted ^ 0x80, (wanted + 1) & 255, (wanted - 1) & 255):
            for mask in range(0, 4096, 7):
                bucket = bytes(wanted if mask >> i & 1 else other for i in range(12)) + bytes([wanted] * 4)
                assert core.tags(bucket, wanted)[:2] == (mask, mask)


def test_count_is_the_number_of_packed_tags():
    for n in range(13):
        assert core.tags(bytes([7] * n) + bytes(12 - n) + b"\xff" * 4, 1)[2] == n


class Pair:
    """A store and the dict that it must agree with."""

    def __init__(self, *args, **kwargs):
        self.store = core.Store(*args, **kwargs)
        self.model = {}
        self.rows = set()

    def insert(self, n):
        row = self.store.insert(name(n), n)
        assert row >= 0 and row not in self.rows
        self.model[n] = row
        self.rows.add(row)

    def remove(self, n):
        row = self.model.pop(n)
        self.rows.remove(row)
        self.store.remove(row)

    def verify(self, n):
        found = self.store.find(name(n))
        assert found == self.store.find(name(n), staged=True)
        if n in self.model:
            assert found[0] == self.model[n]
            assert self.store.find(turned(n)) == (found[0], 1 - found[1])
        else:
            assert found is None

    def check(self):
        self.store.check()
        assert self.store.info["used"] == len(self.model)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), max_size=200),
    st.sampled_from([(1, 64), (64, 64), (16, 1000), (7, 61)]),
    st.integers(0, 2**64 - 1),
)
def test_any_operations_agree_with_a_dict_at_every_step(operations, size, secret):
    pair = Pair(*size, secret=(secret, 1, 2, 3))
    for what, n in operations:
        if what == 0 and n not in pair.model:
            pair.insert(n)
        elif what == 1 and n in pair.model:
            pair.remove(n)
        pair.verify(n)
        pair.check()


@pytest.mark.parametrize("size", [(100_000, 100_000), (16, 100_000), (16, 1 << 24), (5000, 99_999)])
def test_growth_from_few_to_many(size):
    pair = Pair(*size)
    for n in range(90_000):
        pair.insert(n)
        if n % 16 == 15:
            pair.remove(n - 7)
        if n & (n - 1) == 0:
            pair.check()
    pair.check()
    for n in range(0, 100_000, 3):
        pair.verify(n)
    assert pair.store.info["buckets"] * 6.1 > pair.store.info["used"]
    assert pair.store.chains().get(1, 0) > 0.9 * pair.store.info["buckets"]


def test_nothing_moves_while_a_table_grows():
    pair = Pair(16, 200_000)
    base = pair.store.info["base"]
    for n in range(150_000):
        pair.insert(n)
    assert pair.store.info["base"] == base


def test_a_growing_table_ends_as_good_as_one_of_fixed_size():
    fixed, grown = Pair(60_000), Pair(16, 60_000)
    for n in range(60_000):
        fixed.insert(n)
        grown.insert(n)
    fixed.check()
    grown.check()
    assert fixed.store.info["buckets"] == 10_000
    assert 10_000 <= grown.store.info["buckets"] < 10_160
    assert grown.store.info["overflow_used"] < 1.2 * fixed.store.info["overflow_used"] + 10


@pytest.mark.parametrize("capacity", [20_000, 65_536, 99_991])
def test_index_memory_at_full_load_is_at_most_11_bytes_a_row(capacity):
    pair = Pair(capacity)
    for n in range(capacity):
        pair.insert(n)
    assert pair.store.info["buckets"] * 64 + pair.store.info["overflow_used"] * 64 <= 11 * capacity
    assert pair.store.insert(name(capacity)) == -1
    assert pair.store.info["used"] == capacity
    pair.check()


def test_chains_after_long_churn_are_those_of_a_fresh_table():
    rng = random.Random(4)
    capacity = 3000
    pair = Pair(capacity)
    live = list(range(capacity))
    for n in live:
        pair.insert(n)
    fresh = [pair.store.info["overflow_used"]]
    following = capacity
    churned = []
    for turn in range(40):
        for _ in range(capacity):
            i = rng.randrange(capacity)
            pair.remove(live[i])
            live[i] = following
            pair.insert(following)
            following += 1
        if turn % 8 == 7:
            pair.check()
            churned.append(pair.store.info["overflow_used"])
    for seed in range(8):
        other = Pair(capacity, secret=(seed, 9, 9, 9))
        for n in range(capacity):
            other.insert(n)
        fresh.append(other.store.info["overflow_used"])
    mean = sum(fresh) / len(fresh)
    assert abs(sum(churned) / len(churned) - mean) < 0.5 * mean + 3
    for n in live:
        pair.remove(n)
    pair.check()
    assert pair.store.info["overflow_used"] == 0 and pair.store.chains() == {1: pair.store.info["buckets"]}


def of_one_home(store, count):
    """Names whose chains begin in one bucket now: what an attacker with the secret could send."""
    home = store.home(name(0))[0]
    found, n = [], 0
    while len(found) < count:
        if store.home(name(n))[0] == home:
            found.append(n)
        n += 1
    return found


@pytest.mark.parametrize("size", [(1000, 1000), (100, 1000)])
def test_all_rows_in_one_chain(size):
    """The worst distribution: slow, but right, within the reserved memory, and given back at the end."""
    pair = Pair(*size)
    rng = random.Random(5)
    names = of_one_home(pair.store, 400)
    for n in names:
        pair.insert(n)
    pair.check()
    rng.shuffle(names)
    for i, n in enumerate(names):
        pair.verify(n)
        pair.remove(n)
        pair.verify(n)
        if i % 16 == 0:
            pair.check()
    pair.check()
    assert pair.store.info["overflow_used"] == 0


def test_one_chain_filled_to_the_last_row():
    pair = Pair(240)
    for n in of_one_home(pair.store, 240):
        pair.insert(n)
    pair.check()
    assert pair.store.chains()[20] == 1


def test_splitting_divides_long_chains():
    pair = Pair(16, 100_000)
    names = of_one_home(pair.store, 100)
    for n in names:
        pair.insert(n)
    for n in range(10_000_000, 10_030_000):
        pair.insert(n)
    pair.check()
    assert max(pair.store.chains()) <= 4
    for n in names:
        pair.verify(n)


def test_a_hint_is_only_a_hint():
    pair = Pair(100)
    for n in range(50):
        pair.insert(n)
    a, b = pair.model[1], pair.model[2]
    assert pair.store.find_with_hint(name(1), a) == a
    assert pair.store.find_with_hint(name(1), b) == a
    pair.remove(2)
    assert pair.store.find_with_hint(name(2), b) is None
    assert pair.store.find_with_hint(name(1), b) == a


def test_a_freed_row_is_not_found_under_the_key_of_zeros():
    """A free row is all zero but for its marks, and 0.0.0.0:0 to itself is a key like any other."""
    pair = Pair(10)
    pair.insert(1)
    row = pair.model[1]
    pair.remove(1)
    zeros = (v4(0), 0, v4(0), 0)
    pair.insert(2)
    pair.remove(2)
    assert pair.store.find_with_hint(zeros, row) is None
    assert pair.store.insert(zeros) == row
    assert pair.store.find(zeros) == (row, 0)


def test_ipv4_and_ipv6_with_the_same_12_bytes_are_two():
    """Rows of both families hold 8 bytes of addresses; only a flag tells an address from a hash."""
    store = core.Store(100)
    six = (bytes(15) + b"\x01", 5, bytes(15) + b"\x02", 6)
    seen = core.observed((1, 2, 3, 4), *six)
    four = (v4(int.from_bytes(seen["addr"][:4], "big")), 5, v4(int.from_bytes(seen["addr"][4:], "big")), 6)
    if four[0] > four[2]:
        six = (six[2], 6, six[0], 5)
    first = store.insert(six)
    assert store.find(four) is None
    second = store.insert(four)
    assert store.find(four)[0] == second != first and store.find(six)[0] == first
    store.check()
