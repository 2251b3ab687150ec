"""Other people's clients: LangChain, OpenAI's JavaScript client, lm-evaluation-harness.

The last two are run as programs of their own, where they are: HERD_OPENAI_JS names a folder in which `npm install
openai` was done, HERD_LM_EVAL a Python in whose environment lm_eval[api] is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from serving import CALL, NAME, Scripted, running, wait_until

HERE = Path(__file__).parent


def chat(server, **how):
    openai = pytest.importorskip("langchain_openai")
    return openai.ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", model=NAME, max_retries=0, **how)


def test_langchain_asks_and_streams(server):
    model = chat(server, max_tokens=12, seed=4)
    whole = model.invoke("Hello?")
    assert whole.usage_metadata["output_tokens"] == 12
    assert whole.response_metadata["finish_reason"] == "length"
    assert "".join(chunk.content for chunk in model.stream("Hello?")) == whole.content


def test_langchain_binds_tools_and_sends_their_results(tokenizer):
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    @tool
    def weather(town: str) -> str:
        """The weather of a town."""
        return f"sun in {town}"

    backend = Scripted(tokenizer, [f"Let me see. {CALL}; {CALL.replace('Bern', 'Chur')}", "Sunny in both."])
    with running(backend) as server:
        model = chat(server).bind_tools([weather])
        asked = [HumanMessage("The weather in Bern and Chur?")]
        message = model.invoke(asked)
        assert [call["args"]["town"] for call in message.tool_calls] == ["Bern", "Chur"]
        results = [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]) for call in message.tool_calls]
        assert model.invoke([*asked, message, *results]).content == "Sunny in both."
        assert "sun in Chur" in tokenizer.decode(backend.asked[-1].prompt)


def test_langchain_gets_structured_output(server):
    from pydantic import BaseModel, Field

    class Person(BaseModel):
        name: str = Field(max_length=6)
        age: int = Field(ge=0, le=120)

    pytest.importorskip("llguidance")
    for method in ("json_schema", "function_calling"):
        person = chat(server, max_tokens=400, seed=1).with_structured_output(Person, method=method).invoke("Who?")
        assert 0 <= person.age <= 120


def run(command, **environment):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_openai_s_javascript_client(server):
    node, folder = shutil.which("node"), os.environ.get("HERD_OPENAI_JS", "")
    if node is None or not (Path(folder) / "node_modules" / "openai").is_dir():
        pytest.skip("node, or HERD_OPENAI_JS with a folder of its openai package, is not here")
    found = json.loads(run([node, str(HERE / "openai_client.mjs"), server.url, NAME], OPENAI_JS=folder))
    assert found["models"] == [NAME]
    assert found["streamed"] == found["whole"] != ""
    assert found["usage"]["completion_tokens"] == 12
    assert found["calls"][0] == ["weather", ["town"]]
    assert list(found["json"]) == ["town"]
    assert found["events"] == ["response.created", "response.incomplete"]
    assert found["embedding"] == 32
    assert found["error"] == [400, "temperature", "BadRequestError"]
    assert found["aborted"]
    wait_until(lambda: not server.backend._loaded.engine.busy)


TASK = """\
task: tiny_choices
dataset_path: json
dataset_kwargs:
  data_files: {test: DATA}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: ""
metric_list:
  - metric: acc
"""
QUESTIONS = [
    {"question": "The quick brown", "choices": [" fox", " weather", " hello there"], "answer": 0},
    {"question": "The weather in", "choices": [" Bern", " dog today"], "answer": 0},
    {"question": "The lazy", "choices": [" dog", " fine", " says"], "answer": 0},
]


@pytest.mark.slow
def test_lm_evaluation_harness_scores_choices_as_the_model_does(server, tokenizer, tmp_path):
    python = os.environ.get("HERD_LM_EVAL", "")
    if not python or not Path(python).exists():
        pytest.skip("HERD_LM_EVAL names no Python with lm_eval[api]")
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (tmp_path / "tiny_choices.yaml").write_text(TASK.replace("DATA", str(data)))
    tokenizer.save(tmp_path / "tokenizer")
    arguments = {
        "model": NAME,
        "base_url": f"{server.url}/v1/completions",
        "tokenizer": str(tmp_path / "tokenizer"),
        "num_concurrent": 2,
        "max_retries": 1,
    }
    listed = ",".join(f"{key}={value}" for key, value in arguments.items())
    run(
        [
            *(python, "-m", "lm_eval", "--model", "local-completions", "--model_args", listed),
            *("--tasks", "tiny_choices", "--include_path", str(tmp_path), "--log_samples"),
            *("--output_path", str(tmp_path / "out")),
        ],
        HF_HUB_OFFLINE="1",
        HF_DATASETS_CACHE=str(tmp_path / "cache"),
        OPENAI_API_KEY="none",
    )
    (samples,) = (tmp_path / "out").rglob("samples_tiny_choices*.jsonl")
    rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda row: row["doc_id"])
    model = server.backend._loaded.engine._model
    for question, row in zip(QUESTIONS, rows, strict=True):
        for choice, (answer,) in zip(question["choices"], row["resps"], strict=True):
            expected = choice_logprob(model, tokenizer, question["question"], choice)
            assert abs(float(answer[0]) - expected) < 1e-3, (choice, answer, expected)


def choice_logprob(model, tokenizer, question, choice):
    import torch

    context = tokenizer.encode(question)
    ids = tokenizer.encode(question + choice)
    with torch.inference_mode():
        logits = model.logits(model(torch.tensor([ids])))[0].log_softmax(-1)
    return sum(float(logits[at - 1, ids[at]]) for at in range(len(context), len(ids)))
