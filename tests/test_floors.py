"""The floors: what each module may know. The tables below are the rule; the tests only read the sources and compare.

Sources are read as text, so a module that is not built is checked as well. They are the tree's, where the tests lie in
one; else those of the installed package, which has no .pyx.
"""

import ast
import importlib
import re
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import fasttcp

INSTALLED = Path(fasttcp.__file__).resolve().parent
TREE = Path(__file__).resolve().parent.parent / "fasttcp"
PACKAGE = TREE if TREE.is_dir() else INSTALLED

# A module may import from lower floors and from its own package. The modules of floor 0 may import one another.
FLOORS = {
    "fasttcp.errors": 0,
    "fasttcp.parameters": 0,
    "fasttcp.profiles": 0,
    "fasttcp.spec": 0,
    "fasttcp.verdicts": 0,
    "fasttcp.core": 1,
    "fasttcp.packets": 2,
    "fasttcp.observe": 3,
    "fasttcp.endpoint": 3,
    "fasttcp.load": 4,
    "fasttcp.scale": 5,
    "fasttcp.cli": 6,
    "fasttcp.__main__": 7,
    "fasttcp": 7,
}

CLOCKS = {"time", "datetime", "sched", "libc.time", "posix.time", "cpython.time", "cpython.datetime"}
CLOCKS |= {"<time.h>", "<sys/time.h>"}
RANDOMNESS = {"random", "secrets", "uuid", "numpy.random", "libc.stdlib.rand", "libc.stdlib.srand", "<sys/random.h>"}
FILES = {"os", "io", "pathlib", "shutil", "tempfile", "mmap", "fcntl", "gzip", "libc.stdio", "posix.fcntl"}
FILES |= {"posix.stat", "posix.unistd", "<stdio.h>", "<fcntl.h>"}
SOCKETS = {"socket", "select", "selectors", "ssl", "asyncio", "socketserver", "http"}
SOCKETS |= {"<sys/socket.h>", "<netinet/in.h>", "<netinet/tcp.h>", "<arpa/inet.h>"}
PACKETS = {"dpkt", "scapy", "cypcap", "fasttcp.packets"}
TERMINALS = {"argparse", "curses", "getpass", "readline", "rich", "tty", "termios"}
COMPILED = {"fasttcp.core", "numpy", "cython", "ctypes"}
STATES = {"fasttcp.spec", "fasttcp.parameters", "fasttcp.profiles", "fasttcp.core.machine", "fasttcp.core.table"}

DATA = CLOCKS | RANDOMNESS | FILES | SOCKETS | PACKETS | TERMINALS | COMPILED
MUST_NOT_KNOW = {
    "fasttcp.errors": DATA,
    "fasttcp.parameters": DATA,
    "fasttcp.profiles": DATA,
    "fasttcp.spec": DATA,
    "fasttcp.verdicts": DATA,
    "fasttcp.core": CLOCKS | RANDOMNESS | FILES | SOCKETS | PACKETS | TERMINALS,
    "fasttcp.packets": STATES | RANDOMNESS | TERMINALS,
    "fasttcp.observe": {"mmap", "libc.stdio", "<stdio.h>"} | SOCKETS | TERMINALS,
    "fasttcp.endpoint": CLOCKS | RANDOMNESS | FILES | SOCKETS | TERMINALS,
    "fasttcp.load": TERMINALS,
}

# (module, what it knows all the same): why. An entry that is no longer needed fails a test.
EXCEPTIONS = {
    ("fasttcp.core.files", "os"): "the one module that opens files for a saved table",
    ("fasttcp.core.files", "tempfile"): "the same: the file is complete before it takes its name",
    ("fasttcp.core.opening", "os"): "os.urandom makes the hash's secret for a table that is given no seed",
    ("fasttcp.core.table", "os"): "os.fspath names the file of a saved table in an error",
}


def module_name(path):
    parts = list(path.relative_to(PACKAGE.parent).parts)
    parts[-1] = parts[-1].partition(".")[0]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sorted(
    path for suffix in ("py", "pyi", "pyx", "pxd", "pxi", "h") for path in PACKAGE.rglob(f"*.{suffix}")
)
MODULES = {module_name(path) for path in SOURCES if path.suffix in (".py", ".pyx")}
COMPILED_MODULES = {module_name(path) for path in PACKAGE.rglob("*.pyx")} | {
    module_name(path) for path in INSTALLED.rglob(f"*{EXTENSION_SUFFIXES[0]}") if PACKAGE == INSTALLED
}
MODULES |= COMPILED_MODULES
PUBLIC = sorted(name for name in MODULES if not any(part.startswith("_") for part in name.split(".")))

of_each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
of_each_module = pytest.mark.parametrize("name", sorted(MODULES))
of_each_public_module = pytest.mark.parametrize("name", PUBLIC)
of_each_public_compiled_module = pytest.mark.parametrize("name", [name for name in PUBLIC if name in COMPILED_MODULES])


def imports(text, kind, package):
    """Yields (line, target) for all that a source imports: a module, a name of one (`module.name`), a <header.h>."""
    if kind in (".py", ".pyi"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = absolute("." * node.level + (node.module or ""), package)
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        return
    # Verbatim C stands in a docstring of Cython, so headers are looked for in the raw text.
    for line, text_line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*(?:cdef\s+extern\s+from\s+\"|#\s*include\s*)(<[^>]+>)", text_line):
            yield line, match[1]
    for line, statement in statements(text) if kind != ".h" else ():
        if match := re.match(r"\s*from\s+([\w.]+)\s+c?import\s+(.*)", statement):
            base = absolute(match[1], package)
            yield from ((line, f"{base}.{name}") for name in names(match[2]))
        elif match := re.match(r"\s*c?import\s+(.*)", statement):
            yield from ((line, name) for name in names(match[1]))


STRING = re.compile(r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|"[^"\n]*"|\'[^\'\n]*\'')


def statements(text):
    """Logical lines of Cython: strings and comments are gone, bracketed and continued lines are joined."""
    text = STRING.sub(lambda match: '""' + "\n" * match[0].count("\n"), text)
    joined, start, depth = "", 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        if not joined:
            start = number
        code = line.partition("#")[0].rstrip()
        depth += len(re.findall(r"[(\[{]", code)) - len(re.findall(r"[)\]}]", code))
        joined += code.rstrip("\\") + " "
        if depth <= 0 and not code.endswith("\\"):
            yield from ((start, part) for part in joined.split(";"))
            joined, depth = "", 0


def names(text):
    return [part.split(" as ")[0].strip() for part in text.strip(" ()").split(",") if part.strip()]


def absolute(module, package):
    dots = len(module) - len(module.lstrip("."))
    if not dots:
        return module
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - dots + 1], *filter(None, [module.lstrip(".")])])


def imports_of(path):
    package = ".".join(path.relative_to(PACKAGE.parent).parts[:-1])
    return list(imports(path.read_text(encoding="utf-8"), path.suffix, package))


def place(name):
    """The entry of FLOORS that a module, or a name from a module, belongs to."""
    parts = name.split(".")
    if len(parts) == 1 or (len(parts) == 2 and name not in MODULES | FLOORS.keys()):
        return "fasttcp"
    return ".".join(parts[:2])


def knows(target, what):
    return target == what or target.startswith(what + ".")


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (".py", "import fasttcp.cli, time as t", {"fasttcp.cli", "time"}),
        (".py", "def f():\n    from ..cli import main", {"fasttcp.cli.main"}),
        (".py", "from . import a, b", {"fasttcp.core.a", "fasttcp.core.b"}),
        (".pyx", "cimport fasttcp.cli as c, libc.time", {"fasttcp.cli", "libc.time"}),
        (".pyx", "from libc.stdlib cimport (malloc, # x\n    rand)", {"libc.stdlib.malloc", "libc.stdlib.rand"}),
        (".pyx", "from .layout cimport a, \\\n    b", {"fasttcp.core.layout.a", "fasttcp.core.layout.b"}),
        (".pyx", "if True: pass; import os", {"os"}),
        (".pyx", "x = '(#'  # don't\nimport os\n", {"os"}),
        (".pyx", 'cdef extern from *:\n    """\n    #include <time.h>\n    """\n', {"<time.h>"}),
        (".pyx", '"""\nimport os\n"""\n# import io\nimports = 1', set()),
        (".pxd", 'cdef extern from "<time.h>" nogil:\n    pass', {"<time.h>"}),
        (".h", "#include <stdio.h>\n#  include <x.h>\n#include \"y.h\"", {"<stdio.h>", "<x.h>"}),
    ],
)
def test_reader_sees_every_form_of_import(kind, text, expected):
    assert {target for _, target in imports(text, kind, "fasttcp.core")} == expected


def test_place_is_the_table_entry_of_a_name():
    assert place("fasttcp.core.layout.Segment") == "fasttcp.core"
    assert place("fasttcp.errors.CaptureError") == "fasttcp.errors"
    assert place("fasttcp.NoSuchName") == "fasttcp"
    assert place("fasttcp") == "fasttcp"


@of_each_module
def test_module_has_a_floor(name):
    assert place(name) in FLOORS, f"give {place(name)} a floor in this file"


@of_each_source
def test_no_import_points_upward(path):
    here = place(module_name(path))
    bad = []
    for line, target in imports_of(path):
        if knows(target, "fasttcp"):
            there = place(target)
            lower = FLOORS[there] < FLOORS[here] or FLOORS[here] == FLOORS[there] == 0
            if not lower and here != there:
                bad.append(f"line {line}: {target} (floor {FLOORS[there]}) from floor {FLOORS[here]}")
    assert not bad


@of_each_source
def test_module_knows_only_what_it_may(path):
    name = module_name(path)
    bad = [
        f"line {line}: {target}"
        for line, target in imports_of(path)
        for what in MUST_NOT_KNOW.get(place(name), ())
        if knows(target, what) and (name, what) not in EXCEPTIONS
    ]
    assert not bad


def test_every_exception_is_needed_and_explained():
    known = {
        (module_name(path), what)
        for path in SOURCES
        for _, target in imports_of(path)
        for what in MUST_NOT_KNOW.get(place(module_name(path)), ())
        if knows(target, what)
    }
    assert set(EXCEPTIONS) <= known
    assert all(EXCEPTIONS.values())


def test_nothing_is_included_as_text():
    cython = [path for path in SOURCES if path.suffix in (".pyx", ".pxd", ".pxi")]
    included = [
        f"{path.name}:{line}"
        for path in cython
        for line, statement in statements(path.read_text(encoding="utf-8"))
        if re.match(r"\s*include\b", statement)
    ]
    assert not included, "cimport from a .pxd instead"


# The top is replaced by an empty package: it imports everything in an order that happens to work.
ALONE = """
import importlib, importlib.util, sys, types
spec = importlib.util.find_spec("fasttcp")
if sys.argv[1] not in ("fasttcp", "fasttcp.__main__"):
    sys.modules["fasttcp"] = top = types.ModuleType("fasttcp")
    top.__spec__, top.__path__ = spec, list(spec.submodule_search_locations)
importlib.import_module(sys.argv[1])
"""


@of_each_module
def test_module_imports_alone(name):
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, name], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 0, child.stderr


def own_names(name, module):
    """Public functions and classes that a module made itself; what it imported is not its face."""
    return [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name
    ]


@of_each_public_module
def test_all_names_the_public_face(name):
    module = importlib.import_module(name)
    if not hasattr(module, "__all__"):
        assert not own_names(name, module), "a module with a public face has __all__"
        return
    assert len(set(module.__all__)) == len(module.__all__)
    assert not [each for each in module.__all__ if not hasattr(module, each)]


@of_each_public_compiled_module
def test_public_compiled_module_has_a_stub_with_the_same_face(name):
    face = getattr(importlib.import_module(name), "__all__", [])
    stub = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".pyi")
    if not face:
        assert not stub.exists(), "a module without a public face needs no stub"
        return
    assert stub.exists(), f"{name} has a public face and no {stub.name}"
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    defined, listed = set(), None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            for target in [node.target] if isinstance(node, ast.AnnAssign) else node.targets:
                defined.add(target.id)
                if target.id == "__all__" and node.value is not None:
                    listed = ast.literal_eval(node.value)
        elif isinstance(node, ast.ImportFrom):
            defined.update(alias.asname for alias in node.names if alias.asname == alias.name)
    assert listed is not None, "the stub has an __all__"
    assert sorted(listed) == sorted(face)
    assert set(face) <= defined


def test_every_stub_describes_a_compiled_module():
    assert {module_name(path) for path in PACKAGE.rglob("*.pyi")} <= COMPILED_MODULES
