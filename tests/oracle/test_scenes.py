"""Short stories of one connection: TIME_WAIT and who may use its 4-tuple again, old timestamps, orphans, windows, SACK.

A step is a call (`open`, `close`, `send 100`), "wait N" seconds, "to STATE", or "< " and a segment (twin.py). Sysctls are
set in a namespace of the scene's own, and in our profile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
from kernel.netns import missing, why_not

from oracle.differences import REASONS
from oracle.differences import SCENES as KNOWN
from oracle.test_against_linux import PROBES, filled
from oracle.twin import PLACE, VERSIONS, Host, Twin

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")

OPTIONS = "mss 1460 ws 7"
REUSE = {"tcp_tw_reuse_delay": 500}  # ms; the default is a second
NOTHING = re.compile(r"$^")
RESET = re.compile(r"(?<=^R)A(?= \d)|(?<=^RA [1-9]) ack \d+")
CROSSED = re.compile(r"(?<=mss \d{4}) sack ts ws")  # differences.py, "crossed"
BLOCKS = re.compile(r" blocks\b")
UNBOUND = ("open_unbound", f"< SA 0 ack 1 {OPTIONS}", "shutdown", "< A 1 ack 2", "< FA 1 ack 2")


@dataclass(frozen=True)
class Scene:
    steps: tuple[str, ...]
    roles: tuple[str, ...] = ("active", "passive")
    timestamps: bool = False
    sysctls: dict[str, int] = field(default_factory=dict)
    forgiven: re.Pattern[str] = NOTHING

    @property
    def changes(self) -> dict[str, object]:
        changes: dict[str, object] = dict(self.sysctls)
        if "tcp_tw_reuse_delay" in changes:
            changes["tcp_tw_reuse_delay"] = self.sysctls["tcp_tw_reuse_delay"] / 1000
        return changes


def scene(
    *steps: str, roles: str = "active passive", ts: bool = False, forgiven: re.Pattern[str] = NOTHING, **sysctls: int
) -> Scene:
    return Scene(steps, tuple(roles.split()), ts, sysctls, forgiven)


SCENES = {
    "case_09 after both opened": scene("open", "< S 0 mss 1460", "< S 0 mss 1460", roles="active", forgiven=CROSSED),
    "case_12 close of a crossed opening": scene(
        "open", "< S 0 mss 1460", "shutdown", "< A 1 ack 1", "< A 1 ack 2", "< FA 1 ack 2", roles="active",
        forgiven=CROSSED),
    # ---- case 44: connect() on a 4-tuple in TIME_WAIT
    **{
        f"case_44 tcp_tw_reuse {reuse}, {'timestamps' if ts else 'no timestamps'}, {when}": scene(
            *UNBOUND, wait, "open_unbound", f"< SA 0 ack 1 {OPTIONS}", roles="active", ts=ts, tcp_tw_reuse=reuse, **REUSE
        )
        for reuse in (0, 1, 2)
        for ts in (True, False)
        for when, wait in (("too early", "wait 0.03"), ("late enough", "wait 0.6"))
    },
    "case_44 never in FIN_WAIT_2": scene(
        *UNBOUND[:2], "close", "< A 1 ack 2", "wait 0.6", "open_unbound", roles="active", ts=True, tcp_tw_reuse=1, **REUSE),
    "case_44 from when it counts": scene(
        *UNBOUND, "wait 0.4", "< FA 1 ack 2", "wait 0.2", "open_unbound", roles="active", ts=True, tcp_tw_reuse=1, **REUSE),
    "case_44 a port that was bound": scene("to TIME_WAIT", "open", roles="active", ts=True, tcp_tw_reuse=0),
    "case_44 a live connection": scene(*UNBOUND[:2], "open_unbound", roles="active", ts=True, tcp_tw_reuse=1, **REUSE),
    # ---- case 41: a SYN in TIME_WAIT
    **{
        f"case_41 {name}, {'timestamps' if ts else 'no timestamps'}": scene(
            "to TIME_WAIT", f"< S {seq} mss 1460 ts {tsval}", roles="passive", ts=ts)
        for name, seq, tsval in (
            ("above, newer", 500, 100_000), ("above, older", 500, 100), ("below, newer", -500, 100_000),
            ("below, older", -500, 100), ("at RCV.NXT, newer", 2, 100_000), ("one above", 3, 100_000),
        )
        for ts in (True, False)
    },
    "case_41 and on": scene(
        "to TIME_WAIT", f"< S 500 {OPTIONS} ts 90000", "< A 501 ack 1 ts 90001", "accept", "< A 501 ack 1 len 10 ts 90002",
        roles="passive", ts=True),
    # ---- cases 40, 42, 46: TIME_WAIT
    "case_40 with timestamps": scene("to TIME_WAIT", "< FA 1 ack 2", "< FA 1 ack 2", ts=True),
    "case_40 an old timestamp": scene("to TIME_WAIT", "< FA 1 ack 2 ts 100", ts=True),
    "case_42 tcp_rfc1337 off": scene("to TIME_WAIT", "< R 2", "< A 2 ack 2", tcp_rfc1337=0),
    "case_42 tcp_rfc1337 on": scene("to TIME_WAIT", "< R 2", "< A 2 ack 2", tcp_rfc1337=1),
    "case_46 none may wait": scene("to TIME_WAIT", "< FA 1 ack 2", tcp_max_tw_buckets=0),
    "case_46 none may wait after CLOSING": scene("to CLOSING", "< A 2 ack 2", "< A 2 ack 2", tcp_max_tw_buckets=0),
    "case_46 one may wait": scene("to TIME_WAIT", "< FA 1 ack 2", roles="active", tcp_max_tw_buckets=1),
    "case_46 an orphan in FIN_WAIT_2": scene("to ESTABLISHED", "close", "< A 1 ack 2", tcp_max_tw_buckets=0),
    # ---- case 24: timestamps
    **{
        f"case_24 {name} in {state}": scene(
            f"to {state}", *(filled(f"< {one}", *PLACE[state]) for one in (words, "A {r} ack {n}")), ts=True)
        for state in PLACE
        if state not in ("SYN_RCVD", "TIME_WAIT")
        for name, words in (
            ("old data", "A {r} ack {n} len 10 ts 100"), ("an old ack", "A {r} ack {n} ts 100"),
            ("an old fin", "FA {r} ack {n} ts 100"), ("an old reset", "R {r} ts 100"), ("an old syn", "S {r} ts 100"),
            ("a reset without one", "R {r}"),
        )
    },
    # ---- cases 33, 34: an orphan in FIN_WAIT_2, to Linux a small record of TIME_WAIT's kind
    **{
        f"orphan {name}": scene(
            "to ESTABLISHED", "close", "< A 1 ack 2", filled(f"< {words}", 1, 2), "< A 1 ack 2", forgiven=RESET)
        for name, words in PROBES.items()
    },
    # ---- windows
    "window scale of 3": scene("open", "< SA 0 ack 1 mss 100 ws 3 win 1000", "< A 1 ack 1 win 100", "send 1000",
                               "< A 1 ack 801 win 100", roles="active"),
    "window scale of 15 is 14": scene("open", "< SA 0 ack 1 mss 1000 ws 15 win 1000", "< A 1 ack 1 win 1", "send 5000",
                                      "< A 1 ack 5001 win 1", roles="active"),
    "window of a SYN+ACK is not scaled": scene("open", "< SA 0 ack 1 mss 100 ws 7 win 300", "send 500",
                                               "< A 1 ack 301 win 60000", roles="active"),
    "window of a SYN is not scaled": scene("listen", "< S 0 mss 100 ws 7 win 300", "< A 1 ack 1 win 3", "accept", "send 900",
                                           "< A 1 ack 385 win 60000", roles="passive"),
    "window smaller than a segment": scene("open", "< SA 0 ack 1 mss 1460 win 1000", "send 2500", "wait 0.5", roles="active"),
    "window shrinks": scene("open", "< SA 0 ack 1 mss 500 win 2000", "send 3000", "< A 1 ack 501 win 500",
                            "< A 1 ack 2001 win 5000", roles="active"),
    "window shut and opened": scene("open", "< SA 0 ack 1 mss 500 win 1000", "send 1500", "< A 1 ack 1001 win 0",
                                    "< A 1 ack 1001 win 500", "< A 1 ack 1501 win 500", roles="active"),
    "window of an old segment": scene("open", "< SA 0 ack 1 mss 500 win 1000", "< A 1 ack 1 len 10 win 1000", "read",
                                      "< A 1 ack 1 win 3000", "send 2000", "< A 11 ack 1001 win 1000", roles="active"),
    "our window fills and opens": scene(
        "to ESTABLISHED", *(f"< A {1 + 1400 * n} ack 1 len 1400" for n in range(20)), "read", "< A 28001 ack 1 len 10"),
    # ---- how much goes into a segment, which depends on the version of IP (RFC 9293 section 3.7.1)
    **{
        f"{peer}{', by a cookie' if cookies else ''}, {role}": scene(
            *(("listen", f"< S 0{option}", "< A 1 ack 1", "accept") if role == "passive" else ("open", f"< SA 0 ack 1{option}")),
            "send 4000", "< A 1 ack 4001", roles=role, tcp_syncookies=cookies)
        for peer, option in (("a peer that says no MSS", ""), ("a peer with an MSS above ours", " mss 8960"))
        for role, cookies in (("active", 0), ("passive", 0), ("passive", 2))
    },
    # ---- SACK
    **{
        f"a peer with SACK, {name}": scene(
            "open", f"< SA 0 ack 1 {OPTIONS} sack", *steps, roles="active", forgiven=BLOCKS)
        for name, steps in {
            "a hole": ("< A 11 ack 1 len 10", "< A 31 ack 1 len 10", "< A 1 ack 1 len 10", "< A 21 ack 1 len 10"),
            "the same twice": ("< A 1 ack 1 len 10", "< A 1 ack 1 len 10", "< A 11 ack 1 len 10"),
            "a fin beyond a hole": ("< FA 11 ack 1 len 10", "< A 1 ack 1 len 10"),
        }.items()
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=VERSIONS)
def hosts(request):
    """One namespace for each set of sysctls."""
    made: dict[tuple[tuple[str, int], ...], Host] = {}

    def host(sysctls):
        key = tuple(sorted(sysctls.items()))
        if key not in made:
            made[key] = Host(VERSIONS[request.param]).__enter__()
            for name, value in key:
                made[key].namespace.sysctl(f"net.ipv4.{name}", value)
        return made[key]

    yield host
    for each in made.values():
        each.__exit__()


def play(twin, step, passive):
    verb, _, rest = step.partition(" ")
    if verb == "<":
        twin.get(rest)
    elif verb == "to":
        twin.in_state(rest, passive)
    elif verb == "wait":
        twin.wait(float(rest))
    else:
        getattr(twin, verb)(*map(int, rest.split()))


@pytest.mark.parametrize(
    ("name", "role"), [(name, role) for name, each in SCENES.items() for role in each.roles], ids=lambda text: text
)
def test_scenes(hosts, name, role):
    each = SCENES[name]
    if reason := missing(each.sysctls):
        pytest.skip(reason)
    with Twin(hosts(each.sysctls), passive=role == "passive", timestamps=each.timestamps, **each.changes) as twin:
        twin.forgiven = each.forgiven
        for step in each.steps:
            play(twin, step, role == "passive")
    known = KNOWN.get((name, role))
    if known is None:
        assert not twin.differences, "\n".join([*twin.log, *twin.differences])
    else:
        assert known in REASONS and twin.differences, f"no difference any more: take {name!r} out of differences.py"


def test_every_listed_difference_is_a_scene():
    assert {name for name, _ in KNOWN} <= set(SCENES)
