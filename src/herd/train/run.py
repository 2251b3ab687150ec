"""One run of the loop: its state between steps, one step, its checkpoints. `loop.train` drives it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from herd.config import to_plain
from herd.errors import HerdError, InputError, SettingError
from herd.progress import Progress
from herd.train.averaging import WeightAverage
from herd.train.batch import Batch, BatchSource
from herd.train.checkpoints import Checkpoints, Saved
from herd.train.guards import Guard
from herd.train.history import History, StepRecord, TrainResult
from herd.train.hooks import Hook
from herd.train.interrupts import Interrupts
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.objectives.terms import Objective
from herd.train.run_state import RunState, model_files
from herd.train.schedule import lr_at
from herd.train.settings import TrainSettings, prolongable
from herd.train.worker import Worker, summed
from herd.weights.stored import SavesFiles

Validate = Callable[[Any], Mapping[str, float]]  # takes the model, or on many processes what `measured` can ask

# Settings that change when things are looked at or kept, never the weights: a run may be resumed with others.
_HARMLESS = {"keep", "keep_every", "validate_every", "spike_factor", "spike_margin", "spike_window"}


class Run:
    """The state of one run, and its moves."""

    def __init__(
        self,
        model: nn.Module,
        worker: Worker,
        objective: Objective,
        source: BatchSource,
        settings: TrainSettings,
        folder: Path,
        progress: Progress,
        validate: Validate | None,
        tokenizer: SavesFiles | None = None,
        begin: Path | None = None,
    ) -> None:
        self.worker, self.objective, self.source, self.settings = worker, objective, source, settings
        self.hook: Hook = worker.hook
        self.folder, self.progress, self.validate, self.device = folder, progress, validate, worker.device
        self.step = self.tokens = self.saved_at = 0
        self.seconds = 0.0
        self.asked_to_stop = self.late = self.disk_failed = False  # as all processes agreed in this step
        self.optimiser, self.average, self.guard = worker.optimiser, WeightAverage(), Guard(settings)
        self.checkpoints = Checkpoints(folder / "checkpoints", settings.keep, settings.keep_every)
        self.small_files = model_files(model, tokenizer, instruct=objective.name != LanguageModelling.name)
        found = self.checkpoints.newest(progress)
        if found:
            self._restore(found)
        elif begin and (earlier := Checkpoints(begin, keep=1).newest(progress)):
            self._held().begin_with(earlier)
        self.history = History(folder, keep_until=self.step, writes=worker.is_first)
        self.saved_clock = time.monotonic()

    def one_step(self, interrupts: Interrupts) -> None:
        """One optimiser update: forward and backward of every microbatch, mean, clip, AdamW, averaging."""
        started = time.perf_counter()
        self.hook.enter("reading the batch")
        batches = self.source.batch(self.step, self.worker.part)
        number = self.step + 1
        own_loss, loss, count, metrics = self._forward_backward(batches, interrupts)
        self.hook.enter("the gradient norm")
        norm = self.worker.mean_and_clip(count)
        trouble = self.guard.trouble(number, loss, norm)
        if trouble:
            self._keep_failed(number)
            raise self.guard.stop(
                trouble, number, batches, self.folder, self.worker.rank, ranks=self.hook.blame(own_loss)
            )
        self.guard.accept(loss)
        lr = lr_at(self.settings, number)
        self.hook.enter("the update")
        self.hook.before_update(number)
        self.checkpoints.staged()
        self.optimiser.step(lr)
        self.step = number
        self._enter_average()
        took = time.perf_counter() - started
        n_tokens = sum(batch.n_tokens for batch in batches) * self.worker.part.count
        self.tokens, self.seconds = self.tokens + n_tokens, self.seconds + took
        if self.settings.validate_every and number % self.settings.validate_every == 0 and number < self.settings.steps:
            metrics |= self._validation()
        record = StepRecord(number, self.tokens, loss, lr, norm, n_tokens / took, metrics)
        self.history.append(record)
        self.hook.after_step(record)
        facts = {"loss": loss, "lr": lr, "tokens/s": n_tokens / took}
        self.progress.update(number, self.settings.steps, "steps", facts)

    def _forward_backward(
        self, batches: list[Batch], interrupts: Interrupts
    ) -> tuple[float, float, float, dict[str, float]]:
        """Summed gradients on the masters; this process's loss, the mean loss, count, mean metrics; what is to be done
        after the step."""
        self.hook.enter("forward and backward")
        own, names = summed(self.worker.forward_backward(batches, self.objective))
        self.hook.enter("agreeing on the loss")
        seconds = self.settings.checkpoint_every_seconds
        late = bool(seconds) and self.worker.is_first and time.monotonic() - self.saved_clock >= seconds
        # All processes must do the same, so what one knows (a signal, the clock, a full disk) goes with the sums.
        known = [float(interrupts.asked), float(late), float(self.checkpoints.failed)]
        total, count, *sums, asked, late_anywhere, failed = self.worker.agreed([*own, *known])
        self.asked_to_stop, self.late, self.disk_failed = bool(asked), bool(late_anywhere), bool(failed)
        if not count:
            raise InputError(
                f"nothing to learn in step {self.step + 1}: no {self.objective.unit[:-1]} counts",
                mend="check the loss mask of the data: `herd inspect dialogue FILE` shows it",
            )
        return own[0], total / count, count, {name: value / count for name, value in zip(names, sums, strict=True)}

    def _enter_average(self) -> None:
        every, annealing = self.settings.average_every, self.settings.anneal_steps
        into = self.step - (self.settings.steps - annealing)
        if annealing and every and into > 0 and into % every == 0:
            self.average.add(self.worker.model)

    def _validation(self) -> dict[str, float]:
        self.hook.enter("validation")
        return dict(self.validate(self.worker.trained)) if self.validate else {}

    def finish(self) -> TrainResult:
        """The last checkpoint, the averaged weights, the last validation."""
        if self.settings.checkpoint_every_steps or self.settings.checkpoint_every_seconds:
            self.save_checkpoint()
        self.checkpoints.wait()
        self.hook.enter("the end")
        self.average.copy_to(self.worker.model)
        validated = self._validation()
        self.worker.finish()
        records = self.history.records
        metrics = {"loss": records[-1].loss} if records else {}
        metrics |= dict(records[-1].metrics) if records else {}
        return TrainResult(records, self.tokens, self.seconds, metrics | validated)

    def save_checkpoint_if_due(self) -> None:
        """Also the place where the loop learns that the last one could not be written."""
        if self.disk_failed:
            self.checkpoints.wait()
        steps = self.settings.checkpoint_every_steps, self.settings.keep_every
        if self.late or any(every and self.step % every == 0 for every in steps):
            self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Begin to write `checkpoints/step-N`, unless this step has one."""
        if self.saved_at == self.step:
            return
        self.hook.before_checkpoint()
        state = self._state()
        self.checkpoints.save(self.step, self._held().tensors(), state, self.small_files)
        self.saved_at, self.saved_clock = self.step, time.monotonic()

    def forget_checkpoint(self) -> None:
        """Remove the checkpoint of the last step: its weights may have changed by themselves."""
        self.checkpoints.wait()
        if self.worker.is_first and self.saved_at == self.step:
            shutil.rmtree(self.checkpoints.folder / f"step-{self.step}", ignore_errors=True)
            self.progress.note(f"checkpoint step-{self.step} is not used: its weights cannot be trusted")

    def _keep_failed(self, number: int) -> None:
        """The weights that step `number` failed with, for `herd debug nan`; no run goes on from them."""
        kept = Checkpoints(self.folder / "failed", keep=1)
        try:
            kept.save(number - 1, self._held().weights(), self._state(), self.small_files)
            kept.wait()
        except HerdError as error:  # the step's own error is the one to be told
            self.progress.note(f"the weights of the failed step are not kept: {error.message}")
        finally:
            kept.close(self.progress)

    def _state(self) -> dict[str, object]:
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "window": self.guard.window,
            "average_count": self.average.count,
            "objective": self.objective.name,
            "device": self.device.type,
            "settings": to_plain(self.settings),
        }

    def _held(self) -> RunState:
        return RunState(self.optimiser, self.average, self.device, self.checkpoints.ranks.rank)

    def _restore(self, found: Saved) -> None:
        state = found.state
        self._refuse_another_run(state)
        self._held().restore(found)
        self.guard = Guard(self.settings, state["window"])
        self.step = self.saved_at = found.step
        self.tokens, self.seconds = int(state["tokens"]), float(state["seconds"])
        self.progress.note(f"going on from checkpoint step-{self.step}{self._moved(state)}")

    def _moved(self, state: Mapping[str, object]) -> str:
        before = state.get("device", "cpu")  # absent: written when there was the CPU only
        if before == self.device.type:
            return ""
        return f", written on {before}: on {self.device.type} the rest rounds otherwise and draws other dropout masks"

    def _refuse_another_run(self, state: Mapping[str, object]) -> None:
        before, now = state["settings"], to_plain(self.settings)
        assert isinstance(before, dict)
        changed = [
            name
            for name in now
            if before.get(name) != now[name] and name not in _HARMLESS and not name.startswith("checkpoint_")
        ]
        if prolongable(self.settings) and self.settings.steps > before.get("steps", 0) and "steps" in changed:
            changed.remove("steps")
        if state["objective"] != self.objective.name:
            changed.append("objective")
        if changed:
            raise SettingError(
                f"the checkpoints here are of a run with another {', '.join(changed)}",
                where=str(self.folder),
                mend="train in a fresh folder, or with the settings that the run began with",
            )
