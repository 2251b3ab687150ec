"""A dialogue as text in which one can see what is trained: the check to make before a training run, not after."""

from __future__ import annotations

from itertools import groupby

from herd.errors import NoEffectError
from herd.text.chat import Dialogue
from herd.text.specials import START_HEADER
from herd.text.tokenizer import Tokenizer

_GREEN, _GREY, _PLAIN = "\x1b[1;32m", "\x1b[90m", "\x1b[0m"


def show_dialogue(tokenizer: Tokenizer, dialogue: Dialogue, *, colour: bool = False, partly: bool = False) -> str:
    """The whole dialogue, special tokens spelled, trained stretches in double brackets [[...]], a count below.

    With `colour` the trained stretches are green and the rest grey instead. NoEffectError when nothing would be
    trained, or when the stop token of an assistant turn would not be; `partly` allows earlier turns not to be
    trained, as in preference pairs, whose answer alone counts.
    """
    if not partly:
        check_trained(tokenizer, dialogue)
    before, after = (_GREEN, _PLAIN) if colour else ("[[", "]]")
    parts = []
    for trained, positions in groupby(range(len(dialogue.ids)), key=lambda t: dialogue.trained[t]):
        text = tokenizer.decode(dialogue.ids[t] for t in positions)
        plain = f"{_GREY}{text}{_PLAIN}" if colour else text
        parts.append(f"{before}{text}{after}" if trained else plain)
    turns = sum(1 for t, kind in enumerate(dialogue.kinds) if kind == "stop" and dialogue.trained[t])
    count = f"{dialogue.n_trained} of {len(dialogue.ids)} tokens are trained, in {turns} assistant turns"
    return "".join(parts) + f"\n-- {count}"


def check_trained(tokenizer: Tokenizer, dialogue: Dialogue) -> None:
    """NoEffectError when a dialogue teaches nothing, or teaches an answer but not to stop after it."""
    if not dialogue.n_trained:
        raise NoEffectError(
            "nothing of this dialogue is trained: it has no assistant message",
            mend="add the assistant's answer or remove the dialogue",
        )
    if tokenizer.foreign_format:
        if "stop" not in dialogue.kinds:
            raise NoEffectError(
                "the model's chat template ends answers with no special token: the model would never stop talking",
                mend="train with a template that does",
            )
        return
    assistant = tokenizer.encode("assistant")
    header = [tokenizer.special(START_HEADER), *assistant]
    speaks, turn = False, 0
    for t, kind in enumerate(dialogue.kinds):
        if kind == "header" and dialogue.ids[t] == header[0]:
            speaks = dialogue.ids[t : t + len(header)] == header
            turn += speaks
        if kind == "stop" and speaks and not dialogue.trained[t]:
            raise NoEffectError(
                f"the stop token of assistant turn {turn} is not trained: the model would never stop talking",
                where=f"token {t}",
                mend="encode the dialogue with herd.text.encode_dialogue",
            )
