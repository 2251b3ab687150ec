"""What a model is between formats: its shape, and named tensors that are read when asked for.

Every format of `registry.py` opens to a `StoredModel` and is written from one, so that any pair of formats converts:

    model = open_model("original/")                       # Meta's layout, detected
    model.tensors["model.norm.weight"].values()           # one tensor, in Hugging Face's name and row order

Not here: networks (`build.py` makes one out of a StoredModel), training checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from herd.errors import ArtifactError
from herd.llama.config import LlamaConfig
from herd.llama.model import Llama
from herd.weights.tensors import Entry, printable, refuse_escape

TIED = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
FP8 = torch.float8_e4m3fn
_NUMBERS = {torch.float64, torch.float32, torch.float16, torch.bfloat16, FP8}
# Files that travel with a model as they are, where a format has room for files of its own.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.model",
)
TRAVELLING = (*TOKENIZER_FILES, "generation_config.json", "LICENSE", "LICENSE.txt", "USE_POLICY.md", "Notice", "NOTICE")


class SavesFiles(Protocol):
    """What a format needs of a tokenizer; `text.Tokenizer` is one."""

    @property
    def bos(self) -> int: ...
    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class StoredModel:
    """A model as it lies on disk, opened: nothing but headers has been read.

    `tensors` have Hugging Face's names and row order; a tied model has no lm_head.weight. An FP8 matrix is
    `X.weight` in float8_e4m3fn beside `X.weight_scale`, fp32 [out, 1]; where activations have fixed scales, beside
    `X.input_scale` too, fp32 [1], and then every FP8 matrix has one.
    """

    path: Path
    config: LlamaConfig
    tensors: Mapping[str, Entry]
    bos: int | None = None
    stops: tuple[int, ...] = ()  # end of text first; an instruct model has more than one
    activation_bound: float | None = None  # of the FP8 layers
    files: Mapping[str, Path] = field(default_factory=dict)  # of TRAVELLING: name -> where it lies
    tokenizer: SavesFiles | None = None  # of a format that holds it inside itself
    herd: Mapping[str, Any] = field(default_factory=dict)  # what herd.json says
    findings: Callable[[], Mapping[str, Any]] = dict  # for herd.json too, known when every tensor was read
    config_file: str = "config.json"  # where the shape stands, for messages
    base: Path | None = None  # of an adapter: where the model lies that it changes
    notes: tuple[str, ...] = ()  # what a reader should know: "16 key/value heads are 8, each stored twice"

    @property
    def is_fp8(self) -> bool:
        return any(entry.dtype == FP8 for entry in self.tensors.values())

    @property
    def is_static(self) -> bool:
        """Whether the activations of FP8 matrices have fixed scales, instead of one a token made on the fly."""
        return any(input_scale_name(name) in self.tensors for name, e in self.tensors.items() if e.dtype == FP8)

    @property
    def n_bytes(self) -> int:
        return sum(entry.n_bytes for entry in self.tensors.values())


def expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The tensors that a model of this shape has, by Hugging Face's names, none of them FP8."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Llama(config).state_dict().items()}


def faults(config: LlamaConfig, tensors: Mapping[str, Entry], said_by: str = "config.json") -> list[str]:
    """Missing, unexpected and mis-shaped tensors, each in a sentence; empty for a whole model."""
    expected = expected_shapes(config)
    narrow = [name for name, entry in tensors.items() if entry.dtype == FP8 and name in expected]
    static = any(input_scale_name(name) in tensors for name in narrow)
    for name in narrow:
        expected[scale_name(name)] = (expected[name][0], 1)
        if static:
            expected[input_scale_name(name)] = (1,)
    found = [f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in tensors]
    found += [
        f"unexpected: {printable(e.name)} {list(e.shape)} in {e.place}"
        for e in tensors.values()
        if e.name not in expected
    ]
    found += [
        f"wrong shape: {name} is {list(tensors[name].shape)} in {tensors[name].place}, {said_by} says {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    strange = [entry for entry in tensors.values() if entry.dtype not in _NUMBERS]
    return found + [f"wrong dtype: {e.name} is {e.dtype} in {e.place}; weights are floats" for e in strange]


def scale_name(weight: str) -> str:
    """The scale beside an FP8 weight: X.weight -> X.weight_scale."""
    return weight + "_scale"


def input_scale_name(weight: str) -> str:
    """The fixed scale of the activations that an FP8 weight is multiplied by: X.weight -> X.input_scale."""
    return weight.removesuffix("weight") + "input_scale"


def is_scale(name: str) -> bool:
    """Whether a tensor is one of the two scales, and no parameter."""
    return name.endswith("_scale")


def in_order(config: LlamaConfig, tensors: Mapping[str, Entry]) -> dict[str, Entry]:
    """The tensors in the network's order, scales after their matrix and strangers last: equal models, equal files."""
    kinds = [(name, scale_name(name), input_scale_name(name)) for name in expected_shapes(config)]
    wanted = [each for names in kinds for each in names if each in tensors]
    known = set(wanted)
    return {name: tensors[name] for name in [*wanted, *(name for name in tensors if name not in known)]}


def check(config: LlamaConfig, tensors: Mapping[str, Entry], where: str, said_by: str = "config.json") -> None:
    """ArtifactError that names the first few faults together."""
    found = faults(config, tensors, said_by)
    if found:
        listed = "\n  ".join(found[:8]) + (f"\n  and {len(found) - 8} more" if len(found) > 8 else "")
        raise ArtifactError(
            f"the tensors are not those of this model:\n  {listed}",
            where=where,
            mend="config and weights belong to different models, or a file was lost; copy the folder again",
        )


def travelling_files(folder: Path) -> dict[str, Path]:
    """The files of TRAVELLING that a folder has. A link out of the folder is refused: what it names would travel."""
    found = {name: folder / name for name in TRAVELLING if (folder / name).is_file()}
    for path in found.values():
        refuse_escape(path, folder)
    return found
