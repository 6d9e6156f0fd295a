from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple, SupportsIndex, final

from typing_extensions import Buffer

__all__ = [
    "ACK",
    "CWR",
    "ECE",
    "FIN",
    "INFO_BAD_CHECKSUM",
    "INFO_BAD_HEADER",
    "INFO_IPV6",
    "OPT_MSS",
    "OPT_SACK_PERMITTED",
    "OPT_TIMESTAMPS",
    "OPT_WSCALE",
    "PSH",
    "RST",
    "SEGMENT_BYTES",
    "SEGMENT_DTYPE",
    "SYN",
    "URG",
    "Segment",
    "SegmentBatch",
    "flag_names",
]

FIN: Final[int]
SYN: Final[int]
RST: Final[int]
PSH: Final[int]
ACK: Final[int]
URG: Final[int]
ECE: Final[int]
CWR: Final[int]
OPT_MSS: Final[int]
OPT_WSCALE: Final[int]
OPT_SACK_PERMITTED: Final[int]
OPT_TIMESTAMPS: Final[int]
INFO_IPV6: Final[int]
INFO_BAD_CHECKSUM: Final[int]
INFO_BAD_HEADER: Final[int]
SEGMENT_BYTES: Final[int]
SEGMENT_DTYPE: Final[dict[str, Any]]

def flag_names(flags: int) -> str: ...

class Segment(NamedTuple):
    time_ns: int
    src: str
    sport: int
    dst: str
    dport: int
    flags: int
    seq: int
    ack: int
    window: int
    payload: int
    mss: int | None
    wscale: int | None
    sack_permitted: bool
    tsval: int | None
    tsecr: int | None
    ip_bytes: int
    info: int

@final
class SegmentBatch(Buffer):
    def __init__(self, capacity: SupportsIndex | Buffer = 1024) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, place: SupportsIndex) -> Segment: ...
    def __iter__(self) -> Iterator[Segment]: ...
    def append(
        self,
        *,
        src: str | bytes | IPv4Address | IPv6Address,
        dst: str | bytes | IPv4Address | IPv6Address,
        sport: int,
        dport: int,
        flags: int | str = 0,
        seq: int = 0,
        ack: int = 0,
        window: int = 0,
        payload: int = 0,
        time_ns: int = 0,
        mss: int | None = None,
        wscale: int | None = None,
        sack_permitted: bool = False,
        tsval: int | None = None,
        tsecr: int | None = None,
        ip_bytes: int | None = None,
        info: int = 0,
    ) -> None: ...
    def clear(self) -> None: ...
    def reserve(self, capacity: SupportsIndex) -> None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def exports(self) -> int: ...
    @property
    def writable(self) -> bool: ...
