"""A model repository as a model folder: whole or not there, verified, and signed with where it came from.

    pulled = pull(Hub.from_environment(), "meta-llama/Llama-3.1-8B-Instruct", Path("models/llama"))

Files gather in `.NAME.pull` beside the folder, which takes its place when every checksum agrees; a killed pull goes on
there. Small files come first: what is no Llama is refused before gigabytes are fetched. herd.json gets the part
`pulled`: repository, commit, licence, checksums (`release/` reads the licence from it).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from herd.errors import FormatError
from herd.files import make_folder, read_json, replace_folder, storage_errors, write_json
from herd.hub.client import Hub
from herd.hub.download import check_room, fetch_all, part_of
from herd.hub.kept import copy_kept, list_kept
from herd.hub.listing import Listing, RemoteFile, list_files
from herd.hub.select import INDEX, LAYOUTS, Layout, Wanted, choose, sharded
from herd.hub.standing import RECORD, is_same, record_of, refuse_foreign, refuse_loss, remembered, take_over
from herd.progress import Progress, Silent
from herd.stages import only_one
from herd.weights.config_json import from_hf
from herd.weights.herd_json import herd_json


@dataclass(frozen=True)
class Pulled:
    """`found` says that the folder was there and whole, so nothing was fetched."""

    folder: Path
    layout: Layout
    commit: str
    licence: str
    bytes: int
    found: bool = False


def pull(
    hub: Hub,
    repo: str,
    out: Path,
    *,
    revision: str = "main",
    layout: Layout | None = None,
    only: str = "",
    progress: Progress = Silent(),  # noqa: B008
) -> Pulled:
    """Fetch `repo` at `revision` into `out`. Offline it comes from the hub's cache on this machine.

    Raises HubError (refused, not reachable, damaged on the way), InputError (nothing to take), ArtifactError (another
    folder stands at `out`, or the model is none that herd reads), StorageError (no room).
    """
    asked, out = out, out.resolve()  # where `out` is a link, the files gather on the disk that it leads to
    if hub.offline and (whole := _whole(out, repo, revision, layout, only)):
        return replace(whole, folder=asked)
    listing, kept = list_kept(hub, repo, revision=revision) if hub.offline else (None, None)
    listing = listing or list_files(hub, repo, revision=revision)
    refuse_foreign(out, {repo, listing.repo})
    if listing.repo != repo:
        progress.note(f"{repo} is called {listing.repo} now")
    if listing.refused:
        progress.note(f"left aside, for their names are not safe: {', '.join(listing.refused[:5])}")
    wanted = choose(listing, layout, only)
    if record_of(out).get("commit") != listing.commit:
        refuse_loss(out)
    staging = out.with_name(f".{out.name}.pull")
    make_folder(staging)
    with only_one(staging):
        take_over(out, staging, wanted.files)
        source = _Source(hub, listing, kept, staging, progress)
        source.bring(wanted.first)
        wanted = _examined(listing, wanted, staging)
        source.bring(wanted.weights)
        licence = _licence(hub, staging)
        _clear(staging, wanted.files)
        found = is_same(out, staging, listing.commit, wanted.files)
        if found:
            shutil.rmtree(staging)
        else:
            refuse_loss(out)
            _sign(staging, hub, listing, licence, wanted, progress)
            with storage_errors(out):
                replace_folder(staging, out)
    size = sum(file.size for file in wanted.files.values())
    return Pulled(asked, wanted.layout, listing.commit, licence, size, found)


@dataclass(frozen=True)
class _Source:
    """Where files come from: the hub, or (offline) a folder of its cache."""

    hub: Hub
    listing: Listing
    kept: Path | None
    staging: Path
    progress: Progress

    def bring(self, files: Mapping[str, RemoteFile]) -> None:
        check_room(self.staging, sum(file.size - _there(self.staging / name, file) for name, file in files.items()))
        if self.kept is None:
            fetch_all(self.hub, self.listing, [(f, self.staging / n) for n, f in files.items()], self.progress)
            return
        total = sum(file.size for file in files.values()) / 1e6
        done = 0.0
        for name, file in files.items():
            copy_kept(self.kept, file, self.staging / name)
            done += file.size / 1e6
            self.progress.update(done, total, "MB")


def _there(place: Path, file: RemoteFile) -> int:
    part = part_of(place, file)
    standing = place if place.is_file() else part
    return min(file.size, standing.stat().st_size) if standing.is_file() else 0


def _whole(out: Path, repo: str, revision: str, layout: Layout | None, only: str) -> Pulled | None:
    """The folder of an earlier pull of just this, where every file still has its checksum; else None."""
    record, files = record_of(out), remembered(out)
    form = next((one for one in LAYOUTS if one == record.get("layout")), None)
    same = record.get("repo") == repo and revision in (record.get("revision"), record.get("commit"))
    if not same or form is None or layout not in (None, form):
        return None
    if only and not any(fnmatchcase(file.path, only) for file in files.values()):
        return None
    if not files or not all(file.matches(out / name) for name, file in files.items() if name != "herd.json"):
        return None
    size = sum(file.size for file in files.values())
    return Pulled(out, form, str(record.get("commit")), str(record.get("licence", "")), size, found=True)


def _examined(listing: Listing, wanted: Wanted, staging: Path) -> Wanted:
    """Refuse what could not be loaded, and narrow the weights to those of the index."""
    if wanted.layout != "hf":
        return wanted
    from herd.weights.quantization import read_layout

    content = read_json(staging / "config.json")
    from_hf(content, f"{listing.repo}: config.json")
    read_layout(staging, content)
    if INDEX not in wanted.first:
        return wanted
    index = read_json(staging / INDEX)
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise FormatError("the index has no weight_map of tensor names to file names", where=f"{listing.repo}: {INDEX}")
    return sharded(listing, wanted, set(names.values()))


def _licence(hub: Hub, staging: Path) -> str:
    """The licence that the model card states, "" where it states none."""
    card = staging / "README.md"
    if not card.is_file():
        return ""
    try:
        stated = hub.library().metadata_load(card) or {}
    except Exception:  # a stranger's YAML: the library passes on whatever its parser raises
        return ""
    named = [stated.get(key) for key in ("license_name", "license")] if isinstance(stated, dict) else []
    return next((one[:100] for one in named if isinstance(one, str) and one), "")


def _clear(staging: Path, files: Mapping[str, RemoteFile]) -> None:
    """Remove what an earlier try of another revision or layout left."""
    for path in staging.iterdir():
        if path.name not in files:
            path.unlink()


def _sign(staging: Path, hub: Hub, listing: Listing, licence: str, wanted: Wanted, progress: Progress) -> None:
    own = staging / "herd.json"
    try:
        made = herd_json(staging)  # of a model that herd released: its lineage stays
    except FormatError as error:
        made = {}
        progress.note(f"herd.json of the repository is left out: {error.message}")
    record = {
        "repo": listing.repo,
        "revision": listing.revision,
        "commit": listing.commit,
        "hub": hub.page("").rstrip("/"),
        "layout": wanted.layout,
        "licence": licence,
        "date": datetime.now(UTC).date().isoformat(),
        "files": {name: {"path": f.path, "bytes": f.size, "digest": f.digest} for name, f in wanted.files.items()},
    }
    own.unlink(missing_ok=True)  # it may be a link to the earlier folder's file
    write_json(own, {**made, RECORD: record})
