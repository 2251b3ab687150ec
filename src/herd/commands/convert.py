"""`herd convert`: a model from one format to another, or the proof that several are one model."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from herd.errors import InputError, SettingError

if TYPE_CHECKING:
    from herd.weights.formats import WriteOptions

COMPRESSED = "compressed-tensors"  # an hf folder in FP8: no layout of its own


def run(paths: Sequence[Path], to: str, *, dtype: str = "", model_parallel: int = 1, shard_gb: float = 5.0) -> int:
    """`herd convert A B --to FORMAT`."""
    if len(paths) != 2 or not to:
        raise SettingError("a conversion has a source, a target and --to", where="convert", mend="see --help")
    options = _options(to, dtype, model_parallel, shard_gb)
    source, target = paths
    return _compress(source, target, options) if to == COMPRESSED else _convert(source, target, to, options)


def _convert(source: Path, target: Path, to: str, options: WriteOptions) -> int:
    from herd.commands.watch_line import Line
    from herd.weights.convert import convert

    with Line(sys.stderr) as line:
        made = convert(source, target, to=to, options=options, progress=line)
    files = [target] if target.is_file() else [file for file in target.iterdir() if file.is_file()]
    size = sum(file.stat().st_size for file in files)  # not of the tensors: those of a quantised file are wider
    print(f"{target}: {len(made.tensors)} tensors, {size:,} bytes on disk, format {to}")
    return 0


def _options(to: str, dtype: str, model_parallel: int, shard_gb: float) -> WriteOptions:
    """What was asked for; a setting that would have no effect is refused."""
    from herd.weights.formats import GIB, WriteOptions

    if not 0 < shard_gb < math.inf:
        raise SettingError(f"a file of {shard_gb} GB", where="--shard-gb", mend="give a positive number; 5 is usual")
    if model_parallel != 1 and to != "meta":
        mend = "leave it out, or convert to meta"
        raise SettingError(f"{to} is not cut for model parallelism", where="--model-parallel", mend=mend)
    if dtype and to == COMPRESSED:
        raise SettingError(f"--to {COMPRESSED} is FP8; it takes no --dtype", where="--dtype", mend="leave it out")
    return WriteOptions(dtype, model_parallel, max(1, int(shard_gb * GIB)))


def _compress(source: Path, target: Path, options: WriteOptions) -> int:
    """An hf folder whose feed-forward matrices are FP8: what is FP8 already is kept, the rest is `herd quantize`."""
    from herd.commands.quantize import quantize
    from herd.weights.registry import open_model

    is_fp8 = open_model(source).is_fp8
    return _convert(source, target, "hf", options) if is_fp8 else quantize(source, target, options=options)


def prove(paths: Sequence[Path], text: Path | None) -> int:
    """`herd convert --prove A B ...`: the equality table, as Markdown."""
    from herd.commands.watch_line import Line
    from herd.weights import prove as proof

    try:
        words = proof.default_text() if text is None else text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text: {error}", where=str(text)) from error
    with Line(sys.stderr) as line:
        rows = proof.prove(paths, words, line)
    print(f"{rows[0].tokens:,} tokens; every row is compared with the first.\n\n{proof.table(rows)}")
    return 0
