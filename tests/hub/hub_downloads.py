"""The hub of the tests, where files go out: small ones by itself, large ones from a store elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import re
from typing import Any
from urllib.parse import quote

from hub_uploads import LARGE, git_id


class Downloads:
    """Mixed into the handler of hub_server."""

    hub: Any
    headers: Any
    query: dict[str, str]
    user: str
    command: str
    connection: Any
    _json: Any
    _refuse: Any
    _repo: Any
    _send: Any

    def resolve(self, name: str, revision: str, path: str, kind: str = "model") -> None:
        if (found := self._open(kind, name, revision, path)) is None:
            return
        sha, data = found
        if self.hub.busy:
            self.hub.busy -= 1
            return self._json({"error": "busy"}, 503)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{git_id(data)}"', "Accept-Ranges": "bytes"}
        if len(data) < LARGE:
            where = f"{self.hub.prefix}/api/resolve-cache/{kind}s/{name}/{sha}/{quote(path)}"
            return self._send(307, b"", headers | {"Location": where, "X-Linked-Size": str(len(data))})
        digest = hashlib.sha256(data).hexdigest()
        signature = f"s3cret{len(self.hub.signatures)}"
        self.hub.signatures[signature] = 0
        headers |= {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Location": f"{self.hub.far}/store/{digest}?X-Signature={signature}",
        }
        return self._send(302, b"", headers)

    def small(self, kind: str, name: str, revision: str, path: str) -> None:
        """A file that lies with the hub itself; compressed for whoever takes it so."""
        if (found := self._open(kind, name, revision, path)) is None:
            return
        sha, data = found
        if self.hub.strays and self.command == "GET":
            return self._send(302, b"", {"Location": f"{self.hub.far}/store/{hashlib.sha256(data).hexdigest()}"})
        headers = {"X-Repo-Commit": sha, "ETag": f'"{git_id(data)}"', "Content-Type": "text/plain"}
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            return self._send(200, gzip.compress(data), headers | {"Content-Encoding": "gzip"})
        start, end = self._range(len(data))
        return self._send(206 if "Range" in self.headers else 200, data[start:end], headers)

    def _open(self, kind: str, name: str, revision: str, path: str) -> tuple[str, bytes] | None:
        """The commit and the bytes of a file; None where it is refused."""
        if (repo := self._repo(kind, name)) is None:
            return None
        if repo.gated and self.user != "friend":
            self._refuse(403 if self.user else 401, "GatedRepo", f"Access to model {name} is restricted.")
            return None
        sha = repo.find(revision)
        if sha is None or path not in repo.commits[sha]:
            self._refuse(404, "EntryNotFound" if sha else "RevisionNotFound", "Entry not found")
            return None
        return sha, repo.commits[sha][path]

    def _range(self, size: int) -> tuple[int, int]:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or self.hub.ignore_ranges:
            return 0, size
        return int(asked[1]), min(size, int(asked[2] or size - 1) + 1)

    def large(self, digest: str) -> None:
        signature = self.query.get("X-Signature", "")
        self.hub.signatures[signature] = used = self.hub.signatures.get(signature, 0) + 1
        if self.hub.signed_for and used > self.hub.signed_for:
            return self._send(
                403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", {}
            )
        if signature and "Authorization" in self.headers:
            return self._send(400, b"<Error><Message>Only one auth mechanism allowed</Message></Error>", {})
        data = self.hub.store[digest]
        if self.hub.damage:
            data = bytes([data[0] ^ 1]) + data[1:]
        start, end = self._range(len(data))
        if start >= len(data):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        part = (start, end) != (0, len(data)) or ("Range" in self.headers and not self.hub.ignore_ranges)
        if self.hub.most and end - start > self.hub.most:
            return self._send(400, b"", {})
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes", "Content-Length": str(end - start)}
        if part:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        status, asked = 206 if part else 200, data[start:end]
        if self.hub.cuts and self.command == "GET":
            self.hub.cuts -= 1
            self._send(status, asked[: self.hub.cut_after], headers)
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if self.hub.hang_after and self.command == "GET":
            self._send(status, asked[: self.hub.hang_after], headers)
            self.hub.released.wait(60)
            return
        more = b"!" * (self.hub.surplus << 20)
        headers["Content-Length"] = str(len(asked) + len(more))
        self._send(status, asked + more, headers)
