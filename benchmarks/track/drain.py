"""One run of fasttcp over a capture without a log: every connection is tracked, ended and thrown away. Prints JSON.

    python -m benchmarks.track.drain big.pcap validate
    python -m benchmarks.track.drain big.pcap validate threads      the log as well: one thread, two, and which does how much

Start-up of Python and imports are not in the times; what `fasttcp track` costs as a whole is measured on the command itself.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from pathlib import Path

from fasttcp.observe.track import track

__all__ = ["anonymous_bytes", "drain"]


def anonymous_bytes() -> int | None:
    """Memory of this process that is no file's: Linux's RssAnon. A mapped capture is the page cache's, whoever reads it."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return None


def drain(path: str, checksums: str = "validate", *, memory: bool = False) -> dict[str, object]:
    """Reads all of it; with memory=True looks at the memory after each step, some 8,000 connections or 262,144 segments."""
    before = anonymous_bytes() or 0
    peak = live = 0
    began, cpu = time.perf_counter(), time.process_time()
    followed = track(path, checksums=checksums)
    for _ in followed.steps():
        followed.tracker.discard()
        if memory:
            live = max(live, len(followed.tracker.table))
            peak = max(peak, (anonymous_bytes() or 0) - before)
    result: dict[str, object] = {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "packets": followed.packets,
        "connections": sum(followed.tracker.ends().values()),
    }
    if memory:
        result |= {"live": live, "bytes": peak}
    return result


def shared(path: str, checksums: str, threads: int) -> dict[str, float]:
    """Reads all of it and writes the log to nowhere: seconds by the clock, and of CPU of the first thread and of the second."""
    began, cpu = time.perf_counter(), time.thread_time()
    pieces = track(path, checksums=checksums, threads=threads).lines("zeek")
    helpers = [thread.ident for thread in threading.enumerate() if thread.name == "fasttcp track" and thread.is_alive()]
    clocks = [time.pthread_getcpuclockid(ident) for ident in helpers[-1:] if ident is not None and threads > 1]
    spent = 0.0
    for _ in pieces:
        with contextlib.suppress(OSError):  # at the last piece it may have gone
            spent = max([spent, *map(time.clock_gettime, clocks)])
    return {"seconds": time.perf_counter() - began, "first": time.thread_time() - cpu, "second": spent}


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[3:] not in ([], ["memory"], ["threads"]):
        sys.exit("usage: python -m benchmarks.track.drain CAPTURE validate|ignore [memory|threads]")
    if sys.argv[3:] == ["threads"]:
        print(json.dumps({str(threads): shared(sys.argv[1], sys.argv[2], threads) for threads in (1, 2)}))
    else:
        print(json.dumps(drain(sys.argv[1], sys.argv[2], memory=sys.argv[3:] == ["memory"])))
