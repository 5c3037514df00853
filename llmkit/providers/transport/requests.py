"""A request to an HTTP endpoint: its address, what of it goes where, and what its failures mean.

A token goes to the address it was meant for and nowhere else: redirects are refused. Nothing in this module sends
anything; `llmkit.providers.transport.doors` does.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from random import random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urljoin, urlsplit, urlunsplit

from llmkit.core.secrets import redact
from llmkit.core.types import Send, Sleep
from llmkit.errors import (
    APIConnectionError,
    IncompleteStreamError,
    InvalidRequestError,
    ProviderError,
    ResponseError,
    Timeout,
)
from llmkit.providers.failures import class_of, reason_of, retry_after_s
from llmkit.providers.transport.events import StreamFaultError, charset, read_json, reason
from llmkit.providers.transport.http import origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from llmkit.core.retry import Retry
    from llmkit.core.types import Flow, Open
    from llmkit.providers.transport.events import Pieces

_SHORTEST_SECRET = 4  # a shorter one stands in words that have nothing to do with it
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request, ready to be sent.

    Attributes:
        body: what is sent as JSON; None for no body, also possible with GET.
        timeout_s: for the whole answer; in a stream for each silence.
        secrets: what no message may repeat, beside the token.
        wanted_header: an answer that has this header is one, whatever its status.
        key_header: the header that has the token; as a bearer's where it is "authorization".
        ends_itself: a stream says when it is complete; without that it was cut.
    """

    method: str
    url: str
    body: Mapping[str, Any] | None = None
    token: str = field(default="", repr=False)
    timeout_s: float = 60.0
    secrets: tuple[str, ...] = field(default=(), repr=False)
    wanted_header: str = ""
    key_header: str = "authorization"
    ends_itself: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A whole answer as it came; `elapsed_s` is counted from sending the request to the last byte."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    elapsed_s: float

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode(charset(self.headers.get("content-type", "")), "replace")

    @property
    def data(self) -> Any:
        """The body as JSON, None where it is none."""
        text = self.text
        is_json = "json" in self.headers.get("content-type", "") or text.lstrip()[:1] in {"{", "["}
        return read_json(text) if is_json else None


def endpoint_url(url: Any, name: str = "api_url") -> str:
    """Return *url* with a slash at the end of its path, so that both ways to write it are the same address.

    Raises:
        InvalidRequestError: it is no http(s) address with a host, or has a password in it.
    """
    if not isinstance(url, str) or not url.strip():
        raise InvalidRequestError(f"{name} must be an address such as https://host/model/, not {url!r}")
    try:
        parts = urlsplit(url.strip())
        known = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        known = None
    told = url.strip().partition("?")[0].rpartition("@")[2]
    if not known or any(char.isspace() for char in parts.netloc + parts.path):
        raise InvalidRequestError(f"{name} must begin with https:// (or http://) and a host: {told!r}")
    if "@" in parts.netloc:
        raise InvalidRequestError(f"{name} must not have a user or password in it: {told!r}")
    path = parts.path if parts.path.endswith("/") else f"{parts.path}/"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def with_query(url: str, query: str) -> str:
    """Return *url* with *query* added to the one it has."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=f"{parts.query}&{query}" if parts.query else query))


def shown(url: str) -> str:
    """Return *url* as messages may have it: without the query, which can hold secrets."""
    return origin(url) + urlsplit(url).path


def header_text(name: str, text: Any) -> str:
    """Return a token or key that can stand in a header, or raise an InvalidRequestError that does not repeat it."""
    if not isinstance(text, str) or not (stripped := text.strip()):
        raise InvalidRequestError(f"{name} must be a text that is not empty, not {type(text).__name__}")
    if not (stripped.isascii() and stripped.isprintable()) or " " in stripped:
        raise InvalidRequestError(f"{name} has characters that cannot stand in a header")
    return stripped


def retried(exchange: Exchange, retry: Retry, step: type[Send | Open] = Send) -> Flow[Any]:
    """Send; where another try can help, wait and send again."""
    sent: Any = exchange
    spent_s = 0.0
    for attempt in count(1):
        try:
            return (yield step(sent))
        except ProviderError as error:
            spent_s += error.elapsed_s
            wait_s = retry.wait_s(attempt, error, spent_s=spent_s, chance=random())  # noqa: S311 - spreads load
            if wait_s is None:
                raise
        yield Sleep(wait_s)
        spent_s += wait_s
    raise AssertionError("count() does not end")


class Trip:
    """One request on its way: what is sent next, what has come, and what a failure means."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.pieces: Pieces | None = None  # set where the answer is read as a stream
        self._url = exchange.url
        self._started = time.monotonic()
        self._body: list[bytes] = []
        self._answered = False

    def arguments(self) -> dict[str, Any]:
        """Return the request in httpx's words."""
        exchange = self.exchange
        shown_as = f"Bearer {exchange.token}" if exchange.key_header == "authorization" else exchange.token
        headers = {exchange.key_header: shown_as} if exchange.token else {}
        content = None
        if exchange.body is not None:
            content = json.dumps(exchange.body).encode()
            headers["content-type"] = "application/json"
        return {"method": exchange.method, "url": self._url, "headers": headers, "content": content}

    def answered(self) -> None:
        """Note that the head of an answer has come."""
        self._answered = True

    def take(self, data: bytes) -> None:
        """Take a part of the body, as long as there is time."""
        self._body.append(data)
        if self.elapsed_s > self.exchange.timeout_s:
            raise self._failure(Timeout, f"no complete answer within {self.exchange.timeout_s:g} s")

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request was first sent."""
        return time.monotonic() - self._started

    def received(self, response: httpx.Response) -> Received:
        """Return the whole answer, or raise what its status means."""
        found = Received(response.status_code, response.headers, b"".join(self._body), self.elapsed_s)
        if response.is_success or self.exchange.wanted_header in response.headers:
            return found
        status, told = found.status_code, reason(found.text) or response.reason_phrase or "no reason given"
        if target := self._target(response):
            told = f"it redirects to {shown(target)}, which is not followed; use that address where it is the right one"
        kind = class_of(status)
        raise self._failure(kind, told, status_code=status, retry_after_s=retry_after_s(response.headers))

    def _target(self, response: httpx.Response) -> str | None:
        """Return where a redirect leads, None for what is none and for addresses that cannot be read."""
        if not response.has_redirect_location:
            return None
        try:
            target = urljoin(self._url, response.headers["location"])
            return target if origin(target) and urlsplit(target).hostname else None
        except ValueError:
            return None

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Turn httpx's errors into ours."""
        import httpx

        broken = IncompleteStreamError if self.pieces is not None else APIConnectionError
        try:
            yield
        except httpx.TimeoutException as error:
            raise self._failure(Timeout, f"no answer within {self.exchange.timeout_s:g} s") from error
        except httpx.DecodingError as error:
            raise self._failure(ResponseError, f"the answer cannot be decompressed: {error}") from error
        except httpx.InvalidURL as error:
            raise InvalidRequestError(f"{shown(self._url)}: {error}") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            what = "the connection broke in the middle of the answer" if self._answered else "no connection"
            raise self._failure(broken, f"{what}: {reason_of(error)}") from error
        except StreamFaultError as error:
            raise self._failure(broken, f"the stream stopped: {error}") from error

    def _failure(self, kind: type[ProviderError], told: str, **known: Any) -> ProviderError:
        secrets = [text for text in (self.exchange.token, *self.exchange.secrets) if len(text) >= _SHORTEST_SECRET]
        for secret in sorted(secrets, key=len, reverse=True):
            for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote_plus(secret)):
                told = told.replace(form, "[key]")
        partial = self.pieces.text if self.pieces is not None else ""
        return kind(f"{shown(self._url)}: {redact(told)}", partial=partial, elapsed_s=self.elapsed_s, **known)
