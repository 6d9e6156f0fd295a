"""When a Linux socket sends again, probes and gives up, and when we do: the scripts of scripts.py, side by side.

Linux's timers are late by up to an eighth (kernel/time/timer.c), ours by one tick of a millisecond here. A gap between two
segments may differ by that, for each timer that ran out within it, and by a tenth for what the round trip was measured
to be. What differs once and not again, the machine did and not the kernel's TCP.
"""

import itertools

import pytest
from kernel.netns import missing, why_not
from kernel_plan.record import hz
from kernel_plan.scenarios import grain_ns

from oracle import timed
from oracle.differences import REASONS, TIMED
from oracle.scripts import LONG, SCRIPTS

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")
NAMES = [script.name for script in SCRIPTS]
BUSY_NS = 60_000_000  # how late this process may look


@pytest.fixture(scope="module")
def records():
    return timed.run([script for script in SCRIPTS if not missing(dict(script.sysctls))], unexpected)


def shown(script, told):
    """Without what differences.py has for every RST (an ACK, "reset"), and without options where they are not compared."""
    flags, seq, *rest = told.split()
    if flags == "RA":
        return f"R {seq}"
    return told if script.options else " ".join([flags, seq, *rest[: 2 * ("ack" in rest)]])


def cut(script, kernel, ours):
    """Both lists of (time, what) up to the end of the script; what one of them did just before it is left out."""
    most = script.seconds * 1e9
    kernel, ours = ([one for one in each if one[0] <= most] for each in (kernel, ours))
    longer = max(kernel, ours, key=len)
    if abs(len(kernel) - len(ours)) == 1 and longer[-1][0] > 0.85 * most:
        longer.pop()
    return kernel, ours


def differences(script, kernel, ours):
    ticks = hz()
    acted = [at for at, _ in kernel.acted]
    for what in ("sent", "states"):
        theirs, mine = cut(script, getattr(kernel, what), getattr(ours, what))
        if what == "sent":
            theirs, mine = ([(at, shown(script, told)) for at, told in each] for each in (theirs, mine))
        if [told for _, told in theirs] != [told for _, told in mine]:
            yield f"{what}: {theirs} {mine}"
            continue
        for n in range(1, len(mine)):
            if any(0 <= mine[n][0] - at < 3_000_000 for at in acted):
                continue  # an answer, or a call: not a timer
            gap, wanted = theirs[n][0] - theirs[n - 1][0], mine[n][0] - mine[n - 1][0]
            timers = [mine[n - 1][0], *(at for at, _ in ours.sent if mine[n - 1][0] < at < mine[n][0]), mine[n][0]]
            late = sum(grain_ns((to - at) / 1e9, ticks) for at, to in itertools.pairwise(timers)) + BUSY_NS
            if not 0.9 * wanted - BUSY_NS / 2 <= gap <= 1.1 * wanted + late:
                yield f"{mine[n][1]} after {gap / 1e9:.3f} s, we after {wanted / 1e9:.3f} s"
    if theirs[-1][1] == "CLOSED" and kernel.error == "ETIMEDOUT" and ours.error != "timeout":
        yield f"the application is told of {kernel.error}, by us of {ours.error}"


def unexpected(script, kernel, ours):
    return script.name not in TIMED and any(differences(script, kernel, ours))


@pytest.mark.slow
def test_the_defaults():
    """SYN for 131 s, SYN+ACK for 63 s, an orphan's FIN for 102 s, FIN_WAIT_2 and TIME_WAIT for 60 s."""
    records = timed.run(LONG, unexpected)
    found = {script.name: list(differences(script, *records[script.name])) for script in LONG}
    assert {name: each for name, each in found.items() if each} == {}, "\n".join(
        f"{name}: Linux {records[name][0].told()}; we {records[name][1].told()}" for name, each in found.items() if each
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)
def test_timers(records, script):
    if reason := missing(dict(script.sysctls)):
        pytest.skip(reason)
    kernel, ours = records[script.name]
    found = list(differences(script, kernel, ours))
    known = TIMED.get(script.name)
    if found and known is None and kernel.late_s > timed.LATE_S:
        pytest.skip(f"this machine is too busy: a step came {kernel.late_s:.2f} s late in each of {timed.TRIES} runs")
    if known is None:
        assert not found, "\n".join(["Linux: " + kernel.told(), "we: " + ours.told(), *found])
    else:
        assert known in REASONS and found, (
            f"no difference any more: take {script.name!r} ({known}) out of differences.py"
        )


def test_every_listed_difference_is_a_script():
    assert set(TIMED) <= set(NAMES)
