"""What a model says of rows, where many processes share it: its own answers by row, not sums over a step.

    asked = Asked.of(model, settings, mesh, weights)        # laid out for forwards alone; every process calls it
    found_P2 = asked.reference_logprobs(pairs, tokens)      # the same on every process
    answers = asked.topk(batch, k, temperature)             # of the whole batch, on every process

For what is computed once, before training: the reference of DPO, a teacher's answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from herd.progress import Progress, Silent
from herd.train.batch import PAIR_WEIGHTS, Batch
from herd.train.objectives.dpo import response_logprobs
from herd.train.objectives.terms import LossTerms
from herd.train.pairs import Preference, group_by_width, pair_batch
from herd.train.parallel.mesh import Mesh
from herd.train.parallel.worker import MeshWorker
from herd.train.settings import TrainSettings
from herd.train.sharded_ranks import Ranks
from herd.train.teacher import topk_answers


@dataclass(frozen=True)
class _Asking:
    """An objective that looks: `ask` is called where hidden states end up, with whole rows."""

    ask: Callable[[nn.Module, Batch], None]
    name: str = "asking"
    unit: str = "pairs"  # whole rows on every context rank

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        self.ask(model, batch)
        nothing = torch.zeros((), device=batch.tokens_BT.device)
        return LossTerms(nothing, nothing + 1)


def _nothing(model: nn.Module, batch: Batch) -> None:
    pass


@dataclass(frozen=True)
class Asked:
    """A model on a mesh. All processes call the same methods with the same arguments."""

    worker: MeshWorker
    ranks: Ranks

    @staticmethod
    def of(model: nn.Module, settings: TrainSettings, mesh: Mesh, weights: Iterable[tuple[str, Tensor]]) -> Asked:
        return Asked(MeshWorker.of(model, _Asking(_nothing), settings, mesh, weights), Ranks.here())

    @property
    def _answers(self) -> bool:
        """Whether this process has answers that no other has: the first of those that compute alike."""
        place, plan = self.worker.mesh.place, self.worker.mesh.plan
        return place.tp == 0 and place.cp == 0 and place.pp == plan.pp - 1

    def reference_logprobs(
        self, pairs: Sequence[Preference], microbatch_tokens: int, progress: Progress | None = None
    ) -> Tensor:
        """Summed content log-probabilities [pairs, 2], as `dpo.reference_logprobs` of one process."""
        found_P2, progress, done = torch.zeros(len(pairs), 2), progress or Silent(), 0

        def look(model: nn.Module, batch: Batch) -> None:
            content_B, _ = response_logprobs(model, batch)
            counted = batch.extras[PAIR_WEIGHTS] > 0  # others fill a data rank's share up
            if self._answers:
                found_P2[batch.extras["number_P"][counted].cpu()] = content_B.view(-1, 2)[counted].float().cpu()

        order = sorted(range(len(pairs)), key=lambda at: (pairs[at].longest, at))
        for group in group_by_width([pairs[at].longest for at in order], order, microbatch_tokens):
            batch = pair_batch([pairs[at] for at in group])
            batch.extras["number_P"] = torch.tensor(group)  # type: ignore[index]  # a dict, freshly made
            self.worker.sums([batch], _Asking(look))
            done += len(group)
            progress.update(done, len(pairs), "pairs")
        return torch.tensor(self.worker.agreed(found_P2.flatten().tolist()), dtype=torch.float32).view(-1, 2)

    def topk(self, batch: Batch, k: int, temperature: float) -> dict[str, Tensor]:
        """`teacher.topk_answers` of a batch whose rows the data ranks share."""
        found: list[dict[str, Tensor]] = []
        self.worker.sums([batch], _Asking(lambda model, own: found.append(topk_answers(model, own, k, temperature))))
        mine = len(self.worker.part.of(len(batch.tokens_BT)))
        own = {name: values[:mine] for name, values in found[0].items()} if self._answers and mine else {}
        parts = [part for part in self.ranks.gather(own) if part]  # in the order of ranks, which is that of rows
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
