from collections.abc import Sequence

from typing_extensions import Buffer

from fasttcp.core.table import ConnectionTable

__all__ = ["PLANNED", "SAMPLE_FIELDS", "Simulation"]

PLANNED: str
SAMPLE_FIELDS: tuple[str, ...]

class Simulation:
    def __init__(
        self,
        client: ConnectionTable,
        server: ConnectionTable,
        pairs: Sequence[tuple[str, str, int]],
        script: Buffer,
        period_ns: int,
        *,
        delay_ns: int = 500_000,
        answer_ns: int | None = 0,
        sample_ns: int = 1_000_000_000,
        duration_ns: int,
    ) -> None: ...
    def run(self, until_ns: int) -> None: ...
    def samples(self) -> list[tuple[int, ...]]: ...
    def counts(self) -> dict[str, int]: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def peak_pair(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
