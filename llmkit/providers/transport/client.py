"""The HTTP client of llmkit's own protocols, over the one transport: a backend, and its open answers.

Each request is sent once; retrying is up to the caller.
"""

from __future__ import annotations

import json
import threading
import time
import weakref
from concurrent.futures import CancelledError
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from multidict import CIMultiDict  # comes with aiohttp

from llmkit.config.secrets import redact
from llmkit.core.engine import Backend
from llmkit.errors import IncompleteStreamError, InvalidRequestError
from llmkit.providers.failures import class_of, fault_class, fault_text, retry_after_s
from llmkit.providers.transport.addresses import TransportError
from llmkit.providers.transport.awaited import AwaitedTransport
from llmkit.providers.transport.blocking import BlockingTransport
from llmkit.providers.transport.events import PieceParser, StreamFaultError, reason
from llmkit.providers.transport.http import Wire
from llmkit.providers.transport.requests import HttpAnswer, shown
from llmkit.providers.transport.shared import verify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llmkit.errors import ProviderError
    from llmkit.providers.transport.requests import JsonRequest

_SHORTEST_SECRET = 4  # shorter ones occur in words that have nothing to do with them


class Connections:
    """The connections of one client, for sync calls and for those of every event loop."""

    def __init__(self) -> None:
        self._closed = False
        self._blocking, self._awaited = BlockingTransport(verify()), AwaitedTransport(verify())
        weakref.finalize(self, self._blocking.close)  # for programs that close nothing

    @property
    def blocking(self) -> BlockingTransport:
        """The sync transport; all threads share it."""
        self._check()
        return self._blocking

    @property
    def awaited(self) -> AwaitedTransport:
        """The async transport."""
        self._check()
        return self._awaited

    def close(self) -> None:
        """Close the sync connections; a loop's are closed with the loop, or with `aclose`."""
        self._closed = True
        self._blocking.close()

    async def aclose(self) -> None:
        """Close everything that can be closed from this loop."""
        self.close()
        await self._awaited.aclose()

    def _check(self) -> None:
        if self._closed:
            raise InvalidRequestError("the client is closed")


class HttpClient(Backend):
    """Executes a flow's steps over HTTP: requests are `JsonRequest`s, answers `HttpAnswer`s, streams `TextStream`s.

    Args:
        connections: the connections to send over.
        stop: once it is set, nothing more is sent, and a wait ends at once.
    """

    def __init__(self, connections: Connections, stop: threading.Event | None = None) -> None:
        self.connections = connections
        self._stop = threading.Event() if stop is None else stop

    def sleep(self, seconds: float) -> None:
        """Wait, unless stopped."""
        if self._stop.wait(seconds):
            raise CancelledError

    def send(self, request: Any) -> Any:
        """Send once and return the whole answer, or raise a ProviderError."""
        attempt = HttpAttempt(request)
        with attempt.errors():
            return attempt.answer(self._opened(attempt).read())

    async def asend(self, request: Any) -> Any:
        """Async version of `send`."""
        attempt = HttpAttempt(request)
        with attempt.errors():
            return attempt.answer(await (await self._aopened(attempt)).aread())

    def open(self, request: Any) -> Any:
        """Send once and return the open answer, or raise a ProviderError."""
        attempt = HttpAttempt(request, streamed=True)
        with attempt.errors():
            response = self._opened(attempt)
            return TextStream(response, attempt) if attempt.has_succeeded else attempt.answer(response.read())

    async def aopen(self, request: Any) -> Any:
        """Async version of `open`."""
        attempt = HttpAttempt(request, streamed=True)
        with attempt.errors():
            response = await self._aopened(attempt)
            return TextStream(response, attempt) if attempt.has_succeeded else attempt.answer(await response.aread())

    def _opened(self, attempt: HttpAttempt) -> Any:
        if self._stop.is_set():
            raise CancelledError
        return self.connections.blocking.open(attempt.http(), attempt.wire)

    async def _aopened(self, attempt: HttpAttempt) -> Any:
        return await self.connections.awaited.open(attempt.http(), attempt.wire)


class HttpAttempt:
    """One request on its way, and its outcome."""

    def __init__(self, request: JsonRequest, *, streamed: bool = False) -> None:
        self.request = request
        self.wire = Wire(json_events=False)
        self.pieces: PieceParser | None = None  # set if the answer is read as a stream
        self._streamed = streamed
        self._started = time.monotonic()

    def http(self) -> Any:
        """Return the HTTP request to send."""
        return self.request.http(in_parts=self._streamed)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request was sent."""
        return time.monotonic() - self._started

    @property
    def headers(self) -> CIMultiDict[str]:
        """The answer's headers."""
        return CIMultiDict(self.wire.headers)

    @property
    def has_succeeded(self) -> bool:
        """Whether the provider did not refuse."""
        return self.wire.failed_status is None

    def answer(self, content: bytes) -> HttpAnswer:
        """Return the whole answer, or raise the error that its status means."""
        received = HttpAnswer(self.wire.status or 0, self.headers, content, self.elapsed_s)
        if self.has_succeeded or self.request.wanted_header in received.headers:
            return received
        text = reason(received.text) or self.wire.reason or "no reason given"
        if target := self.wire.redirects_to:
            text = f"it redirects to {target}, which is not followed; use that address where it is the right one"
        status = received.status_code
        raise self.failure(class_of(status), text, status_code=status, retry_after_s=retry_after_s(self.wire.headers))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Translate the transport's errors into llmkit's."""
        try:
            yield
        except TransportError as error:
            raise self.failure(fault_class(error, self.wire), fault_text(error, self.wire)) from error
        except StreamFaultError as error:
            raise self.failure(IncompleteStreamError, f"the stream stopped: {error}") from error

    def failure(self, kind: type[ProviderError], text: str, **known: Any) -> ProviderError:
        """Return an error that names the address and repeats no secret."""
        secrets = [each for each in (self.request.token, *self.request.secrets) if len(each) >= _SHORTEST_SECRET]
        for secret in sorted(secrets, key=len, reverse=True):
            for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote_plus(secret)):
                text = text.replace(form, "[key]")
        partial = self.pieces.text if self.pieces is not None else ""
        return kind(f"{shown(self.request.url)}: {redact(text)}", partial=partial, elapsed_s=self.elapsed_s, **known)


class TextStream:
    """The open answer of a stream, read piece by piece, with blocking calls or with awaits.

    Attributes:
        pieces: what has arrived, and its meaning.
        elapsed_s: seconds from sending the request until the answer began, or was closed.
    """

    def __init__(self, response: Any, attempt: HttpAttempt) -> None:
        self.status_code: int = response.status
        self.headers = attempt.headers
        self.elapsed_s = attempt.elapsed_s
        self.pieces = attempt.pieces = PieceParser(
            self.headers.get("content-type", ""), ends_itself=attempt.request.ends_itself
        )
        self._response = response
        self._attempt = attempt
        self._texts: Any = None

    def next(self) -> str | None:
        """Return the next text, or None after the last, or raise a ProviderError with the text so far in `partial`."""
        self._texts = self._texts or self._read()
        text: str | None = next(self._texts, None)
        return text

    async def anext(self) -> str | None:
        """Async version of `next`."""
        self._texts = self._texts or self._aread()
        text: str | None = await anext(self._texts, None)
        return text

    def close(self) -> None:
        """Close the connection."""
        self.elapsed_s = self._attempt.elapsed_s
        self._response.close()

    async def aclose(self) -> None:
        """Close the connection."""
        self.elapsed_s = self._attempt.elapsed_s
        await self._response.aclose()

    def _read(self) -> Iterator[str]:
        with self._attempt.errors():
            for data in self._response:
                yield from self.pieces.feed(data)
                if self.pieces.ended:
                    return
            yield from self.pieces.end()

    async def _aread(self) -> AsyncIterator[str]:
        with self._attempt.errors():
            async for data in self._response:
                for text in self.pieces.feed(data):
                    yield text
                if self.pieces.ended:
                    return
            for text in self.pieces.end():
                yield text


@cache
def http() -> HttpClient:
    """Return the client of this process, for requests that belong to none of the user's clients."""
    return HttpClient(Connections())
