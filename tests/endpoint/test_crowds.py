"""Runs of taken ports, found a word for 64 of them, beside the same found one by one."""

import random

from fasttcp.core import _testing_endpoint as core

PORTS = 65536


def one_by_one(taken, first, last, port, step):
    many, run = last - first + 1, 0
    while run < many and taken[first + (port - first + run) % many]:
        run += step
    return run


def check(taken, first, last, port, step):
    expected = one_by_one(taken, first, last, port, step)
    assert core.skip_of(taken, first, last, port, step) == expected, (first, last, port, step)


def test_one_free_port_anywhere_in_a_full_range():
    first, last = 32768, 32768 + 1023
    for free in [*range(first, first + 70), *range(first, last + 1, 31), last - 1, last]:
        taken = bytearray(b"\1") * PORTS
        taken[free] = 0
        for port in (first, first + 1, first + 63, first + 64, first + 512, last - 1, last, free):
            for step in (1, 2):
                check(taken, first, last, port, step)


def test_a_full_range_is_skipped_whole_and_a_free_one_not_at_all():
    for first, last in ((1024, 65535), (32768, 60999), (40000, 40001), (33000, 33255)):
        for step in (1, 2):
            assert core.skip_of(bytearray(b"\1") * PORTS, first, last, first + 1, step) == last - first + 1
            assert core.skip_of(bytearray(PORTS), first, last, first + 1, step) == 0


def test_random_ranges_and_gaps():
    chance = random.Random(7)
    for _ in range(400):
        step = chance.choice((1, 2))
        first = chance.randrange(1024, 64000) & -step
        last = min(first + chance.choice((2, 64, 256, 700, 5000)), PORTS) // step * step - 1
        taken = bytearray(b"\1") * PORTS
        for _ in range(chance.choice((0, 1, 3, 40))):
            taken[chance.randrange(first, last + 1)] = 0
        check(taken, first, last, chance.randrange(first, last + 1), step)
