"""How an error is told: what it is about first, if that is known, and never a traceback."""

from __future__ import annotations

__all__ = ["said"]


def said(failure: BaseException) -> str:
    """One line for a user."""
    if isinstance(failure, OSError) and failure.strerror:
        where = f"{_shown(failure.filename)}: " if failure.filename is not None else ""
        return f"{where}{failure.strerror}"
    return str(failure) or type(failure).__name__


def _shown(name: object) -> str:
    return str(name) if name not in ("", b"") else "''"
