"""What a user can hand in wrongly: settings, recipes, documents, damaged artifacts, folders that hold no model.

Each ends in the exit code of errors.py and a message that says what is wrong, where, and how to mend it. Commands run
in this process: an exception that is no HerdError leaves `main` and fails the test, as a traceback would.
"""

from __future__ import annotations

import gzip
import importlib
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from herd.cli import main
from herd.commands.raising import resolve
from herd.recipes.pico import pico
from herd.road.graph import herd_of
from herd.stages import Runner

# Pico without the world and all that needs it: curation by one step, a flagship of three tiny layers.
SHRUNK = (
    "posttrain=null",
    "small=null",
    "ladder=null",
    "quantize=null",
    "threads=1",
    "documents.paddock=null",
    "documents.stdlib_modules=0",
    'curate.steps=["length"]',
    "tokenizer.vocab_size=600",
    "mix.tokens=12000",
    "mix.validation=0.2",
    "flagship.shape.dim=16",
    "flagship.shape.n_layers=3",
    "flagship.shape.ffn_dim=32",
    "flagship.mixes=[]",
    "flagship.gates=null",
    'flagship.pretrain=[{"steps": 4, "batch_tokens": 256, "seq_len": 64, "peak_lr": 0.004, "warmup_steps": 8, '
    '"min_lr_ratio": 0.1, "spike_margin": 6.0, "dtype": "auto", "checkpoint_every_seconds": 20.0}]',
)


class Said(NamedTuple):
    code: int
    out: str
    err: str


Herd = Callable[..., Said]


@pytest.fixture
def herd(capsys: pytest.CaptureFixture[str]) -> Herd:
    """Run a command of `herd` in this process."""

    def run(*arguments: object) -> Said:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return run


def shrunk(*settings: str) -> list[str]:
    return [word for setting in (*SHRUNK, *settings) for word in ("--set", setting)]


def refused(said: Said, code: int, what: str, where: object, mend: str = "") -> None:
    """The error names the thing, the place and, where the sentence itself does not say it, the way out."""
    assert said.code == code, said.err
    assert said.err.startswith("herd: ")
    assert what in said.err
    assert str(where) in said.err
    assert not mend or mend in said.err.partition("\n  mend: ")[2], said.err


def write_documents(folder: Path) -> Path:
    """Sixty short texts that differ; one file, so that they are one source."""
    folder.mkdir(parents=True)
    verbs = ("crosses", "fears", "seeks", "guards", "leaves")
    rows = []
    for n in range(60):
        lines = (f"Herd {n} of valley {n * k % 17} {verbs[(n + k) % 5]} river {k + n * n}." for k in range(1, 9))
        rows.append(json.dumps({"text": "\n".join(lines)}))
    (folder / "pages.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    return write_documents(tmp_path / "pages")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole shrunken run, its documents beside it in `pages`."""
    root = tmp_path_factory.mktemp("bad-input")
    pages = write_documents(root / "pages")
    assert main(["raise", "pico", *shrunk(), "--documents", str(pages), "--out", str(root / "run")]) == 0
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    shutil.copytree(finished / "run", tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def stage(run: Path, name: str) -> Path:
    (found,) = (run / "stages").glob(f"{name}-????????????")
    return found


def cut(path: Path, share: float = 0.5) -> Path:
    os.truncate(path, int(path.stat().st_size * share))
    return path


# Settings


@pytest.mark.parametrize(
    ("setting", "what", "where", "mend"),
    [
        ("flagshipp.seed=1", "'flagshipp' is not an option of Recipe", "[flagshipp.seed]", "did you mean 'flagship'?"),
        ("mix.tokenz=1", "'tokenz' is not an option of MixSettings", "[mix.tokenz]", "did you mean 'tokens'?"),
        ("flagship.pretrain.0.stepz=4", "'stepz' is not", "[flagship.pretrain.0.stepz]", "did you mean 'steps'?"),
        ("flagship.pretrain.0.steps=many", "must be a whole number, not 'many'", "[flagship.pretrain.0.steps]", ""),
        ("flagship.pretrain.0.steps=4.5", "must be a whole number, not 4.5", "[flagship.pretrain.0.steps]", ""),
        ("flagship.pretrain.0.steps=true", "must be a whole number, not True", "[flagship.pretrain.0.steps]", ""),
        ("flagship.pretrain.0.steps=null", "must be a whole number, not None", "[flagship.pretrain.0.steps]", ""),
        ("flagship.pretrain.0.steps=-1", "should be at least 1", "steps]", ""),
        ("flagship.pretrain.0.peak_lr=NaN", "must be a finite number", "[flagship.pretrain.0.peak_lr]", ""),
        ("flagship.pretrain.0.dtype=float16", "'float16' is not a choice of", "dtype", "did you mean 'bfloat16'?"),
        ("flagship.pretrain.4.steps=4", "there is no number 4 in a list of 4", "[flagship.pretrain.4.steps]", ""),
        ("flagship.pretrain.².steps=4", "there is no number ²", "[flagship.pretrain.².steps]", ""),
        ("flagship.pretrain=[]", "needs one phase", "[pretrain]", ""),
        ("flagship.shape.n_heads=3", "cannot be split into 3 heads", "[dim]", "multiple of n_heads"),
        ("flagship=null", "must be the settings of ModelRecipe", "[flagship]", ""),
        ("mix.tokens=" + "9" * 5000, "must be a whole number", "[mix.tokens]", ""),
        ('mix.weights={"a": "b"}', "must be a number, not 'b'", "[mix.weights.a]", ""),
        ("curate.steps=length", "must be a list, not 'length'", "[curate.steps]", ""),
        ("threads=-2", "threads is -2", "[threads]", "0 for every core"),
        ("threads=1000000", "threads is 1000000", "[threads]", "0 for every core"),
        ("seed=1" + "0" * 30, "'seed' is not", "[seed]", ""),
        ("flagship.seed=1" + "0" * 30, "is larger than 64 bits hold", "[flagship.seed]", ""),
        ("mix.validation=1", "validation is 1.0 and should be a share above 0 and below 1", "[mix.validation]", ""),
        ("mix.validation=0", "validation is 0.0 and should be a share", "[mix.validation]", ""),
        (
            "name=../../etc",
            "'../../etc' cannot be the name of a recipe",
            "[name]",
            "the run's folder is named after it",
        ),
        ("name=", "'' cannot be the name", "[name]", ""),
        ("flagship.init_std=0", "init_std is 0.0 and should be above 0", "[flagship.init_std]", ""),
        ("flagship.pretrain.0.seed=-1", "seed is -1 and should be 0 or more", "seed]", ""),
        ("ladder.allowed_error=-1", "allowed_error is -1.0", "[ladder.allowed_error]", ""),
        ("quantize.keep_first=100", "keeps the first 100 and the last 1 layers as they are", "[quantize]", "null"),
        ("documents.paddock.noise_per_kind=100000000000", "0 (none) to 10,000,000", "noise_per_kind]", ""),
        ("mix.tokens=0", "tokens is 0 and should be between 1", "[mix.tokens]", ""),
        ("mix.tokens=9000000000000000000", "should be between 1 and 1e+15", "[mix.tokens]", ""),
        ('mix.weights={"paddock": -1}', "should be weights of 0 to 1e9", "[mix.weights]", ""),
        ("mix.other=-0.1", "other is -0.1", "[mix.other]", ""),
        ("mix.piece_characters=-1", "piece_characters is -1", "[mix.piece_characters]", ""),
        ("suite.batch_size=0", "batch_size is 0", "[suite.batch_size]", ""),
        ("suite.max_tokens=0", "max_tokens is 0", "[suite.max_tokens]", ""),
        ("tokenizer.vocab_size=511", "512 (256 bytes and 256 special tokens)", "[tokenizer.vocab_size]", ""),
        ("tokenizer.vocab_size=2000000", "vocab_size is 2000000", "[tokenizer.vocab_size]", ""),
        ("tokenizer.sample_characters=0", "sample_characters is 0", "[tokenizer.sample_characters]", ""),
        ("documents.stdlib_modules=-1", "stdlib_modules is -1", "[documents.stdlib_modules]", ""),
        ("documents.paddock.prompts_per_capability=-5", "prompts_per_capability is -5", "[documents.paddock.", ""),
        ('documents.paddock.documents={"sums": -1}', "counts of 0 to 10,000,000", "[documents.paddock.documents]", ""),
        ("documents.read.max_line_bytes=0", "max_line_bytes is 0", "[documents.read.max_line_bytes]", ""),
        ("documents.read.piece_characters=0", "piece_characters is 0", "[documents.read.piece_characters]", ""),
        ("documents.read.max_characters=-1", "max_characters is -1", "[documents.read.max_characters]", ""),
        ("documents.read.text_column=", "should be the name of a column", "[documents.read.text_column]", ""),
        ('curate.steps=["lenght"]', "there is no curation step 'lenght'", "[curate.steps]", "url_duplicates, length"),
        ("curate.pii=keep", "'keep' is not a choice of curate.pii", "curate.pii", "there are: auto, drop, mask"),
        ("curate.language_doubt=1.5", "language_doubt is 1.5", "[curate.language_doubt]", ""),
        ("curate.max_words=2", "max_words is 2 and should be at least min_words (3)", "[curate.max_words]", ""),
        ("curate.near_duplicate_threshold=0", "above 0, at most 1", "[curate.near_duplicate_threshold]", ""),
        ("curate.near_duplicate_permutations=0", "permutations is 0", "[curate.near_duplicate_permutations]", ""),
        ("curate.line_repeats=0", "line_repeats is 0", "[curate.line_repeats]", ""),
        ("name.first=x", "goes deeper than the settings do", "[name.first]", ""),
        ("mix.tokens", "cannot read 'mix.tokens'", "", "name.of.setting=value"),
        ("=4", "cannot read '=4'", "", "name.of.setting=value"),
    ],
)
def test_a_setting_that_cannot_be(herd: Herd, setting: str, what: str, where: str, mend: str) -> None:
    refused(herd("raise", "pico", "--set", setting, "--dry-run"), 2, what, where, mend)


def test_a_setting_that_leaves_the_recipe_without_what_it_needs(herd: Herd) -> None:
    said = herd("raise", "pico", "--set", "documents.paddock=null", "--dry-run")
    refused(said, 2, "this recipe has no paddock", "[documents.paddock]", "posttrain and small to null")


def test_settings_that_only_make_sense_together_in_any_order(herd: Herd) -> None:
    together = ("documents.paddock=null", "small=null", "posttrain=null", "ladder=null", "quantize=null")
    together += ("flagship.shape.n_layers=2",)
    for order in (together, together[::-1]):
        assert herd("raise", "pico", *[w for one in order for w in ("--set", one)], "--dry-run").code == 0
    said = herd("raise", "pico", *[w for one in together[:2] for w in ("--set", one)], "--dry-run")
    refused(said, 2, "this recipe has no paddock", "[documents.paddock]", "posttrain and small to null")


# Recipes


def test_a_recipe_that_is_not_there(herd: Herd, tmp_path: Path) -> None:
    refused(herd("raise", "pyco"), 2, "'pyco' is not a recipe", "", "did you mean 'pico'?")
    refused(herd("raise", tmp_path / "my.json"), 2, "no such recipe file", tmp_path / "my.json", "names: pico, nano")
    refused(herd("recipes", "nono"), 2, "'nono' is not a recipe", "", "did you mean 'nano'?")


@pytest.mark.parametrize(
    ("content", "code", "what"),
    [
        (b"", 3, "not valid JSON"),
        (b"\xff\xfe\x00", 3, "not valid JSON"),
        (b"[" * 100_000, 3, "not valid JSON"),
        (b"[1]", 2, "must be the settings of Recipe"),
        (b'{"name": "mine"}', 2, "Recipe needs: about, flagship"),
        (b'{"name": 4}', 2, "must be a text, not 4"),
        (b'{"nane": "mine"}', 2, "'nane' is not an option of Recipe"),
    ],
    ids=["empty", "binary", "deep", "list", "partial", "ill-typed", "unknown"],
)
def test_a_recipe_file_that_is_none(herd: Herd, tmp_path: Path, content: bytes, code: int, what: str) -> None:
    (tmp_path / "my.json").write_bytes(content)
    refused(herd("raise", tmp_path / "my.json", "--dry-run"), code, what, tmp_path / "my.json")


def test_a_recipe_cut_short_and_one_of_another_version(herd: Herd, tmp_path: Path) -> None:
    from herd.config import save, to_plain

    save(tmp_path / "my.json", to_plain(pico()))
    assert herd("raise", tmp_path / "my.json", "--dry-run").code == 0
    row = json.loads((tmp_path / "my.json").read_text(encoding="utf-8"))
    row["flagship"]["shape"]["experts"] = 8
    (tmp_path / "other.json").write_text(json.dumps(row), encoding="utf-8")
    said = herd("raise", tmp_path / "other.json", "--dry-run")
    refused(said, 2, "'experts' is not an option of Shape", f"{tmp_path / 'other.json'}.flagship.shape.experts")
    cut(tmp_path / "my.json")
    refused(herd("raise", tmp_path / "my.json", "--dry-run"), 3, "not valid JSON", tmp_path / "my.json")


def test_a_recipe_that_this_machine_cannot_raise(herd: Herd) -> None:
    refused(herd("raise", "llama31_8b"), 2, "needs a GPU cluster", "llama31_8b", "--dry-run")


def test_a_run_where_no_folder_can_be(herd: Herd, pages: Path) -> None:
    for place in (pages / "pages.jsonl", pages / "pages.jsonl" / "run"):
        said = herd("raise", "pico", *shrunk(), "--documents", pages, "--out", place)
        refused(said, 6, "cannot make this folder", place, "--out")


# Documents


def test_documents_that_are_not_there(herd: Herd, tmp_path: Path) -> None:
    """Known before anything runs, so that a dry run says it too."""
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    (empty / "inside").mkdir(parents=True)
    for place, what in ((missing, "there is no such folder or file"), (empty, "the folder of documents is empty")):
        for dry in (["--dry-run"], []):
            said = herd("raise", "pico", *shrunk(), "--documents", place, "--out", tmp_path / "run", *dry)
            refused(said, 3, what, place, "hand in a folder, a file or an address of documents")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_may_not_be_read(herd: Herd, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def closed(path: str | Path = ".") -> object:
        if Path(path) == pages:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    said = herd("raise", "pico", *shrunk(), "--documents", pages, "--out", pages.parent / "run")
    refused(said, 3, "cannot be read: permission denied", pages, "change its rights")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"\0\1\2" * 1000, "binary"),
        ("a.txt", "na\xefve".encode("latin-1"), "not_utf8"),
        ("a.txt", b"", "no_text"),
        ("a.jsonl", b'{"text": "cut sho', "bad_json"),
        ("a.jsonl", b'{"body": "a page"}\n', "no_text"),
        ("a.jsonl", b'{"text": "na\xefve"}\n', "not_utf8"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a page"}\n' * 9)[:20], "truncated"),
        ("a.parquet", b"PAR1", "bad_parquet"),
        ("a.exe", b"MZ", "unknown_format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_not_one_document(herd: Herd, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / name).write_bytes(content)
    said = herd("raise", "pico", *shrunk(), "--documents", folder, "--out", tmp_path / "run")
    refused(said, 3, f"not one document could be read (1 x {reason})", folder, "in UTF-8")
    assert not list((tmp_path / "run").glob("stages/*"))


def test_bad_files_among_good_ones_are_listed_and_the_run_goes_on(herd: Herd, pages: Path) -> None:
    (pages / "photo.txt").write_bytes(b"\0\1\2" * 1000)
    (pages / "old.txt").write_bytes("na\xefve".encode("latin-1"))
    (pages / "gone.txt").symlink_to(pages / "nowhere.txt")
    out = pages.parent / "run"
    # A threshold that nothing passes ends the run behind the documents: the rest of it is no matter here.
    said = herd("raise", "pico", *shrunk("curate.min_words=9999"), "--documents", pages, "--out", out)
    refused(said, 9, "removed every document", "removed")
    assert "3 inputs could not be read; they are listed in unreadable.jsonl" in said.out
    rows = [json.loads(line) for line in (stage(out, "documents") / "unreadable.jsonl").read_text().splitlines()]
    assert {row["file"]: row["reason"] for row in rows} == {
        "gone.txt": "no_file",
        "old.txt": "not_utf8",
        "photo.txt": "binary",
    }


def test_a_line_of_200_mb_is_passed_over_without_being_held(pages: Path) -> None:
    with open(pages / "long.jsonl", "wb") as handle:
        handle.write(b'{"text": "')
        handle.seek(200_000_000)  # a hole: no disk is used
        handle.write(b'"}\n{"text": "after the long line"}\n')
    limit = 4_000_000
    recipe = resolve("pico", [*SHRUNK, f"documents.read.max_line_bytes={limit}"], str(pages))
    (reading,) = (one for one in herd_of(recipe).stages if one.name == "documents")
    runner = Runner(pages.parent / "run")
    importlib.import_module("herd.road.documents")  # its own memory is not what is measured
    tracemalloc.start()
    try:
        runner.run([reading])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * limit
    (row,) = map(json.loads, (runner.path(reading) / "unreadable.jsonl").read_text().splitlines())
    assert (row["file"], row["place"], row["reason"]) == ("long.jsonl", "line 1, byte 0", "line_too_long")
    with gzip.open(runner.path(reading) / "documents.jsonl.gz", "rt", encoding="utf-8") as kept:
        assert "after the long line" in kept.read()


def test_documents_that_curation_removes_whole(herd: Herd, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Hi.\n", encoding="utf-8")
    said = herd("raise", "pico", *shrunk(), "--documents", tmp_path / "short.txt", "--out", tmp_path / "run")
    refused(said, 9, "the curation step 'length' removed every document", "removed", "read the reasons there")
    place = Path(said.err.partition("[")[2].partition("]")[0])
    with gzip.open(place / "00000.jsonl.gz", "rt", encoding="utf-8") as removed:
        assert "short.txt" in removed.read()


def test_a_corpus_with_nothing_held_out(herd: Herd, pages: Path) -> None:
    out = pages.parent / "run"
    said = herd("raise", "pico", *shrunk("mix.validation=1e-9"), "--documents", pages, "--out", out)
    refused(said, 3, "no document was held out", stage(out, "shards") / "validation", "mix.validation")


# Damaged artifacts of a run: what is found by the stage that reads them, and a way to go on


def again(herd: Herd, run: Path, pages: Path, *settings: str) -> Said:
    return herd("raise", "pico", *shrunk(*settings), "--documents", pages, "--out", run)


@pytest.mark.parametrize(
    ("name", "file", "setting", "code", "what"),
    [
        ("documents", "documents.jsonl.gz", "curate.min_words=4", 3, "cut short"),
        ("corpus", "kept/00000.jsonl.gz", "mix.tokens=11000", 3, "cut short"),
        ("tokenizer", "tokenizer.json", "flagship.pretrain.0.steps=5", 3, "not valid JSON"),
        ("shards", "train/tokens.bin", "flagship.pretrain.0.steps=5", 4, "tokens.bin is cut short"),
        ("shards", "train/documents.npy", "flagship.pretrain.0.steps=5", 4, "documents.npy is cut short"),
        ("shards", "validation/tokens.bin", "flagship.pretrain.0.steps=5", 4, "tokens.bin is cut short"),
        ("shards", "train/shards.json", "flagship.pretrain.0.steps=5", 3, "not valid JSON"),
        ("flagship-base", "model.safetensors", "quantize={}", 3, "not a whole safetensors file"),
        ("flagship-base", "config.json", "quantize={}", 3, "not valid JSON"),
        ("flagship-base", "herd.json", "quantize={}", 3, "not valid JSON"),
    ],
)
def test_a_truncated_artifact(
    herd: Herd, finished: Path, run: Path, name: str, file: str, setting: str, code: int, what: str
) -> None:
    """Said by the stage that reads it, and whoever does what the message says gets the run that was wanted."""
    folder = stage(run, name)
    damaged = cut(folder / file)
    said = again(herd, run, finished / "pages", setting)
    refused(said, code, what, damaged, f"remove {folder} and run the same command again")
    shutil.rmtree(folder)
    assert again(herd, run, finished / "pages", setting).code == 0


def test_a_missing_artifact(herd: Herd, finished: Path, run: Path) -> None:
    lost = stage(run, "shards") / "train" / "tokens.bin"
    lost.unlink()
    said = again(herd, run, finished / "pages", "flagship.pretrain.0.steps=5")
    refused(said, 4, "tokens.bin", lost, f"remove {stage(run, 'shards')}")


@pytest.fixture
def stopped(herd: Herd, finished: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run with another flagship, stopped after its training: two checkpoints stand in the stage's scratch."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("herd.road.pretrain.save_folder", stop)
        said = again(herd, run, finished / "pages", *LONGER)
    assert said.code == 130
    assert "the same command goes on from here" in said.err
    (folder,) = (run / "work").glob("flagship-base-*/scratch/training/checkpoints")
    return folder


LONGER = ("flagship.pretrain.0.steps=6", "flagship.pretrain.0.checkpoint_every_steps=2")


def test_a_truncated_checkpoint_is_told_and_the_one_before_is_used(
    herd: Herd, finished: Path, run: Path, stopped: Path
) -> None:
    newest, before = sorted(stopped.glob("step-*"), reverse=True)
    cut(newest / "model.safetensors")
    said = again(herd, run, finished / "pages", *LONGER)
    assert said.code == 0
    assert f"checkpoint {newest.name} cannot be used: model.safetensors is damaged or cut short" in said.out
    assert before.name < newest.name


def test_truncated_checkpoints_end_the_run_with_the_way_to_begin_anew(
    herd: Herd, finished: Path, run: Path, stopped: Path
) -> None:
    for checkpoint in stopped.glob("step-*"):
        cut(checkpoint / "optimiser.safetensors")
    said = again(herd, run, finished / "pages", *LONGER)
    refused(said, 4, "optimiser.safetensors is damaged or cut short", stopped, f"remove {stopped}")
    shutil.rmtree(stopped)
    assert again(herd, run, finished / "pages", *LONGER).code == 0


# Model folders, tasks, dialogues


def commands(model: Path, out: Path) -> list[tuple[object, ...]]:
    tasks = out / "tasks.jsonl"
    tasks.write_text("", encoding="utf-8")
    return [("chat", model), ("evaluate", model, "--tasks", tasks), ("quantize", model, out / "fp8")]


def test_a_folder_that_holds_no_model(herd: Herd, tmp_path: Path) -> None:
    for command in commands(tmp_path / "nothing", tmp_path):
        refused(herd(*command), 4, "no model is here", tmp_path / "nothing")
    assert not (tmp_path / "fp8").exists()


def test_a_model_without_its_tokenizer(herd: Herd, run: Path, tmp_path: Path) -> None:
    model = stage(run, "flagship-base")
    (model / "tokenizer.json").unlink()
    for command in commands(model, tmp_path):
        if command[0] != "quantize":  # which needs none
            refused(herd(*command), 4, "the folder has no tokenizer", model / "tokenizer.json", "give a model folder")


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "model.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_model_cut_short(herd: Herd, run: Path, tmp_path: Path, file: str, share: float) -> None:
    damaged = cut(stage(run, "flagship-base") / file, share)
    what = "not a whole safetensors file" if file == "model.safetensors" else "not valid JSON"
    mend = "copy or download the model folder again" if file == "model.safetensors" else ""
    for command in commands(damaged.parent, tmp_path):
        refused(herd(*command), 3, what, damaged, mend)
    assert not (tmp_path / "fp8").exists()


def test_a_model_of_another_shape_than_its_config(herd: Herd, run: Path) -> None:
    model = stage(run, "flagship-base")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = 4
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(herd("chat", model), 4, "missing: model.layers.3.", model, "copy the folder again")


def test_sampling_that_cannot_be(herd: Herd, run: Path) -> None:
    refused(herd("chat", run / "flagship", "--temperature", "-1"), 2, "temperature is -1.0", "[temperature]", "give 0")
    refused(herd("chat", run / "flagship", "--top-p", "3"), 2, "top_p", "[top_p]")


@pytest.mark.parametrize(
    ("content", "what", "mend"),
    [
        (b"", "the file holds no tasks", "--tasks"),
        (b'{"id": 1}\n', "task 1 is malformed", "suite.jsonl"),
        (b"[]\n", "task 1 is malformed", "suite.jsonl"),
        (b'{"id": "cut', "line 1 is not JSON", ""),
        (b"\xff\xfe", "not UTF-8", ""),
    ],
    ids=["empty", "partial", "list", "cut", "binary"],
)
def test_tasks_that_are_none(herd: Herd, run: Path, tmp_path: Path, content: bytes, what: str, mend: str) -> None:
    (tmp_path / "tasks.jsonl").write_bytes(content)
    refused(herd("evaluate", run / "flagship", "--tasks", tmp_path / "tasks.jsonl"), 3, what, tmp_path, mend)


def test_tasks_that_are_not_there(herd: Herd, run: Path, tmp_path: Path) -> None:
    refused(herd("evaluate", run / "flagship", "--tasks", tmp_path / "no.jsonl"), 4, "missing", tmp_path / "no.jsonl")
    refused(herd("evaluate", run / "flagship", "--tasks", tmp_path), 4, "cannot be read", tmp_path)
    refused(herd("evaluate", run / "flagship"), 3, "no suite is known for this model", run / "flagship", "--tasks")


def test_dialogues_that_are_none(herd: Herd, tmp_path: Path) -> None:
    file = tmp_path / "seed.jsonl"
    refused(herd("inspect", "dialogue", file), 4, "missing", file)
    refused(herd("inspect", "dialogue", tmp_path), 4, "cannot be read", tmp_path)
    for content, what in ((b"", "no dialogues"), (b'{"messages": [', "line 1 is not JSON"), (b"\xff", "not UTF-8")):
        file.write_bytes(content)
        refused(herd("inspect", "dialogue", file), 3, what, file)
    file.write_text('{"messages": [{"role": "owner", "content": "hi"}]}\n', encoding="utf-8")
    refused(herd("inspect", "dialogue", file), 3, "unknown role 'owner'", f"{file}, line 1", "use one of system")
