"""fasttcp: the state of millions of TCP connections in one Python process.

Every name below is loaded when it is first asked for, so that ``import fasttcp`` costs nothing.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fasttcp.core.outcomes import Outcome
    from fasttcp.core.segments import (
        SEGMENT_DTYPE,
        Segment,
        SegmentBatch,
    )
    from fasttcp.core.shards import ShardedTable
    from fasttcp.core.steps import TraceStep
    from fasttcp.core.table import ConnectionTable
    from fasttcp.errors import (
        CaptureError,
        FastTCPError,
        FilterError,
        InvariantError,
        PortsExhausted,
        ProfileError,
        SegmentError,
        SnapshotError,
        StaleHandle,
        StateError,
        TableFull,
        TupleInUse,
        WrongThread,
    )
    from fasttcp.observe.track import Track, track
    from fasttcp.observe.tracker import Connection
    from fasttcp.profiles import (
        BSD,
        LINUX,
        RFC9293,
        ZEEK,
        Profile,
        profile,
    )
    from fasttcp.spec import (
        TRANSITIONS,
        Action,
        Event,
        State,
        Transition,
        transition,
    )
    from fasttcp.verdicts import OutcomeFlag, Verdict

_HOMES = {
    "fasttcp.core.outcomes": ("Outcome",),
    "fasttcp.core.segments": ("SEGMENT_DTYPE", "Segment", "SegmentBatch"),
    "fasttcp.core.shards": ("ShardedTable",),
    "fasttcp.core.steps": ("TraceStep",),
    "fasttcp.core.table": ("ConnectionTable",),
    "fasttcp.errors": (
        "CaptureError",
        "FastTCPError",
        "FilterError",
        "InvariantError",
        "PortsExhausted",
        "ProfileError",
        "SegmentError",
        "SnapshotError",
        "StaleHandle",
        "StateError",
        "TableFull",
        "TupleInUse",
        "WrongThread",
    ),
    "fasttcp.observe.track": ("Track", "track"),
    "fasttcp.observe.tracker": ("Connection",),
    "fasttcp.profiles": ("BSD", "LINUX", "RFC9293", "ZEEK", "Profile", "profile"),
    "fasttcp.spec": ("TRANSITIONS", "Action", "Event", "State", "Transition", "transition"),
    "fasttcp.verdicts": ("OutcomeFlag", "Verdict"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BSD",
    "LINUX",
    "RFC9293",
    "SEGMENT_DTYPE",
    "TRANSITIONS",
    "ZEEK",
    "Action",
    "CaptureError",
    "Connection",
    "ConnectionTable",
    "Event",
    "FastTCPError",
    "FilterError",
    "InvariantError",
    "Outcome",
    "OutcomeFlag",
    "PortsExhausted",
    "Profile",
    "ProfileError",
    "Segment",
    "SegmentBatch",
    "SegmentError",
    "ShardedTable",
    "SnapshotError",
    "StaleHandle",
    "State",
    "StateError",
    "TableFull",
    "TraceStep",
    "Track",
    "Transition",
    "TupleInUse",
    "Verdict",
    "WrongThread",
    "__version__",
    "profile",
    "track",
    "transition",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


class _Unbuilt:
    """The last finder, asked when none has found a module: if its source is here, it was only not compiled."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        folders = path if path and name.startswith("fasttcp.") else ()
        if any(os.path.exists(os.path.join(folder, name.rpartition(".")[2] + ".pyx")) for folder in folders):
            raise ModuleNotFoundError(
                f"{name} is not compiled: {os.path.dirname(__path__[0])} is a source tree that was not built. "
                "Run `pip install -e .` there, or leave that folder to import a fasttcp that is installed elsewhere",
                name=name,
            )


if os.path.exists(os.path.join(__path__[0], "core", "table.pyx")):  # a source tree; an installed package has none
    sys.meta_path.append(_Unbuilt)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
