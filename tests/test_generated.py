"""Files derived from the data of floor 0 are as the data say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.tree
def test_generated_files_are_fresh():
    check = subprocess.run(
        [sys.executable, str(ROOT / "tools/generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (check.returncode, check.stderr) == (0, "")
