from typing import Any, final

from fasttcp.observe.tracker import Tracker

__all__ = ["Talkers"]

@final
class Talkers:
    def __init__(self, tracker: Tracker) -> None: ...
    def look(self, most: int = 20) -> list[dict[str, Any]]: ...
