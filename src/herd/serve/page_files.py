"""The page at `/`: static files of the folder `page`, nothing outside it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}


def mount_page(app: FastAPI, folder: Path) -> None:
    """`/` is index.html, `/page/NAME` the other files. They are listed once: no path of a request touches the disk."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in (folder.rglob("*") if folder.is_dir() else ())
        if path.is_file() and path.suffix in _TYPES
    }

    async def index() -> Response:
        return _file(files, "index.html")

    async def file(name: str) -> Response:
        return _file(files, name)

    app.add_api_route("/", index, methods=["GET"], include_in_schema=False)
    app.add_api_route("/page/{name:path}", file, methods=["GET"], include_in_schema=False)


def _file(files: dict[str, Path], name: str) -> Response:
    if name not in files:
        raise HTTPException(404, "there is no such page")
    path = files[name]
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=_HEADERS)
