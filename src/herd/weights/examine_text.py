"""The look at what a model reads and writes, for `herd inspect`: tokenizer, chat template, end tokens."""

from __future__ import annotations

from herd.errors import HerdError
from herd.files import read_json
from herd.weights.examination import DOWNLOAD, Examination, Fault
from herd.weights.gguf_tokenizer import GgufTokenizer
from herd.weights.registry import tokenizer_of
from herd.weights.stored import StoredModel


def look_at_text(report: Examination, model: StoredModel) -> None:
    """Tokenizer, template and end tokens."""
    ids, template = _special_ids(report, model), _template(model)
    report.template = template
    _look_at_template(report, model)
    if not model.files.keys() & {"tokenizer.json", "tokenizer.model"} and model.tokenizer is None:
        report.wrong.append(Fault("no tokenizer is here", "put the model's tokenizer.json beside it"))
    if not model.stops:
        report.wrong.append(
            Fault("no end token is stated: answers will not stop", "state eos_token_id in generation_config.json")
        )
    rows = range(model.config.vocab_size)
    beyond = [token for token in (model.bos, *model.stops) if token is not None and token not in rows]
    if beyond:
        report.wrong.append(
            Fault(f"begin or end tokens {beyond} are no rows of the embedding", "state those of this model's tokenizer")
        )
    talks = bool(template) or len(model.stops) > 1
    eot = ids.get("<|eot_id|>")
    if talks and eot is not None and model.stops and eot not in model.stops:
        report.wrong.append(
            Fault(
                f"generation does not stop at <|eot_id|> ({eot}), with which every chat turn ends",
                f"set eos_token_id in generation_config.json to {sorted({*model.stops, eot})}",
            )
        )
    if not template:
        told = "this is how a base model is shipped" if len(model.stops) < 2 else "chat programs will guess"
        fault = Fault(f"no chat template: {told}", "take tokenizer_config.json of the released instruct model")
        report.wrong.append(fault) if len(model.stops) > 1 and model.tokenizer is None else report.notes.append(
            fault.what
        )


def _special_ids(report: Examination, model: StoredModel) -> dict[str, int]:
    """The special tokens of tokenizer.json, whose size is compared with the embedding on the way."""
    if "tokenizer.json" not in model.files:
        report.tokenizer = ", ".join(name for name in model.files if name.startswith("tokenizer.")) or (
            "inside the file" if model.tokenizer else "none"
        )
        return {}
    try:
        content = read_json(model.files["tokenizer.json"])
        added = {token["content"]: int(token["id"]) for token in content["added_tokens"]}
        size = max(max(content["model"]["vocab"].values(), default=-1), max(added.values(), default=-1)) + 1
    except (HerdError, KeyError, TypeError, ValueError, AttributeError) as error:
        report.wrong.append(Fault(f"tokenizer.json cannot be read: {error}", DOWNLOAD))
        return {}
    report.tokenizer = f"tokenizer.json, {size:,} ids"
    if size > model.config.vocab_size:
        report.wrong.append(
            Fault(
                f"the tokenizer has {size:,} ids and the embedding {model.config.vocab_size:,} rows",
                "model and tokenizer do not belong together",
            )
        )
    return added


def _look_at_template(report: Examination, model: StoredModel) -> None:
    """Whether conversations are written by the model's own template, and in what that differs from herd's format."""
    try:
        tokenizer = tokenizer_of(model)
    except HerdError:
        return  # said where the tokenizer is looked at
    try:
        if tokenizer.foreign_format is not None:
            report.notes += tokenizer.foreign_format.told(indent="").split("\n")
    except HerdError as error:
        report.wrong.append(Fault(error.message, error.mend))


def _template(model: StoredModel) -> str:
    """Where a chat template stands, "" for none."""
    if isinstance(model.tokenizer, GgufTokenizer):
        return "inside the file" if model.tokenizer.template else ""
    if "chat_template.jinja" in model.files:
        return f"chat_template.jinja, {model.files['chat_template.jinja'].stat().st_size:,} bytes"
    if "tokenizer_config.json" in model.files:
        try:
            content = read_json(model.files["tokenizer_config.json"])
        except HerdError:
            return ""
        if isinstance(content, dict) and content.get("chat_template"):
            return "in tokenizer_config.json"
    return ""
