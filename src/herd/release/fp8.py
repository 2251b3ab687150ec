"""What a model card says of a folder in FP8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from herd.weights.quantization import Fp8Layout

_LAYOUTS = {
    "compressed-tensors": "compressed-tensors, as vLLM and transformers read it",
    "fbgemm_fp8": "`fbgemm_fp8`, as vLLM and transformers read it",
    "fp8": "AutoFP8's `fp8`, as vLLM reads it (for transformers: `herd convert FOLDER OUT --to hf`)",
}


def fp8_lines(layout: Fp8Layout) -> Iterator[str]:
    """How weights and activations are scaled, in which layout, and what is not FP8."""
    bound = "" if layout.bound is None else f", bounded at {layout.bound:g}"
    made = f"activations get a scale a token as they come{bound}; no calibration"
    fixed = "activations are divided by one fixed scale a matrix, found by calibration (static)"
    yield (
        "- FP8: weights of the quantised layers are float8 e4m3 with one scale "
        f"{'a matrix' if layout.by_matrix else 'an output row'}; {fixed if layout.static else made}. "
        f"Layout: {_LAYOUTS[layout.method]}."
    )
    kinds = [".".join("*" if part.isdecimal() else part for part in name.split(".")) for name in layout.ignore]
    yield f"- Kept in higher precision: {', '.join(f'`{kind}`' for kind in dict.fromkeys(kinds)) or 'nothing'}."
