"""What `import fasttcp` offers: names that are loaded when they are asked for, known to type checkers, cheap to
import."""

import ast
import importlib
import importlib.metadata
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import fasttcp
from fasttcp.verdicts import Verdict

ROOT = Path(__file__).resolve().parent.parent


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.smoke
def test_every_name_is_there_and_comes_from_its_home():
    for home, names in fasttcp._HOMES.items():
        for name in names:
            assert getattr(fasttcp, name) is getattr(importlib.import_module(home), name)
    assert {*fasttcp._HOME_OF, "__version__"} == set(fasttcp.__all__)
    assert set(fasttcp.__all__) <= set(dir(fasttcp))


def test_type_checkers_are_told_of_the_same_names():
    tree = ast.parse(Path(fasttcp.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    told = {(node.module, alias.name) for node in block.body for alias in node.names}
    assert told == {(home, name) for home, names in fasttcp._HOMES.items() for name in names}


def test_star_import_and_unknown_names():
    assert "ConnectionTable" in python("from fasttcp import *; print(*globals())").split()
    with pytest.raises(AttributeError, match="module 'fasttcp' has no attribute 'Connexion'"):
        fasttcp.Connexion  # noqa: B018
    with pytest.raises(ImportError):
        from fasttcp import Connexion  # noqa: F401


@pytest.mark.smoke
def test_import_loads_nothing_and_the_table_no_more_than_it_needs():
    assert python("import sys, fasttcp; print(*[m for m in sys.modules if m.startswith('fasttcp.')])").split() == []
    loaded = set(python("import sys; from fasttcp import ConnectionTable; print(*sys.modules)").split())
    assert "fasttcp.core.table" in loaded
    assert not loaded & {"numpy", "pyarrow", "asyncio", "socket", "fasttcp.packets", "fasttcp.cli"}


@pytest.mark.parametrize("how", ["from fasttcp import ConnectionTable", "import fasttcp.core.table"])
def test_a_source_tree_that_was_not_built_says_so(tmp_path, how):
    package = Path(fasttcp.__file__).parent
    for file in package.rglob("*.py"):
        (tmp_path / "fasttcp" / file.relative_to(package)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "fasttcp" / file.relative_to(package))
    (tmp_path / "fasttcp/core/table.pyx").touch()
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, check=False)
    done = run([sys.executable, "-c", how])
    assert f"fasttcp.core.table is not compiled: {tmp_path.resolve()} is a source tree" in done.stderr
    assert "`pip install -e .`" in done.stderr
    assert run([sys.executable, "-c", "import fasttcp.spec"]).returncode == 0, "what needs no compiler works"
    assert "No module named 'fasttcp.core.chair'" in run([sys.executable, "-c", "import fasttcp.core.chair"]).stderr


@pytest.mark.smoke
def test_version_is_the_distribution_s():
    try:
        version = importlib.metadata.version("fasttcp")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("not installed, the tree is tested")
    assert fasttcp.__version__ == version


def test_verdict_bits_fit_what_apply_returns():
    bits = [each.value for each in Verdict]
    assert bits == sorted(bits)
    assert all(bit & (bit - 1) == 0 for bit in bits)
    assert 0 < sum(bits) < 1 << 16


USAGE = """
import os
from collections.abc import Iterator

from fasttcp import ConnectionTable, Segment, SegmentBatch, State, TraceStep, Verdict, profile, transition
from fasttcp.core.records import Records


def watch(path: str | os.PathLike[str], batches: Iterator[SegmentBatch]) -> dict[State, int]:
    table: ConnectionTable = ConnectionTable(1000, max_capacity=10**6, seat="observer", on_full="evict")
    print(profile("bsd"))
    for batch in batches:
        records: Records = table.apply(batch)
        first: dict[str, object] = records[0]
        segment: Segment = batch[0]
        handle, verdict = table.receive(segment)
        if handle is not None and isinstance(verdict, Verdict) and verdict & Verdict.NEW:
            originator, responder = table.state(handle)
            steps: list[TraceStep] = table.explain(handle)
            print(originator.name, responder.name, first, steps[0].why)
    done: bool = table.advance(10**9, budget=4096)
    view: memoryview = table.column("state_0")
    print(done, len(view), table.find("10.0.0.1", 1, b"\\0\\0\\0\\0", 2), transition(State.CLOSED, 0).why)
    table.save(path)
    return ConnectionTable.load(path).counts()
"""

MISTAKES = """
from fasttcp import ConnectionTable

table = ConnectionTable("many", seat="observer")
table.column(3)
ConnectionTable(4, seat="middle")
table.apply([1, 2])
text: str = len(table)
table.opne()
"""


def test_stubs_hold_what_they_promise(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(USAGE)
    bad.write_text(MISTAKES)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", "", good, bad]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout
    wrong = [line for line in found.splitlines() if ": error:" in line]
    assert [line.rpartition("[")[2] for line in wrong] == [
        "arg-type]", "arg-type]", "arg-type]", "arg-type]", "assignment]", "attr-defined]",
    ], found  # fmt: skip
    assert all(line.startswith("bad.py:") for line in wrong), found


@pytest.mark.tree
def test_version_stands_in_one_place():
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
