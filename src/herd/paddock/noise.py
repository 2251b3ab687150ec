"""Pages that do not belong in a corpus, planted with a known truth, so that curation can be measured.

Four kinds: copies of good pages (exact, or with a few words changed), boilerplate, pages in languages that are not
wanted, and pages of personal data. All names, numbers and addresses are invented. They come under a source of their
own: the trusted name of the paddock's good pages would keep the rules for strangers' pages away from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any

from herd.corpus.documents import Document
from herd.paddock.settings import LANGUAGES
from herd.paddock.world import FOUNDERS, PEOPLE, World

SOURCE = "planted"
KINDS = ("duplicate", "boilerplate", "wrong_language", "pii")


@dataclass(frozen=True)
class Planted:
    """What is true of a planted page: its kind, and the strings that must not survive (personal data)."""

    kind: str
    secrets: tuple[str, ...] = ()
    copy_of: str = ""


def plant(world: World, clean: Sequence[Document], per_kind: int) -> tuple[list[Document], dict[str, Planted]]:
    """`per_kind` pages of each kind, and the truth by document id. Ids and source tell no kind."""
    pages: list[Document] = []
    truth: dict[str, Planted] = {}
    for kind in KINDS:
        rng = world.rng(f"noise/{kind}")
        for _ in range(per_kind):
            text, lang, planted = _WRITERS[kind](rng, clean)
            page = Document(id=f"{SOURCE}-{len(pages):05d}", text=text, lang=lang, source=SOURCE)
            pages.append(page)
            truth[page.id] = planted
    return pages, truth


def shuffled(world: World, documents: Sequence[Document]) -> list[Document]:
    """Good and planted pages in one order that says nothing."""
    order = list(documents)
    world.rng("order").shuffle(order)
    return order


@cache
def _lines() -> Mapping[str, Any]:
    value: Mapping[str, Any] = json.loads(files("herd.paddock").joinpath("noise.json").read_text(encoding="utf-8"))
    return value


def _duplicate(rng: Random, clean: Sequence[Document]) -> tuple[str, str, Planted]:
    original = rng.choice([page for page in clean[:: max(1, len(clean) // 500)] if len(page.text.split()) > 60])
    words = original.text.split(" ")
    if rng.random() < 0.5:  # a near copy: one word is another, which leaves 0.8 or more of its five-word runs
        words[rng.randrange(len(words))] = rng.choice(PEOPLE)
    return " ".join(words), original.lang, Planted("duplicate", copy_of=original.id)


def _boilerplate(rng: Random, clean: Sequence[Document]) -> tuple[str, str, Planted]:
    return "\n".join(rng.sample(_lines()["boilerplate"], 10)), "en", Planted("boilerplate")


def _wrong_language(rng: Random, clean: Sequence[Document]) -> tuple[str, str, Planted]:
    """A page whose text is not in the language it says, nor in any of the eight."""
    foreign = _lines()["foreign"]
    sentences = rng.sample(foreign[rng.choice(sorted(foreign))], 7)
    return " ".join(sentences), rng.choice(LANGUAGES), Planted("wrong_language")


def _pii(rng: Random, clean: Sequence[Document]) -> tuple[str, str, Planted]:
    secrets: list[str] = []
    lines = []
    for _ in range(rng.randint(4, 7)):
        name = rng.choice(FOUNDERS)
        mail = f"{name.lower()}.{rng.choice(PEOPLE).lower()}{rng.randint(1, 99)}@mail.example"
        phone = f"+{rng.randint(1, 99)} {rng.randint(100, 999)} {rng.randint(1000, 9999)} {rng.randint(100, 999)}"
        secrets += [mail, phone]
        lines.append(f"{name} {rng.choice(PEOPLE)}, {mail}, {phone}")
    card = _card(rng)
    secrets.append(card)
    lines.append(f"Paid by card {card}")
    return "\n".join(lines), "en", Planted("pii", tuple(secrets))


def _card(rng: Random) -> str:
    """Sixteen digits that pass the Luhn check."""
    digits = [4] + [rng.randrange(10) for _ in range(14)]
    doubled = [d if place % 2 else (d * 2 - 9 if d > 4 else d * 2) for place, d in enumerate(digits)]
    digits.append(-sum(doubled) % 10)
    text = "".join(map(str, digits))
    return " ".join(text[i : i + 4] for i in range(0, 16, 4))


_WRITERS: dict[str, Callable[[Random, Sequence[Document]], tuple[str, str, Planted]]] = {
    "duplicate": _duplicate,
    "boilerplate": _boilerplate,
    "wrong_language": _wrong_language,
    "pii": _pii,
}
