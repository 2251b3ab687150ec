"""A thread beside training that looks at it: where the main thread stands, whether it works or waits for other ranks.

From looks come the words of this rank's life file, its own time of work (stragglers.py), and, when nothing has moved
for `hang_seconds`, the question which rank all the others wait for. Whoever finds the answer ends its process: then
torchrun ends the rest and starts all again. Timeouts of gloo and NCCL would take half an hour, and name nobody.
"""

from __future__ import annotations

import json
import linecache
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from herd.errors import TrainingError
from herd.train.faults.causes import HUNG
from herd.train.faults.lives import Life, LifeFile, read_lives
from herd.train.faults.settings import FaultSettings

_LONGEST = 10.0  # seconds between two words of a rank, at the most
_WORDS = 8  # of a rank before it can be said to hang
_WAITING = re.compile(
    r"\b(wait|wait_tensor|barrier|i?recv|i?send|all_?reduce\w*|all_?gather\w*|reduce_scatter\w*|broadcast\w*"
    r"|all_to_all\w*|acquire)\("
)
FREE = frozenset({"validation", "the end"})  # phases that may take as long as they like


class Watch:
    """The thread. `enter` is the main thread's: from now on it does `phase` of step `step`."""

    def __init__(
        self, life: LifeFile, folder: Path, settings: FaultSettings, leave: Callable[[str], None] | None = None
    ) -> None:
        self.life, self.folder, self.settings = life, folder, settings
        self.every = min(_LONGEST, settings.hang_seconds / _WORDS) if settings.hang_seconds else _LONGEST
        self.leave = leave or _leave
        self.worked = self.looks = 0.0
        self._step, self._phase, self._entered = 0, "", 0
        self._main = threading.main_thread().ident
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def enter(self, step: int, phase: str) -> None:
        self._step, self._phase = step, phase
        self._entered += 1

    def work(self) -> tuple[float, int]:
        """Seconds of own work since the last call, and of how many looks they are made."""
        found = self.worked, int(self.looks)
        self.worked = self.looks = 0.0
        return found

    def _run(self) -> None:
        moved: object = None
        looked = said = since = time.monotonic()
        while not self._over.wait(self.settings.look_seconds):
            now = time.monotonic()
            stand = _stand(self._main)
            self.looks += 1
            if stand is not None and not stand.waits:
                self.worked += now - looked
            looked = now
            if now - said < self.every:
                continue
            said = now
            count, last = collectives()
            if (count, self._entered) != moved or self._phase in FREE:
                moved, since = (count, self._entered), now
            where, waits = (stand.where, stand.waits) if stand else ("", False)
            self.life.say(
                step=self._step,
                phase=self._phase,
                where=where,
                waits=waits,
                collectives=count,
                collective=last,
                idle=round(now - since, 3),
            )
            if self.settings.hang_seconds and now - since > self.settings.hang_seconds:
                self._find_out()

    def _find_out(self) -> None:
        """Nothing has moved here for long: who is to blame? Nobody, where others still work."""
        before = read_lives(self.folder)
        for _ in range(3):  # this rank must not look dead while it looks
            self._over.wait(self.every)
            self.life.say()
        named = blamed(before, read_lives(self.folder))
        if not named or self._over.is_set():
            return
        detail = told(named, self.life.life)
        self.life.say(ended=HUNG.name, blamed=tuple(life.rank for life in named), detail=detail)
        for life in named:
            _kill(life, self.life.life)
        self.leave(detail)


def blamed(before: Sequence[Life], after: Sequence[Life]) -> list[Life]:
    """The ranks that hang, of what all said twice. Empty while any rank moves, or has ended by itself."""
    first = {life.rank: life for life in before}
    pairs = [(first.get(life.rank, life), life) for life in after]
    if any(life.ended and life.ended != HUNG.name for life in after):
        return []
    silent = [life for old, life in pairs if old.beats == life.beats]
    if silent:
        return silent
    if any(life.idle < old.idle or (life.step, life.phase) != (old.step, old.phase) for old, life in pairs):
        return []
    working = [life for life in after if not life.waits]
    if working:
        return working
    fewest = min(life.collectives for life in after)
    return [life for life in after if life.collectives == fewest]


def told(named: Sequence[Life], own: Life) -> str:
    """Who hangs, where, and where the others are, as one who waits sees it."""
    said = [f"rank {life.rank} hangs at {life.at()}" for life in named]
    if own.rank not in [life.rank for life in named]:
        said.append(f"rank {own.rank} has waited {own.idle:.0f} s at {own.at()}")
    return "; ".join(said)


def _kill(life: Life, own: Life) -> None:
    """A process of this machine that answers no more would keep torchrun waiting."""
    if life.host == own.host and life.pid != own.pid:
        try:
            os.kill(life.pid, signal.SIGKILL)
        except OSError:
            return


def _leave(detail: str) -> None:
    print(f"herd: {detail}; the job ends here and goes on from its last checkpoint", file=sys.stderr, flush=True)
    os._exit(TrainingError.exit_code)  # the main thread is in a wait that nothing ends


@dataclass(frozen=True)
class _Stand:
    where: str
    waits: bool


def _stand(thread: int | None) -> _Stand | None:
    """Where a thread stands now: its innermost line, and the innermost that is not torch's or Python's."""
    frame = sys._current_frames().get(thread or 0)
    if frame is None:
        return None
    code = frame.f_code
    line = linecache.getline(code.co_filename, frame.f_lineno or 0)
    waits = Path(code.co_filename).name == "threading.py" or bool(_WAITING.search(line))
    return _Stand(_place(frame), waits)


def _place(frame: FrameType) -> str:
    own: FrameType | None = frame
    while own is not None and ("/torch/" in own.f_code.co_filename or own.f_code.co_filename.endswith("threading.py")):
        own = own.f_back
    found = own or frame
    return f"{Path(found.f_code.co_filename).name}:{found.f_lineno} in {found.f_code.co_name}"


def collectives() -> tuple[int, str]:
    """How many collectives this process began, and the last one: from torch's flight recorder, if that is on."""
    from torch._C import _distributed_c10d

    try:
        seen = json.loads(_distributed_c10d._dump_fr_trace_json())  # type: ignore[attr-defined]  # torch has no stub
    except (AttributeError, ValueError, RuntimeError):
        return 0, ""
    count = sum(int(group["last_enqueued_collective"]) for group in seen.get("pg_status", {}).values())
    entries = seen.get("entries") or []
    if not entries:
        return count, ""
    last = max(entries, key=lambda one: one["record_id"])
    sizes = "x".join(map(str, (last["input_sizes"] or [[]])[0]))
    return count, f"{last['profiling_name']} of {sizes or 'one number'}"
