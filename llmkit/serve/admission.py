"""What every request passes before it is handled: the key, the body, a concurrency slot, and the timeout.

In this order: a request without a key costs nothing but its head, one with a slow body takes nobody's slot, and what
is refused because the server is busy is not parsed.
Plain ASGI, and the only place that knows when a client disconnects: it then cancels what runs for it, once, so that
streams and ledger rows are closed in peace (a cancel scope of anyio's would cancel that too).
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from llmkit.core.fork import fresh_id
from llmkit.serve.auth import PAGE_FILES, path_of
from llmkit.serve.body import parsed
from llmkit.serve.context import RequestContext, enter
from llmkit.serve.errors import ServeError, to_serve_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from llmkit.serve.auth import Authenticator
    from llmkit.serve.metrics import Metrics

UNLIMITED = frozenset({"/", "/health", "/metrics", "/openapi.json"})
"""Paths that answer at once, even if the server is overloaded, and take no body."""
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
LOST = "llmkit.lost"
"""The key of a request's scope that has a future of its connection, done when that is lost; other servers have none."""
_EVENTS = b"text/event-stream"
_AS_DECLARED = (b"x-content-type-options", b"nosniff")
_RETRY_AFTER = {"retry-after": "1"}
_STATUSES = range(200, 600)
_NO_NAME = re.compile(rb"[^!#$%&'*+.^_`|~\w-]")  # of bytes: \w is ASCII
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The capacity of a server.

    Attributes:
        head_bytes: the largest first line and headers of a request.
        body_bytes: the largest body of a request.
        head_timeout_s: seconds for a head to arrive, from the start of a connection or after an answer.
        body_timeout_s: seconds for a body to arrive.
        connections: at the same time; above it the one that has kept the server waiting longest is closed.
        concurrency: requests handled at the same time.
        queue: requests that wait for a slot; further ones are refused.
        queue_timeout_s: seconds a request waits for a slot.
        request_timeout_s: seconds for a whole answer, its stream included.
        jobs: runs of the polled protocol at the same time; `jobs_per_key` those of one key.
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


class ConcurrencyLimiter:
    """A fixed number of slots, and a queue of waiting requests, first come, first served."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._places = anyio.CapacityLimiter(limits.concurrency)
        self._waiting = 0
        metrics.in_flight.set_function(lambda: self._places.borrowed_tokens)
        metrics.queued.set_function(lambda: self._waiting)

    async def acquire(self) -> object:
        """Wait for a slot, and return it.

        Raises:
            ServeError: too many are waiting already, or it took too long.
        """
        place = object()
        try:
            self._places.acquire_on_behalf_of_nowait(place)
        except anyio.WouldBlock:
            await self._wait_for(place)
        return place

    def release(self, place: object) -> None:
        """Give a slot back."""
        self._places.release_on_behalf_of(place)

    async def _wait_for(self, place: object) -> None:
        if self._waiting >= self._limits.queue:
            raise ServeError(429, "the server is busy; try again", code="server_busy", headers=_RETRY_AFTER)
        self._waiting += 1
        try:
            with anyio.fail_after(self._limits.queue_timeout_s):
                await self._places.acquire_on_behalf_of(place)
        except TimeoutError:
            why = f"the server is busy: no turn within {self._limits.queue_timeout_s:g} s"
            raise ServeError(429, why, code="server_busy", headers=_RETRY_AFTER) from None
        finally:
            self._waiting -= 1


class AdmissionMiddleware:
    """Checks and admits requests.

    Args:
        app: the application behind it.
        auth: decides who may call.
        limits: the capacity.
        metrics: counts requests.
    """

    def __init__(self, app: ASGIApp, auth: Authenticator, limits: Limits, metrics: Metrics) -> None:
        self.app = app
        self.auth = auth
        self.limits = limits
        self.metrics = metrics
        self.concurrency = ConcurrencyLimiter(limits, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; no traceback leaves the server if that fails."""
        if scope["type"] == "http":
            await _Admission(self, scope, send).run(receive)
        else:
            await self.app(scope, receive, send)


class _Admission:
    """One request on its way through the middleware."""

    def __init__(self, middleware: AdmissionMiddleware, scope: Scope, send: Send) -> None:
        self._headers = _headers_of(scope)
        given = self._headers.get("x-request-id", "")
        self.context = RequestContext(given if _ID.fullmatch(given) else fresh_id())
        self._middleware = middleware
        self._limits = middleware.limits
        self._scope = scope
        self._send = send
        self._status = 0
        self._head: list[tuple[bytes, bytes]] = []
        self._is_over = False
        self._task = asyncio.current_task()
        self._cancelled_by = ""
        self._end: Callable[[], Any] = _no_end

    async def run(self, receive: Receive) -> None:
        """Pass the request on, or tell the client why that is not possible."""
        enter(self.context)
        started = time.perf_counter()
        try:
            await self._admit(receive)
        except asyncio.CancelledError:
            await self._refuse_cancelled()
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - the log has it, the client does not
            await self._refuse(to_serve_error(error, self.context.id))
        finally:
            self._is_over = self.context.gone = True
            end, self._end = self._end, _no_end  # or else the two would wait for the garbage collector
            end()
            self._count(time.perf_counter() - started)

    async def _admit(self, receive: Receive) -> None:
        caller = self.context.caller = await self._middleware.auth.admit(self._scope, self._headers)
        path = path_of(self._scope)
        at_once = self._scope["method"] == "GET" and (path in UNLIMITED or path.startswith(PAGE_FILES))
        if at_once or caller is None:  # nothing there takes a body, so none is read
            await self._middleware.app(self._scope, _nothing, self._sent)
            return
        clock = self._deadline(self._limits.body_timeout_s, "body")
        try:
            body = await self._body(receive)
        finally:
            clock.cancel()
        if body is None:
            return
        once = _once(body, self._watched(receive))
        place = await self._middleware.concurrency.acquire()
        clock = self._deadline(self._limits.request_timeout_s, "answer")
        try:
            self.context.data = parsed(self._headers.get("content-type", ""), body)
            await self._middleware.app(self._scope, once, self._sent)
        finally:
            clock.cancel()
            self._middleware.concurrency.release(place)

    async def _refuse(self, error: ServeError) -> None:
        """Answer with an error; in the middle of a stream it is an event, any other answer is broken off."""
        if not self._status:
            try:
                await error.response()(self._scope, _nothing, self._sent)
            except Exception as failure:  # a model.py chose its status and its headers
                if self._status:
                    raise
                await to_serve_error(failure, self.context.id).response()(self._scope, _nothing, self._sent)
        elif not self._is_over and any(
            name == b"content-type" and kind.startswith(_EVENTS) for name, kind in self._head
        ):
            event = b"data: " + error.body() + b"\n\n"
            await self._send({"type": "http.response.body", "body": event})

    async def _refuse_cancelled(self) -> None:
        limits = self._limits
        if self._cancelled_by == "answer":
            await self._refuse(
                ServeError(504, f"no whole answer within {limits.request_timeout_s:g} s", code="timeout")
            )
        elif self._cancelled_by == "body":
            why = f"the body did not arrive within {limits.body_timeout_s:g} s"
            await self._refuse(ServeError(408, why, code="request_timeout", headers={"connection": "close"}))
        elif not self._cancelled_by:  # the time to finish in is over
            await self._refuse(ServeError(503, "the server stops", code="server_stops", headers=_RETRY_AFTER))

    def _deadline(self, seconds: float, name: str) -> asyncio.TimerHandle:
        """Return the clock that ends the request, unless it is cancelled before."""
        return asyncio.get_running_loop().call_later(seconds, self._cancel, name)

    def _watched(self, receive: Receive) -> asyncio.Future[Any]:
        """Return what is done when the client has left; it cancels the request then."""
        if (lost := self._scope.get(LOST)) is not None:  # of the connection, for all its requests
            lost.add_done_callback(self._client_left)
            self._end = partial(lost.remove_done_callback, self._client_left)
            return lost  # type: ignore[no-any-return]
        task: asyncio.Future[Any] = asyncio.ensure_future(receive())
        task.add_done_callback(self._client_left)
        self._end = task.cancel
        return task

    def _client_left(self, watch: asyncio.Future[Any]) -> None:
        if not watch.cancelled():  # as all tasks are when the server ends
            self.context.gone = True
            self._cancel("client")

    def _cancel(self, by: str) -> None:
        if not self._is_over and not self._cancelled_by and self._task is not None:
            self._cancelled_by = by
            self._task.cancel()

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, or None if the client is gone.

        Raises:
            ServeError: it is too large.
        """
        limit = self._limits.body_bytes
        length = self._headers.get("content-length", "0")
        declared = int(length) if length.isdigit() else 0
        parts: list[bytes] = []
        size, more = 0, declared <= limit
        while more and size <= limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                self._cancelled_by, self.context.gone = "client", True
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
        if max(size, declared) > limit:
            raise ServeError(413, f"the request is larger than {limit} bytes", code="request_too_large")
        return b"".join(parts)

    async def _sent(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {"x-request-id": self.context.id, **self.context.headers}
            added = [(name.encode(), value.encode("latin-1")) for name, value in own.items()]
            head = message["headers"] = [*message.get("headers", ()), *added, _AS_DECLARED]
            _check(message["status"], head)
            self._status, self._head = message["status"], head
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_over = True
        await self._send(message)

    def _count(self, seconds: float) -> None:
        """Count the request; labels are routes and served names only, never anything a client made up."""
        path = path_of(self._scope)
        route = self.context.route or (path if path in UNLIMITED else "other")
        status = 499 if self._cancelled_by == "client" else self._status or 500
        self._middleware.metrics.answered(route, self.context.model, status, seconds)


def _check(status: Any, head: Sequence[tuple[bytes, bytes]]) -> None:
    """Look at a head before the server that sends it does: one that fails there can be answered by nothing else.

    Raises:
        ValueError: it cannot be sent.
    """
    names, values = zip(*head, strict=True)
    if status not in _STATUSES or _NO_NAME.search(b"".join(names)) or _NO_VALUE.search(b"".join(values)):
        raise ValueError(f"an answer with the status {status!r} and these headers cannot be sent: {head!r}")


def _headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers by name, in lower case; of several with one name the first."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


def _no_end() -> None:
    pass


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _once(body: bytes, watch: asyncio.Future[Any]) -> Receive:
    """Return a `receive` that gives the body, and then waits for what the watch sees."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await asyncio.shield(watch)

    return receive
