"""A plan from the command line's side: the pre-training stage on many processes makes the folder that one makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import run_on
from train_models import Documents, tiny_model

from herd.llama.init import drawn_weights, init_weights
from herd.llama.model import Llama
from herd.train.loop import mean_loss, train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.parallel.mesh import processes
from herd.train.parallel.plan import parse_plan
from herd.train.settings import TrainSettings
from herd.train.sources import Batches, TokenStream, validation_batches
from herd.weights.hf import load_model, save_model

SETTINGS = TrainSettings(steps=6, batch_tokens=112, seq_len=16, microbatch_tokens=32, peak_lr=1e-3, warmup_steps=2)


def rows() -> TokenStream:
    rng = np.random.default_rng(0)
    return TokenStream(Documents([rng.integers(1, 50, int(n)) for n in rng.integers(5, 60, 30)]), 16, 0)


def pretrained(rank: int, plan: str, out: str, meta: bool) -> dict[str, Any]:
    """torchrun's environment is all that is there: the group is started and ended by herd."""
    with processes(parse_plan(plan), "cpu") as mesh:
        config = tiny_model(n_heads=4, n_kv_heads=2, vocab_size=51, n_layers=4).config
        with torch.device("meta" if meta else "cpu"):
            model = Llama(config)
        if not meta:
            init_weights(model, 3)
        objective, held = LanguageModelling(), validation_batches(rows(), 5, 2)
        result = train(
            model,
            objective,
            Batches(rows(), SETTINGS),
            SETTINGS,
            Path(out) / "run",
            validate=lambda one: {"held_out": mean_loss(one, objective, held)},
            mesh=mesh,
            weights=drawn_weights(model, 3) if meta else None,
        )
        if rank == 0 and not meta:
            save_model(Path(out) / "model", model, config, dtype=torch.float32, herd={})
    return {"losses": result.losses, **result.metrics}


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("meta", [False, True])
def test_shards_to_a_folder_that_equals_one_processes(tmp_path: Path, meta: bool) -> None:
    alone = pretrained(0, "", str(tmp_path / "one"), meta=False)
    many = run_on(4, pretrained, "dp=2,tp=2", str(tmp_path / "many"), meta, group=False)
    for one in many:
        assert one["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert one["held_out"] == pytest.approx(alone["held_out"], rel=1e-5)
    assert (tmp_path / "many/run/history.jsonl").read_text().count("\n") == SETTINGS.steps
    if not meta:
        wanted = load_model(tmp_path / "one/model").state_dict()
        for name, weight in load_model(tmp_path / "many/model").state_dict().items():
            assert float((weight - wanted[name]).abs().max()) < 1e-5, name
