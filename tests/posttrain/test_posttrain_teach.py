"""Teaching on a tiny Llama: the teacher's answers help where the student's own cannot, at the same budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from posttrain_fakes import Notes, Verdict
from posttrain_tiny import COLLECT, evaluate, grown, means, seed_dialogues, settings_for, successors

from herd.errors import NoEffectError, SettingError
from herd.llama.model import Llama
from herd.posttrain import teach as teach_module
from herd.posttrain.settings import DistilSettings, MixSettings, TeachSettings
from herd.posttrain.teach import TeachInputs, TeachResult, learn_alone, teach
from herd.text.tokenizer import Tokenizer

SETTINGS = TeachSettings(sft=settings_for(60, 5e-3), collect=COLLECT, mix=MixSettings(seed=1.0, accepted=2.0))


@pytest.fixture(scope="module")
def inputs() -> TeachInputs:
    return TeachInputs(grown(90), grown(260), successors(), seed_dialogues()[::3], means())


@pytest.fixture(scope="module")
def taught(inputs: TeachInputs, tmp_path_factory: pytest.TempPathFactory) -> TeachResult:
    return teach(inputs, SETTINGS, tmp_path_factory.mktemp("taught"))


def weights(model: Llama) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


def test_the_taught_student_beats_the_one_that_learnt_alone(
    inputs: TeachInputs, taught: TeachResult, tmp_path: Path
) -> None:
    alone = learn_alone(inputs, SETTINGS, tmp_path)
    assert len(taught.accepted) > len(alone.accepted)
    assert taught.report["sft"]["tokens"] == alone.report["sft"]["tokens"]
    assert taught.report["sft"]["steps"] == alone.report["sft"]["steps"] == 60
    assert taught.report["sft"]["dialogues"]["seed"] == alone.report["sft"]["dialogues"]["seed"] == 9
    assert evaluate(taught.model).average > evaluate(alone.model).average


@pytest.mark.slow
def test_teaching_again_only_loads(
    inputs: TeachInputs, taught: TeachResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = teach(inputs, SETTINGS, tmp_path)
    monkeypatch.setattr(teach_module, "train_sft", None)
    again = teach(inputs, SETTINGS, tmp_path)
    for found in (first, again):
        assert torch.equal(weights(found.model), weights(taught.model))
        assert found.accepted == taught.accepted


@pytest.mark.slow
def test_logits_of_the_teacher_change_what_is_learnt(inputs: TeachInputs, taught: TeachResult, tmp_path: Path) -> None:
    settings = replace(SETTINGS, distil=DistilSettings(top_k=4))
    found = teach(inputs, settings, tmp_path)
    assert {"kl", "nll"} <= set(found.report["sft"]["metrics"])
    assert found.report["distilled"] is True
    assert not torch.equal(weights(found.model), weights(taught.model))
    assert evaluate(found.model).average > evaluate(inputs.student).average


@pytest.mark.slow
def test_the_answers_of_the_teacher_s_rounds_are_enough(
    inputs: TeachInputs, taught: TeachResult, tmp_path: Path
) -> None:
    handed = replace(inputs, teacher_accepted=taught.accepted)
    found = teach(handed, replace(SETTINGS, draw_anew=False), tmp_path)
    assert found.accepted == taught.accepted
    assert not (tmp_path / "draw").exists()
    both = teach(handed, SETTINGS, tmp_path / "both")  # drawn anew as well: the same dialogues enter once
    assert sorted(one.task_id for one in both.accepted) == sorted(one.task_id for one in taught.accepted)
    with pytest.raises(NoEffectError, match="no accepted answer"):
        teach(inputs, replace(SETTINGS, draw_anew=False), tmp_path / "none")


def test_logits_do_not_cross_tokenizers(inputs: TeachInputs, tmp_path: Path) -> None:
    other = replace(inputs.means, tokenizer=Tokenizer.train(["ab ab ab ab"] * 9, 513))
    settings = replace(SETTINGS, distil=DistilSettings())
    with pytest.raises(SettingError, match="one tokenizer"):
        teach(replace(inputs, teacher_means=other), settings, tmp_path)


def test_a_student_without_answers_of_its_own_learns_from_the_rest_and_says_so(
    inputs: TeachInputs, tmp_path: Path
) -> None:
    notes = Notes()
    hopeless = replace(inputs, means=replace(inputs.means, verify=lambda task, reply: Verdict(False, "no")))
    short = replace(SETTINGS, sft=settings_for(6))
    found = learn_alone(hopeless, short, tmp_path, notes)
    assert found.accepted == []
    assert "none of 208 replies" in found.report["no_answers"]
    assert any("learns from the rest of the mix" in note for note in notes.notes)
    assert found.report["sft"]["steps"] == 6
