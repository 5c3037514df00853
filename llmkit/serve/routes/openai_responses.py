"""Replies in OpenAI's wire format: whole, and as server-sent events."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llmkit.serve.context import current
from llmkit.serve.errors import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping

    from llmkit.serve.served import PieceStream
    from llmkit.types import Piece, Reply, Usage

DONE = b"data: [DONE]\n\n"
_BEGIN = {"role": "assistant", "content": ""}
_EVENTS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class JsonAnswer(Response):
    """A JSON body, made as quickly as the standard library can."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes."""
        return json.dumps(content, separators=(",", ":")).encode()


class Events(Response):
    """Server-sent events; however they end, what makes them is closed."""

    media_type = "text/event-stream"

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers=_EVENTS)
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(
        self,
        scope: MutableMapping[str, Any],  # noqa: ARG002 - ASGI's
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],  # noqa: ARG002
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Send the events as they come."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for event in self._rest:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self._rest.aclose()


def completion(reply: Reply, name: str) -> dict[str, Any]:
    """Return a whole answer; `model` is the name under which it was asked."""
    return {
        "id": f"chatcmpl-{os.urandom(12).hex()}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [_choice(choice, number) for number, choice in enumerate(reply.choices)] or [_only_text(reply)],
        "usage": usage_of(reply.usage),
    }


def told(reply: Reply) -> dict[str, str]:
    """Return what the headers tell of an answer: what it cost, where that is known, and which model answered."""
    found = {"x-llmkit-model": reply.model.encode("ascii", "replace").decode()} if reply.model else {}
    if reply.usage.cost_usd is not None:
        found["x-llmkit-cost-usd"] = f"{reply.usage.cost_usd:.9f}".rstrip("0").rstrip(".") or "0"
    return found


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return the counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


async def events(
    stream: PieceStream, name: str, *, with_usage: bool, calls_tools: bool = False
) -> AsyncGenerator[bytes, None]:
    """Yield the events of an answer; what fails before the first is raised, and after it an event without `[DONE]`.

    Args:
        stream: the answer.
        name: under which it was asked.
        with_usage: whether an event before the last has the counts.
        calls_tools: whether the server calls tools of its own between the pieces: their calls are not the client's.
    """
    lines = _Lines(name)
    calls: list[bytes] = []
    finish, began = None, False
    try:
        async for piece in stream:
            if not began:
                began = True
                yield lines.line(_BEGIN)
            if delta := _delta(piece):
                if finish is not None:  # another round: the calls of the last one were the server's own
                    calls, finish = [], None
                line = lines.line(delta, piece)
                if calls_tools and piece.tool_calls:
                    calls.append(line)
                else:
                    yield line
            finish = piece.finish_reason or finish
        await stream.aclose()
        reply = stream.reply
        for line in calls if began else [lines.line(_BEGIN)]:
            yield line
        yield lines.line({}, finish=finish or reply.finish_reason or "stop")
        if with_usage:
            yield lines.event({"choices": [], "usage": usage_of(reply.usage)})
        yield DONE
    except Exception as error:
        if not began:
            raise
        yield b"data: " + refusal(error, current().id).body() + b"\n\n"
    finally:
        await stream.aclose()


class _Lines:
    """The events of one answer: what they have in common, and what each adds."""

    def __init__(self, name: str) -> None:
        self._head = {
            "id": f"chatcmpl-{os.urandom(12).hex()}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": name,
        }

    def event(self, body: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(self._head | body, separators=(",", ":")).encode() + b"\n\n"

    def line(self, delta: dict[str, Any], piece: Piece | None = None, *, finish: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        raw = getattr(piece, "raw", None)
        sent = raw.choices[0] if raw is not None and getattr(raw, "choices", None) else None
        if (logprobs := plain(getattr(sent, "logprobs", None))) is not None:
            choice["logprobs"] = logprobs
        return self.event({"choices": [choice]})


def _delta(piece: Piece) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if piece.content:
        delta["content"] = piece.content
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.tool_calls:
        delta["tool_calls"] = [{"index": number} | plain(call) for number, call in enumerate(piece.tool_calls)]
    return delta


def _choice(choice: Any, number: int) -> dict[str, Any]:
    found = plain(choice)
    message = {name: value for name, value in (found.get("message") or {}).items() if value not in (None, [], {})}
    message.pop("provider_specific_fields", None)
    said = {"role": "assistant", "content": None, "refusal": None} | message
    return {
        "index": found.get("index", number),
        "message": said,
        "logprobs": found.get("logprobs"),
        "finish_reason": found.get("finish_reason") or "stop",
    }


def _only_text(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason or "stop"}


def plain(value: Any) -> Any:
    """Return LiteLLM's objects, and what stands for them in tests, as JSON has them; None for what is nothing."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    return plain(vars(value))
