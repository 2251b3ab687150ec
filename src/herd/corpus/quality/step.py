"""The curation step that asks a classifier: documents below a probability go, each language by its own classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from herd.corpus.quality.classifier import TextClassifier
from herd.corpus.records import Document
from herd.corpus.step import KEEP, Verdict, drop


@dataclass(frozen=True)
class ModelQuality:
    """Keeps what a classifier gives `label` with at least `least`. Llama 3, section 3.1.1, "model-based quality".

    `by_lang` names classifiers by language; "" is for all others. A language without one is not judged.
    """

    by_lang: Mapping[str, TextClassifier]
    label: str
    least: float = 0.5
    name: str = "model_quality"

    def judge(self, document: Document) -> Verdict:
        classifier = self.by_lang.get(document.lang) or self.by_lang.get("")
        if classifier is None:
            return KEEP
        found = classifier.probability(document.text, self.label)
        return KEEP if found >= self.least else drop(f"not_{self.label}", f"{found:.2f}, at least {self.least:.2f}")
