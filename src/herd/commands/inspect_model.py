"""`herd inspect MODEL`: what a model folder or file is, and what is wrong with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from herd.errors import ArtifactError

if TYPE_CHECKING:
    from herd.weights.examination import Examination


def inspect_model(path: Path, out: TextIO, *, values: bool = False, as_json: bool = False) -> int:
    """Print the examination; 0 when nothing is wrong, else the code of an ArtifactError."""
    from herd.commands.watch_line import Line
    from herd.weights.examination import as_json as plain
    from herd.weights.examine import examine

    with Line(sys.stderr) as line:
        report = examine(path, values=values, progress=line)
    if as_json:
        out.write(json.dumps(plain(report), indent=2) + "\n")
    else:
        out.write("\n".join(_lines(report)) + "\n")
    return ArtifactError.exit_code if report.wrong else 0


def _lines(report: Examination) -> list[str]:
    lines = [str(report.path), f"  formats       {', '.join(report.formats)}"]
    if report.model is not None:
        config, scaling = report.model.config, report.model.config.rope_scaling
        rope = (
            f"scaled x{scaling.factor:g} over {scaling.original_max_position_embeddings:,}" if scaling else "not scaled"
        )
        name = f" (the shape of {report.released})" if report.released else ""
        lines += [
            f"  architecture  Llama, {config.n_layers} layers, width {config.dim:,}, {config.n_heads} heads on "
            f"{config.n_kv_heads} key/value heads of {config.head_dim}, feed-forward {config.ffn_dim:,}, "
            f"vocabulary {config.vocab_size:,}, embeddings {'tied' if config.tie_embeddings else 'untied'}{name}",
            f"  parameters    {report.parameters:,} in {len(report.model.tensors):,} tensors",
            f"  bytes         {sum(report.bytes_by_dtype.values()):,}: "
            + ", ".join(f"{name} {size:,}" for name, size in report.bytes_by_dtype.items()),
            f"  on disk       {sum(file.stat().st_size for file in report.files):,} bytes in {len(report.files)} files",
            *_fp8(report),
            f"  context       {config.max_seq_len:,} tokens; RoPE theta {config.rope_theta:,.0f}, {rope}",
            f"  begin, stops  {report.model.bos}, {list(report.model.stops)}",
            f"  tokenizer     {report.tokenizer}",
            f"  template      {report.template or 'none'}",
        ]
    lines += [f"  note          {note}" for note in report.notes]
    for fault in report.wrong[:20]:
        lines += [f"  wrong         {fault.what}"] + ([f"                mend: {fault.mend}"] if fault.mend else [])
    if len(report.wrong) > 20:
        lines.append(f"  wrong         and {len(report.wrong) - 20} things more")
    return lines if report.wrong else [*lines, "  nothing is wrong with it"]


def _fp8(report: Examination) -> list[str]:
    if report.model is None or not report.fp8:
        return []
    bound = report.model.activation_bound
    said = f"activations bounded at {bound:,.0f}" if bound else "activations without a bound"
    if report.activation_scales == "static":
        said = "activations by static scales, one fixed number a matrix"
    return [f"  FP8           {len(report.fp8)} matrices ({_where(report.fp8, report.model.config.n_layers)}), {said}"]


def _where(names: Sequence[str], n_layers: int) -> str:
    """Which parts of the network these matrices are, in words."""
    rooms = {"self_attn": "attention", "mlp": "feed-forward"}
    inside = [name.split(".") for name in names if ".layers." in name]
    kinds = " and ".join(said for room, said in rooms.items() if any(room in parts for parts in inside))
    layers = sorted({int(parts[2]) for parts in inside})
    which = "all layers" if len(layers) == n_layers else f"{len(layers)} of {n_layers} layers"
    return ", ".join([*([f"{kinds} of {which}"] if inside else []), *(["output"] if "lm_head.weight" in names else [])])
