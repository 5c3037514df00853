"""One HTTP exchange: the request, the open answer, the limits of both, and the errors.

Nothing in this module sends; the transports do, and nothing else in llmkit.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from llmkit.providers.transport.addresses import TransportError, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The largest answer in bytes, decompressed."""
MAX_EVENT_BYTES = 8 * 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024
KEEP_ALIVE_S = 30.0
"""How long an idle connection is kept."""
ACCEPTED_ENCODINGS = "gzip, deflate"
_LONGEST_S = 24 * 86_400.0
"""The longest time for an answer: a socket waits no more than 2**31 ms."""
_REFUSED = 300
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class ConnectError(TransportError):
    """No connection could be made; nothing was sent."""


class BrokenConnectionError(TransportError):
    """The connection broke before the whole answer had arrived."""


class DeadlineError(TransportError):
    """The answer, or the next part of it, did not arrive in time."""


class MalformedResponseError(TransportError):
    """The answer is larger than allowed, or is not what it claims to be."""


class MalformedStreamError(MalformedResponseError):
    """A server-sent event carries something that is not JSON."""


class StreamedRefusalError(TransportError):
    """An event of the stream reports a failure of the provider; `refusal` has its content."""

    def __init__(self, refusal: Any) -> None:
        super().__init__("the stream says that the provider failed")
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request, ready to be sent.

    Attributes:
        headers: pairs of name and value; `host` and `content-length` are added.
        timeout_s: seconds for the whole answer, or for each part of it if *in_parts*.
        in_parts: whether the answer is read as it arrives, so that the timeout applies to each silence.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout_s: float | None = 600.0
    in_parts: bool = False


def too_late(request: HttpRequest, where: str, *, begun: bool = False) -> DeadlineError:
    """Return the error for an answer that did not arrive in time; *begun* if a part of it did."""
    if begun and request.in_parts:
        return DeadlineError(f"nothing more came from {where} within {request.timeout_s:g} s")
    what = "complete answer" if begun else "answer"
    return DeadlineError(f"no {what} from {where} within {request.timeout_s:g} s")


class Clock:
    """The time left for a request."""

    def __init__(self, request: HttpRequest) -> None:
        limit_s = self._timeout_s = None if request.timeout_s is None else min(request.timeout_s, _LONGEST_S)
        self._ends = None if request.in_parts or limit_s is None else time.monotonic() + limit_s
        self.started = time.monotonic()

    def left_s(self) -> float | None:
        """Return the seconds left for the next part, or None for no limit.

        Raises:
            DeadlineError: no time is left.
        """
        if self._ends is None:
            return self._timeout_s
        left = self._ends - time.monotonic()
        if left <= 0:
            raise DeadlineError
        return left


@dataclass
class Wire:
    """A record of one attempt on the wire: errors are judged by this, not by what a library makes of it.

    Attributes:
        timeout_s: seconds for the whole answer, or None if each silence is limited instead.
        requests: HTTP requests sent, and attempted connections.
        is_open: whether there was a connection, over which a request may have arrived.
        origin: scheme, host and port of the last one.
        status: HTTP status of the answer, or None while there is none.
        headers: the answer's headers, names in lower case.
        parts: the body so far, decompressed, unless it is an event stream.
        fault: what went wrong.
        seen: false if a library used connections of its own; the rest then says nothing.
        reason: the words next to the status.
        json_events: whether an event that is not JSON is a fault.
        model, finish_reason: what the events of a stream in OpenAI's, Anthropic's or Google's format say of themselves,
            "" while they do not; libraries replace the first, and make up the second.
        counts: the tokens that a stream in Anthropic's format has counted.
        is_familiar: whether the stream is in one of these formats.
        events: the `EventReader` of who takes the events of a stream; None if they are only checked in passing.
    """

    timeout_s: float | None = None
    requests: int = 0
    is_open: bool = False
    origin: str = ""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    fault: TransportError | None = None
    seen: bool = False
    reason: str = ""
    json_events: bool = True
    model: str = ""
    finish_reason: str = ""
    counts: dict[str, Any] = field(default_factory=dict)
    is_familiar: bool = False
    events: Any = None
    close: Callable[[], Any] | None = None

    @property
    def failed_status(self) -> int | None:
        """The HTTP status of a refusal, or None if the request succeeded or there was no answer."""
        return self.status if self.status is not None and self.status >= _REFUSED else None

    @property
    def redirects_to(self) -> str:
        """The target of a redirect, without its query, or "" if there is none."""
        target = self.headers.get("location", "") if self.failed_status in _REDIRECTS else ""
        return urljoin(self.origin, target).partition("?")[0] if target else ""

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer says that it is a stream of events."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"

    @property
    def data(self) -> Any:
        """The body so far as JSON, or None if it is not JSON, and for event streams."""
        try:
            return json.loads(b"".join(self.parts)) if self.parts else None
        except (ValueError, RecursionError):
            return None

    def saw(self, event: Any) -> None:
        """Note what an event of a stream says of the whole."""
        if not isinstance(event, dict):
            return
        if isinstance(choices := event.get("choices"), list):
            self.is_familiar = True
            self.model = self.model or _text(event.get("model"))
            for choice in choices:
                if isinstance(choice, dict):
                    self.finish_reason = self.finish_reason or _text(choice.get("finish_reason"))
        elif event.get("type") in _OF_MESSAGES:
            self.is_familiar = True
            message, delta = _mapping(event.get("message")), _mapping(event.get("delta"))
            self.model = self.model or _text(message.get("model"))
            self.finish_reason = self.finish_reason or _text(delta.get("stop_reason"))
            self.counts |= _mapping(message.get("usage")) | _mapping(event.get("usage"))
        elif event.keys() & _OF_GOOGLE:
            self.is_familiar = True
            self.model = self.model or _text(event.get("modelVersion")).partition("@")[0]
            said = candidates if isinstance(candidates := event.get("candidates"), list) else []
            reasons = [_mapping(each).get("finishReason") for each in said]
            for reason in (*reasons, _mapping(event.get("promptFeedback")).get("blockReason")):
                self.finish_reason = self.finish_reason or _text(reason)

    def sent(self, url: str) -> None:
        """Record that a request is about to be sent."""
        self.requests += 1
        self.origin = origin(url)
        self.status, self.headers, self.parts = None, {}, []

    def answered(self, status: int, headers: Sequence[tuple[str, str]], reason: str = "") -> None:
        """Record the head of an answer."""
        self.status, self.reason = status, reason
        self.headers = {name.lower(): value for name, value in headers}

    def failed(self, error: TransportError) -> TransportError:
        """Record an error, and return it."""
        self.fault = error
        return error


_OF_MESSAGES = frozenset({"message_start", "message_delta"})
"""The events of Anthropic's format that say something of the whole."""
_OF_GOOGLE = frozenset({"candidates", "promptFeedback", "usageMetadata"})
"""What events of Google's format have, one of it at least."""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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
