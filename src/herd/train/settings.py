"""What can be set about a training run. No torch here, so that recipes and the command line stay light.

Every default carries its source: the Llama 3.1 paper ("paper", with its place), or "herd's choice" where the paper
is silent (it does not publish betas, epsilon, clipping or checkpoint habits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from herd.errors import SettingError

Recompute = Literal["nothing", "elementwise", "mlp", "layer"]  # again in backward: recompute.py


@dataclass(frozen=True)
class TrainSettings:
    """One training run: how long, in what batches, with what optimiser, how careful.

    Batch sizes are counted in tokens, padding included. `steps` is the whole run, `anneal_steps` its last part.
    """

    steps: int
    batch_tokens: int  # per optimiser step; the paper goes from 4M to 16M at 405B
    seq_len: int  # the paper starts at 4,096 and goes on at 8,192
    microbatch_tokens: int = 0  # per forward; 0 is the whole batch at once

    peak_lr: float = 3e-4  # paper, Table 3, 8B (70B: 1.5e-4, 405B: 8e-5)
    warmup_steps: int = 8_000  # paper, section 3.4.1
    schedule: Literal["cosine", "constant"] = "cosine"  # paper, section 3.4.1
    min_lr_ratio: float = 0.01  # paper, section 3.4.1: 8e-5 down to 8e-7
    cosine_steps: int = 0  # where the cosine would end; 0 is `steps`. The paper: 1,200,000, beyond its last step
    schedule_offset: int = 0  # steps of earlier phases of one schedule: this run begins there in warm-up and cosine
    anneal_steps: int = 0  # paper, section 3.4.3: the last part goes linearly to 0 from the rate reached
    average_every: int = 1  # herd's choice: a checkpoint enters the annealing mean (Polyak) every so many steps

    weight_decay: float = 0.1  # paper, section 3.2.1: 0.1 x the learning rate of the step; AdamW's decoupled decay
    beta1: float = 0.9  # herd's choice, as in Llama 1 and 2
    beta2: float = 0.95  # herd's choice, as in Llama 1 and 2
    eps: float = 1e-8  # herd's choice: torch's default
    grad_clip: float = 1.0  # global L2 norm; herd's choice, as in Llama 1 and 2; 0 turns it off

    dtype: Literal["float32", "bfloat16", "auto"] = "float32"  # of the computation; "auto": precision.py, by the device
    seed: int = 0  # of the data order

    checkpoint_every_steps: int = 0  # 0 is never by steps
    checkpoint_every_seconds: float = 120.0  # 0 is never by the clock; herd's choice
    keep: int = 2  # checkpoints on disk; herd's choice: one to fall back on
    keep_every: int = 0  # steps between checkpoints that stay for good (to evaluate, average, go back to); 0 is none
    validate_every: int = 0  # steps between calls of the validation callback; 0 is only at the end

    spike_factor: float = 4.0  # stop when the loss is over this many running medians; 0 turns it off; herd's choice
    spike_margin: float = 1.0  # and at least this far over it: small losses are noisy in ratio; herd's choice
    spike_window: int = 64  # steps of the running median; herd's choice

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "seq_len", "keep", "spike_window"):
            self._need(name, getattr(self, name) >= 1, "at least 1")
        for name in (
            "warmup_steps",
            "cosine_steps",
            "schedule_offset",
            "anneal_steps",
            "average_every",
            "microbatch_tokens",
            "seed",
        ):
            self._need(name, getattr(self, name) >= 0, "0 or more")
        for name in ("checkpoint_every_steps", "checkpoint_every_seconds", "keep_every", "validate_every", "grad_clip"):
            self._need(name, getattr(self, name) >= 0, "0 or more")
        self._need("peak_lr", self.peak_lr > 0, "more than 0")
        self._need("min_lr_ratio", 0 <= self.min_lr_ratio <= 1, "between 0 and 1")
        self._need("beta1", 0 <= self.beta1 < 1, "in [0, 1)")
        self._need("beta2", 0 <= self.beta2 < 1, "in [0, 1)")
        self._need("schedule", self.schedule in ("cosine", "constant"), "'cosine' or 'constant'")
        self._need("dtype", self.dtype in ("float32", "bfloat16", "auto"), "'float32', 'bfloat16' or 'auto'")
        self._need("anneal_steps", self.anneal_steps <= self.steps, f"at most steps ({self.steps})")
        self._need("batch_tokens", self.batch_tokens % self.seq_len == 0, f"a multiple of seq_len ({self.seq_len})")
        micro = self.microbatch_tokens
        self._need("microbatch_tokens", micro % self.seq_len == 0, f"a multiple of seq_len ({self.seq_len})")
        self._need("spike_factor", self.spike_factor == 0 or self.spike_factor > 1, "0 (off) or more than 1")

    def _need(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise SettingError(
                f"{name} is {getattr(self, name)!r} and should be {wanted}", where=f"TrainSettings.{name}"
            )

    @property
    def rows_per_step(self) -> int:
        """Rows of `seq_len` tokens in one optimiser step."""
        return self.batch_tokens // self.seq_len

    @property
    def rows_per_microbatch(self) -> int:
        """Rows of one forward; the last microbatch of a step may have fewer."""
        return min((self.microbatch_tokens or self.batch_tokens) // self.seq_len, self.rows_per_step)


def prolongable(settings: TrainSettings) -> bool:
    """Whether a run may go on for more steps: no rate depends on the last one, and a checkpoint is kept."""
    fixed = settings.schedule == "constant" or settings.cosine_steps > 0
    kept = settings.checkpoint_every_steps or settings.checkpoint_every_seconds
    return fixed and not settings.anneal_steps and bool(kept)
