"""Responses as JSON and as streams, for every protocol."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llmkit.errors import LlmkitError
from llmkit.serve.body import JSON
from llmkit.serve.context import current
from llmkit.serve.errors import ServeError, to_serve_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.types import Receive, Scope, Send

log = logging.getLogger("llmkit.serve")
EVENTS = "text/event-stream"


class JsonResponse(Response):
    """A JSON body; *headers* have names in lower case.

    Starlette's own makes its headers with a dozen calls more, and asks what kind of response each is.
    """

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status_code, self.background = status_code, None
        self.body = _encode(content).encode()
        own = {"content-type": JSON, "content-length": str(len(self.body)), **(headers or {})}
        self.raw_headers = [(name.encode(), value.encode("latin-1")) for name, value in own.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Send the head, and the body."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


_encode = json.JSONEncoder(separators=(",", ":")).encode


class StreamedResponse(Response):
    """An answer in pieces; however it ends, the generator behind it is closed.

    Starlette's own runs in a cancel scope, which would cancel that closing too.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"}, media_type=media_type)
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Send the pieces as they come."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if self._first:
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._rest:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            try:
                await self._rest.aclose()
            except (ServeError, LlmkitError) as error:
                log.warning("request %s: a stream could not be closed: %s", current().id, error)


async def streamed(pieces: AsyncGenerator[bytes, None], media_type: str = EVENTS) -> StreamedResponse:
    """Return a stream as a response; an error before its first piece is raised, and gets a status of its own."""
    try:
        first = await anext(pieces, b"")
    except BaseException:
        await pieces.aclose()
        raise
    return StreamedResponse(first, pieces, media_type)


def event(data: str) -> bytes:
    """Return a server-sent event."""
    lines = data.replace("\n", "\ndata: ")
    return f"data: {lines}\n\n".encode(errors="replace")


def json_event(data: Any) -> bytes:
    """Return a server-sent event with a JSON object."""
    return b"data: " + _encode(data).encode() + b"\n\n"


def error_event(error: Exception) -> bytes:
    """Return a server-sent event that reports an error."""
    return b"data: " + to_serve_error(error, current().id).body() + b"\n\n"


DONE = event("[DONE]")
