"""Areas of knowledge: which a document belongs to, and how much of an over-represented one stays.

    tokens = {"arts": 310, "science": 120, ...}                    # of a corpus, by the classifier's labels
    TopicShares(classifier, kept_shares(tokens, {"arts": 0.15}))   # the step that lets the rest go

Llama 3, section 3.1.2: a classifier of knowledge areas finds what the web has too much of (arts and entertainment), and
that is downsampled. Which areas, and how far, was not published: both are settings. A document goes by the hash of its
id alone, so what stays does not depend on the order of documents, on workers, or on what else is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from herd.corpus.chance import drawn
from herd.corpus.quality.classifier import TextClassifier
from herd.corpus.records import Document
from herd.corpus.step import KEEP, Verdict, drop
from herd.errors import SettingError


def kept_shares(tokens: Mapping[str, float], most: Mapping[str, float]) -> dict[str, float]:
    """Of each topic the share of its tokens that stays, so that none is more than `most[topic]` of what is left.

    Topics without a limit stay whole; limits that the others already keep take nothing. Raises SettingError for limits
    that no corpus could hold to: of topics that are not there, outside 0..1, or of all topics and below one together.
    """
    unknown = set(most) - set(tokens)
    if unknown or not all(0 <= limit <= 1 for limit in most.values()):
        raise SettingError(
            f"limits of topics are shares from 0 to 1 of topics that are there; not {dict(most)}",
            where=", ".join(sorted(unknown)),
            mend="topics: " + ", ".join(sorted(tokens)),
        )
    limited: set[str] = set()
    while True:
        free = sum(count for topic, count in tokens.items() if topic not in limited)
        room = 1.0 - sum(most[topic] for topic in limited)
        if limited and (room <= 1e-12 or free <= 0) and any(tokens[topic] for topic in limited):
            raise SettingError(
                f"the limits of {', '.join(sorted(limited))} leave nothing that the others could fill",
                where="topics",
                mend="raise a limit, or leave one topic without",
            )
        total = free / room
        over = {t for t in most if t not in limited and tokens[t] > most[t] * total * (1 + 1e-12)}
        if not over:
            return {t: min(1.0, most[t] * total / tokens[t]) if t in limited else 1.0 for t in tokens}
        limited |= over


@dataclass(frozen=True)
class TopicShares:
    """Keeps of each topic the share of documents that `kept` says; others are kept whole."""

    classifier: TextClassifier
    kept: Mapping[str, float]
    seed: int = 0
    name: str = "topic_shares"

    def topic(self, text: str) -> str:
        return self.classifier.labels[int(self.classifier.probabilities([text])[0].argmax())]

    def judge(self, document: Document) -> Verdict:
        topic = self.topic(document.text)
        share = self.kept.get(topic, 1.0)
        if share >= 1.0 or drawn(self.seed, "topic", document.id) < share:
            return KEEP
        return drop("over_represented", f"{topic}, of which {share:.0%} stays")
