"""Personal data: e-mail addresses, telephone numbers, IP addresses, payment cards.

Patterns, not a named-entity model: names and street addresses pass. Numbers are easily mistaken, so a telephone number
needs a country prefix or the grouping of one, a card the Luhn check digit, an IP address four octets that are not the
machine itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from herd.corpus.records import Document
from herd.corpus.step import KEEP, Verdict, drop, edit

_EMAIL = re.compile(r"\b[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,24}\b")
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]?\d)")
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d-])")
_PHONE = re.compile(
    r"""(?<![\w.,/=-])(?:
        (?:\+|00)\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{1,4}(?:[ .\-/]?\d{2,5}){1,5}   # +49 30 1234567
      | \(\d{2,5}\)[ .\-]?\d{2,5}(?:[ .\-]\d{2,5}){1,3}                                  # (555) 123-4567
      | 0\d{1,4}[ /\-]\d{2,4}(?:[ \-]?\d{2,5}){1,3}                                      # 030 123 4567
      | \d{3}[-. ]\d{3}[-. ]\d{4}                                                        # 555-123-4567
      | 0\d(?:[ .]\d{2}){4}                                                              # 01 23 45 67 89
    )(?![\w/-]|[.,]\d)""",
    re.VERBOSE,
)
_LONG_NUMBER = re.compile(r"[\d+(][\d ().\-/]{5,}\d")  # shorter than an IP address, a telephone number or a card
_OWN_MACHINE = ("127.", "0.", "255.")
_MIN_PHONE_DIGITS, _MAX_PHONE_DIGITS = 9, 15  # ITU-T E.164: at most 15


def luhn(digits: str) -> bool:
    """ISO/IEC 7812 check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_card(match: str) -> bool:
    digits = re.sub(r"\D", "", match)
    return digits[0] in "3456" and len(set(digits)) > 1 and luhn(digits)


def _is_ip(match: str) -> bool:
    return all(int(part) <= 255 for part in match.split(".")) and not match.startswith(_OWN_MACHINE)


def _is_phone(match: str) -> bool:
    digits = re.sub(r"\D", "", match)
    return _MIN_PHONE_DIGITS <= len(digits) <= _MAX_PHONE_DIGITS and len(set(digits)) > 2


def _is_email(match: str) -> bool:
    return True


_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", _EMAIL, _is_email),
    ("card", _CARD, _is_card),
    ("ip", _IP, _is_ip),
    ("phone", _PHONE, _is_phone),
)


def _suspects(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of the lines that hold an @ or a long run of digits: the patterns look at no others."""
    places = [match.start() for match in _LONG_NUMBER.finditer(text)]
    at = text.find("@")
    while at >= 0:
        places.append(at)
        at = text.find("@", at + 1)
    end = 0
    for place in sorted(places):
        if place >= end:
            start = text.rfind("\n", 0, place) + 1
            end = text.find("\n", place)
            end = len(text) if end < 0 else end
            yield start, end


def mask(text: str) -> tuple[str, dict[str, int], int]:
    """(text with <email>, <card>, <ip>, <phone> in place of each find, counts by kind, characters masked)."""
    counts: Counter[str] = Counter()
    parts, done, covered = [], 0, 0
    for start, end in _suspects(text):
        line = text[start:end]
        for kind, pattern, proved in _KINDS:
            found = [match for match in pattern.finditer(line) if proved(match.group())]
            for match in reversed(found):
                line = f"{line[: match.start()]}<{kind}>{line[match.end() :]}"
                counts[kind] += 1
                covered += len(match.group())
        parts += [text[done:start], line]
        done = end
    return ("".join([*parts, text[done:]]), dict(counts), covered) if counts else (text, {}, 0)


class Pii:
    """Mask personal data; drop the pages that are mostly made of it."""

    name = "pii"

    def __init__(self, mode: str = "auto", page_fraction: float = 0.10, page_hits: int = 3) -> None:
        self._mode, self._page_fraction, self._page_hits = mode, page_fraction, page_hits

    def judge(self, document: Document) -> Verdict:
        text, counts, covered = mask(document.text)
        if not counts:
            return KEEP
        detail = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        hits, fraction = sum(counts.values()), covered / len(document.text)
        page = hits >= self._page_hits and fraction >= self._page_fraction
        if self._mode == "drop" or (self._mode == "auto" and page):
            return drop("pii_page" if page else "pii", f"{detail}: {fraction:.0%} of the text")
        return edit(replace(document, text=text), "masked", detail)
