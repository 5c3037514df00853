"""The sync transport: a pool of kept connections over the standard library's sockets."""

from __future__ import annotations

import re
import select
import socket
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmkit.core.fork import Lock, in_each_process
from llmkit.providers.transport.addresses import TransportError, origin, proxy_for, tls_context
from llmkit.providers.transport.body import BodyReader
from llmkit.providers.transport.http import (
    ACCEPTED_ENCODINGS,
    KEEP_ALIVE_S,
    BrokenConnectionError,
    Clock,
    ConnectError,
    DeadlineError,
    MalformedResponseError,
    too_late,
)
from llmkit.providers.transport.http1 import Http1Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmkit.providers.transport.addresses import Proxy
    from llmkit.providers.transport.http import HttpRequest, Wire

_KEPT_FOR_EACH_ADDRESS = 64
_PART_BYTES = 64 * 1024
_UNSENDABLE = re.compile(r"[\r\n\0]|[^\0-\xff]")
Address = tuple[str, str, int, "Proxy | None"]


class BlockingTransport:
    """Sends requests over pooled connections; threads share it, child processes start with none.

    Args:
        verify: how certificates are checked, see `tls_context`.
    """

    def __init__(self, verify: bool | str = True) -> None:  # noqa: FBT001, FBT002 - as LiteLLM's setting has it
        self._verify = verify
        self._lock = Lock()
        self._idle: defaultdict[Address, list[_HttpConnection]] = defaultdict(list)
        in_each_process(self)

    def begin_anew(self) -> None:
        """Leave the parent's connections to it: closing a copy of a socket does not end the connection."""
        kept, self._idle = self._idle, defaultdict(list)
        for connections in kept.values():
            for connection in connections:
                connection.close()

    def open(self, request: HttpRequest, wire: Wire) -> BlockingResponse:
        """Send *request* once and return the response, whatever its status, when its headers have arrived.

        Raises:
            TransportError: there is no response; it is also `wire.fault`.
        """
        clock = Clock(request)
        try:
            connection = self._connection(request, clock, wire)
            wire.is_open = True
            try:
                response = connection.exchange(request, clock)
            except BaseException:
                connection.close()
                raise
        except DeadlineError as error:
            raise wire.failed(too_late(request, wire.origin)) from error.__cause__
        except TransportError as error:
            raise wire.failed(error) from error.__cause__
        return BlockingResponse(self, connection, response, request, wire)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            kept, self._idle = self._idle, defaultdict(list)
        for connections in kept.values():
            for connection in connections:
                connection.close()

    def keep(self, connection: _HttpConnection) -> None:
        """Take back a connection that can be used again."""
        connection.idle_since = time.monotonic()
        with self._lock:
            idle = self._idle[connection.address]
            if len(idle) < _KEPT_FOR_EACH_ADDRESS:
                idle.append(connection)
                return
        connection.close()

    def _connection(self, request: HttpRequest, clock: Clock, wire: Wire) -> _HttpConnection:
        parts = urlsplit(request.url)
        wire.sent(request.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = (parts.scheme, parts.hostname or "", port, proxy_for(request.url))
        while True:
            with self._lock:
                idle = self._idle.get(address)
                connection = idle.pop() if idle else None
                if not idle:
                    self._idle.pop(address, None)
            if connection is None:
                return _HttpConnection(address, clock, self._verify)
            if connection.is_usable():
                return connection
            connection.close()


class _HttpConnection:
    """One connection to an address, through its proxy if it has one."""

    def __init__(self, address: Address, clock: Clock, verify: bool | str) -> None:  # noqa: FBT001
        self.address = address
        self.idle_since = 0.0
        scheme, host, port, proxy = address
        where = (host, port) if proxy is None else (proxy.host, proxy.port)
        self._via_proxy = proxy if proxy is not None and scheme == "http" else None
        try:
            self._socket = socket.create_connection(where, clock.left_s())
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if proxy is not None and proxy.is_tls:
                    self._secure(proxy.host, verify)
                if proxy is not None and scheme == "https":
                    self._tunnel(host, port, proxy, clock)
                if scheme == "https":
                    self._secure(host, verify)
            except BaseException:
                self._socket.close()
                raise
        except TimeoutError as error:
            raise DeadlineError from error
        except (OSError, UnicodeError) as error:
            raise ConnectError(getattr(error, "strerror", None) or str(error)) from error
        self._timed = _TimedSocket(self._socket)

    def _secure(self, host: str, verify: bool | str) -> None:  # noqa: FBT001
        self._socket = tls_context(verify).wrap_socket(self._socket, server_hostname=host)

    def _tunnel(self, host: str, port: int, proxy: Proxy, clock: Clock) -> None:
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {shown} HTTP/1.1", f"Host: {shown}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        timed = _TimedSocket(self._socket)
        timed.clock = clock
        try:
            response = Http1Response(timed.receive, "HEAD")  # what follows is the tunnel
        except (BrokenConnectionError, MalformedResponseError) as error:
            raise ConnectError(f"the proxy {proxy.host} answers with something else than HTTP") from error
        if response.status != 200:  # noqa: PLR2004
            raise ConnectError(f"the proxy {proxy.host} refuses: {response.status} {response.reason}")

    def is_usable(self) -> bool:
        """Return whether an idle connection is still open: a server that says anything now has closed it."""
        if time.monotonic() - self.idle_since > KEEP_ALIVE_S:
            return False
        try:
            if hasattr(select, "poll"):
                poll = select.poll()
                poll.register(self._socket, select.POLLIN)
                return not poll.poll(0)
            return not select.select([self._socket], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def exchange(self, request: HttpRequest, clock: Clock) -> Http1Response:
        """Send a request and return the response, of which the head has arrived."""
        self._timed.clock = clock
        try:
            self._timed.send(self._head(request) + request.body)
            return Http1Response(self._timed.receive, request.method)
        except TimeoutError as error:
            raise DeadlineError from error
        except OSError as error:
            raise BrokenConnectionError(error.strerror or str(error)) from error

    def _head(self, request: HttpRequest) -> bytes:
        parts = urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        names = {name.lower() for name, _ in request.headers}
        given = (pair for pair in request.headers if pair[0].lower() != "host")  # two are no HTTP
        headers = [("Host", parts.netloc.rpartition("@")[2]), *given]
        if "accept-encoding" not in names:
            headers.append(("Accept-Encoding", ACCEPTED_ENCODINGS))
        if "content-length" not in names and (request.body or request.method in {"POST", "PUT", "PATCH"}):
            headers.append(("Content-Length", str(len(request.body))))
        if self._via_proxy is not None:
            target = origin(request.url) + target
            if self._via_proxy.authorization:
                headers.append(("Proxy-Authorization", self._via_proxy.authorization))
        for name, value in (("(address)", target), *headers):
            if _UNSENDABLE.search(name + value):
                raise TransportError(f"the header {name!r} has a character that cannot be sent")
        lines = [f"{request.method} {target} HTTP/1.1", *map(": ".join, headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class _TimedSocket:
    """A socket whose next part must arrive within the time a clock has left, however slowly bytes drip."""

    def __init__(self, connected: socket.socket) -> None:
        self.clock: Any = None
        self._socket = connected

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self.clock.left_s())
        self._socket.sendall(data)

    def receive(self) -> bytes:
        self._socket.settimeout(self.clock.left_s())
        return self._socket.recv(_PART_BYTES)


class BlockingResponse:
    """An open response: `status`, `headers`, and the parts of its body, decompressed."""

    def __init__(
        self,
        transport: BlockingTransport,
        connection: _HttpConnection,
        response: Http1Response,
        request: HttpRequest,
        wire: Wire,
    ) -> None:
        self.status = response.status
        self.headers = response.headers
        wire.answered(self.status, self.headers, response.reason)
        wire.close = self.close
        self._transport = transport
        self._connection: _HttpConnection | None = connection
        self._response = response
        self._request = request
        self._wire = wire

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body; the connection is kept if it ends as it should.

        Raises:
            TransportError: the body does not arrive whole; it is also `wire.fault`.
        """
        try:
            reader = BodyReader(self.headers, self._wire)
            while part := self._part():
                yield from reader.take(part)
        except TransportError as error:
            self.close()
            raise self._wire.failed(error) from error.__cause__
        except BaseException:
            self.close()
            raise
        self._release()

    def read(self) -> bytes:
        """Return the whole body."""
        return b"".join(self)

    def _part(self) -> bytes:
        try:
            return self._response.part()
        except (DeadlineError, TimeoutError) as error:
            raise too_late(self._request, self._wire.origin, begun=True) from error
        except OSError as error:
            raise BrokenConnectionError(error.strerror or "it was closed") from error

    def _release(self) -> None:
        connection = self._taken()
        if connection is None:
            return
        if self._response.keeps_open:
            self._transport.keep(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the connection, unless the body has ended."""
        connection = self._taken()
        if connection is not None:
            connection.close()

    def _taken(self) -> _HttpConnection | None:
        connection, self._connection = self._connection, None
        self._wire.close = None  # or else the two would wait for the garbage collector
        return connection
