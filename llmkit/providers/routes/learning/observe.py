"""Asks LiteLLM what it would send, and what it makes of an answer, with a transport that answers by itself."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmkit.errors import APIConnectionError, LlmkitError
from llmkit.providers.litellm.backend import LiteLLM
from llmkit.providers.litellm.connections import ClientPools
from llmkit.providers.litellm.sdk import http_module
from llmkit.providers.routes.learning.loopback import AwaitedLoopback, Canned, Loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmkit.core.types import Reply, Request
    from llmkit.providers.transport.http import HttpRequest, Wire

NOWHERE = "unknown.invalid"
"""The host in a client for a provider whose usual address LiteLLM does not tell."""
KEY = "sk-probe-0123456789abcdef"
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "probe",
    "service_tier": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
PLAIN = Canned(json.dumps(ANSWER).encode())
CHUNK = {**ANSWER, "object": "chat.completion.chunk", "choices": []}
_OF_CLIENTS = ("x-stainless-",)
_NOT_OURS = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "host", "transfer-encoding", "user-agent"}
)


def stream_of(*events: Any, done: bool = True) -> Canned:
    """Return a streamed answer with these events."""
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    body = "".join([*lines, *(["data: [DONE]\n\n"] if done else [])])
    return Canned(body.encode(), headers=(("content-type", "text/event-stream"),))


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chunk of a stream."""
    return {**CHUNK, "usage": None, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}


STREAM = stream_of(chunk({"role": "assistant", "content": "o"}), chunk({"content": "k"}), chunk({}, "stop"), {**CHUNK})


@dataclass(frozen=True, slots=True)
class Sent:
    """What was to be sent: its address, the headers that matter, and the body."""

    url: str
    headers: Mapping[str, str]
    body: Any

    @classmethod
    def of(cls, request: HttpRequest) -> Sent:
        """Return what matters of a request."""
        headers = {name.lower(): value for name, value in request.headers}
        kept = {
            name: value for name, value in headers.items() if name not in _NOT_OURS and not name.startswith(_OF_CLIENTS)
        }
        return cls(request.url, kept, json.loads(request.body))


class NobodyWaitsError(Exception):
    """What was to be learned is not wanted any more."""


class Observer:
    """Asks LiteLLM.

    Args:
        kind: the client that it is given where it finds its own: `handler` or `sdk`.
        wanted: whether the answers are wanted; if not, the next question raises a NobodyWaitsError.
    """

    def __init__(self, kind: str = "handler", wanted: Callable[[], bool] = lambda: True) -> None:
        self._kind, self._wanted = kind, wanted
        self._blocking, self._awaited = Loopback(), AwaitedLoopback()
        pools = ClientPools(http_module(), (self._blocking, self._awaited), other=kind)
        self._backend = LiteLLM(lambda: pools)

    def fresh(self) -> Observer:
        """Return another observer of the same kind."""
        return Observer(self._kind, self._wanted)

    def _go_on(self) -> None:
        if not self._wanted():
            raise NobodyWaitsError

    def sent(self, request: Request, *, stream: bool = False) -> Sent | None:
        """Return what LiteLLM would send, or None if it refuses or fails before it sends."""
        self._go_on()
        self._blocking.expect(STREAM if stream else PLAIN)
        try:
            if stream:
                self._backend.open(request)
            else:
                self._backend.send(request)
        except LlmkitError:
            pass
        requests = self._blocking.sent
        return Sent.of(requests[0]) if len(requests) == 1 and _is_json(requests[0].body) else None

    def outcome(self, request: Request, answer: Canned, *, stream: bool, awaited: bool = False) -> Reply | LlmkitError:
        """Return what llmkit makes of an answer on LiteLLM's way."""
        self._go_on()
        transport = self._awaited if awaited else self._blocking
        transport.expect(answer)
        return outcome(self._backend, request, stream=stream, awaited=awaited)


def reread(request: Request, wire: Wire, content: bytes) -> Reply:
    """Return what LiteLLM makes of an answer that has arrived.

    Raises:
        LlmkitError: it cannot read it either.
    """
    answer = Canned(content, wire.status or 200, list(wire.headers.items()))
    for kind in ("handler", "sdk"):
        read = Observer(kind).outcome(request, answer, stream=False)
        if not isinstance(read, APIConnectionError):  # of a client that LiteLLM does not take
            break
    if isinstance(read, LlmkitError):
        raise read
    return read


def outcome(backend: Any, request: Request, *, stream: bool, awaited: bool) -> Reply | LlmkitError:
    """Return the reply of a backend, or its error."""
    reply: Reply
    try:
        if awaited:
            reply = asyncio.run(_astreamed(backend, request) if stream else backend.asend(request))
        else:
            reply = _streamed(backend, request) if stream else backend.send(request)
    except LlmkitError as error:
        return error
    return reply


def _streamed(backend: Any, request: Request) -> Reply:
    source = backend.open(request)
    while source.next() is not None:
        pass
    source.close()
    reply: Reply = source.reply()
    return reply


async def _astreamed(backend: Any, request: Request) -> Reply:
    source = await backend.aopen(request)
    while await source.anext() is not None:
        pass
    await source.aclose()
    reply: Reply = source.reply()
    return reply


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False
