"""Which stages a fine-tuning has. The model and the data are outside of the run: they enter the hash by fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from herd.errors import ArtifactError
from herd.files import sha256_of
from herd.posttrain.adoption import Adoption, TeacherSettings
from herd.stages import Stage
from herd.text.datasets.read import files_of
from herd.weights.stored import TOKENIZER_FILES

_SAMPLES, _SAMPLE = 16, 1 << 16  # of each file of weights: a model of 16 GB is told from another in no time


@dataclass(frozen=True)
class Asking:
    """Settings of the stage that asks the served teacher."""

    teacher: TeacherSettings
    columns: dict[str, str]
    data: str
    data_key: str


@dataclass(frozen=True)
class Training:
    """Settings of the stage that trains."""

    adoption: Adoption
    model: str
    model_key: str
    data: str
    data_key: str
    teacher_key: str = ""  # of a teacher in a folder


def stages_of(adoption: Adoption, model: Path, data: Path) -> list[Stage]:
    """The stages in order; the last one's folder holds the adapter and the model."""
    model, data = model.resolve(), data.resolve()
    key = data_key(data)
    inputs, teacher_key = {}, ""
    if adoption.teacher and not adoption.teacher.folder:
        asking = Asking(adoption.teacher, dict(adoption.columns), str(data), key)
        inputs["answers"] = Stage("answers", "herd.road.adopt.ask:run", asking)
    if adoption.teacher and adoption.teacher.folder:
        folder = str(Path(adoption.teacher.folder).resolve())
        adoption = replace(adoption, teacher=replace(adoption.teacher, folder=folder))
        teacher_key = model_key(Path(folder))
    settings = Training(
        replace(adoption, threads=0, device="auto"), str(model), model_key(model), str(data), key, teacher_key
    )
    return [*inputs.values(), Stage(adoption.name, "herd.road.adopt.train:run", settings, inputs)]


def data_key(path: Path) -> str:
    """A hash of a dataset's bytes."""
    digest = hashlib.sha256()
    for file in files_of(path):
        digest.update(sha256_of(file).encode())
    return digest.hexdigest()[:16]


def model_key(folder: Path) -> str:
    """A hash of a model folder: config, tokenizer, chat template, and samples and sizes of every file of weights."""
    if not (folder / "config.json").is_file():
        raise ArtifactError(
            "no model is here: config.json is missing",
            where=str(folder),
            mend="give a model folder: herd pull fetches one, herd convert makes one of other formats and of adapters",
        )
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(sha256_of(folder / name).encode())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with open(file, "rb") as handle:
            for number in range(_SAMPLES):
                handle.seek(max(0, size - _SAMPLE) * number // (_SAMPLES - 1))
                digest.update(handle.read(_SAMPLE))
    return digest.hexdigest()[:16]
