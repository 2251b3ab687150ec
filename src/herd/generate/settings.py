"""What can be set about a served model and about the engine's steps. Imports no torch; keys and tokens are never
settings (they come from the environment, so that no recipe.json on disk holds one)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from herd.errors import SettingError


@dataclass(frozen=True)
class EndpointSettings:
    """An OpenAI-compatible server: `url` up to and with `/v1`. Patience and pace are herd's choice."""

    url: str = ""
    model: str = ""  # the name that the server knows it by
    key_variable: str = "OPENAI_API_KEY"  # the environment variable that holds the key; unset: none is sent
    concurrency: int = 8  # requests under way at once
    requests_per_minute: float = 0.0  # at most; 0: as fast as answers come
    timeout_seconds: float = 300.0  # of one request
    retries: int = 6  # after a refusal that may pass (408, 409, 429, 5xx) or a connection that broke
    first_wait_seconds: float = 1.0  # before the first retry, doubled each time; the server's Retry-After is obeyed
    longest_wait_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.url and not _is_address(self.url):
            raise SettingError(
                f"url is {self.url!r}", where="url", mend="give it as http://HOST:PORT/v1 or https://..."
            )
        for name, least in (("concurrency", 1), ("retries", 0), ("requests_per_minute", 0), ("first_wait_seconds", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"{name} is {getattr(self, name)}", where=name, mend=f"give {least} at least")
        if not self.timeout_seconds > 0:
            raise SettingError(f"timeout_seconds is {self.timeout_seconds}", where="timeout_seconds")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is none
        return False


@dataclass(frozen=True)
class VllmSettings:
    """vLLM's engine: over how many GPUs, and whatever else it takes, by its own names."""

    tensor_parallel: int = 1  # GPUs that share every matrix: those of one machine
    pipeline_parallel: int = 1  # groups of these that share the layers: machines
    options: Mapping[str, Any] = field(default_factory=dict)  # of vLLM's EngineArgs, e.g. max_model_len

    def __post_init__(self) -> None:
        for name, least in (("tensor_parallel", 1), ("pipeline_parallel", 1)):
            if getattr(self, name) < least:
                raise SettingError(f"{name} is {getattr(self, name)}", where=name, mend=f"give {least} at least")


@dataclass(frozen=True)
class SchedulerSettings:
    """How the engine shares its steps among requests. The numbers are herd's choice."""

    max_running: int = 64  # requests that are computed in one step
    token_budget: int = 1024 + 64  # tokens computed in one step: of prompts, and one of every request that runs
    max_waiting: int = 1024  # requests that wait; more are refused
    patience: int = 64  # every so many admissions one goes to the request that waits longest, whatever its priority
    share: bool = True  # beginnings that requests have in common are computed once
    max_drafting: int = 8  # running requests up to which a drafter is asked; 0: never

    def __post_init__(self) -> None:
        for name, least in (("max_running", 1), ("max_waiting", 1), ("patience", 1), ("max_drafting", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"{name} is {getattr(self, name)}", where=name, mend=f"give {least} at least")
        if self.token_budget <= self.max_running:
            raise SettingError(
                f"token_budget is {self.token_budget}, and {self.max_running} requests may each take a token of it",
                where="token_budget",
                mend="give more than max_running, or prompts would never be computed",
            )
