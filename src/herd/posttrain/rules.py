"""Rules that look at one reply and say what is wrong with it (paper 4.2.3: excess emoji, exclamation marks, apologies;
and what spoils sampled data: replies cut off, replies that loop).

Each rule is a function of the reply's text that returns the reason to drop it, or None. They know nothing of whether
the reply is right.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType

from herd.posttrain.settings import QualitySettings

Rule = Callable[[str, QualitySettings], str | None]

# Emoticons, pictographs, transport, supplemental symbols, dingbats and the old weather and chess symbols.
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")

# The openings with which assistants excuse themselves, in the eight languages.
_APOLOGIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "en": ("i'm sorry", "i am sorry", "i apologize", "i apologise", "my apologies"),
        "de": ("es tut mir leid", "tut mir leid", "entschuldigung", "ich entschuldige mich"),
        "fr": ("je suis désolé", "désolée", "je m'excuse", "toutes mes excuses"),
        "it": ("mi dispiace", "mi scuso", "le mie scuse"),
        "pt": ("sinto muito", "desculpe", "peço desculpa"),
        "es": ("lo siento", "me disculpo", "mis disculpas", "perdón por"),
        "hi": ("मुझे खेद है", "क्षमा करें", "माफ़ करें", "माफ कीजिए"),
        "th": ("ขอโทษ", "ขออภัย"),
    }
)
_APOLOGY = re.compile(
    "|".join(re.escape(phrase) for phrases in _APOLOGIES.values() for phrase in sorted(phrases, key=len, reverse=True))
)


def too_many_emoji(text: str, settings: QualitySettings) -> str | None:
    count = len(_EMOJI.findall(text)) if not text.isascii() else 0
    return f"{count} emoji" if count > settings.max_emoji else None


def too_many_exclamations(text: str, settings: QualitySettings) -> str | None:
    count = text.count("!") + text.count("！")
    return f"{count} exclamation marks" if count > settings.max_exclamations else None


def too_many_apologies(text: str, settings: QualitySettings) -> str | None:
    plain = unicodedata.normalize("NFC", text).casefold().replace("’", "'")
    count = len(_APOLOGY.findall(plain))
    return f"{count} apologies" if count > settings.max_apologies else None


def empty(text: str, settings: QualitySettings) -> str | None:
    return None if text.strip() else "no text"


def loop(text: str, settings: QualitySettings) -> str | None:
    """The same stretch `loop_repeats` times in a row or more. A last, unfinished repeat does not hide it.

    A text with period p equals itself shifted by p, so the longest run of equal places is a loop of that period. Runs
    of one blank or ruling character (`-----`, indentation) are not loops of language.
    """
    squeezed = re.sub(r"([\W_])\1+", r"\1", text)
    limit = min(len(squeezed) // settings.loop_repeats, 200)
    for period in range(1, limit + 1):
        needed = max(period * settings.loop_repeats, settings.loop_chars) - period
        if (start := _agreement(squeezed, period, needed)) is not None:
            return f"loops over {squeezed[start : start + period][:40]!r}"
    return None


def _agreement(text: str, period: int, needed: int) -> int | None:
    """Where `needed` places in a row agree with those `period` before them, or None.

    Only every `needed`-th place is looked at first, as any long enough run covers one of them.
    """
    end = len(text) - period
    for probe in range(needed - 1, end, needed):
        if text[probe] != text[probe + period]:
            continue
        low, high = probe, probe + 1
        while low > 0 and text[low - 1] == text[low - 1 + period]:
            low -= 1
        while high < end and text[high] == text[high + period]:
            high += 1
        if high - low >= needed:
            return low
    return None


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "empty": empty,
        "loop": loop,
        "emoji": too_many_emoji,
        "exclamations": too_many_exclamations,
        "apologies": too_many_apologies,
    }
)
