"""A `Request` in vLLM's words, and its outputs as a `Completion`; names and meanings as in vLLM 0.11 to 0.32.

Settings mean the same there but for these: `min_p` acts before `top_k`; a temperature under 0.01 counts as 0.01 (0 is
greedy); draws come from vLLM's own generators, so a seed gives the same tokens from vLLM again, and others than from
the embedded engine. Log-probabilities are the model's own, as here (`logprobs_mode="raw_logprobs"`).
`vllm` is the package, handed in by who imported it: nothing here imports it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from herd.errors import ArtifactError, InputError, SettingError
from herd.generate.extras import MakeDecoder
from herd.generate.protocol import Alternatives, Completion, Grammar, Request
from herd.generate.stops import StopText

_SEEDS = 2**63  # vLLM's generators take numbers below this; -1 would mean none


@runtime_checkable
class Written(Protocol):
    """A grammar that is written down: `source`, in llguidance's JSON form (`herd.generate.grammars` makes such)."""

    @property
    def source(self) -> str: ...


def parameters(vllm: Any, request: Request, *, stream: bool = False) -> Any:
    """vLLM's `SamplingParams`. With `stream` outputs hold what is new, else one holds all, when it is whole."""
    how = request.sampling
    kinds = vllm.sampling_params.RequestOutputKind
    return vllm.SamplingParams(
        temperature=how.temperature,
        top_p=how.top_p,
        top_k=how.top_k,
        min_p=how.min_p,
        repetition_penalty=how.repetition_penalty,
        presence_penalty=how.presence_penalty,
        frequency_penalty=how.frequency_penalty,
        seed=how.seed % _SEEDS,
        max_tokens=how.max_tokens,
        stop=list(how.stop),
        stop_token_ids=list(how.stop_ids),
        ignore_eos=request.grammar is None,  # stop_ids alone end a text; a whole form is ended by vLLM's own id
        logprobs=how.top_logprobs,
        prompt_logprobs=how.top_logprobs if how.prompt_logprobs else None,
        logit_bias=dict(how.logit_bias) or None,
        detokenize=bool(how.stop),
        structured_outputs=_structured(vllm, request.grammar),
        output_kind=kinds.DELTA if stream else kinds.FINAL_ONLY,
    )


def check(request: Request, context: int, vocab_size: int, where: str, decoder: MakeDecoder | None) -> None:
    """What vLLM would refuse in words of its own, or cut. Raises InputError and SettingError."""
    prompt = request.prompt
    if not prompt:
        raise InputError("an empty prompt", where=where, mend="begin with the begin-of-text id")
    if len(prompt) >= context:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, and the model's context is {context}",
            where=where,
            mend=f"shorten it to {context - 1} tokens or fewer: the answer needs room too",
        )
    ids = (*prompt, *(token for token, _ in request.sampling.logit_bias))
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        raise InputError(
            f"prompt or logit_bias hold ids outside the model's vocabulary of {vocab_size}",
            where=where,
            mend="encode with the tokenizer in the model's folder",
        )
    if request.sampling.stop and decoder is None:
        raise SettingError("stop texts need the tokenizer", where="stop", mend="make the generator with tokenizer=")


class Collected:
    """One completion out of vLLM's outputs, whole or piece by piece."""

    def __init__(self, request: Request, decoder: MakeDecoder | None = None) -> None:
        self._how, self._prompt = request.sampling, request.prompt
        self._tokens: list[int] = []
        self._logprobs: list[float] = []
        self._top: list[Alternatives] = []
        self._told: tuple[list[float], list[Alternatives]] = [], []
        self._text = StopText(decoder(), self._how.stop) if self._how.stop and decoder else None
        self._pieces: list[str] = []
        self._cached = 0
        self._finish = self._stop = ""

    def add(self, output: Any) -> list[tuple[int, float, Alternatives]]:
        """The new tokens of an output, each with its log-probability and alternatives.

        What comes after the token that completed a stop text (vLLM with drafts says it) is left out. Raises
        ArtifactError where vLLM ended the request for a reason of its own.
        """
        said = output.outputs[0]
        self._cached = output.num_cached_tokens or self._cached
        if output.prompt_logprobs and self._how.prompt_logprobs:
            self._tell_prompt(output.prompt_logprobs)
        new = []
        for token, entries in zip(said.token_ids, said.logprobs or (), strict=True):
            if self._text is not None and self._text.found:
                break
            new.append((token, entries[token].logprob, _likeliest(entries, self._how.top_logprobs)))
            self._take(*new[-1])
        self._finish = said.finish_reason or ""
        self._stop = said.stop_reason if isinstance(said.stop_reason, str) else ""
        if self._finish not in ("", "stop", "length"):
            raise ArtifactError(
                f"vLLM ended a request: {self._finish}", where="vLLM", mend="its log says why; ask again"
            )
        return new

    def completion(self) -> Completion:
        """After the last output."""
        text, stop = None, ""
        if self._text is not None:
            # vLLM also looks into how special tokens are spelled, which leave no text here.
            text, stop = "".join(self._pieces) + self._text.flush(), self._text.found or self._stop
        return Completion(
            tuple(self._tokens),
            tuple(self._logprobs),
            "length" if self._finish == "length" and not stop else "stop",
            text=text,
            stop=stop,
            top_logprobs=tuple(self._top),
            prompt_logprobs=tuple(self._told[0]),
            prompt_top_logprobs=tuple(self._told[1]),
            cached=self._cached,
        )

    def _take(self, token: int, logprob: float, top: Alternatives) -> None:
        self._tokens.append(token)
        self._logprobs.append(logprob)
        if self._how.top_logprobs:
            self._top.append(top)
        if self._text is not None and token not in self._how.stop_ids:
            self._pieces.append(self._text.push(token))

    def _tell_prompt(self, positions: Sequence[Mapping[int, Any] | None]) -> None:
        """vLLM says nothing of the first id, and of each other one the likeliest beside it."""
        logprobs, top = self._told
        for token, entries in zip(self._prompt[1:], positions[1:], strict=True):
            assert entries is not None
            logprobs.append(entries[token].logprob)
            if self._how.top_logprobs:
                top.append(_likeliest(entries, self._how.top_logprobs))


def _likeliest(entries: Mapping[int, Any], count: int) -> Alternatives:
    """vLLM adds the chosen id where it is not among the likeliest."""
    if not count:
        return ()
    found = sorted(((token, entry.logprob) for token, entry in entries.items()), key=lambda pair: (-pair[1], pair[0]))
    return tuple(found[:count])


def _structured(vllm: Any, grammar: Grammar | None) -> Any:
    if grammar is None:
        return None
    if not isinstance(grammar, Written):
        raise SettingError(
            "this grammar is code of its own, and vLLM takes what is written down",
            where="grammar",
            mend="make it with herd.generate.grammars: a JSON schema, a regular expression, EBNF, a choice or tools",
        )
    first = json.loads(grammar.source)["grammars"][0]
    form = {"json": first["json_schema"]} if first.get("json_schema") else {"grammar": first["lark_grammar"]}
    return vllm.sampling_params.StructuredOutputsParams(**form)
