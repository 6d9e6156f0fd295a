"""Decides which fasttcp the tests run on, and in which folder. No fixture of one subject belongs here.

The tree holds a folder `fasttcp/` that Python can import whether or not it is built, so it must not come first by
accident:

- Plain `pytest` tests the installed package (an editable install is the tree itself). That works because nothing puts
  the tree's root first on sys.path: no conftest.py at the root and no tests/__init__.py. Keep it so.
- Where none is installed, a tree that was built in place is tested.
- `python -m pytest` puts the root on sys.path. It then tests the tree if that is built, else the installed package.
- Every test runs in an empty folder, so that a child Python does not find the unbuilt tree in its working directory.
"""

import importlib.util
import os
import signal
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def built_in_place():
    modules = list((ROOT / "fasttcp").rglob("*.pyx"))
    return bool(modules) and all(
        any(module.with_suffix(suffix).exists() for suffix in EXTENSION_SUFFIXES) for module in modules
    )


if not built_in_place():
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
elif importlib.util.find_spec("fasttcp") is None:
    sys.path.insert(0, str(ROOT))

SPEC = importlib.util.find_spec("fasttcp")
if SPEC is None or SPEC.origin is None:
    raise pytest.UsageError(
        "fasttcp is neither installed nor completely built in place: "
        "pip install '.[test]', or python setup.py build_ext --inplace"
    )

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what it sends to the background so; children that are to be interrupted would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

PACKAGE = Path(SPEC.origin).resolve().parent
sys.path.append(str(ROOT))  # for benchmarks/, behind the fasttcp that was found
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / ".hypothesis"))


def pytest_report_header():
    return f"fasttcp: {PACKAGE}"


def pytest_runtest_setup(item):
    if item.get_closest_marker("tree") and not (ROOT / "setup.py").exists():
        pytest.skip("no source tree beside these tests")


@pytest.fixture(scope="session", autouse=True)
def empty_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        if PACKAGE.parent == ROOT:
            patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        yield
