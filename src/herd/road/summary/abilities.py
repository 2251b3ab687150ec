"""The announcement's lines about what the models can do: languages, tools, context, the five abilities it names."""

from __future__ import annotations

from herd.evaluate.statistics import Interval
from herd.files import read_json
from herd.paddock.settings import LANGUAGES
from herd.report.data import AnnouncementLine
from herd.report.numbers import count, score
from herd.road.summary.folders import Folders, as_score
from herd.road.summary.training import phases
from herd.road.summary.verdicts import left_open, of_scores

# As the announcement lists them for the largest model, and what it says of the smaller ones.
FLAGSHIP = ("knowledge", "steerability", "math", "tool_use", "translation")
SMALLER = ("math", "tool_use", "translation")


def abilities(folders: Folders) -> tuple[AnnouncementLine, ...]:
    shows = folders.command(f"scores-{folders.flagship}", "results_*.json")
    return (
        of_scores(
            "General knowledge, steerability, mathematics, tool use and translation are strengths of the flagship",
            _capabilities(folders, folders.flagship, FLAGSHIP),
            shows,
        ),
        eight_languages(folders, shows),
        of_scores("Models call tools", _capabilities(folders, folders.flagship, ("tool_use",)), shows),
        of_scores(
            "Models follow instructions more closely",
            _capabilities(folders, folders.flagship, ("steerability",)),
            shows,
        ),
        of_scores(
            "The smaller models, too, are multilingual, use tools and reason",
            _capabilities(folders, "small-taught", SMALLER),
            folders.command("scores-small-taught", "results_*.json"),
        ),
        long_context(folders),
    )


def eight_languages(folders: Folders, command: str) -> AnnouncementLine:
    """All eight must be in the suite; a language that is missing is a line that does not hold."""
    claim = "Eight languages: English, German, French, Italian, Portuguese, Hindi, Spanish, Thai"
    result = folders.results.get(folders.flagship)
    if result is None:
        return left_open(claim)
    line = of_scores(claim, result.by_language(), command)
    missing = [lang for lang in LANGUAGES if lang not in result.by_language()]
    if not missing:
        return line
    return AnnouncementLine(claim, command, f"{line.measured}; not in the suite: {', '.join(missing)}", False)


def long_context(folders: Folders) -> AnnouncementLine:
    """The network takes the length; whether the model uses it is not measured at that length, so the line is open."""
    claim = "A context of 128K tokens"
    path = folders.paths.get(folders.flagship)
    if path is None or not (path / "config.json").is_file():
        return left_open(claim)
    takes = read_json(path / "config.json").get("max_position_embeddings")
    settings = [folders.made(name).get("settings", {}) for name in phases(folders, "flagship")]
    trained = max((one["train"]["seq_len"] for one in settings if "train" in one), default=None)
    told = f"the flagship's network takes {count(takes)} positions; it was trained on sequences of {count(trained)}"
    inside = _capabilities(folders, folders.flagship, ("long_context",)).get("long_context")
    if inside is not None:
        told += f", and on the suite's long documents scores {score(as_score(inside))}"
    return left_open(claim, told, f"python -m json.tool {folders.home}/flagship/config.json")


def _capabilities(folders: Folders, model: str, names: tuple[str, ...]) -> dict[str, Interval]:
    result = folders.results.get(model)
    found = result.by_capability() if result else {}
    return {name: found[name] for name in names if name in found}
