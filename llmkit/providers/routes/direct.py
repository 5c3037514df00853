"""Sends on routes, without LiteLLM; what no route covers is handed on to it."""

from __future__ import annotations

import codecs
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from llmkit.core.engine import Backend
from llmkit.providers.attempt import Attempt
from llmkit.providers.chunk_source import ChunkSource
from llmkit.providers.failures import RefusedError, key_advice, keyless
from llmkit.providers.refusals import refusal_in
from llmkit.providers.routes.dialects import UnfamiliarError, dialect_of
from llmkit.providers.transport.addresses import is_reachable
from llmkit.providers.transport.events import DONE, Events

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.core.types import AsyncSource, Piece, Reply, Request, Source
    from llmkit.providers.completion import Chunk, Completion
    from llmkit.providers.routes.route import Route
    from llmkit.providers.transport.http import HttpRequest


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

    def send(self, request: Request) -> Reply:
        """Send once."""
        if (made := self._made(request, stream=False)) is None:
            reply = self._other().send(request)
            self._handed_on(request)
            return reply
        attempt = _Attempt(request, made[0])
        with attempt.errors():
            return attempt.answer(self._blocking().open(made[1], attempt.wire).read())

    async def asend(self, request: Request) -> Reply:
        """Async version of `send`."""
        if (made := self._made(request, stream=False)) is None:
            reply = await self._other().asend(request)
            self._handed_on(request)
            return reply
        attempt = _Attempt(request, made[0])
        with attempt.errors():
            return attempt.answer(await (await self._awaited().open(made[1], attempt.wire)).aread())

    def open(self, request: Request) -> Source:
        """Open a stream."""
        if (made := self._made(request, stream=True)) is None:
            source = self._other().open(request)
            self._handed_on(request)
            return source
        attempt = _Attempt(request, made[0])
        with attempt.errors():
            response = self._blocking().open(made[1], attempt.wire)
            if attempt.wire.failed_status is not None:
                attempt.answer(response.read())
            return _BlockingSource(attempt, response)

    async def aopen(self, request: Request) -> AsyncSource:
        """Async version of `open`."""
        if (made := self._made(request, stream=True)) is None:
            unblocking = await self._other().aopen(request)
            self._handed_on(request)
            return unblocking
        attempt = _Attempt(request, made[0])
        with attempt.errors():
            response = await self._awaited().open(made[1], attempt.wire)
            if attempt.wire.failed_status is not None:
                attempt.answer(await response.aread())
            return _AwaitedSource(attempt, response)

    def _made(self, request: Request, *, stream: bool) -> tuple[Route, HttpRequest] | None:
        """Return the route and the HTTP request for it, or None if LiteLLM has to send."""
        if request.kind != "chat" or (route := self._route_of(request)) is None:
            return None
        if route.access.needs_key and not route.key(request):
            raise keyless(key_advice(route.provider, route.access.key_variables, request), route.provider, request)
        sent = route.request(request, stream=stream)
        return None if sent is None or not is_reachable(sent.url) else (route, sent)


class _Attempt(Attempt):
    """One request on its way along a route."""

    way = "direct"

    def __init__(self, request: Request, route: Route) -> None:
        super().__init__(request)
        self.route = route
        self.provider = route.provider
        self.dialect = dialect_of(route.access.dialect)
        self.wire.seen = True

    def answer(self, content: bytes) -> Reply:
        """Return a whole answer as a Reply, or raise the error that it is."""
        if self.wire.failed_status is not None:
            raise RefusedError(content.decode(errors="replace"))
        completion, body = self.completion(content)
        return self.reply(completion, body)

    def completion(self, content: bytes) -> tuple[Completion, Any]:
        """Return what a body says, and its JSON."""
        body = json.loads(content)
        if refusal_in(body) is not None:
            raise RefusedError(content.decode(errors="replace"))
        try:
            return self.dialect.completion_of(body, self.route.behaviour.habits), body
        except UnfamiliarError:
            return _read_by_litellm(body), body


class _DirectSource(ChunkSource):
    """An open stream on a route."""

    _attempt: _Attempt

    def __init__(self, attempt: _Attempt, response: Any) -> None:
        super().__init__(attempt)
        self._response = response
        self._events = Events()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._waiting: deque[Chunk] = deque()
        self._closed = False
        self._reader = attempt.dialect.Reader(attempt.route.behaviour.habits)

    def whole_answer(self) -> Completion | None:
        """Return the answer in a body that is no stream."""
        return self._attempt.completion(b"".join(self._attempt.wire.parts))[0]

    def feed(self, part: bytes) -> None:
        """Take more bytes; the chunks that they complete wait until somebody asks for them."""
        if not self._attempt.wire.is_event_stream:
            return
        for event in self._events.feed(self._decoder.decode(part)):
            if event.data == DONE:
                self._closed = True
            elif not self._closed:
                self._waiting.extend(self._reader.chunks(json.loads(event.data)))


class _BlockingSource(_DirectSource):
    """An open stream, read with blocking calls."""

    def __init__(self, attempt: _Attempt, response: Any) -> None:
        super().__init__(attempt, response)
        self._parts = iter(response)

    def next(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            while not self._waiting:
                if (part := next(self._parts, None)) is None:
                    return self.end()
                self.feed(part)
        except Exception as error:
            raise self.failed(error) from error
        return self.take(self._waiting.popleft())


class _AwaitedSource(_DirectSource):
    """An open stream, read with awaits."""

    def __init__(self, attempt: _Attempt, response: Any) -> None:
        super().__init__(attempt, response)
        self._parts = aiter(response)

    async def anext(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            while not self._waiting:
                if (part := await anext(self._parts, None)) is None:
                    return self.end()
                self.feed(part)
        except Exception as error:
            raise self.failed(error) from error
        return self.take(self._waiting.popleft())


def _read_by_litellm(body: Any) -> Completion:
    """Return an answer in OpenAI's format that is written in an unusual way, as LiteLLM reads it."""
    from llmkit.providers.litellm.attempt import completion_of  # imports LiteLLM
    from llmkit.providers.litellm.sdk import read_chat

    raw = read_chat(body)
    if raw is None:
        raise ValueError("the answer has another format than OpenAI's")
    return completion_of(raw)
