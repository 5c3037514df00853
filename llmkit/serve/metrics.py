"""The metrics at `/metrics`, in a registry of their own: requests, latency, tokens, money, requests under way."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from llmkit.core.types import Reply

_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)


class Metrics:
    """The counters of one server; labels are routes and served names, never anything a client made up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        within: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("llmkit_requests", "Requests", ["route", "model", "status"], **within)
        self.seconds = Histogram("llmkit_request_seconds", "Seconds", ["route"], buckets=_BUCKETS, **within)
        self.tokens = Counter("llmkit_tokens", "Tokens", ["model", "direction"], **within)
        self.cost = Counter("llmkit_cost_usd", "US dollars, as far as prices are known", ["model"], **within)
        self.in_flight = Gauge("llmkit_in_flight", "Requests under way", **within)
        self.queued = Gauge("llmkit_queued", "Requests that wait for their turn", **within)
        self._of = lru_cache(maxsize=4096)(lambda metric, *labels: metric.labels(*labels))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' format."""
        return generate_latest(self.registry)

    def answered(self, route: str, model: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._of(self.requests, route, model, str(status)).inc()
        self._of(self.seconds, route).observe(seconds)

    def count(self, name: str, reply: Reply) -> None:
        """Count the usage of an answer."""
        usage = reply.usage
        self._of(self.tokens, name, "in").inc(usage.prompt_tokens)
        self._of(self.tokens, name, "out").inc(usage.completion_tokens)
        if usage.cost_usd is not None:
            self._of(self.cost, name).inc(usage.cost_usd)
