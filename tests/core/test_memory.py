"""Blocks: they grow in place, read as zero, and refuse what they cannot give with a clear error."""

import pytest

from fasttcp.core import _testing as core

MB = 1 << 20
calloc = pytest.mark.skipif(core.Memory(1).plain, reason="this build takes all memory from calloc")
KINDS = [0, core.HUGE, core.PLAIN, core.HUGE | core.PLAIN]


@pytest.mark.parametrize("kind", KINDS)
def test_growing_keeps_place_and_content_and_brings_zeros(kind):
    block = core.Memory(16 * MB, kind)
    base = block.base
    assert base % 64 == 0
    step, at = 300_000, 0
    while at + step <= 16 * MB:
        block.commit(at + step, touch=at % 2 == 0)
        assert block.read(at, step) == bytes(step)
        block.write(at, b"\x5a" * step)
        at += step
    assert block.base == base
    assert block.read(0, at) == b"\x5a" * at


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_ordered_and_never_shrink(kind):
    block = core.Memory(5 * MB + 12345, kind)
    assert block.sizes == (5 * MB + 12345, 0, 0)
    last = (0, 0)
    for upto, touch in [(1, False), (1, True), (100_000, False), (4096, True), (3 * MB, True), (5 * MB + 12345, False)]:
        block.commit(upto, touch)
        reserved, usable, touched = block.sizes
        assert touched <= usable <= reserved and usable >= upto
        assert touched >= upto or not touch
        assert (usable, touched) >= last and touched >= last[1]
        last = (usable, touched)
    assert block.sizes == (5 * MB + 12345, 5 * MB + 12345, 3 * MB)


def test_touching_again_does_not_harm_what_was_written():
    block = core.Memory(4 * MB)
    block.commit(4 * MB, touch=False)
    block.write(0, b"\x77" * 4 * MB)
    for upto in (1, 4095, 4097, MB + 1, 4 * MB):
        block.commit(upto, touch=True)
    assert block.read(0, 4 * MB) == b"\x77" * 4 * MB


@calloc
def test_huge_blocks_begin_on_a_huge_page():
    assert core.Memory(3 * MB, core.HUGE).base % (2 * MB) == 0


@calloc
def test_address_space_costs_nothing():
    block = core.Memory(1 << 40)
    block.commit(MB)
    assert block.sizes == (1 << 40, MB, MB)


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_was_reserved_is_refused_and_changes_nothing(kind):
    block = core.Memory(100_000, kind)
    block.commit(50_000)
    before = block.sizes
    with pytest.raises(MemoryError, match="to 100001 bytes"):
        block.commit(100_001)
    assert block.sizes == before
    block.commit(100_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, (1 << 63) - 1, (1 << 64) - 1])
def test_sizes_that_cannot_be_are_refused(kind, size):
    with pytest.raises(MemoryError, match=f"block of {size} bytes"):
        core.Memory(size, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_closing_twice_is_harmless(kind):
    block = core.Memory(MB, kind)
    block.commit(MB)
    block.close()
    block.close()
    assert block.sizes == (0, 0, 0)
