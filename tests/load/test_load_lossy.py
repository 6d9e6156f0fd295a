"""Loss, reordering and delay: all connections complete, and none leaks.

Each packet, in both directions, may be lost, and waits a time of its own, so that packets overtake each other. Where the kernel
has netem and there is tc, the packets go through two of them, one before and one behind the TUN device; elsewhere through a relay
between the client and its device that draws lots. The test prints which of them it was. python tests/kernel/guest.py runs it
under a kernel that has netem.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("lossy.py")


@pytest.mark.parametrize(
    ("loss", "least", "most"), [(0.01, 0.0, 0.005), (0.05, 0.04, 0.06)],
    ids=["1 percent, reordered", "5 percent, 50 ms, reordered"],
)  # fmt: skip
def test_all_connections_complete_and_none_leaks(loss, least, most):
    told = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps([loss, least, most, 60, 7])], capture_output=True, text=True, timeout=90
    )
    if "a network of its own" in told.stderr or "user namespace" in told.stderr or "/dev/net/tun" in told.stderr:
        pytest.skip(told.stderr.strip().splitlines()[-1])
    assert told.returncode == 0, told.stderr
    counts, states, lost, carried, established, path = json.loads(told.stdout)
    print(f"{path}: {lost} of {carried} packets lost, {counts['retransmitted']} sent again, {counts['opened']} connections")
    assert counts["ok"] == counts["opened"] > 60 and counts["established"] == counts["opened"]
    assert counts["answered"] >= counts["opened"]
    assert (counts["live"], counts["closing"], established) == (0, 0, 0)
    assert set(states) <= {"TIME_WAIT"}
    assert carried > 1000
    assert 0.5 * loss < lost / carried < 2 * loss and counts["retransmitted"] > 0
