"""The model card: README.md with the YAML header that the hub reads, written from what is recorded, nothing else.

What a section cannot know it says, so that a reader can tell "not measured" from "forgotten".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from herd.release.agreement import NOTICE_FILE, Bond
from herd.release.energy import Energy
from herd.release.facts import Facts
from herd.release.fp8 import fp8_lines, quality_lines
from herd.release.header import header
from herd.release.lineage import Lineage, Step
from herd.release.scores import Row

_NAMES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "it": "Italian",
    "pt": "Portuguese",
    "hi": "Hindi",
    "es": "Spanish",
    "th": "Thai",
}
# Meta's model card of Llama 3.1: GPU hours on H100-80GB of 700 W, and location-based tons of CO2eq.
_BASES = {"8b": ("1.46M", 420), "70b": ("7.0M", 2040), "405b": ("30.84M", 8930)}


_CARE = "A language model states false things with confidence. Check what it says before you rely on it."


@dataclass(frozen=True)
class Card:
    """All that goes into a card. `about` is the publisher's own Markdown, placed first."""

    repo: str
    licence: str
    bond: Bond
    lineage: Lineage
    facts: Facts
    scores: tuple[Row, ...]
    energy: Energy
    languages: tuple[str, ...]
    about: str = ""

    @property
    def name(self) -> str:
        return self.repo.rpartition("/")[2]


def write_card(card: Card) -> str:
    """The whole README.md."""
    sections = (
        _opening(card),
        _section("Model", _model(card)),
        _section("Lineage", _lineage(card)),
        _section("Scores", _scores(card)),
        _section("Energy", _energy(card)),
        _section("Licence", _licence(card)),
        _section("Use", _use(card)),
    )
    return f"---\n{header(card)}---\n\n" + "\n\n".join(sections) + "\n"


def _section(title: str, lines: Iterator[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines)


def _opening(card: Card) -> str:
    lines = [f"# {card.name}"]
    if card.bond.agreement:
        lines.append(f"**{card.bond.agreement.display}**")
    if card.about:
        lines.append(card.about.strip())
    return "\n\n".join(lines)


def _model(card: Card) -> Iterator[str]:
    facts = card.facts
    if facts.adapter_of:
        yield f"- An adapter (PEFT layout) for `{facts.adapter_of}`."
        return
    config = facts.config
    context = config.get("max_position_embeddings") or 0
    yield (
        f"- Llama 3.1 architecture, {facts.parameters:,} parameters: {config.get('num_hidden_layers')} layers of width "
        f"{config.get('hidden_size')}, {config.get('num_attention_heads')} query heads, "
        f"{config.get('num_key_value_heads')} key/value heads; context {context:,} tokens."
    )
    if facts.ggufs:
        yield "- Format: GGUF, as llama.cpp and its kin read it:"
        yield from (f"  - `{name}`, {_size(size)}" for name, size in facts.ggufs.items())
        yield f"- Languages: {_named(card.languages)}."
        return
    total = sum(facts.bytes_by_dtype.values())
    parts = ", ".join(f"{name} {_size(size)}" for name, size in sorted(facts.bytes_by_dtype.items()))
    yield f"- Format: Hugging Face folder with safetensors, {_size(total)} ({parts})."
    if facts.fp8:
        yield from fp8_lines(facts.fp8)
        yield from quality_lines(facts.quality)
    else:
        yield "- Not quantised."
    yield f"- Languages: {_named(card.languages)}."


def _named(languages: tuple[str, ...]) -> str:
    return ", ".join(_NAMES.get(code, code) for code in languages) or "not recorded"


def _size(count: int) -> str:
    unit, scale = next((one for one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if count >= one[1]), ("bytes", 1.0))
    return f"{count / scale:,.4g} {unit}"


def _lineage(card: Card) -> Iterator[str]:
    lineage = card.lineage
    for origin in lineage.origins:
        what = "Trained on outputs of" if origin.use == "outputs" else "Made from the weights of"
        at = f" at commit `{origin.commit[:12]}`" if origin.commit else ""
        licence = f", licence `{origin.licence}`" if origin.licence else ""
        yield f"- {what} `{_last(origin.name, 2)}`{at}{licence}."
    if lineage.own_texts:
        named = ", ".join(f"`{name}`" for name in lineage.own_texts)
        yield f"- Texts of the publisher's own, not published here: {named}."
    if lineage.gaps:
        named = ", ".join(f"`{_last(gap, 2)}`" for gap in lineage.gaps)
        yield f"- Named, but not found when this card was written: {named}."
    documents = lineage.step("documents")
    if documents and documents.metrics.get("by_source"):
        told = ", ".join(f"{name} {count:,}" for name, count in documents.metrics["by_source"].items())
        yield f"- Documents by source: {told}."
    hub = lineage.step("hub")
    for one in (hub.metrics.get("datasets") or []) if hub else []:
        yield f"- Dataset `{one.get('repo')}` at commit `{str(one.get('commit'))[:12]}`."
    shards = lineage.step("shards")
    if shards:
        weights = shards.settings.get("weights") or {}
        mix = ", ".join(f"{name} {share:g}" for name, share in weights.items())
        yield f"- Shards: {shards.metrics.get('train_tokens', 0):,} training tokens; weights of the mix: {mix}."
    stages = [step for step in lineage.steps if step.made.get("stage")]
    if stages:
        yield "\n| stage | id | herd | time | figures |\n|---|---|---|---|---|"
        for step in stages:
            yield _row(step)
        yield "\nEvery setting of every stage is in `herd.json`."
    if not stages and not lineage.origins:
        yield "\nWhat else went into it is not recorded."


def _row(step: Step) -> str:
    figures = [
        f"{name.replace('_', ' ')} {value:,.4g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value:,}"
        for name, value in step.metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    made, told = step.made, ", ".join(figures[:4])
    cells = (
        step.name,
        f"`{made.get('key', '')}`",
        made.get("herd_version", ""),
        f"{made.get('seconds', 0):,.0f} s",
        told,
    )
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: object) -> str:
    """Text that stays within its cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _scores(card: Card) -> Iterator[str]:
    if not card.scores:
        yield "Not measured for this publication."
        return
    yield "| task | metric | score | 95 % interval | items |\n|---|---|---|---|---|"
    for row in card.scores:
        interval = "not known" if row.low is None or row.high is None else f"{row.low:.1%} to {row.high:.1%}"
        yield f"| {_cell(row.task)} | {_cell(row.metric)} | {row.value:.1%} | {interval} | {row.n or ''} |"
    yield f"\nSuite: {', '.join(dict.fromkeys(row.suite for row in card.scores))}."


def _energy(card: Card) -> Iterator[str]:
    yield card.energy.sentence()
    for origin in card.lineage.origins:
        size = next((s for s in _BASES if f"-{s}" in origin.name.lower() and "3.1" in origin.name), None)
        if size:
            hours, tons = _BASES[size]
            yield (
                f"\nNot in that figure: the training of `{_last(origin.name, 2)}`, for which Meta's model card states "
                f"{hours} GPU hours (H100-80GB, 700 W) and {tons:,} tons of CO2eq, location-based."
            )
        elif origin.use == "weights":
            yield f"\nNot in that figure: what the making of `{_last(origin.name, 2)}` took."


def _licence(card: Card) -> Iterator[str]:
    agreement = card.bond.agreement
    if agreement is None:
        yield f"`{card.licence}`. No weights and no outputs of a Llama model of Meta's are recorded in this model."
        return
    yield f"**{agreement.display}.** {agreement.notice}"
    reasons = [one for one in card.bond.reasons if one.endswith("went into it")] or card.bond.reasons
    yield f"\nThis licence applies because {'; '.join(reasons)}. The agreement is in `LICENSE`, its notice in"
    yield f"`{NOTICE_FILE}`. Use must keep to the [Acceptable Use Policy]({agreement.policy})."


def _use(card: Card) -> Iterator[str]:
    if card.facts.adapter_of:
        yield "```python\nfrom peft import AutoPeftModelForCausalLM"
        yield f'model = AutoPeftModelForCausalLM.from_pretrained("{card.repo}")\n```'
        return
    if card.facts.ggufs:
        file = next(iter(card.facts.ggufs))
        yield f"```sh\nllama-cli -hf {card.repo}\n"
        yield f"herd pull {card.repo} --only '{file}' && herd chat models/{card.name}\n```"
        yield f"\n{_CARE}"
        return
    yield f"```sh\nherd pull {card.repo} && herd chat models/{card.name}\n```\n"
    yield "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer"
    yield f'model = AutoModelForCausalLM.from_pretrained("{card.repo}")'
    yield f'tokenizer = AutoTokenizer.from_pretrained("{card.repo}")\n```'
    yield f"\n{_CARE}"


def _last(path: str, parts: int = 1) -> str:
    """A name without this machine's folders in front of it."""
    return (
        path if path.count("/") < parts and not path.startswith("/") else "/".join(path.rstrip("/").split("/")[-parts:])
    )
