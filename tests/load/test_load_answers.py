"""Where an answer ends, read from segments that cut it anywhere, overtake each other and come twice."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttcp.load import _testing

NOTHING, BYTES, LINE, CLOSE, HTTP = range(5)
MORE, DONE, WRONG = range(3)
BEGIN = 0xFFFFFFF0  # sequence numbers wrap within the answer

COUNTED = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH:  5 \r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# Whole answers, each with the first digit of its status.
WHOLE = {
    "counted": (COUNTED, 2),
    "nothing in it": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 4),
    "lines without CR": (b"HTTP/1.0 200\nContent-Length:2\n\nab", 2),
    "equal lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2 ,2\r\ncontent-length: 2\r\n\r\nab", 2),
    "no content": (b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n", 2),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: many\r\n\r\n", 3),
    "switched": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 1),
    "after 100": (b"HTTP/1.1 100 Continue\r\n\r\n" + COUNTED, 2),
    "after 103, 103, 100": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 9\r\n\r\n" * 2
        + b"HTTP/1.1 100 \r\n\r\n" + COUNTED, 2,
    ),
    "chunks": (CHUNKED + b"3\r\nabc\r\n00000a\r\n0123456789\r\n0\r\n\r\n", 2),
    "a chunk of hex in both cases, extended": (CHUNKED + b"1aC;a=b; c=\"d\" \r\n" + b"0\r\n\r\n" * 85 + b"xyz\r\n0\r\n\r\n", 2),
    "no chunk": (CHUNKED + b"0\r\n\r\n", 2),
    "a trailer section": (CHUNKED + b"1 \r\nx\r\n000;last\r\nChecksum: 5\r\nOther: 0\r\n\r\n", 2),
    "chunks without CR": (CHUNKED.replace(b"\r", b"") + b"2;x\nab\n0\nA: b\n\n", 2),
    "chunked wins": (
        b"HTTP/1.1 500 \r\nContent-Length:3\r\ntransfer-encoding:gzip,\tCHUNKED \r\nContent-Length:x\r\n\r\n1\r\nx\r\n0\r\n\r\n", 5,
    ),
    "a status that is none": (b"HTTP/1.1 999 Blocked\r\nContent-Length: 1\r\n\r\nx", 5),
}  # fmt: skip

# Bodies that the close ends.
OPEN = {
    "no length": b"HTTP/1.0 200 OK\r\n\r\nbody",
    "a coding that is not chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked, gzip\r\n\r\nbody",
    "chunked in two lines, the last one another": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x-chunked\r\n\r\nbody"
    ),
}

# Wrong with their last byte.
SENSELESS = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n", "no status": b"HTTP/1.1 OK\r\n", "two digits": b"HTTP/1.1 20 OK\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n", "zeros": b"HTTP/1.1 000 OK\r\n", "a blank line first": b"\r\n",
    "HTTP/2": b"HTTP/2 200 \r\n", "lower case": b"http/1.1 200 OK\r\n", "after 100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP 200\r\n",
    "a length that is a word": b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "a length below 0": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "a length with more behind it": b"HTTP/1.1 200 OK\r\nContent-Length: 5 bytes\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
    "half a list": b"HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\n",
    "two lengths in two lines": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a length beyond 64 bits": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r", "a size that is none": CHUNKED + b"5x",
    "a size below 0": CHUNKED + b"-",
    "a size of 2^60": CHUNKED + b"1" + b"0" * 15, "a chunk too long": CHUNKED + b"2\r\nabc",
    "a chunk too short": CHUNKED + b"5\r\nabc\r\n0", "no LF behind CR": CHUNKED + b"1\r\nx\r0",
    "nor at the end": CHUNKED + b"0\r\n\rx",
}  # fmt: skip


def fed(reader, pieces, begin=BEGIN):
    """What the reader says with the last of these pieces, which come in order; all others bring MORE."""
    said, seq = MORE, begin
    for piece in pieces:
        assert said == MORE
        said = reader.segment(seq & 0xFFFFFFFF, piece, len(piece))
        seq += len(piece)
    return said


@pytest.fixture(params=WHOLE)
def whole(request):
    return WHOLE[request.param]


def test_an_answer_in_one_segment_for_which_nothing_is_kept(whole):
    reader = _testing.AnswerReader(HTTP, begin=BEGIN)
    assert fed(reader, [whole[0]]) == DONE and not reader.keeps and reader.status == whole[1]


def test_an_answer_cut_anywhere(whole):
    data, status = whole
    for cut in range(1, len(data)):
        reader = _testing.AnswerReader(HTTP, line="^HTTP/1\\.[01] [2-5.9]|101", begin=BEGIN)
        assert fed(reader, [data[:cut], data[cut:]]) == DONE and not reader.keeps and reader.status == status
    for size in (1, 2, 7, 30):
        reader = _testing.AnswerReader(HTTP, begin=BEGIN)
        assert fed(reader, [data[at : at + size] for at in range(0, len(data), size)]) == DONE and not reader.keeps


def test_a_byte_beyond_the_answer_is_wrong_and_one_that_lacks_is_not_the_end(whole):
    data, _ = whole
    assert fed(_testing.AnswerReader(HTTP, begin=BEGIN), [data + b"\n"]) == WRONG
    short = _testing.AnswerReader(HTTP, begin=BEGIN)
    assert fed(short, [data[:-1]]) == MORE and short.closed() == WRONG


def test_the_next_answer_on_the_connection(whole):
    reader, seq = _testing.AnswerReader(HTTP, begin=BEGIN), BEGIN
    for data, status in (whole, (COUNTED, 2), whole):
        assert reader.status == 0
        assert fed(reader, [data[:20], data[20:]], seq) == DONE and reader.status == status
        seq += len(data)
        reader.begin()


def shuffled(reader, data, chance, most):
    """Pieces of up to `most` bytes out of order, repeated and overlapping, until the reader says something."""
    got, said, ready = [False] * len(data), MORE, 0
    while said == MORE:
        at = chance.randrange(ready, len(data)) if chance.random() < 0.7 else chance.randrange(len(data))
        piece = data[at : at + chance.randrange(1, most + 1)]
        got[at : at + len(piece)] = [True] * len(piece)
        before = ready
        while ready < len(data) and got[ready]:
            ready += 1
        said = reader.segment((BEGIN + at) & 0xFFFFFFFF, piece, ready - before)
    assert ready == len(data), "not before all of it was there"
    return said


def test_pieces_out_of_order_repeated_and_overlapping(whole):
    chance = random.Random(11)
    for most in (3, 12, 100) * 10:
        reader = _testing.AnswerReader(HTTP, begin=BEGIN)
        assert shuffled(reader, whole[0], chance, most) == DONE and not reader.keeps and reader.status == whole[1]


@pytest.mark.parametrize("data", OPEN.values(), ids=OPEN)
def test_a_body_without_a_length_ends_with_the_close(data):
    for cut in range(1, len(data)):
        reader = _testing.AnswerReader(HTTP, begin=BEGIN)
        assert fed(reader, [data[:cut], data[cut:]]) == MORE and reader.closed() == DONE and not reader.keeps


@pytest.mark.parametrize("data", SENSELESS.values(), ids=SENSELESS)
def test_what_makes_no_sense_is_wrong_as_soon_as_it_is_there(data):
    assert fed(_testing.AnswerReader(HTTP, begin=BEGIN), [data]) == WRONG
    assert fed(_testing.AnswerReader(HTTP, begin=BEGIN), [data[:-1], data[-1:]]) == WRONG


@pytest.mark.parametrize("data", [COUNTED[:-5], CHUNKED, b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 503 No\r\nContent-Length: x\r\n\r\n"])
def test_an_answer_to_head_has_no_body(data):
    for cut in range(1, len(data)):
        assert fed(_testing.AnswerReader(HTTP, bodiless=True, begin=BEGIN), [data[:cut], data[cut:]]) == DONE
    assert fed(_testing.AnswerReader(HTTP, bodiless=True, begin=BEGIN), [data + b"h"]) == WRONG


def test_the_line_that_is_expected_is_that_of_the_answer_and_its_status_counts_in_any_case():
    right = _testing.AnswerReader(HTTP, line="^HTTP/1.1 200")
    assert right.segment(0, WHOLE["after 100"][0], len(WHOLE["after 100"][0])) == DONE
    other = _testing.AnswerReader(HTTP, line="200")
    assert other.segment(0, b"HTTP/1.1 503 No\r\n", 17) == WRONG and other.status == 5


def test_behind_a_hole_only_what_will_be_looked_at_is_kept():
    counted = _testing.AnswerReader(HTTP)
    head = COUNTED[:-5]
    assert counted.segment(0, head, len(head)) == MORE
    assert counted.segment(len(head) + 2, b"llo", 0) == MORE and not counted.keeps
    assert counted.segment(len(head), b"he", 5) == DONE
    chunked, at = _testing.AnswerReader(HTTP), len(CHUNKED) + 5
    assert chunked.segment(0, CHUNKED + b"7d0\r\n", at) == MORE
    assert chunked.segment(at + 100, bytes(1900), 0) == MORE and not chunked.keeps, "inside the chunk"
    assert chunked.segment(at + 1990, bytes(10) + b"\r\n0\r", 0) == MORE and chunked.keeps, "the end of the chunk"
    assert chunked.segment(at, bytes(100), 2004) == MORE and not chunked.keeps, "it was read"
    assert chunked.segment(at + 2004, b"\n\r\n", 3) == DONE


def test_what_waits_behind_a_hole_has_a_limit():
    """1 MiB, each byte once; what is beyond it is forgotten and the answer wrong."""
    chunk = b"4f0\r\n" + bytes(0x4F0) + b"\r\n"
    for many, said in (((1 << 20) // len(chunk) - 1, MORE), ((1 << 20) // len(chunk) + 1, WRONG)):
        reader = _testing.AnswerReader(HTTP)
        for _ in range(2):
            for i in range(1, many + 1):
                assert reader.segment(i * len(chunk), chunk, 0) == MORE
        whole = CHUNKED + b"%x\r\n" % (len(chunk) - len(CHUNKED) - 7)
        whole += bytes(len(chunk) - len(whole) - 2) + b"\r\n"
        assert reader.segment(0, whole, (many + 1) * len(chunk)) == said


def test_what_has_been_read_gives_its_room_back():
    reader, chunk = _testing.AnswerReader(HTTP), b"200\r\n" + bytes(512) + b"\r\n"
    at = len(CHUNKED)
    assert reader.segment(0, CHUNKED, at) == reader.segment(at + len(chunk), chunk, 0) == MORE
    while at < 3 << 20:  # there are always two holes
        assert reader.segment(at + 3 * len(chunk), chunk, 0) == MORE
        assert reader.segment(at, chunk, 2 * len(chunk)) == MORE and reader.keeps
        at += 2 * len(chunk)


def test_a_head_has_a_limit_and_a_body_behind_it_has_none():
    endless, at, said = _testing.AnswerReader(HTTP), len(CHUNKED) - 2, MORE
    assert endless.segment(0, CHUNKED[:-2], at) == MORE
    while said == MORE and at < 1 << 20:
        said = endless.segment(at, b"x" * 1398 + b"\r\n", 1400)
        at += 1400
    assert said == WRONG and at <= 80_000, "a head without an end is not kept for ever"
    large = _testing.AnswerReader(HTTP)
    head = b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200 + b"\r\nContent-Length: 65500\r\n\r\n"
    assert fed(large, [head[:200], head[200:] + bytes(65_400), bytes(100)], 0) == DONE, "the segments of a device are large"
    line = _testing.AnswerReader(HTTP)
    assert line.segment(0, b"HTTP/1.1 200 " + b"x" * 1100, 1113) == WRONG, "a first line of more than 1,023 bytes"


def test_other_ends():
    exact = _testing.AnswerReader(BYTES, nbytes=6)
    assert exact.segment(0, b"123", 3) == MORE and exact.segment(3, b"456", 3) == DONE
    assert _testing.AnswerReader(BYTES, nbytes=4).segment(0, b"12345", 5) == WRONG
    line = _testing.AnswerReader(LINE, line="^\\+OK")
    assert line.segment(0, b"+O", 2) == MORE and line.segment(2, b"K ready\r\n", 9) == DONE
    close = _testing.AnswerReader(CLOSE)
    assert close.segment(0, b"anything", 8) == MORE and close.closed() == DONE
    again = _testing.AnswerReader(BYTES, nbytes=3)
    assert again.segment(0, b"abc", 3) == DONE
    again.begin()
    assert again.segment(3, b"ab", 2) == MORE and again.segment(5, b"c", 1) == DONE


# ---- against a naive reader


def naive_chunks(data):
    while True:
        size = re.match(rb"([0-9a-fA-F]+)([\r; \t][^\n]*)?\n", data)
        if not size:
            return MORE if re.fullmatch(rb"[0-9a-fA-F]*|[0-9a-fA-F]+[\r; \t][^\n]*", data) else WRONG
        data = data[size.end() :]
        if int(size[1], 16) == 0:
            break
        if len(data) < int(size[1], 16):
            return MORE
        data = data[int(size[1], 16) :]
        if data in (b"", b"\r"):
            return MORE
        if not (end := re.match(rb"\r?\n", data)):
            return WRONG
        data = data[end.end() :]
    data = re.sub(rb"\A([^\r\n][^\n]*\n)*", b"", data)  # the trailer section
    if end := re.match(rb"\r?\n", data):
        return DONE if end.end() == len(data) else WRONG
    return WRONG if re.match(rb"\r[^\n]", data) else MORE


def naive(data):
    """What is known of an answer when this has come of it, read all at once."""
    while True:
        line, lf, _ = data.partition(b"\n")
        if not lf:
            return MORE
        status = re.fullmatch(rb"HTTP/\d\.\d ([1-9]\d\d)( .*)?", line.removesuffix(b"\r"), re.DOTALL)
        if not status:
            return WRONG
        head, end, body = re.fullmatch(rb"(.*?\n)(\r?\n)?(.*)", data, re.DOTALL).groups()
        while end is None and body.partition(b"\n")[1]:
            field, _, rest = body.partition(b"\n")
            head, (end, body) = head + field + b"\n", re.fullmatch(rb"(\r?\n)?(.*)", rest, re.DOTALL).groups()
        if end is None:
            return MORE
        if not status[1].startswith(b"1") or status[1] == b"101":
            break
        data = body
    fields = [line.removesuffix(b"\r").partition(b":") for line in head.split(b"\n")[1:-1]]
    lengths = [value for name, colon, value in fields if colon and name.lower() == b"content-length"]
    codings = [value for name, colon, value in fields if colon and name.lower() == b"transfer-encoding"]
    if status[1] in (b"101", b"204", b"304"):
        return WRONG if body else DONE
    if codings:
        return naive_chunks(body) if re.search(rb"(^|[ \t,])chunked[ \t]*\Z", codings[-1], re.I | re.DOTALL) else MORE
    numbers = [each.strip(b" \t") for each in b",".join(lengths).split(b",")]
    if not lengths:
        return MORE
    if not all(re.fullmatch(rb"\d+", each) for each in numbers) or len(set(map(int, numbers))) != 1:
        return WRONG
    return MORE if len(body) < int(numbers[0]) else DONE if len(body) == int(numbers[0]) else WRONG


answers = st.sampled_from([data for data, _ in WHOLE.values()] + list(OPEN.values()))
scraps = st.sampled_from([b"\r\n", b"\n", b"\r", b"0", b"5", b"f", b";", b":", b",", b" ", b"0\r\n", b"\r\n\r\n", b"1\r\na\r\n"])
changes = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), scraps), max_size=3)


@settings(deadline=None)
@given(answers, changes, st.lists(st.integers(1, 40), max_size=20))
def test_any_bytes_are_read_as_a_naive_reader_reads_them(data, changed, sizes):
    """Answers, with a few bytes taken away and a few put in, in segments of any size."""
    for at, gone, scrap in changed:
        at %= len(data)
        data = data[:at] + scrap + data[at + gone :]
    reader, at = _testing.AnswerReader(HTTP, begin=BEGIN), 0
    for size in [*sizes, len(data)]:
        piece = data[at : at + size]
        said = reader.segment((BEGIN + at) & 0xFFFFFFFF, piece, len(piece)) if piece else MORE
        at += len(piece)
        assert said == naive(data[:at])
        if said != MORE:
            break


@settings(deadline=None)
@given(st.lists(st.binary(max_size=60)), st.sampled_from([b"", b";x=y"]), st.sampled_from([b"", b"A: b\r\n"]), st.integers())
def test_chunks_of_any_size_out_of_order(chunks, extension, trailers, seed):
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(each), extension, each) for each in chunks if each)
    data = CHUNKED + body + b"0\r\n" + trailers + b"\r\n"
    assert naive(data) == DONE
    reader = _testing.AnswerReader(HTTP, begin=BEGIN)
    assert shuffled(reader, data, random.Random(seed), 80) == DONE and not reader.keeps
