"""Direct preference optimisation (Rafailov et al. 2023) as in the paper, section 4.1.4.

    loss = -log sigmoid(beta * [(policy - reference)(chosen) - (policy - reference)(rejected)]) + 0.2 * NLL(chosen)

(policy - reference)(y) is a difference of summed log-probabilities over the response's content: header and stop
tokens are left out of both sums, since what both responses share would be pushed up and down at once. The NLL is
not contrastive, so it counts the stop token too, which keeps the model ending its answers; it is the mean over the
response's trained tokens, so that long answers do not outweigh the preference. The reference's sums are computed
once, before training, and travel in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from herd.devices import device_of
from herd.errors import InputError
from herd.llama.loss import token_logprobs
from herd.progress import Progress, Silent
from herd.train.batch import Batch
from herd.train.objectives.language_modelling import hidden_states, output_weight
from herd.train.objectives.terms import LossTerms, pair_terms
from herd.train.pairs import Preference, group_by_width, pair_batch


def response_logprobs(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed log-probabilities [B] of each row's content, and of its trained stop tokens."""
    stops_BT = batch.extras["stops_BT"]
    places = batch.extras["answer_N"]
    hidden_ND = hidden_states(model, batch)[places]
    found_N = token_logprobs(hidden_ND, output_weight(model), batch.targets_BT.flatten()[places])
    rows_N = places // batch.tokens_BT.shape[1]
    zeros_B = found_N.new_zeros(len(batch.tokens_BT))
    content_B = zeros_B.index_add(0, rows_N, found_N * batch.weights_BT.flatten()[places])
    stops_B = zeros_B.index_add(0, rows_N, found_N * stops_BT.flatten()[places])
    return content_B, stops_B


@dataclass(frozen=True)
class DirectPreference:
    """Counts pairs. Metrics: `accuracy` (implicit reward of chosen over rejected, a tie counts half), `margin` of the
    implicit rewards, `preference` and `nll`, the two parts of the loss."""

    beta: float = 0.1  # paper, section 4.1.4
    nll_coefficient: float = 0.2  # paper, section 4.1.4
    name: str = "dpo"
    unit: str = "pairs"

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        if "reference_B" not in batch.extras:
            raise InputError(
                "a DPO batch without its reference log-probabilities", mend="call reference_logprobs first"
            )
        content_B, stops_B = response_logprobs(model, batch)
        rewards_P2 = self.beta * (content_B - batch.extras["reference_B"]).view(-1, 2)
        margin_P = rewards_P2[:, 0] - rewards_P2[:, 1]
        preference_P = -F.logsigmoid(margin_P)
        counted_B = (batch.weights_BT + batch.extras["stops_BT"]).sum(1)
        nll_P = -((content_B + stops_B) / counted_B)[0::2]
        loss_P = preference_P + self.nll_coefficient * nll_P
        return pair_terms(batch, loss_P, margin_P, preference=preference_P, nll=nll_P)


@torch.no_grad()
def reference_logprobs(
    model: nn.Module, pairs: Sequence[Preference], microbatch_tokens: int, progress: Progress | None = None
) -> Tensor:
    """The reference model's summed content log-probabilities, float32 [pairs, 2] in main memory, once before DPO."""
    progress = progress or Silent()
    device, found_P2 = device_of(model), torch.zeros(len(pairs), 2)
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i].longest, i))
    done = 0
    for group in group_by_width([pairs[i].longest for i in order], order, microbatch_tokens):
        content_B, _ = response_logprobs(model, pair_batch([pairs[i] for i in group]).to(device))
        found_P2[group] = content_B.view(-1, 2).float().cpu()
        done += len(group)
        progress.update(done, len(pairs), "pairs")
    return found_P2
