"""Churn in this process: a made-up stream into a table, with the clock running only while the table works.

This file measures; it prints nothing and decides nothing about TCP. The segments are made between the measured calls, so
the figures are the table's own.
"""

from __future__ import annotations

import statistics
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass

from fasttcp.core.shards import ShardedTable
from fasttcp.core.table import ConnectionTable
from fasttcp.load.churn import SEGMENT_BYTES, ChurnStream, wheel_lag
from fasttcp.spec import State

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["ChurnReport", "run_churn"]

BATCH = 4_096  # segments a call of one thread
CHUNK = 65_536  # segments made at a time
HEADROOM = 1.04  # rows for each connection: the stream's numbers sway a little
TICK_NS = 10_000_000
MOST_THREADS = 64  # shards of a table


@dataclass(frozen=True, slots=True)
class ChurnReport:
    """What a run has shown. Times are wall clock inside `apply`, shared out over the segments of each call."""

    connections: int  # asked for
    live: int  # in the table at the end
    mix: str
    seed: int
    threads: int
    steady: bool  # False: stopped while the table was still filling up; the figures are of that phase
    interrupted: bool
    events: int  # segments applied while measuring
    seconds: float  # spent in apply
    connections_ended: int
    time_wait_share: float  # of the live connections
    expiry_lag_ticks: int  # the furthest that the timers have been behind after a call; 0: never
    tick_ns: int
    batch: int
    median_call_ns: int
    worst_call_ns: int
    bytes_a_connection: float  # of the table: rows, index, timers
    peak_rss_bytes: int | None  # of the process, the stream included; None where the system does not say

    @property
    def events_a_second(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def ns_an_event(self) -> float:
        return self.seconds * 1e9 / self.events if self.events else 0.0

    @property
    def connections_a_second(self) -> float:
        return self.connections_ended / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, object]:
        """All of it, for JSON."""
        derived = ("events_a_second", "ns_an_event", "connections_a_second")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}


def run_churn(
    connections: int = 1_000_000,
    *,
    events: int | None = None,
    seconds: float | None = None,
    threads: int = 1,
    mix: str = "ipv4",
    seed: int = 1,
    progress: Callable[[str, float, ChurnReport], None] | None = None,
) -> ChurnReport:
    """Fill a table with `connections` connections, then measure `events` segments or for `seconds` of the table's time.

    With neither, ten segments for each connection. progress(phase, share done, report so far) is called some times a second.
    A KeyboardInterrupt ends the run, and the report is of what was measured until then. Raises ValueError for arguments out
    of range, MemoryError when the table does not fit.
    """
    if events is not None and seconds is not None:
        raise ValueError("events and seconds exclude each other")
    if events is not None and events < 1:
        raise ValueError(f"events is {events}: it must be at least 1")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds is {seconds}: it must be more than 0")
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads is {threads}: it must be from 1 to {MOST_THREADS}")
    if events is None and seconds is None:
        events = max(10 * connections, 1_000_000)
    stream = ChurnStream(connections, mix=mix, seed=seed)
    table = _table(round(connections * HEADROOM) + 1024, threads, seed)
    run = _Run(stream, table, threads)
    try:
        warm_up = stream.warm_up
        while run.events < warm_up:
            run.chunk(CHUNK)
            if progress is not None:
                run.tell(progress, "filling", run.events / warm_up)
        run.reset()
        while run.events < events if events is not None else run.spent_ns < (seconds or 0.0) * 1e9:
            run.chunk(CHUNK if events is None else min(CHUNK, events - run.events))
            if progress is not None:
                done = run.events / events if events is not None else run.spent_ns / ((seconds or 1.0) * 1e9)
                run.tell(progress, "measuring", min(done, 1.0))
    except KeyboardInterrupt:
        run.interrupted = True
    return run.report()


def _table(rows: int, threads: int, seed: int) -> ConnectionTable | ShardedTable:
    if threads == 1:
        return ConnectionTable(rows, seat="observer", seed=seed, tick_ns=TICK_NS)
    return ShardedTable(rows, shards=threads, seed=seed, tick_ns=TICK_NS)


class _Run:
    """The loop's state: what has been applied and how long it took."""

    def __init__(self, stream: ChurnStream, table: ConnectionTable | ShardedTable, threads: int) -> None:
        self.stream, self.table, self.threads = stream, table, threads
        self.tables = table.tables if isinstance(table, ShardedTable) else (table,)
        self.batch = BATCH if threads == 1 else CHUNK
        self.memory = memoryview(bytearray(CHUNK * SEGMENT_BYTES))
        self.interrupted = self.steady = False
        self.told = 0.0
        self.reset(steady=False)

    def reset(self, steady: bool = True) -> None:
        """Forget what was measured: the next phase begins."""
        self.steady = steady
        self.events = self.spent_ns = self.lag = 0
        self.calls = array("Q")
        self.ended_before = self.table.tallies()["ended"]

    def chunk(self, n: int) -> None:
        """Make n segments, then apply them batch by batch with the clock running."""
        self.stream.write_into(self.memory[: n * SEGMENT_BYTES])
        apply, memory, clock = self.table.apply, self.memory, time.perf_counter_ns
        for at in range(0, n, self.batch):
            upto = min(at + self.batch, n)
            piece = memory[at * SEGMENT_BYTES : upto * SEGMENT_BYTES]
            begin = clock()
            apply(piece)
            took = clock() - begin
            self.calls.append(took)
            self.spent_ns += took
            self.events += upto - at
            self.lag = max(self.lag, *map(wheel_lag, self.tables))

    def tell(self, progress: Callable[[str, float, ChurnReport], None], phase: str, done: float) -> None:
        now = time.monotonic()
        if now - self.told >= 0.2:
            self.told = now
            progress(phase, done, self.report())

    def report(self) -> ChurnReport:
        live = len(self.table)
        counts = self.table.counts()
        calls = self.calls
        return ChurnReport(
            connections=self.stream.connections,
            live=live,
            mix=self.stream.mix.name,
            seed=self.stream.seed,
            threads=self.threads,
            steady=self.steady,
            interrupted=self.interrupted,
            events=self.events,
            seconds=self.spent_ns / 1e9,
            connections_ended=self.table.tallies()["ended"] - self.ended_before,
            time_wait_share=counts[State.TIME_WAIT] / live if live else 0.0,
            expiry_lag_ticks=self.lag,
            tick_ns=TICK_NS,
            batch=self.batch,
            median_call_ns=round(statistics.median(calls)) if calls else 0,
            worst_call_ns=max(calls, default=0),
            bytes_a_connection=self.table.nbytes / live if live else 0.0,
            peak_rss_bytes=_peak_rss(),
        )


def _peak_rss() -> int | None:
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kilobytes elsewhere
