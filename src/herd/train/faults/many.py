"""The hook of one of several processes: all that faults/ has, put together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from torch import Tensor

from herd.progress import Progress
from herd.train.faults.attend import Attendance
from herd.train.faults.causes import CorruptWeights
from herd.train.faults.checksums import changed, compare, replicas, words_sum
from herd.train.faults.finite import OwnGradients
from herd.train.faults.settings import FaultSettings
from herd.train.faults.stragglers import Stragglers
from herd.train.faults.watch import Watch
from herd.train.history import StepRecord
from herd.train.hooks import Hook
from herd.train.parallel.worker import MeshWorker


class Together(Hook):
    """`plain` writes the log. All ranks make the same calls in the same order, so their hooks may talk."""

    def __init__(self, plain: Attendance, worker: MeshWorker, settings: FaultSettings, progress: Progress) -> None:
        self.plain, self.worker, self.settings, self.progress = plain, worker, settings, progress
        self.watch = Watch(plain.life, plain.log.path.parent / "ranks", settings)
        self.own = OwnGradients(worker.device)
        if worker.sharded:
            self.own.before_fsdp_reduces(worker.roots)
        self.stragglers = Stragglers(worker.mesh.plan, settings)
        self.step = self.compared = 0
        self.kept: dict[str, Tensor] = {}  # sums of words, from a comparison to the next update

    def begin(self, step: int) -> None:
        self.step = self.compared = step
        self.plain.begin(step)
        self.watch.start()

    def enter(self, phase: str) -> None:
        self.watch.enter(self.step + 1, phase)

    def own_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        self.own.look_at(gradients)

    def blame(self, own_loss: float) -> list[int]:
        finite = self.own.finite and math.isfinite(own_loss)
        return self._named(() if finite else (self.worker.rank,))

    def before_update(self, step: int) -> None:
        self.own.forget()
        if not self.kept:
            return
        flipped = changed(self.kept, _sums(self._held()))
        self.kept = {}
        ranks = self._named((self.worker.rank,) if flipped else ())
        if ranks:
            what = flipped[0] if flipped else "a tensor"
            raise corrupt(f"{what} changed by itself between steps {step - 1} and {step}", ranks, at_rest=True)

    def after_step(self, record: StepRecord) -> None:
        self.step = record.step
        self.enter("looking after the step")
        self.plain.after_step(record)
        every = self.settings.compare_every
        if every and self.step % every == 0:
            self._compare()
        if self.settings.slow_factor and self.step % self.settings.slow_window == 0:
            self._stragglers()

    def before_checkpoint(self) -> None:
        self.enter("checkpoint")
        self._compare()

    def failed(self, error: BaseException) -> None:
        self.plain.failed(error)

    def end(self, error: BaseException | None) -> None:
        self.watch.stop()
        self.plain.end(error)

    def _held(self) -> dict[str, Tensor]:
        """Weights and moments."""
        return {**self.worker.optimiser.masters, **dict(self.worker.optimiser.moments())}

    def _compare(self) -> None:
        """Weights and moments with those of other ranks; what they are now is kept until the next update."""
        if self.kept and self.compared == self.step:
            return
        self.compared = self.step
        mesh, held = self.worker.mesh, self._held()
        self.kept = _sums(held)
        whole_on = None if self.worker.sharded else mesh.data.get_group("shards")
        found = compare(self.kept, replicas(held, whole_on, mesh.data.get_group("tp")))
        ranks = self._named({rank for one in found for rank in one.ranks})
        if ranks:
            said = str(found[0]) if found else "a tensor differs"
            raise corrupt(f"after step {self.step} {said}", ranks)

    def _stragglers(self) -> None:
        seconds, looks = self.watch.work()
        found = self.stragglers.window(self._by_rank(seconds), self._by_rank(float(looks)))
        for slow in found if self.worker.is_first else ():
            self.progress.note(str(slow))
            self.plain.log.write("slow", step=self.step, rank=slow.rank, factor=round(slow.factor, 3))

    def _by_rank(self, value: float) -> list[float]:
        """Every rank's value, on every rank."""
        mine = [0.0] * self.worker.world
        mine[self.worker.rank] = value
        return self.worker.agreed(mine)

    def _named(self, ranks: Collection[int]) -> list[int]:
        """The ranks that any rank names, on every rank."""
        marks = [float(rank in ranks) for rank in range(self.worker.world)]
        return [rank for rank, count in enumerate(self.worker.agreed(marks)) if count]


def _sums(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: words_sum(tensor) for name, tensor in tensors.items()}


def corrupt(text: str, ranks: list[int], at_rest: bool = False) -> CorruptWeights:
    named = ", ".join(map(str, ranks))
    error = CorruptWeights(
        f"weights were corrupted on rank {named}: {text}",
        ranks=tuple(ranks),
        mend="the run goes on from its last checkpoint; if it comes again, have that rank's device tested",
    )
    error.at_rest = at_rest
    return error
