"""uvicorn with limits and timeouts for connections that it has no setting for."""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmkit.serve.admission import LOST, Limits

if TYPE_CHECKING:
    import asyncio

    from llmkit.serve.app import Application


def server_config(app: Application, limits: Limits | None = None, **settings: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for *app*; *settings* are uvicorn's own, and win.

    uvicorn's `limit_concurrency` is not used: it refuses the honest with the slow, while here the slow are closed. Bad
    requests, and uvicorn's messages about them, are not logged.
    """
    usual: dict[str, Any] = {
        "http": partial(Connection, limits=limits or Limits(), owing={}),
        "ws": "none",
        "log_config": None,
        "log_level": "critical",
        "access_log": False,
        "server_header": False,
    }
    return uvicorn.Config(app, **{**usual, **settings})


class Connection(HttpToolsProtocol):
    """A connection with limits for the size and time of heads; of too many connections the slowest is closed.

    Args:
        limits: size and time of a head, and the number of connections.
        owing: shared by all connections: those that owe a head or a body, the longest-owing first.
        settings: uvicorn's.
    """

    def __init__(self, *, limits: Limits, owing: dict[Connection, None], **settings: Any) -> None:
        super().__init__(**settings)
        self._limits = limits
        self._owing = owing
        self._most = min(limits.connections, _files() // 2)  # the other half is for providers and the store
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._lost: asyncio.Future[Any] = self.loop.create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first head."""
        super().connection_made(cast("asyncio.Transport", _JoinedWrites(transport, self.loop)))
        self._look()
        if len(self.connections) > self._most:
            slowest = next(iter(self._owing))
            del self._owing[slowest]
            slowest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take incoming data; a head that trickles has no more time than one that does not arrive at all."""
        is_body = self.cycle is not None and self.cycle.more_body
        self._head_bytes += 0 if is_body else len(data)
        super().data_received(data)
        if self._head_bytes > self._limits.head_bytes:
            self.transport.abort()
        self._look()

    def on_headers_complete(self) -> None:
        """Measure the head, of which the last part is not counted yet, and start counting for the next.

        Raises:
            ValueError: it is too large, so the connection is gone; the parser stops at it, and nothing is handled.
        """
        size = sum(map(len, chain.from_iterable(self.headers))) + 4 * len(self.headers) + len(self.url)  # ": " and CRLF
        if size > self._limits.head_bytes:
            self.transport.abort()
            raise ValueError("the head is too large")
        super().on_headers_complete()
        cast("dict[str, Any]", self.scope)[LOST] = self._lost
        self._head_bytes = 0

    def on_message_complete(self) -> None:
        """Record that a body has arrived, even if it was answered before, and read on: the client may leave."""
        super().on_message_complete()
        self.cycle.more_body = False
        if not self.pipeline:
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._lost.set_result({"type": "http.disconnect"})
        self._stop_clock()
        self._owing.pop(self, None)

    def on_response_complete(self) -> None:
        """Start the timeout of the next head."""
        super().on_response_complete()
        self._look()

    def _look(self) -> None:
        """Run the timer while a head is owed, and record whether a head or a body is."""
        if self.transport.is_closing():
            return
        owes_head = self.cycle is None or self.cycle.response_complete
        if not owes_head:
            self._stop_clock()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.head_timeout_s, self.transport.abort)
        if owes_head or self.cycle.more_body:
            self._owing.setdefault(self, None)
        else:
            self._owing.pop(self, None)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _JoinedWrites:
    """A transport that sends together what one turn of the loop writes; uvicorn writes a head and its body apart."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send *data* at the end of this turn, with what else is written."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        """Send what is written, then close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():  # the client may have left in this turn
            self._transport.writelines(parts)


def _files() -> int:
    """Return how many files and connections this process may have open."""
    try:
        import resource
    except ImportError:  # Windows
        return 512
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft
