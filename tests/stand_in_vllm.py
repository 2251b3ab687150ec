"""A stand-in that speaks vLLM's API (0.32): the names, defaults and outputs that herd uses, over a plain loop.

It recomputes the whole sequence for every token with herd's network in float32, and samples as vLLM says it does: not
by herd's engine. `test_generate_vllm_names.py` compares its names with those of the package where that is installed.
Penalties, min_p, biases and structured outputs are noted in `SEEN`, not acted on.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import torch

from herd.text import Tokenizer
from herd.weights.build import load_any
from herd.weights.registry import open_model

SEEN = []  # every SamplingParams that came with a request
ABORTED = []  # request ids whose generation was left early
FAULTS = []  # exceptions that the next requests meet


class RequestOutputKind(Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass
class StructuredOutputsParams:
    json: str | dict | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int | None = None


@dataclass
class EngineArgs:
    model: str
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    enable_prefix_caching: bool | None = None
    logprobs_mode: str = "raw_logprobs"
    generation_config: str = "auto"
    structured_outputs_config: dict = field(default_factory=dict)
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    gpu_memory_utilization: float = 0.92
    disable_log_stats: bool = False
    dtype: str = "auto"


AsyncEngineArgs = EngineArgs


class _Model:
    def __init__(self, args):
        if args.tensor_parallel_size * args.pipeline_parallel_size > 1:
            raise RuntimeError(f"World size ({args.tensor_parallel_size}) is larger than the number of available GPUs")
        stored = open_model(Path(args.model))
        self.network, self.tokenizer = load_any(args.model), Tokenizer.load(Path(args.model))
        self.length = args.max_model_len or stored.config.max_seq_len
        vocab_size = stored.config.vocab_size
        self.config = SimpleNamespace(max_model_len=self.length, get_vocab_size=lambda: vocab_size)

    @torch.inference_mode()
    def logprobs(self, ids):
        return self.network.logits(self.network(torch.tensor([ids]))[0]).log_softmax(-1)

    def steps(self, prompt, how):
        """(token, its entries, finish reason) one after another; the first time the prompt's entries too."""
        SEEN.append(how)
        if FAULTS:
            raise FAULTS.pop(0)
        if len(prompt) >= self.length:
            raise ValueError(f"The decoder prompt (length {len(prompt)}) is longer than the maximum model length")
        ids, text = list(prompt), ""
        draws = torch.Generator().manual_seed(how.seed or 0)
        for number in itertools.count(1):
            rows = self.logprobs(ids)
            token = _drawn(rows[-1], how, draws)
            ids.append(token)
            if how.detokenize:
                text = self.tokenizer.decode(ids[len(prompt) :], skip_special=True).rstrip("\ufffd")  # not whole yet
            stopped = token in (how.stop_token_ids or ()) or any(stop in text for stop in how.stop or ())
            full = number >= how.max_tokens or len(ids) >= self.length
            finish = "stop" if stopped else "length" if full else None
            yield token, _entries(rows[-1], token, how.logprobs), finish, self._of_prompt(rows, prompt, how, number)
            if finish:
                return

    def _of_prompt(self, rows, prompt, how, number):
        if how.prompt_logprobs is None or number > 1:
            return None
        return [
            None,
            *(_entries(row, token, how.prompt_logprobs) for row, token in zip(rows, prompt[1:], strict=False)),
        ]


def _drawn(row, how, draws):
    if how.temperature == 0:
        return int(row.argmax())
    order = (row / how.temperature).softmax(-1).sort(descending=True)
    kept = order.values.clone()
    kept[how.top_k or len(kept) :] = 0
    kept[kept.cumsum(0) - kept > how.top_p] = 0
    return int(order.indices[torch.multinomial(kept, 1, generator=draws)])


def _entries(row, token, count):
    """The `count` likeliest, and the chosen one, by id."""
    if count is None:
        return None
    ids = {*row.topk(count).indices.tolist(), token} if count else {token}
    return {one: Logprob(float(row[one]), int((row > row[one]).sum()) + 1) for one in ids}


class LLM:
    def __init__(self, model, **arguments):
        self._model = _Model(EngineArgs(model, **arguments))
        self.model_config = self._model.config

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None, priority=None):
        pairs = zip(prompts, sampling_params, strict=True)
        return [self._whole(str(number), *pair) for number, pair in enumerate(pairs)]

    def _whole(self, request_id, prompt, how):
        assert how.output_kind is RequestOutputKind.FINAL_ONLY
        tokens, entries, finishes, of_prompt = zip(*self._model.steps(prompt["prompt_token_ids"], how), strict=True)
        said = CompletionOutput(0, "", list(tokens), list(entries), finishes[-1])
        return RequestOutput(request_id, [said], True, of_prompt[0], 0)


class AsyncLLMEngine:
    def __init__(self, args):
        self._model = _Model(args)
        self.model_config, self.running = self._model.config, set()
        self.errored = self.stopped = False

    @classmethod
    def from_engine_args(cls, engine_args):
        return cls(engine_args)

    async def generate(self, prompt, sampling_params, request_id, *, lora_request=None, priority=0):
        assert sampling_params.output_kind is RequestOutputKind.DELTA
        assert request_id not in self.running, "vLLM wants an id of its own for each request"
        self.running.add(request_id)
        try:
            for token, entries, finish, of_prompt in self._model.steps(prompt["prompt_token_ids"], sampling_params):
                await asyncio.sleep(0)
                said = CompletionOutput(0, "", [token], [entries], finish)
                yield RequestOutput(request_id, [said], finish is not None, of_prompt, 0)
        except (asyncio.CancelledError, GeneratorExit):
            ABORTED.append(request_id)
            raise
        finally:
            self.running.discard(request_id)

    async def check_health(self):
        if self.errored:
            raise RuntimeError("EngineDeadError")

    def shutdown(self, timeout=None):
        self.stopped = True


PACKAGE = SimpleNamespace(
    LLM=LLM,
    SamplingParams=SamplingParams,
    AsyncLLMEngine=AsyncLLMEngine,
    AsyncEngineArgs=AsyncEngineArgs,
    sampling_params=SimpleNamespace(
        RequestOutputKind=RequestOutputKind, StructuredOutputsParams=StructuredOutputsParams
    ),
)
