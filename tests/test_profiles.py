"""Profiles: the defaults are the documented ones, values are checked, copies are equal, the documentation is current."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttcp import profiles
from fasttcp.errors import ProfileError
from fasttcp.parameters import format_ns, to_ns
from fasttcp.profiles import (
    BSD,
    LINUX,
    PARAMETERS,
    PROFILES,
    RFC9293,
    ZEEK,
    Profile,
    profile,
)

S = 10**9
REPOSITORY = Path(__file__).resolve().parents[1]

# Typed in from Documentation/networking/ip-sysctl.rst and nf_conntrack-sysctl.rst (Linux 6.18), times in seconds;
# deliberately not read from this host, whose admin may have changed them.
LINUX_DOCUMENTED = {
    "tcp_fin_timeout": 60, "tcp_tw_reuse": 2, "tcp_tw_reuse_delay": 1, "tcp_rfc1337": False, "tcp_syn_retries": 6,
    "tcp_syn_linear_timeouts": 4, "tcp_synack_retries": 5, "tcp_retries2": 15, "tcp_keepalive_time": 7200,
    "tcp_keepalive_intvl": 75, "tcp_keepalive_probes": 9, "somaxconn": 4096, "tcp_syncookies": 1,
    "tcp_abort_on_overflow": False, "tcp_timestamps": 1, "tcp_window_scaling": True, "tcp_sack": True,
    "tcp_invalid_ratelimit": 0.5, "ip_local_port_range": (32768, 60999), "ip_local_reserved_ports": (),
    "rto_min": 0.2, "rto_max": 120, "rcv_wnd": 65535,
    "nf_conntrack_tcp_loose": True,
    "nf_conntrack_tcp_timeout_syn_sent": 120, "nf_conntrack_tcp_timeout_syn_recv": 60,
    "nf_conntrack_tcp_timeout_established": 432000, "nf_conntrack_tcp_timeout_fin_wait": 120,
    "nf_conntrack_tcp_timeout_close_wait": 60, "nf_conntrack_tcp_timeout_last_ack": 30,
    "nf_conntrack_tcp_timeout_close": 10,
}
ZEEK_DOCUMENTED = {
    "tcp_attempt_delay": 5, "tcp_close_delay": 5, "tcp_SYN_timeout": 5, "tcp_session_timer": 6, "tcp_connection_linger": 5,
    "tcp_inactivity_timeout": 300, "udp_inactivity_timeout": 60, "tcp_max_initial_window": 16384,
    "tcp_max_above_hole_without_any_acks": 16384, "tcp_excessive_data_without_further_acks": 10485760,
    "report_gaps_for_partial": False, "ignore_checksums": False,
}


@pytest.mark.parametrize(("built_in", "name", "value"), [
    *((LINUX, *item) for item in LINUX_DOCUMENTED.items()), *((ZEEK, *item) for item in ZEEK_DOCUMENTED.items()),
], ids=lambda x: x if isinstance(x, str) else "")
def test_defaults_are_the_documented_ones(built_in, name, value):
    parameter = PARAMETERS[name]
    stored = round(value * S) if parameter.kind == "time" else value
    assert getattr(built_in, parameter.attribute) == stored
    assert type(getattr(built_in, parameter.attribute)) is type(stored)


def test_time_wait_is_two_msl():
    assert [p.time_wait_ns // S for p in (LINUX, BSD, RFC9293, ZEEK)] == [60, 60, 240, 60]


def test_how_the_profiles_differ_where_the_conformance_cases_need_it():
    assert (LINUX.tcp_fin_timeout_ns, RFC9293.tcp_fin_timeout_ns) == (60 * S, None)             # case 33
    assert BSD.tcp_fin_timeout_ns == BSD.tcp_keepalive_intvl_ns * BSD.tcp_keepalive_probes      # TP_MAXIDLE
    assert [p.rst_after_fin_at_rcv_nxt_minus_1 for p in (LINUX, BSD, RFC9293)] == [True, False, False]      # case 20
    assert (RFC9293.paws_idle_ns, BSD.paws_idle_ns) == (24 * 86400 * S, 24 * 86400 * S)         # case 24
    assert LINUX.paws_idle_ns == (2**31 - 1) // 10**6 * S
    assert (LINUX.tcp_rfc1337, BSD.tcp_rfc1337, RFC9293.tcp_rfc1337) == (False, True, False)    # case 42
    assert (LINUX.orphan_retries, LINUX.replace(tcp_orphan_retries=3).orphan_retries) == (8, 3)     # case 39
    assert (RFC9293.iss_tick_ns, RFC9293.rto_initial_ns, RFC9293.rto_min_ns) == (4_000, S, S)


@pytest.mark.parametrize(("retries", "least_s"), [("tcp_syn_retries", 180), ("tcp_synack_retries", 180), ("tcp_retries2", 300)])
def test_rfc9293_gives_up_no_sooner_than_section_3_8_3_allows(retries, least_s):
    rto, total = RFC9293.rto_initial_ns, 0
    for _ in range(getattr(RFC9293, retries) + 1):
        total += rto
        rto = min(2 * rto, RFC9293.rto_max_ns)
    assert total >= least_s * S


def test_linux_syn_schedule_is_the_documented_one():
    """ip-sysctl tcp_syn_retries: the last SYN goes out after 67 s and the attempt ends after 131 s."""
    waits = [1] * LINUX.tcp_syn_linear_timeouts + [1 << n for n in range(LINUX.tcp_syn_retries + 1)]
    assert (sum(waits[:-1]), sum(waits)) == (67, 131)
    assert max(waits) * S <= LINUX.rto_max_ns


def test_zeek_is_linux_with_other_observer_rules():
    differing = [p for p in PARAMETERS.values() if getattr(ZEEK, p.attribute) != getattr(LINUX, p.attribute)]
    assert {p.group for p in differing} == {"observer"}
    assert {p.name for p in differing} == {
        "observer_timeouts", "observer_reuse", "observer_rst_in_window",
        "observer_duplicate_window", "ignore_checksums", "likely_server_ports"}
    assert dict(ZEEK.port_inactivity_timeouts_ns) == dict.fromkeys((21, 22, 23, 513), 3600 * S)
    assert len(ZEEK.likely_server_ports) == 49
    assert {22, 80, 443, 6669, 20000} <= set(ZEEK.likely_server_ports)


# The table itself

def test_every_field_is_a_parameter_and_every_parameter_a_field():
    assert list(Profile.__annotations__) == ["base", *(p.attribute for p in PARAMETERS.values())]
    assert list(vars(LINUX)) == list(Profile.__annotations__)
    assert list(PARAMETERS) == [p.name for p in PARAMETERS.values()]
    for p in PARAMETERS.values():
        assert p.attribute == (p.name + "_ns" if p.kind in ("time", "port_times") else p.name)


@pytest.mark.parametrize("p", PARAMETERS.values(), ids=lambda p: p.name)
def test_each_parameter_has_words_and_defaults_in_range(p):
    assert p.group in ("endpoint", "observer")
    assert len(p.source) >= 8
    assert p.meaning.endswith(".")
    assert set(p.defaults) == set(PROFILES)
    for value in p.defaults.values():
        assert p.check(value) == value
        assert p.convert(p.human(value)) == value
        assert p.text(value)


@pytest.mark.parametrize("p", [p for p in PARAMETERS.values() if p.kind in ("time", "count")], ids=lambda p: p.name)
def test_the_limits_are_allowed_and_one_beyond_is_not(p):
    assert p.check(p.low) == p.low
    assert p.check(p.high) == p.high
    for beyond in (p.low - 1, p.high + 1):
        with pytest.raises(ProfileError, match=rf"^{p.name} = .* it must be .*"):
            p.check(beyond)
    assert p.high <= 2**63 - 1


def test_a_choice_has_a_code_for_compiled_code():
    assert [PARAMETERS["time_wait_syn_reopens"].code(p.time_wait_syn_reopens) for p in (LINUX, BSD)] == [2, 1]
    assert PARAMETERS["tcp_tw_reuse"].code(2) == 2
    for p in PARAMETERS.values():
        if p.kind == "choice" and isinstance(p.choices[0], int):
            assert list(p.choices) == list(range(len(p.choices)))


# Times

@pytest.mark.parametrize(("value", "ns"), [
    (0, 0), (30, 30 * S), (0.2, 200_000_000), (1e-9, 1), ("200ms", 200_000_000), ("30s", 30 * S), ("2min", 120 * S),
    ("5d", 432_000 * S), ("1.5h", 5400 * S), ("4us", 4000), ("64ns", 64), (" 7 s ", 7 * S), ("0s", 0),
])
def test_to_ns(value, ns):
    assert to_ns(value) == ns
    assert type(to_ns(value)) is int


@pytest.mark.parametrize("value", [
    "", "30", "s", "-1s", "1 fortnight", "1s1s", "0.5ns", "1.0000000000000000000000000000001s", "١s", "1e3s", ".5s",
    -1, -0.1, float("nan"), float("inf"), True, None, [], 1j, b"1s", "9" * 5000 + "s",
], ids=repr)
def test_to_ns_refuses(value):
    with pytest.raises(ProfileError):
        to_ns(value)


@given(st.integers(0, 2**63 - 1))
def test_format_ns_is_read_back_exactly(ns):
    assert to_ns(format_ns(ns)) == ns


@pytest.mark.parametrize(("ns", "text"), [(0, "0s"), (75 * S, "75s"), (120 * S, "2min"), (1_500_000_000, "1500ms"), (1, "1ns")])
def test_format_ns(ns, text):
    assert format_ns(ns) == text


def test_numpy_numbers_are_numbers():
    numpy = pytest.importorskip("numpy", reason="numpy is an extra")
    assert to_ns(numpy.int32(30)) == 30 * S
    changed = LINUX.replace(tcp_syn_retries=numpy.uint8(3), msl=numpy.float64(0.5))
    assert type(changed.tcp_syn_retries) is type(changed.msl_ns) is int
    assert (changed.tcp_syn_retries, changed.msl_ns) == (3, S // 2)


# replace() and its errors

def test_replace_makes_another_and_leaves_the_first():
    mine = LINUX.replace(msl="30ms", tcp_tw_reuse=1, ip_local_port_range=[1024, 65535], tcp_fin_timeout=None)
    assert (mine.msl_ns, mine.tcp_tw_reuse, mine.ip_local_port_range) == (30_000_000, 1, (1024, 65535))
    assert mine.tcp_fin_timeout_ns is None
    assert mine.time_wait_ns == 60_000_000
    assert LINUX.msl_ns == 30 * S
    assert mine.replace(msl_ns=30 * S).msl_ns == 30 * S
    assert LINUX.replace() == LINUX


@pytest.mark.parametrize(("changes", "message"), [
    ({"tcp_tw_resue": 1}, "unknown parameter 'tcp_tw_resue'; nearest: tcp_tw_reuse"),
    ({"xyzzy": 1}, "unknown parameter 'xyzzy'"),
    ({"base": "bsd"}, "unknown parameter 'base'"),
    ({"msl": "3h"}, "msl = '3h': it must be a time, 1ms to 1h"),
    ({"msl": "soon"}, "'soon' is not a time.*it must be a time, 1ms to 1h"),
    ({"msl": -1}, "msl = -1: .*negative.*1ms to 1h"),
    ({"msl": None}, "msl = None: it must be a time, 1ms to 1h"),
    ({"msl_ns": 7200 * S}, "msl = '2h': it must be a time, 1ms to 1h"),
    ({"msl_ns": "30s"}, "msl = '30s': it must be"),
    ({"msl": 1, "msl_ns": S}, "msl is given twice"),
    ({"tcp_fin_timeout": "0s"}, r"tcp_fin_timeout = '0s': .*or None \(for ever\)"),
    ({"tcp_syn_retries": 128}, r"tcp_syn_retries = 128: it must be 0 to 127 \(retransmissions\)"),
    ({"tcp_syn_retries": 1.5}, "tcp_syn_retries = 1.5: it must be 0 to 127"),
    ({"tcp_syn_retries": True}, "tcp_syn_retries = True: it must be 0 to 127"),
    ({"tcp_tw_reuse": 3}, "tcp_tw_reuse = 3: it must be one of 0, 1, 2"),
    ({"tcp_sack": 2}, "tcp_sack = 2: it must be True or False"),
    ({"time_wait_syn_reopens": "always"}, "one of 'never', 'seq', 'seq_or_timestamp'"),
    ({"ip_local_port_range": (60999, 32768)}, "first <= last"),
    ({"ip_local_port_range": (1, 2, 3)}, "first <= last"),
    ({"ip_local_port_range": (0, 2)}, "each a port, 1 to 65535"),
    ({"ip_local_port_range": 5}, "first <= last"),
    ({"ip_local_reserved_ports": [70000]}, "each 1 to 65535"),
    ({"ip_local_reserved_ports": "80"}, "each 1 to 65535"),
    ({"port_inactivity_timeouts": {0: "1h"}}, "port_inactivity_timeouts = .*a port 1 to 65535"),
    ({"port_inactivity_timeouts": {22: "long"}}, "port_inactivity_timeouts = .*'long' is not a time"),
    ({"port_inactivity_timeouts": [22]}, "port_inactivity_timeouts = "),
    ({"rto_min": "61s", "rto_max": "60s"}, "rto_min = '61s': it must not be above rto_max, '1min'"),
    ({"rto_max": "500ms"}, "rto_initial = '1s': it must not be above rto_max, '500ms'"),
], ids=str)
def test_replace_refuses_and_says_what_and_which_range(changes, message):
    with pytest.raises(ProfileError, match=message):
        LINUX.replace(**changes)


def test_the_constructor_checks_too():
    with pytest.raises(ProfileError, match="msl = "):
        Profile(msl_ns=-1)
    with pytest.raises(ProfileError, match="unknown profile 'linxu'; there are linux, bsd, rfc9293, zeek"):
        Profile(base="linxu")
    assert Profile() == LINUX
    assert Profile(tcp_sack=1).tcp_sack is True


def test_case_45_recycle_warns_when_it_is_turned_on_and_only_then():
    with pytest.warns(UserWarning, match="tcp_tw_recycle drops connections of clients behind NAT") as caught:
        old = LINUX.replace(tcp_tw_recycle=True)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert old.replace(msl="1s").tcp_tw_recycle is True
        assert LINUX.replace(tcp_tw_recycle=False) == LINUX


def test_profile_by_name():
    assert [profile(name) for name in ("linux", "bsd", "rfc9293", "zeek")] == [LINUX, BSD, RFC9293, ZEEK]
    mine = LINUX.replace(msl=1)
    assert profile(mine) is mine
    for wrong in ("Linux", "", None, 3, []):
        with pytest.raises(ProfileError, match="unknown profile .*; there are linux, bsd, rfc9293, zeek"):  # noqa: RUF043
            profile(wrong)


def test_a_time_read_by_its_bare_name_says_where_it_is():
    with pytest.raises(AttributeError, match="msl is a time: read it as msl_ns, in nanoseconds"):
        _ = LINUX.msl
    with pytest.raises(AttributeError, match="no 'tcp_tw_resue'; nearest: tcp_tw_reuse"):
        _ = LINUX.tcp_tw_resue


# Values: equality, copies, text

MINE = BSD.replace(msl="1s", somaxconn=None, ip_local_reserved_ports=[9, 8, 8], port_inactivity_timeouts={22: "2h"})


@pytest.mark.parametrize("original", [*PROFILES.values(), MINE], ids=lambda p: repr(p)[:30])
@pytest.mark.parametrize("duplicate", [
    lambda p: pickle.loads(pickle.dumps(p)), copy.copy, copy.deepcopy,
    lambda p: Profile.from_dict(p.to_dict()), lambda p: Profile.from_dict(json.loads(json.dumps(p.to_dict()))),
    lambda p: eval(repr(p), {"profile": profile}), lambda p: profile(p.base).replace(**p.changes()),
], ids=["pickle", "copy", "deepcopy", "dict", "json", "repr", "changes"])
def test_a_copy_is_equal_and_hashes_alike(original, duplicate):
    again = duplicate(original)
    assert again == original
    assert hash(again) == hash(original)
    assert repr(again) == repr(original)
    assert again.base == original.base


def test_a_profile_is_frozen_and_the_built_in_ones_differ():
    for name in ("msl_ns", "base", "msl"):
        with pytest.raises(AttributeError, match=name):
            setattr(LINUX, name, 1)
        with pytest.raises(AttributeError, match=name):
            delattr(LINUX, name)
    assert LINUX.msl_ns == 30 * S
    assert len(set(PROFILES.values())) == 4
    with pytest.raises(TypeError):
        PARAMETERS["msl"] = None


def test_the_constructor_takes_stored_names_and_fills_in_from_the_base():
    assert Profile(base="bsd") == BSD
    assert Profile(base="bsd", msl_ns=S) == BSD.replace(msl=1)
    with pytest.raises(ProfileError, match="unknown parameter 'msl'; nearest: msl_ns"):
        Profile(msl=S)
    with pytest.raises(ProfileError, match="unknown profile 'bds'"):
        Profile(base="bds")
    with pytest.raises(ProfileError, match="rto_min = '200s': it must not be above rto_max"):
        Profile(rto_min_ns=200 * S)


def test_equality_is_of_values_not_of_origin():
    assert BSD.replace(**{p.attribute: getattr(LINUX, p.attribute) for p in PARAMETERS.values()}) == LINUX


def test_repr_shows_only_what_differs_from_the_base():
    assert repr(RFC9293) == "profile('rfc9293')"
    assert repr(LINUX.replace(tcp_tw_reuse=1, msl=0.5)) == "profile('linux').replace(msl='500ms', tcp_tw_reuse=1)"
    assert repr(LINUX.replace(msl=1).replace(msl=30)) == "profile('linux')"
    assert MINE.ip_local_reserved_ports == (8, 9)


def test_from_dict_checks_and_fills_in():
    assert Profile.from_dict({}) == LINUX
    assert Profile.from_dict({"base": "bsd"}) == BSD
    assert Profile.from_dict({"base": "rfc9293", "msl": "1s"}) == RFC9293.replace(msl=1)
    with pytest.raises(ProfileError, match="unknown parameter 'msl_s'"):
        Profile.from_dict({"msl_s": 3})
    with pytest.raises(ProfileError, match="unknown profile"):
        Profile.from_dict({"base": "plan9"})


def test_describe_shows_values_and_marks_what_was_changed():
    text = LINUX.replace(msl="1s", tcp_max_tw_buckets=5).describe()
    lines = {line.split("|")[2].strip(): [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()}
    assert lines["`msl`"][:4] == ["endpoint", "`msl`", "1s", "30s"]
    assert lines["`tcp_max_tw_buckets`"][2:4] == ["5", "no limit"]
    assert lines["`tcp_retries2`"][2:4] == ["15", ""]
    assert lines["`nf_conntrack_tcp_loose`"][:3] == ["observer", "`nf_conntrack_tcp_loose`", "on"]
    assert len(lines) == len(PARAMETERS) + 2


def test_the_table_has_a_row_of_equal_width_for_each_parameter():
    rows = [line for line in profiles.table().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(PARAMETERS)
    assert {row.count(" | ") for row in rows} == {7}


@pytest.mark.tree
def test_docs_profiles_md_is_not_stale():
    page = REPOSITORY / "docs" / "profiles.md"
    assert page.read_text(encoding="utf-8") == profiles.table(), "run: python -m fasttcp.profiles > docs/profiles.md"


def test_the_module_writes_the_page():
    done = subprocess.run([sys.executable, "-m", "fasttcp.profiles"], capture_output=True, text=True, check=True)
    assert done.stdout == profiles.table()
