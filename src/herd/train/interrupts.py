"""Ctrl-C and SIGTERM during training: the step ends and a checkpoint is kept; a second Ctrl-C stops at once.

Under torchrun a second one does not: it passes on to its processes what the terminal has sent them already, and kills
them itself when they take too long.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Training was told to stop and has kept a checkpoint. A shell's exit code: 128 and the signal's number.

    torchrun starts processes again that end so, unless it was told to stop itself: whoever takes one process or one
    machine away from a job finds the job going on without it.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"told to stop by {number.name}")
        self.exit_code = 128 + number


class Interrupts:
    """Within the block, the first signal sets `asked`; a second SIGINT raises KeyboardInterrupt where it lands.

    Only the main thread can hold signals; in any other thread the block does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self.signal = signal.SIGTERM  # what another process was told cannot be known here
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._first) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]  # what signal() gave before

    def _first(self, number: int, frame: FrameType | None) -> None:
        self.asked, self.signal = True, signal.Signals(number)
        if number == signal.SIGINT and os.environ.get("WORLD_SIZE", "1") == "1":
            signal.signal(signal.SIGINT, signal.default_int_handler)
