"""A model's tokenizer in one folder, for formats that hold it inside themselves.

with tokenizer_folder(model) as folder:        # None: the model has no tokenizer
    metadata = to_metadata(folder, vocab_size)
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from herd.errors import HerdError
from herd.text import Tokenizer
from herd.weights.stored import TOKENIZER_FILES, StoredModel


@contextmanager
def tokenizer_folder(model: StoredModel) -> Iterator[Path | None]:
    """A folder with the model's tokenizer.json and its kin; None if there is no tokenizer.

    It is gone when an error about a file in it is read: such an error names the model's own file.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            _gather(model, folder)
            yield folder if (folder / "tokenizer.json").is_file() else None
        except HerdError as error:
            file = Path(error.where)
            if file.is_relative_to(folder):
                error.where = str(model.files.get(file.name, model.path))
            raise


def _gather(model: StoredModel, folder: Path) -> None:
    """Put the model's tokenizer files into `folder`; bare ranks become a tokenizer.json."""
    for name in TOKENIZER_FILES:
        if name in model.files:
            shutil.copyfile(model.files[name], folder / name)
    if model.tokenizer is not None:
        model.tokenizer.save(folder)
    elif "tokenizer.json" not in model.files and "tokenizer.model" in model.files:
        Tokenizer.load(folder).save(folder)
