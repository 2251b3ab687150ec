"""Every named policy: which matrices, the same bits both ways, what transformers computes, what other formats hold."""

import json
import shutil

import pytest
import torch

from fp8_folders import layers_differ
from herd.cli import main
from herd.errors import InputError, NoEffectError, SettingError, StorageError
from herd.llama.config import LlamaConfig, llama31_8b
from herd.llama.init import init_weights
from herd.llama.model import Llama
from herd.quantize import stream
from herd.quantize.fp8 import quantize_model, save_fp8
from herd.quantize.settings import POLICIES, Fp8Policy
from herd.train.batch import Batch
from herd.train.teacher import topk_answers
from herd.weights import tensors
from herd.weights.fp8 import Fp8Linear, dequantize
from herd.weights.hf import load_model, save_model
from herd.weights.registry import open_model
from stored_models import files

POLICY = pytest.mark.parametrize("policy", POLICIES)
TIED = pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])


def shape(tied=False):
    return LlamaConfig(64, 32, 4, 4, 2, 48, tie_embeddings=tied)


def make(tied=False, seed=0):
    model = Llama(shape(tied))
    init_weights(model, seed, 0.06)
    return model.eval()


def folder_of(place, tied=False):
    save_model(place / "bf16", make(tied), shape(tied), herd={})
    return place / "bf16"


def fp8_of(model):
    return [name for name, module in model.named_modules() if isinstance(module, Fp8Linear)]


def test_what_the_policies_select():
    feed_forward, attention = ("gate_proj", "up_proj", "down_proj"), ("q_proj", "k_proj", "v_proj", "o_proj")
    inside = [f"self_attn.{leaf}" for leaf in attention] + [f"mlp.{leaf}" for leaf in feed_forward]
    every = [f"model.layers.{layer}.{leaf}" for layer in range(4) for leaf in inside]
    assert list(POLICIES["paper"].names(4)) == [name for name in every if ".mlp." in name and name[13] in "12"]
    assert list(POLICIES["all-linear"].names(4)) == every
    assert list(POLICIES["all"].names(4)) == [*every, "lm_head"]
    assert [policy.name for policy in POLICIES.values()] == list(POLICIES)
    assert Fp8Policy(keep_first=2).name == ""
    assert len(POLICIES["all"].names(llama31_8b().n_layers)) == 32 * 7 + 1


@POLICY
@TIED
def test_a_network_and_a_stream_give_the_same_files(tmp_path, policy, tied):
    folder = folder_of(tmp_path, tied)
    assert main(["quantize", str(folder), str(tmp_path / "a"), "--policy", policy]) == 0
    model = load_model(folder)
    report = quantize_model(model, POLICIES[policy])
    written = save_fp8(tmp_path / "b", model, herd={}, report=report)
    assert written == report.bytes_after == open_model(tmp_path / "a").n_bytes
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    made = json.loads(first.pop("herd.json"))["fp8"]["report"], json.loads(second.pop("herd.json"))["fp8"]["report"]
    assert first == second
    assert made[0]["policy"] == made[1]["policy"] == policy
    for ours, theirs in zip(made[0]["tensors"], made[1]["tensors"], strict=True):
        assert ours["relative_error"] == pytest.approx(theirs.pop("relative_error"), rel=1e-4)
        assert {**theirs, "relative_error": ours["relative_error"]} == ours
    again = load_model(tmp_path / "a")
    assert fp8_of(again) == fp8_of(model) == list(POLICIES[policy].names(4))
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(again.logits(again(tokens)), load_model(tmp_path / "b").logits(again(tokens)))


@TIED
def test_a_tied_model_gets_a_head_of_its_own_and_keeps_its_embedding(tmp_path, tied):
    folder = folder_of(tmp_path, tied)
    main(["quantize", str(folder), str(tmp_path / "fp8"), "--policy", "all"])
    assert json.loads((tmp_path / "fp8" / "config.json").read_text())["tie_word_embeddings"] is False
    before, after = open_model(folder).tensors, open_model(tmp_path / "fp8").tensors
    embedding = "model.embed_tokens.weight"
    assert torch.equal(before[embedding].values(), after[embedding].values())
    head = before[embedding if tied else "lm_head.weight"].values().float()
    found = dequantize(after["lm_head.weight"].values(), after["lm_head.weight_scale"].values())
    assert 0 < ((found - head).norm() / head.norm()).item() < 0.04


@POLICY
@TIED
def test_transformers_computes_the_same(tmp_path, policy, tied):
    """Each layer on equal inputs, and all logits as far as no rounding upstream crosses to the next e4m3 value.

    Where one does (a sum in another order, a value midway), an activation moves by a sixteenth, and with it what
    attends to it: the rest of the text is held within a few per cent.
    """
    transformers = pytest.importorskip("transformers")
    model = make(tied)
    quantize_model(model, Fp8Policy(**{**vars(POLICIES[policy]), "activation_bound": None}))
    save_fp8(tmp_path / "m", model, herd={})
    ours = load_model(tmp_path / "m")  # what is not FP8 was rounded to BF16
    assert layers_differ(tmp_path / "m", ours) == []
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    tokens = torch.randint(64, (8, 6), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found, expected = theirs(tokens).logits, ours.logits(ours(tokens))
    apart = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert (apart[:, 0] < 1e-5).float().mean() > 0.6
    assert apart.median() < 1e-5 or policy != "paper"
    assert apart.max() < 0.06
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.9


def test_who_reads_the_head_by_name_finds_it(tmp_path):
    """vLLM and SGLang take "Linear" for layers inside the network; the head is FP8 to them where it is named."""
    for policy, targets in {"all-linear": ["Linear"], "all": ["re:.*lm_head$", "Linear"]}.items():
        model = make()
        quantize_model(model, POLICIES[policy])
        save_fp8(tmp_path / policy, model, herd={})
        stated = json.loads((tmp_path / policy / "config.json").read_text())["quantization_config"]
        assert stated["config_groups"]["group_0"]["targets"] == targets
        assert stated["ignore"] == ([] if policy == "all" else ["lm_head"])


def test_a_head_in_fp8_serves_those_who_ask_for_the_matrix(tmp_path):
    """Losses multiply by `output_weight` themselves; a teacher answers with the product that it would serve."""
    model = make(tied=True)
    quantize_model(model, POLICIES["all"])
    head = model.lm_head
    assert torch.equal(model.output_weight, dequantize(head.weight, head.weight_scale))
    tokens = torch.arange(10)[None]
    ones = torch.ones(1, 10)
    batch = Batch(tokens, tokens, ones, torch.zeros_like(tokens), torch.arange(10)[None])
    with torch.no_grad():
        expected = torch.log_softmax(model.logits(model(tokens)), -1).topk(3, -1)
    found = topk_answers(model, batch, 3, 1.0)
    torch.testing.assert_close(found["logprobs"], expected.values)
    assert torch.equal(found["ids"], expected.indices)


@pytest.mark.parametrize("to", ["meta", "gguf"])
def test_formats_that_hold_less_say_so(tmp_path, capsys, to):
    folder = folder_of(tmp_path, tied=True)
    main(["quantize", str(folder), str(tmp_path / "fp8"), "--policy", "all"])
    target = tmp_path / ("m.gguf" if to == "gguf" else "m")
    assert main(["convert", str(tmp_path / "fp8"), str(target), "--to", to]) == 0
    said = capsys.readouterr().err
    # Meta's code reads FP8 in the feed-forward between first and last layer: 23 of 29 matrices are elsewhere
    assert ("gguf has no FP8: it becomes BF16" if to == "gguf" else "23 of 29 FP8 matrices become BF16") in said
    wide, narrow = open_model(target), open_model(tmp_path / "fp8")
    head = dequantize(narrow.tensors["lm_head.weight"].values(), narrow.tensors["lm_head.weight_scale"].values())
    assert torch.equal(wide.tensors["lm_head.weight"].values().float(), head.bfloat16().float())
    assert not wide.config.tie_embeddings


def test_inspect_and_prove_take_it(tmp_path, capsys):
    folder = folder_of(tmp_path, tied=True)
    main(["quantize", str(folder), str(tmp_path / "fp8"), "--policy", "all"])
    main(["inspect", str(tmp_path / "fp8")])
    said = capsys.readouterr().out
    assert "29 matrices (attention and feed-forward of all layers, output), activations bounded at 1,200" in said
    assert main(["convert", "--prove", str(folder), str(tmp_path / "fp8")]) == 0
    assert capsys.readouterr().out.count("fp8 ") == 2  # read by herd and by transformers


@pytest.mark.parametrize(("policy", "stop_after"), [("paper", 0), ("paper", 30), ("all", 4), ("all", 60)])
def test_killed_and_resumed_gives_the_same_files(tmp_path, monkeypatch, policy, stop_after):
    folder = folder_of(tmp_path, tied=True)
    command = ["quantize", str(folder), str(tmp_path / "made"), "--policy", policy]
    written, raw_bytes = [], tensors.raw_bytes

    class Killed(BaseException):  # nothing catches it, as nothing catches SIGKILL
        pass

    def counting(entry):
        if len(written) == stop_after and not resumed:
            raise Killed
        written.append(entry.name)
        return raw_bytes(entry)

    monkeypatch.setattr(tensors, "SYNC_BYTES", 1)
    monkeypatch.setattr(tensors, "raw_bytes", counting)
    resumed = False
    with pytest.raises(Killed):
        main(command)
    resumed = True
    assert main(command) == 0
    assert len(written) == len(set(written)) == len(open_model(tmp_path / "made").tensors)
    assert main(["quantize", str(folder), str(tmp_path / "whole"), "--policy", policy]) == 0
    assert files(tmp_path / "made") == files(tmp_path / "whole")  # the report too


def test_another_policy_does_not_go_on_with_the_first_ones_files(tmp_path, monkeypatch):
    folder = folder_of(tmp_path)
    monkeypatch.setattr(stream, "quantize_rows", lambda rows: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["quantize", str(folder), str(tmp_path / "made"), "--policy", "all"]) == 130
    monkeypatch.undo()
    assert main(["quantize", str(folder), str(tmp_path / "made")]) == 0
    assert fp8_of(load_model(tmp_path / "made")) == list(POLICIES["paper"].names(4))


def test_refusals(tmp_path, capsys):
    folder = folder_of(tmp_path)
    main(["quantize", str(folder), str(tmp_path / "fp8"), "--policy", "all"])
    cases = {
        ("quantize", tmp_path / "fp8", tmp_path / "x"): (InputError, "quantised already"),
        ("quantize", folder, tmp_path / "x", "--policy", "al-linear"): (SettingError, "did you mean 'all-linear'"),
    }
    for command, (kind, said) in cases.items():
        assert main([str(word) for word in command]) == kind.exit_code
        assert said in capsys.readouterr().err
    shallow = LlamaConfig(64, 32, 2, 4, 2, 48)
    model = Llama(shallow)
    init_weights(model, 0)
    save_model(tmp_path / "shallow", model, shallow, herd={})
    assert main(["quantize", str(tmp_path / "shallow"), str(tmp_path / "x")]) == NoEffectError.exit_code
    assert "take the policy all-linear" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_source_in_blocks_is_told(tmp_path, capsys):
    wide = LlamaConfig(64, 32, 3, 4, 2, 64)
    model = Llama(wide)
    init_weights(model, 0)
    save_model(tmp_path / "m", model, wide, herd={})
    pytest.importorskip("gguf")
    main(["convert", str(tmp_path / "m"), str(tmp_path / "m.gguf"), "--to", "gguf", "--dtype", "q8_0"])
    assert main(["quantize", str(tmp_path / "m.gguf"), str(tmp_path / "fp8")]) == 0
    assert "the source is quantised itself (q8_0)" in capsys.readouterr().err


def test_a_full_disk_keeps_what_is_written(tmp_path, monkeypatch, capsys):
    folder = folder_of(tmp_path)
    monkeypatch.setattr(tensors, "sync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert main(["quantize", str(folder), str(tmp_path / "made")]) != 0
    assert "No space left" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["quantize", str(folder), str(tmp_path / "made")]) == 0


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch, capsys):
    folder = folder_of(tmp_path)
    room = shutil.disk_usage(tmp_path)._replace(free=30_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: room)
    assert main(["quantize", str(folder), str(tmp_path / "made"), "--policy", "all"]) == StorageError.exit_code
    assert "0.0 GB are free" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bf16"]
