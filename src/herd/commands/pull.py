"""`herd pull`: a model of the hub as a folder here, and which command to type next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from herd.errors import InputError

if TYPE_CHECKING:
    from herd.hub.pull import Pulled


def pull(repo: str, *, revision: str, out: str, layout: str, only: str) -> int:
    from herd.commands.watch_line import Line
    from herd.hub.client import Hub, check_repo_name
    from herd.hub.pull import pull as fetch
    from herd.hub.select import LAYOUTS

    check_repo_name(repo)
    guess = ("gguf" if only.lower().endswith(".gguf") else "meta") if only else ""
    chosen = next((name for name in LAYOUTS if name == (layout or guess)), None)
    if only and chosen not in ("gguf", "meta"):
        raise InputError(f"--only chooses among files of GGUF or of Meta's layout, not of {layout}", where="--only")
    folder = Path(out or Path("models") / repo.rpartition("/")[2])
    if Path.cwd().resolve().is_relative_to(folder.resolve()):
        raise InputError(
            "this folder cannot be replaced, for you stand in it", where=str(folder), mend="name a new one with --out"
        )
    with Line(sys.stderr) as line:
        pulled = fetch(Hub.from_environment(), repo, folder, revision=revision, layout=chosen, only=only, progress=line)
    done = "was here already, whole" if pulled.found else "is here, every checksum agrees"
    print(f"{folder}: {repo} at {pulled.commit[:12]} {done} ({pulled.bytes / 1e6:,.1f} MB, layout {pulled.layout})")
    if pulled.licence:
        print(f"licence  {pulled.licence}: read it before you hand the model on{_notice(pulled.licence)}")
    else:
        print("licence  its card states none: ask whoever published it before you hand the model on")
    print(f"next     {_next(pulled)}")
    return 0


def _notice(licence: str) -> str:
    return " (herd release keeps to it)" if licence.lower().startswith("llama3.1") else ""


def _next(pulled: Pulled) -> str:
    """The command that this folder is ready for."""
    folder = pulled.folder
    if pulled.layout == "peft":
        return f"herd inspect {folder}   (an adapter: it opens over the base that it names)"
    if pulled.layout != "hf":
        return f"herd chat {folder}   (or herd inspect, which tells what it is)"
    template = (folder / "chat_template.jinja").is_file() or "chat_template" in _text(folder / "tokenizer_config.json")
    return f"herd chat {folder}" if template else f"herd inspect {folder}   (a base model: it continues text)"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
