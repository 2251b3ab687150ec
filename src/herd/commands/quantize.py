"""`herd quantize`: a BF16 model in any format in, an FP8 folder in the compressed-tensors layout out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from herd.weights.formats import WriteOptions


def quantize(source: Path, out: Path, options: WriteOptions | None = None) -> int:
    """Streams: needs the memory of the largest tensor, and goes on where a killed run stopped."""
    from herd.commands.watch_line import Line
    from herd.files import read_json
    from herd.quantize.stream import quantised
    from herd.weights.convert import write_stored
    from herd.weights.formats import WriteOptions
    from herd.weights.quantization import HERD_KEY
    from herd.weights.registry import find_format, open_model
    from herd.weights.staging import refuse_occupied

    refuse_occupied(out)
    model = quantised(open_model(source))
    with Line(sys.stderr) as line:
        write_stored(model, out, find_format("hf"), options or WriteOptions(), line)
    report = read_json(out / "herd.json")[HERD_KEY]["report"]
    before, after, worst = report["bytes_before"], report["bytes_after"], report["worst_relative_error"]
    print(f"{out}: {before:,} bytes in BF16, {after:,} in FP8 ({report['saved']:.1%} less; worst error {worst:.2%})")
    return 0
