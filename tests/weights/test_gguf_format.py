"""GGUF in and out: bit for bit, against the gguf library as the other reader, killed and resumed, bad files refused."""

import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.cli import main
from herd.errors import ArtifactError, FormatError, HerdError, MissingExtraError, SettingError
from herd.files import read_json, write_json
from herd.llama.config import LlamaConfig, RopeScaling, llama31_8b
from herd.llama.rope import inverse_frequencies
from herd.text.tokenizer import Tokenizer
from herd.weights import gguf_library
from herd.weights.build import load_any
from herd.weights.convert import convert
from herd.weights.formats import WriteOptions
from herd.weights.gguf_header import read_header
from herd.weights.gguf_metadata import ROPE, from_metadata, names, rope_factors, to_metadata
from herd.weights.hf import load_model, save_model
from herd.weights.registry import detect, open_model
from stored_models import make_model, same, tensors

TEXTS = ["Once upon a time there was a mill. Grüezi, 12,345 ça va? " * 8]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, vocab_size=560)


def config_for(tokenizer, **changes):
    return replace(LlamaConfig(tokenizer.vocab_size, 64, 2, 8, 4, 96, max_seq_len=512), **changes)


@pytest.fixture
def folder(tmp_path, tokenizer):
    config = config_for(tokenizer)
    save_model(tmp_path / "hf", make_model(config), config, tokenizer=tokenizer, herd={}, instruct=True)
    return tmp_path / "hf"


@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_embeddings": True}, {"rope_scaling": None}, {"n_kv_heads": 8}, {"n_kv_heads": 1}, {"norm_eps": 1e-6}],
    ids=str,
)
def test_hf_to_gguf_to_hf_is_bit_identical(tmp_path, tokenizer, changes):
    config = config_for(tokenizer, **changes)
    save_model(tmp_path / "hf", make_model(config), config, tokenizer=tokenizer, herd={}, instruct=True)
    made = convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf")
    assert made.config == config
    convert(tmp_path / "m.gguf", tmp_path / "back", to="hf", options=WriteOptions("bf16"))
    assert same(tensors(tmp_path / "back"), tensors(tmp_path / "hf"))
    first, back = open_model(tmp_path / "hf"), open_model(tmp_path / "back")
    assert (back.config, back.bos, back.stops) == (first.config, first.bos, first.stops)
    assert Tokenizer.load(tmp_path / "back").fingerprint == tokenizer.fingerprint


def test_where_a_file_was_pulled_from_travels_with_it(tmp_path, folder):
    (tmp_path / "pulled").mkdir()
    convert(folder, tmp_path / "pulled" / "m.gguf", to="gguf")
    record = {"repo": "someone/Llama-3.1-8B-GGUF", "licence": "llama3.1", "commit": "0" * 40}
    write_json(tmp_path / "pulled" / "herd.json", {"pulled": record, "metrics": {"loss": 1}})
    convert(tmp_path / "pulled", tmp_path / "back", to="hf")
    made = read_json(tmp_path / "back" / "herd.json")
    assert made["pulled"] == record
    assert "metrics" not in made  # of the folder, not of the model


def test_a_base_model_stays_one(tmp_path, tokenizer):
    config = config_for(tokenizer)
    save_model(tmp_path / "hf", make_model(config), config, tokenizer=tokenizer, herd={}, instruct=False)
    convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf")
    assert open_model(tmp_path / "m.gguf").stops == (tokenizer.end_of_text,)


def test_fp32_and_fp16_come_back_exactly(tmp_path, folder, tokenizer):
    for dtype, name in ((torch.float32, "f32"), (torch.float16, "f16")):
        config = config_for(tokenizer)
        save_model(tmp_path / name, make_model(config), config, herd={}, dtype=dtype)
        convert(tmp_path / name, tmp_path / f"{name}.gguf", to="gguf")  # the dtype is the model's own
        found, expected = tensors(tmp_path / f"{name}.gguf"), tensors(tmp_path / name)
        assert all(torch.equal(found[each].to(dtype), expected[each]) for each in expected)
        assert found["model.embed_tokens.weight"].dtype == dtype


def test_the_gguf_library_reads_what_we_write(tmp_path, folder, tokenizer):
    convert(folder, tmp_path / "m.gguf", to="gguf", options=WriteOptions("q8_0"))
    theirs, ours = gguf.GGUFReader(tmp_path / "m.gguf"), read_header(tmp_path / "m.gguf")
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert fields == dict(ours.metadata)
    assert fields["general.architecture"] == "llama"
    assert fields["tokenizer.ggml.pre"] == "llama-bpe"
    assert fields["tokenizer.chat_template"]
    assert fields["tokenizer.ggml.eot_token_id"] == tokenizer.eot
    assert [each.name for each in theirs.tensors] == list(ours.tensors)
    for tensor in theirs.tensors:
        stored = ours.tensors[tensor.name]
        assert (stored.offset, stored.n_bytes) == (tensor.data_offset, tensor.n_bytes)
        assert stored.shape == tuple(int(size) for size in reversed(tensor.shape))
        assert stored.kind == int(tensor.tensor_type)


def test_q8_0_reads_as_the_reference_dequantises(tmp_path, folder):
    convert(folder, tmp_path / "m.gguf", to="gguf", options=WriteOptions("q8_0"))
    found, exact = tensors(tmp_path / "m.gguf"), tensors(folder)
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        if tensor.name not in ("blk.0.ffn_down.weight", "token_embd.weight", "output.weight"):
            continue
        expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))
        ours = names(2)[tensor.name]
        assert torch.equal(found[ours], expected)
        error = (found[ours] - exact[ours].float()).abs().amax(-1)
        assert bool((error <= exact[ours].float().abs().amax(-1) / 127).all())  # half a step, and the step is fp16


def test_rows_that_fill_no_blocks_become_f16(tmp_path, tokenizer):
    config = config_for(tokenizer, ffn_dim=172)  # as in stories260K
    save_model(tmp_path / "hf", make_model(config), config, herd={})
    convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf", options=WriteOptions("q8_0"))
    kinds = {name: stored.kind for name, stored in read_header(tmp_path / "m.gguf").tensors.items()}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"], kinds["output_norm.weight"]) == (1, 8, 0)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q6_K", "Q4_K"])
def test_other_quantisations_are_read_through_the_library(tmp_path, tokenizer, kind):
    config = config_for(tokenizer, dim=256, n_heads=8)
    wanted = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[wanted]
    save_model(tmp_path / "hf", make_model(config), config, herd={})
    convert(tmp_path / "hf", tmp_path / "whole.gguf", to="gguf", options=WriteOptions("f32"))
    raw = np.random.default_rng(0).integers(0, 60, (config.vocab_size, 256 // values * size), dtype=np.uint8)
    rewrite(tmp_path / "whole.gguf", tmp_path / "m.gguf", replaced={"output.weight": (raw, wanted)})
    found = open_model(tmp_path / "m.gguf").tensors["lm_head.weight"].values()
    assert torch.equal(found, torch.from_numpy(gguf.dequantize(raw, wanted)))


def rewrite(source, target, *, replaced=None, dropped=(), said=None):
    """A copy of a file by the library's writer, with other tensors and metadata."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    said = said or {}
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name in said:
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub)
    for name, (value, kind) in said.items():
        if value is not None:
            writer.add_key_value(name, value, kind)
    for tensor in reader.tensors:
        if tensor.name in dropped:
            continue
        data, kind = (replaced or {}).get(tensor.name, (np.array(tensor.data), tensor.tensor_type))
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_names_are_those_of_the_library(tokenizer):
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
    for ours, theirs in names(3).items():
        assert table.get_name(theirs, try_suffixes=(".weight",)) == ours


def test_the_8b_has_292_tensors():
    config = llama31_8b()
    assert len(names(config.n_layers)) + 1 == 292  # llama.cpp PR 8676: 291 without the factors of RoPE
    assert to_metadata(config)["llama.rope.freq_base"] == 500_000.0


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("scaling", [RopeScaling(), RopeScaling(32.0), RopeScaling(4.0, 1.0, 4.0, 64)])
def test_factors_slow_the_frequencies_as_the_network_does(head_dim, scaling):
    plain, slowed = (inverse_frequencies(head_dim, 500_000.0, each) for each in (None, scaling))
    torch.testing.assert_close(plain / rope_factors(scaling, head_dim, 500_000.0), slowed, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scaling", [RopeScaling(), RopeScaling(32.0), RopeScaling(2.0, 1.0, 4.0, 256)])
def test_the_scaling_is_found_again_without_our_keys(tmp_path, tokenizer, scaling):
    config = config_for(tokenizer, rope_scaling=scaling, dim=256, n_heads=4, n_kv_heads=4)
    said = {k: v for k, v in to_metadata(config).items() if not k.startswith("herd.")}
    factors = rope_factors(scaling, config.head_dim, config.rope_theta)
    found = from_metadata({"general.architecture": "llama"} | said, config.vocab_size, False, factors, "m.gguf")
    assert torch.equal(
        inverse_frequencies(config.head_dim, config.rope_theta, found.rope_scaling),
        inverse_frequencies(config.head_dim, config.rope_theta, scaling),
    )
    with pytest.raises(ArtifactError, match=r"fit no Llama 3\.1 scaling"):
        from_metadata({"general.architecture": "llama"} | said, config.vocab_size, False, factors.flip(0), "m.gguf")


def test_logits_are_those_of_the_folder(tmp_path, folder):
    convert(folder, tmp_path / "m.gguf", to="gguf")
    tokens = torch.arange(40)[None]
    ours, theirs = load_model(folder), load_any(tmp_path / "m.gguf")
    with torch.no_grad():
        assert torch.equal(ours.logits(ours(tokens)), theirs.logits(theirs(tokens)))


def test_meta_and_gguf_meet(tmp_path, folder):
    convert(folder, tmp_path / "meta", to="meta")
    convert(tmp_path / "meta", tmp_path / "m.gguf", to="gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back", to="hf", options=WriteOptions("bf16"))
    assert same(tensors(tmp_path / "back"), tensors(folder))


def test_a_file_in_parts_is_read_whole(tmp_path, folder):
    convert(folder, tmp_path / "m.gguf", to="gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    writer = gguf.GGUFWriter(tmp_path / "cut" / "m.gguf", "llama", split_max_tensors=6)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    (tmp_path / "cut").mkdir()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert len(list((tmp_path / "cut").iterdir())) > 2
    assert same(tensors(tmp_path / "cut"), tensors(tmp_path / "m.gguf"))
    next(iter(sorted((tmp_path / "cut").iterdir(), reverse=True))).unlink()
    with pytest.raises(ArtifactError, match="missing"):
        open_model(tmp_path / "cut")


def test_the_command(tmp_path, folder, capsys):
    assert main(["convert", str(folder), str(tmp_path / "m.gguf"), "--to", "gguf", "--dtype", "q8_0"]) == 0
    assert [form.name for form in detect(tmp_path / "m.gguf")] == ["gguf"]
    assert (
        main(["convert", str(folder), str(tmp_path / "n.gguf"), "--to", "gguf", "--dtype", "q4_k"])
        == SettingError.exit_code
    )
    assert "bf16" in capsys.readouterr().err


def test_a_killed_conversion_goes_on_where_it_stopped(tmp_path, folder):
    """Killed after a few tensors by a source that ends the process; the second run writes the others only."""
    code = f"""
import os, sys
from pathlib import Path
import herd.weights.gguf_writer as writer
from herd.weights.convert import convert
writer.SYNC_BYTES = 1
taken = 0
plain = writer._append
def append(handle, start, part):
    global taken
    taken += 1
    if taken > int(sys.argv[1]):
        os._exit(9)
    plain(handle, start, part)
    print(part.name, flush=True)
writer._append = append
convert(Path({str(folder)!r}), Path({str(tmp_path / "m.gguf")!r}), to="gguf")
"""

    def run(limit):
        return subprocess.run([sys.executable, "-c", code, str(limit)], capture_output=True, text=True, env=os.environ)

    first = run(7)
    assert first.returncode == 9, first.stderr
    assert not (tmp_path / "m.gguf").exists()
    second = run(1000)
    assert second.returncode == 0, second.stderr
    assert not set(first.stdout.split()) & set(second.stdout.split())
    convert(folder, tmp_path / "whole.gguf", to="gguf")
    assert (tmp_path / "m.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_one_tensor_is_in_memory_at_a_time(tmp_path, folder, monkeypatch):
    """Every tensor is let go before the next is asked for."""
    import weakref

    from herd.weights import convert as conversion
    from herd.weights.tensors import Entry

    alive: list[weakref.ref[torch.Tensor]] = []

    def watched(entry):
        def values():
            assert sum(ref() is not None for ref in alive) == 0, entry.name
            found = entry.values().clone()
            alive.append(weakref.ref(found))
            return found

        return Entry(entry.name, entry.shape, entry.dtype, values, entry.place)

    plain = conversion.open_model

    def opened(path, *rest):
        model = plain(path, *rest)
        return replace(model, tensors={name: watched(entry) for name, entry in model.tensors.items()})

    monkeypatch.setattr(conversion, "open_model", opened)
    convert(folder, tmp_path / "m.gguf", to="gguf", options=WriteOptions("q8_0"))
    assert len(alive) == 21


@pytest.fixture
def file(tmp_path, folder):
    convert(folder, tmp_path / "m.gguf", to="gguf")
    return tmp_path / "m.gguf"


@given(st.data())
@settings(max_examples=60)
def test_damage_is_an_error_of_ours(tmp_path_factory, data):
    """Bytes changed or cut anywhere in the header: an error with a sentence, or a file that still opens."""
    place = tmp_path_factory.getbasetemp() / "damaged"
    place.mkdir(exist_ok=True)
    whole = place / "small.gguf"
    if not whole.exists():
        small_file(whole)
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(raw))))
    (place / "bad.gguf").write_bytes(raw[:cut])
    try:
        model = open_model(place / "bad.gguf")
        if model.tokenizer is not None:
            model.tokenizer.save(place)
        for entry in model.tensors.values():
            entry.values()
    except HerdError:
        pass  # said in a sentence; anything else fails the test


def small_file(path: Path) -> None:
    config = LlamaConfig(32, 32, 1, 2, 1, 32, max_seq_len=64)
    save_model(path.with_name("hf"), make_model(config), config, herd={})
    convert(path.with_name("hf"), path, to="gguf")


def changed(file, offset, form, value):
    raw = bytearray(file.read_bytes())
    struct.pack_into("<" + form, raw, offset, value)
    file.write_bytes(raw)


def test_lengths_that_lie_take_no_memory(file):
    changed(file, 16, "Q", 2**60)  # how many metadata values
    with pytest.raises(FormatError, match="the file ends at"):
        open_model(file)


def test_a_string_longer_than_the_file(file):
    changed(file, 24, "Q", 2**62)
    with pytest.raises(FormatError, match="bytes are announced"):
        open_model(file)


@pytest.mark.parametrize("keep", [0, 3, 20, 1000, -1, -200_000])
def test_a_file_cut_short(file, keep):
    raw = file.read_bytes()
    file.write_bytes(raw[:keep])
    with pytest.raises(HerdError) as caught:
        open_model(file)
    assert caught.value.where
    assert caught.value.mend


VALUES = gguf.GGUFValueType


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"llama.block_count": ("two", VALUES.STRING)}, "llama.block_count should be a whole number"),
        ({"llama.block_count": (None, None)}, "llama.block_count should be a whole number"),
        ({"llama.block_count": (3, VALUES.UINT32)}, "missing: model.layers.2"),
        ({"llama.expert_count": (8, VALUES.UINT32)}, "mixture of experts"),
        (
            {"llama.rope.scaling.type": ("yarn", VALUES.STRING), "llama.rope.scaling.factor": (4.0, VALUES.FLOAT32)},
            "yarn",
        ),
        ({"llama.attention.head_count": (7, VALUES.UINT32)}, "no possible network"),
        ({"llama.attention.key_length": (64, VALUES.UINT32)}, "key_length is 64"),
        ({"tokenizer.ggml.pre": ("smaug-bpe", VALUES.STRING)}, "smaug-bpe"),
        ({"tokenizer.ggml.model": ("bert", VALUES.STRING)}, "bert"),
    ],
    ids=str,
)
def test_metadata_that_this_network_cannot_be(tmp_path, file, said, message):
    rewrite(file, tmp_path / "bad.gguf", said=said)
    with pytest.raises(HerdError, match=message):
        convert(tmp_path / "bad.gguf", tmp_path / "out", to="hf")
    assert not (tmp_path / "out").exists()


def test_a_tensor_that_is_missing_or_too_much(tmp_path, file):
    rewrite(file, tmp_path / "bad.gguf", dropped=("blk.1.attn_k.weight",))
    with pytest.raises(ArtifactError, match=r"missing: model.layers.1.self_attn.k_proj.weight"):
        open_model(tmp_path / "bad.gguf")


def test_without_factors_the_model_is_another(tmp_path, file):
    """A file that lost its factors opens as a model without scaling, and says so in its config."""
    rewrite(file, tmp_path / "plain.gguf", dropped=(ROPE,))
    assert open_model(tmp_path / "plain.gguf").config.rope_scaling is None


def test_a_pre_tokeniser_that_llama_cpp_would_replace_is_refused(tmp_path, folder):
    import json

    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="does not cut text as Llama 3 does"):
        convert(folder, tmp_path / "m.gguf", to="gguf")


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path, tokenizer):
    config = config_for(tokenizer, vocab_size=tokenizer.vocab_size - 5)
    save_model(tmp_path / "hf", make_model(config), config, tokenizer=tokenizer, herd={})
    with pytest.raises(ArtifactError, match="the embedding"):
        convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf")


def test_rows_beyond_the_vocabulary_are_padding(tmp_path, tokenizer):
    config = config_for(tokenizer, vocab_size=tokenizer.vocab_size + 8)
    save_model(tmp_path / "hf", make_model(config), config, tokenizer=tokenizer, herd={})
    convert(tmp_path / "hf", tmp_path / "m.gguf", to="gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back", to="hf")
    assert Tokenizer.load(tmp_path / "back").fingerprint == tokenizer.fingerprint


def test_the_extra_is_named_where_the_library_is_missing(tmp_path, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match="'gguf'") as caught:
        convert(folder, tmp_path / "m.gguf", to="gguf")
    assert "herd[gguf]" in caught.value.mend
    with pytest.raises(MissingExtraError):
        gguf_library.library()


def test_plain_kinds_are_read_without_the_library(tmp_path, folder, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert tensors(file).keys() == tensors(folder).keys()


@pytest.mark.parametrize(
    "changes", [{"model": None}, {"pre_tokenizer": None}, {"added_tokens": [{"id": 10**6, "content": "x"}]}]
)
def test_a_tokenizer_that_gguf_cannot_hold_is_named_where_it_lies(tmp_path, folder, changes):
    path = folder / "tokenizer.json"
    write_json(path, read_json(path) | changes)
    with pytest.raises(HerdError) as caught:
        convert(folder, tmp_path / "m.gguf", to="gguf")
    assert caught.value.where == str(path)
    assert not (tmp_path / "m.gguf").exists()


def test_bare_ranks_that_are_none_are_named_where_they_lie(tmp_path, folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "tokenizer.model").write_bytes(b"no ranks")
    with pytest.raises(HerdError) as caught:
        convert(folder, tmp_path / "m.gguf", to="gguf")
    assert caught.value.where == str(folder / "tokenizer.model")
