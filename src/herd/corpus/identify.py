"""Language probabilities of many passages at once.

py3langid (naive Bayes over byte n-grams; its model is inside the package) walks an automaton byte by byte in Python.
`probabilities` takes the same steps with the same tables for thousands of passages side by side in numpy; the test
compares it with the package's own answer, which is also the way taken when a version keeps its tables otherwise.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from herd.corpus.records import LANGUAGES

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Candidates beside our eight: the languages of the larger Wikipedias. The creoles and dialects that py3langid also
# knows (pcm, bcl, ext, an, lij, ...) take short English, Spanish and Italian lines away and are left out.
OTHERS = """
ar az be bg bn bs ca cs cy da el eo et eu fa fi ga gl gu he hr hu hy id is ja ka kk km kn ko la lt lv mk ml mr ms my
ne nl no pa pl ps ro ru sk sl sq sr sv sw ta te tl tr uk ur uz vi zh
"""
_TABLES = ("tk_nextmove", "tk_row", "tk_output", "nb_ptc", "nb_pc")
_SIDE_BY_SIDE = 4096  # passages


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # 0.9 s to load: only when needed

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([*LANGUAGES, *OTHERS.split()])
    return identifier


@cache
def languages() -> tuple[str, ...]:
    """The candidate languages, in the order of the columns of `probabilities`."""
    return tuple(dict.fromkeys(_identifier().nb_classes))


def probabilities_one_by_one(passages: Sequence[str]) -> F32:
    """The package's own answer, float32 [passages, languages]: the reference for `probabilities`."""
    columns = {lang: place for place, lang in enumerate(languages())}
    result = np.zeros((len(passages), len(columns)), dtype=np.float32)
    for row, passage in zip(result, passages, strict=True):
        for lang, probability in _identifier().rank(passage):
            row[columns[lang]] = probability
    return result


def probabilities(passages: Sequence[str]) -> F32:
    """Probability of each language for each passage, float32 [passages, languages]; rows sum to 1."""
    if not all(hasattr(_identifier(), name) for name in _TABLES):
        return probabilities_one_by_one(passages)
    data = [_encoded(passage) for passage in passages]
    result = np.zeros((len(passages), len(languages())), dtype=np.float32)
    order = np.argsort([-len(one) for one in data], kind="stable")
    for first in range(0, len(order), _SIDE_BY_SIDE):
        rows = order[first : first + _SIDE_BY_SIDE]
        result[rows] = _together([data[row] for row in rows])
    return result


def _encoded(passage: str) -> bytes:
    """As the package prepares a text."""
    if passage.isupper():
        passage = passage.lower()
    return unicodedata.normalize("NFC", passage).encode("utf-8", "surrogatepass")


@cache
def _tables() -> tuple[I64, I64, I64, F32, F32]:
    """(next state of row + byte, row of a state, feature of a state or -1, feature x class weights, class priors)."""
    found = _identifier()
    moves, rows, features = (np.asarray(getattr(found, name)).astype(np.int64) for name in _TABLES[:3])
    return moves, rows << 8, features, np.asarray(found.nb_ptc, np.float32), np.asarray(found.nb_pc, np.float32)


def _together(data: Sequence[bytes]) -> F32:
    """The same for encoded passages, longest first."""
    moves, rows, features, weights, priors = _tables()
    lengths = np.array([len(one) for one in data])
    matrix = np.zeros((len(data), max(1, int(lengths[0]))), dtype=np.uint8)
    for row, one in zip(matrix, data, strict=True):
        row[: len(one)] = np.frombuffer(one, dtype=np.uint8)
    state = np.zeros(len(data), dtype=np.int64)
    owners, seen = [], []
    for place in range(int(lengths[0])):
        active = int(np.searchsorted(-lengths, -place, side="left"))  # passages longer than `place`
        state[:active] = moves[rows[state[:active]] + matrix[:active, place]]
        feature = features[state[:active]]
        hit = np.flatnonzero(feature >= 0)
        owners.append(hit)
        seen.append(feature[hit])
    scores = _weighed(len(data), owners, seen, weights) + priors
    felt = np.bincount(np.concatenate(owners), minlength=len(data)) if owners else np.zeros(len(data))
    scores[felt == 0] = 0.0  # without one feature every language is as likely
    return _normalised(scores, lengths)


def _weighed(count: int, owners: Sequence[I64], seen: Sequence[I64], weights: F32) -> F32:
    """Sum over a passage's features of log(1 + occurrences) x weights."""
    if not owners:
        return np.zeros((count, weights.shape[1]), dtype=np.float32)
    shape = (count, len(weights))
    occurrences = csr_matrix(
        (np.ones(sum(map(len, seen)), dtype=np.float32), (np.concatenate(owners), np.concatenate(seen))), shape=shape
    )
    occurrences.sum_duplicates()
    occurrences.data = np.log1p(occurrences.data)
    result: F32 = np.asarray(occurrences @ weights, dtype=np.float32)
    return result


def _normalised(scores: F32, lengths: I64) -> F32:
    """Softmax at the package's temperature, sqrt(bytes); labels that stand twice are joined."""
    roots = np.sqrt(np.maximum(lengths, 1)).astype(np.float32)
    chances: F32 = np.divide(scores, roots[:, None], dtype=np.float32)
    chances = np.exp(chances - chances.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    columns = {lang: place for place, lang in enumerate(languages())}
    joined = np.zeros((len(scores), len(columns)), dtype=np.float32)
    for place, lang in enumerate(_identifier().nb_classes):
        joined[:, columns[lang]] += chances[:, place]
    return joined
