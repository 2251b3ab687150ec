"""The compiled library: found beside this file, bound to torch's threads, and at a level that the processor has.

HERD_KERNELS forces a level: `torch` (nothing compiled), `portable`, `avx2`, `avx512`, `avx512-bf16` or `amx`.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

from herd.errors import SettingError

VARIABLE = "HERD_KERNELS"
TORCH = "torch"
LEVELS = ("portable", "avx2", "avx512", "avx512-bf16", "amx")  # the order of `enum level` in csrc/job.h
_WORDS = {
    "portable": "compiled C without special instructions",
    "avx2": "compiled C for AVX2",
    "avx512": "compiled C for AVX512",
    "avx512-bf16": "compiled C for AVX512 with BF16 dot products",
    "amx": "compiled C for AMX",
}


@dataclass(frozen=True)
class Kernels:
    """The library and the level that its products run at."""

    library: ctypes.CDLL
    level: int
    threaded: bool  # whether torch's OpenMP library was found; if not, one thread does the work

    @property
    def multiplies_matrices(self) -> bool:
        """Whether many rows of bfloat16 are multiplied about as fast as torch does it."""
        return LEVELS[self.level] == "amx"

    @property
    def threads(self) -> int:
        return torch.get_num_threads() if self.threaded else 1


@cache
def kernels() -> Kernels | None:
    """The compiled library, or None where torch does the work. SettingError for a level that cannot be."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted and wanted not in (TORCH, *LEVELS):
        known = ", ".join((TORCH, *LEVELS))
        raise SettingError(f"{wanted!r} is no level of kernels", where=VARIABLE, mend=f"one of {known}")
    path = library_path()
    if wanted == TORCH or (path is None and not wanted):
        return None
    if path is None:
        raise SettingError("the compiled kernels are not installed", where=VARIABLE, mend=_INSTALL)
    library = _load(path)
    best = library.herd_best_level()
    level = LEVELS.index(wanted) if wanted else best
    if level > best:
        raise SettingError(
            f"this processor has no {wanted}", where=VARIABLE, mend=f"{LEVELS[best]} is the highest that it has"
        )
    return Kernels(library, level, _bind_threads(library))


def library_path() -> Path | None:
    """Where the compiled library is, or None where no compiler made it."""
    here = Path(__file__).parent
    return next((here / f"_kernels{end}" for end in EXTENSION_SUFFIXES if (here / f"_kernels{end}").is_file()), None)


def status() -> str:
    """One sentence: what computes products with quantised weights here, on how many threads."""
    found = kernels()
    if found is not None:
        threads = f"{found.threads} threads of torch's pool" if found.threaded else "one thread: no OpenMP library"
        return f"{_WORDS[LEVELS[found.level]]}, {threads}"
    if os.environ.get(VARIABLE) == TORCH:
        return f"torch, as {VARIABLE} asks"
    return f"torch, several times slower, for the compiled kernels are not installed; {_INSTALL}"


def built() -> str:
    """One sentence: whether the compiled library is there, and at which level of those that the processor has."""
    path = library_path()
    if path is None:
        return f"not built: {_INSTALL}"
    library, found = _load(path), kernels()
    has = ", ".join(LEVELS[: library.herd_best_level() + 1])
    level = LEVELS[found.level] if found is not None else TORCH
    return f"{path.name} is built and runs at {level}; this processor has {has} ({VARIABLE} takes a lower one)"


_INSTALL = "install a C compiler (gcc or clang), then install herd again: pip install --force-reinstall --no-deps"


_REBUILD = f"build them anew (make setup, or pip install herd again); {VARIABLE}=torch does without them"


def _load(path: Path) -> ctypes.CDLL:
    """SettingError for a library that was compiled from other sources than this file belongs to: after a pull, say."""
    library = ctypes.CDLL(str(path))
    try:
        _declare(library)
    except AttributeError as error:
        raise SettingError(
            "the compiled kernels are of another version than herd's code", where=path.name, mend=_REBUILD
        ) from error
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Argument types of all that is called; AttributeError for what is not there."""
    library.herd_best_level.restype = ctypes.c_int
    library.herd_bind_threads.argtypes = [ctypes.c_void_p]
    library.herd_bind_threads.restype = None
    size, pointer, number = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    library.herd_linear.restype = ctypes.c_int
    library.herd_linear.argtypes = [
        *(number, number, number),  # level, format, threads
        *(size, size, size),  # m, n, k
        *(pointer, number, size),  # x, its type and row stride
        *(pointer, size, pointer),  # weight, bytes from row to row, scale
        *(number, ctypes.c_float, pointer),  # quantise, bound, out
    ]
    library.herd_training.restype = None
    library.herd_training.argtypes = [number, number, number, size, pointer]  # level, threads, kind, rows, them
    library.herd_train_attention_able.restype = number
    library.herd_train_attention_able.argtypes = [number, number]  # level, type
    library.herd_train_attention.restype = number
    library.herd_train_attention.argtypes = [number, number, number, pointer]  # level, threads, backward, it
    library.herd_train_product_able.restype = number
    library.herd_train_product_able.argtypes = [number, number]  # level, type
    library.herd_train_product.restype = number
    library.herd_train_product.argtypes = [number, pointer]  # threads, it
    library.herd_train_update.restype = None
    library.herd_train_update.argtypes = [number, number, pointer]  # level, threads, it
    library.herd_run_program.restype = ctypes.c_int
    library.herd_run_program.argtypes = [number, number, size, pointer, pointer]  # level, threads, count, them, step


def _bind_threads(library: ctypes.CDLL) -> bool:
    """Hand over GOMP_parallel of the OpenMP library that torch has loaded: two pools would spin against each other."""
    for path in _openmp_libraries():
        try:
            parallel = ctypes.CDLL(path).GOMP_parallel
        except (OSError, AttributeError):
            continue
        library.herd_bind_threads(ctypes.cast(parallel, ctypes.c_void_p))
        return True
    return False


def _openmp_libraries() -> list[str]:
    """Those mapped into this process (Linux), torch's first; elsewhere those in torch's folder."""
    bundled = Path(torch.__file__).parent / "lib"
    maps = Path("/proc/self/maps")
    if maps.exists():
        mapped = dict.fromkeys(re.findall(r"(/\S*lib(?:gomp|omp|iomp5)\b\S*\.so\S*)$", maps.read_text(), re.MULTILINE))
        return sorted(mapped, key=lambda path: not path.startswith(str(bundled)))
    return [str(path) for name in ("libgomp*", "libomp*", "libiomp5*") for path in sorted(bundled.glob(name))]
