"""What a model folder says of itself: shape, bytes, number formats, languages. Tensors are not read, only headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herd.files import read_json
from herd.release.lineage import Lineage

# The eight languages that Llama 3.1 supports (its model card); also those of the paddock.
LANGUAGES = ("en", "de", "fr", "it", "pt", "hi", "es", "th")


@dataclass(frozen=True)
class Facts:
    """`bytes_by_dtype` in torch's names; of an adapter only its base is told."""

    config: Mapping[str, Any]
    parameters: int | None
    bytes_by_dtype: Mapping[str, int]
    fp8: Mapping[str, Any]
    adapter_of: str = ""

    @property
    def is_fp8(self) -> bool:
        return any(name.startswith("float8") for name in self.bytes_by_dtype)


def facts_of(folder: Path, base: str = "") -> Facts:
    """Read from config.json and the files' headers; `base` is the name of an adapter's base on the hub.

    ArtifactError or FormatError where the model is not whole.
    """
    folder = Path(folder)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return Facts({}, None, {}, {}, base)
    from herd.weights.registry import open_model

    model = open_model(folder, "hf")  # names and shapes are compared with config.json
    config = read_json(folder / "config.json")
    made = read_json(folder / "herd.json") if (folder / "herd.json").is_file() else {}
    fp8 = made.get("fp8") if isinstance(made, dict) else None
    sizes: Counter[str] = Counter()
    for entry in model.tensors.values():
        sizes[str(entry.dtype).removeprefix("torch.")] += entry.n_bytes
    return Facts(config, model.config.parameters(), dict(sizes), fp8 if isinstance(fp8, dict) else {})


def languages(lineage: Lineage, stated: tuple[str, ...], llama: bool) -> tuple[str, ...]:
    """What the publisher states; else the languages that the data were in, as far as they are recorded."""
    if stated:
        return stated
    found = list(LANGUAGES) if llama or lineage.step("world") else []
    hub = lineage.step("hub")
    for dataset in (hub.settings.get("datasets") or []) if hub else []:
        found.append(str(dataset.get("lang", "")))
    return tuple(dict.fromkeys(one for one in found if one))
