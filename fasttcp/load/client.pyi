from collections.abc import Iterable
from typing import Final

from fasttcp.core.table import ConnectionTable
from fasttcp.load.histogram import Histogram

__all__ = ["COUNTS", "OUTCOMES", "LoadClient"]

COUNTS: Final[tuple[str, ...]]
OUTCOMES: Final[tuple[str, ...]]

class LoadClient:
    @property
    def table(self) -> ConnectionTable: ...
    @property
    def connect(self) -> Histogram: ...
    @property
    def first_byte(self) -> Histogram: ...
    @property
    def close(self) -> Histogram: ...
    @property
    def over(self) -> bool: ...
    @property
    def filled(self) -> bool: ...
    def __init__(
        self,
        table: ConnectionTable,
        fd: int,
        sources: Iterable[str | bytes],
        targets: Iterable[tuple[str | bytes, int]],
        *,
        request: bytes = b"",
        end: str = "nothing",
        nbytes: int = 0,
        line: str | None = None,
        requests: int = 1,
        close: str = "fin",
        half_close: bool = False,
        life: tuple[str, float, float] = ("forever", 0, 0),
        think: tuple[str, float, float] = ("fixed", 0, 0),
        timeout_ns: int = 0,
        connecting_limit: int = 512,
        seed: int = 1,
        numbers: tuple[int, int] = (0, 1),
        plain: bool = False,
    ) -> None: ...
    def plan(
        self,
        *,
        rate: float = 0.0,
        poisson: bool = False,
        hold: int = 0,
        churn: float = 0.0,
        opening: bool = True,
        fewer: bool = False,
        delay_ns: int = 0,
    ) -> None: ...
    def release(self) -> None: ...
    def run(self, for_ns: int) -> None: ...
    def end(self) -> None: ...
    def cut(self) -> None: ...
    def counts(self) -> dict[str, int]: ...
    def ports(self) -> tuple[int, int]: ...
    def check(self) -> None: ...
