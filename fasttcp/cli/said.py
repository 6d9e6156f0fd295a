"""How an error is told: what it is about first, if that is known, and never a traceback."""

from __future__ import annotations

import errno

__all__ = ["NO_ROOM", "said"]

NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def said(failure: BaseException) -> str:
    """One line for a user. A disk that is full is told by the system without a name: it is the output's."""
    if not isinstance(failure, OSError) or not failure.strerror:
        return str(failure) or type(failure).__name__
    name = failure.filename
    if name is None:
        return f"output: {failure.strerror}" if failure.errno in NO_ROOM else failure.strerror
    return f"{name or repr(name)}: {failure.strerror}"
