"""Runs the experiments of docs/time-wait.md and puts what they print, and draw, into the page.

    python tools/time_wait.py            write the page and the pictures anew
    python tools/time_wait.py --check    exit 1 and name what is stale

In the page, `<!-- output of time-wait/NAME.py -->` is followed by a fenced block: its content is the script's output. Where the
page shows `time-wait/NAME.svg`, the script draws it when it is given a file name.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "time-wait.md"
BLOCK = re.compile(r"(<!-- output of time-wait/(\w+)\.py -->\n```text\n)(.*?)(```\n)", re.DOTALL)


def run(name: str, picture: Path | None = None) -> str:
    """What a script prints; it draws to `picture`."""
    command = [sys.executable, str(DOCS / "time-wait" / f"{name}.py"), *([str(picture)] if picture else [])]
    text = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n"


def fresh() -> dict[Path, str]:
    """Every generated file, as it should be."""
    page = PAGE.read_text(encoding="utf-8")
    files: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        outputs = {}
        for name in dict.fromkeys(match[2] for match in BLOCK.finditer(page)):
            drawn = Path(folder) / f"{name}.svg"
            outputs[name] = run(name, drawn if f"time-wait/{name}.svg" in page else None)
            if drawn.exists():
                files[DOCS / "time-wait" / drawn.name] = drawn.read_text(encoding="utf-8")
    files[PAGE] = BLOCK.sub(lambda match: match[1] + outputs[match[2]] + match[4], page)
    return files


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = [
        (path, text) for path, text in fresh().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        if arguments:
            print(f"docs/{path.relative_to(DOCS)} is stale: run python tools/time_wait.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
