"""docs/track.md is held to its word: what its commands print is what it shows, and its Python runs."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "track.md"

pytestmark = pytest.mark.tree


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("track_docs", ROOT / "tools" / "track_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examples():
    if not PAGE.exists():
        return []  # the tests stand without their tree: the mark says so
    page = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("command", "shown"), examples(), ids=[command for command, _ in examples()])
def test_commands_print_what_is_shown(tool, command, shown):
    if command.startswith("fasttcp top"):
        pytest.importorskip("rich", reason="rich is not installed: the extra fasttcp[top]")
    assert tool.run(command) == shown
    assert "Traceback" not in shown


def test_tables_are_those_of_the_code(tool):
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tool.tables().items():
        assert f"<!-- {name} -->\n\n{table}\n" in page


def test_python_runs_in_its_order(tool, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("duckdb", "pandas", "polars", "pyarrow"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    namespace = {}
    blocks = tool.PYTHON.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE.read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not (PAGE.parent / link).exists()]
