"""`herd serve --engine vllm`: what of the command line vLLM takes, and under which names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from herd.errors import SettingError
from herd.generate.settings import VllmSettings
from herd.serve.settings import ServeSettings

if TYPE_CHECKING:
    from herd.commands.serve import Asked
    from herd.serve.vllm_backend import VllmBackend

_NOT_OURS = {  # options of the embedded engine -> what to do instead
    "fp8": "quantise the folder first: herd quantize MODEL MODEL-fp8; vLLM reads that",
    "draft": """say --vllm-option 'speculative_config={"model": "SMALL", "num_speculative_tokens": 4}'""",
    "cache_dtype": "say --vllm-option kv_cache_dtype=fp8",
    "cache_tokens": "say --vllm-option kv_cache_memory_bytes=N",
    "mapped": "leave it out: vLLM keeps the weights on the GPUs",
    "cache_gb": "say --vllm-option gpu_memory_utilization=0.9",
}


def vllm_backend(
    asked: Asked,
    settings: ServeSettings,
    on_ready: Callable[[], None],
    on_failure: Callable[[BaseException], None],
) -> VllmBackend:
    """Raises SettingError for what vLLM is not told in this way, MissingExtraError without vLLM."""
    for name, mend in _NOT_OURS.items():
        if getattr(asked, name):
            raise SettingError(f"--{name.replace('_', '-')} is of herd's own engine", where="engine vllm", mend=mend)
    if asked.device != "auto":
        raise SettingError(
            "vLLM takes the devices that it finds", where="device", mend="hide the others with CUDA_VISIBLE_DEVICES"
        )
    from herd.generate.vllm import vllm_package
    from herd.serve.vllm_backend import VllmBackend

    vllm_package()
    return VllmBackend(
        asked.model,
        VllmSettings(asked.tensor_parallel, asked.pipeline_parallel, options_of(asked.vllm_options)),
        max_running=settings.max_running,
        most=settings.max_running + settings.max_queue,
        on_ready=on_ready,
        on_failure=on_failure,
    )


def options_of(assignments: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE, each value read as JSON and as a plain text where it is none."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not sign or not name.isidentifier():
            raise SettingError(
                f"cannot read {assignment!r}", where="vllm-option", mend="write --vllm-option max_model_len=32768"
            )
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found
