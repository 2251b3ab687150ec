"""The formats there are, and how to open a model that lies in any of them.

model = open_model("original/")         # detected: Meta's layout
network = load_any("original/")         # the same, as a network
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from herd.errors import ArtifactError, SettingError
from herd.text import Tokenizer
from herd.weights.format_checkpoint import Checkpoint
from herd.weights.format_gguf import Gguf
from herd.weights.format_hf import HuggingFace
from herd.weights.format_llama2c import Llama2c
from herd.weights.format_meta import Meta
from herd.weights.format_peft import Peft
from herd.weights.formats import Format
from herd.weights.stored import StoredModel, check

FORMATS: tuple[Format, ...] = (
    Checkpoint(),  # before hf, whose files it has too
    HuggingFace(),
    Meta(),
    Gguf(),
    Llama2c(),
    Peft(lambda base: open_model(base)),
)


# What is there, what should lie beside it, and what to do.
_PARTS = (
    ("*.safetensors", "config.json", "copy config.json of the same model into the folder"),
    ("consolidated.*.pth", "params.json", "copy params.json of the same model into the folder"),
    ("params.json", "consolidated.*.pth", "copy or download the weights into the folder"),
    ("config.json", "*.safetensors", "copy or download the weights (model.safetensors) into the folder"),
)


def find_format(name: str) -> Format:
    """The format called `name`; SettingError names those there are."""
    for form in FORMATS:
        if form.name == name:
            return form
    names = ", ".join(form.name for form in FORMATS)
    raise SettingError(f"there is no format {name!r}", where="--to", mend=f"choose among {names}")


def detect(path: Path) -> list[Format]:
    """Every format that `path` looks like: a folder may hold a model twice (`config.json` and `params.json`)."""
    try:
        return [form for form in FORMATS if form.detect(path)]
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror}", where=str(path)) from error


def open_stored(path: Path, name: str = "") -> tuple[Format, StoredModel]:
    """The model at `path` unchecked (for `herd inspect`), in the format `name` or the first that is detected."""
    form = find_format(name) if name else next(iter(detect(path)), None)
    if form is None:
        raise _nothing(path)
    return form, form.open(path)


def _nothing(path: Path) -> ArtifactError:
    """Nothing is there, or a part of a model, or something else."""
    if not path.exists():
        return ArtifactError("no model is here: nothing is", where=str(path), mend="check the path; herd pull gets one")
    if not os.access(path, os.R_OK):
        return ArtifactError("cannot be read: no right to it", where=str(path), mend="ask for its rights")
    if steps := sorted(path.glob("step-*/manifest.json"), key=lambda each: each.stat().st_mtime):
        return ArtifactError(
            "the checkpoints of a run are here", where=str(path), mend=f"name one of them: {steps[-1].parent}"
        )
    if (path / ".metadata").is_file() and any(path.glob("*.distcp")):
        return ArtifactError(
            "a checkpoint of another program, in the pickles of torch.distributed.checkpoint, which are not read",
            where=str(path),
            mend="that program exports a model folder; then convert that",
        )
    for present, absent, mend in _PARTS:
        if any(path.glob(present)) and not any(path.glob(absent)):
            said = f"half a model is here: {present} without {absent}"
            return ArtifactError(said, where=str(path), mend=mend)
    known = "; ".join(f"{form.name}: {form.about}" for form in FORMATS)
    said = "no model is here in a format that is read"
    return ArtifactError(said, where=str(path), mend=f"give a path to one of {known}")


def open_model(path: Path, name: str = "") -> StoredModel:
    """The model at `path`, whose tensors are known to be those of its config."""
    _, model = open_stored(path, name)
    check(model.config, model.tensors, str(path), model.config_file)
    return model


def tokenizer_of(model: StoredModel) -> Tokenizer:
    """The tokenizer beside a model, or inside its file. ArtifactError where there is none."""
    if model.tokenizer is None:
        beside = [model.files[name].parent for name in ("tokenizer.json", "tokenizer.model") if name in model.files]
        return Tokenizer.load(beside[0] if beside else model.path)
    with tempfile.TemporaryDirectory() as folder:
        model.tokenizer.save(Path(folder))
        return Tokenizer.load(folder)
