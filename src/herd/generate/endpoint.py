"""A client of `/v1/chat/completions`, as OpenAI, vLLM, llama.cpp, SGLang and herd's own server speak it.

    endpoint = Endpoint(EndpointSettings("http://localhost:8000/v1", "llama-3.1-405b"))
    reply = endpoint.ask([Message("user", "Hello")], Sampling(max_tokens=100))

Refusals that may pass are tried again, with the server's own Retry-After or doubling waits; others end in an
EndpointError with the server's words. One client may be used by many threads: they share its pace, and a Retry-After
holds all of them. A redirection is not followed: it would hand the key and the texts to another host. Standard library
only. Not here: streaming, the older text completions, images.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from herd.errors import EndpointError, FormatError, SettingError
from herd.generate.protocol import Sampling
from herd.generate.settings import EndpointSettings
from herd.text.dialogues import message_from_dict
from herd.text.message import Message

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_LONGEST = 2**26  # bytes of an answer: more is no chat completion
_MENDS = {
    301: "the server has moved: give the url that it names",
    302: "the server has moved: give the url that it names",
    307: "the server has moved: give the url that it names",
    308: "the server has moved: give the url that it names",
    400: "the server does not take this request: look at its words; shorten the prompt or lower max_tokens",
    401: "set the key in the environment variable {key}",
    403: "the key in {key} may not use this model",
    404: "check the url (it ends in /v1) and the model's name: the server lists them under {url}/models",
}


@dataclass(frozen=True)
class Reply:
    """What a served model answered; "length" means that it was cut off at max_tokens."""

    message: Message
    finish: Literal["stop", "length"]


class Endpoint:
    """One served model. `sleep` is replaced by tests."""

    def __init__(self, settings: EndpointSettings, *, sleep: Callable[[float], None] = time.sleep) -> None:
        if not settings.url or not settings.model:
            raise SettingError(
                "a served model needs its url and its name", where="teacher", mend="give --teacher URL and --model-name"
            )
        self.settings, self._sleep = settings, sleep
        self._key = os.environ.get(settings.key_variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise SettingError(
                "the key holds other than printable ASCII characters", where=settings.key_variable, mend="copy it again"
            )
        self._opener = urllib.request.build_opener(_NoRedirections)
        self._pace = threading.Lock()
        self._next = 0.0  # on the monotonic clock: when the next request may leave

    def ask(
        self, messages: Sequence[Message], sampling: Sampling, *, given_up: Callable[[], bool] = lambda: False
    ) -> Reply:
        """One answer to a conversation. Raises EndpointError when the server refuses for good.

        Once `given_up` nothing is tried again.
        """
        body = {
            "model": self.settings.model,
            "messages": to_wire(messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
            "stream": False,
            **_further(sampling),
        }
        return self._reply(self._post("/chat/completions", body, given_up))

    def _post(self, path: str, body: dict[str, Any], given_up: Callable[[], bool]) -> Any:
        wait = self.settings.first_wait_seconds
        for attempt in range(self.settings.retries + 1):
            self._keep_pace()
            try:
                return self._once(path, body)
            except _Passing as refusal:
                if attempt == self.settings.retries or given_up():
                    raise EndpointError(
                        f"the server failed {attempt + 1} times: {refusal.reason}",
                        where=self.settings.url,
                        mend="see whether it runs; the same command goes on where it stopped",
                    ) from refusal
                longest = self.settings.longest_wait_seconds
                if refusal.after is None:
                    self._sleep(min(wait, longest))
                else:
                    self._hold(min(refusal.after, longest))
                wait = min(2 * wait, longest)
        raise AssertionError("unreachable")

    def _once(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = self.settings.url.rstrip("/") + path
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=self.settings.timeout_seconds) as response:
                content = response.read(_LONGEST + 1)
            if len(content) > _LONGEST:
                raise EndpointError(f"the server's answer is longer than {_LONGEST} bytes", where=url)
            return json.loads(content)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:  # timeouts are OSErrors
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise self._untrusted(reason) from error
            raise _Passing(str(reason) or type(error).__name__) from error
        except ValueError as error:  # cut short, or a proxy's page
            raise _Passing(f"the answer is not JSON: {error}") from error

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        said = _words(error)
        if error.code in _PASSING:
            return _Passing(f"{error.code} {said}", _seconds(error.headers.get("Retry-After")))
        mend = _MENDS.get(error.code, "").format(key=self.settings.key_variable, url=self.settings.url)
        return EndpointError(f"the server refuses: {error.code} {said}", where=self.settings.url, mend=mend)

    def _untrusted(self, error: ssl.SSLCertVerificationError) -> EndpointError:
        return EndpointError(
            f"the server's certificate is not trusted: {error.verify_message}",
            where=self.settings.url,
            mend="name the file of its authority in SSL_CERT_FILE",
        )

    def _keep_pace(self) -> None:
        """Requests leave one after another, 60 / requests_per_minute apart, and none while the server asks to wait."""
        with self._pace:
            now = time.monotonic()
            mine = max(now, self._next)
            if self.settings.requests_per_minute:
                self._next = mine + 60.0 / self.settings.requests_per_minute
        if mine > now:
            self._sleep(mine - now)

    def _hold(self, seconds: float) -> None:
        """The server asked for a pause: nobody's request leaves before."""
        with self._pace:
            self._next = max(self._next, time.monotonic() + seconds)

    def _reply(self, content: Any) -> Reply:
        try:
            choice = content["choices"][0]
            raw = {key: value for key, value in choice["message"].items() if key in ("content", "tool_calls") and value}
            message = message_from_dict({"content": "", **raw, "role": "assistant"})
            return Reply(message, "length" if choice.get("finish_reason") == "length" else "stop")
        except (KeyError, IndexError, TypeError, AttributeError, FormatError) as error:
            raise EndpointError(
                f"the server's answer is no chat completion: {json.dumps(content)[:300]}",
                where=self.settings.url,
                mend="check that the url is that of an OpenAI-compatible server, up to and with /v1",
            ) from error


def _further(sampling: Sampling) -> dict[str, Any]:
    """The settings that not every server knows, where they are set. top_k, min_p and repetition_penalty are vLLM's,
    and llama.cpp's, words.

    Raises SettingError for what this client cannot ask for: a bias on ids that the server may number otherwise, and
    log-probabilities, of which a `Reply` has none.
    """
    plain = Sampling()
    for name in ("logit_bias", "top_logprobs", "prompt_logprobs"):
        if getattr(sampling, name) != getattr(plain, name):
            raise SettingError(f"{name} is not asked of served models", where=name, mend="leave it out")
    names = ("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "stop")
    return {name: getattr(sampling, name) for name in names if getattr(sampling, name) != getattr(plain, name)}


class _NoRedirections(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Not followed: the answer is an HTTPError then."""


class _Passing(Exception):
    """A refusal that may pass; `after` is what the server asks to wait, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.after = reason, after


def _words(error: urllib.error.HTTPError) -> str:
    """The server's own sentence about an error."""
    try:
        text = error.read(10_000).decode(errors="replace")
    except (OSError, http.client.HTTPException):  # it hangs up while it speaks
        return str(error.reason)
    try:
        content = json.loads(text)
        found = content.get("error", content) if isinstance(content, dict) else text
        return str(found.get("message", found) if isinstance(found, dict) else found)[:500]
    except ValueError:
        return text.strip()[:200] or str(error.reason)


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text or "").timestamp() - time.time())
    except (ValueError, TypeError):  # neither: the doubling wait does as well
        return None


def to_wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as the API wants them: calls with ids, arguments as JSON text, results that name their call."""
    wire: list[dict[str, Any]] = []
    calls = 0
    for message in messages:
        raw: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "ipython":
            raw |= {"role": "tool", "tool_call_id": f"call_{calls}"}
        for call in message.tool_calls:
            calls += 1
            function = {"name": call.name, "arguments": json.dumps(dict(call.parameters), ensure_ascii=False)}
            raw["tool_calls"] = [{"id": f"call_{calls}", "type": "function", "function": function}]
        wire.append(raw)
    return wire
