from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple, TypeAlias

from typing_extensions import Buffer, Self

__all__ = [
    "ACK",
    "CWR",
    "ECE",
    "FIN",
    "INFO_BAD_CHECKSUM",
    "INFO_BAD_HEADER",
    "INFO_CUT",
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

_Address: TypeAlias = str | bytes | bytearray | memoryview | IPv4Address | IPv6Address

FIN: int
SYN: int
RST: int
PSH: int
ACK: int
URG: int
ECE: int
CWR: int
OPT_MSS: int
OPT_WSCALE: int
OPT_SACK_PERMITTED: int
OPT_TIMESTAMPS: int
INFO_IPV6: int
INFO_BAD_CHECKSUM: int
INFO_BAD_HEADER: int
INFO_CUT: int
SEGMENT_BYTES: int
SEGMENT_DTYPE: dict[str, Any]

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

class SegmentBatch(Buffer):
    def __new__(cls, capacity: int | Buffer = 1024) -> Self: ...
    @property
    def capacity(self) -> int: ...
    @property
    def exports(self) -> int: ...
    @property
    def writable(self) -> bool: ...
    def __len__(self) -> int: ...
    def __getitem__(self, place: int, /) -> Segment: ...
    def __iter__(self) -> Iterator[Segment]: ...
    def append(
        self,
        *,
        src: _Address,
        dst: _Address,
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
    def reserve(self, capacity: int) -> None: ...
