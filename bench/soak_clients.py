"""The clients of `bench.soak`, all in one process: `python -m bench.soak_clients PORT CLIENTS SECONDS SEED`.

Prints one JSON object: answers, refusals and faults by kind, and the seconds that answers took. Every client asks, or
misbehaves, one time after the other. The few requests that say the same every time are asked once before all begins.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bench import soak_hostile, soak_traffic
from bench.soak_http import Connection, Head, events, post_bytes
from bench.soak_streams import joined
from bench.soak_traffic import Asked

_REFUSED = (429, 503)
_HOSTILE = 0.35  # of all that clients do
_ANSWERS = 3  # to a request with one right answer: a draw on the border of two tokens may fall to either side
_MOST_FAULTS = 40  # told in words


@dataclass
class Tally:
    """What happened."""

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    hostile: Counter[str] = field(default_factory=Counter)  # "way: status"
    faults: list[str] = field(default_factory=list)
    n_faults: int = 0
    first: list[float] = field(default_factory=list)  # seconds until a stream's first event
    whole: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def fault(self, said: str) -> None:
        self.n_faults += 1
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(said[:400])


class Clients:
    def __init__(self, port: int, seed: int) -> None:
        self.port, self.seed, self.tally = port, seed, Tally()
        self._known: dict[int, set[str]] = {}  # what requests with one right answer were answered
        self._until = 0.0

    async def run(self, n_clients: int, seconds: float) -> Tally:
        for asked in [soak_traffic.same(number) for number in range(soak_traffic.SAME)]:
            answer = await self._ask(asked)
            if answer is None:
                raise RuntimeError(f"the quiet server does not answer: {self.tally.faults}")
            assert asked.same is not None
            self._known[asked.same] = {_said(answer)}
        for asked in soak_traffic.every_kind(random.Random(self.seed)):
            await self._good(asked)
        if self.tally.n_faults:
            raise RuntimeError(f"the quiet server does not answer as it should: {self.tally.faults}")
        self.tally = Tally()
        self._until = time.monotonic() + seconds
        await asyncio.gather(*[self._client(random.Random(f"{self.seed} {number}")) for number in range(n_clients)])
        return self.tally

    async def _client(self, rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(0, 2))
        while time.monotonic() < self._until:
            if rng.random() < _HOSTILE:
                await self._bad(soak_hostile.draw(rng), rng)
            else:
                await self._good(soak_traffic.draw(rng))
            await asyncio.sleep(rng.uniform(0, 0.3))

    async def _bad(self, way: str, rng: random.Random) -> None:
        try:
            statuses = await soak_hostile.misbehave(way, self.port, rng)
        except (TimeoutError, AssertionError) as error:
            self.tally.fault(f"{way}: {error or 'never ended'}")
            return
        for status in statuses or [0]:
            self.tally.hostile[f"{way}: {status or 'no answer'}"] += 1
            if status >= 500 and status not in _REFUSED:
                self.tally.fault(f"{way}: {status}")

    async def _good(self, asked: Asked) -> None:
        answer = await self._ask(asked)
        if answer is None:
            return
        self.tally.answered[asked.kind] += 1
        problem = soak_traffic.wrong(asked, answer)
        if not problem and asked.same is not None:
            known = self._known[asked.same]
            known.add(_said(answer))
            if len(known) > _ANSWERS:
                problem = f"the {len(known)}th answer to a request that has one"
        if problem:
            self.tally.fault(f"{asked.kind}: {problem}: {json.dumps(asked.body)[:200]}")

    async def _ask(self, asked: Asked) -> dict[str, Any] | None:
        """The answer; None where it was refused, or none came, which is noted."""
        connection = None
        try:
            connection = await Connection.to(self.port)
            started = time.monotonic()
            await connection.send(post_bytes(asked.path, json.dumps(asked.body).encode(), {"Connection": "close"}))
            head = await connection.head()
            answer = await self._read(asked, connection, head, started)
            if answer is not None:
                self.tally.whole[asked.kind].append(time.monotonic() - started)
            return answer
        except (OSError, asyncio.IncompleteReadError, ValueError, KeyError, TimeoutError) as error:
            self.tally.fault(f"{asked.kind}: {type(error).__name__} {error}")
            return None
        finally:
            if connection is not None:
                with suppress(OSError):
                    await connection.close()

    async def _read(self, asked: Asked, connection: Connection, head: Head, started: float) -> dict[str, Any] | None:
        if head.status in _REFUSED:
            self.tally.refused[str(head.status)] += 1
            await connection.body(head)
            await asyncio.sleep(float(head.headers["retry-after"]))  # as the official clients do
            return None
        if head.status != 200:
            said = await connection.body(head)
            raise ValueError(f"{head.status} {said[:200].decode(errors='replace')} to {json.dumps(asked.body)[:150]}")
        if not asked.streams:
            answer: dict[str, Any] = json.loads(await connection.body(head))
            return answer
        found: list[Any] = []
        async for event in events(connection.pieces(head)):
            if not found:
                self.tally.first.append(time.monotonic() - started)
            found.append(event)
        return joined(found)


def _said(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def main(port: str, n_clients: str, seconds: str, seed: str) -> None:
    tally = asyncio.run(Clients(int(port), int(seed)).run(int(n_clients), float(seconds)))
    print(json.dumps(vars(tally)))


if __name__ == "__main__":
    main(*sys.argv[1:])
