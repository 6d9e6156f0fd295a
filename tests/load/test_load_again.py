"""A load behind another one, from the same addresses and ports: what the first has left at the target must not spoil the second."""

import json
import signal
import subprocess
import sys
import time

import pytest
from kernel.netns import Namespace, why_not

from fasttcp.load.run import _kernel_established
from load.kernel_server import serving

pytestmark = pytest.mark.skipif(bool(why_not()), reason=str(why_not()))

CALL = ["load", "198.18.0.1:80", "--source", "198.19.0.0/24", "--ports", "40000-40001", "--json", "--quiet"]


@pytest.fixture
def here():
    with Namespace() as namespace:
        namespace.link_up("lo")
        namespace.add_address("lo", "198.18.0.1/32")
        yield namespace


def started(here, *words):
    return here.popen([sys.executable, "-m", "fasttcp", *CALL, *words], stdout=subprocess.PIPE, text=True)


def test_behind_a_load_that_was_killed(here):
    server = serving(here, "198.18.0.1")
    first = started(here, "--hold", "100", "--duration", "60s")
    end = time.monotonic() + 20
    while here.run(_kernel_established) < 100:
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    report = json.loads(started(here, "--hold", "100", "--duration", "3s").communicate(timeout=60)[0])
    server.communicate()
    # A SYN for a connection that the target still has is answered by an ACK, that by a RST, and then the SYN is sent again.
    assert report["outcomes"]["ok"] == report["counts"]["opened"] == 100


def test_behind_a_load_whose_connections_the_server_has_closed(here):
    """They are in TIME_WAIT there: a SYN with a number and a timestamp beyond theirs opens them again at once."""
    server = serving(here, "198.18.0.1", "http-close")
    again = []
    for _ in range(3):
        child = started(here, "--http", "--close", "peer", "--rate", "400", "--duration", "500ms")
        counts = json.loads(child.communicate(timeout=60)[0])["counts"]
        assert counts["established"] == counts["opened"] > 150
        again.append(counts["syn_retransmitted"])
    server.communicate()
    assert again == [0, 0, 0]
