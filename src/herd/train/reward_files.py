"""A reward model on disk: the folder of transformers' `LlamaForSequenceClassification` with one label.

    save_reward(folder, model, tokenizer=tokenizer, herd={"made_by": ...})
    model = load_reward(folder)     # or AutoModelForSequenceClassification.from_pretrained(folder)

The output matrix of the language model takes no part in rewards and is left out; a loaded model has zeros there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from herd.errors import ArtifactError
from herd.files import atomic_folder, write_json
from herd.llama.config import LlamaConfig
from herd.llama.model import Llama
from herd.train.objectives.reward import RewardModel
from herd.weights.config_json import to_hf
from herd.weights.hf import GIB, SavesFiles, load_config
from herd.weights.hf_files import hf_entries
from herd.weights.tensors import Entry, write_tensors

HEAD, OUTPUT = "score.weight", "lm_head.weight"


def save_reward(
    folder: Path,
    model: RewardModel,
    *,
    pad: int,
    tokenizer: SavesFiles | None = None,
    dtype: torch.dtype = torch.bfloat16,
    herd: Mapping[str, Any],
) -> None:
    """Write the folder whole or not at all. `pad` is the id that transformers takes for padding when it batches."""
    state = {**model.llama.state_dict(), HEAD: model.score.weight}
    entries = [Entry(name, tuple(t.shape), dtype, t.detach) for name, t in state.items()]
    write_reward(folder, model.llama.config, entries, pad=pad, tokenizer=tokenizer, dtype=dtype, herd=herd)


def write_reward(
    folder: Path,
    config: LlamaConfig,
    entries: Sequence[Entry],
    *,
    pad: int,
    tokenizer: SavesFiles | None = None,
    dtype: torch.dtype = torch.bfloat16,
    herd: Mapping[str, Any],
) -> None:
    """The same of tensors that are read when their turn comes; the Llama's own names, and `HEAD`."""
    entries = [replace(entry, dtype=dtype) for entry in entries if entry.name != OUTPUT]
    bos, eos = (None, ()) if tokenizer is None else (tokenizer.bos, tokenizer.stop_ids[:1])
    content = to_hf(config, str(dtype).removeprefix("torch."), bos=bos, eos=eos)
    content |= {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1, "pad_token_id": pad}
    content |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    with atomic_folder(Path(folder)) as aside:
        write_tensors(aside, entries, 5 * GIB)
        write_json(aside / "config.json", content)
        if tokenizer is not None:
            tokenizer.save(aside)
        write_json(aside / "herd.json", dict(herd))


def load_reward(folder: Path, device: torch.device | str = "cpu") -> RewardModel:
    """The reward model in `folder`, float32 on `device`; missing and mis-shaped tensors are refused by name."""
    folder = Path(folder)
    entries = hf_entries(folder)
    model = RewardModel(Llama(load_config(folder)))
    own = {**dict(model.llama.named_parameters()), HEAD: model.score.weight}
    wanted = {name: tuple(param.shape) for name, param in own.items() if name != OUTPUT}
    found = {name: tuple(entry.shape) for name, entry in entries.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise ArtifactError(
            f"the tensors are not those of this reward model: {', '.join(wrong[:8])}",
            where=str(folder),
            mend="copy the folder again; a language model becomes a reward model by training, not by loading",
        )
    with torch.no_grad():
        for name, param in own.items():
            param.copy_(entries[name].values()) if name in found else param.zero_()
    return model.to(device).eval()
