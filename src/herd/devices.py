"""Where a model runs: one device, found by its name, and what is known of it.

    device = find_device("auto", needs=16 * 2**30, say=print)
    with memory_errors("lower batch_size"):
        ...

Names are "auto", "cpu", "cuda" (the first one) and "cuda:N". "auto" is the CUDA device with the most free memory where
`needs` bytes fit, else the CPU. torch is imported when a device is looked for, not before, so that settings and the
command line can check a name. Not here: several devices at once; Apple's mps, which has no float8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from herd.errors import DeviceError, SettingError
from herd.progress import Silent

if TYPE_CHECKING:
    import torch
    from torch import nn

GIB = 2**30
_NAME = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
_CUDA_BUILD = "install a build of torch for CUDA (pytorch.org tells which), or give the device as cpu"
# How torch words it: its CUDA allocator by an exception of its own, its CPU allocator by a RuntimeError.
_CPU_FULL, _ASKED = "DefaultCPUAllocator", re.compile(r"ried to allocate (?:about )?([\d.]+ ?\w+)")
_AMPERE = (8, 0)  # compute capability from which on bfloat16 is multiplied by the tensor cores


def check_name(name: str, where: str = "device") -> None:
    """Raises SettingError for a name that is no device of herd's, whether or not this machine has it."""
    if not _NAME.fullmatch(name):
        raise SettingError(
            f"'{name}' is no device that herd runs on", where=where, mend="give auto, cpu, cuda or cuda:N"
        )


def find_device(name: str, *, needs: int = 0, say: Callable[[str], None] | None = None) -> torch.device:
    """The device of that name, with room for `needs` bytes (what is sure to be taken; 0: not known).

    `say` gets one line: which device it is, and for the CPU under "auto" why. Raises SettingError for a name of no
    device, DeviceError for a CUDA device that is absent or too full.
    """
    check_name(name)
    import torch

    say = say or Silent().note
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        devices = [torch.device("cuda", index) for index in range(count)]
        return _freest(devices, needs, say)
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        raise DeviceError(f"there is no cuda:{index}: {_seen(count)}", where=name, mend=_absent(count))
    device = torch.device("cuda", index)
    if free_memory(device) < needs:
        raise DeviceError(
            f"{_room(device)}, and {needs / GIB:.1f} GiB are needed",
            where=str(device),
            mend="end what else runs there, take another device, or keep the weights in fewer bytes (fp8)",
        )
    say(f"computes on {_room(device)}")
    return device


def _freest(devices: list[torch.device], needs: int, say: Callable[[str], None]) -> torch.device:
    import torch

    if not devices:
        say(f"computes on the CPU: {_seen(0)}")
        return torch.device("cpu")
    best = max(devices, key=free_memory)  # the first of equals
    if free_memory(best) >= needs:
        say(f"computes on {_room(best)}")
        return best
    say(f"computes on the CPU: {_room(best)}, and {needs / GIB:.1f} GiB are needed")
    return torch.device("cpu")


def _seen(count: int) -> str:
    import torch

    if torch.version.cuda is None:
        return "this torch is a build without CUDA"
    return f"torch finds {count or 'no'} CUDA device{'s' if count > 1 else ''}"


def _absent(count: int) -> str:
    return f"give cuda:0 to cuda:{count - 1}, auto or cpu" if count else _CUDA_BUILD


def _room(device: torch.device) -> str:
    return f"{describe(device)}, {free_memory(device) / GIB:.1f} GiB free"


def describe(device: torch.device) -> str:
    """For a person, e.g. "cuda:0 (NVIDIA H100 80GB HBM3)"."""
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def device_of(model: nn.Module) -> torch.device:
    """The device of a model that is on one."""
    return next(iter(model.parameters())).device


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take there; what torch keeps for itself unused counts as free."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _free_main_memory()


def _free_main_memory() -> int:
    """Bytes that programs may still take, dropped file pages included; no bound where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return 2**63
    (kilobytes,) = (line.split()[1] for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable"))
    return int(kilobytes) * 1024


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device has matrix units for bfloat16: Ampere and newer. Older ones only imitate it."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE


@contextmanager
def memory_errors(mend: str) -> Iterator[None]:
    """Turn torch's running out of memory, on any device, into a DeviceError that says how to need less."""
    import torch

    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and _CPU_FULL not in text:
            raise
        asked, number = _ASKED.search(text), re.search(r"GPU (\d+)", text)
        place = f"cuda:{number[1]}" if number else "cuda" if isinstance(error, torch.OutOfMemoryError) else "cpu"
        more = f" when {asked[1]} more were asked for" if asked else ""
        raise DeviceError(f"out of memory{more}", where=place, mend=mend) from error
