"""Builds the extensions: every .pyx below fasttcp/. All other settings are in pyproject.toml.

FASTTCP_DEBUG=1 gives a build with assertions (Cython's and C's), bounds checks and line tracing. A change of mode
recompiles everything, since no object of one mode may be mixed with those of the other.

FASTTCP_PORTABLE=1 gives the form for compilers and processors that are not known here: no vectors, no prefetching, no
builtins, no 128-bit numbers, memory from calloc. For tests; it is several times slower.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("FASTTCP_DEBUG") == "1"
PORTABLE = os.environ.get("FASTTCP_PORTABLE") == "1"
MSVC = sys.platform == "win32"

# -fno-strict-aliasing: records are laid over bytes that came from elsewhere (a mapped capture, a caller's buffer), and
# Cython's casts do not show that this is type punning. MSVC never assumes the opposite, so all compilers agree.
# Never -march=native: a wheel must run on another machine than the one that built it. -g0: Python's own flags ask for debug
# information, which makes the modules six times as large and takes two fifths of the compiler's time.
if MSVC:
    COMPILE = ["/Od", "/UNDEBUG"] if DEBUG else ["/O2"]
else:
    COMPILE = ["-fno-strict-aliasing", *(["-Og", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"])]

# Without CYTHON_WITHOUT_ASSERTIONS an `assert` in nogil code costs a branch in every release build.
MACROS = (
    [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("FASTTCP_DEBUG", "1")]
    if DEBUG
    else [("CYTHON_WITHOUT_ASSERTIONS", "1")]
) + ([("FASTTCP_PORTABLE", "1"), ("FASTTCP_PLAIN_MEMORY", "1")] if PORTABLE else [])

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": DEBUG,
    "linetrace": DEBUG,
    "embedsignature": True,
}


class BuildCython(build_ext):
    """Translates to C only when extensions are built, so that metadata and an sdist need no C and contain none. As many
    compilers run at once as there are CPUs, unless --parallel says otherwise."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = True

    def run(self):
        mode = ("debug" if DEBUG else "release") + ("-portable" if PORTABLE else "")
        stamp = Path("build/mode")
        if not stamp.exists() or stamp.read_text() != mode:
            stamp.parent.mkdir(exist_ok=True)
            stamp.write_text(mode)
        c_sources = cythonize(
            self.extensions,
            build_dir=f"build/{mode}",
            compiler_directives=DIRECTIVES,
            quiet=self.verbose < 1,
            # Elsewhere a new process is a new interpreter, which costs more than it saves.
            nthreads=(os.cpu_count() or 1) if sys.platform.startswith("linux") else 0,
            cache="CYTHON_CACHE_DIR" in os.environ,  # Cython's own variable, which alone would do nothing
        )
        for extension, translated in zip(self.extensions, c_sources, strict=True):
            extension.sources = translated.sources
            extension.depends = [*extension.depends, str(stamp)]
        super().run()


def sources(pattern):
    return sorted(path.as_posix() for path in Path("fasttcp").rglob(pattern))


if __name__ == "__main__":  # a translating process may import this file
    setup(
        ext_modules=[
            Extension(
                path.removesuffix(".pyx").replace("/", "."),
                [path],
                depends=sources("*.h"),
                include_dirs=["fasttcp/core", "fasttcp/load", "fasttcp/packets"],
                define_macros=MACROS,
                extra_compile_args=COMPILE,
            )
            for path in sources("*.pyx")
        ],
        cmdclass={"build_ext": BuildCython},
    )
