"""What a failed request to the hub means for the one who asked, and what to do about it."""

from __future__ import annotations

from typing import Any

from herd.errors import HubError, InputError
from herd.hub.client import Hub, no_repo_name

_AGAIN = "run the same command again: it goes on where it stopped"


def explain(error: Any, hub: Hub, repo: str, kind: str, revision: str) -> HubError | InputError:
    """The error for the user."""
    errors = hub.library().errors
    where = hub.page(repo, kind)
    if isinstance(error, errors.HFValidationError):
        return no_repo_name(repo)
    if isinstance(error, errors.GatedRepoError):
        return _gated(hub, where)
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(
            f"there is no revision '{revision}'", where=where, mend="name a branch, a tag or a commit with --revision"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return HubError("the repository no longer holds a file of its own list", where=where, mend=_AGAIN)
    if isinstance(error, errors.HfHubHTTPError):
        return _by_status(error, hub, where)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubError("offline (HF_HUB_OFFLINE is set)", where=where, mend="unset HF_HUB_OFFLINE")
    if isinstance(error, errors.HTTPError):
        return HubError(
            f"the hub cannot be reached: {hub.clean(str(error)) or type(error).__name__}",
            where=where,
            mend=f"look at the network, proxies and HF_ENDPOINT ({hub.page('').rstrip('/')}), then {_AGAIN}",
        )
    if isinstance(error, OSError):
        return HubError(f"the transfer broke off: {hub.clean(str(error))}", where=where, mend=_AGAIN)
    if "README.md" in str(error):  # the hub read the card's header and refuses it
        return HubError(f"the hub refuses the model card: {hub.clean(str(error))}", where=where)
    return HubError(f"the hub's answer makes no sense: {hub.clean(str(error))}", where=where, mend=_AGAIN)


def _gated(hub: Hub, where: str) -> HubError:
    accept = f"open {where}, accept its conditions with your account and wait until access is granted"
    if not hub.secret():
        return HubError("access is restricted, and nobody is logged in", where=where, mend=f"{accept}; {_login(hub)}")
    return HubError(
        "access is restricted, and the account of this token has not been granted it",
        where=where,
        mend=f"{accept}; a fine-grained token also needs the right to read gated repositories",
    )


def _login(hub: Hub) -> str:
    return f"then make a token at {hub.page('settings/tokens')} and run `hf auth login`, or set HF_TOKEN"


def _by_status(error: Any, hub: Hub, where: str) -> HubError:
    status = getattr(error.response, "status_code", 0)
    known = isinstance(error, hub.library().errors.RepositoryNotFoundError)
    if status == 401 and hub.secret():
        return HubError(
            "the hub does not accept this token (or there is no such repository)",
            where=where,
            mend=f"compare the name with the page's address; make a new token at {hub.page('settings/tokens')}, "
            "then run `hf auth login`, or set HF_TOKEN",
        )
    if status in (401, 404) and (known or status == 401):
        told = "" if hub.secret() else f"; where it is private or gated: {_login(hub)}"
        return HubError("there is no such repository, or it is not yours to see", where=where, mend=_spelling() + told)
    if status == 403:
        return HubError(
            f"the hub forbids it: {hub.clean(error.server_message or 'the token lacks the right')}",
            where=where,
            mend=f"look at the rights of your token at {hub.page('settings/tokens')}: reading restricted repositories "
            "and writing are rights of their own",
        )
    if status == 429:
        wait = hub.clean(error.response.headers.get("Retry-After", ""))
        pause = f"{wait} seconds" if wait.isdecimal() else "some minutes"
        return HubError("too many requests for now", where=where, mend=f"wait {pause}, then {_AGAIN}")
    told = f" ({hub.clean(error.server_message)})" if error.server_message else ""
    return HubError(f"the hub answered with status {status}{told}", where=where, mend=f"wait a little, then {_AGAIN}")


def _spelling() -> str:
    return "compare the name with the page's address, capitals included"
