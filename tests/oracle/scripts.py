"""The scripts of test_timers.py: which timer, in which role, with which sysctls.

Round trips are chosen so that no limit falls near a retransmission: Linux's timers are late by up to an eighth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .timed import Script
from .twin import IPV6

OPTIONS = "mss 1460 ws 7"
Steps = tuple[tuple[float, str], ...]


def both(
    name: str, steps: Steps, seconds: float, *, window: int = 60000, answer: float = 0.06, **sysctls: int
) -> list[Script]:
    """In both roles, established after a round trip of `answer` seconds; steps are timed from 20 ms after it."""
    after = tuple((answer + 0.02 + at, words) for at, words in steps)
    opened = {
        "active": ((0.0, "open"), (answer, f"< SA 0 ack 1 {OPTIONS} win {window}")),
        "passive": (
            (0.0, "listen"), (0.0, f"< S 0 {OPTIONS} win {window}"),
            (answer, f"< A 1 ack 1 win {window >> 7}"), (answer, "accept"),
        ),
    }  # fmt: skip
    return [
        Script(f"{name}, {role}", (*first, *after), seconds, role == "passive", tuple(sorted(sysctls.items())))
        for role, first in opened.items()
    ]


def active(
    name: str, steps: Steps, seconds: float, *, more: dict[str, Any] | None = None, **sysctls: int
) -> list[Script]:
    return [Script(name, ((0.0, "open"), *steps), seconds, False, tuple(sorted(sysctls.items())), **(more or {}))]


def passive(name: str, steps: Steps, seconds: float, **sysctls: int) -> list[Script]:
    return [
        Script(
            name, ((0.0, "listen"), (0.0, f"< S 0 {OPTIONS}"), *steps), seconds, True, tuple(sorted(sysctls.items()))
        )
    ]


CAPPED = {"tcp_rto_max_ms": 1000}
FEW = {"tcp_retries2": 3, "tcp_orphan_retries": 2}
ALIVE = {"tcp_keepalive_time": 1, "tcp_keepalive_intvl": 1, "tcp_keepalive_probes": 2}
SHORT = {"tcp_fin_timeout": 2}

SCRIPTS = [
    # SYN
    *active("case_08 back-off", (), 7.9, tcp_syn_retries=2, tcp_syn_linear_timeouts=0),
    *active("case_08 linear at first", (), 6.9, tcp_syn_retries=1, tcp_syn_linear_timeouts=2),
    *active("case_08 linear, then back-off", (), 7.9, tcp_syn_retries=2, tcp_syn_linear_timeouts=1),
    *active("case_08 rto_max", (), 5.5, tcp_syn_retries=3, tcp_syn_linear_timeouts=0, **CAPPED),
    *active("case_08 answered late", ((1.3, f"< SA 0 ack 1 {OPTIONS}"), (1.4, "send 100")), 5.5),
    *active("case_08 answered late, dated", ((1.5, f"< SA 0 ack 1 {OPTIONS} ts 700"), (1.6, "send 100")), 5.0),
    *active("case_04 the syn again after a wrong ack", ((0.3, "< A 0 ack 0"), (1.9, "< A 0 ack 0")), 2.5,
            tcp_syn_linear_timeouts=0),
    *active("case_07 crossed, never acknowledged", ((0.4, f"< S 0 {OPTIONS}"),), 7.9,
            more={"options": False}, tcp_syn_retries=2, tcp_syn_linear_timeouts=2),
    # SYN+ACK
    *passive("case_13 back-off", (), 7.9, tcp_synack_retries=2),
    *passive("case_13 rto_max", (), 3.7, tcp_synack_retries=2, **CAPPED),
    *passive("case_13 answered late", ((1.3, "< A 1 ack 1"), (1.3, "accept"), (1.4, "send 100")), 5.5),
    *passive("case_09 the syn again", ((0.6, f"< S 0 {OPTIONS}"),), 4.5, tcp_synack_retries=1),
    # data
    *both("data", ((0.0, "send 100"),), 7.5, **FEW),
    *both("data, round trip of 300 ms", ((0.0, "send 100"),), 7.7, answer=0.3, **FEW),
    *both("data, round trip of 600 ms", ((0.0, "send 100"),), 7.7, answer=0.6, **FEW),
    *both("data, rto_min 50 ms", ((0.0, "send 100"),), 5.5, answer=0.02, tcp_rto_min_us=50000, tcp_retries2=4),
    *both("data, rto_max", ((0.0, "send 100"),), 7.5, tcp_retries2=4, **CAPPED),
    *both("data, acknowledged late", ((0.0, "send 100"), (1.3, "< A 1 ack 101"), (1.4, "send 100")), 5.5),
    *both("data, acknowledged late, new sample", (
        (0.0, "send 100"), (1.3, "< A 1 ack 101"), (1.35, "send 50"), (1.41, "< A 1 ack 151"), (1.5, "send 50")), 4.2),
    # FIN
    *both("case_39", ((0.0, "shutdown"),), 7.5, **FEW),
    *both("case_39 orphan", ((0.0, "close"),), 7.5, **FEW),
    *both("case_39 orphan, rto_max", ((0.0, "close"),), 7.5, **CAPPED),
    *both("case_39 data before it", ((0.0, "send 100"), (0.0, "close")), 7.5, **FEW),
    *both("case_39 LAST_ACK", ((0.0, "< FA 1 ack 1"), (0.1, "close")), 7.5, **FEW),
    *both("case_39 CLOSING", ((0.0, "close"), (0.1, "< FA 1 ack 1")), 7.5, **FEW),
    # keepalive
    *both("case_48", ((0.0, "keepalive"),), 5.5, **ALIVE),
    *both("case_48 answered", ((0.0, "keepalive"), (1.3, "< A 1 ack 1")), 5.5, **ALIVE),
    *both("case_48 CLOSE_WAIT", ((0.0, "< FA 1 ack 1"), (0.0, "keepalive")), 5.5, **ALIVE),
    *both("case_48 FIN_WAIT_2", ((0.0, "keepalive"), (0.0, "shutdown"), (0.06, "< A 1 ack 2")), 5.5, **ALIVE),
    # windows
    *both("window shut", ((0.0, "send 100"),), 7.5, window=0, **FEW),
    *both("window shut, probes answered", (
        (0.0, "send 100"), (0.5, "< A 1 ack 1 win 0"), (1.6, "< A 1 ack 1 win 0"), (3.6, "< A 1 ack 1 win 500")), 5.0,
        window=0, **FEW),
    *both("window shut before a fin", ((0.0, "shutdown"), (0.55, "< A 1 ack 1 win 500")), 2.2, window=0, **FEW),
    *both("window shut, orphan", ((0.0, "send 100"), (0.0, "close")), 7.5, window=0, **FEW),
    # FIN_WAIT_2
    *both("case_33", ((0.0, "close"), (0.06, "< A 1 ack 2")), 4.5, **SHORT),
    *both("case_33 an orphan later", ((0.0, "shutdown"), (0.06, "< A 1 ack 2"), (1.5, "close")), 5.0, **SHORT),
    *both("case_33 no orphan", ((0.0, "shutdown"), (0.06, "< A 1 ack 2")), 4.0, **SHORT),
    *both("case_33 spoken to", ((0.0, "close"), (0.06, "< A 1 ack 2"), (1.5, "< A 1 ack 2")), 5.0, **SHORT),
    *both("case_33 long round trip", ((0.0, "close"), (0.6, "< A 1 ack 2")), 7.9, answer=0.6, **SHORT),
    # A peer with SACK: after two round trips Linux asks before the time-out (TLP)
    *active("a peer with SACK", ((0.06, f"< SA 0 ack 1 {OPTIONS} sack"), (0.1, "send 100")), 2.0),
    # ACKs for what does not fit
    *both("case_23", tuple((at, "< A 1 ack 1001") for at in (0.01, 0.1, 0.4, 0.45, 0.6, 0.7, 1.2)), 2.0),
    *both("case_23 every one", tuple((0.05 * n, "< A 1 ack 1001") for n in range(5)), 1.0, tcp_invalid_ratelimit=0),
    *both("case_23 not for data", tuple((0.05 * n, "< A -9 ack 1 len 5") for n in range(5)), 1.0),
]  # fmt: skip

# One of each timer over IPv6 as well: the timers do not know the version.
OVER_IPV6 = ("case_08 back-off", "case_13 back-off", "data", "case_39", "case_48", "window shut", "case_33", "case_23")
SCRIPTS += [
    replace(script, name=f"{script.name}, IPv6", version=IPV6)
    for script in SCRIPTS
    if script.name.removesuffix(", active").removesuffix(", passive") in OVER_IPV6
]

# The defaults, which take two and a half minutes.
LONG = [
    *active("case_08 by default", (), 140),
    *passive("case_13 by default", (), 75),
    *both("case_39 by default", ((0.0, "close"),), 130),
    *both("case_33 by default", ((0.0, "close"), (0.06, "< A 1 ack 2")), 75),
    *both("case_43", ((0.0, "shutdown"), (0.06, "< A 1 ack 2"), (0.1, "< FA 1 ack 2")), 75),
    *both("case_43 from FIN_WAIT_2 of an orphan", ((0.0, "close"), (0.06, "< A 1 ack 2"), (9, "< FA 1 ack 2")), 85),
    *both("case_43 after CLOSING", ((0.0, "shutdown"), (0.06, "< FA 1 ack 1"), (0.1, "< A 2 ack 2")), 75),
    *both("case_40 the fin again", (
        (0.0, "shutdown"), (0.06, "< A 1 ack 2"), (0.1, "< FA 1 ack 2"), (20, "< FA 1 ack 2")), 95),
    *both("case_41 an old syn does not restart it", (
        (0.0, "shutdown"), (0.06, "< A 1 ack 2"), (0.1, "< FA 1 ack 2"), (20, "< S -50 mss 1460")), 75),
    *both("data by default, to a listless peer", ((0.0, "send 100"), (0.5, "< A 1 ack 1"), (100, "< A 1 ack 101")), 140),
]  # fmt: skip
