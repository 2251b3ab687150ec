"""`herd convert --prove`: equal formats are shown equal, a wrong one is seen, readers that are not there are named."""

import pytest
import torch

from herd.cli import main
from herd.errors import InputError
from herd.llama.config import LlamaConfig
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.text import Tokenizer
from herd.weights import prove as proof
from herd.weights.build import fitting_dtype
from herd.weights.convert import convert
from herd.weights.hf import save_model
from herd.weights.prove import default_text, prove, table
from herd.weights.registry import open_model

TOKENIZER = Tokenizer.train([])
CONFIG = LlamaConfig(TOKENIZER.vocab_size, 32, 4, 4, 2, 48)
TEXT = "The ferry left.\n\nEs war einmal 1923."


def make(folder, *, tokenizer=TOKENIZER, change=lambda state: None):
    model = Llama(CONFIG)
    init_weights(model, 0)
    state = {name: tensor * 4 if tensor.dim() == 2 else tensor for name, tensor in model.state_dict().items()}
    change(state)
    save_model(folder, state, CONFIG, herd={}, tokenizer=tokenizer)
    return folder


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "hf")


def test_every_format_is_the_same_model(folder, tmp_path):
    pytest.importorskip("transformers")
    convert(folder, tmp_path / "meta", to="meta")
    rows = prove([folder, tmp_path / "meta"], TEXT)
    assert [(row.form, row.reader) for row in rows] == [("hf", "herd"), ("hf", "transformers"), ("meta", "herd")]
    assert all(row.top1 == 1.0 for row in rows)
    assert rows[0].tokens == len(TOKENIZER.encode(TEXT)) - 2  # the empty line between the paragraphs belongs to none
    assert (rows[2].largest, rows[2].perplexity) == (0.0, rows[0].perplexity)
    assert rows[1].largest < 1e-4
    assert "| meta  | meta   | herd" in table(rows)


def test_the_perplexity_is_that_of_a_plain_computation(folder):
    (row, *_) = prove([folder], TEXT)
    model, total, count = proof.build_model(open_model(folder)), 0.0, 0
    for part in TEXT.split("\n\n"):
        ids = torch.tensor([[TOKENIZER.bos, *TOKENIZER.encode(part)]])
        with torch.no_grad():
            logits = model.logits(model(ids))
        total += float(torch.nn.functional.cross_entropy(logits[0, :-1].double(), ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    assert row.perplexity == pytest.approx(torch.tensor(total / count).exp().item(), rel=1e-6)


def test_swapped_rows_of_q_are_seen(folder, tmp_path):
    def swap(state):
        name = "model.layers.0.self_attn.q_proj.weight"
        state[name] = state[name].unflatten(0, (4, 4, 2)).transpose(1, 2).flatten(0, 2)

    rows = prove([folder, make(tmp_path / "wrong", change=swap)], TEXT)
    worst = next(row for row in rows if row.path.name == "wrong")
    assert worst.largest > 0.01


def test_a_reader_that_is_not_there_gets_a_row_that_says_so(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    rows = prove([folder], TEXT)
    assert "pip install 'herd[transformers]'" in rows[1].problem
    assert "not installed" in table(rows)


def test_without_a_tokenizer_ids_are_random_and_said(tmp_path):
    notes = []

    class Told:
        def update(self, *told):
            pass

        def note(self, text):
            notes.append(text)

    rows = prove([make(tmp_path / "m", tokenizer=None)], TEXT, Told())
    assert rows[0].tokens == 255
    assert "random ids" in notes[0]


def test_what_cannot_be_compared(folder, tmp_path):
    other = LlamaConfig(300, 32, 1, 4, 2, 48)
    model = Llama(other)
    init_weights(model, 0)
    save_model(tmp_path / "other", model, other, herd={})
    with pytest.raises(InputError, match="not one model in several formats"):
        prove([folder, tmp_path / "other"], TEXT)
    with pytest.raises(InputError, match="no two tokens"):
        prove([folder], "\n\n")


def test_the_default_text_has_every_language_of_llama():
    parts = default_text().split("\n\n")
    assert len(parts) == 9
    assert any("\u0900" <= letter <= "\u097f" for letter in parts[5])
    assert any("\u0e00" <= letter <= "\u0e7f" for letter in parts[7])


def test_small_models_are_compared_in_fp32_and_large_ones_as_they_are(folder, monkeypatch):
    from herd.weights import build

    assert fitting_dtype(open_model(folder)) == torch.float32
    monkeypatch.setattr(build, "free_memory", lambda device: 1000)
    assert fitting_dtype(open_model(folder)) == torch.bfloat16


def test_from_the_command_line(folder, tmp_path, capsys):
    (tmp_path / "text").write_text(TEXT)
    assert main(["convert", "--prove", str(folder), str(folder), "--text", str(tmp_path / "text")]) == 0
    assert "100.00%" in capsys.readouterr().out
    assert main(["convert", "--prove", str(folder), "--text", str(tmp_path / "nowhere")]) == 3
