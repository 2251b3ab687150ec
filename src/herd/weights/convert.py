"""A model from one format to another: one tensor in memory at a time, resumable, whole or not there.

    convert(Path("Llama-3.1-8B"), Path("original"), to="meta", options=WriteOptions(model_parallel=8))

Lossless unless a dtype is asked for or the target cannot hold FP8, which is then widened to BF16 and said.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

from herd.errors import ArtifactError, InputError, StorageError
from herd.files import read_json
from herd.progress import Progress, Silent
from herd.weights.formats import Format, WriteOptions
from herd.weights.registry import find_format, open_model
from herd.weights.staging import refuse_occupied, staged
from herd.weights.stored import StoredModel
from herd.weights.widen import fp8_names, widened


def convert(
    source: Path, target: Path, *, to: str, options: WriteOptions | None = None, progress: Progress | None = None
) -> StoredModel:
    """Write the model at `source` (any format, detected) to `target` in the format `to`; returns the new model opened.

    A run that was killed goes on where it stopped when called again. InputError if something stands at `target`.
    """
    form, options, progress = find_format(to), options or WriteOptions(), progress or Silent()
    source, target = Path(source), Path(target)
    if target.resolve() == source.resolve():
        raise InputError("source and target are the same place", where=str(source), mend="name another target")
    refuse_occupied(target)  # before a long look at the source
    model = open_model(source)
    for note in model.notes:
        progress.note(note)
    write_stored(model, target, form, options, progress)
    return open_model(target, to)


def write_stored(model: StoredModel, target: Path, form: Format, options: WriteOptions, progress: Progress) -> None:
    """Write an opened model at `target`, through a staging folder; `convert` and `herd quantize` end here."""
    if model.is_fp8 and (not form.keeps_fp8 or options.dtype):
        said = "the FP8 matrices become BF16" if options.dtype else f"{form.name} has no FP8: it becomes BF16"
        progress.note(said + (", and activations are no longer quantised by fixed scales" if model.is_static else ""))
        model = widened(model, fp8_names(model))
    for path in model.files.values():
        if path.suffix == ".json":
            read_json(path)  # a damaged tokenizer would travel on in silence
        elif not os.access(path, os.R_OK):
            raise ArtifactError("cannot be read: no right to it", where=str(path), mend="ask for it, or move it away")
    if not options.dtype:
        _refuse_small_disk(target, model.n_bytes)
    plan = {"from": sources_of(model), "to": form.name, "options": asdict(options), "tensors": _forms(model)}
    with staged(target, plan, single_file=form.single_file) as out:
        form.write(model, out, options, progress)


def _refuse_small_disk(target: Path, n_bytes: int) -> None:
    """Said before hours of work, not after; what an earlier run left beside the target need not be written again."""
    place = Path(os.path.abspath(target)).parent
    while not place.exists():
        place = place.parent
    left = target.with_name(f".{target.name}.converting")
    there = sum(file.stat().st_size for file in left.iterdir()) if left.is_dir() else 0
    free = shutil.disk_usage(place).free
    if n_bytes - there > free:
        raise StorageError(
            f"{(n_bytes - there) / 1e9:.1f} GB are to be written, and {free / 1e9:.1f} GB are free",
            where=str(target),
            mend="make room on that disk, or name a place on another one",
        )


def sources_of(model: StoredModel) -> list[tuple[str, int, int]]:
    """What the source looked like: a resumed run must not mix two models."""
    places = [model.path, *([model.base] if model.base else [])]
    files = {file for place in places for file in (place.iterdir() if place.is_dir() else [place])}
    if model.path.is_file():  # a GGUF in parts
        files |= {model.path.with_name(entry.place) for entry in model.tensors.values() if entry.place}
    seen = [file for file in sorted(files) if file.is_file() and not file.name.startswith(".")]  # no lock of our own
    return [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in seen]


def _forms(model: StoredModel) -> list[tuple[str, tuple[int, ...], str]]:
    return [(entry.name, entry.shape, str(entry.dtype)) for entry in model.tensors.values()]
