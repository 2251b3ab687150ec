"""What a model folder says of itself: shape, bytes, number formats, languages. Tensors are not read, only headers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herd.errors import InputError, SettingError
from herd.files import read_json
from herd.hub.select import GGUF_PART
from herd.release.lineage import Lineage

if TYPE_CHECKING:
    from herd.weights.quantization import Fp8Layout

# The eight languages that Llama 3.1 supports (its model card); also those of the paddock.
LANGUAGES = ("en", "de", "fr", "it", "pt", "hi", "es", "th")


@dataclass(frozen=True)
class Facts:
    """`bytes_by_dtype` in torch's names; of GGUF files their bytes by name; of an adapter only its base is told."""

    config: Mapping[str, Any]
    parameters: int | None
    bytes_by_dtype: Mapping[str, int]
    fp8: Fp8Layout | None = None
    quality: Mapping[str, Any] = field(default_factory=dict)  # of FP8 beside BF16, where it was measured
    adapter_of: str = ""
    ggufs: Mapping[str, int] = field(default_factory=dict)


def facts_of(folder: Path, base: str = "") -> Facts:
    """Read from config.json and the files' headers; `base` is an adapter's base on the hub, and of an adapter only.

    ArtifactError or FormatError where the model is not whole.
    """
    folder = Path(folder)
    if base:
        return Facts({}, None, {}, adapter_of=base)
    if not (folder / "config.json").is_file():
        return _of_ggufs(folder)
    from herd.weights.herd_json import herd_json
    from herd.weights.quantization import HERD_KEY, read_layout
    from herd.weights.registry import open_model

    model = open_model(folder, "hf")  # names and shapes are compared with config.json
    config = read_json(folder / "config.json")
    sizes: Counter[str] = Counter()
    for entry in model.tensors.values():
        sizes[str(entry.dtype).removeprefix("torch.")] += entry.n_bytes
    parameters = model.config.parameters()
    if not model.is_fp8:
        return Facts(config, parameters, dict(sizes))
    stated = herd_json(folder).get(HERD_KEY)
    quality = stated.get("quality") if isinstance(stated, dict) else None
    return Facts(config, parameters, dict(sizes), read_layout(folder, config), quality or {})


def _of_ggufs(folder: Path) -> Facts:
    """Of several files: the shape of the first, and that all have it. Parts of one model count together."""
    from herd.weights.config_json import to_hf
    from herd.weights.registry import open_model

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    heads = [path for path in files if not (part := GGUF_PART.search(path.name)) or int(part[1]) == 1] or files
    models = [open_model(path, "gguf") for path in heads]
    for path, model in zip(heads, models, strict=True):
        if model.config != models[0].config:
            raise InputError(
                f"{path.name} and {heads[0].name} are not of one model: their shapes differ",
                where=str(folder),
                mend="publish each model from a folder of its own",
            )
    sizes = {path.name: path.stat().st_size for path in files}
    return Facts(to_hf(models[0].config, "bfloat16"), models[0].config.parameters(), {}, ggufs=sizes)


def languages(lineage: Lineage, stated: tuple[str, ...], llama: bool) -> tuple[str, ...]:
    """What the publisher states; else the languages that the data were in, as far as they are recorded."""
    wrong = [code for code in stated if not re.fullmatch(r"[a-z]{2,3}", code)]
    if wrong:
        raise SettingError(f"'{wrong[0]}' is no code of a language", where="--languages", mend="e.g. en,de (ISO 639)")
    if stated:
        return stated
    found = list(LANGUAGES) if llama or lineage.step("world") else []
    hub = lineage.step("hub")
    for dataset in (hub.settings.get("datasets") or []) if hub else []:
        found.append(str(dataset.get("lang", "")))
    return tuple(dict.fromkeys(one for one in found if one))
