"""The YAML between the `---` lines of a model card, by which the hub files a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herd.errors import MissingExtraError
from herd.release.facts import Facts
from herd.release.licences import header_of
from herd.release.lineage import Lineage

if TYPE_CHECKING:
    from herd.release.card import Card


def header(card: Card) -> str:
    """The YAML between the `---` lines."""
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    bases = [card.facts.adapter_of] if card.facts.adapter_of else _bases(card.lineage)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=row.suite.split()[0],
            dataset_name=f"{row.suite}: {row.task}",
            dataset_config=row.task,  # rows of one dataset and config are drawn together
            metric_type=row.metric.replace(" ", "_"),
            metric_value=round(row.value, 4),
        )
        for row in card.scores
    ]
    licence: dict[str, Any] = dict(header_of(card.licence))
    data = ModelCardData(
        language=list(card.languages) or None,
        **licence,
        library_name="peft" if card.facts.adapter_of else "gguf" if card.facts.ggufs else "transformers",
        pipeline_tag="text-generation",
        base_model=(bases[0] if len(bases) == 1 else bases) or None,
        base_model_relation=_relation(card) if bases else None,
        datasets=_datasets(card.lineage) or None,
        tags=["llama", "herd", *format_tags(card.facts)],
        eval_results=results or None,
        model_name=card.name if results else None,
    )
    return str(data.to_yaml()).strip() + "\n"


def format_tags(facts: Facts) -> list[str]:
    """The tags by which the hub knows number format and layout."""
    if facts.ggufs:
        return ["gguf"]
    in_layout = facts.fp8 is not None and facts.fp8.method == "compressed-tensors"
    return ["fp8", *(["compressed-tensors"] if in_layout else [])] if facts.fp8 else []


def _bases(lineage: Lineage) -> list[str]:
    return [one.name for one in lineage.origins if one.use == "weights" and one.name.count("/") == 1]


def _relation(card: Card) -> str:
    if card.facts.adapter_of:
        return "adapter"
    trained = any(step.made.get("stage") or step.made.get("objective") for step in card.lineage.steps)
    return "quantized" if (card.facts.fp8 or card.facts.ggufs) and not trained else "finetune"


def _datasets(lineage: Lineage) -> list[str]:
    hub = lineage.step("hub")
    return list(dict.fromkeys(str(one.get("repo")) for one in (hub.metrics.get("datasets") or []))) if hub else []
