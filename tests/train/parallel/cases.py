"""One step of each objective, to compare many processes with one: a model, an objective and uneven micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from train_models import VOCABULARY, talk, tiny_model

from herd.llama.model import Llama
from herd.train.batch import Batch
from herd.train.objectives.distillation import Distillation
from herd.train.objectives.dpo import DirectPreference
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.objectives.reward import RewardModel, RewardObjective
from herd.train.objectives.terms import LossTerms, Objective
from herd.train.packing import Row, collate
from herd.train.pairs import Preference, pair_batch


@dataclass(frozen=True)
class Case:
    """A step: `model()` builds the same model each time."""

    name: str
    model: Callable[[], nn.Module]
    objective: Objective
    batches: list[Batch]

    @property
    def counts_pairs(self) -> bool:
        return self.objective.unit == "pairs"


def cases(**changes: Any) -> list[Case]:
    """All objectives; `changes` are of the model's shape."""
    shape = {"vocab_size": VOCABULARY + 1, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2} | changes

    def llama() -> Llama:
        return tiny_model(**shape)

    def reward() -> RewardModel:
        model = RewardModel(tiny_model(**shape))
        nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(3))
        return model

    return [
        Case("packed", llama, LanguageModelling(), packed_batches()),
        Case("whole rows", llama, LanguageModelling(), [replace(b, document_ids_BT=None) for b in packed_batches(1)]),
        Case("distillation", llama, Distillation(), [taught(batch) for batch in packed_batches(2)]),
        Case("dpo", llama, DirectPreference(), pair_batches()),
        Case("reward", reward, RewardObjective(), pair_batches()),
    ]


def packed_batches(seed: int = 0) -> list[Batch]:
    """Micro-batches of unlike shapes and counts; documents cross the chunks, and one micro-batch counts little."""
    rng = np.random.default_rng(seed)
    return [
        collate([_row(rng, length, keep) for _ in range(rows)])
        for rows, length, keep in ((2, 24, 0.9), (1, 32, 0.5), (3, 24, 0.9), (2, 20, 0.03), (2, 24, 1.0))
    ]


def _row(rng: np.random.Generator, length: int, keep: float) -> Row:
    borders = np.sort(rng.choice(np.arange(1, length), 3, replace=False))
    documents = np.searchsorted(borders, np.arange(length), side="right")
    starts = np.concatenate([[0], borders])
    tokens = rng.integers(1, VOCABULARY, length + 1)
    weights = (rng.random(length) < keep).astype(np.float32) * rng.integers(1, 3, length).astype(np.float32)
    return Row(tokens[:-1], tokens[1:], weights, documents, np.arange(length) - starts[documents])


def taught(batch: Batch, k: int = 3) -> Batch:
    """The batch with a made-up teacher's answers."""
    draw = torch.Generator().manual_seed(batch.n_tokens)
    logprobs_BTV = torch.randn(*batch.tokens_BT.shape, VOCABULARY, generator=draw).log_softmax(-1)
    best_BTk, ids_BTk = logprobs_BTV.topk(k, -1)
    extras = {
        "teacher_ids_BTk": ids_BTk,
        "teacher_logprobs_BTk": best_BTk,
        "teacher_rest_BT": 1 - best_BTk.exp().sum(-1),
        "teacher_temperature_host": torch.ones(len(batch.tokens_BT)),
    }
    return replace(batch, extras=extras)


def pair_batches() -> list[Batch]:
    """Micro-batches of one to three pairs, 24, 8 and 16 tokens wide."""
    draw = torch.Generator().manual_seed(4)
    sizes = ((7, 12, 9), (2, 4, 3), (5, 9, 4))
    found = []
    for number, (prompt, chosen, rejected) in enumerate(sizes):
        pairs = [pair(prompt, chosen, rejected, 10 * number + i) for i in range(1 + number)]
        found.append(pair_batch(pairs, torch.randn(len(pairs), 2, generator=draw) - 20))
    return found


def pair(prompt: int, chosen: int, rejected: int, seed: int) -> Preference:
    sides = talk(prompt, chosen, seed), talk(prompt, rejected, seed)
    sides[1].ids[:prompt] = sides[0].ids[:prompt]
    return Preference(*sides, prompt)


@dataclass(frozen=True)
class Outcome:
    """What a step leaves: summed loss, count and metrics of each micro-batch, and every gradient by name."""

    numbers: list[dict[str, float]]
    gradients: dict[str, Tensor]


def numbers(terms: LossTerms) -> dict[str, float]:
    found = {"total": terms.total, "count": terms.count} | dict(terms.metrics)
    return {name: float(value.detach()) for name, value in found.items()}


def one_process(case: Case) -> Outcome:
    """The reference: the step on one device, micro-batch by micro-batch."""
    model, found = case.model(), []
    for batch in case.batches:
        terms = case.objective.terms(model, batch)
        terms.total.backward()
        found.append(numbers(terms))
    return Outcome(found, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
