"""Case 14 and what else a listener limits: the same crowd of peers at a Linux listener and at one of ours.

Backlog, SYN cookies, the accept queue and its overflow, the end of a listener. Linux is given a backlog of N and ours of
N + 1: differences.py, "one_more".
"""

import pytest
from kernel.netns import why_not

from oracle.crowd import Crowd
from oracle.differences import CROWDS, REASONS
from oracle.twin import VERSIONS, Host

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")

SYN, ACK = "S 0 mss 1460 ws 7", "A 1 ack 1"


def syns(peers):
    return [f"{peer} {SYN}" for peer in peers]


def through(peers):
    return [f"{peer} {words}" for peer in peers for words in (SYN, ACK)]


# name: (backlog, sysctls, steps)
SCENES = {
    "case_14 a full backlog drops": (3, {}, syns("abcdefg")),
    "case_14 a full backlog of one": (0, {}, syns("abc")),
    "case_14 who is reset makes room": (1, {}, [*syns("abc"), "a R 1", *syns("cd")]),
    "case_14 who completes makes room": (1, {}, [*syns("abc"), f"a {ACK}", *syns("cd")]),
    "case_14 a full backlog sends cookies": (
        3, {"tcp_syncookies": 1},
        [*syns("abcdef"), f"e {ACK}", "f A 1 ack 7", "f FA 1 ack 1 len 4", f"a {ACK}", f"g {ACK}"],
    ),
    "case_14 nobody believes a cookie that was not sent": (8, {"tcp_syncookies": 1}, [f"a {ACK}", "a S 0", f"b {ACK}"]),
    "case_14 cookies always": (8, {"tcp_syncookies": 2}, [
        "a S 0 mss 1460", f"a {ACK}",
        "b S 0 mss 1460 ws 7 sack", "b A 1 ack 1 len 10",
        "c S 0 mss 1460 ws 7 sack ts 700", "c A 1 ack 1 ts 710", "c A 1 ack 1 len 10 ts 720",
        "d S 0 mss 1460 ts 700", "d A 1 ack 1 ts 701",
        "e S 0", "e S 0", "e A 1 ack 9", "e A 2 ack 1", f"e {ACK}",
        f"f {ACK}", "g S 0 mss 1460", "g R 1", f"g {ACK}", "h S 0 mss 1460", "h FA 1 ack 1",
        "i S 0 mss 1460 len 5", f"i {ACK}", "i FA 1 ack 1", "i R 2"]),
    "case_14 a cookie one off": (8, {"tcp_syncookies": 2}, ["a S 0", "a A 1 ack 2"]),
    "case_14 cookies and a full accept queue": (1, {"tcp_syncookies": 2}, through("abcd")),
    "case_14 tcp_max_syn_backlog": (64, {"tcp_max_syn_backlog": 4}, syns("abcdefgh")),
    "case_14 tcp_max_syn_backlog, its last quarter": (64, {"tcp_max_syn_backlog": 8}, syns("abcdefghijkl")),
    "case_14 tcp_max_syn_backlog with cookies": (64, {"tcp_max_syn_backlog": 4, "tcp_syncookies": 1}, syns("abcdefgh")),
    "a full accept queue": (1, {"tcp_abort_on_overflow": 0}, [
        *through("a"), *syns("bcdef"), f"b {ACK}", f"c {ACK}", f"d {ACK}", "d A 1 ack 1 len 5", "g S 0",
        "accept", f"c {ACK}", "g S 0", "accept", "accept", "accept"]),
    "a full accept queue that resets": (1, {"tcp_abort_on_overflow": 1}, [
        *through("a"), *syns("bcdef"), f"b {ACK}", f"c {ACK}", f"d {ACK}", "d A 1 ack 1 len 5", "g S 0",
        "accept", f"c {ACK}", "g S 0", "accept", "accept", "accept"]),
    "who waits for accept is served in order": (8, {}, [
        *syns("abc"), f"c {ACK}", f"a {ACK}", "c A 1 ack 1 len 10", "c FA 11 ack 1", f"b {ACK}", "accept", "accept", "accept",
        "accept"]),
    "who is reset before accept": (8, {}, [*through("ab"), "a R 1", "b A 1 ack 1 len 5", "accept", "accept"]),
    "the end of a listener": (8, {}, [*through("ab"), *syns("c"), "close", f"c {ACK}", f"d {SYN}"]),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SCENES)
def test_a_crowd_at_a_listener(name, version):
    backlog, sysctls, steps = SCENES[name]
    with Host(VERSIONS[version]) as host:
        for sysctl, value in sysctls.items():
            host.namespace.sysctl(f"net.ipv4.{sysctl}", value)
        with Crowd(host, backlog=backlog, **sysctls) as crowd:
            for step in steps:
                if step in ("accept", "close"):
                    getattr(crowd, step)()
                else:
                    crowd.get(*step.split(" ", 1))
            known = CROWDS.get(name)
            if known is None:
                assert not crowd.differences, "\n".join([*crowd.log, *crowd.differences])
            else:
                assert known in REASONS and crowd.differences, f"no difference any more: take {name!r} out of differences.py"


@pytest.mark.parametrize("version", VERSIONS)
def test_one_more_than_the_backlog(version):
    with Host(VERSIONS[version]) as host, Crowd(host, backlog=3, tcp_syncookies=0) as crowd:
        for step in syns("abcdef"):
            crowd.get(*step.split(" ", 1))
        assert [crowd.peers[peer][0].state for peer in "abcdef"] == ["SYN_RCVD"] * 4 + ["CLOSED"] * 2
    assert set(CROWDS) <= set(SCENES)
