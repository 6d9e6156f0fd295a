"""Filters in the words of `ss`: every word, what it means for a connection with two ends, and errors that point."""

import random
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from fasttcp.core.segments import SegmentBatch
from fasttcp.errors import FilterError
from fasttcp.observe.track import track
from fasttcp.observe.tracker import Tracker
from fasttcp.observe.where import STATES, compile_filter
from fasttcp.profiles import profile
from fasttcp.spec import State

CAPTURES = Path(__file__).resolve().parent.parent / "captures"


def connections():
    """Connections of every kind: IPv4 and IPv6, all the states that the captures end in."""
    return [connection for path in sorted(CAPTURES.glob("*.pcap")) for connection in track(path)]


@pytest.fixture(scope="module")
def everything():
    found = connections()
    assert len(found) > 30
    return found


def shown(text):
    return [repr(c) for path in sorted(CAPTURES.glob("*.pcap")) for c in track(path, where=text)]


def expected(everything, test):
    return [repr(connection) for connection in everything if test(connection)]


STATE_TESTS = {
    "state time-wait": lambda o, r: State.TIME_WAIT in (o, r),
    "state TIME_WAIT": lambda o, r: State.TIME_WAIT in (o, r),
    "exclude time-wait": lambda o, r: State.TIME_WAIT not in (o, r),
    "not state time-wait": lambda o, r: State.TIME_WAIT not in (o, r),
    "orig state time-wait": lambda o, r: o == State.TIME_WAIT,
    "resp state time-wait": lambda o, r: r == State.TIME_WAIT,
    "resp exclude time-wait": lambda o, r: r != State.TIME_WAIT,
    "state established state syn-sent": lambda o, r: {State.ESTABLISHED, State.SYN_SENT} & {o, r},
    "state established and state close-wait": lambda o, r: State.ESTABLISHED in (o, r) and State.CLOSE_WAIT in (o, r),
    "state connected exclude time-wait": lambda o, r: (
        ({o, r} - {State.CLOSED, State.LISTEN}) and State.TIME_WAIT not in (o, r)
    ),
    "state syn-recv": lambda o, r: State.SYN_RCVD in (o, r),
    "state bucket": lambda o, r: {State.SYN_RCVD, State.TIME_WAIT} & {o, r},
    "state big": lambda o, r: {o, r} - {State.SYN_RCVD, State.TIME_WAIT},
    "state all": lambda o, r: True,
    "exclude all": lambda o, r: False,
    "state closed or state fin-wait-2": lambda o, r: {State.CLOSED, State.FIN_WAIT_2} & {o, r},
    "! ( state closed | state last-ack )": lambda o, r: not {State.CLOSED, State.LAST_ACK} & {o, r},
    "": lambda o, r: True,
}


@pytest.mark.parametrize("text", STATE_TESTS)
def test_states(everything, text):
    test = STATE_TESTS[text]
    assert shown(text) == expected(everything, lambda c: test(c.orig_state, c.resp_state))


def test_groups_are_those_of_ss():
    named = {name: {state.name for state in states} for name, states in STATES.items()}
    assert named["all"] - named["connected"] == {"CLOSED", "LISTEN"}
    assert named["connected"] - named["synchronized"] == {"SYN_SENT"}
    assert named["bucket"] == {"TIME_WAIT", "SYN_RCVD"}
    assert named["all"] - named["big"] == named["bucket"]
    assert {"established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "closed", "close-wait",
            "last-ack", "listening", "closing"} <= set(named)  # fmt: skip


# ---- any addresses and ports, against Python's own ---------------------------------------------------------------


@pytest.fixture(scope="module")
def tuples():
    """200 connections between few hosts: [(src, sport, dst, dport)], and a function that says which of them are shown."""
    chance = random.Random(11)
    hosts = ["10.0.0.1", "10.0.0.130", "10.255.0.7", "192.168.3.4", "2001:db8::1", "2001:db8:0:ff::9", "fd00::1:2"]
    ports = [22, 80, 443, 1023, 1024, 40000, 65535]
    made = sorted(
        {
            (src, chance.choice(ports), dst, chance.choice(ports))
            for _ in range(400)
            for src, dst in [chance.sample(hosts, 2)]
            if (":" in src) == (":" in dst)
        }
    )
    made = [one for i, one in enumerate(made) if one[2:] + one[:2] not in made[:i]]

    def shown(text):
        tracker = Tracker(profile("linux"), max_connections=1000, seed=1)
        batch = SegmentBatch(len(made))
        for i, (src, sport, dst, dport) in enumerate(made):
            batch.append(src=src, sport=sport, dst=dst, dport=dport, flags="SYN", seq=i, time_ns=10**18 + i)
        tracker.keep(text)
        tracker.apply(batch)
        tracker.finish()
        return sorted((c.orig_addr, c.orig_port, c.resp_addr, c.resp_port) for c in tracker.take())

    return made, shown


def inside(address, network):
    parsed = ip_network(network)
    return ip_address(address).version == parsed.version and ip_address(address) in parsed


END_TESTS = {
    "dport = :443": lambda s, sp, d, dp: dp == 443,
    "dport 443": lambda s, sp, d, dp: dp == 443,
    "dport eq :https": lambda s, sp, d, dp: dp == 443,
    "sport != :22": lambda s, sp, d, dp: sp != 22,
    "sport neq 22": lambda s, sp, d, dp: sp != 22,
    "dport > :1023 and dport<:40000": lambda s, sp, d, dp: 1023 < dp < 40000,
    "dport gt 1023 dport lt 40000": lambda s, sp, d, dp: 1023 < dp < 40000,
    "sport >= :1024": lambda s, sp, d, dp: sp >= 1024,
    "sport geq 1024 && dport leq 1024": lambda s, sp, d, dp: sp >= 1024 and dp <= 1024,
    "sport <= :80 || dport <= :80": lambda s, sp, d, dp: sp <= 80 or dp <= 80,
    "src 10.0.0.0/8": lambda s, sp, d, dp: inside(s, "10.0.0.0/8"),
    "src = 10.0.0.0/25": lambda s, sp, d, dp: inside(s, "10.0.0.0/25"),
    "dst != 10.0.0.1": lambda s, sp, d, dp: d != "10.0.0.1",
    "dst 10.0.0.1:80": lambda s, sp, d, dp: (d, dp) == ("10.0.0.1", 80),
    "dst 10.0.0.0/8:80": lambda s, sp, d, dp: inside(d, "10.0.0.0/8") and dp == 80,
    "dst != 10.0.0.1:80": lambda s, sp, d, dp: (d, dp) != ("10.0.0.1", 80),
    "src :443": lambda s, sp, d, dp: sp == 443,
    "src *:443": lambda s, sp, d, dp: sp == 443,
    "src * dst *:*": lambda s, sp, d, dp: True,
    "src 0.0.0.0/0": lambda s, sp, d, dp: ":" not in s,
    "src ::/0": lambda s, sp, d, dp: ":" in s,
    "dst [2001:db8::1]:80": lambda s, sp, d, dp: (d, dp) == ("2001:db8::1", 80),
    "dst [2001:db8::]/63": lambda s, sp, d, dp: inside(d, "2001:db8::/63"),
    "dst 2001:db8::/32 or dst [fd00::]/8:22": lambda s, sp, d, dp: (
        inside(d, "2001:db8::/32") or (inside(d, "fd00::/8") and dp == 22)
    ),
    # and binds closer than or, not closer than both
    "sport 22 or sport 80 and dport 80": lambda s, sp, d, dp: sp == 22 or (sp == 80 and dp == 80),
    "(sport 22 or sport 80) and dport 80": lambda s, sp, d, dp: sp in (22, 80) and dp == 80,
    "not sport 22 and not not dport 80": lambda s, sp, d, dp: sp != 22 and dp == 80,
}


@pytest.mark.parametrize("text", END_TESTS)
def test_addresses_and_ports(tuples, text):
    made, shown = tuples
    chosen = [one for one in made if END_TESTS[text](*one)]
    assert chosen, "a test that nothing passes tests nothing"
    assert shown(text) == chosen


def test_random_filters_agree_with_python(tuples):
    """Random trees over random conditions, written out with as few brackets as the precedences allow, or with all."""
    made, shown = tuples
    chance = random.Random(5)
    leaves = [text for text in END_TESTS if not {"and", "or", "not", "&&", "||"} & set(text.split())]
    leaves = [text for text in leaves if len(text.split()) <= 3]

    def tree(depth):
        kind = chance.choice(("leaf", "and", "or", "not")) if depth else "leaf"
        if kind == "leaf":
            text = chance.choice(leaves)
            return text, END_TESTS[text]
        if kind == "not":
            text, test = tree(depth - 1)
            return f"not ( {text} )", lambda *one: not test(*one)
        (left, one_test), (right, other_test) = tree(depth - 1), tree(depth - 1)
        if kind == "and":
            return f"( {left} ) and ( {right} )", lambda *one: one_test(*one) and other_test(*one)
        return f"({left})|({right})", lambda *one: one_test(*one) or other_test(*one)

    for _ in range(100):
        text, test = tree(6)
        assert shown(text) == [one for one in made if test(*one)], text


# ---- errors ------------------------------------------------------------------------------------------------------


WRONG = {
    "state time-wayt and dport = :443": ("time-wayt", "nearest: time-wait"),
    "dport = :443 and sport = :99999": ("99999", "65535"),
    "src 10.0.0.0/40": ("10.0.0.0/40", "prefix length from 0 to 32"),
    "src ::1/129": ("::1/129", "from 0 to 128"),
    "src 10.0.0": ("10.0.0", "no IPv4 or IPv6 address"),
    "src host.example": ("host.example", "no IPv4 or IPv6 address"),
    "src [::1": ("[::1", "no IPv4 or IPv6 address"),
    "( state closed": ("(", "never closed"),
    "state closed )": (")", "closes nothing"),
    "and state closed": ("and", "missing before 'and'"),
    "state closed and or dport 1": ("or", "missing before 'or'"),
    "state closed ()": (")", "missing before ')'"),
    "sprot = :22": ("sprot", "nearest: sport"),
    "established": ("established", "state established"),
    "src > 10.0.0.1": (">", "cannot compare addresses"),
    "dev eth0": ("dev", "this host only"),
    "dport = :htps": ("htps", "nearest: https"),
    "orig sport 3": ("sport", "'state' or 'exclude' is expected"),
    "dport *": ("*", "not *"),
}


@pytest.mark.parametrize("text", WRONG)
def test_errors_point_at_the_word(text):
    word, message = WRONG[text]
    with pytest.raises(FilterError) as caught:
        compile_filter(text)
    what, shown, mark = str(caught.value).splitlines()
    assert message in what
    assert shown == f"  {text}"
    assert mark.strip() == "^" * len(word)
    assert shown[mark.index("^") : len(mark)] == word


@pytest.mark.parametrize("text", ["state", "dport >", "src", "not", "state closed and", "state closed or", "orig"])
def test_what_is_missing_is_pointed_at_behind_the_end(text):
    with pytest.raises(FilterError, match="is missing") as caught:
        compile_filter(text)
    assert str(caught.value).splitlines()[2] == " " * (2 + len(text)) + "^"


def test_nesting_has_a_limit_and_chains_have_none():
    with pytest.raises(FilterError, match="brackets inside one another"):
        compile_filter("(" * 100000 + "state all" + ")" * 100000)
    assert len(compile_filter(" or ".join(["sport 1"] * 5000))) == 9999 * 24
    compile_filter("( " * 40 + "state all" + " )" * 40)


def test_any_text_is_a_program_or_a_filter_error():
    chance = random.Random(1)
    words = ["state", "exclude", "orig", "src", "dport", "time-wait", "=", "!", ">", "(", ")", "and", "or", "not", ":80",
             "10.0.0.0/8", "[::1]:80", "\n", "é", ":", "/", "[", "*"]  # fmt: skip
    for _ in range(3000):
        text = " ".join(chance.choices(words, k=chance.randrange(9)))
        try:
            assert len(compile_filter(text)) % 24 == 0
        except FilterError as failure:
            assert len(str(failure).splitlines()) == 3  # noqa: PT017
