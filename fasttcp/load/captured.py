"""A load out of a capture: when connections came, how long they lived, and who closed them, as `track` saw it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from fasttcp.load.loads import Captured, Load
from fasttcp.observe.track import track

__all__ = ["captured_load", "read_capture"]

CLIENT, SERVER, NOBODY = 0, 1, 2  # who closes first; NOBODY: a RST, so that nobody is ever in TIME_WAIT


class _Connection(Protocol):
    @property
    def orig_addr(self) -> str: ...
    @property
    def resp_addr(self) -> str: ...
    @property
    def resp_port(self) -> int: ...
    @property
    def first_ns(self) -> int: ...
    @property
    def duration_ns(self) -> int: ...
    @property
    def end(self) -> str: ...
    @property
    def history(self) -> str: ...


def read_capture(source: Any) -> Load:
    """The load of a capture: a path or whatever `track` reads. Raises OSError, CaptureError, ValueError when it holds no
    connection whose opening was seen."""
    return captured_load(track(source, profile="linux", checksums="ignore"), str(source))


def captured_load(connections: Iterable[_Connection], name: str = "") -> Load:
    """The load of these connections, to be repeated in full length.

    Counted are connections whose handshake was seen. One that still lives at the end closes then, by the client; one that was
    reset is reset. The length of the period is from the first arrival to the last, and one mean gap.
    """
    found = []
    for one in connections:
        history = one.history.lstrip("^")
        if "S" in history and "h" in history:
            found.append((one.first_ns, one.duration_ns, (one.orig_addr, one.resp_addr, one.resp_port), _closer(one)))
    if not found:
        raise ValueError(f"{name or 'the capture'}: no connection whose opening was seen")
    found.sort(key=lambda each: each[0])
    pairs = {pair: None for _, _, pair, _ in found}
    number = {pair: at for at, pair in enumerate(pairs)}
    begin, end = found[0][0], found[-1][0]
    gap = (end - begin) // (len(found) - 1) if len(found) > 1 else found[0][1]
    period = max(1, end - begin + gap)
    closers = [closer for _, _, _, closer in found if closer != NOBODY]
    return Load(
        rate=len(found) / period * 1e9,
        lifetime_ns=sum(life for _, life, _, _ in found) // len(found),
        sources=len({pair[0] for pair in pairs}), destinations=len({pair[1:] for pair in pairs}),
        loopback=all(pair[0].startswith("127.") or pair[0] == "::1" for pair in pairs),
        server_share=sum(closer == SERVER for closer in closers) / len(closers) if closers else 0.0,
        captured=Captured(
            tuple((at - begin, life, number[pair], closer) for at, life, pair, closer in found), tuple(pairs), period, name
        ),
    )  # fmt: skip


def _closer(one: _Connection) -> int:
    """Whose FIN came first; a RST before any FIN: nobody's."""
    for letter in one.history:
        if letter in "Ff":
            return CLIENT if letter == "F" else SERVER
        if letter in "Rr":
            return NOBODY
    return CLIENT
