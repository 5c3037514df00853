"""Sends on routes, without LiteLLM; what no route covers is handed on to it."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.core.engine import Backend
from llmkit.providers.attempt import Attempt
from llmkit.providers.chunk_source import ChunkSource
from llmkit.providers.failures import RefusedError, key_advice, keyless
from llmkit.providers.refusals import refusal_in
from llmkit.providers.routes.dialects import UnfamiliarError, dialect_of
from llmkit.providers.transport.addresses import TransportError, is_reachable
from llmkit.providers.transport.body import EventReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.core.completion import Chunk, Completion
    from llmkit.core.types import AsyncSource, Piece, Reply, Request, Source
    from llmkit.providers.routes.route import Route
    from llmkit.providers.transport.http import HttpRequest

T = TypeVar("T")


class Direct(Backend):
    """Sends what a route covers, and hands everything else on.

    Args:
        route_of: returns the route for a request, or None if there is none.
        other: returns the backend for everything else.
        transports: return the sync and the async transport.
        handed_on: is told of each request that the other backend has answered.
    """

    def __init__(
        self,
        route_of: Callable[[Request], Route | None],
        other: Callable[[], Backend],
        transports: tuple[Callable[[], Any], Callable[[], Any]],
        handed_on: Callable[[Request], None] = lambda _: None,
    ) -> None:
        self._route_of, self._other, self._handed_on = route_of, other, handed_on
        self._blocking, self._awaited = transports

    def load(self, _: str) -> None:
        """Load the transport."""
        self._awaited()

    def send(self, request: Request) -> Reply:
        """Send once."""
        if (made := self._made(request, stream=False)) is None:
            return self._told(request, self._other().send(request))
        attempt = _Attempt(request, made[0])
        with attempt.errors():
            return attempt.answer(self._blocking().open(made[1], attempt.wire).read())

    async def asend(self, request: Request) -> Reply:
        """Async version of `send`."""
        if (made := self._made(request, stream=False)) is None:
            return self._told(request, await self._other().asend(request))
        attempt = _Attempt(request, made[0])
        with attempt.errors():
            return attempt.answer(await (await self._awaited().open(made[1], attempt.wire)).aread())

    def open(self, request: Request) -> Source:
        """Open a stream."""
        if (made := self._made(request, stream=True)) is None:
            return self._told(request, self._other().open(request))
        attempt = _Attempt(request, made[0])
        with attempt.errors():
            events = attempt.wire.events = EventReader(keeps=True)
            response = self._blocking().open(made[1], attempt.wire)
            if attempt.wire.failed_status is not None:
                attempt.answer(response.read())
            return _BlockingSource(attempt, events, response)

    async def aopen(self, request: Request) -> AsyncSource:
        """Async version of `open`."""
        if (made := self._made(request, stream=True)) is None:
            return self._told(request, await self._other().aopen(request))
        attempt = _Attempt(request, made[0])
        with attempt.errors():
            events = attempt.wire.events = EventReader(keeps=True)
            response = await self._awaited().open(made[1], attempt.wire)
            if attempt.wire.failed_status is not None:
                attempt.answer(await response.aread())
            return _AwaitedSource(attempt, events, response)

    def _told(self, request: Request, answered: T) -> T:
        """Return what the other backend has answered, after telling who wants to know."""
        self._handed_on(request)
        return answered

    def _made(self, request: Request, *, stream: bool) -> tuple[Route, HttpRequest] | None:
        """Return the route and the HTTP request for it, or None if LiteLLM has to send."""
        if request.kind != "chat" or (route := self._route_of(request)) is None:
            return None
        sent = route.request(request, stream=stream)
        if sent is None and route.access.needs_key and not route.key(request) and route.covers(request, stream=stream):
            raise keyless(key_advice(route.provider, route.access.key_variables, request), route.provider, request)
        return None if sent is None or not is_reachable(sent.url) else (route, sent)


class _Attempt(Attempt):
    """One request on its way along a route."""

    way = "direct"

    def __init__(self, request: Request, route: Route) -> None:
        super().__init__(request)
        self.route = route
        self.provider, self.called = route.provider, route.model
        self.dialect = dialect_of(route.access.dialect)
        self.wire.seen = True

    def answer(self, content: bytes) -> Reply:
        """Return a whole answer as a Reply, or raise the error that it is."""
        if self.wire.failed_status is not None:
            raise RefusedError
        try:
            completion, body = self.completion(content)
        except UnfamiliarError:
            return _read_by_litellm(self, content)
        return self.reply(completion, body)

    def completion(self, content: bytes) -> tuple[Completion, Any]:
        """Return what a body says, and its JSON.

        Raises:
            UnfamiliarError: it is written in an unknown way.
        """
        body = json.loads(content)
        if refusal_in(body) is not None:
            raise RefusedError
        return self.dialect.completion_of(body, self.route.behaviour.habits), body


class _DirectSource(ChunkSource):
    """An open stream on a route: what its events say, as chunks."""

    _attempt: _Attempt

    def __init__(self, attempt: _Attempt, events: EventReader) -> None:
        super().__init__(attempt)
        self._events = events
        self._waiting: deque[Chunk] = deque()
        self._is_over = False
        self._broken: Exception | None = None
        self._reader = attempt.dialect.Reader(attempt.route.behaviour.habits)

    def whole_answer(self) -> Completion | None:
        """Return the answer in a body that is no stream."""
        return self._attempt.completion(b"".join(self._attempt.wire.parts))[0]

    def must_read(self) -> bool:
        """Return whether the next piece needs more bytes; raise what broke the stream after the pieces before it."""
        if self._broken is not None and not self._waiting:
            raise self._broken
        return not self._waiting and not self._is_over

    def arrived(self, part: bytes | None) -> None:
        """Take the events that more bytes, or None for their end, have completed; each waits until it is asked for."""
        if part is None:
            self._end()
        try:
            while self._events.waiting:
                self._waiting.extend(self._reader.chunks(self._events.waiting.popleft()))
        except Exception as error:  # noqa: BLE001 - raised after the chunks that came before it
            self._broken = error

    def piece(self) -> Piece | None:
        """Return the piece that waits, or accept the end."""
        return self.take(self._waiting.popleft()) if self._waiting else self.end()

    def despite(self, error: Exception) -> Piece | None:
        """Accept an error after the stream said that it is complete, and raise llmkit's for any other."""
        if not self._events.has_ended or not isinstance(error, TransportError):
            raise self.failed(error) from error
        self._end()
        return self.end()

    def _end(self) -> None:
        self._is_over = True
        self._events.end(self._attempt.wire)
        if self._events.has_ended:
            self._attempt.wire.fault = None
        elif self._events.fault is not None:
            self._broken = self._attempt.wire.failed(self._events.fault)


class _BlockingSource(_DirectSource):
    """An open stream, read with blocking calls."""

    def __init__(self, attempt: _Attempt, events: EventReader, response: Any) -> None:
        super().__init__(attempt, events)
        self._parts = iter(response)

    def next(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            while self.must_read():
                self.arrived(next(self._parts, None))
            return self.piece()
        except Exception as error:  # noqa: BLE001 - translated
            return self.despite(error)


class _AwaitedSource(_DirectSource):
    """An open stream, read with awaits."""

    def __init__(self, attempt: _Attempt, events: EventReader, response: Any) -> None:
        super().__init__(attempt, events)
        self._parts = aiter(response)

    async def anext(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            while self.must_read():
                self.arrived(await anext(self._parts, None))
            return self.piece()
        except Exception as error:  # noqa: BLE001 - translated
            return self.despite(error)


def _read_by_litellm(attempt: _Attempt, content: bytes) -> Reply:
    """Return an answer that is written in an unusual way, as LiteLLM reads it, without sending anything."""
    from llmkit.providers.routes.learning.observe import reread  # imports LiteLLM

    return reread(attempt.request, attempt.wire, content)
