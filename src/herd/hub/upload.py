"""A set of files as one commit of a repository: all of them, or nothing changes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from herd.errors import HubError
from herd.hub.client import Hub
from herd.hub.listing import list_files
from herd.progress import Progress, Silent


@dataclass(frozen=True)
class Published:
    url: str
    commit: str
    removed: tuple[str, ...]


def stale(hub: Hub, repo: str, names: set[str], revision: str = "main") -> tuple[str, ...]:
    """Weights in the repository that are not among `names`: a reader would take shards of two models for one."""
    present = [file.path for file in list_files(hub, repo, revision=revision).files]
    return tuple(p for p in present if "/" not in p and p not in names and p.endswith((".safetensors", ".index.json")))


def publish(
    hub: Hub,
    repo: str,
    files: Mapping[str, Path | bytes],
    *,
    message: str,
    private: bool = False,
    revision: str = "main",
    progress: Progress = Silent(),  # noqa: B008
) -> Published:
    """Make `repo` where there is none, and commit `files` to it; stale weights go in the same commit.

    HubError says what the hub refuses: no token, no right to write there, a card that it does not accept; and that a
    repository which is to be private is open already.
    """
    hub.refuse_offline("a release")
    if not hub.secret():
        raise HubError(
            "nobody is logged in, so nothing can be published",
            where=hub.page(repo),
            mend=f"make a token that may write at {hub.page('settings/tokens')}, run `hf auth login` or set HF_TOKEN",
        )
    library = hub.library()
    if sys.stderr.isatty():
        library.utils.enable_progress_bars()  # bytes go out inside the library, which draws them itself
    with hub.errors(repo, revision=revision):
        api = hub.api()
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise HubError(
                "the repository is there already, and everybody can read it",
                where=hub.page(repo),
                mend="make it private in its settings, or leave --private away",
            )
        if revision != "main":
            api.create_branch(repo, branch=revision, exist_ok=True)
        removed = stale(hub, repo, set(files), revision)
        operations = [library.CommitOperationDelete(path_in_repo=name) for name in removed]
        operations += [
            library.CommitOperationAdd(
                path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
            )
            for name, content in sorted(files.items())
        ]
        progress.note(f"sending {len(files)} files to {hub.page(repo)}")
        made = api.create_commit(repo, operations=operations, commit_message=message, revision=revision)
    return Published(hub.page(repo), str(made.oid), removed)
