"""The line of progress on a terminal, which overwrites itself; standard error, so that results can be piped on."""

from __future__ import annotations

import os
import sys

__all__ = ["clear_progress", "progress_line"]

CLEAR = "\r\033[K"
COLUMNS = 80  # where the terminal does not say


def progress_line(*parts: str) -> None:
    """Show these, the most important first: as many as fit into the width, since a line that wraps stays."""
    try:
        room = (os.get_terminal_size(sys.stderr.fileno()).columns or COLUMNS) - 1
    except OSError:
        room = COLUMNS - 1
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else part[:room]
        if len(longer) <= room:
            line = longer
    print(CLEAR + line, end="", file=sys.stderr, flush=True)


def clear_progress() -> None:
    """Take the line away, before something else is told."""
    print(CLEAR, end="", file=sys.stderr, flush=True)
