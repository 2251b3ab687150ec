"""Frozen dataclasses to JSON and back, strictly: an unknown key or a wrong type is a FormatError with its place.

Covers what the report's data is made of: str, int, float, bool, None, unions of them, tuples, mappings with string
keys, dataclasses. NaN and infinities become null on the way out.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from herd.errors import FormatError

T = TypeVar("T")


def encode(value: Any) -> Any:
    """A dataclass (and what it holds) as dicts, lists and plain values; key order is field order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {spec.name: encode(getattr(value, spec.name)) for spec in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decode(kind: type[T], value: object, where: str) -> T:
    """`value` (as `json.loads` gives it) as a `kind`; `where` names the place in errors."""
    decoded: T = _decode(kind, value, where)
    return decoded


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), value, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(kind, value, where)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), value, where)
    if origin is Mapping:
        _expect(isinstance(value, dict), "an object", value, where)
        return {key: _decode(typing.get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float:
        _expect(isinstance(value, (int, float)) and not isinstance(value, bool), "a number", value, where)
        return value
    if kind is int:
        _expect(isinstance(value, int) and not isinstance(value, bool), "a whole number", value, where)
        return value
    _expect(isinstance(value, kind), {str: "text", bool: "true or false"}.get(kind, "null"), value, where)
    return value


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), f"an object ({kind.__name__})", value, where)
    hints = _hints(kind)
    for key in value:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            raise FormatError(
                f"unknown key '{key}'", where=where, mend=f"did you mean '{near[0]}'?" if near else "remove it"
            )
    fields = {key: _decode(hints[key], item, f"{where}.{key}") for key, item in value.items()}
    for spec in dataclasses.fields(kind):
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if required and spec.name not in fields:
            raise FormatError(f"the key '{spec.name}' is missing", where=where)
    return kind(**fields)


def _decode_union(kind: Any, value: Any, where: str) -> Any:
    options = typing.get_args(kind)
    if value is None and type(None) in options:
        return None
    real = [option for option in options if option is not type(None)]
    if len(real) == 1:  # the error of the one real option says more than "none of these"
        return _decode(real[0], value, where)
    for option in real:
        try:
            return _decode(option, value, where)
        except FormatError:
            continue
    _expect(False, " or ".join(option.__name__ for option in real), value, where)


def _decode_tuple(items: tuple[Any, ...], value: Any, where: str) -> Any:
    _expect(isinstance(value, (list, tuple)), "a list", value, where)
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_decode(items[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    _expect(len(value) == len(items), f"a list of {len(items)}", value, where)
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(items, value, strict=True)))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _expect(right: bool, wanted: str, value: object, where: str) -> None:
    if not right:
        raise FormatError(f"{wanted} expected, {type(value).__name__} found", where=where)
