from typing import Any, final

from fasttcp.observe.tracker import Connection
from fasttcp.packets.reader import CaptureReader
from fasttcp.profiles import Profile

__all__ = ["Teller"]

@final
class Teller:
    def __init__(self, profile: Profile, ends: tuple[tuple[str, int], tuple[str, int]]) -> None: ...
    @property
    def found(self) -> int: ...
    @property
    def first_side(self) -> int: ...
    def feed(self, reader: CaptureReader) -> list[tuple[Any, ...]] | None: ...
    def finish(self) -> tuple[list[tuple[Any, ...]], list[Connection]]: ...
