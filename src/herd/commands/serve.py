"""`herd serve`: a model behind OpenAI's API and a page to chat with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from herd.commands.telling import tell
from herd.errors import InputError, MissingExtraError, SettingError
from herd.serve.settings import ServeSettings

if TYPE_CHECKING:
    from herd.serve.backend import Backend

KEY_VARIABLE = "HERD_API_KEY"
_INTERRUPTED = 130  # as a shell has it: a second Ctrl-C cut what ran


@dataclass(frozen=True)
class Asked:
    """What the command line says, besides the settings of the server."""

    model: Path
    device: str = "auto"
    fp8: str = ""  # a policy's name
    draft: str = ""  # a folder, or "prompt"
    cache_dtype: str = ""
    cache_tokens: int = 0
    cache_gb: float = 0.0
    mapped: bool = False
    api_keys: tuple[str, ...] = ()
    api_key_file: Path | None = None
    open_to_all: bool = False  # other hosts than loopback without a key
    engine: str = "herd"  # or "vllm", to which alone what follows belongs
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    vllm_options: tuple[str, ...] = ()  # NAME=VALUE


def serve(asked: Asked, settings: ServeSettings) -> int:
    """Load, listen, and answer until told to stop."""
    keys = keys_of(asked)
    check_exposure(settings, keys, asked.open_to_all)
    try:
        from herd.serve.app import create_app
        from herd.serve.backend import NotReadyError
        from herd.serve.server import address, listen, make_server
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    listening = listen(settings)
    url = address(listening)
    failure: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failure.append(error)
        server.stop()

    def loaded() -> None:
        with suppress(NotReadyError):  # told to stop while the model was loaded
            _say_ready(url, settings, keys, backend.served.remarks)

    backend = backend_of(asked, settings, loaded, failed)
    server = make_server(create_app(backend, settings, keys), backend, settings)
    tell(f"herd: loading {asked.model}, to be reached at {url}")
    server.run(sockets=[listening])
    if failure:
        raise failure[0]
    return _INTERRUPTED if server.force_exit else 0


def backend_of(
    asked: Asked, settings: ServeSettings, on_ready: Callable[[], None], on_failure: Callable[[BaseException], None]
) -> Backend:
    """What computes: herd's own engine, or vLLM. SettingError for options of the other one."""
    if asked.engine == "vllm":
        from herd.commands.serve_vllm import vllm_backend

        return vllm_backend(asked, settings, on_ready, on_failure)
    if asked.vllm_options or asked.tensor_parallel != 1 or asked.pipeline_parallel != 1:
        raise SettingError(
            "herd's own engine runs on one device", where="engine", mend="say --engine vllm for more than one"
        )
    from herd.serve.engine_backend import EngineBackend
    from herd.serve.loading import ModelSettings, load

    chosen = ModelSettings(
        path=asked.model,
        device=asked.device,
        fp8=asked.fp8,
        draft=asked.draft,
        cache_dtype=asked.cache_dtype,
        cache_tokens=asked.cache_tokens,
        cache_gib=asked.cache_gb,
        mapped=asked.mapped,
    )
    most = settings.max_running + settings.max_queue
    return EngineBackend(lambda: load(chosen, settings), most=most, on_ready=on_ready, on_failure=on_failure)


def name_of(model: Path) -> str:
    """What clients call a model: the name it was given by. A link's is its own, not that of what it leads to."""
    return Path(os.path.abspath(model)).name


def keys_of(asked: Asked) -> tuple[str, ...]:
    """Keys of the command line, of a file (one a line) and of the environment."""
    keys = list(asked.api_keys)
    if keys:
        tell(
            f"herd: a key on the command line is shown to everybody on this machine by `ps`; "
            f"--api-key-file or {KEY_VARIABLE} keep it"
        )
    if asked.api_key_file is not None:
        keys += _read_keys(asked.api_key_file)
    keys += [key for key in os.environ.get(KEY_VARIABLE, "").split(",") if key.strip()]
    keys = [key.strip() for key in keys]
    if not all(key and key.isprintable() and key.isascii() for key in keys):
        raise SettingError(
            "an API key is empty or holds other than printable ASCII characters",
            where="api-key",
            mend="make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return tuple(dict.fromkeys(keys))


def _read_keys(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file of API keys cannot be read: {error}", where=str(path)) from error
    keys = [line for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise InputError("the file of API keys holds none", where=str(path), mend="write one key a line")
    return keys


def check_exposure(settings: ServeSettings, keys: tuple[str, ...], open_to_all: bool) -> None:
    """Raises SettingError for a server that others can reach and that asks for no key."""
    if settings.is_loopback or keys:
        return
    if not open_to_all:
        raise SettingError(
            f"on {settings.host} others can reach the server, and it would ask for no key",
            where="host",
            mend=f"set {KEY_VARIABLE}, give --api-key-file, or say --no-key if everybody may use it",
        )
    tell(f"herd: WARNING: everybody who reaches {settings.host}:{settings.port} may use this model")


def _say_ready(url: str, settings: ServeSettings, keys: tuple[str, ...], remarks: tuple[str, ...]) -> None:
    tell(f"herd serves {settings.name} at {url}")
    for remark in remarks:
        tell(f"  {remark}")
    asks = ("no key", "a key")[bool(keys)] if len(keys) < 2 else f"one of {len(keys)} keys"
    tell(f"  chat at {url}/, the API at {url}/v1, {asks} is asked for; Ctrl-C stops")
