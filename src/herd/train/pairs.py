"""Preference pairs as rows: chosen and rejected responses to one prompt, for the reward model and for DPO.

A microbatch holds whole pairs: row 2i is chosen, row 2i + 1 rejected, padded on the right to its longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from herd.errors import InputError
from herd.train.batch import PAIR_WEIGHTS, WHOLE, Batch, Part
from herd.train.order import Ints, permutation
from herd.train.packing import packed_row
from herd.train.settings import TrainSettings


class Kinded(Protocol):
    """Ids with their mask and kinds: `herd.text.chat.Dialogue` is one."""

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def trained(self) -> Sequence[bool]: ...

    @property
    def kinds(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Preference:
    """Two whole dialogues that begin with the same `prompt_tokens` ids (`encode_prompt` of the shared messages)."""

    chosen: Kinded
    rejected: Kinded
    prompt_tokens: int

    def __post_init__(self) -> None:
        n = self.prompt_tokens
        if n < 1 or list(self.chosen.ids[:n]) != list(self.rejected.ids[:n]):
            raise InputError(f"the two dialogues of a pair do not share their first {n} tokens")
        for side in (self.chosen, self.rejected):
            if "content" not in side.kinds[n:]:
                raise InputError("a response of a pair is empty", mend="leave such pairs out")

    @property
    def sides(self) -> tuple[Kinded, Kinded]:
        return self.chosen, self.rejected

    @property
    def longest(self) -> int:
        return max(len(self.chosen.ids), len(self.rejected.ids))


def pair_batch(
    pairs: Sequence[Preference], reference_P2: Tensor | None = None, pad: int = 0, *, longest: int = 0, fill: int = 0
) -> Batch:
    """P pairs as 2P rows, of `longest` tokens at least; the last `fill` pairs weigh 0.

    weights_BT weighs the response's trained content only: headers and stops are left out (paper, section 4.1.4).
    extras: `last_B` place of each row's last token; `stops_BT` the trained stop tokens that weights_BT leaves out;
    `answer_N` flat places of both; `pair_weights_P` 1, or 0 for pairs that only make microbatches equal;
    `reference_B` the reference model's summed log-probabilities, where given.
    """
    # A multiple of 8 tokens: matrix kernels like it, and batches of nearly equal shape share memory.
    width = -(-max(longest, *(pair.longest for pair in pairs)) // 8) * 8
    sides = [(side, pair.prompt_tokens) for pair in pairs for side in pair.sides]
    rows = [packed_row([side], width, pad) for side, _ in sides]
    trained_BT = np.stack([row.weights_T for row in rows])
    content_BT = np.zeros_like(trained_BT)
    for i, (side, prompt_tokens) in enumerate(sides):
        trained_BT[i, : prompt_tokens - 1] = 0
        is_content = np.asarray([kind == "content" for kind in side.kinds])
        content_BT[i, : len(side.ids) - 1] = is_content[1:]
    weights_BT = trained_BT * content_BT
    extras = {
        "last_B": torch.tensor([len(side.ids) - 1 for side, _ in sides]),
        "stops_BT": torch.from_numpy(trained_BT - weights_BT),
        "answer_N": torch.from_numpy(np.flatnonzero(trained_BT)),
        PAIR_WEIGHTS: torch.tensor([1.0] * (len(pairs) - fill) + [0.0] * fill),
    }
    if reference_P2 is not None:
        extras["reference_B"] = reference_P2.flatten()
    return Batch(
        tokens_BT=torch.from_numpy(np.stack([row.tokens_T for row in rows])),
        targets_BT=torch.from_numpy(np.stack([row.targets_T for row in rows])),
        weights_BT=torch.from_numpy(weights_BT),
        document_ids_BT=None,  # one sequence a row, padded on the right: plain causal attention is enough
        positions_BT=torch.from_numpy(np.stack([row.positions_T for row in rows])),
        extras=extras,
    )


@dataclass
class PairBatches:
    """Steps of `settings.rows_per_step // 2` pairs (at least one), in a new random order every epoch.

    Within a step pairs of like length share a microbatch, at most `microbatch_tokens` each, padding counted.
    """

    pairs: Sequence[Preference]
    settings: TrainSettings
    reference_P2: Tensor | None = None  # float32 [pairs, 2], from `dpo.reference_logprobs`
    pad: int = 0
    _orders: dict[int, Ints] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        longer = sum(pair.longest > self.settings.seq_len for pair in self.pairs)
        if longer or not self.pairs:
            what = f"{longer} of {len(self.pairs)} pairs are longer than {self.settings.seq_len} tokens"
            raise InputError(what if longer else "there are no pairs", mend="raise seq_len, or leave them out")

    @property
    def pairs_per_step(self) -> int:
        return max(1, self.settings.rows_per_step // 2)

    def batch(self, step: int, part: Part = WHOLE) -> list[Batch]:
        n = self.pairs_per_step
        chosen = sorted(
            (self._index(number) for number in range(step * n, (step + 1) * n)),
            key=lambda i: (self.pairs[i].longest, i),
        )
        # Neighbours in length go to different parts: every part's microbatches are as wide as the others'.
        rounds = [chosen[at : at + part.count] for at in range(0, n, part.count)]
        budget = self.settings.microbatch_tokens or self.settings.batch_tokens
        widths = [self.pairs[one[-1]].longest for one in rounds]
        return [
            self._collate([rounds[i] for i in group], part)
            for group in group_by_width(widths, range(len(rounds)), budget)
        ]

    def _index(self, number: int) -> int:
        epoch, place = divmod(number, len(self.pairs))
        if epoch not in self._orders:
            while len(self._orders) >= 2:
                del self._orders[next(iter(self._orders))]
            self._orders[epoch] = permutation(len(self.pairs), self.settings.seed, epoch)
        return int(self._orders[epoch][place])

    def _collate(self, rounds: Sequence[Sequence[int]], part: Part) -> Batch:
        """One pair of each round; where the last round has none for this part, one of weight 0."""
        mine = [one[part.index] for one in rounds if part.index < len(one)]
        fill = len(rounds) - len(mine)
        mine += [rounds[0][0]] * fill
        reference = None if self.reference_P2 is None else self.reference_P2[mine]
        longest = self.pairs[rounds[-1][-1]].longest
        return pair_batch([self.pairs[i] for i in mine], reference, self.pad, longest=longest, fill=fill)


def group_by_width(widths: Sequence[int], indices: Sequence[int], budget: int, rows_each: int = 2) -> list[list[int]]:
    """Cut items sorted by width into runs that hold at most `budget` tokens, padded to their widest row.

    An item is `rows_each` rows (a pair is two). One that is over the budget alone makes a run of its own.
    """
    cuts = [0]
    for end in range(1, len(indices)):
        if rows_each * (end + 1 - cuts[-1]) * widths[end] > budget:
            cuts.append(end)
    return [list(indices[start:end]) for start, end in pairwise([*cuts, len(indices)]) if start < end]
