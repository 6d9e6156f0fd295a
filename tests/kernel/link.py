"""The wire between two namespaces: a user-space link that loses, reorders or holds exactly what it is told to.

    namespace A  [ TAP ] <-- Link --> [ TAP ]  namespace B

Preferred to netem: netem draws lots and is not in every kernel, while here "lose the first SYN" is a rule. Nothing
runs in the background: a frame that a kernel has sent waits in its TAP's queue until the test calls `collect`. So two
ends can act "at the same time", and a test can look at both ends after every single packet.

Must not know socket states nor files.
"""

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import frames, pcap

LARGEST = 1 << 16
MLD_REPORT = bytes.fromhex("333300000016")  # to ff02::16


@dataclass
class Frame:
    """A frame that one side has sent."""

    side: str  # who sent it, "a" or "b"
    data: bytes
    number: int  # its place in the recording, from 1; 0 if nothing is recorded
    tcp: frames.Tcp | None


class Link:
    """Joins two TAP files. `lose(frame)` says which frames vanish, after they were recorded.

    `writer` records each frame as it enters the wire, in one order for both directions, at the time of CLOCK_REALTIME;
    None records nothing. `vlan` tags the recorded frames: the link is then a trunk between two access ports.
    """

    def __init__(self, tap_a: int, tap_b: int) -> None:
        self.taps = {"a": tap_a, "b": tap_b}
        self.writer: pcap.Writer | None = None
        self.vlan: int | None = None
        self.lose: Callable[[Frame], bool] = lambda frame: False
        self.delivered: Callable[[Frame], None] = lambda frame: None
        self.lost: list[int] = []  # recorded but not delivered, by number
        self.passed = 0  # frames that reached the other side

    def collect(self, timeout: float = 0.0) -> list[Frame]:
        """Takes and records all frames that wait on both sides, A's first; waits up to `timeout` s for the first."""
        readable, _, _ = select.select(list(self.taps.values()), [], [], timeout)
        taken = []
        for side, tap in self.taps.items():
            while tap in readable:
                try:
                    data = os.read(tap, LARGEST)
                except BlockingIOError:
                    break
                if data[:6] == MLD_REPORT:
                    continue  # IPv6 sends them at random times: no two recordings would be alike
                taken.append(Frame(side, data, self.record(data), frames.parse(data)))
        return taken

    def record(self, data: bytes) -> int:
        """Writes a frame to the recording and returns its number, from 1; 0 if nothing is recorded."""
        if self.writer is None:
            return 0
        self.writer.add(time.time_ns(), data if self.vlan is None else frames.tagged(data, self.vlan))
        return len(self.writer.records)

    def deliver(self, frame: Frame) -> None:
        """Hands a frame to the other side's kernel, which has processed it when this returns, or loses it."""
        if self.lose(frame):
            if frame.number:
                self.lost.append(frame.number)
            return
        os.write(self.taps["b" if frame.side == "a" else "a"], frame.data)
        self.passed += 1
        self.delivered(frame)

    def pump(self, *, quiet: float = 0.0, until: Callable[[], bool] | None = None, limit: float = 10.0) -> None:
        """Carries frames until `until()` is true, or without it until the wire was quiet for `quiet` s.

        Frames that both sides sent before one call cross each other. Raises TimeoutError after `limit` s.
        """
        end = time.monotonic() + limit
        while until is None or not until():
            waiting = self.collect(quiet if until is None else 0.01)
            if not waiting and until is None:
                return
            for frame in waiting:
                self.deliver(frame)
            if time.monotonic() > end:
                raise TimeoutError(f"the wire did not come to rest, or to the expected state, in {limit} s")


def lose_first(count: int, matches: Callable[[Frame], bool]) -> Callable[[Frame], bool]:
    """A rule for `Link.lose`: the first `count` frames that match vanish, every later one passes."""
    left = count

    def rule(frame: Frame) -> bool:
        nonlocal left
        if left and matches(frame):
            left -= 1
            return True
        return False

    return rule
