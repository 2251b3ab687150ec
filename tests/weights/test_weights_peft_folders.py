"""Adapter folders as models: opened over their base, converted, and peft's layouts that are refused by name."""

import pytest
import torch

from herd.errors import ArtifactError, FormatError, SettingError
from herd.llama.config import LlamaConfig
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.text import Tokenizer
from herd.weights.build import load_any
from herd.weights.convert import convert
from herd.weights.examine import examine
from herd.weights.formats import WriteOptions
from herd.weights.hf import save_model
from herd.weights.lora import adapted, attach, merge
from herd.weights.peft import load_adapter, save_adapter
from herd.weights.peft_files import CONFIG
from herd.weights.registry import detect, open_model, tokenizer_of
from herd.weights.settings import LoraSettings
from stored_models import edit, make_model, tensors, trained

TOKENIZER = Tokenizer.train(["after before letter "] * 20, 560)
SHAPE = LlamaConfig(TOKENIZER.vocab_size, 32, 3, 4, 2, 48, rope_scaling=None)
TOKENS = torch.arange(40).view(2, 20)


def logits(model):
    with torch.no_grad():
        return model.logits(model(TOKENS))


def with_adapter(**changes):
    model = make_model(SHAPE)
    attach(model, LoraSettings(**{"rank": 4, "alpha": 6.0, **changes}))
    return trained(model)


def adapter_folder(tmp_path, **changes):
    """(folder of an adapter, its base beside it, the model of both)"""
    save_model(tmp_path / "base", make_model(SHAPE), SHAPE, dtype=torch.float32, tokenizer=TOKENIZER, herd={})
    model = with_adapter(**changes)
    save_adapter(tmp_path / "a", model, base=str(tmp_path / "base"), herd={"adopted_from": "base"})
    return tmp_path / "a", tmp_path / "base", model


def test_an_adapter_folder_opens_as_the_model_it_makes(tmp_path):
    folder, base, model = adapter_folder(tmp_path)
    assert [form.name for form in detect(folder)] == ["peft"]
    torch.testing.assert_close(logits(load_any(folder)), logits(model), rtol=1e-5, atol=1e-5)
    opened = open_model(folder)
    assert opened.herd == {"adopted_from": "base", "base": str(base)}
    assert tokenizer_of(opened).fingerprint == TOKENIZER.fingerprint  # the base's: the adapter has none
    assert examine(folder).wrong == examine(base).wrong


@pytest.mark.parametrize("to", ["hf", "meta", "gguf"])
def test_a_converted_adapter_is_the_merged_model_bit_for_bit(tmp_path, to):
    folder, _, model = adapter_folder(tmp_path)
    convert(folder, tmp_path / "out.gguf", to=to, options=WriteOptions(dtype="f32" if to == "gguf" else ""))
    merge(model)
    ours = tensors(tmp_path / "out.gguf")
    assert all(torch.equal(ours[name], tensor) for name, tensor in model.state_dict().items())


def test_an_adapter_over_an_fp8_folder_widens_only_what_it_changes(tmp_path):
    model = make_model(SHAPE)
    quantize_model(model)
    save_fp8(tmp_path / "base", model, herd={})
    attach(model, LoraSettings(rank=2, targets=("up_proj",)))
    trained(model)
    save_adapter(tmp_path / "a", model, base="base", herd={})  # a name beside the adapter
    opened = open_model(tmp_path / "a")
    changed, kept = (f"model.layers.1.mlp.{leaf}.weight" for leaf in ("up_proj", "gate_proj"))
    assert opened.tensors[changed].dtype == torch.bfloat16
    assert opened.tensors[kept].dtype == torch.float8_e4m3fn
    layer = dict(adapted(model))["model.layers.1.mlp.up_proj"]
    assert torch.equal(opened.tensors[changed].values(), layer.merged(torch.bfloat16))
    convert(tmp_path / "a", tmp_path / "out", to="hf")
    assert torch.equal(tensors(tmp_path / "out")[kept].float(), opened.tensors[kept].values().float())


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda a: edit(a / CONFIG, base_model_name_or_path="meta-llama/Gone"), "'meta-llama/Gone' is not here"),
        (lambda a: edit(a / CONFIG, base_model_name_or_path=None), "names no base model"),
        (lambda a: edit(a / CONFIG, base_model_name_or_path=str(a)), "is an adapter itself"),
    ],
)
def test_an_adapter_without_its_base_says_how_to_mend_it(tmp_path, spoil, word):
    folder, _, _ = adapter_folder(tmp_path)
    spoil(folder)
    with pytest.raises(ArtifactError, match=word) as found:
        open_model(folder)
    assert found.value.mend


def test_an_adapter_over_another_model_is_refused_by_name(tmp_path):
    folder, base, _ = adapter_folder(tmp_path)
    other = LlamaConfig(TOKENIZER.vocab_size, 32, 2, 4, 2, 48, rope_scaling=None)
    save_model(base, make_model(other), other, herd={})
    with pytest.raises(ArtifactError, match=r"model\.layers\.2.*has no such matrix"):
        open_model(folder)


def test_no_model_becomes_an_adapter(tmp_path):
    _, base, _ = adapter_folder(tmp_path)
    with pytest.raises(SettingError, match="does not become an adapter"):
        convert(base, tmp_path / "out", to="peft")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"init_lora_weights": "olora"}, "changes the base"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
    ],
)
def test_what_peft_can_do_and_we_cannot_is_refused_by_name(tmp_path, options, word):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    save_model(tmp_path / "m", make_model(SHAPE), SHAPE, dtype=torch.float32, herd={})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    options = {"target_modules": ["q_proj", "up_proj"]} | options
    peft.get_peft_model(theirs, peft.LoraConfig(r=4, task_type="CAUSAL_LM", **options)).save_pretrained(tmp_path / "a")
    with pytest.raises(ArtifactError, match=word) as found:
        load_adapter(tmp_path / "a", make_model(SHAPE))
    assert "merge" in found.value.mend


def test_a_sick_adapter_is_refused(tmp_path):
    model = with_adapter()
    dict(adapted(model))["model.layers.0.mlp.up_proj"].lora_B.data[0, 0] = float("nan")
    save_adapter(tmp_path / "a", model, base="m", herd={})
    with pytest.raises(FormatError, match=r"layers\.0\.mlp\.up_proj is adapted by NaN"):
        load_adapter(tmp_path / "a", make_model(SHAPE))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"a_new_way": {"x": 1}}, "a_new_way"),
        ({"rank_pattern": {"(": 3}}, "no regular expression"),
        ({"alpha_pattern": [3]}, "should be an object"),
        ({"lora_dropout": "much"}, "lora_dropout"),
        ({"lora_alpha": float("inf")}, "lora_alpha"),
    ],
)
def test_odd_settings_of_a_stranger_are_refused(tmp_path, changes, word):
    save_adapter(tmp_path / "a", with_adapter(), base="m", herd={})
    edit(tmp_path / "a" / CONFIG, **changes)
    with pytest.raises((ArtifactError, FormatError), match=word):
        load_adapter(tmp_path / "a", make_model(SHAPE))
