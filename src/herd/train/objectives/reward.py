"""The reward model: a Llama with one linear output on the last token, trained on pairs (paper, section 4.1.2).

The loss is -log sigmoid(r(chosen) - r(rejected)), Llama 2's without its margin term, as the paper chose. Scores mean
nothing alone; only differences within a prompt do. The head begins at zero, so every pair begins at log 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from herd.devices import device_of
from herd.llama.model import Llama
from herd.progress import Progress, Silent
from herd.train.batch import Batch
from herd.train.objectives.terms import LossTerms, pair_terms
from herd.train.pairs import group_by_width


class Score(nn.Linear):
    """One number of a hidden state, in float32 also when the network computes in bfloat16: differences are small."""

    def forward(self, hidden_BD: Tensor) -> Tensor:
        return F.linear(hidden_BD.float(), self.weight.float())


class RewardModel(nn.Module):
    """`forward` scores whole rows: one float32 for each, read off the hidden state of its last token.

    The Llama's output matrix is kept (to go on as a language model) but takes no part and gets no gradient.
    """

    def __init__(self, llama: Llama) -> None:
        super().__init__()
        self.llama = llama
        device = device_of(llama)  # no folder has the score: it has values over a network without any too
        self.score = Score(llama.config.dim, 1, bias=False, device="cpu" if device.type == "meta" else device)
        nn.init.zeros_(self.score.weight)

    def forward(self, tokens_BT: Tensor, last_B: Tensor, positions_BT: Tensor | None = None) -> Tensor:
        """tokens_BT padded on the right, last_B the place of each row's last token -> rewards_B."""
        hidden_BTD = self.llama(tokens_BT, positions_BT=positions_BT)
        hidden_BD = hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B]
        rewards_B1: Tensor = self.score(hidden_BD)
        return rewards_B1.squeeze(-1)


@dataclass(frozen=True)
class RewardObjective:
    """Counts pairs. Metrics: `accuracy` (a tie counts half) and the mean `margin` of chosen over rejected."""

    name: str = "reward"
    unit: str = "pairs"

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        rewards_P2 = model(batch.tokens_BT, batch.extras["last_B"], batch.positions_BT).view(-1, 2)
        margin_P = rewards_P2[:, 0] - rewards_P2[:, 1]
        return pair_terms(batch, -F.logsigmoid(margin_P), margin_P)


@torch.no_grad()
def score(
    model: RewardModel,
    sequences: Sequence[Sequence[int]],
    microbatch_tokens: int = 8192,
    progress: Progress | None = None,
) -> list[float]:
    """The reward of each whole dialogue (its ids), in the order given. Like lengths share a forward."""
    progress, rewards, device = progress or Silent(), [0.0] * len(sequences), device_of(model)
    order = sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i))
    done = 0
    for group in group_by_width([len(sequences[i]) for i in order], order, microbatch_tokens, rows_each=1):
        last_B = torch.tensor([len(sequences[i]) - 1 for i in group])
        tokens_BT = torch.zeros(len(group), int(last_B.max()) + 1, dtype=torch.int64)
        for row, i in enumerate(group):
            tokens_BT[row, : len(sequences[i])] = torch.tensor(sequences[i])
        for i, reward in zip(group, model(tokens_BT.to(device), last_B.to(device)).tolist(), strict=True):
            rewards[i] = reward
        done += len(group)
        progress.update(done, len(sequences), "dialogues")
    return rewards
