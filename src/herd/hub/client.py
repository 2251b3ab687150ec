"""Where the hub is, who asks, and what its refusals mean.

    hub = Hub.from_environment()          # HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN or `hf auth login`
    with hub.errors("meta-llama/Llama-3.1-8B"):
        hub.api().repo_info(...)

No message of an error ever holds the token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from herd.errors import HerdError, HubError, InputError, MissingExtraError

ENDPOINT = "https://huggingface.co"
_NAME = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)
_TRUE = {"1", "ON", "YES", "TRUE"}
_BLOCK = 1 << 20  # bytes that a broken line loses at most: with the library's 10 MB, a bad line never gets on
_TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{8,}")


@dataclass(frozen=True)
class Hub:
    """`token` None takes the one of HF_TOKEN or `hf auth login`; "" asks as nobody. `cache` None is the hub's own."""

    endpoint: str = ENDPOINT
    offline: bool = False
    token: str | None = field(default=None, repr=False)
    cache: Path | None = None

    @staticmethod
    def from_environment() -> Hub:
        endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or ENDPOINT
        if urlsplit(endpoint).scheme not in ("http", "https"):
            raise InputError(
                f"'{endpoint}' is no address of a hub", where="HF_ENDPOINT", mend=f"write it in full, e.g. {ENDPOINT}"
            )
        offline = (os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or "").upper() in _TRUE
        return Hub(endpoint, offline)

    def library(self) -> Any:
        """The package huggingface_hub, quiet; MissingExtraError where it is not installed."""
        try:
            import huggingface_hub.constants
            import huggingface_hub.errors
            import huggingface_hub.utils
        except ImportError as error:
            raise MissingExtraError("huggingface_hub", "hub") from error
        package: Any = huggingface_hub
        package.constants.DOWNLOAD_CHUNK_SIZE = _BLOCK
        package.utils.logging.set_verbosity_error()  # its warnings hold signed addresses
        if not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
            package.utils.disable_progress_bars()  # herd shows its own
        return package

    def secret(self) -> str:
        """The token in use, empty where there is none; InputError where it is no token."""
        token = str(self.library().get_token() or "") if self.token is None else self.token
        if not token.isascii() or not token.isprintable() or " " in token:
            raise InputError(
                "the token holds characters that no token has",
                where="HF_TOKEN or `hf auth login`",
                mend=f"copy it anew from {self.page('settings/tokens')}",
            )
        return token

    def api(self) -> Any:
        return self.library().HfApi(endpoint=self.endpoint, token=self.secret() or False)

    def refuse_offline(self, what: str) -> None:
        if self.offline:
            raise HubError(
                f"offline (HF_HUB_OFFLINE is set), and {what} needs the hub",
                mend="unset HF_HUB_OFFLINE where there is a network, then run the same command again",
            )

    def page(self, repo: str, kind: str = "model") -> str:
        return f"{_without_user(self.endpoint)}/{'datasets/' if kind == 'dataset' else ''}{repo}"

    @contextmanager
    def errors(self, repo: str, *, kind: str = "model", revision: str = "") -> Iterator[None]:
        """Turn what huggingface_hub raises into a HubError. OSErrors of this machine's disk pass."""
        from herd.hub.refusals import explain

        library = self.library()
        try:
            yield
        except HerdError:
            raise
        except (OSError, ValueError, library.errors.HTTPError) as error:
            if isinstance(error, OSError) and error.errno is not None and not hasattr(error, "response"):
                raise
            # The chain may hold headers and signed addresses.
            raise explain(error, self, repo, kind, revision) from None

    def clean(self, text: str) -> str:
        """`text` without the token, without users and passwords in addresses, on one line."""
        secret = self.secret()
        text = text.replace(secret, "***") if secret else text
        text = re.sub(r"(https?://)[^/@\s]+@", r"\1***@", _TOKEN.sub("***", text))
        text = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1", text)  # signed addresses are secrets too
        return " ".join(text.split())[:500]


def is_repo_name(name: object) -> bool:
    return isinstance(name, str) and bool(_NAME.fullmatch(name)) and not re.search(r"--|\.\.", name)


def check_repo_name(name: str) -> None:
    """InputError where the hub could have no repository of this name."""
    if not is_repo_name(name):
        raise no_repo_name(name)


def no_repo_name(name: str) -> InputError:
    return InputError(
        f"'{name}' is no name of a repository", where=name, mend="write OWNER/NAME, as in the page's address"
    )


def _without_user(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
