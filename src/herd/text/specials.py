"""The 256 special tokens of Llama 3.1, in their order.

They stand behind the byte-pair tokens: in the released tokenizer the first of them has id 128,000. Meta's names are
used (Hugging Face's conversion calls `<|step_id|>` and `<|image|>` reserved tokens; their ids are the same).
"""

from __future__ import annotations

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
PAD = "<|finetune_right_pad_id|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
EOM = "<|eom_id|>"
EOT = "<|eot_id|>"
PYTHON_TAG = "<|python_tag|>"

N_SPECIAL = 256

# What Llama 3 has had since April 2024; a foreign tokenizer may name the others as it likes.
REQUIRED = (BEGIN_OF_TEXT, END_OF_TEXT, START_HEADER, END_HEADER, EOT)
ENDS = ((BEGIN_OF_TEXT, END_OF_TEXT), ("<s>", "</s>"))  # begin and end of text: Llama 3's names, Llama 2's


def _all_names() -> tuple[str, ...]:
    named = [
        BEGIN_OF_TEXT,
        END_OF_TEXT,
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        PAD,
        "<|step_id|>",
        START_HEADER,
        END_HEADER,
        EOM,
        EOT,
        PYTHON_TAG,
        "<|image|>",
    ]
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(2, 2 + N_SPECIAL - len(named))]
    return tuple(named + reserved)


SPECIAL_TOKENS = _all_names()
_NO_USE = frozenset({"<|step_id|>", "<|image|>", *(name for name in SPECIAL_TOKENS if "reserved_special" in name)})


def released_name(name: str, place: int) -> str:
    """Meta's name of the `place`-th special token where `name` is another for one that text models never use."""
    known = SPECIAL_TOKENS[place] if 0 <= place < N_SPECIAL else ""
    return known if known in _NO_USE and "reserved_special" in name else name
