"""A small trained model that cannot chat, with Llama 2's tokenizer: it continues texts, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import openai
import pytest
from serving import quick, running

from herd.serve.engine_backend import EngineBackend
from herd.serve.loading import ModelSettings, load

DATA = Path(os.environ.get("HERD_DATA", Path(__file__).parents[3] / "shared" / "data"))
STORIES = DATA / "checkpoints" / "stories260K" / "stories260K.bin"


@pytest.fixture(scope="module")
def client():
    if not STORIES.exists():
        pytest.skip(f"{STORIES} is not here; HERD_DATA names the folder of the data")
    chosen = ModelSettings(STORIES, device="cpu", cache_tokens=2048)
    settings = quick(name="stories")
    with running(EngineBackend(lambda: load(chosen, settings), most=8), settings) as server:
        yield openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_a_text_goes_on_with_its_spaces(client):
    how = {"model": "stories", "temperature": 0, "max_tokens": 40}
    whole = client.completions.create(prompt="Once upon", echo=True, **how).choices[0].text
    assert whole.startswith("Once upon a time, there was a little girl named Lily.")
    further = client.completions.create(prompt="Once upon", **how).choices[0].text
    assert "Once upon" + further == whole
    streamed = "".join(c.choices[0].text for c in client.completions.create(prompt="Once upon", stream=True, **how))
    assert streamed == further


def test_it_stops_before_a_text(client):
    choice = client.completions.create(
        model="stories", prompt="Once upon", temperature=0, max_tokens=40, stop=[" girl", "zebra"]
    ).choices[0]
    assert (choice.text, choice.finish_reason) == (" a time, there was a little", "stop")


def test_it_cannot_chat_and_says_so(client):
    for ask in (
        lambda: client.chat.completions.create(model="stories", messages=[{"role": "user", "content": "Hi"}]),
        lambda: client.responses.create(model="stories", input="Hi"),
    ):
        with pytest.raises(openai.BadRequestError) as raised:
            ask()
        assert raised.value.code == "no_chat_format"
