"""Which files of a model repository are wanted: one layout, its known names, nothing that could run.

A repository often holds a model several times (safetensors, `original/*.pth`, pickles, GGUF); one of them is taken.
Where a layout is there more than once (GGUF kinds, `original/mp8` beside `original/mp16`), a pattern says which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from herd.errors import HubError, InputError
from herd.hub.listing import Listing, RemoteFile

Layout = Literal["hf", "peft", "meta", "gguf"]
LAYOUTS: tuple[Layout, ...] = ("hf", "peft", "meta", "gguf")

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_TEXTS = re.compile(r"(README|LICEN[SC]E|USE_POLICY|NOTICE)([._-][\w.-]+)?", re.IGNORECASE)
_BESIDE = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("tokenizer.model", "chat_template.jinja", "chat_template.json", "herd.json"),
)
_META = re.compile(r"params\.json|tokenizer\.model|consolidated\.\d\d\.pth|fp8_scales_\d+\.pt")
GGUF_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)  # of a model that is cut into several files
_MAX_TEXT = 100_000_000  # of a file that is read whole: the released tokenizer.json has 9 MB


@dataclass(frozen=True)
class Wanted:
    """`first` are small files that say what the rest is; `weights` maps the names of weights to their files.

    Names are those in the folder to be written: `original/params.json` becomes `params.json`.
    """

    layout: Layout
    first: dict[str, RemoteFile]
    weights: dict[str, RemoteFile]

    @property
    def files(self) -> dict[str, RemoteFile]:
        return {**self.first, **self.weights}


def choose(listing: Listing, layout: Layout | None = None, only: str = "") -> Wanted:
    """The files of one layout, the first that is there if none is asked for; `only` is a pattern of paths.

    InputError says what the repository holds where there is nothing to take. A sharded model's `weights` are every
    numbered file; `sharded` narrows them to those of the index.
    """
    makers = {"hf": _hf, "peft": _peft, "meta": _meta, "gguf": _gguf}
    for name in (layout,) if layout else LAYOUTS:
        found = makers[name](listing, only)
        if found and found.weights:
            for file in found.first.values():
                if file.size > _MAX_TEXT:
                    raise InputError(f"{file.path} has {file.size:,} bytes, which no such file has", where=listing.repo)
            return found
    form = f" in the layout {layout}" if layout else ""
    if listing.cached:
        raise _not_cached(listing, f"holds no whole model{form}; it holds {_kinds(listing)}")
    raise InputError(
        f"the repository holds no model{form} that is read here; it holds {_kinds(listing)}",
        where=f"{listing.repo}@{listing.revision}",
        mend="wanted: config.json with safetensors (hf), an adapter (peft), original/*.pth with params.json (meta), or "
        "GGUF; pickles such as pytorch_model.bin can run code and are never fetched",
    )


def sharded(listing: Listing, wanted: Wanted, shards: set[str]) -> Wanted:
    """`wanted` with exactly the shards that the index names; InputError when the repository lacks one."""
    lost = sorted(name for name in shards if name not in wanted.weights)
    if lost and listing.cached:
        raise _not_cached(listing, f"lacks {', '.join(lost[:5])}")
    if lost:
        raise InputError(
            f"the index names files of weights that the repository does not hold: {', '.join(lost[:5])}",
            where=f"{listing.repo}@{listing.revision}",
            mend="the repository is incomplete; take another revision",
        )
    return Wanted(wanted.layout, wanted.first, {name: wanted.weights[name] for name in sorted(shards)})


def _not_cached(listing: Listing, what: str) -> HubError:
    return HubError(
        f"offline (HF_HUB_OFFLINE is set), and the cache of this machine {what}",
        where=f"{listing.repo}@{listing.revision}",
        mend="unset HF_HUB_OFFLINE where there is a network, then run the same command again",
    )


def _top(listing: Listing) -> dict[str, RemoteFile]:
    return {file.path: file for file in listing.files if "/" not in file.path}


def _beside(top: dict[str, RemoteFile]) -> dict[str, RemoteFile]:
    return {name: file for name, file in top.items() if name in _BESIDE or _TEXTS.fullmatch(name)}


def _hf(listing: Listing, only: str) -> Wanted | None:
    top = _top(listing)
    if "config.json" not in top:
        return None
    first = _beside(top) | {"config.json": top["config.json"]}
    if SINGLE in top:  # the single file wins, as when a folder is read
        return Wanted("hf", first, {SINGLE: top[SINGLE]})
    if INDEX not in top:
        return None
    shards = {name: file for name, file in top.items() if name.endswith(".safetensors")}
    return Wanted("hf", first | {INDEX: top[INDEX]}, shards)


def _peft(listing: Listing, only: str) -> Wanted | None:
    top = _top(listing)
    if not {"adapter_config.json", "adapter_model.safetensors"} <= set(top):
        return None
    first = _beside(top) | {"adapter_config.json": top["adapter_config.json"]}
    return Wanted("peft", first, {"adapter_model.safetensors": top["adapter_model.safetensors"]})


def _meta(listing: Listing, only: str) -> Wanted | None:
    folders: dict[str, dict[str, RemoteFile]] = {}
    for file in listing.files:
        folder, _, name = file.path.rpartition("/")
        if _META.fullmatch(name) and (folder == "" or folder.split("/")[0] == "original"):
            folders.setdefault(folder, {})[name] = file
    there = {
        folder: files
        for folder, files in folders.items()
        if "params.json" in files and any(not only or fnmatchcase(file.path, only) for file in files.values())
    }
    if len(there) > 1 and "original" not in there:  # the 405B comes cut for 8 GPUs and for 16
        raise _several(listing, "models in Meta's layout", there, f"{max(there)}/*")
    inside = there.get("original") or next(iter(there.values()), None)
    if inside is None:
        return None
    texts = {name: file for name, file in _top(listing).items() if _TEXTS.fullmatch(name)}
    weights = {name: file for name, file in inside.items() if name.endswith((".pth", ".pt"))}
    return Wanted("meta", texts | {n: f for n, f in inside.items() if n not in weights}, weights)


def _gguf(listing: Listing, only: str) -> Wanted | None:
    files = {file.path: file for file in listing.files if file.path.lower().endswith(".gguf")}
    files = {path: file for path, file in files.items() if not only or fnmatchcase(path, only)}
    models = {GGUF_PART.sub("", path) for path in files}
    if len(models) > 1:
        raise _several(listing, "GGUF models", files, "*Q8_0*.gguf")
    counts = {int(part[2]) for path in files if (part := GGUF_PART.search(path))}
    if counts and counts != {len(files)}:
        raise InputError(
            f"{len(files)} of {max(counts)} parts of a GGUF model are named",
            where=f"{listing.repo}@{listing.revision}",
            mend="name all of them with --only; where the repository lacks some, take another revision",
        )
    texts = {name: file for name, file in _top(listing).items() if _TEXTS.fullmatch(name)}
    return Wanted("gguf", texts, {path.rpartition("/")[2]: file for path, file in files.items()}) if files else None


def _several(listing: Listing, what: str, names: Iterable[str], example: str) -> InputError:
    there = sorted(names)
    return InputError(
        f"the repository holds several {what}: {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}",
        where=f"{listing.repo}@{listing.revision}",
        mend=f"name one with --only, e.g. --only '{example}'",
    )


def _kinds(listing: Listing) -> str:
    names = sorted({file.path.rpartition("/")[2].rpartition(".")[2] for file in listing.files})
    return f"{len(listing.files)} files of the kinds {', '.join(names[:12])}" if names else "nothing"
