"""Settings of reading documents out of a dataset repository. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from herd.errors import SettingError
from herd.hub.client import is_repo_name


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub as a source of documents; a limit of 0 is none.

    `files` are patterns of paths in the repository, e.g. "data/deu_Latn/train/*.parquet"; none takes every data file.
    Files are read in the order of their names until a limit is reached.
    """

    repo: str
    name: str = ""  # of the source, as mix.weights speaks of it; the repository's own name if empty
    files: tuple[str, ...] = ()
    revision: str = "main"  # a branch, a tag or a commit
    lang: str = ""  # of documents that do not say themselves
    text_column: str = "text"
    max_documents: int = 0
    max_bytes: int = 0  # of text, in UTF-8

    def __post_init__(self) -> None:
        if not is_repo_name(self.repo):
            raise SettingError(f"'{self.repo}' is no dataset of the hub", mend="write OWNER/NAME")
        if self.max_documents < 0 or self.max_bytes < 0:
            raise SettingError(f"a limit of {self.repo} is negative", mend="give a count, or 0 for no limit")

    @property
    def source(self) -> str:
        return self.name or self.repo.rpartition("/")[2]

    def limits(self) -> str:
        """What is taken at most, in words."""
        found = [f"{self.max_documents:,} documents"] if self.max_documents else []
        found += [f"{self.max_bytes / 1e9:,.3g} GB of text"] if self.max_bytes else []
        return " or ".join(found) or "everything"
