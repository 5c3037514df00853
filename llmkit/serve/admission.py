"""What every request passes before it is looked at: the key, the body, a place to be worked on, and the clock.

In this order: a request without a key costs nothing but its head, and one whose body is slow takes nobody's place.
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
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers

from llmkit.serve._errors import ServeError
from llmkit.serve.auth import path_of
from llmkit.serve.body import check_body
from llmkit.serve.context import Visit, begin
from llmkit.serve.errors import Refusal, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from llmkit.serve.auth import Entry
    from llmkit.serve.metrics import Metrics

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("llmkit.serve")
FREE = frozenset({"/", "/health", "/metrics", "/openapi.json"})
"""Paths that answer at once, also when the server has more to do than it can."""
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_RETRY_AFTER = {"retry-after": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a server takes on.

    Attributes:
        head_bytes: of the first line and the headers of a request at the most.
        body_bytes: of one request at the most.
        head_timeout_s: seconds for a head to arrive, from the first moment of a connection or after an answer.
        body_timeout_s: seconds for a body to arrive.
        connections: at the same time; past it the one that has kept the server waiting longest is closed.
        concurrency: requests that are worked on at the same time.
        queue: requests that wait for their turn; what comes past them is refused.
        queue_timeout_s: seconds a request waits for its turn.
        request_timeout_s: seconds for a whole answer, its stream included.
        jobs: runs of the polled protocol that go on at the same time, `jobs_per_key` those of one key.
    """

    head_bytes: int = 65_536
    body_bytes: int = 10 * 1024 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    connections: int = 2048
    concurrency: int = 64
    queue: int = 256
    queue_timeout_s: float = 30.0
    request_timeout_s: float = 600.0
    jobs: int = 256
    jobs_per_key: int = 64


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
        entry: who may come in.
        limits: how much is taken on.
        metrics: where requests are counted.
    """

    def __init__(self, app: App, entry: Entry, limits: Limits, metrics: Metrics) -> None:
        self.app = app
        self.entry = entry
        self.limits = limits
        self.metrics = metrics
        self.turns = Turns(limits, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; of what fails here, no traceback leaves the server."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Passage(self, scope, send).run(receive)


class _Passage:
    """One request on its way through the gate."""

    def __init__(self, gate: Gate, scope: Scope, send: Send) -> None:
        self._headers = Headers(scope=scope)
        given = self._headers.get("x-request-id", "")
        self.visit = Visit(given if _ID.fullmatch(given) else os.urandom(12).hex())
        self._gate = gate
        self._scope = scope
        self._send = send
        self._status = 0
        self._events = False
        self._over = False
        self._why = ""
        self._clock: asyncio.TimerHandle | None = None
        self._watch: asyncio.Future[Any] | None = None

    async def run(self, receive: Receive) -> None:
        """Let the request through, and tell the client why where that is not possible."""
        begin(self.visit)
        started = time.perf_counter()
        try:
            await self._pass(receive)
        except asyncio.CancelledError:
            await self._refuse_cancelled()
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - the log has it, the client not
            await self.refuse(refusal(error, self.visit.id))
        finally:
            self._over = self.visit.gone = True
            self._set_clock(None, "")
            if self._watch is not None:
                self._watch.cancel()
            self._count(time.perf_counter() - started)

    async def _pass(self, receive: Receive) -> None:
        gate, limits = self._gate, self._gate.limits
        self.visit.caller = await gate.entry.admit(self._scope)
        self._set_clock(limits.body_timeout_s, "slow")
        body = await self._body(receive)
        if body is None:
            return
        self._set_clock(None, "")
        check_body(self._headers, body)
        self._watch = asyncio.ensure_future(receive())
        self._watch.add_done_callback(partial(self._look, asyncio.current_task()))
        if path_of(self._scope) in FREE:
            await gate.app(self._scope, _once(body, self._watch), self._sent)
            return
        await gate.turns.take()
        gate.metrics.in_flight.inc()
        try:
            self._set_clock(limits.request_timeout_s, "late")
            await gate.app(self._scope, _once(body, self._watch), self._sent)
        finally:
            gate.metrics.in_flight.dec()
            gate.turns.give()

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

    async def _refuse_cancelled(self) -> None:
        limits = self._gate.limits
        if self._why == "late":
            await self.refuse(Refusal(504, f"no whole answer within {limits.request_timeout_s:g} s", "timeout"))
        elif self._why == "slow":
            why = f"the body did not arrive within {limits.body_timeout_s:g} s"
            await self.refuse(Refusal(408, why, "request_timeout", headers={"connection": "close"}))
        elif not self._why:  # the time to finish in is over
            await self.refuse(Refusal(503, "the server stops", "server_stops", headers=dict(_RETRY_AFTER)))

    def _set_clock(self, seconds: float | None, why: str) -> None:
        """End the request in so many seconds, and not at the time that was set before."""
        if self._clock is not None:
            self._clock.cancel()
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        self._clock = None if seconds is None else loop.call_later(seconds, self._end, task, why)

    def _look(self, task: asyncio.Task[Any] | None, watch: asyncio.Future[Any]) -> None:
        if not watch.cancelled():  # as all tasks are when the server ends
            self._end(task, "gone")

    def _end(self, task: asyncio.Task[Any] | None, why: str) -> None:
        self.visit.gone |= why == "gone"
        if not self._over and not self._why and task is not None:
            self._why = why
            task.cancel()

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, None where the client is gone.

        Raises:
            ServeError: it is too large.
        """
        most = self._gate.limits.body_bytes
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        body = b""
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._why, self.visit.gone = "gone", True
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
            own = ((b"x-request-id", self.visit.id.encode()), (b"x-content-type-options", b"nosniff"))
            headers = message["headers"] = [*message.get("headers", ()), *own]
            self._events = any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over = True
        await self._send(message)

    def _count(self, seconds: float) -> None:
        """Count the request; labels are routes and served names only, never what a client made up."""
        metrics, path = self._gate.metrics, path_of(self._scope)
        route = getattr(self._scope.get("route"), "path", "") or (path if path in FREE else "other")
        status = 499 if self._why == "gone" else self._status
        metrics.requests.labels(route, self.visit.model, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)


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
