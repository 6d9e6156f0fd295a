"""What leaves the tree: an sdist with every source and nothing generated, a wheel to import, to type and to cimport."""

import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import fasttcp

PACKAGE = Path(fasttcp.__file__).resolve().parent
ROOT = Path(__file__).resolve().parent.parent

# Sources that a wheel carries as they are. Compiled modules replace the .pyx, which nobody can use without the tree.
SHIPPED = {".py", ".pyi", ".pxd", ".h", ".typed"}


def run(*command, cwd, **environment):
    child = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, f"{child.stdout}\n{child.stderr}"
    return child.stdout


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def clean_copy(destination):
    """What a checkout holds that concerns an sdist, without what builds and tests have left behind."""
    leftovers = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "*.py[co]")
    for folder in ("fasttcp", "tests", "docs", "benchmarks", "tools"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, destination / folder, ignore=leftovers)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, destination)


@pytest.mark.tree
def test_sdist_holds_every_source_and_nothing_built(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    clean_copy(tree)
    expected = files_below(tree)
    module = "fasttcp/core/layout"
    for name in (f"build/release/{module}.c", f"{module}.c", module + EXTENSION_SUFFIXES[0]):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()

    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, tmp_path / "dist", cwd=tree)

    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as sdist:
        found = {name.partition("/")[2] for name in (member.name for member in sdist if member.isfile())}
    made = {"PKG-INFO", "setup.cfg"}
    found = {name for name in found if name not in made and ".egg-info/" not in name}
    assert found == expected
    assert {"LICENSE", "fasttcp/py.typed", "fasttcp/core/layout.pxd", "tests/conftest.py"} <= found


@pytest.fixture
def installed_files():
    try:
        distribution = importlib.metadata.distribution("fasttcp")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no wheel is installed, the tree is tested")
    if distribution.read_text("WHEEL") is None or Path(distribution.locate_file("fasttcp")).resolve() != PACKAGE:
        pytest.skip("the tree is tested, not an installed wheel")
    if json.loads(distribution.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        pytest.skip("an editable install is no wheel")
    return {path.as_posix() for path in distribution.files if "__pycache__" not in path.parts}


@pytest.mark.smoke
def test_wheel_holds_what_users_of_the_package_need(installed_files):
    package = {name for name in installed_files if name.startswith("fasttcp/")}
    assert {Path(name).suffix for name in package} <= SHIPPED | {Path(EXTENSION_SUFFIXES[0]).suffix}
    assert {"fasttcp/py.typed", "fasttcp/core/layout.pxd"} <= package
    metadata = {Path(name).name for name in installed_files if ".dist-info/" in name}
    assert {"LICENSE", "entry_points.txt"} <= metadata
    scripts = {name for name in installed_files if name.startswith("..")}
    assert {Path(name).stem for name in scripts} == {"fasttcp"}
    assert installed_files == package | scripts | {name for name in installed_files if ".dist-info/" in name}


@pytest.mark.tree
def test_wheel_holds_all_of_the_tree(installed_files):
    sources = {f"fasttcp/{name}" for name in files_below(ROOT / "fasttcp")}
    plain = {name for name in sources if Path(name).suffix in SHIPPED}
    modules = {name.removesuffix(".pyx") for name in sources if name.endswith(".pyx")}
    compiled = {name for name in installed_files if name.endswith(EXTENSION_SUFFIXES[0])}
    assert {name for name in installed_files if name.startswith("fasttcp/")} - compiled == plain
    assert {name.removesuffix(EXTENSION_SUFFIXES[0]) for name in compiled} == modules


@pytest.mark.smoke
def test_every_compiled_module_is_there_and_loads():
    names = [
        ".".join(path.relative_to(PACKAGE.parent).parts).removesuffix(EXTENSION_SUFFIXES[0])
        for path in PACKAGE.rglob(f"*{EXTENSION_SUFFIXES[0]}")
    ]
    assert names
    for name in names:
        assert importlib.import_module(name).__file__.endswith(EXTENSION_SUFFIXES[0])


USER = """
# cython: language_level=3
from libc.string cimport memset
from fasttcp.core.layout cimport ACK, Segment, seq_lt
{cimports}

def sizes():
    return sizeof(Segment)

def before(a, b):
    return seq_lt(a, b)

def flags():
    cdef Segment segment
    memset(&segment, 0, sizeof(Segment))
    segment.flags = ACK
    return (<unsigned char*>&segment)[66]
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


@pytest.mark.smoke
def test_another_project_cimports_the_installed_package(tmp_path):
    """Every shipped .pxd, and each C header behind it, is usable where only the package is installed."""
    pxds = sorted(path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.pxd"))
    cimports = "\n".join(f"cimport {'.'.join(path.parts)}" for path in pxds)
    assert "cimport fasttcp.core.layout" in cimports
    (tmp_path / "user.pyx").write_text(USER.format(cimports=cimports))
    # PYTHONPATH: an editable install is found by an import hook, which Cython does not ask.
    run(sys.executable, "-c", BUILD, cwd=tmp_path, PYTHONPATH=str(PACKAGE.parent))
    check = "import user; print(user.sizes(), user.before(2**32 - 1, 1), user.before(1, 2**32 - 1), user.flags())"
    assert run(sys.executable, "-c", check, cwd=tmp_path).split() == ["80", "True", "False", "16"]


@pytest.mark.tree
def test_building_leaves_nothing_generated_beside_the_sources():
    suffixes = {Path(name).suffix for name in files_below(ROOT / "fasttcp") if "__pycache__" not in name}
    assert suffixes <= SHIPPED | {".pyx", ".so", ".pyd"}
