"""`herd release`: a model folder to the hub with its card and its licence's notices, or a look at what would go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from herd.release.bundle import Bundle, Options


def release(folder: Path, repo: str, options: Options, *, private: bool, revision: str, dry_run: bool) -> int:
    from herd.commands.watch_line import Line
    from herd.hub.client import Hub, check_repo_name
    from herd.hub.upload import publish
    from herd.release.bundle import make_bundle

    check_repo_name(repo)
    bundle = make_bundle(folder, repo, options)
    if dry_run:
        print(bundle.card)
    _show(bundle, repo)
    if dry_run:
        print("dry run: nothing was sent")
        return 0
    with Line(sys.stderr) as line:
        done = publish(
            Hub.from_environment(),
            repo,
            bundle.files,
            message="Publish with herd",
            private=private,
            revision=revision,
            progress=line,
        )
    if done.removed:
        print(f"removed stale weights: {', '.join(done.removed)}")
    print(f"published {done.url} at {done.commit[:12]}")
    print(f"next     herd pull {repo}")
    return 0


def _show(bundle: Bundle, repo: str) -> None:
    print(f"{repo} will hold:")
    for name, size in bundle.sizes().items():
        print(f"  {size:>16,}  {name}")
    if bundle.left_aside:
        print(f"left aside, as no part of a model: {', '.join(bundle.left_aside)}")
    for note in bundle.notes:
        print(note)
    agreement = bundle.bond.agreement
    if agreement:
        print(f"bound by {agreement.hub}: {'; '.join(bundle.bond.reasons)}")
        print(
            f"in the card '{agreement.display}'; LICENSE and a notice go along; the name begins with {agreement.prefix}"
        )
