"""The log as Arrow: the same values as the JSON log, in pyarrow, polars, DuckDB and pandas, without text between."""

import json
import math
from pathlib import Path

import pytest

from fasttcp.observe.logs import FIELDS
from fasttcp.observe.track import track

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
FILES = sorted(CAPTURES.glob("*.pcap"))
UNSET = {"service", "local_orig", "local_resp", "tunnel_parents"}


def as_json(fields=None):
    return [json.loads(line) for piece in track(FILES).lines("json", fields) for line in piece.splitlines()]


def test_every_field_is_what_the_json_log_says():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    names = list(FIELDS)
    table = pa.table(track(FILES).arrow(names))
    table.validate(full=True)
    assert table.column_names == names
    rows = as_json(names)
    assert table.num_rows == len(rows) > 30
    for name in names:
        column = table[name]
        if name in UNSET:
            assert column.null_count == len(rows)
        got = [value / 1000000000.0 for value in column.cast("int64").to_pylist()] if name == "ts" else column.to_pylist()
        for value, row in zip(got, rows, strict=True):
            if isinstance(row.get(name), float):
                assert math.isclose(value, row[name], abs_tol=1.3e-6)  # text is cut to microseconds
            else:
                assert value == row.get(name), name


def test_types():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    schema = pa.schema(track(FILES).arrow())
    words = pa.dictionary(pa.int8(), pa.string())
    expected = {
        "ts": pa.timestamp("ns"), "duration": pa.float64(), "rtt": pa.float64(), "id.orig_p": pa.uint16(),
        "orig_bytes": pa.uint64(), "orig_rexmit": pa.uint32(), "conn_state": words, "orig_state": words, "end": words,
        "history": pa.string(), "id.orig_h": pa.string(), "proto": words, "ip_proto": pa.uint8(),
    }  # fmt: skip
    for name, kind in expected.items():
        assert schema.field(name).type == kind
    assert schema.field("duration").nullable
    assert not schema.field("ts").nullable


def test_polars():
    pl = pytest.importorskip("polars", reason="polars is not installed")
    frame = pl.DataFrame(track(FILES).arrow())
    rows = as_json()
    assert frame["uid"].to_list() == [row["uid"] for row in rows]
    assert frame["resp_bytes"].sum() == sum(row.get("resp_bytes", 0) for row in rows)
    assert frame["conn_state"].cast(pl.String).to_list() == [row["conn_state"] for row in rows]


def test_duckdb():
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    connections = track(FILES).arrow()  # noqa: F841 - DuckDB finds it by its name
    found = duckdb.sql('select conn_state, count(*), sum(orig_pkts) from connections group by all order by all').fetchall()
    expected = {}
    for row in as_json():
        count, packets = expected.get(row["conn_state"], (0, 0))
        expected[row["conn_state"]] = count + 1, packets + row["orig_pkts"]
    assert {state: (count, packets) for state, count, packets in found} == expected


def test_pandas():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    if not hasattr(pd.DataFrame, "from_arrow"):
        pytest.skip("this pandas has no DataFrame.from_arrow (new in 3.0)")
    pytest.importorskip("pyarrow", reason="pandas reads Arrow with pyarrow, which is not installed")
    frame = pd.DataFrame.from_arrow(track(FILES).arrow())
    rows = as_json()
    assert list(frame["history"]) == [row.get("history", "") for row in rows]
    assert list(frame["id.resp_p"]) == [row["id.resp_p"] for row in rows]
    assert str(frame["ts"].dtype) == "datetime64[ns]"


def test_filter_and_fields():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pa.table(track(FILES, where="state time-wait").arrow(["end", "orig_state", "resp_state"]))
    assert table.column_names == ["end", "orig_state", "resp_state"]
    assert table.num_rows == sum("TIME_WAIT" in (row["orig_state"], row["resp_state"]) for row in as_json())


def test_a_stream_is_read_once():
    stream = track(FILES[0]).arrow()
    stream.__arrow_c_schema__()
    capsule = stream.__arrow_c_stream__()
    stream.__arrow_c_schema__()
    with pytest.raises(ValueError, match="read already"):
        stream.__arrow_c_stream__()
    del capsule  # nobody took what is in it: it is released with the capsule


@pytest.mark.parametrize(
    ("fields", "message"), [(["histry"], "nearest: history"), (["ts", "ts"], "chosen twice"), ([], "no field")]
)
def test_wrong_fields_are_named_at_once(fields, message):
    with pytest.raises(ValueError, match=message):
        track(FILES[0]).arrow(fields)


def test_an_error_on_the_way_is_the_streams_error():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

    def steps():
        yield
        raise OSError(5, "the disk is gone")

    stream = track(FILES[0]).arrow(steps=steps())
    with pytest.raises(Exception, match="the disk is gone"):
        pa.table(stream)


def test_many_rows_come_in_batches(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    data = CAPTURES.joinpath("left_half_open.pcap").read_bytes()
    head, record = data[:24], data[24 : 24 + 16 + int.from_bytes(data[32:36], "little")]
    path = tmp_path / "many.pcap"
    port = 16 + 14 + 20
    with path.open("wb") as file:
        file.write(head)
        for i in range(70_000):
            copy = bytearray(record)
            copy[port : port + 2] = (i & 0xFFFF).to_bytes(2, "big")
            copy[16 + 14 + 12 + 3] = i >> 16
            file.write(copy)
    followed = track(path, checksums="ignore", profile="linux")
    batches = list(pa.RecordBatchReader.from_stream(followed.arrow(["id.orig_p", "id.orig_h"])))
    assert sum(batch.num_rows for batch in batches) == 70_000
    assert max(batch.num_rows for batch in batches) <= 65_536
    ends = {(row["id.orig_h"], row["id.orig_p"]) for batch in batches for row in batch.to_pylist()}
    assert len(ends) == 70_000
