"""Stage `forecast`: the law fitted through the ladder, and the flagship's loss said before it is trained.

Artifacts: records.jsonl (the runs), forecast.json (law, curves, prediction with interval, or why it was refused).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from herd.config import from_plain
from herd.errors import FitError
from herd.files import read_json, write_json, write_jsonl
from herd.llama.config import LlamaConfig
from herd.road.settings import Forecast, Pretrain
from herd.scaling.fits import fit
from herd.scaling.ladder import body_parameters
from herd.scaling.records import RunRecord
from herd.stages import Context


def run(ctx: Context) -> Mapping[str, Any]:
    settings: Forecast = ctx.settings
    runs = [_record(read_json(ctx.inputs[name] / "herd.json")) for name in sorted(ctx.inputs)]
    write_jsonl(ctx.out / "records.jsonl", map(asdict, runs))
    size = settings.flagship.body_parameters if settings.fit.size == "body" else settings.flagship.parameters
    try:
        law = fit(runs, settings.fit)
        loss = law.predict_loss(size, settings.flagship.tokens).loss
    except FitError as error:
        ctx.progress.note(f"NO FORECAST: {error.message}")
        write_json(ctx.out / "forecast.json", {"refused": error.message, "mend": error.mend})
        return {"refused": error.message}
    predicted = {"value": loss.value, "low": loss.low, "high": loss.high}
    asked = {"n": size, "tokens": settings.flagship.tokens, "flops": settings.flagship.flops}
    curves = [asdict(curve) for curve in law.curves()]
    write_json(
        ctx.out / "forecast.json",
        {"predicted": predicted, "asked": asked, "law": law.summary(), "curves": curves, "formula": law.law.formula},
    )
    ctx.progress.note(f"the flagship's held-out loss will be {loss.value:.3f} ({loss.low:.3f} to {loss.high:.3f})")
    return {"predicted": loss.value, "low": loss.low, "high": loss.high}


def _record(made: Mapping[str, Any]) -> RunRecord:
    """A ladder stage's herd.json as the fits want it; N and FLOPs are counted from its own settings."""
    settings = from_plain(Pretrain, made["settings"])
    config: LlamaConfig = settings.shape.config(settings.vocab_size)
    metrics = made["metrics"]
    return RunRecord(
        n_params=config.parameters(),
        n_params_body=body_parameters(config),
        tokens=metrics["tokens"],
        flops=metrics["flops"],
        loss=metrics["validation_loss"],
        shape={"dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads},
        seed=settings.seed,
    )
