"""What curation costs as the corpus grows: documents a second of CPU, and the memory of all processes, at two sizes.

Synthetic English pages of about 60 words are written as JSON lines, a file for each 5,000: one in ten is a
copy, one in ten a near-copy of an earlier page of its file, one in fifty has a menu. `herd curate` runs over them in a
process of its own with two workers. The small size stands where the peer of other rows stands, so `vs_peer` is the
large run's rate over the small one's: 1.0 is a cost per document that does not grow. Sizes: HERD_BENCH_DOCUMENTS, e.g.
"20000,200000" (the default) or "20000,2000000"; HERD_BENCH_FOLDER keeps the pages.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from bench.harness import Row, make_row

SIZES = tuple(int(size) for size in os.environ.get("HERD_BENCH_DOCUMENTS", "20000,200000").split(","))
IN_A_FILE = 5000
CEILING = 6 << 30  # bytes: the bar for two million documents
STOP = "the of and to in a is that it was for on are as with at be this have from or had by not"
VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnprstvwz"


def rows() -> list[Row]:
    """Documents a second of CPU, and megabytes at the most, which are better the fewer they are."""
    folder = os.environ.get("HERD_BENCH_FOLDER")
    if folder:
        return _rows(Path(folder))
    with tempfile.TemporaryDirectory() as name:
        return _rows(Path(name))


def _rows(folder: Path) -> list[Row]:
    small, large = (_curate(folder / f"{size}", size) for size in SIZES)
    name = f"herd at {SIZES[0]:,}"
    rate = make_row(f"corpus-scale-{SIZES[1]}", "documents/s/core", [large[0]], [small[0]], name, None)
    room = make_row(f"corpus-scale-{SIZES[1]}-memory", "MB", [large[1] / 1e6], [small[1] / 1e6], name, CEILING / 1e6)
    return [rate, room]


def _curate(folder: Path, size: int) -> tuple[float, float]:
    """(documents a second of CPU, bytes at the most) of one curation."""
    source = folder / "source"
    shutil.rmtree(folder / "out", ignore_errors=True)  # of an earlier run: it would have nothing to do
    for number in range(-(-size // IN_A_FILE)):
        path = source / f"{number:05d}.jsonl"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            count = min(IN_A_FILE, size - number * IN_A_FILE)
            aside = path.with_suffix(".part")
            aside.write_text("".join(json.dumps(row) + "\n" for row in _pages(number, count)), encoding="utf-8")
            aside.rename(path)
    line = ["-m", "herd", "curate", str(source), "--out", str(folder / "out"), "--workers", "2"]
    # The units are the files: so many that workers share them at the small size too.
    process = subprocess.Popen([sys.executable, *line, "--unit-mb", "4"], stdout=subprocess.DEVNULL)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    watched = _Watched(process.pid)
    code = process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit(f"herd curate ended with {code}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return size / spent, watched.bytes


class _Watched(threading.Thread):
    """The memory of a process and its children (proportional, so that what they share counts once), at the most."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root, self.bytes = pid, 0
        self.start()

    def run(self) -> None:
        while held := sum(map(_memory, _family(self._root))):
            self.bytes = max(self.bytes, held)
            time.sleep(0.2)


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        with suppress(OSError):  # it ended meanwhile
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _memory(pid: int) -> int:
    with suppress(OSError):
        told = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(told[1]) << 10 if told else 0
    return 0


def _pages(number: int, count: int) -> Iterator[dict[str, str]]:
    """The pages of one file; they depend on its number alone."""
    rng = random.Random(number)
    shared = random.Random(0)
    common = [_word(shared) for _ in range(4000)]
    stop = STOP.split()
    texts: list[str] = []
    for place in range(count):
        kind = place % 50
        if texts and kind % 10 == 3:
            text = rng.choice(texts)
        elif texts and kind % 10 == 7:
            words = rng.choice(texts).split(" ")
            words[rng.randrange(len(words))] = _word(rng)
            text = " ".join(words)
        else:
            text = " ".join(_sentence(rng, common, stop) for _ in range(rng.randint(3, 8)))
        texts.append(text)
        menu = "Home and News of the Day\nContact us with the Form\n" if kind == 1 else ""
        yield {"id": f"{number}-{place}", "text": menu + text, "lang": "en", "source": "synthetic"}


def _sentence(rng: random.Random, common: list[str], stop: list[str]) -> str:
    words = [rng.choice(stop if place % 2 else common) for place in range(rng.randint(8, 16))]
    return " ".join(words).capitalize() + "."


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(2, 4)))


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "corpus-scale": ("curation at two sizes: documents a second of CPU, memory at the most", rows)
}
