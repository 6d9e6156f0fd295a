"""Builds the extensions: every .pyx below fasttcp/. All other settings are in pyproject.toml."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("FASTTCP_DEBUG") == "1"
OPTIMISE = ["/O2"] if sys.platform == "win32" else ["-O3"]

extensions = [
    Extension(
        ".".join(path.with_suffix("").parts),
        [str(path)],
        include_dirs=["fasttcp/core"],
        extra_compile_args=OPTIMISE,
        define_macros=[("CYTHON_TRACE_NOGIL", "1"), ("FASTTCP_DEBUG", "1")] if DEBUG else [],
    )
    for path in sorted(Path("fasttcp").rglob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir="build",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "linetrace": DEBUG,
            "embedsignature": True,
        },
    ),
)
