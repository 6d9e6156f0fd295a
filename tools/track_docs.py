"""Runs the examples of docs/track.md and writes what they print below them; the tables of fields and ends as well.

    python tools/track_docs.py            write the page
    python tools/track_docs.py --check    exit 1 and say what is stale

Needs the package, built, with the extras that the examples name. tests/test_track_docs.py runs the check.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "track.md"
BLOCK = re.compile(r"^```console\n\$ (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(command: str) -> str:
    """What a terminal of 100 columns shows of it: both streams, without spaces at the ends of lines."""
    words = shlex.split(command)
    if words[0] != "fasttcp":
        raise ValueError(f"not an example of this page: {command}")
    # The fasttcp that this process has found, which need not be the tree's: that may not be built.
    package = importlib.util.find_spec("fasttcp")
    if package is None or package.origin is None:
        raise ImportError("there is no fasttcp: install it, or build it in place")
    where = str(Path(package.origin).parent.parent)
    environment = {**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": where}
    program = "import sys; del sys.path[0]; from fasttcp.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *words[1:]], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def tables() -> dict[str, str]:
    """name of a mark in the page: the table that stands below it."""
    from fasttcp.observe.journal import ENDS
    from fasttcp.observe.logs import FIELDS

    fields = "".join(f"| `{name}` | {kind} | {meaning} |\n" for name, (kind, meaning) in FIELDS.items())
    ends = "".join(f"| `{name}` | {meaning} |\n" for name, meaning in ENDS.items())
    return {
        "fields": "| field | type | meaning |\n|---|---|---|\n" + fields,
        "ends": "| end | meaning |\n|---|---|\n" + ends,
    }


def fresh(page: str) -> str:
    """The page with everything that is derived made anew."""
    page = BLOCK.sub(lambda match: f"```console\n$ {match[1]}\n{run(match[1])}```", page)
    for name, table in tables().items():
        before, mark, behind = page.partition(f"<!-- {name} -->\n")
        old = re.match(r"\n\|.*?\n(?=\n)", behind, re.DOTALL)
        page = f"{before}{mark}\n{table}{behind[old.end() :] if old else behind}"
    return page


def main() -> int:
    sys.path.insert(0, str(ROOT))
    page = PAGE.read_text(encoding="utf-8")
    made = fresh(page)
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if made == page:
        return 0
    lines = difflib.unified_diff(page.splitlines(), made.splitlines(), "docs/track.md", "as it would be now", lineterm="")
    print("\n".join(lines), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
