"""The one transport as an httpx transport: LiteLLM, and the OpenAI SDK under it, take an httpx client as an argument.

It imports httpx, so it is imported only when LiteLLM is about to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.request import getproxies

import httpx

from llmkit.providers.transport.addresses import TransportError, UnsupportedProxyError
from llmkit.providers.transport.http import (
    ACCEPTED_ENCODINGS,
    BrokenConnectionError,
    ConnectError,
    DeadlineError,
    HttpRequest,
    Wire,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from llmkit.providers.transport.awaited import AwaitedResponse, AwaitedTransport
    from llmkit.providers.transport.blocking import BlockingResponse, BlockingTransport

_REPLACED = frozenset({"accept-encoding", "connection"})
_UNPACKED = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class BlockingShim(httpx.BaseTransport):
    """Sends the requests of an `httpx.Client`."""

    def __init__(self, transport: BlockingTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send once."""
        wire = watching() or Wire()
        try:
            response = self._transport.open(_http_request(request, wire, request.read()), wire)
        except UnsupportedProxyError:
            wire.fault = None
            return httpx.HTTPTransport(proxy=_socks_proxy(request)).handle_request(request)
        except TransportError as error:
            raise _translated(error, request) from error
        return _answer(request, response.status, response.headers, _BlockingBody(response, request))


class AwaitedShim(httpx.AsyncBaseTransport):
    """Sends the requests of an `httpx.AsyncClient`."""

    def __init__(self, transport: AwaitedTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send once."""
        wire = watching() or Wire()
        try:
            response = await self._transport.open(_http_request(request, wire, await request.aread()), wire)
        except UnsupportedProxyError:
            wire.fault = None
            return await httpx.AsyncHTTPTransport(proxy=_socks_proxy(request)).handle_async_request(request)
        except TransportError as error:
            raise _translated(error, request) from error
        return _answer(request, response.status, response.headers, _AwaitedBody(response, request))


class _BlockingBody(httpx.SyncByteStream):
    def __init__(self, response: BlockingResponse, request: httpx.Request) -> None:
        self._response, self._request = response, request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response
        except TransportError as error:
            raise _translated(error, self._request) from error

    def close(self) -> None:
        self._response.close()


class _AwaitedBody(httpx.AsyncByteStream):
    def __init__(self, response: AwaitedResponse, request: httpx.Request) -> None:
        self._response, self._request = response, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._response:
                yield part
        except TransportError as error:
            raise _translated(error, self._request) from error

    async def aclose(self) -> None:
        self._response.close()


def _http_request(request: httpx.Request, wire: Wire, body: bytes) -> HttpRequest:
    """Return an httpx request as ours; the wire sets the limit for a whole answer, else httpx the one for a part."""
    headers = [(name, value) for name, value in request.headers.items() if name not in _REPLACED]
    silence_s = (request.extensions.get("timeout") or {}).get("read")
    return HttpRequest(
        method=request.method,
        url=str(request.url),
        headers=[*headers, ("accept-encoding", ACCEPTED_ENCODINGS)],
        body=body,
        timeout_s=silence_s if wire.timeout_s is None else wire.timeout_s,
        in_parts=wire.timeout_s is None,
    )


def _answer(
    request: httpx.Request,
    status: int,
    headers: Sequence[tuple[str, str]],
    stream: httpx.SyncByteStream | httpx.AsyncByteStream,
) -> httpx.Response:
    """Return our response as httpx's, with the headers that still apply to a decompressed body."""
    kept = [(name, value) for name, value in headers if name.lower() not in _UNPACKED]
    return httpx.Response(status, headers=kept, stream=stream, request=request)


def _translated(error: TransportError, request: httpx.Request) -> httpx.TransportError:
    kinds: tuple[tuple[type[TransportError], type[httpx.TransportError]], ...] = (
        (DeadlineError, httpx.ReadTimeout),
        (ConnectError, httpx.ConnectError),
        (BrokenConnectionError, httpx.ReadError),
    )
    kind = next((theirs for ours, theirs in kinds if isinstance(error, ours)), httpx.RemoteProtocolError)
    return kind(str(error), request=request)


def _socks_proxy(request: httpx.Request) -> str:
    """Return the proxy that only httpx can use: it speaks SOCKS if the package socksio is installed."""
    proxies = getproxies()
    return proxies.get(request.url.scheme) or proxies["all"]
