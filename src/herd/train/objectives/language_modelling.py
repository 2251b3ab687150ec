"""Next-token cross-entropy: pre-training on documents, and supervised finetuning on the trained tokens of dialogues.

Both are one loss; what counts is in the batch's weights (paper, sections 3.4 and 4.1.3: prompt tokens are masked).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from herd.llama.model import Llama
from herd.train.batch import Batch
from herd.train.kernels import cross_entropy
from herd.train.objectives.terms import LossTerms


def hidden_states(model: nn.Module, batch: Batch) -> Tensor:
    """The network's hidden states of a batch, flattened: [N, D] with N = B * T."""
    hidden_BTD: Tensor = model(batch.tokens_BT, positions_BT=batch.positions_BT, document_ids_BT=batch.document_ids_BT)
    return hidden_BTD.flatten(0, 1)


def output_weight(model: nn.Module) -> Tensor:
    """The V x D matrix of a Llama."""
    return cast(Llama, model).output_weight


@dataclass(frozen=True)
class LanguageModelling:
    """Cross-entropy per token, in nats; the count is the sum of the weights. Targets of weight 0 cost nothing."""

    name: str = "language_modelling"
    unit: str = "tokens"

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        weights_N, targets_N = batch.weights_BT.flatten(), batch.targets_BT.flatten()
        hidden_ND = hidden_states(model, batch)
        total = cross_entropy(hidden_ND, output_weight(model), targets_N, weights_N, counted=batch.places())
        return LossTerms(total, weights_N.sum())


@dataclass(frozen=True)
class SupervisedFinetuning(LanguageModelling):
    """The same loss on dialogues, where the weights are the dialogue's mask. Paper: learning rate 1e-5."""

    name: str = "sft"
