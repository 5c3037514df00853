"""What `/metrics` tells, in a registry of its own: requests, latency, tokens, money, and how many are under way."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llmkit.serve.context import current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from llmkit.serve.served import Caller, PieceStream, Served
    from llmkit.types import Message, Piece, Reply

_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        within: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("llmkit_requests", "Requests", ["route", "model", "status"], **within)
        self.seconds = Histogram("llmkit_request_seconds", "Seconds", ["route"], buckets=_BUCKETS, **within)
        self.tokens = Counter("llmkit_tokens", "Tokens", ["model", "direction"], **within)
        self.cost = Counter("llmkit_cost_usd", "US dollars, as far as prices are known", ["model"], **within)
        self.in_flight = Gauge("llmkit_in_flight", "Requests under way", **within)
        self.queued = Gauge("llmkit_queued", "Requests that wait for their turn", **within)

    def text(self) -> bytes:
        """Return everything in Prometheus' format."""
        return generate_latest(self.registry)

    def count(self, name: str, reply: Reply) -> None:
        """Count what an answer used."""
        usage = reply.usage
        self.tokens.labels(name, "in").inc(usage.prompt_tokens)
        self.tokens.labels(name, "out").inc(usage.completion_tokens)
        if usage.cost_usd is not None:
            self.cost.labels(name).inc(usage.cost_usd)


class Counted:
    """A `Served` whose answers are counted, by whatever protocol they are asked for."""

    def __init__(self, served: Served, metrics: Metrics) -> None:
        self.served = served
        self.name = served.name
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        """Return what else the served thing can do."""
        return getattr(self.served, name)

    def meta(self) -> dict[str, Any]:
        """Return what is told of it."""
        return self.served.meta()

    async def start(self) -> None:
        """Get ready."""
        await self.served.start()

    async def stop(self) -> None:
        """Let go."""
        await self.served.stop()

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the answer."""
        current().model = self.name
        reply = await self.served.answer(messages, params, caller)
        self._metrics.count(self.name, reply)
        return reply

    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> PieceStream:
        """Return the answer in pieces."""
        current().model = self.name
        return _CountedStream(self.served.stream(messages, params, caller), self)

    def count(self, reply: Reply) -> None:
        """Count what an answer used."""
        self._metrics.count(self.name, reply)


class _CountedStream:
    """A stream whose answer is counted when it is closed."""

    def __init__(self, stream: PieceStream, owner: Counted) -> None:
        self._stream = stream
        self._owner: Counted | None = owner

    @property
    def reply(self) -> Reply:
        """The answer so far."""
        return self._stream.reply

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield the pieces."""
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        """Close the connection."""
        try:
            await self._stream.aclose()
        finally:
            owner, self._owner = self._owner, None
            if owner is not None:
                with contextlib.suppress(RuntimeError):  # it never began
                    owner.count(self._stream.reply)
