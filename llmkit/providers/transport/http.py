"""What one HTTP exchange is: a request, an open answer, the limits of both, and what can go wrong with them.

Nothing in this module sends. `providers.blocking` and `providers.awaited` do, and nothing else in llmkit.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
import zlib
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass_environment  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_BODY_BYTES = 64 * 1024 * 1024
"""An answer may have so many bytes, unpacked."""
MAX_EVENT_BYTES = 8 * 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024
KEEP_ALIVE_S = 30.0
"""An idle connection is kept for so long."""
ACCEPTED_ENCODINGS = "gzip, deflate"
_REFUSED = 300
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class TransportError(Exception):
    """Something went wrong on the way; the classes below say what."""


class ConnectError(TransportError):
    """No connection could be made; nothing was sent."""


class BrokenConnectionError(TransportError):
    """The connection broke before the whole answer had come."""


class DeadlineError(TransportError):
    """The answer, or the next part of it, did not come in time."""


class MalformedResponseError(TransportError):
    """The answer is larger than allowed, or is not what it says it is."""


class MalformedStreamError(MalformedResponseError):
    """A server-sent event carries something that is not JSON."""


class StreamedRefusalError(TransportError):
    """An event of the stream says that the provider failed; `refusal` is what it says."""

    def __init__(self, refusal: Any) -> None:
        super().__init__("the stream says that the provider failed")
        self.refusal = refusal


class UnsupportedProxyError(TransportError):
    """The environment names a proxy that is neither HTTP nor HTTPS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request, ready to be sent.

    Attributes:
        headers: pairs of name and value; `host` and `content-length` are added.
        timeout_s: seconds within which the whole answer must have come, or each part of it where *in_parts*.
        in_parts: the answer is read as it comes, so that the timeout bounds each silence and not the whole.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout_s: float | None = 600.0
    in_parts: bool = False


def too_late(request: HttpRequest, where: str, *, begun: bool = False) -> DeadlineError:
    """Return the error for an answer that did not come in time; *begun* where a part of it did."""
    if begun and request.in_parts:
        return DeadlineError(f"nothing more came from {where} within {request.timeout_s:g} s")
    what = "complete answer" if begun else "answer"
    return DeadlineError(f"no {what} from {where} within {request.timeout_s:g} s")


class Clock:
    """How much time is left for a request."""

    def __init__(self, request: HttpRequest) -> None:
        self._timeout_s = request.timeout_s
        self._ends = None if request.in_parts or request.timeout_s is None else time.monotonic() + request.timeout_s
        self.started = time.monotonic()

    def left_s(self) -> float | None:
        """Return the seconds left for the next part; None for as many as it takes.

        Raises:
            DeadlineError: there are none.
        """
        if self._ends is None:
            return self._timeout_s
        left = self._ends - time.monotonic()
        if left <= 0:
            raise DeadlineError
        return left


@dataclass
class Wire:
    """What one attempt did on the wire: errors are judged by this and not by what a library makes of it.

    Attributes:
        timeout_s: seconds for the whole answer; None where each silence is bounded instead.
        requests: HTTP requests sent, and attempted connections.
        origin: scheme, host and port of the last one.
        status: HTTP status of the answer; None while there is none.
        headers: the answer's headers, names in lower case.
        parts: the body so far, unpacked, where it is no event stream.
        fault: what went wrong.
        seen: false where a library used connections of its own; the rest then says nothing.
        reason: the words beside the status.
        json_events: whether an event that is not JSON is a fault.
    """

    timeout_s: float | None = None
    requests: int = 0
    origin: str = ""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    fault: TransportError | None = None
    seen: bool = False
    reason: str = ""
    json_events: bool = True
    close: Callable[[], Any] | None = None

    @property
    def failed_status(self) -> int | None:
        """The HTTP status of a refusal, None when there was an answer or none at all."""
        return self.status if self.status is not None and self.status >= _REFUSED else None

    @property
    def redirects_to(self) -> str:
        """Where a redirect points, without its query; "" for what is none."""
        target = self.headers.get("location", "") if self.failed_status in _REDIRECTS else ""
        return urljoin(self.origin, target).partition("?")[0] if target else ""

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer says that it is a stream of events."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"

    @property
    def data(self) -> Any:
        """The body as JSON as far as it has come; None where it is none, and for event streams."""
        try:
            return json.loads(b"".join(self.parts)) if self.parts else None
        except (ValueError, RecursionError):
            return None

    def sent(self, url: str) -> None:
        """Note that a request is about to be sent."""
        self.requests += 1
        self.origin = origin(url)
        self.status, self.headers, self.parts = None, {}, []

    def answered(self, status: int, headers: Sequence[tuple[str, str]], reason: str = "") -> None:
        """Note the head of an answer."""
        self.status, self.reason = status, reason
        self.headers = {name.lower(): value for name, value in headers}

    def failed(self, error: TransportError) -> TransportError:
        """Note what went wrong, and return it."""
        self.fault = error
        return error


_wire: ContextVar[Wire | None] = ContextVar("llmkit_wire", default=None)


def watching() -> Wire | None:
    """Return the wire of the attempt that this context is in."""
    return _wire.get()


@contextmanager
def watched(wire: Wire) -> Iterator[None]:
    """Let *wire* record what libraries send in this context."""
    token = _wire.set(wire)
    try:
        yield
    finally:
        _wire.reset(token)


class BodyReader:
    """Unpacks and bounds an answer as it comes, and looks at it in passing."""

    def __init__(self, headers: Sequence[tuple[str, str]], wire: Wire) -> None:
        encoding = next((value.strip().lower() for name, value in headers if name.lower() == "content-encoding"), "")
        self._unpack = _decompressor(encoding)
        self._wire = wire
        self._events = EventLines() if wire.is_event_stream and wire.json_events else None
        self._size = 0

    def take(self, data: bytes) -> Iterator[bytes]:
        """Yield what *data* says, unpacked, up to the first fault.

        Raises:
            MalformedResponseError: it is too large, cannot be unpacked, or an event is not JSON.
        """
        for part in self._unpacked(data):
            self._size += len(part)
            if self._events is None:
                if self._size > MAX_BODY_BYTES:
                    raise MalformedResponseError(f"the answer has more than {MAX_BODY_BYTES // 2**20} MB")
                self._wire.parts.append(part)
                yield part
            else:
                good = self._events.check(part)
                if good:
                    yield part[:good]
                if self._events.fault is not None:
                    raise self._events.fault

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        if self._unpack is None:
            yield data
            return
        try:
            while data:
                part = self._unpack.decompress(data, MAX_EVENT_BYTES)
                data = self._unpack.unconsumed_tail
                if part:
                    yield part
        except zlib.error as error:
            raise MalformedResponseError(f"the answer cannot be unpacked: {error}") from error


class EventLines:
    """Looks at the `data:` lines of an event stream: what is no JSON is a fault, and so is a provider's error."""

    def __init__(self) -> None:
        self._rest = b""
        self.fault: TransportError | None = None

    def check(self, data: bytes) -> int:
        """Look at more bytes; return how many of them come before a fault."""
        before = len(self._rest)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            self.fault = MalformedStreamError(f"an event of the stream has more than {MAX_EVENT_BYTES // 2**20} MB")
            return 0
        good = 0
        for line in lines:
            text = line[5:].strip() if line.startswith(b"data:") else b""
            if text and text != b"[DONE]":
                self.fault = _fault_of(text)
                if self.fault is not None:
                    return max(0, good - before)
            good += len(line) + 1
        return len(data)


def _fault_of(text: bytes) -> TransportError | None:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return MalformedStreamError(f"a chunk of the stream is not JSON: {text[:80]!r}")
    return StreamedRefusalError(event["error"]) if isinstance(event, dict) and event.get("error") else None


def _decompressor(encoding: str) -> Any:
    if encoding in {"", "identity"}:
        return None
    if encoding == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if encoding == "deflate":
        return zlib.decompressobj()
    raise MalformedResponseError(f"the answer is packed with {encoding!r}, which was not asked for")


def origin(url: str) -> str:
    """Return scheme, host and port; without the port where it is the scheme's usual one."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = parts.port is None or parts.port == _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}" if usual else f"{parts.scheme}://{host}:{parts.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `authorization` is the header that it wants, "" for none."""

    url: str
    host: str
    port: int
    is_tls: bool
    authorization: str = field(default="", repr=False)


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy that the environment names for *url*; None for a direct connection.

    Raises:
        UnsupportedProxyError: it is no HTTP proxy.
    """
    values = tuple(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXY_VARIABLES)
    parts = urlsplit(url)
    return _proxy(values, parts.scheme, parts.hostname or "", parts.port)


@lru_cache(maxsize=256)
def _proxy(_values: tuple[str | None, ...], scheme: str, host: str, port: int | None) -> Proxy | None:
    if _is_loopback(host):
        return None
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    if not found or proxy_bypass_environment(host if port is None else f"{host}:{port}", proxies):
        return None
    parts = urlsplit(found if "://" in found else f"http://{found}")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UnsupportedProxyError(f"a {parts.scheme or 'nameless'} proxy")
    token = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = "Basic " + base64.b64encode(pair.encode()).decode()
    where = parts.hostname, parts.port or _PORTS[parts.scheme]
    return Proxy(f"{parts.scheme}://{where[0]}:{where[1]}", *where, parts.scheme == "https", token)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(verify: bool | str = True) -> ssl.SSLContext:  # noqa: FBT001, FBT002 - as LiteLLM's setting has it
    """Return how certificates are checked: by `SSL_CERT_FILE` and `SSL_CERT_DIR`, else by certifi's and the system's.

    *verify* is False for not at all, or the path of other certificates.
    """
    return _tls_context(verify, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=8)
def _tls_context(verify: bool | str, file: str | None, folder: str | None) -> ssl.SSLContext:  # noqa: FBT001
    if isinstance(verify, str):
        is_folder = os.path.isdir(verify)  # noqa: PTH112 - a path as the setting has it
        file, folder = (None, verify) if is_folder else (verify, None)
    if file or folder:
        context = ssl.create_default_context(cafile=file, capath=folder)
    else:
        context = ssl.create_default_context()
        import certifi  # comes with LiteLLM; 10 ms that plain HTTP does not need

        context.load_verify_locations(cafile=certifi.where())
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
