"""The consolidated files of a Meta folder as one model: joined over ranks, scales beside their FP8 matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from herd.errors import ArtifactError, FormatError
from herd.llama.config import LlamaConfig
from herd.weights import meta_parts as parts
from herd.weights.pth import read_pth
from herd.weights.stored import FP8, TIED, expected_shapes, in_order, scale_name
from herd.weights.tensors import Entry, printable, refuse_escape

_HARMLESS = ("rope.freqs",)  # in Llama 1 and 2's files: computed, not learnt


@dataclass(frozen=True)
class MetaFiles:
    """The tensors of every rank, mapped, and the scales of every rank (empty without FP8)."""

    folder: Path
    ranks: tuple[dict[str, Tensor], ...]
    scales: tuple[dict[str, Tensor], ...]

    @classmethod
    def open(cls, folder: Path) -> MetaFiles:
        paths = sorted(folder.glob("consolidated.*.pth"))
        for rank, path in enumerate(paths):
            if path.name != f"consolidated.{rank:02d}.pth":
                raise ArtifactError(
                    f"consolidated.{rank:02d}.pth is missing beside {path.name}",
                    where=str(folder),
                    mend="copy or download the whole folder",
                )
            refuse_escape(path, folder)
        ranks = tuple(
            {name: tensor for name, tensor in read_pth(path).items() if name not in _HARMLESS} for path in paths
        )
        for path, tensors in zip(paths, ranks, strict=True):
            _same_names(ranks[0], tensors, path)
        return cls(folder, ranks, cls._open_scales(folder, ranks))

    @staticmethod
    def _open_scales(folder: Path, ranks: Sequence[dict[str, Tensor]]) -> tuple[dict[str, Tensor], ...]:
        if not any(tensor.dtype == FP8 for tensor in ranks[0].values()):
            return ()
        paths = [folder / f"fp8_scales_{rank}.pt" for rank in range(len(ranks))]
        for path in paths:
            refuse_escape(path, folder)
        return tuple(read_pth(path) for path in paths)

    @property
    def is_fp8(self) -> bool:
        return bool(self.scales)

    @cached_property
    def _first(self) -> dict[str, Tensor]:
        return self.ranks[0]

    def size(self, name: str, dim: int) -> int:
        """Of a tensor over all ranks, along the dimension in which it is cut."""
        if name not in self._first:
            raise ArtifactError(f"missing: {name}", where=str(self.folder / "consolidated.00.pth"))
        if self._first[name].dim() <= dim:
            raise FormatError(f"{name} is no matrix", where=str(self.folder / "consolidated.00.pth"))
        return sum(rank[name].shape[dim] for rank in self.ranks)

    def is_tied(self) -> bool:
        """The output matrix is the embedding's own storage, or not there at all."""
        output, embedding = self._first.get("output.weight"), self._first.get("tok_embeddings.weight")
        return output is None or (embedding is not None and output.data_ptr() == embedding.data_ptr())

    def check_count(self, dim: object) -> None:
        """Files at the end may be missing: the first one tells how many there should be."""
        wq = self._first.get("layers.0.attention.wq.weight")
        if not isinstance(dim, int) or wq is None or wq.dim() != 2 or wq.shape[0] == 0:
            return  # other checks say what is wrong
        wanted = dim // wq.shape[0]
        if wanted > len(self.ranks):
            raise ArtifactError(
                f"{len(self.ranks)} consolidated files are here, and each holds 1/{wanted} of the model",
                where=str(self.folder),
                mend="copy or download the whole folder",
            )

    def kv_repeats(self, config: LlamaConfig) -> int:
        """How often each key/value head is stored, by the first layer's values; more ranks than heads repeat them."""
        name = "layers.0.attention.wk.weight"
        if len(self.ranks) < config.n_kv_heads or len(self.ranks) == 1 or name not in self._first:
            return 1
        pieces = [rank[name] for rank in self.ranks]
        if any(p.dim() != 2 or p.shape[0] % config.head_dim for p in pieces):
            return 1
        return parts.repeats_of(pieces, config.head_dim)

    def entries(self, config: LlamaConfig, notes: list[str]) -> dict[str, Entry]:
        """Every tensor by Hugging Face's name; what belongs to no such name keeps Meta's, for the check to refuse."""
        found: dict[str, Entry] = {}
        known = {parts.part_of(name).name: name for name in expected_shapes(config)}
        if config.tie_embeddings:
            known["output.weight"] = TIED
        widened = 0
        for meta_name, tensor in self._first.items():
            name = known.get(meta_name)
            if name == TIED and config.tie_embeddings:
                continue
            part = parts.part_of(name) if name else parts.Part(meta_name)
            shape = self._shape(part, tensor, config)
            if name is None or tensor.dtype != FP8 or ".mlp." not in name:  # no other matrix has scales in this layout
                found[name or meta_name] = self._entry(name or meta_name, part, shape, config)
                continue
            scale = self._scale(part)
            if scale is None:
                widened += 1
                found[name] = self._widened(name, part, shape)
                continue
            found[name] = self._entry(name, part, shape, config)
            found[scale_name(name)] = _held(scale_name(name), scale)
        if widened:
            notes.append(f"{widened} FP8 matrices have scales of their own in each rank and are read as BF16")
        return in_order(config, found)

    def _shape(self, part: parts.Part, tensor: Tensor, config: LlamaConfig) -> tuple[int, ...]:
        shape = list(tensor.shape)
        if part.dim != parts.REPLICATED and len(shape) == 2:
            shape[part.dim] = self.size(part.name, part.dim)
            if part.per_kv_head and shape[0] > config.kv_dim and shape[0] % config.kv_dim == 0:
                shape[0] = config.kv_dim  # heads that are stored several times
        return tuple(shape)

    def _entry(self, name: str, part: parts.Part, shape: tuple[int, ...], config: LlamaConfig) -> Entry:
        def values() -> Tensor:
            where = f"{self.folder}: {part.name}"
            return parts.join([rank[part.name] for rank in self.ranks], part, config, shape, where)

        return Entry(name, shape, self._first[part.name].dtype, values, "consolidated.00.pth")

    def _scales(self, part: parts.Part) -> list[Tensor]:
        found = []
        for rank, scales in enumerate(self.scales):
            key = parts.scale_key(part.name, rank)
            rows = self.ranks[rank][part.name].shape[0]
            if key not in scales or scales[key].numel() != rows:
                raise FormatError(
                    f"{key} is missing or has not {rows} scales", where=str(self.folder / f"fp8_scales_{rank}.pt")
                )
            found.append(scales[key].flatten().float())
        return found

    def _scale(self, part: parts.Part) -> Tensor | None:
        """The scales [out, 1] of a matrix; None where ranks disagree on one row's."""
        scales = self._scales(part)
        if part.dim == 0:
            return torch.cat(scales)[:, None]
        return scales[0][:, None] if all(torch.equal(scales[0], other) for other in scales) else None

    def _widened(self, name: str, part: parts.Part, shape: tuple[int, ...]) -> Entry:
        def values() -> Tensor:
            wide = torch.empty(shape, dtype=torch.bfloat16)
            start = 0
            for rank, scale in zip(self.ranks, self._scales(part), strict=True):
                narrow = rank[part.name]
                wide.narrow(1, start, narrow.shape[1]).copy_(narrow.float() * scale[:, None])
                start += narrow.shape[1]
            return wide

        return Entry(name, shape, torch.bfloat16, values, "consolidated.00.pth")


def _held(name: str, tensor: Tensor) -> Entry:
    """An entry whose values are in memory already; scales are small."""
    return Entry(name, tuple(tensor.shape), tensor.dtype, lambda: tensor, "fp8_scales_0.pt")


def _same_names(first: dict[str, Tensor], other: dict[str, Tensor], path: Path) -> None:
    odd = sorted(first.keys() ^ other.keys()) + sorted(
        name for name in first.keys() & other.keys() if first[name].shape != other[name].shape
    )
    if odd:
        raise FormatError(
            f"its tensors are not those of consolidated.00.pth: {printable(', '.join(odd[:4]))}",
            where=str(path),
            mend="the files belong to different models; copy the folder again",
        )
