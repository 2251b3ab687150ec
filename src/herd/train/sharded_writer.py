"""One job at a time beside training: a thread that writes, and whose errors come back to who waits for it.

    writer.start(job)       # waits for the job before; raises what went wrong with it
    writer.failed           # whether `wait` would raise
    writer.wait()

The thread stands ready between jobs: starting one would hand it the interpreter's lock in the middle of a pause. It is
a daemon: a process that ends for another reason does not wait for peers that are gone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Writer:
    """A thread with one job, or none."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Run `job` beside the caller."""
        self.wait()
        self._idle.clear()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    @property
    def failed(self) -> bool:
        return self._error is not None

    def wait(self) -> None:
        """Until the job is done; raises its error, once."""
        self._idle.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """End the thread, after the job."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread = None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # raised where somebody waits
                self._error = error
            finally:
                self._idle.set()
