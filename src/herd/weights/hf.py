"""Model folders in Hugging Face's layout: config.json, safetensors, generation_config.json, tokenizer, herd.json.

    save_model(folder, model, config, tokenizer=tokenizer, herd={"made_by": ...})
    model = load_model(folder)          # fp32 on the CPU; an FP8 folder gives FP8 layers

A folder appears whole or not at all. Loading builds the network without memory, checks every name and shape from the
files' headers, then assigns tensor after tensor from the memory map.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from herd.errors import ArtifactError
from herd.files import atomic_folder, read_json, write_json
from herd.llama.config import VOCABULARY, LlamaConfig
from herd.llama.model import Llama
from herd.weights.config_json import from_hf, generation_config, to_hf
from herd.weights.quantization import make_fp8, read_layout
from herd.weights.tensors import Entry, TensorFiles, write_tensors

GIB = 2**30
_TIED = "lm_head.weight"
# Ids of the released vocabulary, for a folder written without a tokenizer: begin, end of text, eom, eot.
_RELEASED_BOS, _RELEASED_STOPS = 128_000, (128_001, 128_008, 128_009)


class SavesFiles(Protocol):
    """What a folder needs of a tokenizer; `text.Tokenizer` is one."""

    @property
    def bos(self) -> int: ...
    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def save(self, folder: Path) -> None: ...


def save_model(
    folder: str | Path,
    model_or_state: nn.Module | Mapping[str, Tensor],
    config: LlamaConfig,
    *,
    tokenizer: SavesFiles | None = None,
    dtype: torch.dtype = torch.bfloat16,
    herd: Mapping[str, Any],
    instruct: bool = False,
    max_shard_bytes: int = 5 * GIB,
    quantization_config: Mapping[str, Any] | None = None,
) -> int:
    """Write a model folder that transformers loads; returns the bytes of its tensors.

    `model_or_state` has Hugging Face's names. Tensors are written as `dtype`, except FP8 ones and their scales, which
    stay as they are. `instruct` adds the sampling defaults and the three stop ids. `herd` becomes herd.json.
    """
    state = model_or_state.state_dict() if isinstance(model_or_state, nn.Module) else dict(model_or_state)
    if config.tie_embeddings:
        state.pop(_TIED, None)
    _check_state(state, config, folder, quantised=quantization_config is not None)
    bos, stops = _special_ids(tokenizer, config)
    eos = stops if instruct else stops[:1]
    content = to_hf(config, str(dtype).removeprefix("torch."), bos=bos, eos=eos)
    if quantization_config is not None:
        content["quantization_config"] = dict(quantization_config)
    with atomic_folder(Path(folder)) as aside:
        total = write_tensors(aside, [_entry(name, state[name], dtype) for name in state], max_shard_bytes)
        write_json(aside / "config.json", content)
        write_json(aside / "generation_config.json", generation_config(bos=bos, eos=eos, instruct=instruct))
        if tokenizer is not None:
            tokenizer.save(aside)
        write_json(aside / "herd.json", dict(herd))
    return total


def _entry(name: str, tensor: Tensor, dtype: torch.dtype) -> Entry:
    keeps = tensor.dtype == torch.float8_e4m3fn or name.endswith(".weight_scale")
    return Entry(name, tuple(tensor.shape), tensor.dtype if keeps else dtype, lambda: tensor)


def _special_ids(tokenizer: SavesFiles | None, config: LlamaConfig) -> tuple[int | None, tuple[int, ...]]:
    """Begin of text, and the stop ids with end of text first; a foreign vocabulary without tokenizer has none."""
    if tokenizer is not None:
        return tokenizer.bos, tuple(tokenizer.stop_ids)
    return (_RELEASED_BOS, _RELEASED_STOPS) if config.vocab_size == VOCABULARY else (None, ())


def _check_state(state: Mapping[str, Tensor], config: LlamaConfig, folder: str | Path, *, quantised: bool) -> None:
    """Never write a folder that could not be read again. An FP8 state is its writer's own responsibility."""
    if not quantised:
        with torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in Llama(config).state_dict().items()}
        _compare(expected, {name: (tuple(tensor.shape), str(folder)) for name, tensor in state.items()}, str(folder))


def load_config(folder: str | Path) -> LlamaConfig:
    """The shape of the model in `folder`, from its config.json."""
    return from_hf(_config_content(Path(folder)), str(Path(folder) / "config.json"))


def _config_content(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ArtifactError(
            "no model is here: config.json is missing",
            where=str(folder),
            mend="give a model folder in the Hugging Face layout, e.g. one that herd wrote",
        )
    return read_json(folder / "config.json")


def load_model(folder: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Llama:
    """The model in `folder`, ready for inference (eval mode), parameters as `dtype` on `device`.

    Where dtype and device are the file's own, parameters are the file's memory map: nothing is read before it is used.
    Missing, unexpected and mis-shaped tensors are refused together, by name and file.
    """
    folder = Path(folder)
    content = _config_content(folder)
    config = from_hf(content, str(folder / "config.json"))
    with torch.device("meta"):
        model = Llama(config)
        layout = read_layout(folder, content)
        if layout is not None:
            make_fp8(model, layout)
    files = TensorFiles.open(folder)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {
        name: (tensor.shape, tensor.path.name) for name, tensor in files.found.items() if not _is_harmless(name, config)
    }
    _compare(expected, found, str(folder))
    _check_fp8(model, files)
    for name in expected:
        _assign(model, name, files.tensor(name), dtype, device)
    return model.eval()


def _is_harmless(name: str, config: LlamaConfig) -> bool:
    """Tensors that other writers leave in a folder and that say nothing new."""
    return name.endswith("rotary_emb.inv_freq") or (config.tie_embeddings and name == _TIED)


def _compare(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[tuple[int, ...], str]], where: str
) -> None:
    faults = [f"missing: {name} {list(expected[name])}" for name in expected if name not in found]
    faults += [
        f"unexpected: {name} {list(shape)} in {file}" for name, (shape, file) in found.items() if name not in expected
    ]
    faults += [
        f"wrong shape: {name} is {list(found[name][0])} in {found[name][1]}, config.json says {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name][0] != shape
    ]
    if not faults:
        return
    listed = "\n  ".join(faults[:8]) + (f"\n  and {len(faults) - 8} more" if len(faults) > 8 else "")
    raise ArtifactError(
        f"the tensors are not those of this model:\n  {listed}",
        where=where,
        mend="config.json and weights belong to different models, or a file was lost; copy the folder again",
    )


def _check_fp8(model: Llama, files: TensorFiles) -> None:
    """FP8 values without their scale, or a scale for other values, would load in silence and mean nothing."""
    for name, tensor in model.state_dict().items():
        on_disk = files.found[name]
        if (tensor.dtype == torch.float8_e4m3fn) != (on_disk.dtype == "F8_E4M3"):
            raise ArtifactError(
                f"tensor {name} is {on_disk.dtype}, which does not agree with config.json's quantization_config",
                where=str(on_disk.path),
                mend="config.json and weights belong to different models; copy the folder again",
            )


def _assign(model: Llama, name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device | str) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers:  # FP8 weights and their scales keep their own dtype
        kept = module._buffers[leaf]
        assert kept is not None
        module._buffers[leaf] = tensor.to(device, kept.dtype)
    else:
        module._parameters[leaf] = nn.Parameter(tensor.to(device, dtype))
