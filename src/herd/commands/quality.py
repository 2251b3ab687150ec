"""`herd quantize --check`: an FP8 folder beside the model it was made of, on text, on a suite, before a reward model.

Figures go to the folder's herd.json, under "fp8". What shows the text itself (quality.html, quality.json) stands in
the folder too, and `herd release` leaves it aside. One model is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herd.errors import InputError, SettingError
from herd.files import read_json, storage_errors, write_json, write_text

if TYPE_CHECKING:
    import torch

    from herd.evaluate.suite import SuiteResult
    from herd.paddock import Task
    from herd.progress import Progress
    from herd.recipe import SuiteSettings
    from herd.text import Tokenizer
    from herd.weights.stored import StoredModel

PAGE, PARTS = "quality.html", "quality.json"
TOKENS = 4096  # of a text; an 8B model reads them in about four minutes on two cores


@dataclass(frozen=True)
class Asked:
    """What is measured. `text` and `suite` are None where not asked for, "" for what suits the model."""

    text: str | None = ""
    suite: str | None = None
    reward: Path | None = None
    tokens: int = TOKENS
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.reward is not None and self.suite is None:
            raise SettingError(
                "a reward model judges replies, and there is nothing to reply to",
                where="--reward",
                mend="add --suite FILE.jsonl, or --suite alone for a model of a run",
            )
        if self.tokens < 2:
            raise SettingError(f"{self.tokens} tokens are no text", where="--tokens", mend="give a thousand or more")


def check(source: Path, out: Path, asked: Asked) -> int:
    """Measure, write, and print the figures; a killed run goes on where it was with the same command."""
    from herd.commands.watch_line import Line
    from herd.devices import find_device
    from herd.weights.build import fitting_dtype
    from herd.weights.quantization import HERD_KEY
    from herd.weights.registry import open_model

    wide, narrow = open_model(source), open_model(out)
    _refuse_others(wide, narrow)
    with Line(sys.stderr) as line, storage_errors(out):
        device = find_device(asked.device, needs=wide.n_bytes, say=line.note)
        scratch = _scratch(out, wide, narrow, asked)
        work = _Work(wide, narrow, scratch, fitting_dtype(wide, device), device, line)
        sizes = {"bytes_bf16": 2 * sum(entry.count for entry in wide.tensors.values()), "bytes_fp8": narrow.n_bytes}
        found = sizes | _measured(work, source, asked)
    written = read_json(out / "herd.json") if (out / "herd.json").exists() else {}
    # herd.json is published: no text of the user's, nor the name of a file
    texts = ("worst", "divergences", "rewards_bf16", "rewards_fp8", *(["text"] if asked.text else []))
    stated = written.get(HERD_KEY)
    known = stated if isinstance(stated, dict) else {}
    figures = {name: value for name, value in found.items() if name not in texts}
    write_json(out / PARTS, found)
    _page(out, found)
    write_json(out / "herd.json", {**written, HERD_KEY: {**known, "quality": figures}})
    shutil.rmtree(scratch, ignore_errors=True)
    _tell(found, out)
    return 0


@dataclass(frozen=True)
class _Work:
    wide: StoredModel
    narrow: StoredModel
    scratch: Path
    dtype: torch.dtype
    device: torch.device
    line: Progress


def _refuse_others(wide: StoredModel, narrow: StoredModel) -> None:
    from dataclasses import replace

    if not narrow.is_fp8:
        raise InputError(
            "this is no FP8 model", where=str(narrow.path), mend="name the folder that herd quantize wrote"
        )
    if wide.is_fp8:
        raise InputError("the model to compare with is FP8 itself", where=str(wide.path), mend="give the BF16 model")
    if replace(wide.config, tie_embeddings=False) != replace(narrow.config, tie_embeddings=False):
        raise InputError(
            "the two are not one model: their shapes differ",
            where=f"{wide.path} and {narrow.path}",
            mend="give the model that the FP8 folder was made of",
        )


def _measured(work: _Work, source: Path, asked: Asked) -> dict[str, Any]:
    from herd.commands.quality_text import passages
    from herd.road.quality import predictions
    from herd.weights.build import build_model

    found: dict[str, Any] = {}
    models = tuple(partial(build_model, one, dtype=work.dtype, device=work.device) for one in (work.wide, work.narrow))
    if asked.text is not None:
        chosen, decode, said = passages(work.wide, source, asked.text, asked.tokens, work.line)
        found = predictions((models[0], models[1]), chosen, decode, said, work.scratch, work.line)
        found["computed_in"] = str(work.dtype).removeprefix("torch.")
    if asked.suite is not None:
        found |= _suite(work, source, asked)
    return found


def _suite(work: _Work, source: Path, asked: Asked) -> dict[str, Any]:
    from herd.commands.evaluate import suite_for
    from herd.road.quality import rewards, suite
    from herd.weights.registry import tokenizer_of

    tokenizer = tokenizer_of(work.wide)
    tasks, settings = suite_for(source, Path(asked.suite) if asked.suite else None)
    first, second = (_scored(work, name, tokenizer, tasks, settings) for name in ("bf16", "fp8"))
    found = suite(first, second)
    if asked.reward is not None:
        found |= rewards((first, second), tasks, asked.reward, tokenizer, str(work.device), work.line)
    return found


def _scored(
    work: _Work, name: str, tokenizer: Tokenizer, tasks: Sequence[Task], settings: SuiteSettings
) -> SuiteResult:
    """The scores of one of the two, taken from disk where an earlier run was killed after them."""
    from datetime import UTC, datetime

    from herd.evaluate.harness import RunInfo, load_results, save_results
    from herd.road.means import scores
    from herd.weights.build import build_model

    folder = work.scratch / f"suite-{name}"
    if any(folder.glob("results_*.json")):
        return load_results(folder)
    stored = work.wide if name == "bf16" else work.narrow
    model = build_model(stored, dtype=work.dtype, device=work.device)
    result = scores(model, tokenizer, tasks, settings, progress=work.line)
    save_results(folder, result, RunInfo(model=str(stored.path), date=datetime.now(UTC)))
    return result


def _scratch(out: Path, wide: StoredModel, narrow: StoredModel, asked: Asked) -> Path:
    """Beside the folder, named by all that the kept parts depend on."""
    from herd.weights.convert import sources_of

    files = [Path(name) for name in (asked.text, asked.suite) if name]
    stats = [(str(file), file.stat().st_mtime_ns) for file in files if file.exists()]
    of = [sources_of(wide), sources_of(narrow), stats, asked.tokens, asked.device]
    key = hashlib.sha256(json.dumps(of, default=str).encode()).hexdigest()[:16]
    return out.resolve().with_name(f".{out.resolve().name}.quality-{key}")


def _page(out: Path, found: dict[str, Any]) -> None:
    from herd.report.page import render_fp8
    from herd.road.summary.fp8 import shown

    write_text(out / PAGE, render_fp8(shown(found, out.resolve().name)))


def _tell(found: dict[str, Any], out: Path) -> None:
    if "kl" in found:
        kl, perplexity, alike = found["kl"], found["perplexity"], found["agreement"]
        print(f"{found['text']}: {found['tokens']:,} tokens compared, computed in {found['computed_in']}")
        print(f"  KL(BF16 || FP8)  mean {kl['mean']:.2e}, 99 % below {kl['p99']:.2e}, largest {kl['max']:.2e} nats")
        print(f"  same top token   {alike['value']:.2%} ({alike['low']:.2%} to {alike['high']:.2%})")
        print(f"  perplexity       {perplexity['bf16']:.4f} in BF16, {perplexity['fp8']:.4f} in FP8")
    if "suite" in found:
        overall = found["suite"]["overall"]
        first, second, apart = (overall[name] for name in ("first", "second", "difference"))
        print(f"  suite            {first['value']:.1%} in BF16, {second['value']:.1%} in FP8; paired difference")
        print(f"                   {apart['value']:+.2%} ({apart['low']:+.2%} to {apart['high']:+.2%})")
    if "shift" in found:
        shift = found["shift"]
        print(f"  rewards          Kolmogorov-Smirnov D {shift['ks']:.3f}, p {shift['p']:.2g}")
    print(f"  {out / PAGE} shows the worst places")
