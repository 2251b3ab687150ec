"""A model's files as others can use them: no path of this machine in them, no address with a password.

config.json and its kin are rewritten only where they hold such a path; every other file goes out as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from herd.errors import SettingError
from herd.files import read_json
from herd.release.lineage import Lineage

ADAPTER = "adapter_config.json"
_BASE = "base_model_name_or_path"
# Keys of the libraries' JSON files that hold the place a file was loaded from; readers do without them.
_PLACES = ("_name_or_path", "name_or_path", "tokenizer_file", "special_tokens_map_file")
_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
_START = re.compile(r"(/|~|\.{1,2}/|\\\\|[A-Za-z]:[\\/])")
_WITHIN = re.compile(r"(?<![\w:/.])(?:file://)?(?:~|/[\w.@+-]+)(?:/[\w.@+-]+)+")
_SECRET = re.compile(r"(\w+://)[^/@\s]+@")


def base_of(folder: Path, lineage: Lineage, stated: str) -> str:
    """The name on the hub of the model that the adapter in `folder` belongs to; "" where the folder holds no adapter.

    SettingError where it is only known as a folder of this machine, from which nobody else can load it.
    """
    path = folder / ADAPTER
    if not path.is_file() or (folder / "config.json").is_file():
        return ""
    content = read_json(path)
    named = str(content.get(_BASE) or "") if isinstance(content, dict) else ""
    pulled = [one.name for one in lineage.origins if one.use == "weights" and one.folder is not None]
    if stated:
        return stated
    if len(pulled) == 1 and _is_place(named, folder):
        return pulled[0]
    if not named or _is_place(named, folder):
        raise SettingError(
            f"the adapter's base is known only as '{named or 'unknown'}', a place on this machine",
            where=str(path),
            mend="publish the base and name it: --base OWNER/NAME; or merge it: herd convert ADAPTER NEW --to hf",
        )
    return named


def _is_place(name: str, folder: Path) -> bool:
    place = Path(name).expanduser()
    return bool(_START.match(name)) or name.count("/") != 1 or place.exists() or (folder.parent / place).exists()


def rewritten(folder: Path, names: Mapping[str, Path], base: str) -> dict[str, bytes]:
    """Those of the files that must change, with their new content."""
    found = {}
    for name in (*_FILES, ADAPTER):
        if name not in names:
            continue
        content = read_json(folder / name)
        if not isinstance(content, dict):
            continue
        changed = {key: one for key, one in content.items() if not (key in _PLACES and _is_local(one))}
        if name == ADAPTER:
            changed[_BASE] = base
        if changed != content:
            found[name] = (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()
    return found


def _is_local(value: object) -> bool:
    return isinstance(value, str) and (bool(_START.match(value)) or value.count("/") > 1 or Path(value).exists())


def anonymous(value: Any) -> Any:
    """The value with every absolute path cut to its last name, and without users and passwords in addresses."""
    if isinstance(value, Mapping):
        return {anonymous(str(name)): anonymous(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [anonymous(one) for one in value]
    if not isinstance(value, str):
        return value
    if _START.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return _WITHIN.sub(lambda found: found[0].rpartition("/")[2], _SECRET.sub(r"\1", value))
