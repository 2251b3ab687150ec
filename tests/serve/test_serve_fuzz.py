"""What a fuzzer makes of the server's own description: no 5xx, no status and no body that is not described.

Not asked of it: that every request which the description allows is granted. A conversation may be well formed and still
be refused (a result without its call, a prompt that is too long), which no schema can say.
"""

from __future__ import annotations

import json
import urllib.request

import hypothesis
import pytest
from hypothesis import HealthCheck
from serving import NAME, engine_backend, quick, running

schemathesis = pytest.importorskip("schemathesis")

SETTINGS = quick(default_max_tokens=4, max_n=4)
EXAMPLES = 25  # for each endpoint


@pytest.fixture(scope="module")
def served(tokenizer):
    with running(engine_backend(tokenizer, SETTINGS), SETTINGS) as server:
        yield server


@pytest.fixture(scope="module")
def described(served):
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def mostly_served(case):
    """Most requests name the model that is there, and all ask for little: the others end at the first check."""
    body = case.body
    if isinstance(body, dict):
        if isinstance(body.get("model"), str) and len(body["model"]) % 4:
            body["model"] = NAME
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            if isinstance(body.get(name), int) and body[name] > 8:
                body[name] = 8
    return case


CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
TAKE_BODIES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/tokenize", "/detokenize")
TAKE_NONE = ("/v1/models", "/v1/models/{model}", "/health", "/metrics")
CASES = [
    *((path, "POST", mode) for path in TAKE_BODIES for mode in (POSITIVE, NEGATIVE)),
    *((path, "GET", POSITIVE) for path in TAKE_NONE),  # nothing can be sent to these that is wrong
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method", "mode"), CASES, ids=lambda value: getattr(value, "value", value))
def test_no_request_makes_the_server_fail(described, path, method, mode):
    operation = described[path][method]
    negative = mode is NEGATIVE
    checks = [*CHECKS, schemathesis.checks.negative_data_rejection] if negative else CHECKS

    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        case = case if negative else mostly_served(case)
        case.validate_response(case.call(timeout=60), checks=checks)

    ask()


def test_the_description_names_every_endpoint_and_only_answers_that_are_given(served):
    with urllib.request.urlopen(f"{served.url}/openapi.json") as response:
        description = json.load(response)
    assert {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{model}",
        "/tokenize",
        "/detokenize",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
    } == set(description["paths"])
    text = json.dumps(description)
    assert "HTTPValidationError" not in text
    names = set(description["components"]["schemas"])
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= names
    assert {"ChatChunk", "ResponseEvent", "ErrorBody"} <= names
