"""Requests of llmkit's own protocols: their address, token and body; and their whole answers.

A token is sent to its own address and nowhere else. Nothing in this module sends anything; `client` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from random import random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from llmkit.core.types import Send, Sleep
from llmkit.errors import InvalidRequestError, ProviderError
from llmkit.providers.transport.addresses import origin
from llmkit.providers.transport.events import charset, read_json
from llmkit.providers.transport.http import HttpRequest

if TYPE_CHECKING:
    from llmkit.core.retry import Retry
    from llmkit.core.types import Flow, Open

_PORTS = {"http": 80, "https": 443}
_HEADERS = frozenset({"extra_headers", "headers"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonRequest:
    """One request, ready to be sent.

    Attributes:
        body: the JSON body, or None for no body; possible with GET too.
        timeout_s: seconds for the whole answer; for a stream, for each silence.
        secrets: what no message may repeat, in addition to the token.
        wanted_header: a response with this header is an answer, whatever its status.
        key_header: the header for the token; "authorization" makes it a bearer token.
        ends_itself: whether a stream says when it is complete, and was cut if it does not.
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

    def http(self, *, in_parts: bool) -> HttpRequest:
        """Return the HTTP request to send; *in_parts* if its answer is read as it arrives."""
        shown_as = f"Bearer {self.token}" if self.key_header == "authorization" else self.token
        headers = [(self.key_header, shown_as)] if self.token else []
        body = b""
        if self.body is not None:
            body = json.dumps(self.body).encode()
            headers.append(("content-type", "application/json"))
        return HttpRequest(
            method=self.method,
            url=self.url,
            headers=headers,
            body=body,
            timeout_s=self.timeout_s,
            in_parts=in_parts,
        )


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer; `elapsed_s` is counted from sending the request to the last byte."""

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
        """The body as JSON, or None if it is not JSON."""
        text = self.text
        is_json = "json" in self.headers.get("content-type", "") or text.lstrip()[:1] in {"{", "["}
        return read_json(text) if is_json else None


def endpoint_url(url: Any, name: str = "api_url") -> str:
    """Return *url* with a slash at the end of its path, so that both spellings are the same address.

    Raises:
        InvalidRequestError: it is not an http(s) address with a host, or has a password in it.
    """
    if not isinstance(url, str) or not url.strip():
        raise InvalidRequestError(f"{name} must be an address such as https://host/model/, not {url!r}")
    try:
        parts = urlsplit(url.strip())
        known = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        known = None
    shown_url = url.strip().partition("?")[0].rpartition("@")[2]
    if not known or any(char.isspace() for char in parts.netloc + parts.path):
        raise InvalidRequestError(f"{name} must begin with https:// (or http://) and a host: {shown_url!r}")
    if "@" in parts.netloc:
        raise InvalidRequestError(f"{name} must not have a user or password in it: {shown_url!r}")
    path = parts.path if parts.path.endswith("/") else f"{parts.path}/"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def with_query(url: str, query: str) -> str:
    """Return *url* with *query* added to the one it has."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=f"{parts.query}&{query}" if parts.query else query))


def shown(url: str) -> str:
    """Return *url* for messages: without the query, which can hold secrets."""
    return origin(url) + urlsplit(url).path


def header_text(name: str, text: Any) -> str:
    """Return a token or key that is valid in a header, or raise an InvalidRequestError that does not repeat it."""
    if not isinstance(text, str) or not (stripped := text.strip()):
        raise InvalidRequestError(f"{name} must be a text that is not empty, not {type(text).__name__}")
    if not (stripped.isascii() and stripped.isprintable()) or " " in stripped:
        raise InvalidRequestError(f"{name} has characters that cannot stand in a header")
    return stripped


def check_headers(params: Mapping[str, Any]) -> None:
    """Check that the headers among a call's parameters can be sent; the name of one that cannot is told, no value."""
    for param in _HEADERS & params.keys():
        if (headers := params[param]) is None:
            continue
        if not isinstance(headers, Mapping):
            raise InvalidRequestError(f"{param} must be a mapping of headers, not {type(headers).__name__}")
        for name, text in headers.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InvalidRequestError(f"{param}: {name!r:.80} cannot be the name of a header")
            check_header(f"the header {name!r}", text)


def check_header(name: str, text: Any) -> None:
    """Check that the text of a header, or a key in one, can be sent, or raise an error that does not repeat it."""
    if not isinstance(text, str):
        raise InvalidRequestError(f"{name} must be a text, not {type(text).__name__}")
    if not (text.isascii() and text.replace("\t", "").isprintable()):
        why = "such as a line break or a typographic quote"
        raise InvalidRequestError(f"{name} has a character that cannot stand in a header, {why}")


def retried(request: JsonRequest, retry: Retry, step: type[Send | Open] = Send) -> Flow[Any]:
    """Send, then wait and send again as long as that can help."""
    sent: Any = request
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
