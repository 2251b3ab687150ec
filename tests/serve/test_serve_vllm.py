"""`herd serve --engine vllm`, over a stand-in that speaks vLLM's API: the same HTTP, and the same answers."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
import torch
from serving import NAME, SETTINGS, engine_backend, running, tiny_config, wait_until

import stand_in_vllm
from herd.commands.serve import Asked, backend_of
from herd.commands.serve_vllm import options_of
from herd.errors import DeviceError, MissingExtraError, SettingError
from herd.generate.settings import VllmSettings
from herd.serve import vllm_backend as module
from herd.serve.vllm_backend import VllmBackend
from herd.weights.hf import save_model
from stored_models import make_model

ASK = {"model": NAME, "messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("vllm") / "tiny"
    config = tiny_config(tokenizer)
    save_model(place, make_model(config), config, tokenizer=tokenizer, dtype=torch.float32, herd={})
    return place


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(module, "vllm_package", lambda: stand_in_vllm.PACKAGE)
    for notes in (stand_in_vllm.SEEN, stand_in_vllm.ABORTED, stand_in_vllm.FAULTS):
        notes.clear()


def backend(folder, *, most=64, **options):
    return VllmBackend(folder, VllmSettings(options=options), max_running=8, most=most)


@pytest.fixture
def server(folder):
    with running(backend(folder)) as found:
        yield found


def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_answers_are_those_of_the_embedded_engine(server, tokenizer):
    asked = ASK | {"logprobs": True, "top_logprobs": 2, "stop": ["q", "Bern"]}
    with running(engine_backend(tokenizer)) as other:
        mine, theirs = (client(each).chat.completions.create(**asked) for each in (server, other))
    assert mine.choices[0].message.content == theirs.choices[0].message.content
    assert mine.choices[0].finish_reason == theirs.choices[0].finish_reason
    assert mine.usage.completion_tokens == theirs.usage.completion_tokens
    told, expected = (each.choices[0].logprobs.content for each in (mine, theirs))
    assert [one.token for one in told] == [one.token for one in expected]
    for one, other_one in zip(told, expected, strict=True):
        assert one.logprob == pytest.approx(other_one.logprob, abs=1e-4)
        assert [top.token for top in one.top_logprobs] == [top.token for top in other_one.top_logprobs]
    assert mine.system_fingerprint.startswith("vllm_")


def test_streams_say_the_same_as_whole_answers(server):
    whole = client(server).chat.completions.create(**ASK, n=2, seed=4)
    parts = list(client(server).chat.completions.create(**ASK, n=2, seed=4, stream=True))
    for index in (0, 1):
        said = "".join(c.delta.content or "" for part in parts for c in part.choices if c.index == index)
        assert said == whole.choices[index].message.content
    assert all(how.output_kind is stand_in_vllm.RequestOutputKind.DELTA for how in stand_in_vllm.SEEN)


def test_who_leaves_is_told_to_vllm(server):
    with client(server).chat.completions.create(**{**ASK, "max_tokens": 900}, stream=True) as stream:
        next(iter(stream))
    wait_until(lambda: stand_in_vllm.ABORTED and not server.backend.load.running)
    assert server.backend._tasks == {}


def test_a_fault_of_vllms_is_a_500_that_tells_nothing(server):
    stand_in_vllm.FAULTS.append(RuntimeError("/secret/path"))
    with pytest.raises(openai.InternalServerError) as found:
        client(server).chat.completions.create(**ASK)
    assert "secret" not in str(found.value)
    assert client(server).chat.completions.create(**ASK).choices  # the next one is answered
    assert server.backend.load.running == 0


def test_what_vllm_refuses_is_a_400_in_its_words(server):
    stand_in_vllm.FAULTS.append(ValueError("Grammar error: unsupported"))
    with pytest.raises(openai.BadRequestError, match="unsupported"):
        client(server).chat.completions.create(**ASK)


def test_forms_are_handed_over(server):
    form = {"type": "json_object"}
    client(server).chat.completions.create(**ASK, response_format=form)
    assert stand_in_vllm.SEEN[-1].structured_outputs.json["type"] == "object"


def test_embeddings_are_refused(server):
    with pytest.raises(openai.BadRequestError):
        client(server).embeddings.create(model=NAME, input="hello")
    assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["embeddings"] is None


def test_a_full_queue_is_a_429(folder):
    with running(backend(folder, most=1)) as server, pytest.raises(openai.RateLimitError):
        client(server).chat.completions.create(**ASK, n=2)


def test_an_engine_that_has_ended_is_not_healthy(server):
    assert httpx.get(f"{server.url}/health").status_code == 200
    server.backend._engine.errored = True
    assert httpx.get(f"{server.url}/health").status_code == 503
    assert httpx.post(f"{server.url}/v1/chat/completions", json=ASK).status_code == 503


def test_the_engine_is_shut_down_with_the_server(folder):
    with running(backend(folder)) as server:
        engine = server.backend._engine
    assert engine.stopped


def test_the_context_is_what_vllm_was_given(folder):
    with running(backend(folder, max_model_len=64)) as server:
        assert httpx.get(f"{server.url}/v1/models").json()["data"][0]["max_model_len"] == 64
        long = ASK | {"messages": [{"role": "user", "content": "hello " * 100}]}
        with pytest.raises(openai.BadRequestError, match="tokens"):
            client(server).chat.completions.create(**long)


def test_a_model_that_cannot_be_loaded_ends_the_server(folder):
    failures = []
    found = VllmBackend(folder, VllmSettings(8), max_running=8, most=64, on_failure=failures.append)

    async def load():
        await found.start()
        await found._loading
        await found.stop()

    import asyncio

    asyncio.run(load())
    assert isinstance(failures[0], DeviceError)


def test_the_command_line_chooses_the_engine(folder, monkeypatch):
    asked = Asked(folder, engine="vllm", tensor_parallel=2, vllm_options=("max-model-len=4096", "dtype=auto"))
    monkeypatch.setattr("herd.generate.vllm.vllm_package", lambda: stand_in_vllm.PACKAGE)
    made = backend_of(asked, SETTINGS, lambda: None, lambda error: None)
    assert isinstance(made, VllmBackend)
    assert made._settings == VllmSettings(2, 1, {"max_model_len": 4096, "dtype": "auto"})
    for wrong, words in (
        ({"fp8": "all"}, "herd quantize"),
        ({"cache_gb": 2.0}, "gpu_memory_utilization"),
        ({"draft": "small"}, "speculative_config"),
        ({"cache_dtype": "fp8"}, "kv_cache_dtype"),
        ({"device": "cuda:1"}, "CUDA_VISIBLE_DEVICES"),
    ):
        with pytest.raises(SettingError) as found:
            backend_of(replace(asked, **wrong), SETTINGS, lambda: None, lambda error: None)
        assert words in found.value.mend
    with pytest.raises(SettingError, match="one device"):
        backend_of(replace(asked, engine="herd"), SETTINGS, lambda: None, lambda error: None)
    with pytest.raises(SettingError, match="max_model_len"):
        options_of(["max_model_len"])


def test_vllm_that_is_not_there_is_named(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"herd\[vllm\]"):
        backend_of(Asked(Path(folder), engine="vllm"), SETTINGS, lambda: None, lambda error: None)


def test_options_are_read_as_json():
    assert options_of(["--kv-cache-dtype=fp8", 'a={"b": 1}', "c=true", "d=x=y"]) == {
        "kv_cache_dtype": "fp8",
        "a": json.loads('{"b": 1}'),
        "c": True,
        "d": "x=y",
    }
