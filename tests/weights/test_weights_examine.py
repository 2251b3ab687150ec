"""`herd inspect MODEL`: a healthy model has no faults, and each thing that users lose days on is named."""

import hashlib
import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from herd.cli import main
from herd.errors import ArtifactError
from herd.llama.config import LlamaConfig, llama31_8b
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.text import Tokenizer
from herd.weights.convert import convert
from herd.weights.examine import examine
from herd.weights.formats import WriteOptions
from herd.weights.hf import save_model
from herd.weights.tensors import SINGLE
from stored_models import edit

TOKENIZER = Tokenizer.train([])
CONFIG = LlamaConfig(TOKENIZER.vocab_size, 32, 4, 4, 2, 48)


def make(folder, config=CONFIG, **options):
    model = Llama(config)
    init_weights(model, 0)
    save_model(folder, model, config, herd={}, tokenizer=TOKENIZER, instruct=True, **options)
    return folder


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "m")


def wrong(folder, **options):
    return [fault.what for fault in examine(folder, **options).wrong]


def test_a_healthy_model(folder):
    report = examine(folder, values=True)
    assert report.wrong == []
    assert report.formats == ["hf"]
    assert report.parameters == CONFIG.parameters()
    assert report.bytes_by_dtype == {"bfloat16": 2 * CONFIG.parameters()}
    assert report.template.startswith("chat_template.jinja")
    assert f"{TOKENIZER.vocab_size:,} ids" in report.tokenizer


def test_every_format_is_examined(folder, tmp_path):
    convert(folder, tmp_path / "meta", to="meta")
    assert wrong(tmp_path / "meta", values=True) == []
    convert(folder, folder / "original", to="meta")
    assert examine(folder).formats == ["hf", "meta (in original/)"]


def test_fp8(tmp_path):
    model = Llama(CONFIG)
    init_weights(model, 0)
    quantize_model(model)
    save_fp8(tmp_path / "m", model, herd={}, tokenizer=TOKENIZER, instruct=True)
    report = examine(tmp_path / "m", values=True)
    assert report.wrong == []
    assert report.parameters == CONFIG.parameters()
    assert report.bytes_by_dtype["float8_e4m3fn"] == 2 * 3 * 32 * 48


def test_no_stop_at_the_end_of_a_turn(folder):
    edit(folder / "generation_config.json", eos_token_id=TOKENIZER.end_of_text)
    (found,) = examine(folder).wrong
    assert f"does not stop at <|eot_id|> ({TOKENIZER.eot})" in found.what
    assert str(sorted([TOKENIZER.end_of_text, TOKENIZER.eot])) in found.mend


def test_no_stop_at_all(folder):
    edit(folder / "generation_config.json", eos_token_id=...)
    edit(folder / "config.json", eos_token_id=...)
    assert any("answers will not stop" in what for what in wrong(folder))


def test_rope(folder):
    edit(folder / "config.json", rope_scaling=None)
    assert any("context of 131,072 without rope_scaling" in what for what in wrong(folder))
    edit(folder / "config.json", rope_theta=...)
    assert any("no rope_theta" in what for what in wrong(folder))


def test_a_short_context_needs_no_scaling(tmp_path):
    assert wrong(make(tmp_path / "m", replace(CONFIG, rope_scaling=None, max_seq_len=8192))) == []


def test_files_of_text(folder):
    (folder / "chat_template.jinja").unlink()
    assert wrong(folder) == []  # it stands in tokenizer_config.json too
    edit(folder / "tokenizer_config.json", chat_template=...)
    assert any("no chat template" in what for what in wrong(folder))
    (folder / "generation_config.json").unlink()
    assert any("no generation_config.json" in what for what in wrong(folder))
    (folder / "tokenizer.json").write_text("{")
    assert any("tokenizer.json cannot be read" in what for what in wrong(folder))
    (folder / "tokenizer.json").unlink()
    assert any("no tokenizer" in what for what in wrong(folder))


def test_a_tokenizer_of_another_model(tmp_path):
    assert any("embedding 500 rows" in what for what in wrong(make(tmp_path / "m", replace(CONFIG, vocab_size=500))))


def test_tensors_and_files(folder):
    edit(folder / "config.json", num_hidden_layers=5)
    assert any("missing: model.layers.4.self_attn.q_proj.weight" in what for what in wrong(folder))
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:-10])
    report = examine(folder)
    assert "not a whole safetensors file" in report.wrong[0].what
    assert report.model is None


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_values_on_request(tmp_path, value):
    model = Llama(CONFIG)
    init_weights(model, 0)
    state = model.state_dict()
    state["model.layers.1.mlp.up_proj.weight"][3, :2] = float(value)
    state["model.layers.2.mlp.up_proj.weight"].zero_()
    save_model(tmp_path / "m", state, CONFIG, herd={}, tokenizer=TOKENIZER, instruct=True)
    assert wrong(tmp_path / "m") == []
    found = wrong(tmp_path / "m", values=True)
    assert "model.layers.1.mlp.up_proj.weight holds 2 values that are NaN or infinite" in found
    assert "model.layers.2.mlp.up_proj.weight is all zeros" in found


def test_metas_checksums(folder, tmp_path):
    convert(folder, tmp_path / "meta", to="meta")
    sums = {"consolidated.00.pth": "0" * 32}
    sums["params.json"] = hashlib.md5((tmp_path / "meta" / "params.json").read_bytes()).hexdigest()
    (tmp_path / "meta" / "checklist.chk").write_text("".join(f"{v}  {k}\n" for k, v in sums.items()))
    assert wrong(tmp_path / "meta") == []
    assert wrong(tmp_path / "meta", values=True) == ["consolidated.00.pth is not the file that checklist.chk describes"]


def test_nothing_there(tmp_path):
    with pytest.raises(ArtifactError, match="no model is here"):
        examine(tmp_path)


def test_the_released_shape_is_named(folder, monkeypatch):
    from herd.weights import examine as module

    monkeypatch.setattr(module, "_RELEASED", {"Llama 3.1 8B": CONFIG})
    assert examine(folder).released == "Llama 3.1 8B"
    assert llama31_8b().parameters() == 8_030_261_248


def test_from_the_command_line(folder, capsys):
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "4 layers, width 32, 4 heads on 2 key/value heads of 8" in out
    assert "nothing is wrong" in out
    edit(folder / "config.json", rope_scaling=None)
    assert main(["inspect", str(folder)]) == ArtifactError.exit_code
    assert "without rope_scaling" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--json", "--values"]) == ArtifactError.exit_code
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == CONFIG.parameters()
    assert len(found["wrong"]) == 1
    assert main(["inspect", "dialogue"]) == 2
    assert "herd inspect dialogue FILE" in capsys.readouterr().err


def test_dialogues_are_inspected_as_before(tmp_path, capsys):
    talk = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Grüezi"}]}
    (tmp_path / "talks.jsonl").write_text(json.dumps(talk) + "\n")
    assert main(["inspect", "dialogue", str(tmp_path / "talks.jsonl")]) == 0
    assert "1 dialogues" in capsys.readouterr().out


def only(folder):
    (found,) = examine(folder).wrong
    return found


def test_many_lost_tensors_have_one_line_and_one_cause(folder):
    edit(folder / "config.json", num_hidden_layers=CONFIG.n_layers + 2)
    found = only(folder)
    assert "(and 15 more)" in found.what
    assert f"says {CONFIG.n_layers + 2} layers, the files have {CONFIG.n_layers}" in found.mend


def test_a_tied_model_whose_config_forgets_it(tmp_path):
    folder = make(tmp_path / "m", replace(CONFIG, tie_embeddings=True))
    edit(folder / "config.json", tie_word_embeddings=False)
    assert "tie_word_embeddings true" in only(folder).mend


def test_an_output_matrix_that_is_passed_over(folder):
    edit(folder / "config.json", tie_word_embeddings=True)
    assert any("passed over" in note for note in examine(folder).notes)


def test_a_network_saved_without_its_head(folder):
    state = load_file(folder / SINGLE)
    save_file(
        {name.removeprefix("model."): v for name, v in state.items() if name != "lm_head.weight"}, folder / SINGLE
    )
    assert all("without its head" in fault.mend for fault in examine(folder).wrong)


def test_tokens_that_are_no_rows(folder):
    edit(folder / "generation_config.json", eos_token_id=[TOKENIZER.end_of_text, TOKENIZER.eot, 10**6])
    assert "[1000000] are no rows" in only(folder).what


def test_files_that_nothing_is_read_from(folder):
    (folder / "model.safetensors.index.json").write_text("{}")  # the single file wins, as in transformers
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    report = examine(folder)
    assert report.wrong == []
    assert any("model-00001-of-00002.safetensors" in note for note in report.notes)


@pytest.mark.parametrize("lost", ["config.json", SINGLE])
def test_half_a_model(folder, lost):
    (folder / lost).unlink()
    with pytest.raises(ArtifactError, match="half a model is here") as caught:
        examine(folder)
    assert lost in caught.value.mend


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_quantisations_of_others_are_named(folder, method):
    edit(folder / "config.json", quantization_config={"quant_method": method})
    assert repr(method) in only(folder).what


def test_the_small_models_of_llama_32_are_named():
    from herd.weights.examine import _RELEASED

    sizes = {name: config.parameters() for name, config in _RELEASED.items()}
    assert sizes["Llama 3.2 1B"] == 1_235_814_400  # as their model cards' 1.23B and 3.21B
    assert sizes["Llama 3.2 3B"] == 3_212_749_824


def test_a_quantised_gguf_and_its_template(folder, tmp_path, capsys):
    pytest.importorskip("gguf")
    convert(folder, tmp_path / "m.gguf", to="gguf", options=WriteOptions("q8_0"))
    report = examine(tmp_path / "m.gguf")
    assert report.template == "inside the file"
    assert not any("no chat template" in note for note in report.notes)
    norms, down = (2 * CONFIG.n_layers + 1) * CONFIG.dim, CONFIG.n_layers * CONFIG.dim * CONFIG.ffn_dim
    in_blocks = CONFIG.parameters() - norms - down  # rows of 48 do not fill blocks of 32: down_proj is float16
    assert report.bytes_by_dtype == {"q8_0": in_blocks // 32 * 34, "float16": 2 * down, "float32": 4 * norms}
    assert main(["inspect", str(tmp_path / "m.gguf"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes_on_disk"] == (tmp_path / "m.gguf").stat().st_size


def test_the_bound_of_fp8_is_said(tmp_path, capsys):
    model = Llama(CONFIG)
    init_weights(model, 0)
    quantize_model(model)
    save_fp8(tmp_path / "m", model, herd={}, tokenizer=TOKENIZER, instruct=True)
    assert main(["inspect", str(tmp_path / "m")]) == 0
    assert "6 matrices (feed-forward of 2 of 4 layers), activations bounded at 1,200" in capsys.readouterr().out
