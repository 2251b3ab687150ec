"""Stage `world`: the embedded world's pages, planted noise, seed dialogues, prompts, suites, and their proof.

Artifacts: documents.jsonl.gz (good and planted pages in one order), truth.json (which are planted), seed.jsonl and
prompts.jsonl and dev.jsonl and suite.jsonl and conversation.jsonl (tasks), disjoint.json (the n-gram check).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from herd.corpus.documents import Document
from herd.corpus.ngrams import overlaps
from herd.errors import ArtifactError
from herd.files import read_json, read_jsonl, write_json, write_jsonl
from herd.paddock import PaddockSettings, Task, World, make_world, task_from_dict, task_to_dict, tasks
from herd.paddock.conversations import conversations, probe
from herd.paddock.documents import documents
from herd.paddock.noise import Planted, plant, shuffled
from herd.stages import Context

PROBE = "conversation"  # the held-out conversations, and the folder of a model's results on them
CHECKED_WORDS = 22  # the longest question but for long documents: questions are compared whole, documents by runs


def run(ctx: Context) -> Mapping[str, Any]:
    settings: PaddockSettings = ctx.settings
    world = make_world(settings.world)
    clean = list(documents(world, settings))
    planted, truth = plant(world, clean, settings.noise_per_kind)
    write_jsonl(ctx.out / "documents.jsonl.gz", (page.row() for page in shuffled(world, [*clean, *planted])))
    write_json(ctx.out / "truth.json", {name: vars(known) for name, known in truth.items()})
    splits = _splits(world, settings)
    for name, chosen in splits.items():
        write_jsonl(ctx.out / f"{name}.jsonl", map(task_to_dict, chosen))
    held_out = [task for name in ("dev", "suite", PROBE) for task in splits[name]]
    proof = prove_disjoint(clean, [*splits["seed"], *splits["prompts"]], held_out)
    write_json(ctx.out / "disjoint.json", proof)
    return {
        "documents": len(clean),
        "planted": len(planted),
        **{name: len(chosen) for name, chosen in splits.items()},
        "overlaps": proof["overlaps"],
    }


def _splits(world: World, settings: PaddockSettings) -> dict[str, list[Task]]:
    """Seed dialogues and prompts to train on; held-out tasks for choosing (dev) and for reporting (suite).

    Conversations stand among those to train on. Held out they have a probe of their own, so that the suite's items and
    average stay what they are.
    """
    seed = tasks(world, "train", settings.dialogues_per_capability, "seed")
    seed += conversations(world, settings.conversations, "seed")
    known = {task.id for task in seed}
    asked = tasks(world, "train", settings.prompts_per_capability, "prompts")
    asked += conversations(world, settings.conversation_prompts, "prompts")
    prompts = [task for task in asked if task.id not in known]
    suite = tasks(world, "held_out", settings.held_out_per_capability, "suite")
    reported = {task.id for task in suite}
    dev = [t for t in tasks(world, "held_out", settings.held_out_per_capability, "dev") if t.id not in reported]
    talk = probe(world, settings.conversation_probe)
    return {"seed": seed, "prompts": prompts, "dev": dev, "suite": suite, PROBE: talk}


def prompt_words(task: Task) -> str:
    """What a task asks in its own words: the system prompt counts unless it only lists tools, which all share."""
    parts = [m.content for m in task.messages if m.role == "user" or (m.role == "system" and "{" not in m.content)]
    return "\n".join(parts)


def prove_disjoint(pages: Iterable[Document], train: Sequence[Task], held_out: Sequence[Task]) -> dict[str, Any]:
    """No run of words of a held-out prompt stands in a page or a training prompt; raises if one does."""
    # A tool's result turns a prompt that was asked before into another task; the keys of the world keep those apart.
    asked = [task for task in held_out if all(m.role != "ipython" for m in task.messages)]
    texts = [page.text for page in pages] + [prompt_words(task) for task in train]
    found = overlaps(texts, [prompt_words(task) for task in asked], CHECKED_WORDS)
    if found:
        raise ArtifactError(
            f"{len(found)} held-out prompts share {CHECKED_WORDS} words with training text, the first: {found[0]}",
            where="world",
            mend="this is a bug of the paddock: its splits are made by keys that should exclude this",
        )
    return {"checked": len(asked), "against": len(texts), "words": CHECKED_WORDS, "overlaps": 0}


def read_tasks(folder: Path, name: str) -> list[Task]:
    """The tasks of one split: seed, prompts, dev, suite or conversation."""
    return [task_from_dict(row) for row in read_jsonl(folder / f"{name}.jsonl")]


def read_truth(folder: Path) -> dict[str, Planted]:
    rows = read_json(folder / "truth.json")
    return {name: Planted(row["kind"], tuple(row["secrets"]), row["copy_of"]) for name, row in rows.items()}
