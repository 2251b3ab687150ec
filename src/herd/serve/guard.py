"""Who may ask, and how much: host, origin, key, body size. Plain ASGI, before anything is parsed.

- Host: a server on loopback answers to loopback names only, or a page elsewhere could reach it under a name of its own
  that resolves to 127.0.0.1 (DNS rebinding).
- Origin: a browser names the page that asks; pages of other sites are refused unless CORS names them.
- Key: compared in constant time, all keys each time.
- Body (`bodies`): refused by its Content-Length where that says enough, else while it is read; slow ones are given up.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herd.serve.bodies import Bodies
from herd.serve.metrics import Metrics
from herd.serve.replies import ApiError, as_api_error
from herd.serve.settings import LOOPBACK, ServeSettings

OPEN_PATHS = ("/health", "/page/", "/favicon.ico")  # answered without a key; the page asks for one
_BEGUN = "herd.begun"  # in the scope: the answer is under way
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics, keys: Sequence[str]) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = [key.encode() for key in keys]
        self._bodies = Bodies(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send = self._finishing(scope, headers, send)
        try:
            self._check(scope, headers)
            if self._is_preflight(scope, headers):
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Errors that nobody foresaw are told in the form of all others, and counted."""
        body = self._bodies.of(receive)
        try:
            await self._app(scope, body.receive, send)
        except Exception as error:
            refused = as_api_error(error)
            if not scope.get(_BEGUN):
                await refused.response()(scope, receive, send)
        finally:
            body.release()

    def _check(self, scope: Scope, headers: Headers) -> None:
        self._check_host(headers)
        self._check_origin(headers)
        path: str = scope["path"]
        is_open = path == "/" or path.startswith(OPEN_PATHS) or self._is_preflight(scope, headers)
        if self._keys and not is_open:
            self._check_key(headers)
        self._bodies.check_length(headers)

    def _check_host(self, headers: Headers) -> None:
        hosts = self._settings.hosts or (LOOPBACK if self._settings.is_loopback else ())
        name = _host_of(headers.get("host", ""))
        if hosts and name not in hosts and not (hosts is LOOPBACK and _is_loopback(name)):
            raise ApiError(403, f"this server does not answer to the name {name[:100]!r}", code="wrong_host")

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or self._allows(origin):
            return
        if _site_of(origin) != headers.get("host", "").lower():
            raise ApiError(403, "pages of other sites may not ask this server", code="wrong_origin")

    def _check_key(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        offered = given.strip().encode("utf-8", errors="replace") if scheme.lower() == "bearer" else b""
        matches = [hmac.compare_digest(offered, key) for key in self._keys]
        if not any(matches):
            said = "the API key is wrong" if offered else "no API key; send Authorization: Bearer KEY"
            raise ApiError(401, said, code="invalid_api_key")

    def _allows(self, origin: str) -> bool:
        return "*" in self._settings.origins or origin in self._settings.origins

    def _is_preflight(self, scope: Scope, headers: Headers) -> bool:
        return scope["method"] == "OPTIONS" and "access-control-request-method" in headers and self._cors(headers) != {}

    def _cors(self, headers: Headers) -> dict[str, str]:
        origin = headers.get("origin", "")
        if not origin or not self._allows(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Headers": "authorization, content-type",
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Expose-Headers": "x-herd-warnings",
            "Vary": "Origin",
        }

    def _finishing(self, scope: Scope, headers: Headers, send: Send) -> Send:
        """Puts the security headers on, and counts."""

        async def finish(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(raw=list(message.get("headers", [])))
                for name, value in (_HEADERS | self._cors(headers)).items():
                    out.setdefault(name, value)
                message = {**message, "headers": out.raw}
                scope[_BEGUN] = True
                route = scope.get("route")
                path = getattr(route, "path", "other")
                self._metrics.statuses[path, str(message["status"])] += 1
            await send(message)

        return finish


def _is_loopback(name: str) -> bool:
    """Of addresses alone: 127.evil.example is a name, and its owner's."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _site_of(origin: str) -> str | None:
    """Host and port; None for what is no URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _host_of(value: str) -> str:
    """Host without port, brackets of IPv6 taken off."""
    if value.startswith("["):
        return value[1:].partition("]")[0].lower()
    return value.partition(":")[0].lower()
