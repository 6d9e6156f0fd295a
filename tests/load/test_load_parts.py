"""The parts of the load tester that need no network: histograms, the calendar, what is sent again, packets, words."""

import argparse
import random
import re
import struct
import sys

import pytest

from fasttcp import SegmentBatch
from fasttcp.cli import load
from fasttcp.load import _testing
from fasttcp.load.histogram import Histogram
from fasttcp.load.report import condition
from fasttcp.load.scenario import Scenario, Stage, count, draw, is_safe, per_second, seconds, stage
from fasttcp.load.toml import COMMAND_LINE, read_scenario

MS = 1_000_000


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


# ---- histograms


def test_percentiles_are_within_one_percent_of_the_sorted_values():
    chance = random.Random(3)
    values = sorted(int(chance.lognormvariate(11, 3)) for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert (histogram.count, histogram.least, histogram.most) == (5000, values[0], values[-1])
    assert histogram.mean == pytest.approx(sum(values) / 5000)
    for share in (0, 1, 50, 90, 99, 99.9, 99.99, 100):
        exact = values[max(0, -(-round(5000 * share * 1000) // 100_000) - 1)]
        assert exact <= histogram.percentile(share) <= exact * 1.008 + 1


def test_bins_cover_everything_from_0_to_beyond_the_last():
    histogram = Histogram()
    for value in (-5, 0, 1, 127, 128, 255, 256, 257, 2**42 - 1, 2**42, 2**62):
        histogram.add(value)
    assert [n for _, n in histogram.bins()] == [2, 1, 1, 1, 1, 2, 3]
    assert histogram.least == 0 and histogram.most == 2**62
    with pytest.raises(ValueError, match="percentage"):
        histogram.percentile(101)


def test_since_and_sum_of_histograms():
    whole, before = Histogram(), Histogram()
    for value in (10, 2000, 70_000):
        whole.add(value)
    before += whole
    for value in (10, 5_000_000):
        whole.add(value)
    later = whole.since(before)
    assert later.count == 2 and later.percentile(50) == 10 and later.percentile(100) == 5_000_000
    assert Histogram().percentile(50) is None and Histogram().mean is None


# ---- the calendar


def test_calendar_against_a_sorted_list():
    chance, now, handle = random.Random(5), 10**18, 0
    calendar, waiting = _testing.Calendar(now), []
    for _ in range(3000):
        for _ in range(chance.randrange(3)):
            when = now + chance.choice((0, 1, MS, 300 * MS, 9_000 * MS, 30_000 * MS)) + chance.randrange(MS)
            handle += 1
            assert calendar.add(handle, when) == 0
            waiting.append((when, handle))
        now += chance.randrange(20 * MS)
        got = calendar.pop(now)
        due = {each for when, each in waiting if when <= now - (2 << 20)}
        early = {each for when, each in waiting if when > now}
        assert due <= set(got), "what is two ticks over was handed out"
        assert not early & set(got), "nothing came early"
        waiting = [entry for entry in waiting if entry[1] not in set(got)]
        assert len(calendar) == len(waiting)
    assert sorted(calendar.pop(now + 100_000 * MS)) == sorted(each for _, each in waiting)


# ---- what a server sends again, and sends back


@pytest.mark.parametrize("length", [1, 3, 18, 1 << 20, (1 << 24) - 1])
def test_a_byte_of_a_message_sent_again_and_again_is_found_beyond_two_to_the_32_too(length):
    chance = random.Random(length)
    begin = una = chance.randrange(1 << 32)  # these grow; what is on the wire wraps
    base = begin
    for _ in range(400):
        una += chance.choice((0, 1, chance.randrange(1 << 16), chance.randrange(1 << 30)))
        for seq in (una, una + chance.randrange(1 << 30), max(begin, una - chance.randrange(1, 1 << 16))):
            at, base = _testing.offset(base, una & 0xFFFFFFFF, seq & 0xFFFFFFFF, length)
            assert at == (seq - begin) % length
    assert una - begin > 1 << 34


def test_before_any_data_is_acknowledged_the_message_begins_behind_the_syn():
    assert _testing.offset(0, 0xFFFFFFFF, 0, 7) == (0, 0) and _testing.offset(0, 0xFFFFFFFF, 9, 7) == (2, 0)


@pytest.mark.parametrize("waiting", [0, 1, 1000, 100_000])
def test_an_echo_keeps_all_that_is_not_acknowledged_and_moves_no_byte_twice(waiting):
    chance = random.Random(waiting)
    una = sent = begin = 2**32 - 5000  # these grow; what is on the wire wraps
    echo, tail, moved = _testing.Echo(begin), b"", 0
    for _ in range(3000):
        una = max(una, sent - chance.randrange(waiting + 1))
        base, data = echo.kept[0], chance.randbytes(chance.randrange(1, 1500))
        echo.keep(una & 0xFFFFFFFF, data)
        sent += len(data)
        tail = (tail + data)[-2 * waiting - 5000 :]
        after, kept = echo.kept
        if after != base:
            moved += len(kept) - len(data)
        gone = echo.acknowledged(una & 0xFFFFFFFF)
        assert (after + gone) & 0xFFFFFFFF == una & 0xFFFFFFFF and len(kept) - gone == sent - una
        assert kept == tail[len(tail) - len(kept) :]
        assert gone == 0 or gone < (len(kept) - len(data)) / 2, "of what was there"
    assert moved <= una - begin
    assert echo.acknowledged((sent + 1) & 0xFFFFFFFF) == 0, "a FIN's ACK"


# ---- packets


OPTIONS = [
    {}, {"mss": 1460}, {"tsval": 5, "tsecr": 6}, {"mss": 1460, "wscale": 7}, {"mss": 1460, "sack_permitted": True},
    {"mss": 1460, "wscale": 7, "sack_permitted": True}, {"mss": 1440, "wscale": 0, "sack_permitted": True, "tsval": 1, "tsecr": 0},
    {"sack_permitted": True}, {"mss": 9, "tsval": 2**32 - 1, "tsecr": 2**31},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=lambda given: "+".join(given) or "none")
@pytest.mark.parametrize("ends", [("10.0.0.1", "198.18.255.2"), ("2001:2::1", "fd00::7")])
@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5])
def test_a_segment_comes_back_as_it_was(options, ends, data):
    batch = SegmentBatch(1)
    batch.append(
        time_ns=7,
        src=ends[0],
        sport=40000,
        dst=ends[1],
        dport=443,
        flags="PSH ACK",
        seq=2**32 - 1,
        ack=77,
        window=65535,
        **options,
    )
    packet = _testing.encode(batch, data)
    (sent,) = batch
    back, payload = _testing.read(packet)
    (got,) = back
    assert payload == data and got._replace(info=0, ip_bytes=0) == sent._replace(info=0, ip_bytes=0, payload=len(data))
    assert got.ip_bytes == len(packet) and got.info & 2 == 0
    header = 20 if packet[0] >> 4 == 4 else 40
    if header == 20:
        assert checksum(packet[:20]) == 0xFFFF
        pseudo = packet[12:20] + struct.pack("!HH", 6, len(packet) - 20)
    else:
        pseudo = packet[8:40] + struct.pack("!II", len(packet) - 40, 6)
    assert checksum(pseudo + packet[header:]) == 0xFFFF
    partial = _testing.encode(batch, data, partial=True)
    assert struct.unpack("!H", partial[header + 16 : header + 18])[0] in (checksum(pseudo), 0)
    if data:
        damaged = bytearray(packet)
        damaged[-1] ^= 1
        assert _testing.read(bytes(damaged))[0][0].info & 2, "a wrong checksum is seen"
        assert not _testing.read(bytes(damaged), validate=False)[0][0].info & 2


def test_packets_of_random_bytes_are_refused_or_read_within_their_length():
    chance = random.Random(1)
    batch = SegmentBatch(1)
    batch.append(time_ns=7, src="10.0.0.1", sport=1, dst="10.0.0.2", dport=2, flags="ACK", seq=1, ack=1, window=1)
    packet = _testing.encode(batch, b"hello")
    for _ in range(20_000):
        broken = bytearray(packet[: chance.randrange(len(packet) + 1)])
        for _ in range(chance.randrange(4)):
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
        found = _testing.read(bytes(broken), validate=False)
        assert found is None or found[0][0].ip_bytes <= len(broken)


# ---- words


def test_words_are_read():
    assert (count("10k"), count("1M"), count(7)) == (10_000, 1_000_000, 7)
    assert (per_second("50k/s"), per_second("0.5/s"), per_second(3)) == (50_000, 0.5, 3)
    assert (seconds("200ms"), seconds("2m"), seconds(30)) == (0.2, 120, 30)
    assert draw("5s") == ("fixed", 5e9, 0) and draw("pareto:1s:2.5") == ("pareto", 1e9, 2.5)
    assert draw("exponential:10ms") == ("exponential", 1e7, 0) and draw("forever")[0] == "forever"
    assert stage("30s:50k/s").rate == 50_000 and stage("2m:hold").rate == 0 and stage("2m:hold").hold is None
    held = stage("1m:hold=100k,churn=5k/s")
    assert (held.seconds, held.hold, held.churn) == (60, 100_000, 5_000)
    assert stage({"for": "1s", "hold": 5}).hold == 5


@pytest.mark.parametrize(
    ("read", "word"),
    [(count, "1.5"), (count, "-1"), (per_second, "fast"), (seconds, "5 days"), (draw, "normal:5s"), (stage, "50k/s"),
     (stage, "5s:what=3"), (stage, "5s:hold=5,hold=6"), (stage, "5s:10/s,20/s"), (draw, "5s:3"), (draw, "exponential:1s:3"),
     (draw, "forever:2"), (draw, "pareto:1s:1"), (draw, "lognormal:1s:0"), (condition, "nosuch > 5"), (condition, "opened < 5ms"),
     (condition, "connect_p99 > 5"), (condition, "connect_p99 > 50%"), (condition, "ok > 50%"),
     (stage, {"rate": 5}), (condition, "p99 too high"), (condition, "x > 5 kg")],
)  # fmt: skip
def test_other_words_are_refused_by_name(read, word):
    with pytest.raises(ValueError, match=re.escape(repr(word)) if isinstance(word, str) else "for"):
        read(word)


def test_conditions_know_units():
    assert condition("connect_p99 > 5ms").value == 5000
    assert condition("ok_share<99.9%").value == pytest.approx(0.999)
    assert condition("opened > 5k").value == 5000 and condition("first_byte_mean >= 2s").value == 2_000_000
    with pytest.raises(ValueError, match="is errors meant"):
        condition("errrors > 0")


def test_requests_have_their_escapes_read():
    assert load.text_bytes(r"a\r\n\t\\ é") == "a\r\n\t\\ é".encode()
    for text in ("a\\", r"\x41", r"\q"):
        with pytest.raises(ValueError, match=re.escape(repr(text))):
            load.text_bytes(text)


@pytest.mark.parametrize(
    ("given", "says"),
    [({}, "nothing would be opened"), ({"rate": 5, "churn": 1}, "churn replaces"),
     ({"hold": 5, "expect": "all"}, "expect is 'all'"),
     ({"hold": 5, "expect": "bytes"}, "give their number"), ({"hold": 5, "expect_line": "x"}, "needs an answer"),
     ({"hold": 5, "duration": 0}, "duration"), ({"hold": 5, "close": "rst", "half_close": True}, "half_close"),
     ({"stage": (stage("5s:hold=5"),), "rate": 5.0}, "no hold, churn, rate or duration beside".replace(" or ", ", ")),
     ({"stage": (stage("5s:hold=5"),), "duration": 5.0}, "beside"), ({"stage": (stage("0s:hold=5"),)}, "duration is 0 s"),
     ({"hold": 5, "duration": 1e8}, "at most"), ({"hold": 5, "timeout": 1e9}, "timeout"), ({"hold": 5, "body": 1 << 33}, "body"),
     ({"hold": 5, "think": draw("forever")}, "think is forever"), ({"hold": 5, "arrivals": "poisson"}, "arrivals"),
     ({"hold": 5, "max_connections": 1 << 40}, "max_connections"), ({"hold": 5, "server_processes": 100_000}, "server_processes")],
)  # fmt: skip
def test_scenarios_that_do_not_fit_together_say_so(given, says):
    with pytest.raises(ValueError, match=says):
        Scenario(**given)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "198.19.255.1", "::1", "fd00::1"]
)
def test_addresses_that_may_be_tested(address):
    assert is_safe(address)
    assert Scenario(hold=1, target=(address, 80)).target == (address, 80)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "198.20.0.1", "192.0.2.1", "169.254.1.1", "2001:db8::1", "2a00::1"]
)
def test_other_addresses_need_the_flag(address):
    with pytest.raises(ValueError, match="--i-may-test-this-target"):
        Scenario(hold=1, target=(address, 80))
    assert Scenario(hold=1, target=(address, 80), may_test_this_target=True)


@pytest.mark.parametrize(
    ("network", "what"),
    [
        ("224.0.0.0/24", "multicast"), ("240.1.0.0/16", "reserved"), ("255.255.255.255/32", "broadcast"),
        ("127.0.0.0/8", "loopback"), ("0.0.0.0/8", "this network"),
        ("0.0.0.0/0", "this network"), ("128.0.0.0/1", "multicast"), ("::/128", "unspecified"),
        ("::1/128", "loopback"), ("::/0", "unspecified"), ("ff02::/64", "multicast"),
    ],
)  # fmt: skip
def test_sources_that_no_host_can_have(network, what):
    with pytest.raises(ValueError, match=rf"^source {network} has addresses of .*{what}.*, which no host can have"):
        Scenario(hold=1, source=(network,))


def test_sources_are_networks():
    assert Scenario(hold=1, source=("198.19.0.7/24", "10.0.0.0/8", "2001:2::/48")).source[0] == "198.19.0.7/24"
    with pytest.raises(ValueError, match=r"^source 'here' is no network"):
        Scenario(hold=1, source=("here",))


# ---- scenario files


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('source = "198.18.64.1/24"', "source", ("198.18.64.0/24",)),
        ('source = ["198.19.0.0/24", "198.19.1.0/24"]', "source", ("198.19.0.0/24", "198.19.1.0/24")),
        ('stage = "1s:hold=5"', "stage", (Stage(1, hold=5),)), ('stage = ["1s:hold=5"]', "stage", (Stage(1, hold=5),)),
        ('stage = {for = "1s", hold = 5}', "stage", (Stage(1, hold=5),)), ("ports = [1024, 65535]", "ports", (1024, 65535)),
        ('ports = "1024-65535"', "ports", (1024, 65535)), ('set = "msl=15s"', "set", ("msl=15s",)),
        ('set = ["msl=15s", "tcp_tw_reuse=1"]', "set", ("msl=15s", "tcp_tw_reuse=1")),
        ('set = {msl = "15s", tcp_timestamps = false}', "set", ("msl=15s", "tcp_timestamps=off")),
        ("ipv6 = true", "ipv6", True), ("half-close = false", "half_close", False), ("seed = 7", "seed", 7),
        ('hold = "1k"', "hold", 1000), ('request = "a\\r\\n"', "request", b"a\r\n"), ('expect = "17"', "expect_bytes", 17),
        ('expect = "http"', "expect", "http"),
    ],
)  # fmt: skip
def test_a_scenario_file_has_the_types_of_toml(tmp_path, text, field, value):
    file = tmp_path / "s.toml"
    file.write_text(text)
    found = read_scenario(str(file))[field]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('ipv6 = "no"', "ipv6: 'no' is neither true nor false"), ('half_close = "false"', "half_close: 'false' is neither"),
        ("ipv6 = 1", "ipv6: 1 is neither"), ("seed = 1.7", "seed: 1.7 is no whole number"), ("seed = true", "seed: True is no"),
        ("hold = 10.0", "hold: 10.0 is no whole number"), ("threads = true", "threads: True is no whole number"),
        ("rate = true", "rate: True is no rate"), ("life = [1]", r"life: \[1\] is no distribution"),
        ('ports = "1024"', "ports: '1024' is no range"), ("ports = [1024, 65535, 5]", r"ports: \[1024, 65535, 5\] is no range"),
        ("ports = [1024.5, 2000]", "ports: 1024.5 is no whole"), ("ports = [9, 5]", "ports: '9-5' is no range of ports"),
        ("ports = 1024", "ports: 1024 is no range"), ("request = 5", "request: 5 is no text"),
        ("close = 5", "close: 5 is none of fin"),
        ('arrivals = "daily"', "arrivals: 'daily' is none of constant, poisson"),
        ('profile = "os2"', "profile: unknown profile 'os2'"),
        ("source = 5", "source: 5 is no text"), ('source = ["here"]', "source: 'here' is no network"),
        ("stage = 5", "stage: 5 is no stage"), ("set = 5", "set: 5 is no text"), ('set = "msl"', "set: 'msl' is no parameter"),
        ("http = 1", "http: 1 is neither"), ("hold =", "Invalid value"),
        *((f"{name} = 1", f"{name}: only the command line can say this") for name in COMMAND_LINE),
    ],
)  # fmt: skip
def test_other_types_are_refused_with_file_and_field(tmp_path, text, says):
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(file))}: {says}"):
        read_scenario(str(file))


def test_a_scenario_file_in_another_encoding_is_named(tmp_path):
    file = tmp_path / "s.toml"
    file.write_bytes('expect_line = "é"'.encode("latin-1"))
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: byte 15 is no UTF-8"):
        read_scenario(str(file))


def test_http_of_a_scenario_file_is_that_of_the_command_line(tmp_path):
    parser = argparse.ArgumentParser()
    load.add_parser(parser.add_subparsers())
    file = tmp_path / "s.toml"
    file.write_text("hold = 5\nhttp = true")
    by_file, by_option = (["load", "--scenario", str(file)], ["load", "--hold", "5", "--http"])
    assert load._scenario(parser.parse_args(by_file)) == load._scenario(parser.parse_args(by_option))
    file.write_text('hold = 5\nhttp = true\nrequest = "x"')
    own = load._scenario(parser.parse_args(by_file))
    assert (own.request, own.expect) == (b"x", "http")
    assert load._scenario(parser.parse_args([*by_file, "--http"])).request.startswith(b"GET / ")
    file.write_text("hold = 5\nhttp = false")
    assert load._scenario(parser.parse_args(by_file)).request == b""


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        (["--http"], b"GET / HTTP/1.1\r\nHost: fasttcp\r\n\r\n"),
        (["127.0.0.1:8080", "--http"], b"GET / HTTP/1.1\r\nHost: fasttcp\r\n\r\n"),
        (["127.0.0.1:8080"], b""),
        (["http://127.0.0.1"], b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
        (["http://127.0.0.1:8080/a?b=c/{n}"], b"GET /a?b=c/{n} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"),
        (["http://[::1]/"], b"GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n"),
        (["http://[::1]:81/x"], b"GET /x HTTP/1.1\r\nHost: [::1]:81\r\n\r\n"),
        (["--http", "--close", "peer"], b"GET / HTTP/1.1\r\nHost: fasttcp\r\nConnection: close\r\n\r\n"),
        (["--http", "--close", "peer", "--requests", "2"], b"GET / HTTP/1.1\r\nHost: fasttcp\r\n\r\n"),
        (["http://127.0.0.1/a", "--request", "x", "--expect", "line"], b"x"),
    ],
)
def test_what_a_url_and_http_ask_for(words, request_):
    parser = argparse.ArgumentParser()
    load.add_parser(parser.add_subparsers())
    found = load._scenario(parser.parse_args(["load", "--hold", "5", *words]))
    assert found.request == request_
    assert found.expect == ("nothing" if not request_ else "line" if request_ == b"x" else "http")
    if words[0].startswith("http://[::1]"):
        assert found.target == ("::1", 81 if ":81" in words[0] else 80)


@pytest.mark.parametrize("text", ["https://127.0.0.1/", "ftp://127.0.0.1", "127.0.0.1:80/a", "http://127.0.0.1/a b", "http://127.0.0.1/\u00e9",
                                  "http://", "http://127.0.0.1:0/", "[::1:80", "::1]:80",
                                  "127.0.0.1", ":80:", "http://127.0.0.1:x/"])  # fmt: skip
def test_what_is_no_target(text):
    with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(text))):
        load._target(text)


# Checksums


def test_three_forms_of_the_sum_agree():
    chance = random.Random(3)
    for n in [*range(1, 260), 1500, 65535, 131072]:
        for data in (chance.randbytes(n + 64), b"\xff" * (n + 64), bytes(n) + b"\xff" * 64):
            words = data[:n] + bytes(n % 2)
            expected = sum(int.from_bytes(words[at : at + 2], sys.byteorder) for at in range(0, len(words), 2)) % 0xFFFF
            assert _testing.checksums(data, n) == (expected,) * 3
