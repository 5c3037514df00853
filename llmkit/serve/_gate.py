"""What every request passes before it is looked at: an id, a place in the queue, the limits of size and time.

Plain ASGI, and the only place that knows when a client goes away: it then cancels what runs for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmkit.serve._errors import ServeError
from llmkit.serve._metrics import Metrics, Visit, begin
from llmkit.serve._refusals import Refusal, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("llmkit.serve")
FREE = frozenset({"/", "/health", "/metrics", "/openapi.json"})
"""Paths that answer at once, also when the server has more to do than it can."""
_ID = re.compile(rb"[\w.:-]{1,64}")
_RETRY_AFTER = {"retry-after": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a server takes on.

    Attributes:
        body_bytes: of one request at the most.
        concurrency: requests that are worked on at the same time.
        queue: requests that wait for their turn; what comes past them is refused.
        queue_timeout_s: seconds a request waits for its turn.
        request_timeout_s: seconds for a whole answer, its stream included.
    """

    body_bytes: int = 10 * 1024 * 1024
    concurrency: int = 64
    queue: int = 256
    queue_timeout_s: float = 30.0
    request_timeout_s: float = 600.0


class Turns:
    """Places to work in, handed on in the order of asking."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._free = limits.concurrency
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait for a place.

        Raises:
            ServeError: too many wait already, or it took too long.
        """
        if self._free > 0:
            self._free -= 1
            return
        if len(self._waiting) >= self._limits.queue:
            raise ServeError(429, "the server is busy; try again", code="server_busy", headers=_RETRY_AFTER)
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._metrics.queued.set(len(self._waiting))
        try:
            await asyncio.wait_for(asyncio.shield(place), self._limits.queue_timeout_s)
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.give()
            else:
                place.cancel()
                self._waiting.remove(place)
            if isinstance(error, asyncio.TimeoutError):
                why = f"the server is busy: no turn within {self._limits.queue_timeout_s:g} s"
                raise ServeError(429, why, code="server_busy", headers=_RETRY_AFTER) from None
            raise
        finally:
            self._metrics.queued.set(len(self._waiting))

    def give(self) -> None:
        """Hand a place to whoever waits the longest."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1


class Gate:
    """The middleware.

    Args:
        app: what is behind it.
        limits: how much is taken on.
        metrics: where requests are counted.
    """

    def __init__(self, app: App, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._turns = Turns(limits, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; of what fails here, no traceback leaves the server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in FREE:
            await _Passage(self, scope, send).run(receive)
            return
        passage = _Passage(self, scope, send)
        try:
            await self._turns.take()
        except ServeError as error:
            await passage.refuse(refusal(error))
            return
        self._metrics.in_flight.inc()
        try:
            await passage.run(receive)
        finally:
            self._metrics.in_flight.dec()
            self._turns.give()

    async def inner(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call what is behind the gate."""
        await self._app(scope, receive, send)

    def passed(self, scope: Scope, visit: Visit, status: int, started: float) -> None:
        """Count a request that is over."""
        path = getattr(scope.get("route"), "path", "") or (scope["path"] if scope["path"] in FREE else "other")
        self._metrics.requests.labels(path, visit.model, str(status)).inc()
        self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    @property
    def limits(self) -> Limits:
        """How much is taken on."""
        return self._limits


class _Passage:
    """One request on its way through the gate."""

    def __init__(self, gate: Gate, scope: Scope, send: Send) -> None:
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        self.visit = Visit(given.decode() if _ID.fullmatch(given) else os.urandom(12).hex())
        self._gate = gate
        self._scope = scope
        self._send = send
        self._status = 0
        self._events = False
        self._over = False
        self._why = ""

    async def run(self, receive: Receive) -> None:
        """Read the body, call the app, and watch the clock and the client meanwhile."""
        begin(self.visit)
        started = time.perf_counter()
        task = asyncio.current_task()
        clock = asyncio.get_running_loop().call_later(self._gate.limits.request_timeout_s, self._end, task, "late")
        watch: asyncio.Future[Any] | None = None
        try:
            body = await self._body(receive)
            if body is None:
                return
            watch = asyncio.ensure_future(receive())
            watch.add_done_callback(lambda _: self._end(task, "gone"))
            await self._gate.inner(self._scope, _once(body, watch), self._sent)
        except asyncio.CancelledError:
            if self._why == "late":
                seconds = self._gate.limits.request_timeout_s
                await self.refuse(Refusal(504, f"no whole answer within {seconds:g} s", "timeout"))
            elif not self._why:  # the time to finish in is over
                await self.refuse(Refusal(503, "the server stops", "server_stops", headers=_RETRY_AFTER))
        except Exception as error:  # noqa: BLE001 - the client is told without the reason, the log has it
            await self.refuse(refusal(error, self.visit.id))
        finally:
            self._over = True
            clock.cancel()
            if watch is not None:
                watch.cancel()
            status = 499 if self._why == "gone" else self._status
            self._gate.passed(self._scope, self.visit, status, started)

    async def refuse(self, refused: Refusal) -> None:
        """Answer with an error; in the middle of a stream it is an event, and anything else is broken off."""
        if not self._status:
            headers = {"content-type": "application/json", **refused.headers}
            body = refused.body()
            raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
            raw.append((b"content-length", str(len(body)).encode()))
            await self._sent({"type": "http.response.start", "status": refused.status, "headers": raw})
            await self._sent({"type": "http.response.body", "body": body})
        elif self._events and not self._over:
            event = b"data: " + refused.body() + b"\n\n"
            await self._send({"type": "http.response.body", "body": event})

    def _end(self, task: asyncio.Task[Any] | None, why: str) -> None:
        if not self._over and not self._why and task is not None:
            self._why = why
            task.cancel()

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, None where the client is gone.

        Raises:
            ServeError: it is too large.
        """
        most = self._gate.limits.body_bytes
        length = dict(self._scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        body = b""
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._why = "gone"
                return None
            body = message.get("body", b"")
            size += len(body)
            if size > most:
                raise _too_large(most)
            parts.append(body)
            more = message.get("more_body", False)
        return body if len(parts) == 1 else b"".join(parts)

    async def _sent(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.visit.id.encode())]
            self._events = any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over = True
        await self._send(message)


def _once(body: bytes, watch: asyncio.Future[Any]) -> Receive:
    """Return a `receive` that gives the body, and then waits for what the watch sees."""
    given = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        message: MutableMapping[str, Any] = await asyncio.shield(watch)
        return message

    return receive


def _too_large(most: int) -> ServeError:
    return ServeError(413, f"the request is larger than {most} bytes", code="request_too_large")
