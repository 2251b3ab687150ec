"""A linear classifier of texts over hashed words and word pairs: the kind that fastText is, in numpy and scipy.

    classifier, check = train(texts, labels, ClassifierSettings())
    classifier.probabilities(["some page"])            # float32 [texts, labels]
    classifier.save(path); TextClassifier.load(path)   # .npz

Joulin et al. 2016 (fastText) average an embedding of each word and word pair of a hash table, and put a softmax on it.
Without the embeddings between, the problem is convex: L-BFGS finds the one optimum, the same on every machine, with
nothing to choose but the penalty. A text is log(1 + count) of its hashes, scaled to length one; labels count alike
however many texts they have. A tenth of the texts is held out by their hashes and says what the classifier is worth:
one that is not surely better than always giving the most frequent label is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from scipy.sparse import csr_matrix

from herd.config import need
from herd.corpus.arrays import kept_arrays
from herd.corpus.chance import drawn
from herd.corpus.words import ngram_hashes, units
from herd.errors import InputError, NoEffectError
from herd.files import atomic_file

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_FORMAT = 1
_FEWEST = 20  # texts of a label
_HELD_OUT = 0.1  # of the texts
_Z = 1.96


@dataclass(frozen=True)
class ClassifierSettings:
    """All of these are herd's choice; the paper says that its filters' settings were found by experiments."""

    bits: int = 18  # of the hash table: 2^bits features
    ngrams: int = 2  # words in a row; fastText's quality models use pairs
    characters: int = 20_000  # of a text that are looked at, from its beginning
    penalty: float = 1e-3  # on the squared weights, of the mean loss
    iterations: int = 200

    def __post_init__(self) -> None:
        need(self, "bits", 8 <= self.bits <= 24, "8 to 24")
        need(self, "ngrams", 1 <= self.ngrams <= 5, "1 to 5")
        need(self, "characters", self.characters >= 100, "at least 100")
        need(self, "penalty", self.penalty >= 0, "0 or more")
        need(self, "iterations", self.iterations >= 1, "at least 1")


@dataclass(frozen=True)
class Check:
    """What held-out texts say: `right` of `texts`, the share of the most frequent label, and recall by label."""

    texts: int
    right: int
    most_frequent: float
    recall: dict[str, float]

    @property
    def accuracy(self) -> float:
        return self.right / self.texts

    @property
    def useful(self) -> bool:
        """Whether the accuracy is above the most frequent label's share by more than chance gives (95 %)."""
        spread = _Z * (self.most_frequent * (1 - self.most_frequent) / self.texts) ** 0.5
        return bool(self.accuracy > min(self.most_frequent + spread, 1 - 1e-9))


@dataclass(frozen=True, eq=False)
class TextClassifier:
    """`weights` float32 [2^bits, labels], `bias` [labels]."""

    labels: Sequence[str]
    weights: F32
    bias: F32
    settings: ClassifierSettings

    def probabilities(self, texts: Sequence[str]) -> F32:
        """Of each text and label, float32 [texts, labels]; rows sum to one. A text without words has the prior's."""
        scores = features(texts, self.settings) @ self.weights + self.bias
        return np.asarray(special.softmax(scores, axis=1), np.float32)

    def probability(self, text: str, label: str) -> float:
        return float(self.probabilities([text])[0, self.column(label)])

    def column(self, label: str) -> int:
        """Raises InputError for a label that it does not know."""
        if label not in self.labels:
            raise InputError(f"this classifier has no label '{label}'", mend="one of: " + ", ".join(self.labels))
        return list(self.labels).index(label)

    def save(self, path: Path) -> None:
        s = self.settings
        numbers = np.asarray([s.bits, s.ngrams, s.characters, s.iterations], np.int64)
        with atomic_file(path) as handle:
            np.savez_compressed(
                handle,
                format=np.int64(_FORMAT),
                numbers=numbers,
                penalty=np.float64(s.penalty),
                labels=np.asarray(self.labels, dtype=np.str_),
                weights=self.weights,
                bias=self.bias,
            )

    @staticmethod
    def load(path: Path) -> TextClassifier:
        """Raises ArtifactError for a file that is missing, cut short, or no classifier of this herd."""
        with kept_arrays(path, "classifier of texts", _FORMAT, "train it again") as stored:
            bits, ngrams, characters, iterations = map(int, stored["numbers"])
            settings = ClassifierSettings(bits, ngrams, characters, float(stored["penalty"]), iterations)
            labels, weights, bias = stored["labels"].tolist(), stored["weights"], stored["bias"]
            if weights.shape != (1 << bits, len(labels)) or bias.shape != (len(labels),):
                raise ValueError("its parts do not fit together")
        return TextClassifier(labels, weights.astype(np.float32), bias.astype(np.float32), settings)


def features(texts: Sequence[str], settings: ClassifierSettings) -> csr_matrix:
    """Rows of length one (or zero, without words), float32 [texts, 2^bits]."""
    columns: list[I64] = []
    values: list[F32] = []
    for text in texts:
        hashes = units(text[: settings.characters]).hashes
        runs = [ngram_hashes(hashes, n) for n in range(1, settings.ngrams + 1) if len(hashes) >= n]
        joined = np.concatenate(runs) if runs else hashes
        found, counts = np.unique(joined >> np.uint64(64 - settings.bits), return_counts=True)
        row = np.log1p(counts).astype(np.float32)
        columns.append(found.astype(np.int64))
        values.append(row / max(float(np.linalg.norm(row)), 1e-9))
    starts = np.cumsum([0, *(len(part) for part in columns)])
    flat, places = np.concatenate([np.empty(0, np.float32), *values]), np.concatenate([starts[:0], *columns])
    return csr_matrix((flat, places, starts), shape=(len(texts), 1 << settings.bits))


def train(
    texts: Sequence[str], labels: Sequence[str], settings: ClassifierSettings | None = None
) -> tuple[TextClassifier, Check]:
    """A classifier, and what held-out texts say of it. The same texts and labels give the same weights.

    Raises InputError for one label only or a label with too few texts, NoEffectError for one that learnt nothing.
    """
    settings = settings or ClassifierSettings()
    names = sorted(set(labels))
    _enough(texts, labels, names)
    targets = np.asarray([names.index(label) for label in labels], np.int64)
    apart = np.asarray([_is_held_out(text) for text in texts])
    matrix = features(texts, settings)
    classifier = _fitted(matrix[~apart], targets[~apart], names, settings)
    check = _checked(classifier, matrix[apart], targets[apart])
    if not check.useful:
        raise NoEffectError(
            f"the classifier is right on {check.accuracy:.0%} of {check.texts} held-out texts, where always saying "
            f"'{names[int(np.bincount(targets).argmax())]}' is right on {check.most_frequent:.0%}",
            mend="more texts, or labels that the words of a text can tell",
        )
    return classifier, check


def _enough(texts: Sequence[str], labels: Sequence[str], names: Sequence[str]) -> None:
    if len(texts) != len(labels):
        raise InputError(f"{len(texts)} texts have {len(labels)} labels")
    if len(names) < 2:
        raise InputError("a classifier needs texts of at least two labels", where=", ".join(names) or "no label")
    for name in names:
        mine = [text for text, label in zip(texts, labels, strict=True) if label == name]
        held_out = sum(map(_is_held_out, mine))
        if len(mine) < _FEWEST or not 0 < held_out < len(mine):
            raise InputError(
                f"{len(mine)} texts are labelled '{name}': too few to learn from and to check with",
                mend=f"at least {_FEWEST} different ones, better thousands",
            )


def _is_held_out(text: str) -> bool:
    """By the text alone: copies of a text are never on both sides."""
    return drawn("held out", text) < _HELD_OUT


def _fitted(matrix: csr_matrix, targets: I64, names: Sequence[str], settings: ClassifierSettings) -> TextClassifier:
    """The optimum of the weighted cross-entropy and the penalty."""
    rows, columns, count = *matrix.shape, len(names)
    wide, flipped = matrix.astype(np.float64), matrix.astype(np.float64).T.tocsr()
    per_text = (1.0 / (count * np.bincount(targets, minlength=count)))[targets]

    def loss(flat: F64) -> tuple[float, F64]:
        weights, bias = flat[:-count].reshape(columns, count), flat[-count:]
        logs = special.log_softmax(wide @ weights + bias, axis=1)
        value = -float(per_text @ logs[np.arange(rows), targets]) + settings.penalty * float(np.vdot(weights, weights))
        error = np.exp(logs)
        error[np.arange(rows), targets] -= 1.0
        error *= per_text[:, None]
        return value, np.concatenate([(flipped @ error + 2 * settings.penalty * weights).ravel(), error.sum(0)])

    found = optimize.minimize(
        loss, np.zeros(columns * count + count), jac=True, method="L-BFGS-B", options={"maxiter": settings.iterations}
    )
    weights = found.x[:-count].reshape(columns, count).astype(np.float32)
    return TextClassifier(names, weights, found.x[-count:].astype(np.float32), settings)


def _checked(classifier: TextClassifier, matrix: csr_matrix, targets: I64) -> Check:
    said = np.argmax(matrix @ classifier.weights + classifier.bias, axis=1)
    counts = np.bincount(targets, minlength=len(classifier.labels))
    recall = {name: float(np.mean(said[targets == number] == number)) for number, name in enumerate(classifier.labels)}
    return Check(len(targets), int((said == targets).sum()), float(counts.max() / len(targets)), recall)
