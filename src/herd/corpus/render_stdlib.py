"""Run by stdlib.py in a process of its own: module names on stdin, a JSON line {"name", "html", "error"} for each.

It imports nothing of herd. Whatever the modules print goes nowhere.
"""

import importlib
import json
import os
import pydoc
import re
import sys
from typing import Any

_SPACE = r"(?: |&nbsp;)"  # pydoc writes signatures with spaces that do not break
_ADDRESS = re.compile(rf"{_SPACE}at{_SPACE}0x[0-9a-fA-F]{{4,}}")
_PLAIN = (bool, int, float, str, bytes, type(None))


_attributes = pydoc.classify_class_attrs


def own_attributes(cls: Any) -> list[Any]:
    """Without what a class inherits: pydoc repeats the base's page in every class, which is no new text."""
    return [found for found in _attributes(cls) if found[2] is cls]


class Page(pydoc.HTMLDoc):
    """pydoc's page without what belongs to this machine: where files lie, and values such as os.environ."""

    def docother(self, object: Any, name: Any = None, mod: Any = None, *ignored: Any) -> str:
        """A value of a module or class: shown if it is short and plain, else by its type."""
        label = f"<strong>{self.escape(name)}</strong> = " if name else ""
        shown = repr(object) if isinstance(object, _PLAIN) else ""
        if not 0 < len(shown) <= 60 or os.sep in shown:
            shown = f"a {type(object).__name__}"
        return label + self.escape(shown)

    def filelink(self, url: str, path: str) -> str:
        return ""

    def getdocloc(self, object: Any, basedir: str = "") -> None:
        return None

    def index(self, dir: str, shadowed: Any = None) -> str:
        return ""


def page(name: str) -> dict[str, str]:
    try:
        module = importlib.import_module(name)
        html = Page().page(name, Page().document(module, name))
        return {"name": name, "html": _ADDRESS.sub("", html), "error": ""}
    except Exception as error:
        return {"name": name, "html": "", "error": f"{type(error).__name__}: {error}"}


def main() -> None:
    names = sys.stdin.read().split()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    setattr(pydoc, "classify_class_attrs", own_attributes)  # noqa: B010  docclass() looks it up in its module
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    for name in names:
        out.write(json.dumps(page(name)) + "\n")
    out.close()


if __name__ == "__main__":
    main()
