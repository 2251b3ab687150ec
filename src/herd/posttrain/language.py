"""Is a reply in the language that was asked for? A check of scripts, and one of languages for replies long enough.

The paper checks the language match before the reward model chooses (4.3.2). Replies of a few words in one of the
six Latin-script languages cannot be told apart from their letters alone: `same_script` does not try, and
`same_language` asks an identifier (the corpus room has one) only from `min_chars` letters on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

SameLanguage = Callable[[str, str], bool]  # (reply, language code asked for) -> does the reply match?

SCRIPTS = {"th": "THAI", "hi": "DEVANAGARI"}
LATIN = "LATIN"
_NAMES = re.compile(r'"\w+"\s*:|\b[A-Z][A-Za-z]*')


@lru_cache(maxsize=8192)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


def _letters(text: str) -> list[str]:
    return [character for character in text if character.isalpha()]


def same_script(text: str, lang: str) -> bool:
    """Most letters belong to the script of `lang`; true where there are none to tell by (numbers, symbols).

    In Thai and Hindi capitalised Latin words and the keys of JSON do not count: names keep their script.
    """
    wanted = SCRIPTS.get(lang, LATIN)
    letters = _letters(text if wanted == LATIN else _NAMES.sub("", text))
    return 2 * sum(_script(letter) == wanted for letter in letters) >= len(letters)


def same_language(identify: Callable[[str], str], *, min_chars: int = 60) -> SameLanguage:
    """A check by script, then by `identify` (text -> language code) for replies of `min_chars` letters or more."""

    def check(text: str, lang: str) -> bool:
        if not same_script(text, lang):
            return False
        if lang in SCRIPTS or len(_letters(text)) < min_chars:
            return True
        return identify(text) == lang

    return check
