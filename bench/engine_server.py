"""What HTTP costs: `herd serve` on the 1B shape, asked over a socket (`bench.engine`'s "server").

    async with Server(folder) as server: heard = await server.streams(prompts, new)

Prompts are ids (`/v1/completions`), answers are read as they stream. The client is this process: it shares the cores,
as a proxy in front would.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.sides import ROOT

_START_SECONDS = 120.0
_RUN = "import sys; from herd.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Heard:
    """One answer: when its parts came, in seconds from when it was asked, and how many tokens it had."""

    times: list[float]
    tokens: int


class Server:
    """`herd serve FOLDER` in a process of its own, ready when it is entered."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder, threads

    async def __aenter__(self) -> Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by __aexit__
        command = [
            sys.executable,
            "-c",
            _RUN,
            "serve",
            str(self._folder),
            "--served-name",
            "1b",
            "--port",
            str(self.port),
        ]
        env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": str(self._threads)}
        self._process = await asyncio.create_subprocess_exec(
            *command, "--cache-tokens", "16384", stdout=self._log, stderr=self._log, env=env
        )
        until = time.monotonic() + _START_SECONDS
        while not await self._is_ready():
            if self._process.returncode is not None or time.monotonic() > until:
                self._log.seek(0)
                raise RuntimeError(f"herd serve does not start: {self._log.read()[-2000:]}")
            await asyncio.sleep(0.2)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
        self._log.close()

    async def streams(self, prompts: Sequence[Sequence[int]], new: int) -> list[Heard]:
        """One streamed answer of `new` tokens to each prompt, all asked at once."""
        return list(await asyncio.gather(*(self._stream(prompt, new) for prompt in prompts)))

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        writer.close()
        return b" 200 " in status

    async def _stream(self, prompt: Sequence[int], new: int) -> Heard:
        asked: dict[str, Any] = {"model": "1b", "prompt": list(prompt), "max_tokens": new, "temperature": 0}
        asked |= {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(asked).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        )
        started = time.perf_counter()
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        times, tokens = [], 0
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            told = json.loads(line[len(b"data: ") :])
            if told.get("usage"):
                tokens = told["usage"]["completion_tokens"]
            if told.get("choices") and told["choices"][0]["text"]:
                times.append(time.perf_counter() - started)
        writer.close()
        if tokens != new:
            raise RuntimeError(f"an answer of {new} tokens had {tokens}")
        return Heard(times, tokens)


def rate(heard: Sequence[Heard]) -> float:
    """Tokens a second of all answers, from the first question to the last token."""
    return sum(one.tokens for one in heard) / max(one.times[-1] for one in heard)


def gaps(heard: Sequence[Heard]) -> list[float]:
    """Seconds between neighbouring parts of an answer while all answers are under way."""
    begin, end = max(one.times[0] for one in heard), min(one.times[-1] for one in heard)
    return [
        after - before
        for one in heard
        for before, after in zip(one.times, one.times[1:], strict=False)
        if begin <= before and after <= end
    ]
