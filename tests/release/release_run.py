"""A small run on disk: stages with their herd.json, a model among them, scores beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub_models import tiny

from herd.evaluate.harness import RunInfo, save_results
from herd.evaluate.suite import Item, SuiteResult
from herd.files import read_json, write_json
from herd.generate.protocol import Sampling

WHERE = "/secret/place/of/texts"


def stage(runs: Path, name: str, inputs: dict[str, str] | None = None, **more: Any) -> Path:
    folder = runs / f"{name}-0123456789ab"
    made = {
        "stage": name,
        "key": "0123456789ab",
        "run": f"herd.road.{name}:run",
        "version": 1,
        "settings": more.pop("settings", {}),
        "inputs": {key: f"{value}-0123456789ab" for key, value in (inputs or {}).items()},
        "metrics": more.pop("metrics", {}),
        "seconds": more.pop("seconds", 90.0),
        "herd_version": "0.2.0",
        **more,
    }
    path = folder / "herd.json"
    write_json(path, {**(read_json(path) if path.exists() else {}), **made})
    return folder


def make_run(runs: Path) -> Path:
    """The folder of the model `flagship-base`."""
    stage(runs, "world")
    stage(runs, "documents", {"world": "world"}, settings={"user": WHERE}, metrics={"by_source": {"paddock": 1200}})
    stage(
        runs, "shards", {"documents": "documents"}, settings={"weights": {"paddock": 0.9}}, metrics={"train_tokens": 5}
    )
    tiny(runs / "flagship-base-0123456789ab")
    model = stage(runs, "flagship-base", {"shards": "shards"}, metrics={"loss": 1.25, "tokens": 1000}, seconds=3330.0)
    items = tuple(
        Item(f"{skill}-{n}", skill, "en", "prompt", "target", "reply", n % 3 > 0, "", "stop", 4, -0.1)
        for skill in ("math", "code")
        for n in range(30)
    )
    scores = stage(runs, "scores-flagship-base", {"model": "flagship-base"})
    result = SuiteResult("paddock", "1", "f" * 12, Sampling(), items)
    save_results(scores, result, RunInfo("m", datetime(2026, 1, 1, tzinfo=UTC)))
    return model
