from collections.abc import Iterable
from typing import Any, final

from fasttcp.observe.tracker import Tracker

__all__ = ["EntryStream"]

@final
class EntryStream:
    def __init__(self, tracker: Tracker, steps: Iterable[None], fields: Iterable[str] | None = None) -> None: ...
    def __arrow_c_schema__(self) -> Any: ...
    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any: ...
