from collections.abc import Sequence

__all__ = ["serve_sockets"]

def serve_sockets(
    listeners: Sequence[int],
    parent: int,
    answer: bytes = b"",
    *,
    close: bool = False,
    echo: bool = False,
    files: int = ...,
) -> None: ...
