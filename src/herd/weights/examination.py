"""What `herd inspect MODEL` has to say, as values; `examine.py` finds it out."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from herd.weights.stored import StoredModel, is_scale
from herd.weights.widen import fp8_names

DOWNLOAD = "download or copy the model again"


@dataclass(frozen=True)
class Fault:
    what: str
    mend: str = ""


@dataclass
class Examination:
    """Everything said by `herd inspect`; `model` is None when the files cannot be opened."""

    path: Path
    formats: list[str] = field(default_factory=list)
    model: StoredModel | None = None
    released: str = ""
    template: str = ""
    tokenizer: str = ""
    wrong: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """Scales of FP8 matrices are no parameters."""
        entries = self.model.tensors.values() if self.model else ()
        return sum(entry.count for entry in entries if not is_scale(entry.name))

    @property
    def bytes_by_dtype(self) -> dict[str, int]:
        """As the file holds them: of quantised GGUF tensors the blocks, under ggml's name."""
        counted: Counter[str] = Counter()
        for entry in self.model.tensors.values() if self.model else ():
            packed = entry.packed
            counted[packed.kind if packed else str(entry.dtype).removeprefix("torch.")] += (packed or entry).n_bytes
        return dict(counted.most_common())

    @property
    def files(self) -> list[Path]:
        """What lies at the path on disk, folders inside it not counted; all parts of a GGUF file in parts."""
        if self.path.is_dir():
            return [file for file in sorted(self.path.iterdir()) if file.is_file()]
        places = {entry.place for entry in self.model.tensors.values()} if self.model else set()
        return [self.path.with_name(place) for place in sorted(places)] or [self.path]

    @property
    def fp8(self) -> list[str]:
        """The matrices in FP8."""
        return [] if self.model is None else fp8_names(self.model)

    @property
    def activation_scales(self) -> str:
        """ "static" or "dynamic" for a model with FP8 matrices, "" for another."""
        if self.model is None or not self.fp8:
            return ""
        return "static" if self.model.is_static else "dynamic"


def as_json(report: Examination) -> dict[str, Any]:
    """The report as plain values, for programs."""
    model = report.model
    return {
        "path": str(report.path),
        "formats": report.formats,
        "config": None if model is None else asdict(model.config),
        "released": report.released,
        "tensors": 0 if model is None else len(model.tensors),
        "parameters": report.parameters,
        "bytes_by_dtype": report.bytes_by_dtype,
        "bytes_on_disk": sum(file.stat().st_size for file in report.files),
        "fp8_matrices": len(report.fp8),
        "activation_scales": report.activation_scales or None,
        "activation_bound": model and model.activation_bound,
        "bos": model and model.bos,
        "stops": list(model.stops) if model else [],
        "tokenizer": report.tokenizer,
        "template": report.template,
        "notes": report.notes,
        "wrong": [{"what": fault.what, "mend": fault.mend} for fault in report.wrong],
    }
