"""The ladder: which small runs to make so that the flagship can be predicted before it is trained.

At each budget, a share of the flagship's compute, several sizes around the one that the budget should suit; shapes
of the flagship's proportions; tokens from what the budget leaves; batch fixed per budget and peak learning rate by
size, as in the Llama 3 paper, section 3.2.1. Running the plans is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from herd.errors import SettingError
from herd.llama.config import LlamaConfig
from herd.scaling.records import RunRecord
from herd.scaling.settings import FitSettings, LadderSettings

_MAX_WARMUP = 2000  # paper, section 3.2.1
_ASPECT_SLACK = 1.6  # how far dim / layers may leave the flagship's, so that small sizes lie closer together


@dataclass(frozen=True)
class RunPlan:
    """One run of the ladder. `tokens` = `steps` * `batch_tokens`; `flops` is what it spends of its `budget`."""

    name: str
    config: LlamaConfig
    seq_len: int
    tokens: int
    steps: int
    batch_tokens: int
    peak_lr: float
    warmup_steps: int
    budget: float
    flops: float
    seed: int

    def record(self, loss: float) -> RunRecord:
        """What the fits want to know of the finished run; `loss` is held out, in nats a token."""
        config = self.config
        return RunRecord(
            n_params=config.parameters(),
            n_params_body=body_parameters(config),
            tokens=self.tokens,
            flops=self.flops,
            loss=loss,
            shape={"dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads},
            seed=self.seed,
        )


def body_parameters(config: LlamaConfig) -> int:
    """Parameters without the vocabulary matrices: N of the fits by default."""
    return config.n_layers * config.layer_parameters() + config.dim


def ladder(settings: LadderSettings) -> list[RunPlan]:
    """The runs, smallest budget first. Raises SettingError for a ladder that the fits would refuse anyway."""
    _check_reach(settings)
    plans: list[RunPlan] = []
    for share in sorted(settings.budgets):
        flagship = settings.flagship
        middle = body_parameters(flagship) * share**settings.size_exponent
        shapes = {shape_near(flagship, middle * factor): None for factor in sorted(settings.spread)}
        if len(shapes) < 3:
            raise SettingError(
                f"at {share:.3g} of the flagship's compute the sizes round to {len(shapes)} shapes",
                where="ladder.spread",
                mend="spread the sizes wider, make the heads smaller, or leave the smallest budget out",
            )
        plans += [_plan(settings, shape, share, seed) for shape in shapes for seed in settings.seeds]
    return plans


def shape_near(flagship: LlamaConfig, body: float) -> LlamaConfig:
    """The shape of the flagship's proportions with the number of body parameters nearest to `body`.

    Head size, feed-forward ratio and the share of key/value heads stay; dim / layers stays within a factor of 1.6.
    """
    aspect = flagship.dim / flagship.n_layers

    def distance(shape: LlamaConfig) -> float:
        size_off = abs(math.log(body_parameters(shape) / body))
        aspect_off = abs(math.log(shape.dim / shape.n_layers / aspect))
        return size_off + 0.2 * aspect_off

    return min(_shapes(flagship, body), key=distance)


def _shapes(flagship: LlamaConfig, body: float) -> Iterator[LlamaConfig]:
    """For each width of the family up to twice the flagship's, the two depths that come nearest to `body`."""
    aspect, head = flagship.dim / flagship.n_layers, flagship.head_dim
    for n_heads in range(1, 2 * flagship.n_heads + 1):
        dim = n_heads * head
        share = n_heads * flagship.n_kv_heads / flagship.n_heads
        n_kv_heads = max(g for g in range(1, n_heads + 1) if n_heads % g == 0 and g <= max(1, share))
        ffn = max(head, round(flagship.ffn_dim * dim / flagship.dim / head) * head)
        shallow = replace(flagship, dim=dim, n_layers=1, n_heads=n_heads, n_kv_heads=n_kv_heads, ffn_dim=ffn)
        fewest, most = max(1, round(dim / aspect / _ASPECT_SLACK)), max(1, round(dim / aspect * _ASPECT_SLACK))
        depth = int(body / shallow.layer_parameters())
        for n_layers in {min(max(value, fewest), most) for value in (depth, depth + 1)}:
            yield replace(shallow, n_layers=n_layers)


def _plan(settings: LadderSettings, shape: LlamaConfig, share: float, seed: int) -> RunPlan:
    flagship, seq_len = settings.flagship, settings.seq_len
    budget = share * flagship.flops_per_token(seq_len) * settings.flagship_tokens
    sequences = settings.flagship_batch * share**settings.batch_exponent / seq_len
    batch = seq_len * max(1, round(sequences))
    steps = round(budget / shape.flops_per_token(seq_len) / batch)
    name = f"c{share:.4g}-d{shape.dim}-l{shape.n_layers}-s{seed}"
    if steps < settings.min_steps:
        raise SettingError(
            f"the run {name} would have {steps} steps; {settings.min_steps} are the least",
            where="ladder.budgets",
            mend="raise the smallest budget or make the batch smaller",
        )
    relative = shape.parameters() / flagship.parameters()
    return RunPlan(
        name=name,
        config=shape,
        seq_len=seq_len,
        tokens=steps * batch,
        steps=steps,
        batch_tokens=batch,
        peak_lr=settings.flagship_lr * relative**settings.lr_exponent,
        warmup_steps=min(_MAX_WARMUP, round(steps * settings.warmup_share)),
        budget=budget,
        flops=steps * batch * shape.flops_per_token(seq_len),
        seed=seed,
    )


def _check_reach(settings: LadderSettings) -> None:
    """The fits' own limits, told before the hours of training rather than after."""
    limits = FitSettings()
    covered = math.log10(max(settings.budgets) / min(settings.budgets))
    ahead = -math.log10(max(settings.budgets))
    if covered < limits.min_span or ahead > limits.max_reach * covered:
        raise SettingError(
            f"the budgets cover {covered:.2f} decades of compute and the flagship lies {ahead:.2f} beyond them",
            where="ladder.budgets",
            mend=f"cover {max(limits.min_span, ahead / limits.max_reach):.2f} decades or more",
        )
