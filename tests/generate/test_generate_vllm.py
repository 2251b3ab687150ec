"""vLLM as a Generator, over a stand-in that speaks its API: the same answers as the embedded engine, where it can."""

import sys

import numpy as np
import pytest
import torch
from generate_models import telling_model

import stand_in_vllm
from herd.errors import ArtifactError, DeviceError, InputError, MissingExtraError, SettingError
from herd.generate import Request, Sampling
from herd.generate import vllm as vllm_module
from herd.generate.engine import Engine
from herd.generate.settings import VllmSettings
from herd.generate.vllm import Vllm, engine_arguments
from herd.generate.vllm_requests import Collected, parameters
from herd.llama.config import LlamaConfig
from herd.text import Tokenizer
from herd.weights.hf import save_model

TEXTS = ["The weather in Bern is fine today, says the brown fox.\n" * 4]
CONTEXT = 64


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 560)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    config = LlamaConfig(tokenizer.vocab_size, 32, 2, 4, 2, 48, max_seq_len=CONTEXT, rope_scaling=None)
    place = tmp_path_factory.mktemp("vllm") / "model"
    save_model(place, telling_model(config), config, tokenizer=tokenizer, dtype=torch.float32, herd={})
    return place


@pytest.fixture
def generator(folder, monkeypatch):
    monkeypatch.setattr(vllm_module, "vllm_package", lambda: stand_in_vllm.PACKAGE)
    stand_in_vllm.SEEN.clear()
    return Vllm.open(folder)


@pytest.fixture(scope="module")
def engine(folder, tokenizer):
    from herd.weights.build import load_any

    return Engine(load_any(folder), tokenizer=tokenizer)


def requests_of(count, **settings):
    rng = np.random.default_rng(0)
    how = Sampling(**{"temperature": 0.0, "max_tokens": 10, **settings})
    return [Request(tuple(rng.integers(0, 380, rng.integers(1, 40)).tolist()), how) for _ in range(count)]


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.tokens, ours.finish, ours.text, ours.stop) == (
            theirs.tokens,
            theirs.finish,
            theirs.text,
            theirs.stop,
        )
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
        np.testing.assert_allclose(ours.prompt_logprobs, theirs.prompt_logprobs, atol=1e-4)
        for pair in ("top_logprobs", "prompt_top_logprobs"):
            mine, other = getattr(ours, pair), getattr(theirs, pair)
            assert [[i for i, _ in row] for row in mine] == [[i for i, _ in row] for row in other]
            np.testing.assert_allclose(
                [[p for _, p in row] for row in mine], [[p for _, p in row] for row in other], atol=1e-4
            )


def test_greedy_answers_are_the_engines(generator, engine):
    asked = requests_of(6) + requests_of(4, max_tokens=100)  # the last end at the end of the context
    assert_same(generator.generate(asked), engine.generate(asked))


def test_stops_are_the_engines(generator, engine):
    plain = engine.generate(requests_of(6, max_tokens=12))
    ids = tuple({completion.tokens[4] for completion in plain})
    texts = tuple({text for c in plain if (text := text_of(engine, c.tokens[5:7])).strip() and text.isascii()})
    for settings in ({"stop_ids": ids}, {"stop": texts}, {"stop": texts, "stop_ids": ids[:2]}):
        asked = requests_of(6, max_tokens=12, **settings)
        found = generator.generate(asked)
        assert any(completion.finish == "stop" for completion in found)
        assert_same(found, engine.generate(asked))


def text_of(engine, tokens):
    decoder = engine._decoder()
    return "".join(decoder.push(token) for token in tokens) + decoder.flush()


def test_log_probabilities_are_the_engines(generator, engine):
    for settings in ({"top_logprobs": 3}, {"prompt_logprobs": True}, {"prompt_logprobs": True, "top_logprobs": 2}):
        asked = requests_of(4, **settings)
        assert_same(generator.generate(asked), engine.generate(asked))


def test_seeds_repeat_and_differ(generator):
    asked = requests_of(1, temperature=1.0, max_tokens=16)[0].candidates(4)
    first, again = generator.generate(asked), generator.generate(asked)
    assert first == again
    assert len({completion.tokens for completion in first}) > 1


def test_every_setting_is_said_in_vllms_words(generator):
    how = Sampling(
        0.5, 0.9, 7, (3,), 2**64 - 1, 40, 0.1, 1.1, 0.2, 0.3, {5: -2.0}, ("x",), top_logprobs=2, prompt_logprobs=True
    )
    generator.generate([Request((1, 2), how)])
    kinds = stand_in_vllm.RequestOutputKind
    assert stand_in_vllm.SEEN[-1] == stand_in_vllm.SamplingParams(
        temperature=0.5,
        top_p=0.9,
        max_tokens=7,
        stop_token_ids=[3],
        seed=2**63 - 1,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias={5: -2.0},
        stop=["x"],
        logprobs=2,
        prompt_logprobs=2,
        ignore_eos=True,
        detokenize=True,
        output_kind=kinds.FINAL_ONLY,
    )
    assert not parameters(stand_in_vllm.PACKAGE, Request((1,))).detokenize  # ids alone are faster


def test_grammars_are_handed_over_as_they_are_written(generator, tokenizer):
    pytest.importorskip("llguidance", reason="the extra grammar is not installed")
    from herd.generate.grammars import Grammars

    grammars = Grammars(tokenizer, tokenizer.vocab_size)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    def said(grammar):
        generator.generate([Request((1,), Sampling(max_tokens=1), grammar)])
        seen = stand_in_vllm.SEEN[-1]
        assert not seen.ignore_eos  # vLLM ends a whole form with that
        return seen.structured_outputs

    assert schema.items() <= said(grammars.json(schema)).json.items()
    assert said(grammars.choice(["a", "b"])).grammar == 'start: "a" | "b"'
    assert "a+b" in said(grammars.regex("a+b")).grammar
    assert "%json" in said(grammars.tools([{"type": "function", "function": {"name": "now"}}])).grammar


def test_grammars_that_are_code_cannot_be_handed_over(generator):
    class Plain:
        def start(self):
            raise AssertionError

    with pytest.raises(SettingError, match="code of its own"):
        generator.generate([Request((1,), Sampling(), Plain())])


def test_what_comes_after_a_stop_text_is_left_out(tokenizer):
    """With drafts vLLM gives several tokens at once, the last beyond the stop text."""
    ids = tokenizer.encode("The fox. Today the weather")
    entries = [{token: stand_in_vllm.Logprob(-1.0)} for token in ids]
    request = Request((1,), Sampling(stop="fox."))
    collected = Collected(request, vllm_module.decoder_of(tokenizer))
    said = stand_in_vllm.CompletionOutput(0, "", ids, entries, "stop")
    kept = collected.add(stand_in_vllm.RequestOutput("0", [said], True))
    found = collected.completion()
    assert (found.text, found.stop, found.finish) == ("The ", "fox.", "stop")
    assert [token for token, _, _ in kept] == list(found.tokens)
    assert tokenizer.decode(found.tokens) in ("The fox.", "The fox. ")


def test_a_stop_text_that_vllm_alone_found_is_told(tokenizer):
    """It spells special tokens out when it looks for them; they leave no text here."""
    said = stand_in_vllm.CompletionOutput(
        0, "", [tokenizer.eot], [{tokenizer.eot: stand_in_vllm.Logprob(-1.0)}], "stop", stop_reason="eot"
    )
    collected = Collected(Request((1,), Sampling(stop="eot")), vllm_module.decoder_of(tokenizer))
    collected.add(stand_in_vllm.RequestOutput("0", [said], True))
    found = collected.completion()
    assert (found.text, found.stop, found.finish) == ("", "eot", "stop")


@pytest.mark.parametrize("reason", ["abort", "error", "repetition"])
def test_ends_of_vllms_own_are_errors(reason):
    said = stand_in_vllm.CompletionOutput(0, "", [1], [{1: stand_in_vllm.Logprob(-1.0)}], reason)
    with pytest.raises(ArtifactError, match=reason):
        Collected(Request((1,))).add(stand_in_vllm.RequestOutput("0", [said], True))


@pytest.mark.parametrize(
    ("prompt", "settings", "words"),
    [
        ((), {}, "empty prompt"),
        ((1,) * CONTEXT, {}, f"{CONTEXT - 1} tokens or fewer"),
        ((1, 4000), {}, "vocabulary"),
        ((1,), {"logit_bias": {4000: 1.0}}, "vocabulary"),
    ],
)
def test_requests_that_cannot_be_done_are_refused_before_any_work(generator, prompt, settings, words):
    with pytest.raises(InputError, match=words) as found:
        generator.generate([Request((1,)), Request(prompt, Sampling(**settings))])
    assert found.value.where == "request 1"
    assert stand_in_vllm.SEEN == []


def test_stop_texts_need_the_tokenizer(folder):
    bare = Vllm(stand_in_vllm.LLM(str(folder)), package=stand_in_vllm.PACKAGE)
    with pytest.raises(SettingError, match="tokenizer"):
        bare.generate([Request((1,), Sampling(stop="x"))])


def test_vllm_that_is_not_there_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"'vllm'.*\n.*herd\[vllm\]"):
        Vllm.open(folder)


def test_engines_that_do_not_start_say_why(folder, generator):
    with pytest.raises(DeviceError, match="World size"):
        Vllm.open(folder, VllmSettings(tensor_parallel=8))
    with pytest.raises(SettingError, match="gpu_memory_utilisation"):
        Vllm.open(folder, VllmSettings(options={"gpu_memory_utilisation": 0.5}))


def test_the_users_options_stand_over_ours():
    found = engine_arguments("m", VllmSettings(2, 3, {"enable_prefix_caching": False, "max_model_len": 4096}))
    assert found["tensor_parallel_size"] == 2
    assert found["pipeline_parallel_size"] == 3
    assert (found["enable_prefix_caching"], found["max_model_len"]) == (False, 4096)
    with pytest.raises(SettingError, match="tensor_parallel"):
        VllmSettings(0)
