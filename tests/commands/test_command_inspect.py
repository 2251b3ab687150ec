"""`herd inspect dialogue`: what is trained can be seen, and what is not is said."""

import io
import json

import pytest

from herd.commands.inspect import inspect_dialogue
from herd.errors import ArtifactError, FormatError, InputError, NoEffectError
from herd.text import Tokenizer

TALK = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Grüezi"}]}
MUTE = {"messages": [{"role": "user", "content": "hi"}]}


def inspect(tmp_path, records, folder=None):
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    out = io.StringIO()
    try:
        inspect_dialogue(path, folder, out)
    finally:
        inspect.text = out.getvalue()
    return out.getvalue()


def test_trained_parts_are_in_brackets(tmp_path):
    text = inspect(tmp_path, [TALK, TALK])
    assert text.count("<|end_header_id|>\n\n[[Grüezi<|eot_id|>]]") == 2
    trained = len("Grüezi".encode()) + 1  # without a tokenizer: bytes
    assert f"2 dialogues, {2 * trained} of " in text
    assert f"-- {trained} of " in text


def test_a_given_tokenizer_is_used(tmp_path):
    Tokenizer.train(["Grüezi " * 50], 560).save(tmp_path)
    assert "-- 2 of " in inspect(tmp_path, [TALK], tmp_path)
    with pytest.raises(ArtifactError, match="no tokenizer"):
        inspect(tmp_path, [TALK], tmp_path / "nowhere")


def test_a_dialogue_without_answer_is_said_loudly_after_the_others(tmp_path):
    with pytest.raises(NoEffectError, match=r"1 of 3 dialogues.*dialogue 2"):
        inspect(tmp_path, [TALK, MUTE, TALK])
    assert inspect.text.count("[[Grüezi<|eot_id|>]]") == 2
    assert "!! nothing of this dialogue is trained" in inspect.text


def test_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InputError, match="no dialogues"):
        inspect(tmp_path, [])
    with pytest.raises(FormatError, match="line 2"):
        inspect(tmp_path, [TALK, {"messages": 1}])
