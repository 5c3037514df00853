"""Sending requests over httpx, blocking and awaited: the connections, and what does the steps of an endpoint's flows.

Each request is sent once; who wants to try again asks again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from llmkit.core.engine import Backend
from llmkit.errors import InvalidRequestError
from llmkit.providers.transport.events import Pieces
from llmkit.providers.transport.exchange import Trip

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    import httpx


class Body:
    """The open answer of a stream: text pieces, for loops of both colours.

    Attributes:
        elapsed_s: seconds from sending the request until the answer began, or was closed.
    """

    def __init__(self, response: httpx.Response, trip: Trip) -> None:
        self.response = response
        self.elapsed_s = trip.elapsed_s
        self.pieces = trip.pieces = Pieces(
            response.headers.get("content-type", ""), ends_itself=trip.exchange.ends_itself
        )
        self._trip = trip

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces."""
        with self._trip.judged():
            for data in self.response.iter_bytes():
                yield from self.pieces.feed(data)
                if self.pieces.ended:
                    return
            yield from self.pieces.end()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the pieces."""
        with self._trip.judged():
            async for data in self.response.aiter_bytes():
                for piece in self.pieces.feed(data):
                    yield piece
                if self.pieces.ended:
                    return
            for piece in self.pieces.end():
                yield piece

    def close(self) -> None:
        """Close the connection."""
        self.elapsed_s = self._trip.elapsed_s
        self.response.close()

    async def aclose(self) -> None:
        """Close the connection."""
        self.elapsed_s = self._trip.elapsed_s
        await self.response.aclose()


class Pool:
    """The connections of one client: one pool for blocking calls, one for each event loop.

    Args:
        transport: what httpx sends with, for tests and for programs with their own; None for the network.
        keep: idle connections that are kept.
    """

    def __init__(self, transport: Any = None, keep: int = 8) -> None:
        self._transport = transport
        self._keep = keep
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()
        self._blocking: httpx.Client | None = None
        self._loops: dict[asyncio.AbstractEventLoop, tuple[httpx.AsyncClient, AsyncGenerator[None, None]]] = {}

    def blocking(self) -> httpx.Client:
        """Return the client for blocking calls; all threads share it."""
        import httpx

        with self._lock:
            self._check_open()
            if self._blocking is None:
                self._blocking = httpx.Client(**self._settings())
                weakref.finalize(self, self._blocking.close)  # of programs that close nothing
            return self._blocking

    async def of_this_loop(self) -> httpx.AsyncClient:
        """Return the running loop's client; it is closed when the loop shuts its generators down."""
        import httpx

        loop = asyncio.get_running_loop()
        with self._lock:
            self._check_open()
            for ended in [other for other in self._loops if other.is_closed()]:
                del self._loops[ended]
            if loop in self._loops:
                return self._loops[loop][0]
            client = httpx.AsyncClient(**self._settings())
            closing = _close_with_loop(client)
            self._loops[loop] = (client, closing)
        await anext(closing)
        return client

    def close(self) -> None:
        """Close what blocking calls used; what a loop used is closed with the loop, or with `aclose`."""
        with self._lock:
            self._closed, client = True, self._blocking
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close everything that can be closed from this loop."""
        self.close()
        with self._lock:
            found = self._loops.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found[1].aclose()

    def _check_open(self) -> None:
        """Refuse where it is closed; begin anew in a child process."""
        if self._closed:
            raise InvalidRequestError("the client is closed")
        if self._process != os.getpid():  # a child leaves its parent's connections to the parent
            self._process, self._blocking, self._loops = os.getpid(), None, {}

    def _settings(self) -> dict[str, Any]:
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._keep)
        return {"transport": self._transport, "limits": limits, "follow_redirects": False}


class Doors(Backend):
    """Does the steps of a flow over HTTP; requests are `Exchange`s, answers `Received`s, streams `Body`s.

    Args:
        pool: the connections.
        stop: where it is set, nothing more is sent, and a wait ends at once.
    """

    def __init__(self, pool: Pool, stop: threading.Event | None = None) -> None:
        self.pool = pool
        self._stop = threading.Event() if stop is None else stop

    def sleep(self, seconds: float) -> None:
        """Wait, unless it is stopped."""
        if self._stop.wait(seconds):
            raise CancelledError

    def send(self, request: Any) -> Any:
        """Send once and return the whole answer (a `Received`), or raise a ProviderError."""
        trip = Trip(request)
        with trip.judged():
            response = self._sent(trip)
            try:
                for data in response.iter_bytes():
                    trip.take(data)
            finally:
                response.close()
        return trip.received(response)

    async def asend(self, request: Any) -> Any:
        """Do the same, awaited."""
        trip = Trip(request)
        with trip.judged():
            response = await self._asent(trip)
            try:
                async for data in response.aiter_bytes():
                    trip.take(data)
            finally:
                await response.aclose()
        return trip.received(response)

    def open(self, request: Any) -> Any:
        """Send once and return the open answer (a `Body`), or raise a ProviderError."""
        trip = Trip(request)
        with trip.judged():
            response = self._sent(trip)
            if response.is_success:
                return Body(response, trip)
            try:
                trip.take(response.read())
            finally:
                response.close()
        return trip.received(response)

    async def aopen(self, request: Any) -> Any:
        """Do the same, awaited."""
        trip = Trip(request)
        with trip.judged():
            response = await self._asent(trip)
            if response.is_success:
                return Body(response, trip)
            try:
                trip.take(await response.aread())
            finally:
                await response.aclose()
        return trip.received(response)

    def _sent(self, trip: Trip) -> httpx.Response:
        if self._stop.is_set():
            raise CancelledError
        client = self.pool.blocking()
        response = client.send(self._built(client, trip), stream=True)
        trip.answered()
        return response

    async def _asent(self, trip: Trip) -> httpx.Response:
        client = await self.pool.of_this_loop()
        response = await client.send(self._built(client, trip), stream=True)
        trip.answered()
        return response

    def _built(self, client: Any, trip: Trip) -> httpx.Request:
        import httpx

        request: httpx.Request = client.build_request(
            **trip.arguments(), timeout=httpx.Timeout(trip.exchange.timeout_s, pool=None)
        )
        return request


async def _close_with_loop(client: httpx.AsyncClient) -> AsyncGenerator[None, None]:
    """Wait for the end of the loop: `asyncio.run` closes the generators that are still open, this one too."""
    try:
        yield
    finally:
        await client.aclose()
