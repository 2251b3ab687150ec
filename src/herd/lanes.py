"""Stages side by side: in processes of their own, each on its share of threads, each as soon as its inputs are there.

Small models do not fill a machine: two of them on a thread each train a third more tokens a second than one after the
other on both. A stage says by `at_once` how many of its kind may run together; that number alone decides its
share of the threads, so that its bits depend neither on what runs beside it nor on a kill in between.

    LaneRunner(Path("runs/nano"), watch, threads=2).run(stages)

A lane is `python -m herd.lanes`: it gets pickled stages on its standard input and answers with what a `Watch` wants
to know. It leaves at once when that pipe closes, so no lane outlives its run, even one ended by `kill -9`.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from herd.errors import HerdError
from herd.progress import Fact, Progress
from herd.stages import Numbered, Runner, Stage, Watch

_TELL_EVERY = 0.2  # seconds between two updates of one stage
_PATIENCE = 60.0  # seconds that an interrupted lane has for its checkpoint

Message = tuple[Any, ...]


class LaneRunner(Runner):
    """A `Runner` that gives stages with `at_once` above 1 to lanes. `threads` are those of the whole run."""

    def __init__(self, folder: Path, watch: Watch | None = None, *, threads: int, device: str = "cpu") -> None:
        super().__init__(folder, watch, device=device)
        self.threads = max(1, threads)

    def run_group(self, group: Sequence[Numbered], total: int) -> None:
        waiting = [one for one in group if one.stage.at_once > 1 and not self.finished(one.stage)]
        super().run_group([one for one in group if one not in waiting], total)
        if waiting:
            at_once = waiting[0].stage.at_once
            share, count = max(1, self.threads // at_once), min(at_once, self.threads, len(waiting))
            _Together(self, waiting, total).run(count, share)


class _Lane:
    """One child process, what it is busy with, and the thread that hands on what it says."""

    def __init__(self, runner: Runner, threads: int, messages: queue.Queue[tuple[_Lane, Message]]) -> None:
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        # A session of its own: Ctrl-C in the terminal reaches the run, which hands it on once.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "herd.lanes", str(runner.folder), runner.device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        self.stage: Stage | None = None
        self.progress: Progress | None = None
        threading.Thread(target=self._listen, args=(messages,), daemon=True).start()

    def give(self, one: Numbered, total: int) -> None:
        assert self.process.stdin is not None
        self.stage = one.stage
        try:
            pickle.dump((one.stage, one.number, total), self.process.stdin)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended; its listener tells so

    def _listen(self, messages: queue.Queue[tuple[_Lane, Message]]) -> None:
        assert self.process.stdout is not None
        while True:
            try:
                messages.put((self, pickle.load(self.process.stdout)))
            except (EOFError, pickle.UnpicklingError):
                messages.put((self, ("gone",)))
                return


class _Together:
    """One group of stages on its lanes."""

    def __init__(self, runner: Runner, waiting: list[Numbered], total: int) -> None:
        self.runner, self.watch, self.waiting, self.total = runner, runner.watch, waiting, total
        self.messages: queue.Queue[tuple[_Lane, Message]] = queue.Queue()
        self.lanes: list[_Lane] = []

    def run(self, count: int, threads: int) -> None:
        try:
            self.lanes = [_Lane(self.runner, threads, self.messages) for _ in range(count)]
            self._feed()
            while any(lane.stage for lane in self.lanes):
                self._hear(*self.messages.get())
        except BaseException:
            self._interrupt()
            raise
        finally:
            for lane in self.lanes:
                assert lane.process.stdin is not None
                lane.process.stdin.close()  # a lane leaves when nothing can come any more
                lane.process.wait()

    def _feed(self) -> None:
        """Give every idle lane the first waiting stage whose inputs are finished."""
        for lane in self.lanes:
            ready = (one for one in self.waiting if all(map(self.runner.finished, one.stage.inputs.values())))
            one = None if lane.stage else next(ready, None)
            if one:
                self.waiting.remove(one)
                lane.progress = self.watch.start(one.stage, one.number, self.total)
                lane.give(one, self.total)

    def _hear(self, lane: _Lane, message: Message) -> None:
        stage, (kind, *rest) = lane.stage, message
        if stage is None or lane.progress is None:
            return  # a lane that leaves after its work
        if kind == "update":
            lane.progress.update(*rest)
        elif kind == "note":
            lane.progress.note(*rest)
        elif kind == "done":
            seconds, metrics = rest
            self.watch.done(stage, seconds, metrics, False)
            lane.stage = lane.progress = None
            self._feed()
        elif kind == "failed":
            raise rest[0]
        else:
            code = lane.process.wait()
            raise HerdError(
                f"the process of the stage ended with {'signal ' if code < 0 else 'status '}{abs(code)}",
                where=stage.name,
                mend="run the same command again: it goes on; where memory is short, with --set at_once=1",
            )

    def _interrupt(self) -> None:
        """Let every lane keep a checkpoint; a second Ctrl-C, or a minute, ends that."""
        busy = [lane for lane in self.lanes if lane.process.poll() is None]
        for lane in busy:
            lane.process.send_signal(signal.SIGINT)
        end = time.monotonic() + _PATIENCE
        try:
            while any(lane.process.poll() is None for lane in busy) and time.monotonic() < end:
                time.sleep(0.02)
        finally:
            for lane in busy:
                lane.process.kill()


class _Teller:
    """A lane's side of `Watch` and `Progress`: everything is written to the parent."""

    def __init__(self, out: BinaryIO) -> None:
        self.out, self.told = out, 0.0

    def start(self, stage: Stage, number: int, total: int) -> Progress:
        self.told = 0.0
        return self

    def done(self, stage: Stage, seconds: float, metrics: Mapping[str, Any], found: bool) -> None:
        self.tell("done", seconds, dict(metrics))

    def update(self, done: float, total: float, unit: str, facts: Mapping[str, Fact] | None = None) -> None:
        now = time.monotonic()
        if done >= total or now - self.told >= _TELL_EVERY:
            self.told = now
            self.tell("update", done, total, unit, dict(facts or {}))

    def note(self, text: str) -> None:
        self.tell("note", text)

    def tell(self, *message: Any) -> None:
        pickle.dump(message, self.out)
        self.out.flush()


def serve(folder: Path, device: str) -> int:
    """The life of a lane: run what comes in, until the pipe closes or a stage fails. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background of a shell ignores it
    teller = _Teller(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever a library prints goes to the terminal and not between our messages
    work: queue.Queue[tuple[Stage, int, int]] = queue.Queue()
    threading.Thread(target=_receive, args=(work,), daemon=True).start()
    runner = Runner(folder, teller, device=device)
    try:
        while True:
            stage, number, total = work.get()
            runner.run_one(stage, number, total)
    except KeyboardInterrupt:
        return 130
    except HerdError as error:
        teller.tell("failed", error)
    except Exception as error:
        traceback.print_exc()
        teller.tell("failed", RuntimeError(f"{type(error).__name__}: {error}"))
    return 1


def _receive(work: queue.Queue[tuple[Stage, int, int]]) -> None:
    while True:
        try:
            work.put(pickle.load(sys.stdin.buffer))
        except (EOFError, pickle.UnpicklingError):
            os._exit(0)  # the run is over, or was killed: whatever is under way here is resumed by the next


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), sys.argv[2]))
