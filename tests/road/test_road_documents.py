"""The user's folder, through the stages that read and curate it: odd letters and names arrive whole."""

from __future__ import annotations

import os
from pathlib import Path

from herd.corpus.settings import CurateSettings, ReadSettings
from herd.files import read_json, read_jsonl
from herd.paddock.documents import SOURCE
from herd.paddock.noise import SOURCE as PLANTED
from herd.road.corpus import read_kept
from herd.road.documents import OWN, folder_state
from herd.road.settings import Documents
from herd.stages import Runner, Stage

SENTENCE = "The quick brown fox jumps over the lazy dog and then it goes home to sleep by the fire."


def test_half_a_surrogate_pair_and_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(
        f'{{"text": "{SENTENCE} \\ud83d"}}\n{{"text": "{SENTENCE} Again \\ud83d\\ude00"}}\n'
    )
    with open(os.fsencode(folder) + b"/bad-\xff.txt", "w") as handle:
        handle.write(f"{SENTENCE} This one has a name in Latin-1.\n")
    with open(os.fsencode(folder) + b"/bad-\xfe.pdf", "w") as handle:
        handle.write("no text")
    settings = Documents(str(folder), folder_state(str(folder)), ReadSettings(), 0)
    documents = Stage("documents", "herd.road.documents:run", settings)
    corpus = Stage("corpus", "herd.road.corpus:run", CurateSettings(steps=("length",)), {"documents": documents})
    made = Runner(tmp_path / "run").run([corpus])
    assert read_json(made["documents"] / "herd.json")["metrics"]["documents"] == 3
    assert [row["file"] for row in read_jsonl(made["documents"] / "unreadable.jsonl")] == ["bad-\udcfe.pdf"]
    kept = [page.text for page in read_kept(made["corpus"])]
    assert sorted(text.removeprefix(SENTENCE).strip() for text in kept) == [
        "?",
        "Again 😀",
        "This one has a name in Latin-1.",
    ]
    assert folder_state(str(folder)) == settings.user_state


def test_a_folder_named_as_a_source_of_herd_is_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "paddock"
    folder.mkdir()
    (folder / "a.txt").write_text(SENTENCE)
    (folder / "b.jsonl").write_text(f'{{"text": "{SENTENCE}", "source": "stdlib-docs"}}\n{{"text": "{SENTENCE}"}}\n')
    settings = Documents(str(folder), folder_state(str(folder)), ReadSettings(), 0)
    made = Runner(tmp_path / "run").run([Stage("documents", "herd.road.documents:run", settings)])
    by_source = read_json(made["documents"] / "herd.json")["metrics"]["by_source"]
    assert by_source == {"user-paddock": 1, "user-stdlib-docs": 1, "b": 1}
    assert set(OWN) >= {SOURCE, PLANTED, *CurateSettings().trusted_sources}
