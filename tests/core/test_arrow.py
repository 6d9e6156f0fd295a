"""Arrow streams of tables and records: read by hand through ctypes, so that no library is needed, and by those that
exist."""

import ctypes
import gc
import ipaddress
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from table_traffic import ISN_A, ISN_B, B, S, batch_of, clients, closing, feed, observer, opening, send

from fasttcp import Event, State

# ---- the C structs, for reading by hand ------------------------------------------------------------------------------


class Schema(ctypes.Structure):
    pass


class Array(ctypes.Structure):
    pass


class Stream(ctypes.Structure):
    pass


Schema._fields_ = [
    ("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p), ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("children", ctypes.POINTER(ctypes.POINTER(Schema))), ("dictionary",
    ctypes.POINTER(Schema)),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(Schema))), ("private_data", ctypes.c_void_p),
]  # fmt: skip
Array._fields_ = [
    ("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64), ("n_buffers",
    ctypes.c_int64),
    ("n_children", ctypes.c_int64), ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))), ("dictionary", ctypes.POINTER(Array)),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(Array))), ("private_data", ctypes.c_void_p),
]  # fmt: skip
Stream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Schema))),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Array))),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(Stream))),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(Stream))), ("private_data", ctypes.c_void_p),
]  # fmt: skip

pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
pointer_in.restype, pointer_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def struct_in(capsule, name, kind):
    return kind.from_address(pointer_in(capsule, name))


def release(struct):
    struct.release(ctypes.byref(struct))
    assert not struct.release, "a released struct says so"


WIDTHS = {b"C": "u1", b"S": "u2", b"I": "u4", b"L": "u8", b"l": "i8", b"tsn:": "i8", b"c": "i1"}


def buffer(array, i, dtype, count):
    address = array.buffers[i]
    assert address is None or address % 64 == 0
    if not address:
        return None
    return (
        np.ctypeslib.as_array((ctypes.c_char * (np.dtype(dtype).itemsize * count)).from_address(address))
        .view(dtype)
        .copy()
    )


def texts(array):
    offsets = buffer(array, 1, "i4", array.length + 1)
    data = bytes(buffer(array, 2, "u1", offsets[-1])) if offsets[-1] else b""
    return [data[start:end].decode() for start, end in pairwise(offsets)]


def column(schema, array):
    assert (array.offset, array.n_children, array.length >= 0) == (0, 0, True)
    if schema.format == b"u":
        assert array.n_buffers == 3
        return texts(array)
    assert array.n_buffers == 2
    values = buffer(array, 1, WIDTHS[schema.format], array.length).tolist()
    if schema.dictionary:
        names = texts(array.dictionary.contents)
        values = [names[i] for i in values]
    valid = buffer(array, 0, "u1", (array.length + 7) // 8)
    if valid is not None:
        assert schema.flags & 2, "only a nullable column has nulls"
        bits = np.unpackbits(valid, bitorder="little")[: array.length]
        assert array.null_count == (bits == 0).sum() > 0
        values = [value if bit else None for value, bit in zip(values, bits, strict=True)]
    else:
        assert array.null_count == 0
    return values


def read(source):
    """(columns {name: values}, formats {name: format}, sizes of the batches)"""
    capsule = source.__arrow_c_stream__()
    stream = struct_in(capsule, b"arrow_array_stream", Stream)
    schema = Schema()
    assert stream.get_schema(ctypes.byref(stream), ctypes.byref(schema)) == 0
    assert (schema.format, schema.n_children > 0) == (b"+s", True)
    fields = [schema.children[i].contents for i in range(schema.n_children)]
    columns = {field.name.decode(): [] for field in fields}
    formats = {field.name.decode(): field.format.decode() for field in fields}
    sizes = []
    while True:
        array = Array()
        assert stream.get_next(ctypes.byref(stream), ctypes.byref(array)) == 0
        if not array.release:
            break
        assert (array.n_buffers, array.n_children, array.null_count) == (1, len(fields), 0)
        sizes.append(array.length)
        for i, field in enumerate(fields):
            assert array.children[i].contents.length == array.length
            columns[field.name.decode()] += column(field, array.children[i].contents)
        release(array)
    release(schema)
    release(stream)
    return columns, formats, sizes


def busy():
    table = observer(512, keep_ended=True)
    feed(table, *(s for a in clients(100) for s in opening(5 * S, a)))
    feed(
        table,
        *opening(5 * S, ("2001:db8::1", 7), ("fe80::1:0:0:1", 80)),
        send(6 * S, B, clients(100)[50], "ACK", ISN_B + 1, ISN_A + 1, 9),
    )
    feed(table, *(s for a in clients(30) for s in closing(7 * S, a)))
    return table


def as_arrow(record):
    """What a record must look like in a frame."""
    found = dict(record)
    for name in found:
        if name.endswith("_state") or name.startswith("state_"):
            found[name] = State(found[name]).name
    if "ended_by" in found:
        live = found["ended_by"] == 255
        found["ended_by"] = None if live else Event(found["ended_by"]).name
        found["ended_ns"] = None if live else found["ended_ns"]
    return found


# ---- tests -----------------------------------------------------------------------------------------------------------


def test_stream_says_what_the_records_say():
    table = busy()
    live = table.summaries()
    table.advance(100 * S)
    for source in (live, table, table.take_ended(), table.apply(batch_of(*opening(200 * S))), table.take_ended()):
        records = [as_arrow(record) for record in (source.summaries() if source is table else source)]
        columns, _, sizes = read(source)
        assert sum(sizes) == len(records)
        assert [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] == records


def test_types_are_those_that_frames_want():
    _, formats, _ = read(busy())
    assert formats == {
        "handle": "L", "first_ns": "tsn:", "last_ns": "tsn:", "ended_ns": "tsn:", "orig_addr": "u", "resp_addr": "u",
        "orig_packets": "L", "resp_packets": "L", "orig_bytes": "L", "resp_bytes": "L", "orig_isn": "I",
        "resp_isn": "I",
        "orig_retransmitted": "I", "resp_retransmitted": "I", "orig_port": "S", "resp_port": "S", "orig_state": "c",
        "resp_state": "c", "ended_by": "c", "flags": "C",
    }  # fmt: skip


def test_batches_have_at_most_65536_rows():
    table = observer(150_000)
    segments = np.asarray(batch_of(*(opening(0, ("10.0.0.1", 1 + i))[0] for i in range(50_000)))).copy()
    for i in range(3):
        segments["src"][:, 14] = i
        table.apply(segments)
    columns, _, sizes = read(table)
    assert sizes == [65536, 65536, 150_000 - 2 * 65536]
    assert columns["orig_addr"][99_999:100_001] == ["10.0.1.1", "10.0.2.1"]
    assert len(set(columns["handle"])) == 150_000


def test_empty_table_has_columns_and_no_batch():
    columns, _, sizes = read(observer())
    assert sizes == []
    assert list(columns) == list(observer().summaries().fields)


def test_schema_alone():
    table = busy()
    for source, names in (
        (table, table.summaries().fields),
        (table.apply(b""), ("row", "flags", "state_0", "state_1")),
    ):
        schema = struct_in(capsule := source.__arrow_c_schema__(), b"arrow_schema", Schema)
        assert tuple(schema.children[i].contents.name.decode() for i in range(schema.n_children)) == names
        del capsule


def test_addresses_as_text_agree_with_ipaddress():
    random_ = random.Random(3)
    addresses = [
        ipaddress.IPv6Address(bytes(random_.choice([0, 0, 0, 1, 255]) for _ in range(16))) for _ in range(3000)
    ]
    addresses += [
        ipaddress.IPv6Address(sum(random_.choice([0, 0, 1, 0xABCD]) << 16 * i for i in range(8))) for _ in range(3000)
    ]
    addresses += [ipaddress.IPv4Address(random_.randrange(2**32)) for _ in range(1000)]
    addresses += [
        ipaddress.ip_address(a) for a in ("::", "::1", "1::", "0.0.0.0", "255.255.255.255", "ff" * 2 + ":" * 2 + "1")
    ]
    addresses += [ipaddress.IPv6Address(b"\xff" * 16), ipaddress.IPv6Address(b"\x10" * 16)]
    addresses = [a for a in dict.fromkeys(addresses) if a.version == 4 or a.ipv4_mapped is None]
    table = observer(len(addresses))
    feed(table, *(opening(0, (str(a), 5), ("10.0.0.2" if a.version == 4 else "9::9", 80))[0] for a in addresses))
    assert read(table)[0]["orig_addr"] == [str(a) for a in addresses]


def test_stream_outlives_its_table():
    capsule = busy().__arrow_c_stream__()
    gc.collect()
    stream = struct_in(capsule, b"arrow_array_stream", Stream)
    array = Array()
    assert stream.get_next(ctypes.byref(stream), ctypes.byref(array)) == 0
    release(stream)
    del capsule
    gc.collect()
    assert array.length == 101
    assert texts(array.children[4].contents)[0] == "10.1.0.0", "an array outlives its stream"
    release(array)


def test_child_that_was_moved_away_is_not_freed_with_its_parent():
    capsule = busy().__arrow_c_stream__()
    stream = struct_in(capsule, b"arrow_array_stream", Stream)
    array = Array()
    stream.get_next(ctypes.byref(stream), ctypes.byref(array))
    moved = []
    for i in (4, 16):  # an address, and a state with its dictionary
        child = Array()
        ctypes.memmove(ctypes.byref(child), array.children[i], ctypes.sizeof(Array))
        array.children[i].contents.release = type(child.release)()
        moved.append(child)
    release(array)
    assert texts(moved[0])[1] == "10.1.0.0"
    assert texts(moved[1].dictionary.contents) == [state.name for state in State]
    for child in moved:
        release(child)


LEAKS = """
import gc, resource, sys
sys.path[:0] = sys.argv[1:]
import test_arrow as t
table = t.busy()

def use():
    t.read(table)
    table.__arrow_c_stream__(), table.__arrow_c_schema__(), table.summaries().__arrow_c_stream__()
    capsule = table.__arrow_c_stream__()
    stream = t.struct_in(capsule, b"arrow_array_stream", t.Stream)
    array = t.Array()
    stream.get_next(t.ctypes.byref(stream), t.ctypes.byref(array))
    t.release(array)

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

for _ in range(50):
    use()
before = resident()
for _ in range(500):
    use()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_everything_is_freed():
    """500 times some 60 KB of streams, schemas and arrays, taken whole, in part and not at all."""
    child = subprocess.run(
        [sys.executable, "-c", LEAKS, __file__.rpartition("/")[0]],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert int(child.stdout) < 500_000


# ---- those who read it -----------------------------------------------------------------------------------------------


def test_pyarrow():
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = busy()
    found = pyarrow.table(table)
    found.validate(full=True)
    assert found.num_rows == 101
    assert found.schema.field("orig_state").type == pyarrow.dictionary(pyarrow.int8(), pyarrow.string())
    assert found.schema == pyarrow.schema(table)
    assert found.column("resp_addr").to_pylist()[-1] == "fe80::1:0:0:1"
    before = pyarrow.total_allocated_bytes()
    del found
    assert pyarrow.total_allocated_bytes() <= before
    table.advance(100 * S)
    assert set(pyarrow.table(table.take_ended())["ended_by"].to_pylist()) == {"TIMEOUT_2MSL"}
    assert pyarrow.table(observer()).num_rows == 0


def test_polars():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame(busy())
    counts = dict(frame.group_by("orig_state").len().iter_rows())
    assert counts == {"ESTABLISHED": 71, "TIME_WAIT": 30}
    assert frame["first_ns"].dtype == polars.Datetime("ns")
    assert frame["ended_by"].null_count() == 101
    assert polars.DataFrame(observer()).shape == (0, 20)


def test_duckdb():
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    table = busy()
    with duckdb.connect() as connection:
        connection.register("live", table.summaries().__arrow_c_stream__())
        query = "select orig_state, count(*) from live where resp_port = 80 group by 1 order by 1"
        assert connection.execute(query).fetchall() == [("ESTABLISHED", 71), ("TIME_WAIT", 30)]


def test_pandas():
    pytest.importorskip("pyarrow", reason="pandas reads Arrow through pyarrow")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    if not hasattr(pandas.DataFrame, "from_arrow"):
        pytest.skip("pandas before 3.0 has no DataFrame.from_arrow")
    frame = pandas.DataFrame.from_arrow(busy())
    assert frame.groupby("orig_state", observed=True).size().to_dict() == {"ESTABLISHED": 71, "TIME_WAIT": 30}
    assert (frame["last_ns"] - frame["first_ns"]).max() == pandas.Timedelta(milliseconds=2002)
