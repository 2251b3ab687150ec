"""Arrays that were kept in one file (.npz): read back, or said what is wrong with it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from herd.errors import ArtifactError


@contextmanager
def kept_arrays(path: Path, what: str, version: int, mend: str) -> Iterator[Mapping[str, Any]]:
    """The arrays of a file whose "format" is `version`.

    Raises ArtifactError, "this is no `what`", for a file that is missing or cut short, a format of another herd, and
    whatever the block finds wrong (ValueError, KeyError).
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            if int(stored["format"]) != version:
                raise ValueError(f"its format is {int(stored['format'])}, this herd reads {version}")
            yield stored
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"this is no {what}: {error}", where=str(path), mend=mend) from error
