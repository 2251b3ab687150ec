"""`herd quantize`: a BF16 model in any format in, an FP8 folder in the compressed-tensors layout out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from herd.commands.telling import tell
from herd.errors import InputError, SettingError

if TYPE_CHECKING:
    from herd.commands.quality import Asked
    from herd.weights.formats import WriteOptions


def quantize_and_check(source: Path, out: Path, policy: str, asked: Asked | None) -> int:
    """`herd quantize`; where a check is asked for and the folder stands already, it is measured, not made again."""
    from herd.commands.quality import check

    if asked is None:
        return quantize(source, out, policy or "paper")
    if out.is_dir() and any(out.iterdir()):
        _refuse_another_policy(out, policy)
        tell(f"{out} is there already: it is measured as it is")
    else:
        quantize(source, out, policy or "paper")
    return check(source, out, asked)


def _refuse_another_policy(out: Path, policy: str) -> None:
    from herd.weights.herd_json import herd_json
    from herd.weights.quantization import HERD_KEY

    stated = herd_json(out).get(HERD_KEY)
    report = stated.get("report") if isinstance(stated, dict) else None
    made = report.get("policy") if isinstance(report, dict) else None
    if policy and made not in (None, policy):
        raise SettingError(
            f"what stands here was made by the policy {made or 'of nobody'}, not by {policy}",
            where=str(out),
            mend="leave --policy out to measure it, or name another place",
        )


def quantize(source: Path, out: Path, policy: str = "paper", options: WriteOptions | None = None) -> int:
    """Streams: needs the memory of the largest tensor, and goes on where a killed run stopped."""
    from herd.commands.watch_line import Line
    from herd.files import read_json
    from herd.quantize.settings import policy_called
    from herd.quantize.stream import quantised
    from herd.weights.convert import write_stored
    from herd.weights.formats import WriteOptions
    from herd.weights.quantization import HERD_KEY
    from herd.weights.registry import find_format, open_model
    from herd.weights.staging import refuse_occupied

    chosen = policy_called(policy)
    refuse_occupied(out)
    stored = open_model(source)
    if stored.base is not None:
        raise InputError(
            "an adapter is no model to quantise",
            where=str(source),
            mend=f"merge it into its base first: herd convert {source} MERGED --to hf",
        )
    model = quantised(stored, chosen)
    with Line(sys.stderr) as line:
        if kinds := sorted({entry.packed.kind for entry in stored.tensors.values() if entry.packed}):
            line.note(f"the source is quantised itself ({', '.join(kinds)}): what that lost is lost here too")
        write_stored(model, out, find_format("hf"), options or WriteOptions(), line)
    report = read_json(out / "herd.json")[HERD_KEY]["report"]
    before, after, worst = report["bytes_before"], report["bytes_after"], report["worst_relative_error"]
    less = f"{report['saved']:.1%} less" if report["saved"] >= 0 else f"{-report['saved']:.1%} more"
    print(f"{out}: {before:,} bytes in BF16, {after:,} in FP8 ({less}; worst error {worst:.2%})")
    return 0
