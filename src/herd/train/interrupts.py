"""Ctrl-C during training: the first ends the step and keeps a checkpoint, the second stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupts:
    """Within the block, the first SIGINT sets `asked`; the second raises KeyboardInterrupt where it lands.

    Only the main thread can hold signals; in any other thread the block does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: object = None
        self._held = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._first)
            self._held = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            signal.signal(signal.SIGINT, self._before)  # type: ignore[arg-type]  # what signal() gave before

    def _first(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
