"""Who gets how much of what models read: the recipe's weights, and what is left for sources that it does not name.

    weights {"paddock": 0.9, "stdlib-docs": 0.1}, other 0.2, a user's folders `news` and `letters`
    -> paddock 75 %, stdlib-docs 8.3 %, news 8.3 %, letters 8.3 %

A source that the recipe names gets what it asks, however often that reads it. One that it does not name is read
`READINGS` times at most, or as often as the most repeated source that it names: a handful of pages must not be learnt
by heart because it is alone in its share. Naming it in `mix.weights` lifts that.

What is left of the pages that the paddock plants for curation to catch (near copies that stayed instead of their
originals) is not read, unless `mix.weights` names their source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from herd.corpus.mix import SourceShare
from herd.errors import SettingError
from herd.paddock.noise import SOURCE as PLANTED
from herd.recipe import MixSettings

READINGS = 4.0  # Muennighoff et al. 2023 (arXiv 2305.16264): up to four epochs are nearly as good as new text
MOST_READINGS = 1000  # of any source; beyond it a setting is a mistake, and the list of documents fills the memory
TOLD = 5  # names in a sentence


def shares(settings: MixSettings, sources: Iterable[str]) -> dict[str, float]:
    """Each source's share, sum 1: the recipe's weights; `other` is divided among sources that it does not name."""
    present = list(sources)
    others = [source for source in present if _unnamed(settings, source)]
    other = {source: settings.other / len(others) for source in others}
    weights = {source: settings.weights.get(source, other.get(source, 0.0)) for source in present}
    total = sum(weights.values())
    if total <= 0:
        raise SettingError("no source of the corpus has a weight", where="mix.weights")
    return {source: weight / total for source, weight in weights.items()}


def _unnamed(settings: MixSettings, source: str) -> bool:
    """Whether the source has a part of `other`."""
    return source not in settings.weights and source != PLANTED


def bounded(settings: MixSettings, available: Mapping[str, int]) -> dict[str, float]:
    """`shares` of sources with so many tokens, those without a name held to their readings; the others take the rest.

    Raises SettingError when a source would be read more than `MOST_READINGS` times.
    """
    weights = shares(settings, available)
    weights = _held(weights, settings, available)
    for source, weight in weights.items():
        if weight * settings.tokens > MOST_READINGS * available[source] > 0:
            raise SettingError(
                f"a mix of {settings.tokens:,} tokens would read the source '{source}' "
                f"{weight * settings.tokens / available[source]:,.0f} times: it has {available[source]:,} tokens",
                where="mix.tokens",
                mend="lower mix.tokens or the source's weight in mix.weights, or hand in more documents",
            )
    return weights


def _held(weights: dict[str, float], settings: MixSettings, available: Mapping[str, int]) -> dict[str, float]:
    named = {
        s: settings.tokens * w / available[s] for s, w in weights.items() if s in settings.weights and available[s]
    }
    if not any(named.values()):
        return weights  # nobody else could take the rest
    readings = max(READINGS, *named.values())
    most = {s: readings * available[s] / settings.tokens for s in weights if s not in settings.weights}
    held: dict[str, float] = {}
    while True:
        free = {source: weight for source, weight in weights.items() if source not in held}
        scale = (1 - sum(held.values())) / sum(free.values())
        over = {source: most[source] for source in free if source in most and free[source] * scale > most[source]}
        if not over:
            return {s: held[s] if s in held else free[s] * scale for s in weights} if held else weights
        held |= over


def notes(settings: MixSettings, mixed: Sequence[SourceShare]) -> list[str]:
    """What a user should know of a mix, a sentence each: sources without a name, without documents, read often."""
    told = []
    absent = settings.weights.keys() - {share.source for share in mixed}
    if wanted := sorted(source for source in absent if settings.weights[source] > 0):
        told.append(f"mix.weights names {_names(wanted)}, and no document of the corpus comes from there")
    if unnamed := [share for share in mixed if _unnamed(settings, share.source)]:
        asked = shares(settings, [share.source for share in mixed])
        told.append(_of_unnamed(settings, unnamed, sum(asked[share.source] for share in unnamed)))
    often = sorted((share for share in mixed if share.epochs > 1.5), key=lambda share: -share.epochs)
    if often:
        names = [f"{share.source} {share.epochs:.1f} times" for share in often]
        told.append(f"small for their share, and read again: {_names(names)}")
    return told


def _of_unnamed(settings: MixSettings, unnamed: Sequence[SourceShare], asked: float) -> str:
    got = sum(share.weight for share in unnamed)
    text = f"sources that mix.weights does not name ({_names([share.source for share in unnamed])}) have {got:.1%}"
    if got < asked - 1e-6:
        text += (
            f" of the mix, not the {asked:.1%} of mix.other: they would be read too often; name them to ask for more"
        )
        return text
    return f"{text} of the mix, by mix.other = {settings.other:g}"


def expected(settings: MixSettings, named: Iterable[str], others: bool) -> str:
    """The mix in a line before any document is read; `others`: will there be sources that are not named?"""
    unnamed = "whatever is not named"
    present = [source for source in named if settings.weights.get(source, 0) > 0] + ([unnamed] if others else [])
    parts = [f"{source} {share:.1%}" for source, share in shares(settings, present).items()]
    limit = f" (your documents and other sources; read {READINGS:g} times at most)" if others else ""
    return f"{', '.join(parts)}{limit}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more
