"""The learning rate of every step: linear warm-up, cosine or constant, and a linear anneal to zero (paper, 3.4).

Steps count from 1, the first update. The paper does not say whether its 1,200,000 cosine steps include the
warm-up; here they do, which gives 8e-5 at step 8,000 and 8e-7 at step 1,200,000 exactly.
"""

from __future__ import annotations

import math

from herd.train.settings import TrainSettings


def lr_at(settings: TrainSettings, step: int) -> float:
    """Learning rate of update `step`, 1 to `settings.steps`; the last annealing step has rate 0."""
    anneal_start = settings.steps - settings.anneal_steps
    if step <= anneal_start or settings.anneal_steps == 0:
        return _before_annealing(settings, step)
    reached = _before_annealing(settings, anneal_start) if anneal_start else settings.peak_lr
    return reached * (settings.steps - step) / settings.anneal_steps


def _before_annealing(settings: TrainSettings, step: int) -> float:
    step += settings.schedule_offset
    if step < settings.warmup_steps:
        return settings.peak_lr * step / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.peak_lr
    end = settings.cosine_steps or settings.schedule_offset + settings.steps
    progress = min(1.0, (step - settings.warmup_steps) / max(1, end - settings.warmup_steps))
    low = settings.peak_lr * settings.min_lr_ratio
    return low + (settings.peak_lr - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
