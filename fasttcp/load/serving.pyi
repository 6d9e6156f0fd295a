from fasttcp.core.table import ConnectionTable

__all__ = ["LoadServer"]

class LoadServer:
    @property
    def table(self) -> ConnectionTable: ...
    def __init__(
        self,
        table: ConnectionTable,
        fd: int,
        *,
        mode: str = "answer",
        answer: bytes = b"",
        close: bool = False,
        rate: int = 65536,
    ) -> None: ...
    def run(self, for_ns: int) -> None: ...
    def reset_all(self) -> None: ...
    def counts(self) -> dict[str, int]: ...
