"""vLLM as a `Generator`: many GPUs, many machines, prompts of ids in and completions out, by its offline `LLM`.

    generator = Vllm.open("Llama-3.1-70B-Instruct", VllmSettings(tensor_parallel=8))
    completions = generator.generate(requests, progress)

Needs `pip install 'herd[vllm]'`. What differs from the embedded engine is told in `vllm_requests`. Not here: the
server (`herd serve --engine vllm`), and a vLLM server that runs already, which is `Served` over its HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from herd.errors import DeviceError, HerdError, MissingExtraError, SettingError
from herd.generate import vllm_requests
from herd.generate.extras import MakeDecoder
from herd.generate.protocol import SILENT, Completion, Request
from herd.generate.settings import VllmSettings
from herd.progress import Progress
from herd.text.stream import StreamDecoder
from herd.text.tokenizer import Tokenizer

_AT_ONCE = 2048  # requests handed over together: enough to keep a cluster busy, few enough to tell of progress


class Vllm:
    """Implements `Generator` over vLLM's `LLM`. `tokenizer`: what stop texts are looked for with."""

    def __init__(self, llm: Any, tokenizer: Tokenizer | None = None, *, package: Any = None) -> None:
        self._llm, self._vllm = llm, package or vllm_package()
        self._context = int(llm.model_config.max_model_len)
        self._vocab_size = int(llm.model_config.get_vocab_size())
        self._decoder = decoder_of(tokenizer)

    @classmethod
    def open(cls, model: str | Path, settings: VllmSettings | None = None) -> Vllm:
        """A model folder in vLLM. MissingExtraError without vLLM, DeviceError where it cannot be made to run."""
        package = vllm_package()
        tokenizer = Tokenizer.load(model)
        arguments = engine_arguments(model, settings or VllmSettings())
        with vllm_errors():
            return cls(package.LLM(**arguments), tokenizer, package=package)

    def generate(self, requests: Sequence[Request], progress: Progress = SILENT) -> list[Completion]:
        """One completion for each request, in their order. InputError for a prompt that cannot be continued."""
        for number, request in enumerate(requests):
            vllm_requests.check(request, self._context, self._vocab_size, f"request {number}", self._decoder)
        how = [vllm_requests.parameters(self._vllm, request) for request in requests]
        done: list[Completion] = []
        n_tokens, start = 0, time.monotonic()
        while len(done) < len(requests):
            part = slice(len(done), len(done) + _AT_ONCE)
            prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests[part]]
            outputs = self._llm.generate(prompts, how[part], use_tqdm=False)
            found = [self._completion(*pair) for pair in zip(requests[part], outputs, strict=True)]
            done += found
            n_tokens += sum(len(completion.tokens) for completion in found)
            rate = n_tokens / max(time.monotonic() - start, 1e-9)
            progress.update(len(done), len(requests), "requests", {"tokens/s": round(rate)})
        return done

    def _completion(self, request: Request, output: Any) -> Completion:
        collected = vllm_requests.Collected(request, self._decoder)
        collected.add(output)
        return collected.completion()


def decoder_of(tokenizer: Tokenizer | None) -> MakeDecoder | None:
    """What stop texts are looked for with."""
    return None if tokenizer is None else partial(StreamDecoder, tokenizer, skip_special=True)


def vllm_package() -> Any:
    """The package `vllm`. MissingExtraError where it is not installed."""
    try:
        import vllm
        import vllm.sampling_params
    except ImportError as error:
        raise MissingExtraError("vllm", "vllm") from error
    return vllm


@contextmanager
def vllm_errors() -> Iterator[None]:
    """What vLLM raises while its engine is made, in its own words, as an error that says who speaks."""
    try:
        yield
    except HerdError:
        raise
    except TypeError as error:  # an argument that it does not know
        raise SettingError(f"vLLM refuses: {error}", where="vllm options", mend="see vllm serve --help") from error
    except Exception as error:  # out of memory, too few GPUs, a model that it cannot read
        said = str(error).strip() or type(error).__name__
        raise DeviceError(
            f"vLLM cannot start its engine: {said[:500]}",
            where="vLLM",
            mend="its log above says more; give fewer positions (max_model_len) or more GPUs (tensor_parallel)",
        ) from error


def engine_arguments(model: str | Path, settings: VllmSettings) -> dict[str, Any]:
    """What `LLM` and `AsyncEngineArgs` are called with: herd's own choices first, the user's over them."""
    found: dict[str, Any] = {
        "model": str(model),
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",  # a trainer's, whatever the sampling
        "generation_config": "vllm",  # else the folder's own temperature and top-p stand where we say nothing
        "structured_outputs_config": {"backend": "guidance"},  # the library that herd's own engine uses
    }
    return found | dict(settings.options)
