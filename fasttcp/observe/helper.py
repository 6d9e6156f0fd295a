"""A second thread for `track`: it does what it is given, one thing after the other, while the first goes on.

What must not stand here: what the work is. It is worth giving when it runs for some tenths of a millisecond without the
GIL: handing over and waiting cost some 20 us.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

__all__ = ["Helper", "Job"]


class Job:
    """One thing that was given to a helper."""

    __slots__ = ("_call", "_done", "_failure", "_result")

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call: Callable[[], Any] | None = call
        self._result: Any = None
        self._failure: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    @property
    def done(self) -> bool:
        return not self._done.locked()

    def run(self) -> None:
        """For the helper."""
        try:
            if self._call is not None:
                self._result = self._call()
        except BaseException as failure:  # whoever waits for the result gets it
            self._failure = failure
        finally:
            self._call = None
            self._done.release()

    def outcome(self) -> Any:
        """The same as `wait`, but None for a call that has raised."""
        with self._done:
            return self._result

    def wait(self) -> Any:
        """What the call has returned, when it has; or what it has raised. Ctrl-C interrupts the waiting."""
        with self._done:
            if self._failure is not None:
                raise self._failure
            return self._result


class Helper:
    """A thread with a queue. A daemon: it does not keep the interpreter from ending."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True).start()

    def give(self, call: Callable[[], Any]) -> Job:
        """Jobs are done in the order in which they were given."""
        job = Job(call)
        self._jobs.put(job)
        return job

    def dismiss(self) -> None:
        """The thread may go when all that was given is done. Twice is harmless."""
        self._jobs.put(None)


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run()
        job = None  # what it holds must not live until the next one comes
