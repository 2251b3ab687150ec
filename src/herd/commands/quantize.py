"""`herd quantize`: a BF16 folder in, an FP8 folder in the compressed-tensors layout out."""

from __future__ import annotations

from pathlib import Path


def quantize(model_folder: Path, out: Path) -> int:
    from herd.quantize.fp8 import quantize_model, save_fp8
    from herd.text import Tokenizer
    from herd.weights.hf import load_model

    model = load_model(model_folder)
    report = quantize_model(model)
    save_fp8(out, model, tokenizer=Tokenizer.load(model_folder), herd={"from": str(model_folder)})
    print(f"{out}: {report.bytes_before:,} bytes in BF16, {report.bytes_after:,} in FP8 ({report.saved:.1%} less)")
    return 0
