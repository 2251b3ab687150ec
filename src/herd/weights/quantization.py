"""Which layers of a Hugging Face folder are FP8: `quantization_config` of config.json, read and written.

Understood is e4m3 with scales of weights by row or by matrix, and scales of activations that are made on the fly for
each token ("dynamic") or are fixed, one for each matrix ("static", `X.input_scale`):

    compressed-tensors   what `quantize/`, llm-compressor and RedHat write (float-quantized, naive-quantized)
    fbgemm_fp8           Meta's own release of 405B on the Hub; dynamic
    fp8                  AutoFP8, with activation_scheme "dynamic" or "static"

Everything else is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herd.errors import ArtifactError, FormatError
from herd.weights.herd_json import herd_json

HERD_KEY = "fp8"  # in herd.json; compressed-tensors has no word for the bound on activations
_BOUND_NOTE = "compressed-tensors cannot say this bound; programs other than herd run without it"
_OTHERS = "use the model's BF16 folder, or one in compressed-tensors FP8 (llm-compressor's FP8 or FP8_DYNAMIC)"
_HEAD = "re:.*lm_head$"  # vLLM and SGLang take "Linear" for the layers inside; a head they read as FP8 only by name
_HEADS = ("lm_head", "re:.*lm_head", _HEAD)
_CACHE = ("k_scale", "v_scale", "kv_scale", "output_scale")  # of an FP8 key/value cache


@dataclass(frozen=True)
class Fp8Layout:
    """Every linear layer is FP8 but those in `ignore`: names, parts of names at a dot, or patterns after 're:'.

    `by_matrix`: a weight's scale is one number, not one a row. `static`: activations have one fixed scale a matrix.
    """

    method: str
    ignore: tuple[str, ...]
    bound: float | None
    by_matrix: bool
    static: bool
    notes: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        return not any(_matches(pattern, name) for pattern in self.ignore)

    def passes_over(self, tensor: str) -> bool:
        """Scales of an FP8 key/value cache: keys and values stay as they are computed here."""
        return tensor.rpartition(".")[2] in _CACHE


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    return f".{pattern}." in f".{name}."


def read_layout(folder: Path, content: Mapping[str, Any]) -> Fp8Layout | None:
    """The FP8 layout of a folder whose config.json is `content`; None when nothing is quantised."""
    stated = content.get("quantization_config") or content.get("compression_config")
    if not stated:
        return None
    where = str(folder / "config.json")
    if not isinstance(stated, dict):
        raise FormatError("quantization_config is no object", where=where)
    method = stated.get("quant_method")
    bound: object = None
    if method == "compressed-tensors":
        ignore, scheme = stated.get("ignore"), _compressed(stated)
        bound = _stated_bound(folder)
    elif method == "fbgemm_fp8":
        ignore, scheme = stated.get("modules_to_not_convert"), _Scheme(by_matrix=False, static=False)
        bound = stated.get("activation_scale_ub")
    elif method == "fp8":
        ignore, scheme = stated.get("ignored_layers", stated.get("modules_to_not_convert")), _auto(stated)
    else:
        raise ArtifactError(f"quantised with {method!r}, which is not read here", where=where, mend=_OTHERS)
    if isinstance(scheme, str):
        raise ArtifactError(
            f"quantised with {method!r}, and {scheme}, which is not read here", where=where, mend=_OTHERS
        )
    kept = [] if method == "compressed-tensors" else ["lm_head"]  # the other two never touch it, and need not say so
    return Fp8Layout(
        str(method),
        (*_names(ignore, where), *kept),
        None if scheme.static else _bound(bound, where),
        scheme.by_matrix,
        scheme.static,
        _notes(stated),
    )


@dataclass(frozen=True)
class _Scheme:
    by_matrix: bool
    static: bool


def _compressed(stated: Mapping[str, Any]) -> _Scheme | str:
    """A compressed-tensors scheme, or what of it is not read."""
    groups = stated.get("config_groups")
    if stated.get("format") not in ("float-quantized", "naive-quantized"):
        return f"in the format {stated.get('format')!r}"
    if not isinstance(groups, dict) or len(groups) != 1:
        return "with several schemes for different layers"
    (group,) = groups.values()
    if not isinstance(group, dict) or not _all_linear(group.get("targets")):
        return "for layers other than all linear ones"
    weights, inputs = _fp8(group.get("weights")), _fp8(group.get("input_activations"))
    if weights is None or weights.get("strategy") not in ("channel", "tensor") or weights.get("dynamic"):
        return "with weights that are not FP8 by row or by matrix"
    if inputs is None:
        return "with activations that are not FP8"
    static = not inputs.get("dynamic")
    if inputs.get("strategy") != ("tensor" if static else "token"):
        return f"with {'static' if static else 'dynamic'} scales of activations by {inputs.get('strategy')!r}"
    if group.get("output_activations"):
        return "with results that are quantised again"
    return _Scheme(weights.get("strategy") == "tensor", static)


def _all_linear(targets: object) -> bool:
    return isinstance(targets, list) and [target for target in targets if target not in _HEADS] == ["Linear"]


def _fp8(part: object) -> Mapping[str, Any] | None:
    """A scheme's part if it is e4m3, None for anything else."""
    if not isinstance(part, dict) or part.get("symmetric", True) is not True:
        return None
    return part if (part.get("num_bits"), part.get("type")) == (8, "float") else None


def _auto(stated: Mapping[str, Any]) -> _Scheme | str:
    if stated.get("weight_block_size"):
        return "with scales by block"
    scheme = stated.get("activation_scheme")
    known = isinstance(scheme, str) and scheme in ("dynamic", "static")
    return _Scheme(True, scheme == "static") if known else f"with activations by the scheme {scheme!r}"


def _names(ignore: object, where: str) -> tuple[str, ...]:
    """Layers that stay as they are."""
    names = [] if ignore is None else ignore
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError("quantization_config names layers to leave alone, and not in a list of names", where=where)
    try:
        for name in names:
            re.compile(name.removeprefix("re:"))
    except (re.error, RecursionError, OverflowError) as error:
        raise FormatError(f"quantization_config has a pattern of layers that is none: {error}", where=where) from error
    return tuple(names)


def _notes(stated: Mapping[str, Any]) -> tuple[str, ...]:
    if not stated.get("kv_cache_scheme"):
        return ()
    return ("the folder has scales for a key/value cache in FP8; keys and values stay as they are computed here",)


def _stated_bound(folder: Path) -> object:
    stated = herd_json(folder).get(HERD_KEY)
    return stated.get("activation_bound") if isinstance(stated, dict) else None


def _bound(value: object, where: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e30:
        raise FormatError(f"the bound on activations should be a positive number, not {value!r}", where=where)
    return float(value)


def described(bound: float | None, *, static: bool) -> dict[str, Any]:
    """What herd.json says of an FP8 folder's activations, under HERD_KEY."""
    scales = {"activation_scales": "static" if static else "dynamic", "activation_bound": bound}
    return scales if bound is None else scales | {"note": _BOUND_NOTE}


def quantization_config(ignore: Sequence[str], *, static: bool = False) -> dict[str, Any]:
    """The `quantization_config` of a folder in which every linear layer but `ignore` is FP8, row by row."""
    eight_bits = {"num_bits": 8, "type": "float", "symmetric": True}
    dynamic = {"strategy": "token", "dynamic": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": list(ignore),
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"] if "lm_head" in ignore else [_HEAD, "Linear"],
                "weights": {**eight_bits, "strategy": "channel", "dynamic": False},
                "input_activations": {
                    **eight_bits,
                    **({"strategy": "tensor", "dynamic": False} if static else dynamic),
                },
            }
        },
    }
