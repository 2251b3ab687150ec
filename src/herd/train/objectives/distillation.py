"""Distillation: the student learns the teacher's distribution beside the data's own next token.

    loss = mix * tau^2 * KL(teacher || student) + (1 - mix) * cross-entropy

The KL is forward, at the temperature tau that the teacher's answers were stored at (Hinton et al. 2015, whose tau^2
keeps its gradient of one size), over the k stored ids and one bucket for all others. With k = V it is the full KL.
The paper's "405B improves 8B" goes by data and says nothing of logits: every number here is herd's choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from herd.errors import InputError
from herd.llama.loss import token_logprobs
from herd.train.batch import Batch
from herd.train.objectives.language_modelling import hidden_states, output_weight
from herd.train.objectives.terms import LossTerms

_LEAST = 1e-7  # a student's rest may round to zero; float32 resolves 1 - q no finer


@dataclass(frozen=True)
class Distillation:
    """Counts tokens, by weight. Metrics: `kl` (at the stored temperature, without tau^2) and `nll`."""

    mix: float = 0.5  # the teacher's share of the loss; herd's choice
    name: str = "distillation"
    unit: str = "tokens"

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        if "teacher_ids_BTk" not in batch.extras:
            raise InputError("a batch without a teacher's answers", mend="wrap the rows in TaughtRows")
        places = batch.places()
        weights_N = batch.weights_BT.flatten()[places]
        hidden_ND, targets_N = hidden_states(model, batch)[places], batch.targets_BT.flatten()[places]
        extras = batch.extras
        ids_Nk = extras["teacher_ids_BTk"].flatten(0, 1)[places]
        tau = float(extras["teacher_temperature_host"][0])
        student_Nk, own_N = _student(hidden_ND, output_weight(model), ids_Nk, targets_N, tau)
        teacher_Nk = extras["teacher_logprobs_BTk"].flatten(0, 1)[places]
        kl_N = bucketed_kl(teacher_Nk, extras["teacher_rest_BT"].flatten()[places], student_Nk)
        kl, nll = (kl_N * weights_N).sum(), -(own_N * weights_N).sum()
        total = self.mix * tau**2 * kl + (1.0 - self.mix) * nll
        return LossTerms(total, weights_N.sum(), {"kl": kl.detach(), "nll": nll.detach()})


def _student(
    hidden_ND: Tensor, weight_VD: Tensor, ids_Nk: Tensor, targets_N: Tensor, tau: float
) -> tuple[Tensor, Tensor]:
    """The student's log-probabilities of the teacher's ids at tau, [N, k], and of the targets at 1, [N]."""
    if tau == 1.0:  # one pass over the vocabulary for both
        both_NJ = token_logprobs(hidden_ND, weight_VD, torch.cat([ids_Nk, targets_N[:, None]], 1))
        return both_NJ[:, :-1], both_NJ[:, -1]
    return token_logprobs(hidden_ND / tau, weight_VD, ids_Nk), token_logprobs(hidden_ND, weight_VD, targets_N)


def bucketed_kl(teacher_Nk: Tensor, rest_N: Tensor, student_Nk: Tensor) -> Tensor:
    """KL(teacher || student) [N] over k ids and the bucket of all others.

    `teacher_Nk` and `student_Nk` are log-probabilities of the same ids, `rest_N` the teacher's probability of the
    others. Differentiable in `student_Nk`.
    """
    # Stored in half precision, the teacher's numbers do not sum to one exactly.
    rest_N = rest_N.clamp_min(0.0)
    norm_N = (teacher_Nk.exp().sum(-1) + rest_N).log()
    teacher_Nk, rest_N = teacher_Nk - norm_N[:, None], rest_N / norm_N.exp()
    inside_N = (teacher_Nk.exp() * (teacher_Nk - student_Nk)).sum(-1)
    student_rest_N = (1.0 - student_Nk.exp().sum(-1)).clamp_min(_LEAST)
    return inside_N + torch.xlogy(rest_N, rest_N) - rest_N * student_rest_N.log()
