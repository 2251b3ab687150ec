"""A model whose chat template differs from herd's format: every command that talks or trains says so."""

import io
import json
from pathlib import Path

import pytest

from herd.cli import main
from herd.commands.chat import chat
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.text import Tokenizer
from herd.weights.examine import examine
from herd.weights.hf import save_model

TEMPLATE = """{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>' }}\
{{ m.content }}<|eot_id|>{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"""
SAID = "own chat template is used; it differs from herd's format in"


@pytest.fixture
def folder(tmp_path):
    tokenizer = Tokenizer.train([])
    config = LlamaConfig(tokenizer.vocab_size, 16, 2, 2, 1, 32, max_seq_len=256, rope_scaling=None)
    model = Llama(config)
    init_weights(model, 0)
    save_model(tmp_path / "model", model, config, herd={}, tokenizer=tokenizer, instruct=True)
    (tmp_path / "model" / "chat_template.jinja").write_text(TEMPLATE)
    (tmp_path / "talks.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "yes"}]})
            + "\n"
            for n in range(40)
        )
    )
    return tmp_path


def test_inspect_notes_it(folder):
    report = examine(folder / "model")
    assert report.wrong == []
    assert any(SAID in note for note in report.notes)
    assert any(note.startswith("a question: it writes ") for note in report.notes)
    (folder / "model" / "chat_template.jinja").write_text("{% for %}")
    assert any("template cannot be used" in fault.what for fault in examine(folder / "model").wrong)


def test_chat_says_it_beside_the_answers(folder, capsys):
    out = io.StringIO()
    chat(folder / "model", max_tokens=3, stdin=io.StringIO("hi\n"), stdout=out)
    assert SAID in capsys.readouterr().err
    assert SAID not in out.getvalue()


def test_train_says_it_and_hands_the_template_on(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    command = ["train", "sft", "--model", str(folder / "model"), "--data", str(folder / "talks.jsonl"), "--full"]
    command += [
        f"--set={each}" for each in ("train.seq_len=64", "train.batch_tokens=128", "train.microbatch_tokens=128")
    ]
    command += ["--set=train.steps=2", "--set=threads=1", "--out", str(folder / "out")]
    assert main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert SAID in shown
    assert "<|start_header_id|>assistant<|end_header_id|>[[yes<|eot_id|>]]" in shown
    assert main(command) == 0
    told = capsys.readouterr()
    assert SAID in told.out + told.err
    assert (Path(folder) / "out" / "model" / "chat_template.jinja").read_text() == TEMPLATE
