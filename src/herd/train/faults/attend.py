"""The hook that stands by a run: the log and this rank's life file always, the rest where there are several processes.

hook = attend(folder, worker, settings, progress)       # all processes together, before the run is built
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from herd.errors import HerdError, TrainingError
from herd.files import make_folder
from herd.progress import Progress
from herd.train.faults.causes import NOT_FINITE, RankFault, cause_of
from herd.train.faults.lives import LifeFile, Verdict, forget_lives
from herd.train.faults.runlog import RANKS, RunLog, last_verdict, read_account, step_seconds
from herd.train.faults.settings import FaultSettings
from herd.train.history import StepRecord, read_history
from herd.train.hooks import Hook
from herd.train.interrupts import Stopped
from herd.train.sharded_ranks import Ranks
from herd.train.worker import Worker

if TYPE_CHECKING:
    from herd.train.parallel.worker import MeshWorker


def attend(folder: Path, worker: Worker, settings: FaultSettings, progress: Progress) -> Hook:
    """The hook of this process. What stopped the run before is read now, before anything is overwritten.

    Raises TrainingError, on every rank, when torchrun has restarted a run that failed twice in the same way.
    """
    ranks = Ranks.here() if worker.world > 1 else Ranks()
    before = ranks.first(lambda: _look_back(folder))
    plain = Attendance(folder, worker, progress, before)
    if worker.world == 1:
        return plain
    from herd.train.faults.many import Together  # needs torch.distributed

    mesh_worker: MeshWorker = worker  # type: ignore[assignment]  # of several processes it is one
    return Together(plain, mesh_worker, settings, progress)


def _look_back(folder: Path) -> Verdict | None:
    """What stopped the run before; by rank 0, which then makes room for the lives of this one."""
    make_folder(folder / RANKS)
    found = last_verdict(folder)
    if found is not None and found.cause == NOT_FINITE and _restarted():
        account = read_account(folder)
        past = [one for one in account.interruptions if one.resumed_step is not None]
        if past and past[-1].cause == found.cause.name and past[-1].step == found.step:
            raise TrainingError(
                f"step {found.step} failed twice in the same way, no passing fault of a machine: {found.detail}",
                where=str(folder),
                mend="look into it with `herd debug nan`, change the settings or the data, and start the run again",
            )
    forget_lives(folder / RANKS)
    return found


def _restarted() -> bool:
    """Whether torchrun has started this again by itself; a person who does so wants it tried."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


class Attendance(Hook):
    """What one process has, too: the run's log, and the last words of its rank."""

    def __init__(self, folder: Path, worker: Worker, progress: Progress, before: Verdict | None) -> None:
        self.folder, self.worker, self.progress, self.before = folder, worker, progress, before
        self.log, self.life = RunLog(folder), LifeFile(folder / RANKS, worker.rank)
        self.records = read_history(folder / "history.jsonl") if worker.is_first else []
        self.step = 0

    def begin(self, step: int) -> None:
        self.step = step
        self.life.say(step=step)
        if not self.worker.is_first:
            return
        if not self.log.path.exists():
            self.log.write("start", step=step, processes=self.worker.world, plan=self.worker.plan_said)
        if self.before is not None:
            lost = [record for record in self.records if record.step > step]
            kept = [record.tokens for record in self.records if record.step <= step]
            self.log.interrupted(self.before, step, step_seconds(lost, kept[-1] if kept else 0))
            if self.worker.world > 1:  # one process's end is on its terminal
                ranks = ", ".join(map(str, self.before.ranks))
                cause = f"{self.before.cause.name} (rank {ranks})"
                self.progress.note(f"the run had stopped at step {self.before.step}: {cause}")

    def after_step(self, record: StepRecord) -> None:
        self.step = record.step

    def failed(self, error: BaseException) -> None:
        step = self.step + (cause_of(error) == NOT_FINITE)  # counted as the error counts
        self.life.say(ended=cause_of(error).name, step=step, detail=_said(error), blamed=_ranks_of(error))

    def end(self, error: BaseException | None) -> None:
        if error is not None:
            self.failed(error)
        else:
            self.life.say(ended="done", step=self.step)
            if self.worker.is_first:
                records = read_history(self.folder / "history.jsonl")
                self.log.write("end", step=self.step, useful_seconds=round(step_seconds(records), 3))
        self.life.close()


def _said(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:1000]
    known = isinstance(error, HerdError | Stopped)
    return text if known and text else f"{type(error).__name__}: {text}"


def _ranks_of(error: BaseException) -> tuple[int, ...]:
    return error.ranks if isinstance(error, RankFault) else ()
