"""What a model card says of a folder in FP8."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

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


def quality_lines(quality: Mapping[str, Any]) -> Iterator[str]:
    """What `herd quantize --check` found, as herd.json keeps it."""
    kl, perplexity, suite = (quality.get(name) or {} for name in ("kl", "perplexity", "suite"))
    if kl:
        text = f" ({quality['text']})" if quality.get("text") else ""
        yield (
            f"- Beside the BF16 model, on {quality['tokens']:,} tokens{text}: the same likeliest token at "
            f"{quality['top1_agreement']:.2%}; KL divergence {kl['mean']:.2g} nats a token, 99 % below "
            f"{kl['p99']:.2g}, largest {kl['max']:.2g}; perplexity {perplexity['fp8']:.4g} instead of "
            f"{perplexity['bf16']:.4g}."
        )
    if suite:
        first, second, apart = (suite["overall"][name] for name in ("first", "second", "difference"))
        yield (
            f"- On the suite {suite['suite']} ({suite['overall']['n']:,} items): {second['value']:.1%}, BF16 "
            f"{first['value']:.1%}; paired difference {100 * apart['value']:+.1f} points "
            f"({100 * apart['low']:+.1f} to {100 * apart['high']:+.1f})."
        )
