"""What the server counts, in Prometheus' words (`/metrics`).

All of it is counted on the event loop's thread, without locks: a token of a stream costs a comparison or two.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from herd.generate.protocol import Request
from herd.serve.backend import Answers, Backend, Ended, Load, Said

_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
_WHOLE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


@dataclass
class Histogram:
    """Seconds, counted under upper bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.total += seconds * times

    def family(self, name: str, about: str) -> HistogramMetricFamily:
        cumulative, buckets = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            cumulative += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), float(cumulative)))
        return HistogramMetricFamily(name, about, buckets=buckets, sum_value=self.total)


class Metrics(Collector):
    """One server's."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.first, self.between, self.whole = Histogram(_FIRST), Histogram(_BETWEEN), Histogram(_WHOLE)
        self.prompt = self.cached = self.generated = 0
        self.outcomes: Counter[str] = Counter()
        self.statuses: Counter[tuple[str, str]] = Counter()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def observed(self, answers: Answers, requests: Sequence[Request]) -> Answers:
        """The same answers, timed and counted as they are read."""
        return _Observed(self, answers, requests)

    def collect(self) -> Iterable[Metric]:
        load = self._backend.load
        yield self.first.family("herd_time_to_first_token_seconds", "from a request's arrival to its first token")
        yield self.between.family("herd_inter_token_seconds", "between two tokens of one answer")
        yield self.whole.family("herd_request_seconds", "from a request's arrival to its last token")
        yield from _gauges(load)
        for name, about, value in (
            ("herd_prompt_tokens", "tokens of prompts", self.prompt),
            ("herd_cached_tokens", "of those, known from earlier requests and not computed", self.cached),
            ("herd_generated_tokens", "tokens of answers", self.generated),
            ("herd_draft_tokens", "tokens that a draft proposed", load.drafted),
            ("herd_accepted_tokens", "of those, accepted", load.accepted),
        ):
            yield CounterMetricFamily(name, about, value=value)
        outcomes = CounterMetricFamily("herd_requests", "answers by how they ended", labels=("outcome",))
        for outcome, count in self.outcomes.items():
            outcomes.add_metric((outcome,), count)
        yield outcomes
        statuses = CounterMetricFamily("herd_responses", "HTTP responses", labels=("path", "status"))
        for labels, count in self.statuses.items():
            statuses.add_metric(labels, count)
        yield statuses


def _gauges(load: Load) -> Iterable[Metric]:
    for name, about, value in (
        ("herd_requests_running", "requests in the engine's batch", load.running),
        ("herd_requests_waiting", "requests that wait for room", load.waiting),
        ("herd_cache_pages", "pages of the cache", load.pages),
        ("herd_cache_pages_used", "pages that running requests hold", load.pages_used),
    ):
        yield GaugeMetricFamily(name, about, value=value)


class _Observed:
    """Implements `Answers`."""

    def __init__(self, metrics: Metrics, answers: Answers, requests: Sequence[Request]) -> None:
        self._metrics, self._answers, self._open = metrics, answers, len(requests)
        self._start = time.monotonic()
        self._last = [0.0] * len(requests)  # when each answer last went on; 0: not yet
        metrics.prompt += sum(len(request.prompt) for request in requests)

    async def __aiter__(self) -> AsyncIterator[list[Said | Ended]]:
        outcome = "cancelled"
        try:
            async for events in self._answers:
                self._count(events)
                yield events
        except Exception:
            outcome = "failed"
            raise
        finally:
            self._metrics.outcomes[outcome] += self._open

    def cancel(self, which: int | None = None) -> None:
        self._answers.cancel(which)

    def _count(self, events: Sequence[Said | Ended]) -> None:
        now = time.monotonic()
        said: dict[int, int] = {}  # this runs for every token: no Counter, which takes longer than all the rest
        for one in events:
            if isinstance(one, Ended):
                self._open -= 1
                self._metrics.cached += one.completion.cached
                self._metrics.outcomes[one.completion.finish] += 1
                self._metrics.whole.add(now - self._start)
            else:
                said[one.which] = said.get(one.which, 0) + 1
        for which, n in said.items():
            self._metrics.generated += n
            last, self._last[which] = self._last[which], now
            if last:
                self._metrics.between.add((now - last) / n, n)
            else:
                self._metrics.first.add(now - self._start)
                self._metrics.between.add(0.0, n - 1)  # what came with it
