"""The files of weights in a Hugging Face folder, read lazily: safetensors, or `pytorch_model.bin` of older ones.

    entries = hf_entries(folder)            # name -> Entry; headers only, values are mapped when asked for

In the order in which transformers looks: model.safetensors, its shards by the index, pytorch_model.bin, its shards.
Shards of safetensors whose index was lost are known by their numbers, all of which must be there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from herd.errors import ArtifactError, FormatError
from herd.files import read_json
from herd.weights.pth import read_pth
from herd.weights.tensors import DTYPES, INDEX, SINGLE, Entry, printable, refuse_escape

TORCH_SINGLE, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_AGAIN = "copy or download the model folder again"


def has_weights(folder: Path) -> bool:
    """Whether any of the files that `hf_entries` reads is there."""
    names = (SINGLE, INDEX, TORCH_SINGLE, TORCH_INDEX)
    return any((folder / name).is_file() for name in names) or bool(_numbered(folder))


def hf_entries(folder: Path) -> dict[str, Entry]:
    """Every tensor by name. Missing, cut short or contradicting files are refused by name."""
    names, weight_map = _files(folder)
    found: dict[str, Entry] = {}
    for name in names:
        refuse_escape(folder / name, folder)
        for entry in _opened(folder / name):
            if entry.name in found:
                where = str(folder / name)
                raise FormatError(f"tensor {printable(entry.name)} is also in {found[entry.name].place}", where=where)
            found[entry.name] = entry
    for tensor, name in weight_map.items():
        if tensor not in found or found[tensor].place != name:
            raise FormatError(
                f"the index places tensor {printable(tensor)} here, but it is not", where=str(folder / name)
            )
    return found


def _files(folder: Path) -> tuple[list[str], Mapping[str, str]]:
    """The files to read, and which tensor the index places in which (empty without an index)."""
    for single, index in ((SINGLE, INDEX), (TORCH_SINGLE, TORCH_INDEX)):
        if (folder / single).exists():  # the single file wins
            return [single], {}
        if (folder / index).exists():
            weight_map = _weight_map(folder / index)
            return sorted(set(weight_map.values())), weight_map
        if index == INDEX and (shards := _numbered(folder)):
            return shards, {}
    raise ArtifactError(
        f"neither {SINGLE} nor {INDEX} is here",
        where=str(folder),
        mend="point to a model folder in the Hugging Face layout with safetensors",
    )


def _numbered(folder: Path) -> list[str]:
    """The shards of a folder by their own numbers, those that are not there too."""
    totals = {match[2] for path in folder.glob("model-*") if (match := _SHARD.fullmatch(path.name))}
    return [f"model-{n:05d}-of-{total}.safetensors" for total in sorted(totals) for n in range(1, int(total) + 1)]


def notes_on(folder: Path) -> tuple[str, ...]:
    """What other programs would make of these files."""
    if (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        return ()
    if _numbered(folder):
        return (f"{INDEX} is lost; the shards are read by their numbers. herd convert --to hf writes it anew",)
    return ("the weights are pickles (pytorch_model.bin), read safely; herd convert --to hf makes safetensors of them",)


def _weight_map(path: Path) -> Mapping[str, str]:
    content = read_json(path)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    plain = isinstance(weight_map, dict) and all(
        isinstance(file, str) and Path(file).name == file for file in weight_map.values()
    )
    if not weight_map or not plain:
        raise FormatError("the index has no weight_map of tensor names to file names", where=str(path))
    return dict(weight_map)


def _opened(path: Path) -> Iterator[Entry]:
    if path.suffix == ".safetensors":
        yield from _safetensors(path)
        return
    for name, tensor in read_pth(path).items():
        yield Entry(name, tuple(tensor.shape), tensor.dtype, partial(_same, tensor), path.name)


def _same(tensor: Tensor) -> Tensor:
    return tensor.detach()


def _safetensors(path: Path) -> Iterator[Entry]:
    try:
        handle: Any = safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError as error:  # the library says so of a file without the right to read it too
        said = "a file of weights cannot be read" if path.exists() else "a file of weights is missing"
        raise ArtifactError(said, where=str(path), mend=_AGAIN) from error
    except (SafetensorError, OSError) as error:
        raise FormatError(
            f"not a whole safetensors file ({os.path.getsize(path)} bytes): {error}",
            where=str(path),
            mend=f"it was cut short or changed; {_AGAIN}",
        ) from error
    for name in handle.keys():  # noqa: SIM118 (a handle is no mapping)
        part = handle.get_slice(name)
        if part.get_dtype() not in DTYPES:
            raise FormatError(
                f"tensor {printable(name)} is {part.get_dtype()}, which is not read here", where=str(path)
            )
        yield Entry(
            name, tuple(part.get_shape()), DTYPES[part.get_dtype()], partial(handle.get_tensor, name), path.name
        )
