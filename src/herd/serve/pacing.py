"""When readers are told of new tokens: at once, but not more often than an eye can follow.

A step of a small model takes a few milliseconds, and to wake a reader, write to its socket and let it read takes a
tenth of one for each stream. So what comes within PACE seconds goes out together. First tokens and ends wait for
nothing, and nothing waits where steps take longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from herd.serve.inbox import Inbox

PACE = 0.03  # seconds: herd's choice


class Waker:
    """Wakes inboxes; used on the event loop's thread alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Inbox, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last = -PACE  # when all were woken

    def tell(self, touched: Mapping[Inbox, bool]) -> None:
        """New events are in these; True for those that cannot wait."""
        self._waiting.update(dict.fromkeys(touched))
        wait = self._last + PACE - self._loop.time()
        if wait <= 0:
            self._wake_all()
            return
        for inbox in [inbox for inbox, urgent in touched.items() if urgent]:
            del self._waiting[inbox]
            inbox.wake()
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(wait, self._wake_all)

    def _wake_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._last = self._loop.time()
        waiting, self._waiting = self._waiting, {}
        for inbox in waiting:
            inbox.wake()
