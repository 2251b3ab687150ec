"""The parts of faults/ that need no processes, and the commands that read what they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from train_models import random_documents, tiny_model, tiny_settings

from herd.cli import main
from herd.errors import ArtifactError, FormatError, SettingError, StorageError, TrainingError
from herd.train.batch import Batch
from herd.train.faults.causes import CORRUPT, HUNG, KILLED, LOST, NOT_FINITE, SOFTWARE, STORAGE, TOLD, cause_of
from herd.train.faults.checksums import changed, minority, words_sum
from herd.train.faults.differences import differences
from herd.train.faults.lives import Life, LifeFile, read_lives, verdict
from herd.train.faults.replay import first_not_finite
from herd.train.faults.runlog import RANKS, read_account
from herd.train.faults.settings import FaultSettings
from herd.train.faults.stragglers import Stragglers, slow_ranks
from herd.train.faults.watch import blamed
from herd.train.guards import read_batches, save_batches
from herd.train.interrupts import Stopped
from herd.train.loop import train
from herd.train.objectives.language_modelling import LanguageModelling
from herd.train.objectives.terms import LossTerms
from herd.train.parallel.plan import parse_plan
from herd.train.sources import Batches, TokenStream


def source(settings: object) -> Batches:
    return Batches(TokenStream(random_documents(20), 16, 0), settings)  # type: ignore[arg-type]


class BreaksAt(LanguageModelling):
    """The objective, whose loss is not finite in one call."""

    calls = 0

    def terms(self, model: nn.Module, batch: Batch) -> LossTerms:
        BreaksAt.calls += 1
        terms = super().terms(model, batch)
        return replace(terms, total=terms.total * float("nan")) if BreaksAt.calls == 4 else terms


@given(st.integers(0, 20), st.integers(0, 31), st.sampled_from([torch.float32, torch.bfloat16]), st.booleans())
def test_any_flipped_bit_changes_the_sum(place: int, bit: int, dtype: torch.dtype, inside: bool) -> None:
    """Of an odd number of words too, and where they begin in the middle of eight bytes."""
    values = torch.randn(22, generator=torch.Generator().manual_seed(1)).to(dtype)[inside : 21 + inside]
    assert words_sum(values) == words_sum(values.clone())
    before = {"a": words_sum(values), "b": words_sum(torch.ones(3))}
    words = values.view(torch.int32 if dtype == torch.float32 else torch.int16)
    words[place] ^= (1 << bit % (8 * values.element_size())) - (1 << 32 if bit == 31 and dtype == torch.float32 else 0)
    assert changed(before, {"a": words_sum(values), "b": words_sum(torch.ones(3))}) == ["a"]


def test_the_minority_is_named_and_all_where_there_is_none() -> None:
    assert minority([0, 2, 4], [7, 7, 8]) == (4,)
    assert minority([0, 1], [7, 8]) == (0, 1)


def test_of_two_ranks_the_slower_is_told_and_stages_are_compared_among_themselves() -> None:
    def told(work: list[float], plan: str) -> list[int]:
        return [slow.rank for slow in slow_ranks(work, parse_plan(plan), 1.3, 10)]

    assert told([1.0, 1.5], "dp=2") == [1]
    assert told([1, 1, 1, 2, 9], "dp=5") == [4, 3]
    assert told([1.0, 3.0], "pp=2") == []  # a rank without peers is compared with nobody
    # [TP, CP, PP, DP]: ranks 0, 1, 4, 5 are the first stage, which here has a third of the second one's work.
    assert told([1, 1, 3, 3, 1, 1, 3, 3], "tp=2,pp=2,dp=2") == []
    assert told([1, 1, 3, 3, 1, 2, 3, 3], "tp=2,pp=2,dp=2") == [5]  # faster than the other stage, and slow
    assert told([1, 1, 3, 3, 1, 1, 6, 3], "tp=2,pp=2,dp=2") == [6]


def test_a_rank_is_reported_when_it_is_slow_in_a_row_of_judgements_of_enough_looks() -> None:
    found = Stragglers(parse_plan("dp=2"), FaultSettings(slow_window=5, slow_looks=100, slow_times=3))

    def window(*work: float, looks: int = 100) -> list[int]:
        return [slow.rank for slow in found.window(work, [looks, looks + 50])]

    assert [window(1, 2), window(1, 2), window(2, 1), window(1, 2), window(1, 2)] == [[]] * 5  # the row was broken
    assert window(1.0, 2.0) == [1]
    assert window(1.0, 1.0) == []
    assert [window(1, 2, looks=50) for _ in range(5)] == [[]] * 5  # two judgements and a half
    (slow,) = found.window([1, 2], [50, 50])
    assert (slow.factor, slow.seconds) == (2, 0.4)  # four seconds in ten steps


def test_who_hangs_is_who_is_silent_or_does_not_wait_or_began_fewest() -> None:
    idle = Life(0, beats=5, idle=9.0, waits=True, collectives=7, step=3)
    later = replace(idle, beats=8, idle=12.0)
    at_work, silent = replace(later, rank=1, waits=False), replace(idle, rank=1)
    first = [idle, replace(idle, rank=1)]
    assert blamed(first, [later, at_work]) == [at_work]
    assert blamed(first, [later, silent]) == [silent]
    assert blamed(first, [later, replace(later, rank=1, collectives=6)]) == [replace(later, rank=1, collectives=6)]
    assert blamed(first, [later, replace(later, rank=1, idle=0.5)]) == []  # it moves
    assert blamed(first, [later, replace(later, rank=1, ended=STORAGE.name)]) == []  # it has gone by itself


def test_the_cause_nearest_to_the_root_is_the_verdict() -> None:
    lives = [Life(0, ended=LOST.name, step=4), Life(1, step=3, phase="the update")]
    assert (verdict(lives).cause, verdict(lives).ranks, verdict(lives).step) == (KILLED, (1,), 4)  # type: ignore[union-attr]
    hung = [Life(0, ended=HUNG.name, blamed=(1,), detail="rank 1 hangs"), Life(1)]
    assert (verdict(hung).cause, verdict(hung).ranks, verdict(hung).detail) == (HUNG, (1,), "rank 1 hangs")  # type: ignore[union-attr]
    assert verdict([Life(0, ended="done"), Life(1, ended="done")]) is None
    assert verdict([]) is None


def test_errors_have_the_causes_of_the_table() -> None:
    from herd.train.faults.causes import CorruptWeights

    assert cause_of(CorruptWeights("x")) == CORRUPT
    assert cause_of(TrainingError("x")) == NOT_FINITE
    assert cause_of(StorageError("x")) == STORAGE
    assert cause_of(KeyboardInterrupt()) == TOLD
    assert cause_of(RuntimeError("[gloo/pair.cc] Connection closed by peer")) == LOST
    assert cause_of(RuntimeError("CUDA error: uncorrectable ECC error")).category == "GPU"
    assert cause_of(ZeroDivisionError()) == SOFTWARE


def test_a_life_is_of_one_size_whatever_it_says(tmp_path: Path) -> None:
    file = LifeFile(tmp_path, 3)
    file.say(detail="x" * 10_000, step=2)
    assert (tmp_path / "00003.json").stat().st_size == 4096
    (life,) = read_lives(tmp_path)
    assert (life.rank, life.step, len(life.detail)) == (3, 2, 500)
    file.close()


@pytest.mark.parametrize("name", ["hang_seconds", "look_seconds", "slow_factor", "slow_window", "slow_times"])
def test_settings_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(SettingError, match=name):
        FaultSettings(**{name: -1})


def test_the_environment_sets_what_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FaultSettings.of_environment() == FaultSettings()
    monkeypatch.setenv("HERD_FAULTS", "hang_seconds=30, compare_every=5")
    assert FaultSettings.of_environment() == FaultSettings(hang_seconds=30.0, compare_every=5)
    for wrong in ("hang_secs=3", "hang_seconds"):
        monkeypatch.setenv("HERD_FAULTS", wrong)
        with pytest.raises(SettingError):
            FaultSettings.of_environment()


def test_the_log_of_one_process_tells_what_was_lost(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tiny_settings(checkpoint_every_steps=2)
    BreaksAt.calls = 0
    with pytest.raises(TrainingError, match="step 4"):
        train(tiny_model(), BreaksAt(), source(settings), settings, folder)
    (stopped,) = read_account(folder).interruptions
    assert (stopped.cause, stopped.step, stopped.resumed_step) == (NOT_FINITE.name, 4, None)
    train(tiny_model(), BreaksAt(), source(settings), settings, folder)
    account = read_account(folder)
    (stopped,) = account.interruptions
    assert (stopped.resumed_step, account.ended, account.processes) == (2, True, 1)
    assert stopped.again_seconds > 0
    assert main(["debug", "log", str(folder.parent)]) == 0
    told = capsys.readouterr().out
    assert "loss or gradient not usable" in told
    assert "the loss is nan" in told
    assert main(["debug", "log", str(folder), "--json"]) == 0
    (plain,) = json.loads(capsys.readouterr().out)
    assert plain["interruptions"][0]["step"] == 4
    assert 0 < plain["effective"] <= 1


def test_a_killed_process_is_in_the_log(folder: Path) -> None:
    """It says nothing when it ends, so its last words stand."""
    settings = tiny_settings(checkpoint_every_steps=2)

    class Dies(Exception):
        pass

    with pytest.MonkeyPatch.context() as patch:
        for last_words in ("failed", "end"):
            patch.setattr(f"herd.train.faults.attend.Attendance.{last_words}", lambda self, error: None)
        patch.setattr("herd.train.guards.Guard.accept", _raises_at(5, Dies))
        with pytest.raises(Dies):
            train(tiny_model(), LanguageModelling(), source(settings), settings, folder)
    train(tiny_model(), LanguageModelling(), source(settings), settings, folder)
    (stopped,) = read_account(folder).interruptions
    assert (stopped.cause, stopped.ranks, stopped.resumed_step) == (KILLED.name, (0,), 4)


def _raises_at(call: int, error: type[Exception]) -> object:
    seen = [0]

    def accept(self: object, loss: float) -> None:
        seen[0] += 1
        if seen[0] == call:
            raise error

    return accept


def test_where_there_is_no_log_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", "log", str(tmp_path)]) == ArtifactError.exit_code
    assert "no training has left a log" in capsys.readouterr().err
    (tmp_path / RANKS).mkdir()
    with pytest.raises(ArtifactError):
        read_account(tmp_path)


def test_told_to_stop_by_a_signal_has_the_shells_exit_code() -> None:
    import signal

    assert (Stopped(signal.SIGTERM).exit_code, Stopped(signal.SIGINT).exit_code) == (143, 130)


def batch() -> Batch:
    return source(tiny_settings()).batch(0)[0]


def test_a_saved_batch_is_read_as_it_was(tmp_path: Path) -> None:
    one = replace(batch(), extras={"reference_B": torch.arange(4.0)})
    save_batches(tmp_path / "b.safetensors", [one, batch()], 7)
    step, (again, other) = read_batches(tmp_path / "b.safetensors")
    assert step == 7
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in one.tensors().items())
    assert other.extras == {}
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="no saved batch"):
        read_batches(tmp_path / "c.safetensors")


def test_the_first_module_that_makes_what_is_not_finite_is_named() -> None:
    def origin(model: nn.Module) -> tuple[str, str] | None:
        found = first_not_finite(model, LanguageModelling(), [batch(), batch()])
        return None if found is None else (found.where, found.name)

    assert origin(tiny_model()) is None
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    assert origin(model) == ("weight", "model.layers.1.mlp.up_proj.weight")
    model = tiny_model()
    with torch.no_grad():  # finite, but its products are not
        model.model.layers[1].mlp.up_proj.weight.fill_(3e38)
    assert origin(model) == ("forward", "model.layers.1.mlp.up_proj")
    model = tiny_model()
    model.model.layers[0].self_attn.register_forward_hook(lambda module, given, made: made * float("nan"))
    assert origin(model) == ("forward", "model.layers.0.self_attn")
    model = tiny_model()
    model.model.layers[0].mlp.down_proj.register_full_backward_hook(
        lambda module, made, given: (made[0] * float("inf"),)
    )
    assert origin(model) == ("backward", "model.layers.0.mlp.down_proj")


def test_debug_nan_replays_the_weights_and_the_batch_of_the_failed_step(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings(steps=3, peak_lr=1e30, warmup_steps=0, grad_clip=0.0)  # the second loss overflows
    with pytest.raises(TrainingError):
        train(tiny_model(), LanguageModelling(), source(settings), settings, folder)
    assert main(["debug", "nan", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "after 1 updates" in told
    assert "first      " in told
    assert "first      backward: model.norm" in told
    assert "the ids up to there are" in told
    assert main(["debug", "nan", str(folder.parent)]) == ArtifactError.exit_code


def test_the_first_difference_is_the_first_that_is_computed() -> None:
    modules = ["model.embed_tokens", "model.layers.0.mlp", "model.norm"]
    one = {
        "1.weight.0.model.norm.weight": torch.ones(3),
        "1.gradient.0.model.embed_tokens.weight": torch.ones(2, 2),
        "1.gradient.0.lm_head.weight": torch.ones(2, 2),
        "1.forward.1.model.layers.0.mlp": torch.tensor([[[1.0, float("nan")]]]),
        "1.forward.0.model.norm": torch.ones(1, 2, 2),
        "1.loss.0.loss": torch.tensor(2.0),
    }
    other = {name: tensor.clone() for name, tensor in one.items()}
    other["1.gradient.0.lm_head.weight"][0, 0] = 1.5
    other["1.weight.0.model.norm.weight"][1] = 3.0
    found = list(differences(one, other, modules))
    assert [(each.kind, each.name) for each in found if each.relative > 0] == [
        ("gradient", "lm_head.weight"),
        ("weight", "model.norm.weight"),
    ]
    assert [each.kind for each in found] == ["forward", "forward", "loss", "gradient", "gradient", "weight"]
    assert (found[3].relative, found[3].count, found[3].of) == (0.5, 1, 4)


def test_one_plan_is_compared_with_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", "compare", "dp=2", "--model", "m"]) == SettingError.exit_code
    assert "name two" in capsys.readouterr().err
