"""Stop a run that has gone wrong, with the batch at hand: losses and norms that are not finite, and spikes.

A spike is a loss over `spike_factor` running medians and `spike_margin` above the median, after the warm-up. The
guard does not skip batches or wind back: a person, or the stage above, decides.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from herd.errors import FormatError
from herd.files import atomic_file
from herd.train.batch import Batch
from herd.train.faults.causes import RankFault
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

    def stop(
        self,
        trouble: str,
        step: int,
        batches: Sequence[Batch],
        folder: Path,
        rank: int = 0,
        ranks: Sequence[int] = (),
    ) -> RankFault:
        """Save the step's microbatches and give the error that names them; each process saves its own.

        `ranks` are those that it came from: only they save then.
        """
        path = folder / f"failed-batch-step{step}{f'-rank{rank}' if rank else ''}.safetensors"
        if not ranks or rank in ranks:
            save_batches(path, batches, step)
        named = f", from rank {', '.join(map(str, ranks))}" if ranks else ""
        return RankFault(
            f"training stopped at step {step}: {trouble}{named}",
            ranks=tuple(ranks),
            where=str(path if not ranks or rank in ranks else folder),
            mend="`herd debug nan` replays the saved batch; lower peak_lr, lengthen the warm-up, or mend the data, and "
            "run again",
        )


def save_batches(path: Path, batches: Sequence[Batch], step: int) -> None:
    """Write microbatches as safetensors: `0.tokens_BT`, `0.targets_BT`, ..., with the step in the metadata."""
    tensors = {f"{i}.{name}": t.contiguous() for i, batch in enumerate(batches) for name, t in batch.tensors().items()}
    with atomic_file(path) as handle:
        handle.write(safetensors.torch.save(tensors, {"step": str(step)}))


def read_batches(path: Path) -> tuple[int, list[Batch]]:
    """The step and its microbatches, as `save_batches` wrote them. FormatError for another file."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            step = int(file.metadata()["step"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        count = 1 + max(int(name.partition(".")[0]) for name in tensors)
        parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for name, tensor in tensors.items():
            number, _, own = name.partition(".")
            parts[int(number)][own] = tensor
        return step, [_batch(part) for part in parts]
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"this is no saved batch: {error}", where=str(path)) from error


def _batch(tensors: dict[str, Tensor]) -> Batch:
    extras = {name.removeprefix("extras."): t for name, t in tensors.items() if name.startswith("extras.")}
    plain = {name: t for name, t in tensors.items() if not name.startswith("extras.")}
    return Batch(**{"document_ids_BT": None, **plain}, extras=extras)  # type: ignore[arg-type]  # names as written
