"""Suite results as files, in the layout of lm-evaluation-harness, so that its viewers and tables read ours.

    results_{date}.json            scores: `results`, `groups`, `configs`, `versions`, `n-samples`, ... and `herd`
    samples_{task}_{date}.jsonl    one line an item: prompt, reply, target, score; plus reason, finish, mean_logprob

Tasks are `{suite}_{capability}`, each a group of `{suite}_{capability}_{lang}`; the group `{suite}` is the macro
average. The metric is `exact_match,none` (the verifier said yes) with `exact_match_stderr,none`. Samples are written
once, with their capability's task. What the harness has no place for (intervals, the suite's fingerprint, sampling)
stands under `herd`. The files are a function of result and `RunInfo` alone: same date, same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from herd.errors import ArtifactError, FormatError
from herd.evaluate.suite import Item, SuiteResult, plain
from herd.files import read_json, read_jsonl, write_json, write_jsonl
from herd.generate.protocol import Sampling

METRIC = "exact_match"
LAYOUT = 1  # of the `herd` part
_KEYS = ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config")


@dataclass(frozen=True)
class RunInfo:
    """What the files say about the run besides its scores. `date` decides the names of the files."""

    model: str
    date: datetime
    git_hash: str = ""
    environment: str = ""
    seconds: float = 0.0
    model_args: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def stamp(self) -> str:
        """The date as the harness writes it in names: UTC, colons as dashes."""
        return self.date.astimezone(UTC).replace(tzinfo=None).isoformat().replace(":", "-")


def save_results(folder: Path, result: SuiteResult, info: RunInfo) -> Path:
    """Write the samples, then the results file that makes them valid; returns the latter's path."""
    samples = {task: _samples(items, result.sampling) for task, items in _tasks(result).items()}
    for task, rows in samples.items():
        write_jsonl(Path(folder) / f"samples_{task}_{info.stamp}.jsonl", rows)
    path = Path(folder) / f"results_{info.stamp}.json"
    write_json(path, results_json(result, info, {task: _task_hash(rows) for task, rows in samples.items()}))
    return path


def results_json(result: SuiteResult, info: RunInfo, task_hashes: Mapping[str, str]) -> dict[str, Any]:
    """The content of a results file as plain values."""
    capabilities, cells = _tasks(result), _cells(result)
    named = {**capabilities, **cells}
    top = result.suite
    scores = {top: _average_row(result)} | {name: _row(name, items) for name, items in named.items()}
    return {
        "results": scores,
        "groups": {name: scores[name] for name in (top, *capabilities)},
        "group_subtasks": {top: list(capabilities)}
        | {name: sorted({_cell(result, item) for item in items}) for name, items in capabilities.items()},
        "configs": {name: _config(name, result) for name in named},
        "versions": dict.fromkeys(scores, result.version),
        "n-shot": dict.fromkeys(named, 0),
        "higher_is_better": {name: {METRIC: True} for name in scores},
        "n-samples": {name: {"original": len(items), "effective": len(items)} for name, items in named.items()},
        "config": {
            "model": "herd",
            "model_args": dict(info.model_args),
            "batch_size": None,
            "limit": None,
            "bootstrap_iters": 0,
            "gen_kwargs": _gen_kwargs(result.sampling),
            "random_seed": result.sampling.seed,
        },
        "git_hash": info.git_hash,
        "date": info.date.timestamp(),
        "pretty_env_info": info.environment,
        "lm_eval_version": None,  # the layout is theirs, the run was not
        "task_hashes": dict(task_hashes),
        "model_source": "herd",
        "model_name": info.model,
        "model_name_sanitized": re.sub(r"[\"<>:/|\\?*\[\]]+", "__", info.model),
        "fewshot_as_multiturn": False,
        "chat_template_sha": None,
        "system_instruction_sha": None,
        "total_evaluation_time_seconds": str(info.seconds),
        "herd": {
            "layout": LAYOUT,
            "suite": result.suite,
            "version": result.version,
            "fingerprint": result.fingerprint,
            "level": result.level,
            "sampling": asdict(result.sampling),
            "order": [item.id for item in result.items],
            "average": plain(result.average),
            "by_language": {name: plain(score) for name, score in result.by_language().items()},
            "by_capability": {name: plain(score) for name, score in result.by_capability().items()},
        },
    }


def load_results(path: Path) -> SuiteResult:
    """Read a results file and its samples back, from the file or from a folder that holds exactly one.

    FormatError when it is not such a file, was cut short, or when samples and scores disagree.
    """
    path = _results_file(Path(path))
    data = read_json(path)
    if not isinstance(data, dict) or (missing := [key for key in _KEYS if key not in data]):
        lacks = "it is not an object" if not isinstance(data, dict) else f"it lacks {', '.join(missing)}"
        raise FormatError(f"not a results file: {lacks}", where=str(path))
    if not isinstance(data.get("herd"), dict) or data["herd"].get("layout") != LAYOUT:
        raise FormatError(
            "a results file without herd's part", where=str(path), mend="read files of other programs as plain JSON"
        )
    try:
        return _rebuild(path, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"malformed results: {type(error).__name__} {error}", where=str(path)) from error


def _rebuild(path: Path, data: Mapping[str, Any]) -> SuiteResult:
    part, stamp = data["herd"], path.stem.removeprefix("results_")
    items: dict[str, Item] = {}
    for task, expected in data["task_hashes"].items():
        file = path.with_name(f"samples_{task}_{stamp}.jsonl")
        rows = list(read_jsonl(file))
        if _task_hash(rows) != expected:
            raise FormatError("the samples are not those of the results file", where=str(file))
        items |= {row["doc"]["id"]: _item(row) for row in rows}
    if sorted(items) != sorted(part["order"]):
        raise FormatError("samples and results do not list the same items", where=str(path))
    result = SuiteResult(
        suite=part["suite"],
        version=part["version"],
        fingerprint=part["fingerprint"],
        sampling=Sampling(**part["sampling"]),
        items=tuple(items[name] for name in part["order"]),
        level=part["level"],
    )
    scores = {result.suite: result.average.value} | {
        task: _mean_stderr(rows)[0] for task, rows in {**_tasks(result), **_cells(result)}.items()
    }
    for task, score in scores.items():
        printed = data["results"][task][f"{METRIC},none"]
        if not math.isclose(printed, score, abs_tol=1e-9):
            raise FormatError(f"{task}: the results say {printed}, the samples say {score}", where=str(path))
    return result


def _results_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("results_*.json"))
    if len(found) != 1:
        raise ArtifactError(
            f"the folder holds {len(found)} results files",
            where=str(path),
            mend="name one of them" if found else "run `herd evaluate` first",
        )
    return found[0]


def _tasks(result: SuiteResult) -> dict[str, list[Item]]:
    tasks: dict[str, list[Item]] = {}
    for item in result.items:
        tasks.setdefault(f"{result.suite}_{item.capability}", []).append(item)
    return tasks


def _cells(result: SuiteResult) -> dict[str, list[Item]]:
    cells: dict[str, list[Item]] = {}
    for item in result.items:
        cells.setdefault(_cell(result, item), []).append(item)
    return cells


def _cell(result: SuiteResult, item: Item) -> str:
    return f"{result.suite}_{item.capability}_{item.lang}"


def _row(name: str, items: Sequence[Item]) -> dict[str, Any]:
    return {"name": name, "alias": name, "sample_len": len(items)} | _metrics(*_mean_stderr(items))


def _average_row(result: SuiteResult) -> dict[str, Any]:
    parts = [_mean_stderr(items) for items in _tasks(result).values()]
    score = sum(mean for mean, _ in parts) / len(parts)
    error = math.sqrt(sum(stderr**2 for _, stderr in parts)) / len(parts)
    return {"name": result.suite, "alias": result.suite, "sample_len": len(result.items)} | _metrics(score, error)


def _metrics(score: float, error: float) -> dict[str, Any]:
    # One item has no standard error; the harness writes "N/A" there.
    return {f"{METRIC},none": score, f"{METRIC}_stderr,none": "N/A" if math.isnan(error) else error}


def _mean_stderr(items: Sequence[Item]) -> tuple[float, float]:
    """Mean and the harness's standard error: the sample deviation over sqrt(n)."""
    n = len(items)
    mean = sum(item.ok for item in items) / n
    return mean, math.sqrt(mean * (1 - mean) / (n - 1)) if n > 1 else math.nan


def _config(name: str, result: SuiteResult) -> dict[str, Any]:
    return {
        "task": name,
        "output_type": "generate_until",
        "num_fewshot": 0,
        "metric_list": [{"metric": METRIC, "aggregation": "mean", "higher_is_better": True}],
        "generation_kwargs": _gen_kwargs(result.sampling),
        "repeats": 1,
        "metadata": {"version": result.version},
    }


def _gen_kwargs(sampling: Sampling) -> dict[str, Any]:
    return {
        "do_sample": sampling.temperature > 0,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_gen_toks": sampling.max_tokens,
    }


def _samples(items: Sequence[Item], sampling: Sampling) -> list[dict[str, Any]]:
    return [_sample(number, item, sampling) for number, item in enumerate(items)]


def _sample(number: int, item: Item, sampling: Sampling) -> dict[str, Any]:
    doc = {"id": item.id, "capability": item.capability, "lang": item.lang}
    return {
        "doc_id": number,
        "doc": doc,
        "target": item.target,
        "arguments": {"gen_args_0": {"arg_0": item.prompt, "arg_1": _gen_kwargs(sampling)}},
        "resps": [[item.reply]],
        "filtered_resps": [item.reply],
        "filter": "none",
        "metrics": [METRIC],
        "doc_hash": _sha(json.dumps(doc, ensure_ascii=False)),
        "prompt_hash": _sha(item.prompt),
        "target_hash": _sha(item.target),
        METRIC: float(item.ok),
        "reason": item.reason,
        "finish": item.finish,
        "n_tokens": item.n_tokens,
        "mean_logprob": item.mean_logprob,
    }


def _item(row: Mapping[str, Any]) -> Item:
    return Item(
        **row["doc"],
        prompt=row["arguments"]["gen_args_0"]["arg_0"],
        target=row["target"],
        reply=row["filtered_resps"][0],
        ok=row[METRIC] == 1.0,
        reason=row["reason"],
        finish=row["finish"],
        n_tokens=row["n_tokens"],
        mean_logprob=row["mean_logprob"],
    )


def _task_hash(rows: Sequence[Mapping[str, Any]]) -> str:
    """The harness's: over the documents' hashes, and so blind to replies; scores are checked on their own."""
    return _sha("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows))


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
