"""A run's folders made by hand: every stage of a small recipe with the files that the summary reads, no training.

`make_run(root)` is a run in which every claim holds; `rescore`, `change` and `drop` spoil one thing at a time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from herd.corpus.mix import SourceShare
from herd.corpus.shards import ShardWriter
from herd.evaluate.harness import RunInfo, save_results
from herd.evaluate.suite import Item, SuiteResult
from herd.files import write_json, write_jsonl
from herd.generate.protocol import Sampling
from herd.paddock.settings import CAPABILITIES, FOLLOW_UP, LANGUAGES, TURNS

ITEMS = 5  # a cell of capability and language
KINDS = ("duplicate", "boilerplate", "wrong_language", "pii")

# Share of right answers by model; one number for all capabilities.
GOOD = {
    "flagship-base": 0.05,
    "flagship-start": 0.60,
    "round-1": 0.75,
    "round-2": 0.85,
    "flagship-fp8": 0.85,
    "small-alone": 0.40,
    "small-taught": 0.55,
}


def result(share: float | Mapping[str, float], langs: tuple[str, ...] = LANGUAGES) -> SuiteResult:
    """A model's replies: of each capability the stated share right, spread over the languages."""
    items: list[Item] = []
    for capability in CAPABILITIES:
        wanted = share if isinstance(share, float) else share[capability]
        cells = [(lang, number) for number in range(ITEMS) for lang in langs]
        for index, (lang, number) in enumerate(cells):
            items.append(_item(capability, lang, number, index < round(wanted * len(cells))))
    return SuiteResult("paddock", "1", "0" * 64, Sampling(temperature=0.0, max_tokens=64), tuple(items))


def talk(share: float) -> SuiteResult:
    """A model's replies to the probe of conversations: the share right at turn one, and less at each later place."""
    items: list[Item] = []
    for place, name in enumerate((*TURNS, FOLLOW_UP)):
        right = round(share * 16) - place
        items += [_item(name, LANGUAGES[n % len(LANGUAGES)], n, n < right) for n in range(16)]
    return SuiteResult("paddock-conversation", "1", "1" * 64, Sampling(temperature=0.0, max_tokens=64), tuple(items))


def _item(capability: str, lang: str, number: int, ok: bool) -> Item:
    name = f"{capability}-{lang}-{number}"
    prompt = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\nQuestion {name}?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    reply, reason = (f"right {name}", "") if ok else (f"wrong {name}", "another answer")
    return Item(name, capability, lang, prompt, f"right {name}", reply, ok, reason, "stop", 4, -0.1)


class Run:
    """Folders under `root`; `paths` is what a stage gets as its inputs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: dict[str, Path] = {}

    def add(self, name: str, metrics: Mapping[str, Any], inputs: tuple[str, ...] = (), **settings: Any) -> Path:
        folder = self.root / "stages" / f"{name}-{len(self.paths):012d}"
        folder.mkdir(parents=True)
        read = {one: self.paths[one].name for one in inputs}
        made = {"stage": name, "key": f"{len(self.paths):012d}", "settings": settings, "inputs": read}
        write_json(folder / "herd.json", {**made, "metrics": dict(metrics), "seconds": 2.5})
        self.paths[name] = folder
        return folder

    def change(self, name: str, file: str, edit: Callable[[Any], Any]) -> None:
        """Rewrite a JSON file of a stage: `edit` changes it in place, or returns another value."""
        path = self.paths[name] / file
        value = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, edit(value) or value)

    def copy(self, root: Path) -> Run:
        """The same run in another place, to be spoiled there."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        other = Run(root)
        other.paths = {name: root / path.relative_to(self.root) for name, path in self.paths.items()}
        return other

    def drop(self, *names: str) -> None:
        for name in names:
            del self.paths[name]

    def rescore(self, model: str, scored: SuiteResult) -> None:
        """Give a model other scores."""
        folder = self.paths[f"scores-{model}"]
        for old in [*folder.glob("results_*"), *folder.glob("samples_*")]:
            old.unlink()
        save_results(folder, scored, RunInfo(model, datetime(2026, 1, 2, tzinfo=UTC)))


def make_run(root: Path) -> Run:
    run = Run(root)
    _data(run)
    _pretraining(run)
    _post_training(run)
    for name, share in GOOD.items():
        run.add(f"scores-{name}", {}, (name, "world"))
        run.rescore(name, result(share))
        folder = run.paths[f"scores-{name}"] / "conversation"
        save_results(folder, talk(share), RunInfo(name, datetime(2026, 1, 2, tzinfo=UTC)))
    return run


def _data(run: Run) -> None:
    world = run.add("world", {"documents": 100})
    write_json(world / "disjoint.json", {"checked": 300, "against": 900, "words": 16, "overlaps": 0})
    run.add("documents", {"documents": 180, "unreadable": 2}, ("world",))
    corpus = run.add("corpus", {}, ("documents", "world"))
    shown = {"id": "doc-7", "source": "paddock", "detail": "as doc-3", "text": "<b>twice</b>"}
    step = {"name": "exact_duplicates", "documents_in": 180, "documents_out": 140, "removed": {"same text": 40}}
    step |= {"characters_out": 5000}
    steps = [{**step, "examples": {"same text": [shown], "edited only": [shown]}}]
    kept = {"paddock": {"characters": 4000}, "mine": {"characters": 1000}}
    told = {"steps": steps, "warnings": ["step length removed nothing"], "kept_by_source": kept}
    write_json(corpus / "report.json", told)
    kinds = {kind: {"planted": 40, "caught": 39, "recall": 0.975} for kind in KINDS}
    write_json(corpus / "planted.json", {"kinds": kinds, "clean": 100, "clean_kept": 0.99})
    run.add("tokenizer", {"vocab_size": 512}, ("corpus",))
    shards = run.add("shards", {}, ("corpus", "tokenizer"), weights={"paddock": 0.9}, other=0.3)
    mixed = [SourceShare("mine", 0.25, 250, 300, 30, 1.2), SourceShare("paddock", 0.75, 1000, 900, 100, 0.9)]
    write_json(shards / "mix.json", list(map(asdict, mixed)))
    with ShardWriter(shards / "train", 512) as writer:
        for name, lang in (("a", "en"), ("b", "en"), ("a", "en"), ("c", "th")):
            writer.add([1, 2, 3], id=name, source="paddock", lang=lang)


def _pretraining(run: Run) -> None:
    for budget in (1, 2, 4):
        base(run, f"ladder-c{budget}", 3.0 - 0.1 * budget)
    forecast = run.add("forecast", {}, tuple(f"ladder-c{budget}" for budget in (1, 2, 4)))
    point = {"n_params": 1e5, "tokens": 1e6, "loss": 2.9}
    curves = [{"flops": 1e12, "runs": [point, point], "fit": [point], "minimum": None}]
    curves.append({"flops": 2e12, "runs": [point], "fit": [], "minimum": point})
    predicted = {"value": 2.04, "low": 1.9, "high": 2.2}
    asked = {"n": 1e6, "tokens": 6e6, "flops": 4e13}
    made = {"predicted": predicted, "asked": asked, "law": {}, "curves": curves, "formula": "L = 1 + 2 / C^0.1"}
    write_json(forecast / "forecast.json", made)
    base(run, "flagship-phase-1", 2.2)
    base(run, "flagship-base", 2.0, seq_len=256)


def base(run: Run, name: str, loss: float, seq_len: int = 128) -> None:
    metrics = {"tokens": 1000, "validation_loss": loss, "parameters": 5000, "flops": 3e9, "train_seconds": 4.0}
    folder = run.add(name, metrics, ("shards", "tokenizer"), train={"seq_len": seq_len})
    model(folder)
    row = {"grad_norm": 1.0, "tokens_per_s": 250.0}
    rows = [
        {"step": n, "tokens": 100 * n, "loss": loss + 1 / n, "lr": 1e-3, "metrics": {}, **row} for n in range(1, 11)
    ]
    rows[4]["metrics"] = {"validation_loss": loss + 0.2}
    write_jsonl(folder / "history.jsonl", rows)


def model(folder: Path, size: int = 1000) -> None:
    write_json(folder / "config.json", {"max_position_embeddings": 131_072})
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        write_json(folder / name, {})
    (folder / "model.safetensors").write_bytes(bytes(size))


def _post_training(run: Run) -> None:
    model(run.add("flagship-start", {}, ("flagship-base",)))
    previous = "flagship-start"
    for number in (1, 2):
        mix = {"seed": 1.0, "accepted": 2.0, "earlier": 1.0, "extra": 1.0}
        name = f"round-{number}"
        folder = run.add(name, {}, (previous, "tokenizer"), round={"mix": mix})
        model(folder)
        write_json(folder / "round.json", round_report(number))
        previous = name
    model(run.add("flagship-fp8", {}, ("round-2",)), size=700)
    check = run.add("fp8-check", {}, ("round-2", "flagship-fp8"))
    found = {"rewards_bf16": [0.1, 0.5, 0.9], "rewards_fp8": [0.1, 0.4, 0.9], "bytes_bf16": 10_000, "bytes_fp8": 7_000}
    agreement = {"value": 0.98, "low": 0.96, "high": 0.99}
    shift = {"ks": 0.02, "p": 0.9, "wasserstein": 0.01}
    write_json(check / "check.json", {**found, "agreement": agreement, "kept": "first and last layer", "shift": shift})
    base(run, "small-base", 2.6)
    model(run.add("small-start", {}, ("small-base",)))
    for kind in ("alone", "taught"):
        folder = run.add(f"small-{kind}", {}, ("small-start", "round-2"))
        model(folder)
        sft = {"steps": 20, "tokens": 2560, "dialogues": {"seed": 100, "accepted": 80, "extra": 0}}
        write_json(folder / "teach.json", {"sft": sft, "distilled": False})


def round_report(number: int) -> dict[str, Any]:
    return {
        "round": number,
        "draw": {"prompts": 100, "k": 8, "candidates": 800},
        "judge": {"accepted": 400},
        "quality": [{"rule": "too short", "dropped": 12}, {"rule": "repeats", "dropped": 0}],
        "select": {"accepted": 90, "pairs": 60},
        "reward": {"held_out_accuracy": 0.8, "held_out_pairs": 10},
        "sft": {"dialogues": {"seed": 100, "accepted": 90, "earlier": 0, "extra": 0}},
        "dpo": {"pairs": 60},
        "average": {"chosen": "1 dpo"},
        "gate": {"passed": True, "gain": 0.1, "reasons": []},
    }


def without_half(scored: SuiteResult) -> SuiteResult:
    """Another suite: half of the items."""
    return replace(scored, items=scored.items[::2])
