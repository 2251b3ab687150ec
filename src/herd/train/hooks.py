"""Who looks at a run while it trains: the loop and its worker say what they are about to do, a hook does as it likes.

One process has the hook that does nothing but keep the run's log; what many processes have is in faults/.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from herd.train.history import StepRecord


class Hook:
    """Looks, and never changes a weight. An error that it raises ends the run. On many processes each has its own."""

    def begin(self, step: int) -> None:
        """The run begins or goes on; `step` updates are behind it."""

    def enter(self, phase: str) -> None:
        """The process goes over to another piece of work of the step."""

    def own_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Gradients of this process alone, by parameter, before they meet those of others."""

    def blame(self, own_loss: float) -> list[int]:
        """A step's loss or norm is not finite: the ranks from whose own loss or gradients it came; [] if unknown."""
        return []

    def before_update(self, step: int) -> None:
        """Update number `step` is about to change the weights."""

    def after_step(self, record: StepRecord) -> None:
        """The weights have changed, and this was the step."""

    def before_checkpoint(self) -> None:
        """The state is about to be copied."""

    def failed(self, error: BaseException) -> None:
        """A step or a checkpoint ended in an error; signals are still held, so nothing else ends the process yet."""

    def end(self, error: BaseException | None) -> None:
        """The run ends, by an error or because it is done."""
