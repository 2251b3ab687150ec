"""Stop a run that has gone wrong, with the batch at hand: losses and norms that are not finite, and spikes.

A spike is a loss over `spike_factor` running medians and `spike_margin` above the median, after the warm-up. The
guard does not skip batches or wind back: a person, or the stage above, decides.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch

from herd.errors import TrainingError
from herd.files import atomic_file
from herd.train.batch import Batch
from herd.train.settings import TrainSettings


class Guard:
    """Watches loss and gradient norm step by step; `window` is the only state and travels in checkpoints."""

    def __init__(self, settings: TrainSettings, window: Sequence[float] = ()) -> None:
        self.settings = settings
        self.window = list(window)

    def trouble(self, step: int, loss: float, grad_norm: float) -> str:
        """What is wrong with update `step` (counted from 1), or an empty string."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(grad_norm):
            return f"the gradient norm is {grad_norm} (the loss is {loss:.4g})"
        settings = self.settings
        full = len(self.window) >= settings.spike_window
        if settings.spike_factor and full and step > settings.warmup_steps:
            median = statistics.median(self.window)
            if loss > settings.spike_factor * median and loss > median + settings.spike_margin:
                return f"the loss jumped to {loss:.4g}; the median of the last {len(self.window)} steps is {median:.4g}"
        return ""

    def accept(self, loss: float) -> None:
        """Let a good step's loss enter the running median."""
        self.window.append(loss)
        del self.window[: -self.settings.spike_window]

    def stop(self, trouble: str, step: int, batches: Sequence[Batch], folder: Path) -> TrainingError:
        """Save the step's microbatches and give the error that names them."""
        path = folder / f"failed-batch-step{step}.safetensors"
        save_batches(path, batches, step)
        return TrainingError(
            f"training stopped at step {step}: {trouble}",
            where=str(path),
            mend="look at the saved batch; lower peak_lr, lengthen the warm-up, or mend the data, and run again",
        )


def save_batches(path: Path, batches: Sequence[Batch], step: int) -> None:
    """Write microbatches as safetensors: `0.tokens_BT`, `0.targets_BT`, ..., with the step in the metadata."""
    tensors = {f"{i}.{name}": t.contiguous() for i, batch in enumerate(batches) for name, t in batch.tensors().items()}
    with atomic_file(path) as handle:
        handle.write(safetensors.torch.save(tensors, {"step": str(step)}))
