"""The data of a fine-tuning: what is held out, what is left out and told, and what a preview shows."""

import re
from dataclasses import replace

import pytest
from adopt_models import TOKENIZER
from hypothesis import given
from hypothesis import strategies as st

from herd.errors import InputError
from herd.files import write_jsonl
from herd.llama.config import LlamaConfig
from herd.llama.model import Llama
from herd.posttrain.adoption import Adoption
from herd.recipes.adopt import find_adoption
from herd.road.adopt.compact import Compact
from herd.road.adopt.data import dialogues_of, few_steps, pairs_of, within_epochs
from herd.road.adopt.preview import preview
from herd.text import Message, encode_dialogue, show_dialogue
from herd.weights.hf import save_model


def adoption(recipe="sft", **changes) -> Adoption:
    made = find_adoption(recipe)
    train = replace(made.train, seq_len=64, batch_tokens=256, microbatch_tokens=128)
    return replace(made, train=train, held_out=0.3, **changes)


def asked(content, reply):
    return [{"role": "user", "content": content}, {"role": "assistant", "content": reply}]


def text_of(dialogue):
    return TOKENIZER.decode(list(dialogue.ids))


@given(st.lists(st.tuples(st.sampled_from(("user", "assistant", "system")), st.text(max_size=20)), min_size=1))
def test_a_compact_dialogue_is_the_dialogue(turns):
    dialogue = encode_dialogue(TOKENIZER, [Message(role, content) for role, content in turns])
    compact = Compact.of(dialogue)
    assert compact.whole() == dialogue
    assert compact.n_trained == dialogue.n_trained


@pytest.mark.parametrize(
    ("which", "learnt"), [("all", ["one<|eot_id|>", "two<|eot_id|>"]), ("last", ["two<|eot_id|>"])]
)
def test_all_answers_are_learnt_or_the_last(tmp_path, which, learnt):
    write_jsonl(tmp_path / "d.jsonl", [{"messages": [*asked("a", "one"), *asked("b", "two"), *asked("c", "")[:1]]}])
    (found,) = dialogues_of(adoption(answers=which), tmp_path / "d.jsonl", TOKENIZER).learnt
    shown = show_dialogue(TOKENIZER, found.whole(), partly=True)
    assert re.findall(r"\[\[(.*?)\]\]", shown) == learnt


def test_no_prompt_is_both_learnt_and_held_out(tmp_path):
    rows = [{"messages": asked(f"question {n % 20}", f"answer {n}")} for n in range(200)]
    write_jsonl(tmp_path / "d.jsonl", rows)
    split = dialogues_of(adoption(), tmp_path / "d.jsonl", TOKENIZER)
    learnt, held = ({text_of(d).split("answer")[0] for d in side} for side in (split.learnt, split.held))
    assert len(split.learnt) + len(split.held) == 200
    assert learnt
    assert held
    assert not learnt & held
    write_jsonl(tmp_path / "more.jsonl", [*rows, {"messages": asked("new", "one")}])
    more = dialogues_of(adoption(), tmp_path / "more.jsonl", TOKENIZER)
    assert {text_of(d) for d in split.held} <= {text_of(d) for d in more.held}


def test_pairs_of_one_prompt_stay_together(tmp_path):
    rows = [{"prompt": f"question {n % 20}", "chosen": f"{n}", "rejected": "no"} for n in range(100)]
    write_jsonl(tmp_path / "d.jsonl", rows)
    split = pairs_of(adoption("dpo"), tmp_path / "d.jsonl", TOKENIZER)
    prompts = [{tuple(pair.chosen.ids[: pair.prompt_tokens]) for pair in side} for side in (split.learnt, split.held)]
    assert all(prompts)
    assert not prompts[0] & prompts[1]


def test_what_is_too_long_is_told_with_the_length_that_would_do(tmp_path):
    long = "x" * 200
    write_jsonl(tmp_path / "d.jsonl", [{"messages": asked(f"q{n}", "a" if n else long)} for n in range(9)])
    split = dialogues_of(adoption(), tmp_path / "d.jsonl", TOKENIZER)
    assert "1 of 9 rows left out: longer than 64 tokens (train.seq_len)" in split.notes
    write_jsonl(tmp_path / "d.jsonl", [{"messages": asked("q", long)}])
    with pytest.raises(InputError, match=r"no row fits 64 tokens: the shortest has 2\d\d"):
        dialogues_of(adoption(), tmp_path / "d.jsonl", TOKENIZER)


def test_nothing_held_out_is_told(tmp_path):
    write_jsonl(tmp_path / "d.jsonl", [{"messages": asked("q", "a")}])
    split = dialogues_of(replace(adoption(), held_out=1e-9), tmp_path / "d.jsonl", TOKENIZER)
    assert any("no row is held out" in note for note in split.notes)
    with pytest.raises(InputError, match="every row is held out"):
        dialogues_of(replace(adoption(), held_out=1 - 1e-9), tmp_path / "d.jsonl", TOKENIZER)


def test_a_handful_of_steps_is_told_with_a_setting_that_makes_more():
    made = adoption()
    settings = within_epochs(made, 20, made.train.rows_per_step)
    assert settings.steps == 15
    told = few_steps(settings)
    assert told == "only 15 steps: --set train.batch_tokens=64 --set train.microbatch_tokens=64 makes about 60"
    assert few_steps(within_epochs(made, 2000, made.train.rows_per_step)) == ""


def test_a_preview_of_pairs_marks_the_answer_alone_on_both_sides(tmp_path):
    prompt = [*asked("q", "earlier"), {"role": "user", "content": "and?"}]
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": prompt, "chosen": "yes", "rejected": "no"}])
    config = LlamaConfig(TOKENIZER.vocab_size, 16, 1, 2, 1, 32, rope_scaling=None)
    save_model(tmp_path / "m", Llama(config), config, tokenizer=TOKENIZER, herd={})
    shown = "\n".join(preview(replace(adoption("dpo"), held_out=0.0), tmp_path / "m", tmp_path / "d.jsonl"))
    assert re.findall(r"\[\[(.*?)\]\]", shown) == ["yes<|eot_id|>", "no<|eot_id|>"]
    assert "earlier" in shown
