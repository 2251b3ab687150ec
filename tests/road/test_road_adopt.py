"""`herd train`: every recipe on a tiny model, killed and gone on with, read by peft, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from adopt_models import TOKENIZER, save_drawn, shape

from fake_api import Server
from herd.cli import main
from herd.commands.train import Asked, resolve
from herd.errors import ArtifactError, HerdError, InputError, SettingError
from herd.files import read_json, sha256_of, write_jsonl
from herd.llama.model import Llama
from herd.posttrain.adoption import Adoption
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.quantize.settings import POLICIES
from herd.recipes.adopt import ADOPTIONS, find_adoption, in_full
from herd.road.adopt.data import pairs_of
from herd.road.adopt.graph import model_key, stages_of
from herd.road.adopt.model import check_fit
from herd.stages import Runner
from herd.text import Tokenizer, read_dialogues
from herd.train.objectives.dpo import reference_logprobs
from herd.train.reward_files import load_reward
from herd.weights.hf import load_model, save_model
from herd.weights.peft import load_adapter
from herd.weights.registry import open_model

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHAPE = shape(dim=32)
SMALL = (
    *("train.seq_len=64", "train.batch_tokens=256", "train.microbatch_tokens=128", "train.peak_lr=3e-3"),
    *(
        "train.steps=10",
        "train.checkpoint_every_steps=4",
        "adapter.rank=4",
        "adapter.dropout=0.1",
        "held_out=0.2",
        "threads=1",
    ),
)


def talk(n):
    return [
        {"role": "user", "content": f"after {LETTERS[n % 25]}?"},
        {"role": "assistant", "content": LETTERS[n % 25 + 1]},
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, a dataset of dialogues and one of pairs."""
    folder = tmp_path_factory.mktemp("adopt")
    save_drawn(folder / "model", SHAPE)
    write_jsonl(folder / "talks.jsonl", ({"messages": talk(n)} for n in range(40)))
    pairs = (
        {"prompt": talk(n)[:1], "chosen": talk(n)[1:], "rejected": [{"role": "assistant", "content": "no"}]}
        for n in range(40)
    )
    write_jsonl(folder / "pairs.jsonl", pairs)
    return folder


def adopted(place, recipe, *more, data="talks.jsonl", **asked):
    settings = (*SMALL, *more)
    if asked.get("full"):
        settings = tuple(text for text in settings if not text.startswith("adapter."))
    return resolve(Asked(recipe, place / "model", place / data, assignments=settings, **asked))


class Killed(Exception):
    pass


class Watch:
    """Kills the training after `step` steps; keeps the notes."""

    def __init__(self, step=0):
        self.step, self.notes = step, []

    def start(self, stage, number, total):
        return self

    def done(self, stage, seconds, metrics, found):
        pass

    def update(self, done, total, unit, facts=None):
        if unit == "steps" and done == self.step:
            raise Killed

    def note(self, text):
        self.notes.append(text)


def train(place, out, adoption, data="talks.jsonl", model="model", watch=None):
    stages = stages_of(adoption, place / model, place / data)
    return Runner(out, watch or Watch()).run(stages)[adoption.name]


def hashes(folder):
    return {str(p.relative_to(folder)): sha256_of(p) for p in folder.rglob("*.safetensors")}


CASES = {
    "sft": ("sft", "talks.jsonl", (), {}),
    "sft in full": ("sft", "talks.jsonl", (), {"full": True}),
    "sft over int8, recomputed": ("sft", "talks.jsonl", ("recompute=layer",), {"base": "int8"}),
    "sft in float32": ("sft", "talks.jsonl", ("train.dtype=float32",), {}),
    "dpo": ("dpo", "pairs.jsonl", ("max_epochs=3",), {}),
    "dpo over fp8": ("dpo", "pairs.jsonl", ("max_epochs=3",), {"base": "fp8"}),
    "dpo in full": ("dpo", "pairs.jsonl", ("max_epochs=3",), {"full": True}),
    "reward": ("reward", "pairs.jsonl", ("max_epochs=3",), {}),
    "reward in full": ("reward", "pairs.jsonl", ("max_epochs=3",), {"full": True}),
    "distil from a folder": ("distil", "talks.jsonl", (), {"teacher": "MODEL"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_learns_and_a_killed_one_ends_in_the_same_bits(place, tmp_path, case):
    recipe, data, settings, asked = CASES[case]
    if asked.get("teacher"):
        asked = asked | {"teacher": str(place / "model")}
    adoption = adopted(place, recipe, *settings, data=data, **asked)
    whole = train(place, tmp_path / "whole", adoption, data)
    with pytest.raises(Killed):
        train(place, tmp_path / "cut", adoption, data, watch=Watch(5))
    watch = Watch()
    resumed = train(place, tmp_path / "cut", adoption, data, watch=watch)
    assert "going on from checkpoint step-4" in watch.notes
    assert hashes(whole) == hashes(resumed)
    assert {name.split("/")[0] for name in hashes(whole)} == ({"model"} if asked.get("full") else {"model", "adapter"})
    facts = read_json(whole / "herd.json")["metrics"]
    assert facts["last_loss"] < facts["first_loss"]
    assert any(name.startswith("held_out") for name in facts["metrics"])


def test_the_adapter_over_the_base_is_the_merged_model(place, tmp_path):
    made = train(place, tmp_path, adopted(place, "sft", "train.dtype=float32"))
    base = load_model(place / "model")
    load_adapter(made / "adapter", base)
    tokens = torch.arange(60).view(2, 30)
    with torch.no_grad():
        ours, merged = base.logits(base(tokens)), (model := load_model(made / "model")).logits(model(tokens))
    # the folder is stored in bfloat16
    torch.testing.assert_close(ours, merged, rtol=0.05, atol=0.05)
    assert (ours - merged).abs().mean() < 0.2 * (
        ours - (m := load_model(place / "model")).logits(m(tokens))
    ).abs().mean()


def test_peft_and_transformers_read_what_was_made(place, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    made = train(place, tmp_path, adopted(place, "sft", "train.dtype=float32"))
    ours = load_model(place / "model")
    load_adapter(made / "adapter", ours)
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(made / "adapter", dtype=torch.float32)
    tokens = torch.arange(60).view(2, 30)
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours.logits(ours(tokens)), rtol=1e-4, atol=1e-4)
    assert transformers.AutoTokenizer.from_pretrained(made / "adapter").chat_template


def test_a_reward_adapter_scores_the_same_in_peft(place, tmp_path):
    peft = pytest.importorskip("peft")
    made = train(
        place,
        tmp_path,
        adopted(place, "reward", "train.dtype=float32", "max_epochs=3", data="pairs.jsonl"),
        "pairs.jsonl",
    )
    theirs = peft.AutoPeftModelForSequenceClassification.from_pretrained(
        made / "adapter", num_labels=1, dtype=torch.float32
    )
    theirs.config.pad_token_id = TOKENIZER.pad
    theirs.base_model.config.pad_token_id = TOKENIZER.pad
    merged = load_reward(made / "model")
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        found, ours = theirs(tokens).logits.squeeze(), merged(tokens, torch.tensor([19])).squeeze()
    torch.testing.assert_close(found, ours, rtol=0.02, atol=0.02)
    assert abs(float(found)) > 0.01


def test_a_served_teacher_is_asked_once_and_learnt_from(place, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    server = Server()
    server.answer = lambda body: "" if "after c?" in body["messages"][-1]["content"] else "z" * 3
    adoption = adopted(
        place,
        "distil",
        "teacher.system=Be brief.",
        "teacher.endpoint.concurrency=2",
        teacher=server.url,
        teacher_model="big",
    )
    try:
        with pytest.raises(Killed):
            train(place, tmp_path, adoption, watch=Watch(5))
        asked = len(server.seen)
        watch = Watch()
        made = train(place, tmp_path, adoption, watch=watch)
    finally:
        server.close()
    assert asked == len(server.seen) == 40
    assert server.seen[0][1]["messages"][0] == {"role": "system", "content": "Be brief."}
    (answers,) = (tmp_path / "stages").glob("answers-*")
    dialogues = list(read_dialogues(answers / "dialogues.jsonl"))
    assert len(dialogues) == 38  # two empty answers are left out
    assert {len(messages) for messages in dialogues} == {2}
    assert {messages[-1].content for messages in dialogues} == {"zzz"}
    assert read_json(made / "model" / "herd.json")["teacher"] == "big"
    facts = read_json(made / "herd.json")["metrics"]
    assert facts["last_loss"] < facts["first_loss"]


def test_the_command_shows_then_trains_then_finds_it_done(place, tmp_path, capsys):
    sets = [part for text in (*SMALL, "train.steps=2") for part in ("--set", text)]
    command = ["train", "sft", "--model", str(place / "model"), "--data", str(place / "talks.jsonl")]
    command += ["--out", str(tmp_path / "run"), *sets]
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "40 rows as 'messages'" in shown
    assert re.search(r"\[\[\w<\|eot_id\|>\]\]", shown)
    assert "parameters learn" in shown
    assert not (tmp_path / "run" / "stages").exists()
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "herd chat" in told
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").exists()
    assert load_model(tmp_path / "run" / "model").config == SHAPE
    assert main(command) == 0
    assert "1 stages found done" in capsys.readouterr().out
    again = ["train", str(tmp_path / "run" / "recipe.json"), *command[2:8]]
    assert main(again) == 0
    assert "1 stages found done" in capsys.readouterr().out


def test_another_model_or_another_dataset_is_another_stage(place, tmp_path):
    adoption = adopted(place, "sft")
    first = stages_of(adoption, place / "model", place / "talks.jsonl")[-1]
    assert first.folder == stages_of(adoption, place / "model", place / "talks.jsonl")[-1].folder
    assert first.folder != stages_of(adoption, place / "model", place / "pairs.jsonl")[-1].folder
    save_drawn(tmp_path / "other", SHAPE, seed=2)
    assert model_key(tmp_path / "other") != model_key(place / "model")
    assert replace(adoption, threads=7) != adoption
    assert stages_of(replace(adoption, threads=7), place / "model", place / "talks.jsonl")[-1].folder == first.folder


@pytest.mark.parametrize("policy", ["paper", "all"])
def test_an_fp8_folder_is_adopted_as_it_is_but_not_in_full(place, tmp_path, policy):
    model = load_model(place / "model")
    quantize_model(model, POLICIES[policy])
    save_fp8(place / "fp8", model, tokenizer=TOKENIZER, herd={})
    made = train(place, tmp_path / "a", adopted(place, "sft"), model="fp8")
    assert read_json(made / "herd.json")["metrics"]["frozen_bytes"] < 2 * SHAPE.parameters()
    with pytest.raises(SettingError, match="FP8 model cannot be trained in full"):
        train(place, tmp_path / "b", adopted(place, "sft", full=True), model="fp8")


@pytest.mark.parametrize(
    ("recipe", "settings", "asked", "word"),
    [
        ("stf", (), {}, "did you mean"),
        ("sft", ("adapter.rnk=3",), {}, "rank"),
        ("sft", ("adapter=null",), {"base": "int8"}, "nothing is left to learn"),
        ("distil", (), {}, "there is no teacher"),
        ("sft", (), {"teacher": "http://x"}, "has no teacher"),
        ("sft", (), {"columns": ("prompt",)}, "OURS=THEIRS"),
        ("sft", ("held_out=1",), {}, "held_out"),
        ("sft", ("max_epochs=0",), {}, "max_epochs"),
    ],
)
def test_settings_that_cannot_be_are_refused(place, recipe, settings, asked, word):
    with pytest.raises(SettingError, match=r".*") as found:
        resolve(Asked(recipe, place / "model", place / "talks.jsonl", assignments=settings, **asked))
    assert word in str(found.value)


@pytest.mark.parametrize(
    ("recipe", "data", "settings", "kind", "word"),
    [
        ("sft", "pairs.jsonl", (), HerdError, "none of the known layouts"),
        ("sft", "gone.jsonl", (), ArtifactError, "no dataset is here"),
        ("sft", "talks.jsonl", ("train.seq_len=512", "train.batch_tokens=512", "train.microbatch_tokens=0"),
         SettingError, "context is 256"),
        ("sft", "talks.jsonl", ("train.seq_len=8", "train.batch_tokens=64", "train.microbatch_tokens=0"),
         InputError, "no row fits 8 tokens"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_learnt_is_refused(place, tmp_path, recipe, data, settings, kind, word):
    with pytest.raises(kind, match=word):
        train(place, tmp_path, adopted(place, recipe, *settings, data=data), data)


def test_a_teacher_in_a_folder_lowers_the_divergence_on_held_out_rows(place, tmp_path):
    save_drawn(tmp_path / "teacher", SHAPE, seed=7, std=0.2)
    settings = ("teacher.logits.weight=1.0", "train.steps=40", "max_epochs=40")
    made = train(place, tmp_path / "out", adopted(place, "distil", *settings, teacher=str(tmp_path / "teacher")))
    facts = read_json(made / "herd.json")["metrics"]
    assert facts["metrics"]["held_out_kl"] < facts["before"]["held_out_kl"]


def test_a_teacher_that_cannot_teach_is_refused_before_it_reads(place, tmp_path):
    words = Tokenizer.train(["other words than those "] * 20, 560)
    other = replace(SHAPE, vocab_size=words.vocab_size)
    save_model(tmp_path / "words", Llama(other), other, tokenizer=words, herd={})
    short = replace(SHAPE, max_seq_len=32)
    save_model(tmp_path / "short", Llama(short), short, tokenizer=TOKENIZER, herd={})
    for name, word in (("words", "tokenizer is another"), ("short", "context is 32")):
        with pytest.raises(SettingError, match=word):
            train(place, tmp_path / "out", adopted(place, "distil", teacher=str(tmp_path / name)))
    assert not list((tmp_path / "out").rglob("teacher-*"))


def test_another_teacher_or_template_is_another_stage(place, tmp_path):
    import shutil

    shutil.copytree(place / "model", tmp_path / "model")
    adoption = adopted(place, "distil", teacher=str(tmp_path / "model"))
    names = [stages_of(adoption, place / "model", place / "talks.jsonl")[-1].folder]
    save_drawn(tmp_path / "model", SHAPE, seed=8)
    names.append(stages_of(adoption, place / "model", place / "talks.jsonl")[-1].folder)
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages }}")
    names.append(stages_of(adoption, place / "model", place / "talks.jsonl")[-1].folder)
    assert len(set(names)) == 3


@pytest.mark.parametrize(("dtype", "other"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_the_reference_of_full_dpo_is_computed_as_the_policy_is(place, tmp_path, dtype, other):
    adoption = adopted(place, "dpo", f"train.dtype={dtype}", "max_epochs=3", data="pairs.jsonl", full=True)
    with pytest.raises(Killed):
        train(place, tmp_path, adoption, "pairs.jsonl", watch=Watch(1))
    (stored,) = tmp_path.rglob("reference-learnt.npy")
    pairs = pairs_of(adoption, place / "pairs.jsonl", TOKENIZER).learnt
    found = {
        name: reference_logprobs(load_model(place / "model").to(getattr(torch, name)), pairs, 128).numpy()
        for name in (dtype, other)
    }
    assert np.array_equal(np.load(stored), found[dtype])
    assert not np.array_equal(found[dtype], found[other])


def test_an_update_that_rounding_takes_away_is_told(place, tmp_path):
    watch = Watch()
    made = train(place, tmp_path / "a", adopted(place, "sft", "train.peak_lr=1e-7", full=True), watch=watch)
    assert any("of what was learnt is left in model/" in note for note in watch.notes)
    assert read_json(made / "herd.json")["metrics"]["kept"] < 0.1
    watch = Watch()
    made = train(place, tmp_path / "b", adopted(place, "sft"), watch=watch)
    assert not any("is left in model/" in note for note in watch.notes)
    assert 0.8 < read_json(made / "herd.json")["metrics"]["kept"] < 1.2


def test_a_float32_model_stays_one(place, tmp_path):
    save_model(tmp_path / "wide", load_model(place / "model"), SHAPE, tokenizer=TOKENIZER, dtype=torch.float32, herd={})
    made = train(
        tmp_path, tmp_path / "out", adopted(place, "sft", "train.dtype=float32"), place / "talks.jsonl", "wide"
    )
    entries = open_model(made / "model").tensors.values()
    assert {entry.dtype for entry in entries} == {torch.float32}
    assert read_json(made / "herd.json")["metrics"]["kept"] == pytest.approx(1, abs=1e-3)


def test_a_model_without_a_chat_format_is_refused(place):
    plain = SimpleNamespace(vocab_size=SHAPE.vocab_size, can_chat=False)
    with pytest.raises(InputError, match="no chat format"):
        check_fit(adopted(place, "sft"), SHAPE, plain, place / "model")


def test_the_command_says_how_sure_an_accuracy_is_and_that_nothing_was_learnt(place, tmp_path, capsys):
    sets = (*SMALL, "max_epochs=3", "train.peak_lr=1e-9")
    command = ["train", "reward", "--model", str(place / "model"), "--data", str(place / "pairs.jsonl")]
    command += ["--out", str(tmp_path), *(part for text in sets for part in ("--set", text))]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert re.search(r"held out accuracy 0\.5 -> .*\(0\.\d+ to \d\.\d+ at 95 %, of \d+ pairs\)", said)
    assert "the held-out loss did not fall (0.6931 -> 0.6931)" in said


def test_what_is_in_full_already_keeps_its_rate():
    full = in_full(find_adoption("sft"))
    slower = replace(full, train=replace(full.train, peak_lr=3e-6))
    assert in_full(slower) == slower
    assert full.train.peak_lr != find_adoption("sft").train.peak_lr


def test_no_model_says_how_to_get_one(place, tmp_path):
    with pytest.raises(ArtifactError, match="no model is here") as found:
        stages_of(adopted(place, "sft"), tmp_path, place / "talks.jsonl")
    assert "herd pull" in found.value.mend


@pytest.mark.parametrize("name", ADOPTIONS)
def test_recipes_are_as_they_were(name):
    """HERD_WRITE_GOLDEN=1 rewrites the dumps, as for the other recipes."""
    import os

    from herd.config import from_plain, to_plain

    adoption = find_adoption(name)
    assert from_plain(Adoption, to_plain(adoption)) == adoption == find_adoption(name.removeprefix("adopt-"))
    path = Path(__file__).parents[1] / "recipes" / "golden" / f"{name}.json"
    text = json.dumps(to_plain(adoption), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("HERD_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_recipes_are_listed_and_printed(capsys):
    assert main(["recipes"]) == 0
    assert "adopt-dpo" in capsys.readouterr().out
    assert main(["recipes", "adopt-distil"]) == 0
    assert json.loads(capsys.readouterr().out)["objective"] == "distil"
