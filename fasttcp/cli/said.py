"""How an error is told: what it is about first, if that is known, and never a traceback."""

from __future__ import annotations

import errno

__all__ = ["NO_ROOM", "said"]

NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # of a write, the system tells these without a name


def said(failure: BaseException) -> str:
    """One line for a user."""
    if not isinstance(failure, OSError) or not failure.strerror:
        return str(failure) or type(failure).__name__
    name = failure.filename
    return failure.strerror if name is None else f"{name or repr(name)}: {failure.strerror}"
