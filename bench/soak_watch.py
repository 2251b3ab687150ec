"""What `bench.soak` sees of the server: memory, files, threads, how soon it answers /health, its metrics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.soak_http import KEY, get

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sight:
    """One look at the process."""

    at: float  # seconds since the beginning
    mib: float  # resident memory
    files: int
    threads: int
    health: float  # seconds until /health answered


class Server:
    """A `herd serve` process over a model folder, on a port of its own."""

    def __init__(self, model: Path, log: Path, arguments: Sequence[str]) -> None:
        self._log = log
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        around = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": threads, "HERD_API_KEY": KEY}
        command = [sys.executable, "-m", "bench.soak_server", str(model), "--port", "0", *arguments]
        pipe = subprocess.PIPE
        with log.open("w") as out:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=out, text=True, env=around, cwd=ROOT
            )
        self.port = self._find_port()
        self.sights: list[Sight] = []
        self._begun, self._over = time.monotonic(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start_watching(self) -> None:
        self._watcher.start()

    def stop_watching(self) -> None:
        self._over.set()
        self._watcher.join()

    def look(self) -> dict[str, Any]:
        """Through the second door (`soak_server`)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def metrics(self) -> dict[str, float]:
        """Figures without labels, by name."""
        _, page = asyncio.run(get(self.port, "/metrics"))
        return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", page.decode(), re.MULTILINE)}

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._process.terminate()
        try:
            return self._process.wait(90)
        finally:
            self._process.kill()

    def sight(self) -> Sight:
        place = Path(f"/proc/{self.pid}")
        pages = int((place / "statm").read_text().split()[1])
        threads = re.search(r"Threads:\s+(\d+)", (place / "status").read_text())
        started = time.monotonic()
        asyncio.run(get(self.port, "/health"))
        health = time.monotonic() - started
        mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        files = len(list((place / "fd").iterdir()))
        return Sight(time.monotonic() - self._begun, mib, files, int(threads[1]) if threads else 0, health)

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            with suppress(OSError, EOFError):
                self.sights.append(self.sight())

    def _find_port(self) -> int:
        for _ in range(1200):
            if found := re.search(r"herd serves .* at http://127\.0\.0\.1:(\d+)", self.log):
                return int(found[1])
            if not self.lives:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the server does not come up: {self.log[-2000:]}")


def growth(sights: Sequence[Sight], seconds: float) -> tuple[float, float, float]:
    """MiB after the warm-up (a third of the time), at the end, and a minute's growth in the last half (Theil and Sen's
    median of slopes, which no single peak moves)."""
    busy = [one for one in sights if one.at <= seconds]
    warm = statistics.median(one.mib for one in busy if seconds * 0.3 <= one.at <= seconds * 0.4)
    late = [one for one in busy if one.at >= seconds * 0.5]
    end = statistics.median(one.mib for one in late if one.at >= seconds * 0.9)
    gap = max(1, len(late) // 2)
    slopes = [(b.mib - a.mib) / (b.at - a.at) for a, b in zip(late, late[gap:], strict=False)]
    return warm, end, 60 * statistics.median(slopes)
