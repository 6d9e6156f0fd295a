"""The one place below the packets where a file is opened: a saved table is written, or read, whole.

What the bytes mean is not known here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` when all of it is on the disk, and leaves no trace otherwise.

    A reader of `path` sees the old file or the new one, never a part. Only its owner may read it. Where `path` is a link, its
    file is replaced, not the link. Raises OSError; also for a device or a pipe, whose place a file would take.
    """
    import tempfile  # not at the top: 3 ms that only who saves needs

    path = os.path.realpath(os.fspath(path))
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path} is a device or a pipe, and would be replaced by a file")
    handle, temporary = tempfile.mkstemp(prefix=os.path.basename(path) + ".", suffix=".part", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
