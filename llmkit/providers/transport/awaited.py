"""The async transport: one aiohttp session for each event loop, closed when the loop ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
import weakref
from contextvars import ContextVar
from functools import cache, lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmkit.core.fork import Lock, in_each_process
from llmkit.providers.transport.addresses import TransportError, proxy_for, tls_context
from llmkit.providers.transport.body import BodyReader
from llmkit.providers.transport.http import (
    ACCEPTED_ENCODINGS,
    KEEP_ALIVE_S,
    MAX_HEAD_BYTES,
    BrokenConnectionError,
    Clock,
    ConnectError,
    MalformedResponseError,
    too_late,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import aiohttp

    from llmkit.providers.transport.addresses import Proxy
    from llmkit.providers.transport.http import HttpRequest, Wire

_SKIPPED = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})
"""Headers that aiohttp would add; only the caller's are sent."""


_asking: ContextVar[Wire] = ContextVar("llmkit_asking")
"""The wire of who waits for a connection in this context."""


class AwaitedTransport:
    """Sends requests over connections of the running loop; loops share nothing, child processes start with none.

    Args:
        verify: how certificates are checked, see `tls_context`.
    """

    def __init__(self, verify: bool | str = True) -> None:  # noqa: FBT001, FBT002 - as LiteLLM's setting has it
        self._verify = verify
        self._lock = Lock()
        self._loops: dict[asyncio.AbstractEventLoop, _LoopSession] = {}
        in_each_process(self)
        weakref.finalize(self, _end, self._loops)  # at the latest when the process ends

    def begin_anew(self) -> None:
        """Leave the parent's connections to it; its event loops do not run in this process."""
        for session in self._loops.values():
            session.abandon()
        self._loops.clear()

    async def open(self, request: HttpRequest, wire: Wire) -> AwaitedResponse:
        """Send *request* once and return the response, whatever its status, when its headers have arrived.

        Raises:
            TransportError: there is no response; it is also `wire.fault`.
        """
        if "aiohttp" not in sys.modules:
            await asyncio.to_thread(import_module, "aiohttp")  # 0.2 s, which no loop should wait for

        clock = Clock(request)
        session = await self._session()
        wire.sent(request.url)
        asking = _asking.set(wire)
        try:
            proxy = proxy_for(request.url)
            response = await session.request(
                request.method,
                _url(request.url),
                headers=_headers(request, proxy),
                data=request.body or None,
                allow_redirects=False,
                timeout=_timeout(request, clock),
                proxy=None if proxy is None else proxy.url,
                proxy_headers=_of_proxy(proxy),
                ssl=tls_context(self._verify) if request.url.startswith("https") else True,
            )
        except TransportError as error:
            raise wire.failed(error) from error.__cause__
        except _failures() as error:
            raise wire.failed(_translated(error, request, wire)) from error
        except ValueError as error:
            raise wire.failed(TransportError(f"it cannot be sent: {error}")) from error
        finally:
            _asking.reset(asking)
        return AwaitedResponse(self, response, request, wire)

    async def aclose(self) -> None:
        """Close the running loop's connections."""
        with self._lock:
            session = self._loops.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.end.aclose()

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._loops.get(loop)
        if session is None:
            with self._lock:
                for ended in [other for other in self._loops if other.is_closed()]:
                    self._loops.pop(ended).abandon()
                self._loops[loop] = session = _LoopSession(self._loops)
            await anext(session.end)
        return session.session


def _end(loops: dict[asyncio.AbstractEventLoop, _LoopSession]) -> None:
    """Close the connections of loops that nobody ended, such as a notebook's, or of a transport that is gone."""
    for loop, session in list(loops.items()):
        with contextlib.suppress(Exception):
            if loop.is_closed():
                session.abandon()
            elif not loop.is_running():
                loop.run_until_complete(session.end.aclose())
            elif _runs_here(loop):
                _closings.add(closing := loop.create_task(session.end.aclose()))
                closing.add_done_callback(_closings.discard)
            else:
                asyncio.run_coroutine_threadsafe(session.end.aclose(), loop).result(_PATIENCE_S)


_closings: set[asyncio.Task[None]] = set()
_PATIENCE_S = 1.0


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class _LoopSession:
    """The session of one loop, and the generator whose end closes it: `asyncio.run` ends generators that are open."""

    def __init__(self, loops: dict[asyncio.AbstractEventLoop, _LoopSession]) -> None:
        import aiohttp

        connector = _connector_class()(limit=0, keepalive_timeout=KEEP_ALIVE_S)
        self.session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_SKIPPED,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
        )
        self.end = _closing(self.session, loops)

    def abandon(self) -> None:
        """Let go of connections that can no longer be closed, without complaints about them."""
        connector = self.session.connector
        if connector is not None:
            connector.is_abandoned = True  # type: ignore[attr-defined]
            self.session.detach()


async def _closing(
    session: aiohttp.ClientSession, loops: dict[asyncio.AbstractEventLoop, _LoopSession]
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        loops.pop(asyncio.get_running_loop(), None)
        await session.close()
        await asyncio.sleep(0)  # sockets are closed when the loop comes round


@cache
def _connector_class() -> Any:
    """Return aiohttp's connector, which tells a wire when it has a connection.

    It does not warn about what another process or a closed loop left open.
    """
    import aiohttp

    class Connector(aiohttp.TCPConnector):
        is_abandoned = False

        async def connect(self, *arguments: Any, **more: Any) -> Any:
            connection = await super().connect(*arguments, **more)
            _asking.get().is_open = True
            return connection

        def __del__(self, *arguments: Any) -> None:
            if not self.is_abandoned and not self._loop.is_closed():
                super().__del__(*arguments)

    return Connector


class AwaitedResponse:
    """An open response: `status`, `headers`, and the parts of its body, decompressed."""

    def __init__(
        self, transport: AwaitedTransport, response: aiohttp.ClientResponse, request: HttpRequest, wire: Wire
    ) -> None:
        self._transport = transport  # as long as somebody reads, its connections stay
        self.status = response.status
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
        wire.answered(self.status, self.headers, response.reason or "")
        wire.close = self.close
        self._response = response
        self._request = request
        self._wire = wire

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body.

        Raises:
            TransportError: the body does not arrive whole; it is also `wire.fault`.
        """
        ended = False
        try:
            if sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
                raise MalformedResponseError(f"the head of the answer has more than {MAX_HEAD_BYTES // 1024} kB")
            reader = BodyReader(self.headers, self._wire)
            while True:
                try:
                    part = await self._response.content.readany()
                except _failures() as error:
                    fault = _translated(error, self._request, self._wire, begun=True)
                    if isinstance(fault, BrokenConnectionError):
                        for unpacked in reader.take(_left(self._response.content)):
                            yield unpacked
                    raise fault from error
                if not part:
                    break
                for unpacked in reader.take(part):
                    yield unpacked
            ended = True
        except TransportError as error:
            raise self._wire.failed(error) from error.__cause__
        finally:
            if ended:
                self._wire.close = None  # or else the two would wait for the garbage collector
            else:
                self.close()

    async def aread(self) -> bytes:
        """Return the whole body."""
        return b"".join([part async for part in self])

    def close(self) -> None:
        """Close the connection, unless the body has ended."""
        self._wire.close = None
        if not self._response.closed:
            self._response.close()

    async def aclose(self) -> None:
        """Close the connection, unless the body has ended."""
        self.close()


def _left(content: Any) -> bytes:
    """Return what had arrived before a connection broke: aiohttp raises first, and returns none of it."""
    parts = getattr(content, "_buffer", ())  # there is no public way to it
    return b"".join(parts)[getattr(content, "_buffer_offset", 0) :]


@cache
def _failures() -> tuple[type[Exception], ...]:
    """Return what aiohttp raises."""
    import aiohttp

    return aiohttp.ClientError, asyncio.TimeoutError, OSError


def _translated(error: Exception, request: HttpRequest, wire: Wire, *, begun: bool = False) -> TransportError:
    """Return the transport's error for one of aiohttp's."""
    import aiohttp

    match error:
        case aiohttp.ServerTimeoutError() | TimeoutError() | asyncio.TimeoutError():
            return too_late(request, wire.origin, begun=begun)
        case aiohttp.ClientHttpProxyError():
            return ConnectError(f"the proxy refuses: {error.status} {error.message}")
        case aiohttp.ClientConnectorError():
            return ConnectError(_reason(error))
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | aiohttp.ClientOSError():
            return BrokenConnectionError(_reason(error))
        case aiohttp.ClientResponseError():
            return MalformedResponseError(f"the answer is no HTTP: {type(error).__name__}")
        case _:
            return (BrokenConnectionError if begun else ConnectError)(_reason(error))


def _reason(error: BaseException) -> str:
    system = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    if isinstance(system, ssl.SSLError):  # its number is not the operating system's
        return str(system)
    number = getattr(system, "errno", None)
    text = os.strerror(number) if isinstance(number, int) and number > 0 else getattr(system, "strerror", None)
    return text or str(error) or type(error).__name__


@lru_cache(maxsize=256)
def _url(url: str) -> Any:
    from yarl import URL  # comes with aiohttp

    return URL(url, encoded=True)


def _of_proxy(proxy: Proxy | None) -> dict[str, str]:
    return {"Proxy-Authorization": proxy.authorization} if proxy is not None and proxy.authorization else {}


def _headers(request: HttpRequest, proxy: Proxy | None) -> list[tuple[str, str]]:
    headers = [(name, value) for name, value in request.headers if name.lower() not in {"host", "content-length"}]
    if not any(name.lower() == "accept-encoding" for name, _ in headers):
        headers.append(("Accept-Encoding", ACCEPTED_ENCODINGS))
    if not request.url.startswith("https"):  # else the proxy gets them with the tunnel
        headers += _of_proxy(proxy).items()
    return headers


def _timeout(request: HttpRequest, clock: Clock) -> aiohttp.ClientTimeout:
    import aiohttp

    left_s = clock.left_s()
    if request.in_parts:
        return aiohttp.ClientTimeout(total=None, connect=left_s, sock_read=left_s)
    return aiohttp.ClientTimeout(total=left_s, ceil_threshold=60.0)
