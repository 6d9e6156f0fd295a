"""The command `fasttcp`: one verb, one file. This file knows no more of a verb than its name.

A verb's file has `add_parser(subparsers)`, which sets `run`, a function of the parsed arguments that returns the exit
status. It imports what it works with inside `run`, and only the file of the verb that was asked for is loaded, so that
the command is there as fast as Python starts. Whatever a user can do wrong ends in one line on stderr.

Exit status: 0; 1 when there was nothing that could be read; 2 for wrong arguments; 130 after Ctrl-C. A reader that has
enough (`fasttcp track ... | head`) is no failure: 0, and nothing on stderr.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence

from fasttcp.cli.said import NO_ROOM, said

__all__ = ["main"]

VERBS = ("track", "explain", "top", "load", "serve", "churn", "plan")
DESCRIPTION = "The state of TCP connections: out of captures, in tables, under load."


class _Version(argparse.Action):
    """Reads the version when it is asked for: it costs more than all the rest of the start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("fasttcp")
        except PackageNotFoundError:
            number = "(not installed)"
        print(f"fasttcp {number}")
        parser.exit()


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fasttcp", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    asked = next((word for word in argv if not word.startswith("-")), None)
    for name in (asked,) if asked in VERBS else VERBS:
        importlib.import_module(f"fasttcp.cli.{name}").add_parser(verbs)
    return parser


def _open_streams() -> None:
    """Streams that were closed are nowhere from now on, or the next file that is opened would get their place; stdout has its
    buffer under `python -u` too: without one, what a signal cuts off a write is lost; and what a terminal's or a file's
    character set has not, is a question mark in it."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    raw = getattr(sys.stdout, "buffer", None)
    if isinstance(raw, io.RawIOBase):
        whole = io.BufferedWriter(io.FileIO(raw.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(whole, sys.stdout.encoding, sys.stdout.errors, line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _forget_output() -> None:
    """What is still in stdout's buffer has nowhere to go. Python would try once more at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's); the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if argv is None:
        _open_streams()
    gc.set_threshold(100_000, 20, 20)  # imports make much that stays: looking through it costs 5 ms of every start
    status = 0
    try:
        try:
            args = _parser(arguments).parse_args(arguments)
            status = int(args.run(args))
        finally:
            sys.stdout.flush()  # --help ends with SystemExit
    except BrokenPipeError:  # whoever read our output has enough of it
        _forget_output()
        return status
    except OSError as failure:
        _forget_output()
        if status == 0:  # else the verb has told of it
            what = "output: " if failure.filename is None and failure.errno in NO_ROOM else ""
            print(f"fasttcp: {what}{said(failure)}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 130
    return status
