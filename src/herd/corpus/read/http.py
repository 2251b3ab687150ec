"""What a web server answered, as archives keep it: the status, the header fields, and the body without its codings."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:+-]+)", re.IGNORECASE)


class BadAnswer(Exception):
    """Not an answer of a web server, or one whose body cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    mime: str
    charset: str
    body: bytes


def parse_answer(data: bytes, most: int) -> Answer:
    """Raises BadAnswer; a body that unpacks to more than `most` bytes is one."""
    head, blank, body = _cut(data)
    first, *lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    words = first.split(None, 2)
    if not blank or len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise BadAnswer(f"not an HTTP answer: {first[:60]!r}")
    fields = parse_fields(lines)
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    for coding in reversed(fields.get("content-encoding", "").lower().split(",")):
        body = _decoded(body, coding.strip(), most)
    kind = fields.get("content-type", "")
    charset = _CHARSET.search(kind)
    return Answer(int(words[1]), kind.partition(";")[0].strip().lower(), charset[1] if charset else "", body)


def parse_fields(lines: list[str]) -> dict[str, str]:
    """Header lines by lower-case name; the first of equal names, folded lines joined (RFC 9112)."""
    fields: dict[str, str] = {}
    last = ""
    for line in lines:
        name, colon, value = line.partition(":")
        if line[:1] in (" ", "\t") and last:
            fields[last] += " " + line.strip()
        elif colon:
            last = name.strip().lower()
            fields.setdefault(last, value.strip())
    return fields


def _cut(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, what parts it from the body, body; some servers end their lines without the carriage return."""
    ends = [(at, mark) for mark in (b"\r\n\r\n", b"\n\n") if (at := data.find(mark)) >= 0]
    if not ends:
        return data, b"", b""
    at, mark = min(ends)
    return data[:at], mark, data[at + len(mark) :]


def _unchunked(body: bytes) -> bytes:
    """RFC 9112, 7.1. Archives may keep the field of a body that they have joined themselves: then it is whole."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.find(b"\n", at)
        size = body[at:end].split(b";")[0].strip() if end >= 0 else b""
        try:
            length = int(size, 16)
        except ValueError:
            return body if not parts else b"".join(parts)
        if not length:
            return b"".join(parts)
        parts.append(body[end + 1 : end + 1 + length])
        at = end + 1 + length
        at += 2 if body[at : at + 2] == b"\r\n" else 1 if body[at : at + 1] == b"\n" else 0


def _decoded(body: bytes, coding: str, most: int) -> bytes:
    if coding in ("", "identity", "none"):
        return body
    windows = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}.get(coding)
    if windows is None:
        raise BadAnswer(f"content coding '{coding}'")
    if coding.endswith("gzip") and not body.startswith(b"\x1f\x8b"):
        return body  # the archive has unpacked it and kept the field
    for window in windows:
        try:
            unpacker = zlib.decompressobj(window)
            data = unpacker.decompress(body, most + 1)
        except zlib.error as error:
            problem = str(error)
            continue
        if len(data) > most:
            raise BadAnswer(f"unpacks to more than {most:,} bytes")
        return data
    raise BadAnswer(f"{coding}: {problem}")
