"""llama.cpp reads what we write: logits beyond the old context, ids of texts, padding. Skipped where it is missing.

`make bench-peers` installs it. Tolerances: llama.cpp keeps keys and values in fp16 and, for BF16 weights, rounds
activations to BF16 before each product; with fp32 weights only the first remains.
"""

from pathlib import Path

import pytest
import torch

from herd.llama.config import LlamaConfig, RopeScaling
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.text.tokenizer import Tokenizer
from herd.weights import llama_cpp
from herd.weights.build import load_any
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions
from herd.weights.hf import save_model

TEXTS = ["Once upon a time there was a mill. Grüezi, 12,345 ça va? " * 8]
ODD = "Grüezi  <|eot_id|> 1234567 \n\n\t mill's ça\u00a0va? ที่ไหน 漢字 🦙"


@pytest.fixture(scope="module")
def library() -> Path:
    found = llama_cpp.find_library()
    if found is None:
        pytest.skip("llama.cpp is not installed: make bench-peers, or HERD_LLAMA_CPP=/path/to/libllama.so")
    return found


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, vocab_size=560)


def make(folder, tokenizer, **changes):
    """A random model whose attention looks far back: weights three times as large as at the start of training."""
    config = LlamaConfig(tokenizer.vocab_size + 8, 128, 2, 4, 2, 160, **changes)
    model = Llama(config)
    init_weights(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.dim() == 2 else 1)
    save_model(folder, model, config, tokenizer=tokenizer, herd={}, instruct=True)
    return folder


def both(library, path, tokens):
    """Their logits and ours, of the same file."""
    theirs = torch.from_numpy(llama_cpp.logits(library, path, tokens))
    model = load_any(path)
    with torch.no_grad():
        return theirs, model.logits(model(torch.tensor([tokens]))[0])


def random_tokens(count, vocab_size):
    return torch.randint(0, vocab_size, (count,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize(
    ("dtype", "most", "mean"), [("f32", 3e-3, 3e-4), ("f16", 1e-2, 1e-3), ("bf16", 5e-2, 5e-3), ("q8_0", 1e-1, 1.5e-2)]
)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_logits_agree(tmp_path, library, tokenizer, dtype, most, mean, tied):
    folder = make(tmp_path / "hf", tokenizer, tie_embeddings=tied)
    convert(folder, tmp_path / "m.gguf", to="gguf", options=WriteOptions(dtype))
    theirs, ours = both(library, tmp_path / "m.gguf", random_tokens(200, tokenizer.vocab_size))
    difference = (theirs - ours).abs()
    assert ours.std() > 0.5  # so that the bounds say something
    assert difference.max() < most
    assert difference.mean() < mean


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [RopeScaling(), None], ids=["scaled", "plain"])
def test_positions_beyond_8192(tmp_path, library, tokenizer, scaling):
    """With the 3.1 scaling and without: wrong factors would move the last logits by far more than the bound."""
    tokens = random_tokens(9000, tokenizer.vocab_size)
    found = {}
    for name, each in (("this", scaling), ("other", None if scaling else RopeScaling())):
        folder = make(tmp_path / name, tokenizer, rope_scaling=each)
        convert(folder, tmp_path / f"{name}.gguf", to="gguf", options=WriteOptions("f32"))
        model = load_any(tmp_path / f"{name}.gguf")
        with torch.no_grad():
            found[name] = model.logits(model(torch.tensor([tokens]))[0, 8192:])
    theirs = torch.from_numpy(llama_cpp.logits(library, tmp_path / "this.gguf", tokens))[8192:]
    assert (theirs - found["this"]).abs().max() < 3e-3
    assert (theirs - found["other"]).abs().max() > 3e-2


@pytest.mark.parametrize("text", [*TEXTS, ODD, "", " leading", "trailing ", "\n\n\n a"])
def test_ids_agree(tmp_path_factory, library, tokenizer, text):
    place = tmp_path_factory.getbasetemp() / "ids"
    if not (place / "m.gguf").exists():
        convert(make(place / "hf", tokenizer), place / "m.gguf", to="gguf")
    assert llama_cpp.tokenize(library, place / "m.gguf", text) == tokenizer.encode(text)
    spelled = llama_cpp.tokenize(library, place / "m.gguf", "<|eot_id|>", special=True)
    assert spelled == [tokenizer.eot]


def test_a_model_without_tokenizer_takes_ids(tmp_path, library):
    config = LlamaConfig(61, 64, 2, 4, 2, 96, max_seq_len=64)
    model = Llama(config)
    init_weights(model, 3)
    save_model(tmp_path / "hf", model, config, herd={})
    convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf", options=WriteOptions("f32"))
    theirs, ours = both(library, tmp_path / "m.gguf", list(range(40)))
    assert (theirs - ours).abs().max() < 3e-3


def test_a_file_that_llama_cpp_refuses_is_an_error(tmp_path, library):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(RuntimeError, match=r"llama\.cpp failed"):
        llama_cpp.logits(library, tmp_path / "bad.gguf", [1])


def test_words_of_llama_cpp_that_are_not_utf8(tmp_path, monkeypatch):
    """Its log cuts the spelling of a token in the middle of a letter."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\ncat > /dev/null; printf '\\304' >&2; echo '{\"ids\": [7]}'\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    assert llama_cpp.tokenize(Path("library"), "model", "text") == [7]
