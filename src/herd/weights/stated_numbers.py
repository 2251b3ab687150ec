"""Numbers that files of strangers state: whole and finite, or refused by the name of their key. Imports no torch."""

from __future__ import annotations

import sys

from herd.errors import FormatError


def whole(value: object, key: str, where: str) -> int:
    """The value as an int; FormatError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{key} should be a whole number, not {value!r}", where=where)
    return value


def number(value: object, key: str, where: str) -> float:
    """The value as a finite float; FormatError for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
        raise FormatError(f"{key} should be a number, not {str(value)[:30]}", where=where)
    return float(value)
