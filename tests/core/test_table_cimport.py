"""The table from compiled code: another project cimports core/table.pxd and feeds a table without Python in between."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fasttcp

PACKAGE = Path(fasttcp.__file__).resolve().parent

USER = """
# cython: language_level=3
from libc.string cimport memset
from fasttcp.core.layout cimport ACK, SYN, Segment
from fasttcp.core.seat cimport Engine
from fasttcp.core.segments cimport SegmentBatch
from fasttcp.core.store cimport store_find, store_handle
from fasttcp.core.table cimport ConnectionTable, table_apply, table_engine
from fasttcp.core.tap cimport Verdict
from fasttcp.core.verdicts cimport V_CHANGED, V_NEW


def feed(ConnectionTable table, int n):
    cdef Segment segments[64]
    cdef Verdict verdicts[64]
    cdef int i, new = 0
    memset(segments, 0, sizeof(segments))
    for i in range(n):
        segments[i].src[10] = segments[i].src[11] = segments[i].dst[10] = segments[i].dst[11] = 0xFF
        segments[i].src[12] = 10
        segments[i].dst[12] = 11
        segments[i].sport = 1000 + i
        segments[i].dport = 80
        segments[i].flags = SYN
    with nogil:
        table_apply(table, segments, n, verdicts)
    for i in range(n):
        new += verdicts[i].flags == (V_NEW | V_CHANGED)
    return new


def used(ConnectionTable table):
    cdef Engine *engine = table_engine(table)
    return None if engine == NULL else engine.table.used


def feed_batch(ConnectionTable table, SegmentBatch batch):
    cdef Verdict verdict
    table_apply(table, &batch.records[0], 1, &verdict)
    return store_handle(&table_engine(table).table, verdict.row)
"""

BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
setup(
    name="user",
    ext_modules=cythonize([Extension("user", ["user.pyx"])], include_path=sys.path),
    script_args=["-q", "build_ext", "--inplace"],
)
"""

CHECK = """
import user
from fasttcp import ConnectionTable, SegmentBatch, StateError
table = ConnectionTable(100, seat="observer")
assert user.feed(table, 50) == 50 == len(table) == user.used(table)
table.check_invariants()
batch = SegmentBatch(1)
batch.append(src="10.0.0.0", dst="11.0.0.0", sport=1007, dport=80, flags="SYN")
assert user.feed_batch(table, batch) == table.find("10.0.0.0", 1007, "11.0.0.0", 80)
closed = ConnectionTable.__new__(ConnectionTable)
assert user.used(closed) is None
try:
    user.feed(closed, 1)
except StateError as error:
    print(error)
"""


@pytest.mark.smoke
def test_another_project_feeds_a_table_from_compiled_code(tmp_path):
    (tmp_path / "user.pyx").write_text(USER)
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    for code in (BUILD, CHECK):
        child = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert child.returncode == 0, f"{child.stdout}\n{child.stderr}"
    assert child.stdout == "this table is not open\n"
