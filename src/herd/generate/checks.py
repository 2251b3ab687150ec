"""What a request must be before any work is done for it."""

from __future__ import annotations

from herd.errors import InputError
from herd.generate.protocol import Request
from herd.llama.config import LlamaConfig


def check_request(request: Request, config: LlamaConfig, where: str) -> None:
    """InputError for a prompt that this model cannot continue, and for ids that it does not have."""
    prompt = request.prompt
    if not prompt:
        raise InputError("an empty prompt", where=where, mend="begin with the begin-of-text id")
    if len(prompt) >= config.max_seq_len:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, and the model's context is {config.max_seq_len}",
            where=where,
            mend=f"shorten it to {config.max_seq_len - 1} tokens or fewer: the answer needs room too",
        )
    if not 0 <= min(prompt) <= max(prompt) < config.vocab_size:
        raise InputError(
            f"the prompt holds ids outside the model's vocabulary of {config.vocab_size}",
            where=where,
            mend="encode it with the tokenizer in the model's folder",
        )
    for token, _ in request.sampling.logit_bias:
        if token >= config.vocab_size:
            raise InputError(
                f"logit_bias names id {token}, and the model's vocabulary has {config.vocab_size} ids",
                where=where,
                mend="take ids of the tokenizer in the model's folder",
            )
