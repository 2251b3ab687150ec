"""What quantising changed on a text, token by token: divergence, agreement, perplexity, the worst places.

    seen = differences(lambda: load_any("bf16"), lambda: load_any("fp8"), groups, scratch)
    seen.figures()["kl"]["p99"]

KL(P || Q) is in nats, P the BF16 model's distribution of the next token and Q the FP8 model's, over the whole
vocabulary, computed in float64. Means over tokens hide rare damage: that is why the 99th percentile, the largest value
and the places where it occurs are told too (the release found corrupted answers that no benchmark had shown).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from herd.errors import InputError
from herd.llama.model import Llama
from herd.progress import Progress, Silent
from herd.quantize.reading import Group, Logits, read_through, states_file

BF16, FP8 = "bf16", "fp8"
_VALUES = 2**23  # logits of one model at a time: 64 MB in float64, of which five or six exist at once
_QUANTILES = 200
_CONTEXT = 24  # tokens shown before a place


@dataclass(frozen=True)
class Seen:
    """One row a token. `own` are log-probabilities of the text's own token, by BF16 and by FP8; `chosen` the
    likeliest tokens of the two."""

    kl_C: Tensor
    own_C2: Tensor
    chosen_C2: Tensor

    @staticmethod
    def together(parts: Sequence[Seen]) -> Seen:
        kl, own, chosen = zip(*((part.kl_C, part.own_C2, part.chosen_C2) for part in parts), strict=True)
        return Seen(torch.cat(kl), torch.cat(own), torch.cat(chosen))

    @property
    def alike(self) -> int:
        """Tokens where both models would say the same."""
        return int((self.chosen_C2[:, 0] == self.chosen_C2[:, 1]).sum())

    def figures(self) -> dict[str, Any]:
        """Plain values; nothing of the text is in them."""
        kl = self.kl_C
        places = {"median": 0.5, "p99": 0.99, "max": 1.0}
        perplexities = (-self.own_C2.mean(0)).exp().tolist()
        return {
            "tokens": len(kl),
            "kl": {"mean": float(kl.mean()), **{name: float(kl.quantile(share)) for name, share in places.items()}},
            "top1_agreement": self.alike / len(kl),
            "perplexity": dict(zip((BF16, FP8), perplexities, strict=True)),
        }

    def divergences(self) -> list[float]:
        """The distribution of KL: quantiles at equal steps from 0 to 1."""
        found: list[float] = self.kl_C.quantile(torch.linspace(0, 1, _QUANTILES + 1, dtype=torch.float64)).tolist()
        return found


@dataclass(frozen=True)
class Worst:
    """A token on which both models differ: the text before it, its probability by each, and what each would say."""

    before: str
    expected: str
    bf16: float
    fp8: float
    kl: float
    bf16_says: str
    fp8_says: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def worst(seen: Seen, groups: Sequence[Group], decode: Callable[[list[int]], str], count: int = 20) -> list[Worst]:
    """The tokens with the largest divergence, the largest first."""
    every = [(group.passages[number], place) for group in groups for number, place in group.targets]
    found = []
    for index in seen.kl_C.topk(min(count, len(every))).indices.tolist():
        passage, place = every[index]
        before = decode(list(passage.ids[max(0, place - _CONTEXT) : place]))
        says = [decode([token]) for token in seen.chosen_C2[index].tolist()]
        bf16, fp8 = seen.own_C2[index].exp().tolist()
        found.append(Worst(before, decode([passage.ids[place]]), bf16, fp8, float(seen.kl_C[index]), says[0], says[1]))
    return found


def differences(
    wide: Callable[[], Llama],
    narrow: Callable[[], Llama],
    groups: Sequence[Group],
    scratch: Path,
    progress: Progress | None = None,
) -> Seen:
    """Both models on every counted token, one after the other; `scratch` keeps what was read, through a kill.

    InputError where a model predicts NaN.
    """
    progress = progress or Silent()
    first = read_through(wide(), groups, scratch / BF16, progress)
    second = read_through(narrow(), groups, scratch / FP8, progress)
    total, done = sum(len(group.targets) for group in groups), 0
    found: list[Seen] = []
    for number, group in enumerate(groups):
        own_C = torch.tensor([group.passages[passage].ids[place] for passage, place in group.targets])
        p_CD, q_CD = (torch.from_numpy(np.load(states_file(scratch / name, number))) for name in (BF16, FP8))
        found += _compared(first, second, p_CD, q_CD, own_C)
        done += len(own_C)
        progress.update(done, total, "tokens compared")
    return Seen.together(found)


@torch.inference_mode()
def _compared(first: Logits, second: Logits, p_CD: Tensor, q_CD: Tensor, own_C: Tensor) -> list[Seen]:
    """A few rows of logits at a time."""
    found: list[Seen] = []
    start, step = 0, 1  # one row tells the vocabulary
    while start < len(own_C):
        rows = slice(start, start + step)
        p_CV, q_CV = (
            _logprobs(logits(x[rows]), which) for logits, x, which in ((first, p_CD, BF16), (second, q_CD, FP8))
        )
        kl_C = (p_CV.exp() * (p_CV - q_CV)).sum(-1).clamp_(min=0.0)  # rounding can leave -1e-17
        own_C2 = torch.cat([x_CV.gather(1, own_C[rows, None]) for x_CV in (p_CV, q_CV)], 1)
        found.append(Seen(kl_C, own_C2, torch.stack([p_CV.argmax(-1), q_CV.argmax(-1)], 1)))
        start, step = start + step, max(1, _VALUES // p_CV.shape[1])
    return found


def _logprobs(logits_CV: Tensor, which: str) -> Tensor:
    found_CV = logits_CV.double().cpu().log_softmax(-1)
    if not math.isfinite(float(found_CV.sum())):
        raise InputError(f"the {which} model predicts NaN", where="--check", mend="see herd inspect MODEL --values")
    return found_CV
