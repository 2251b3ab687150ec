"""`herd recipes`: what can be raised, and with which settings."""

from __future__ import annotations

import json

from herd.config import to_plain
from herd.recipes import RECIPES, find


def show(name: str | None) -> int:
    if name:
        print(json.dumps(to_plain(find(name)), indent=2, ensure_ascii=False))
        return 0
    for each in RECIPES:
        print(f"{each:<14} {find(each).about}")
    return 0
