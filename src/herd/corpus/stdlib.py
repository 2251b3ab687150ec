"""Text that every machine has: the documentation pages and the source of Python's own standard library.

The pages are rendered by pydoc in one process of its own, with an empty environment: modules are imported there, and
what they print, open or change stays there. Values of the running machine (paths, environment) do not get into
the pages. The pages go through the same extraction as any HTML of the web.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from herd.corpus.extract import extract
from herd.corpus.records import CODE, Document, Unreadable
from herd.errors import ArtifactError
from herd.progress import Progress, Silent

DOCS, SOURCE = "stdlib-docs", "stdlib-code"
_TIMEOUT = 300  # seconds for all modules; it takes 3 to 6


@cache
def public_modules() -> tuple[str, ...]:
    """Public top-level modules that can be imported without a display or a side effect, in alphabetical order.

    Those of this Python: the list in data/stdlib_modules.txt holds for 3.11 to 3.14.
    """
    listed = (files("herd.corpus") / "data/stdlib_modules.txt").read_text("utf-8").split("\n")
    names = {line.strip() for line in listed if line.strip() and not line.startswith("#")}
    return tuple(sorted(names & sys.stdlib_module_names))


def stdlib_documents(
    max_modules: int | None = None, progress: Progress | None = None
) -> Iterator[Document | Unreadable]:
    """Pages (source "stdlib-docs", lang "en") and source files (source "stdlib-code", lang "code"), in fixed order."""
    progress = progress or Silent()
    modules = public_modules()[:max_modules]
    yield from stdlib_pages(modules, progress)
    yield from stdlib_sources(modules)


def stdlib_pages(modules: Sequence[str], progress: Progress | None = None) -> Iterator[Document | Unreadable]:
    """The documentation page of each module, rendered to HTML and extracted."""
    progress = progress or Silent()
    for index, row in enumerate(_rendered(modules)):
        name = row["name"]
        text = extract(row["html"]).text if row["html"] else ""
        if text:
            yield Document(f"{DOCS}/{name}", text, "en", DOCS, meta={"module": name})
        else:
            yield Unreadable(f"{DOCS}/{name}", "", "no_text", row["error"])
        progress.update(index + 1, len(modules), "modules")


def _rendered(modules: Sequence[str]) -> list[dict[str, str]]:
    keep = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    with as_file(files("herd.corpus") / "render_stdlib.py") as script:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-B", "-W", "ignore", "-X", "utf8", str(script)],
            input="\n".join(modules).encode(),
            capture_output=True,
            env=environment,
            timeout=_TIMEOUT,
            check=False,
        )
    if done.returncode:
        raise ArtifactError(
            "pydoc could not render the standard library",
            where=done.stderr.decode("utf-8", "replace").strip().split("\n")[-1],
            mend="leave the standard library out of the recipe's documents, or use a complete Python 3.11 or newer",
        )
    return [json.loads(line) for line in done.stdout.decode("utf-8").split("\n") if line]


def stdlib_sources(modules: Sequence[str]) -> Iterator[Document | Unreadable]:
    """The source files of the modules, tests left out; C modules have none."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for name in modules:
        package = root / name
        paths = sorted(package.rglob("*.py")) if package.is_dir() else [root / f"{name}.py"]
        for path in paths:
            inside = path.relative_to(root)
            if not path.is_file() or {"test", "tests", "idle_test"} & set(inside.parts):
                continue
            try:
                text = path.read_text("utf-8")
            except UnicodeDecodeError as error:
                yield Unreadable(inside.as_posix(), f"byte {error.start}", "not_utf8", error.reason)
                continue
            if text.strip():
                yield Document(f"{SOURCE}/{inside.as_posix()}", text, CODE, SOURCE, meta={"module": name})
