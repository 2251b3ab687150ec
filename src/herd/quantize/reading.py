"""A text read by one model, its last hidden states kept on disk: two models are compared, and never held together.

    groups = grouped([Passage(ids), ...])
    logits = read_through(model, groups, folder)      # the BF16 model; its layers are let go of
    logits2 = read_through(other, groups, folder2)    # the FP8 model

Exact divergences need all logits of both, V numbers a token; their hidden states are D numbers, from which the output
matrices alone make the logits again, a few rows at a time (`quality.py`). What a killed run has read it need not read
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from herd.devices import device_of
from herd.errors import InputError
from herd.files import atomic_file
from herd.llama.model import Llama
from herd.progress import Progress, Silent

Logits = Callable[[Tensor], Tensor]  # hidden states [C, D] -> fp32 [C, V]
ROW = 1024  # tokens of one pass; its states at the width of 8B are 16 MB


@dataclass(frozen=True)
class Passage:
    """A text as ids. `counted` says which of its tokens are predicted and compared, () all but the first."""

    ids: tuple[int, ...]
    counted: tuple[bool, ...] = ()

    @property
    def places(self) -> list[int]:
        """The counted tokens, by their place in the passage."""
        return [place for place in range(1, len(self.ids)) if not self.counted or self.counted[place]]


@dataclass(frozen=True)
class Group:
    """Passages that one pass reads, one behind the other; none sees another."""

    passages: tuple[Passage, ...]

    @cached_property
    def starts(self) -> list[int]:
        lengths = [len(passage.ids) for passage in self.passages]
        return [sum(lengths[:number]) for number in range(len(lengths))]

    @cached_property
    def targets(self) -> list[tuple[int, int]]:
        """(passage, place) of every counted token, in order."""
        return [(number, place) for number, passage in enumerate(self.passages) for place in passage.places]

    def states(self, model: Llama) -> Tensor:
        """What stands before every counted token: fp32 hidden states [C, D] on the CPU."""
        ids = torch.tensor([[token for passage in self.passages for token in passage.ids]])
        documents = [number for number, passage in enumerate(self.passages) for _ in passage.ids]
        device = device_of(model)
        hidden_1ND = model(ids.to(device), document_ids_BT=torch.tensor([documents], device=device))
        rows = [self.starts[number] + place - 1 for number, place in self.targets]
        states_CD: Tensor = hidden_1ND[0, torch.tensor(rows, device=device)]
        return states_CD.float().cpu()


def grouped(passages: Sequence[Passage], row: int = ROW) -> list[Group]:
    """Passages in their order, as many together as fit `row` tokens; those without a counted token are left out.

    InputError where nothing is left.
    """
    groups: list[list[Passage]] = []
    size = row
    for passage in passages:
        if not passage.places:
            continue
        if size + len(passage.ids) > row:
            groups.append([])
            size = 0
        groups[-1].append(passage)
        size += len(passage.ids)
    if not groups:
        raise InputError("the text holds no token to predict", where="--check", mend="give a text of a few paragraphs")
    return [Group(tuple(some)) for some in groups]


def read_through(model: Llama, groups: Sequence[Group], folder: Path, progress: Progress | None = None) -> Logits:
    """Fill `folder` with the hidden states of every group, a file each; files that stand there are kept.

    The model is of no use afterwards: its layers are taken away, and what is left makes logits of such states.
    """
    progress = progress or Silent()
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(len(group.targets) for group in groups)
    done = 0
    for number, group in enumerate(groups):
        path = states_file(folder, number)
        if not path.exists():
            with torch.inference_mode(), atomic_file(path) as handle:
                np.save(handle, group.states(model).numpy())
        done += len(group.targets)
        progress.update(done, total, "tokens")
    model.model.layers = nn.ModuleList()
    device, dtype = device_of(model), model.model.norm.weight.dtype
    return lambda hidden_CD: model.logits(hidden_CD.to(device, dtype))


def states_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npy"
