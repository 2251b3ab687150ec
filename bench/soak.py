"""A herd of clients against `herd serve`: `python -m bench soak`, or

    python -m bench.soak --seconds 20 --clients 40

A real server process over a small random model, its clients in another: chats, completions, responses, embeddings, in
whole and streamed, held to schemas and tools, and among them clients that leave, stall, lie and send garbage. It
passes when

- the server lives, ends with exit code 0 when it is told to, and its log holds no traceback;
- every well-formed request is answered rightly or refused with 429 or 503; no other status over 499; requests with one
  right answer have it, but for a draw that rounding decides;
- afterwards nothing runs or waits, no page is in use, the scheduler's invariants hold; files, threads and asyncio
  tasks are as many as before;
- memory is flat: after the warm-up it grows by less than `GROWTH` (told, but not judged, in runs of under two minutes).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import Row, make_row
from bench.soak_model import make_model
from bench.soak_traffic import MODEL
from bench.soak_watch import ROOT, Server, growth

GROWTH = 0.05  # of the memory after the warm-up, and 24 MiB at least
_LEAST_GROWTH = 24.0
_SHORT = 120  # seconds; memory has not settled by then
_PATIENCE = 60  # seconds for the server to come to rest
_SERVER = ("--cache-tokens", "65536", "--max-running", "32", "--max-queue", "96", "--served-name", MODEL)


@dataclass(frozen=True)
class SoakSettings:
    seconds: float = 600.0
    clients: int = 200
    seed: int = 0


@dataclass
class Report:
    """What was seen, and what is wrong with it: nothing, it is to be hoped."""

    settings: SoakSettings
    tally: dict[str, Any]
    figures: dict[str, Any]
    wrong: list[str]

    @property
    def passed(self) -> bool:
        return not self.wrong

    @property
    def answered(self) -> int:
        return sum(self.tally["whole_counts"].values())

    def to_text(self) -> str:
        lines = [f"{self.settings.clients} clients for {self.settings.seconds:.0f} s"]
        lines += [f"  {name}: {_shown(value)}" for name, value in self.figures.items()]
        for name in ("answered", "refused", "hostile"):
            counts = ", ".join(f"{key} {count}" for key, count in sorted(self.tally[name].items()))
            lines.append(f"  {name}: {counts or 'none'}")
        lines += [f"  WRONG: {one}" for one in self.wrong] or ["  PASSED"]
        return "\n".join(lines)


def soak(settings: SoakSettings) -> Report:
    with tempfile.TemporaryDirectory() as place:
        make_model(Path(place) / "model")
        server = Server(Path(place) / "model", Path(place) / "log", _SERVER)
        try:
            return _soak(settings, server)
        finally:
            if server.lives:
                server.stop()


def _soak(settings: SoakSettings, server: Server) -> Report:
    before, looked = server.sight(), server.look()
    server.start_watching()
    command = [sys.executable, "-m", "bench.soak_clients", str(server.port), str(settings.clients)]
    done = subprocess.run(
        [*command, str(settings.seconds), str(settings.seed)], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        raise RuntimeError(f"the clients failed: {done.stderr[-3000:]}\nthe server's log: {server.log[-3000:]}")
    tally: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    tally["whole_counts"] = {kind: len(times) for kind, times in tally["whole"].items()}
    wrong = [*tally["faults"]]
    if tally["n_faults"] > len(wrong):
        wrong.append(f"{tally['n_faults']} faults in all")
    figures: dict[str, Any] = {"answered a second": sum(tally["whole_counts"].values()) / settings.seconds}
    figures |= _latencies(tally)
    if server.lives:
        wrong += _at_rest(server, before.files, before.threads, int(looked["tasks"]), figures)
        server.stop_watching()
        wrong += _flat(server, settings, figures)
        code = server.stop()
        wrong += [f"the server ended with {code}"] if code else []
    else:
        wrong.append("the server is dead")
    if "Traceback" in server.log or "never retrieved" in server.log:
        wrong.append(f"the server's log: {server.log[-2000:]}")
    return Report(settings, tally, figures, wrong)


def _at_rest(server: Server, files: int, threads: int, tasks: int, figures: dict[str, Any]) -> list[str]:
    """What is left over once nobody asks any more. Connections that linger are waited for."""
    names = ("herd_requests_running", "herd_requests_waiting", "herd_cache_pages_used")
    for _ in range(_PATIENCE):
        metrics, now, looked = server.metrics(), server.sight(), server.look()
        left = {name: metrics[name] for name in names if metrics[name]}
        if not left and now.files <= files + 2 and looked["tasks"] <= tasks + 2:
            break
        time.sleep(1)
    figures |= {"files": f"{files} -> {now.files}", "threads": f"{threads} -> {now.threads}"}
    figures |= {"asyncio tasks": f"{tasks} -> {looked['tasks']}", "pages in use": metrics["herd_cache_pages_used"]}
    wrong = [f"{name} is {value:.0f} at rest" for name, value in left.items()]
    wrong += [f"open files: {files} before, {now.files} at rest"] if now.files > files + 2 else []
    wrong += [f"asyncio tasks: {tasks} before, {looked['tasks']} at rest"] if looked["tasks"] > tasks + 2 else []
    wrong += [f"threads: {threads} before, {now.threads} at rest"] if now.threads > threads + 8 else []  # readers
    return wrong + ([str(looked["problem"])] if looked["problem"] else [])


def _flat(server: Server, settings: SoakSettings, figures: dict[str, Any]) -> list[str]:
    warm, end, slope = growth(server.sights, settings.seconds)
    health = sorted(sight.health for sight in server.sights)
    figures |= {"MiB": f"{warm:.0f} warm, {end:.0f} at the end, {slope:+.2f} a minute"}
    figures |= {"health": f"{_percentile(health, 50):.3f} s in the middle, {health[-1]:.3f} s at worst"}
    allowed = max(_LEAST_GROWTH, GROWTH * warm)
    grew = settings.seconds >= _SHORT and end - warm > allowed
    return [f"memory grew from {warm:.0f} to {end:.0f} MiB"] if grew else []


def _latencies(tally: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds: the median, the 90th and the 99th percentile."""
    found = {"first event": tally["first"]} | {f"whole {kind}": times for kind, times in tally["whole"].items()}
    return {f"{name}, s": [_percentile(times, p) for p in (50, 90, 99)] for name, times in found.items() if times}


def _percentile(values: Sequence[float], percent: int) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(f"{one:.3f}" for one in value) + "  (p50 / p90 / p99)"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def rows(settings: SoakSettings = SoakSettings()) -> list[Row]:
    """Exits with 1 where the server does not hold."""
    report = soak(settings)
    print(report.to_text(), file=sys.stderr, flush=True)
    if not report.passed:
        sys.exit(1)
    return [make_row("soak", "answers/s", [report.answered / settings.seconds], [], "", None)]


ROWS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "soak": ("answers/s of herd serve under 200 clients, hostile ones among them, for ten minutes", rows)
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SoakSettings.seconds)
    parser.add_argument("--clients", type=int, default=SoakSettings.clients)
    parser.add_argument("--seed", type=int, default=SoakSettings.seed)
    asked = parser.parse_args()
    for row in rows(SoakSettings(asked.seconds, asked.clients, asked.seed)):
        print(row.to_json())


if __name__ == "__main__":
    main()
