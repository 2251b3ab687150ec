"""A hub on this machine for the tests: the part of the Hugging Face Hub's HTTP protocol that herd speaks.

huggingface_hub's own downloads and uploads and transformers' `from_pretrained` work against it (test_hub_server).

    with serving() as server:
        server.add("org/model", {"config.json": b"{}", "model.safetensors": b"..."})
        hub = Hub(server.url, token="")

Model info, the tree in pages, old names of renamed repositories (307), resolve with commit and checksum headers: small
files by a relative redirect and compressed, large ones by a redirect to another origin with a signed address, which
honours ranges and takes no token. Files go out in hub_downloads and come in in hub_uploads. The whole may lie under a
path, as a mirror's may. Faults are switched on per server: cut connections, damaged bytes, statuses.
Every request is kept in `requests`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_downloads import Downloads
from hub_uploads import LARGE, Uploads, git_id

PAGE = 3  # entries of one page of a tree
SECRET, STRANGERS = "hf_" + "right" * 4, "hf_" + "other" * 4  # the tokens of the users `friend` and `stranger`


@dataclass
class Repo:
    kind: str
    name: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    extra_tree: list[dict[str, Any]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        told = repr((sorted((path, git_id(data)) for path, data in files.items()), len(self.commits)))
        sha = hashlib.sha1(told.encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[ref] = sha
        return sha

    def find(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    port: int
    headers: dict[str, str]


class Server:
    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.store: dict[str, bytes] = {}
        self.requests: list[Asked] = []
        self.released = threading.Event()
        self.tokens = {SECRET: "friend", STRANGERS: "stranger"}
        self.cut_after = 0  # bytes of a large file, after which the connection breaks
        self.cuts = 0  # how many connections break
        self.hang_after = 0  # bytes of a large file, after which nothing comes any more
        self.damage = False
        self.ignore_ranges = False
        self.fail: dict[str, int] = {}  # part of a path -> status
        self.busy = 0  # requests of files that are answered with 503
        self.signed_for = 0  # requests that one signed address is good for; 0: any number
        self.most = 0  # bytes that a request without a range gets at most; 0: any number
        self.surplus = 0  # blocks of 1 MB that come behind a large file
        self.strays = False  # files of the hub itself are sent on to the other origin when they are fetched
        self.prefix = ""  # the path that a mirror lies under
        self.renamed: dict[str, str] = {}  # old names -> new ones
        self.signatures: dict[str, int] = {}  # how often each was used
        self.card_error = ""
        self._servers = [_Quiet(("127.0.0.1", 0), _handler(self)) for _ in range(2)]
        for one in self._servers:
            one.daemon_threads = True
            threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}{self.prefix}"

    @property
    def far(self) -> str:
        """The large-file store, on another origin."""
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", **settings: Any) -> Repo:
        repo = self.repos[kind, name] = Repo(kind, name, **settings)
        repo.commit(files)
        for data in files.values():
            self.store[hashlib.sha256(data).hexdigest()] = data
        return repo

    def asked(self, part: str, method: str = "GET") -> list[Asked]:
        return [one for one in self.requests if part in one.path and one.method == method]

    def close(self) -> None:
        self.released.set()
        for one in self._servers:
            one.shutdown()
            one.server_close()


class _Quiet(ThreadingHTTPServer):
    """Clients that hang up are what the tests are about; other errors are printed."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"hub": server})


class _Handler(Downloads, Uploads, BaseHTTPRequestHandler):
    hub: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix(self.hub.prefix)
        self.hub.requests.append(
            Asked(
                self.command, self.path, self.server.server_address[1], {k.lower(): v for k, v in self.headers.items()}
            )
        )
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunks()
        for part, status in self.hub.fail.items():
            if part in path:
                return self._json({"error": "as the test asked"}, status, **{"Retry-After": "7"})
        for pattern, method in _ROUTES:
            if found := re.fullmatch(pattern, path):
                given = {name: unquote(value) for name, value in found.groupdict().items()}
                if now := self.hub.renamed.get(given.get("name", "")):
                    where = self.path.replace(given["name"], now, 1)
                    return self._send(307, b"", {"Location": where})
                return getattr(self, method)(**given)
        return self._json({"error": f"no such page {path}"}, 404)

    def _chunks(self) -> bytes:
        data = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return data

    # what every answer goes through

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Content-Length", str(len(data))))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._json({"error": message}, status, **{"X-Error-Code": code, "X-Error-Message": message})

    @property
    def user(self) -> str:
        return self.hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "), "")

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.hub.repos.get((kind, name))
        sent = self.headers.get("Authorization")
        if sent and not self.user:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and self.user != "friend"):
            self._refuse(404 if self.user else 401, "RepoNotFound", "Repository not found")
        else:
            return repo
        return None

    # reading

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        if repo := self._repo(kind, name):
            sha = repo.find(revision)
            if sha is None:
                return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            files = [{"rfilename": path} for path in sorted(repo.commits[sha])]
            told = {"id": name, "modelId": name, "sha": sha, "siblings": files, "tags": [], "private": repo.private}
            self._json(told | {"gated": "auto" if repo.gated else False})

    def tree(self, kind: str, name: str, revision: str, folder: str = "") -> None:
        if (repo := self._repo(kind, name)) is None:
            return
        sha = repo.find(revision)
        if sha is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        rows = [_entry(path, data) for path, data in sorted(repo.commits[sha].items())] + repo.extra_tree
        rows = [row for row in rows if not folder or row["path"].startswith(f"{folder}/")]
        if folder and not rows:
            return self._refuse(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        start = int(self.query.get("cursor", 0))
        more = {}
        if start + PAGE < len(rows):
            asked = urlsplit(self.path).path.removeprefix(self.hub.prefix)
            where = f"{self.hub.url}{asked}?recursive=true&cursor={start + PAGE}"
            more = {"Link": f'<{where}>; rel="next"'}
        self._json(rows[start : start + PAGE], **more)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_id(data)}
    if len(data) >= LARGE:
        pointer = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return row | {"oid": "0" * 40, "lfs": pointer}
    return row


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>model|dataset)s/{_NAME}"
_ROUTES = (
    (rf"{_API}", "info"),
    (rf"{_API}/revision/(?P<revision>.+)", "info"),
    (rf"{_API}/tree/(?P<revision>[^/]+)", "tree"),
    (rf"{_API}/tree/(?P<revision>[^/]+)/(?P<folder>.+)", "tree"),
    (rf"{_API}/preupload/(?P<revision>.+)", "preupload"),
    (rf"{_API}/commit/(?P<revision>.+)", "commit"),
    (rf"{_API}/branch/(?P<branch>.+)", "branch"),
    (rf"/api/resolve-cache/(?P<kind>model|dataset)s/{_NAME}/(?P<revision>[^/]+)/(?P<path>.+)", "small"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "card"),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"/store/(?P<digest>\w+)", "large"),
    (r"/put/(?P<digest>\w+)", "put"),
    (r"/verify/(?P<digest>\w+)", "verify"),
    (rf"/(?P<kind>dataset)s/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    (rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)
