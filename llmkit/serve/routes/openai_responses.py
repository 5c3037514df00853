"""Replies in OpenAI's wire format: whole, and as server-sent events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llmkit.core.fork import fresh_id
from llmkit.serve.errors import header_value
from llmkit.serve.routes.responses import DONE, error_event, json_event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from llmkit.core.types import Piece, Reply, Usage
    from llmkit.serve.served import PieceStream

_FIRST_DELTA = {"role": "assistant", "content": ""}


def completion(reply: Reply, name: str) -> dict[str, Any]:
    """Return a whole answer; `model` is the name under which it was requested."""
    choices = [_choice(choice, number) for number, choice in enumerate(reply.choices)]
    return _head("chat.completion", name) | {
        "choices": choices or [_choice({"message": {"content": reply.text}, "finish_reason": reply.finish_reason}, 0)],
        "usage": usage_of(reply.usage),
    }


def cost_headers(reply: Reply) -> dict[str, str]:
    """Return the headers with the cost of an answer, if it is known, and the model that answered."""
    headers = {"x-llmkit-model": header_value(reply.model)} if reply.model else {}
    if reply.usage.cost_usd is not None:
        headers["x-llmkit-cost-usd"] = f"{reply.usage.cost_usd:.9f}".rstrip("0").rstrip(".") or "0"
    return headers


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return the token counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


async def events(
    answer: AbstractAsyncContextManager[PieceStream], name: str, *, with_usage: bool, calls_tools: bool
) -> AsyncGenerator[bytes, None]:
    """Yield the events of an answer; an error before the first is raised, one after it is an event without `[DONE]`.

    Args:
        answer: yields the pieces.
        name: the name under which it was requested.
        with_usage: whether an event before the last has the token counts.
        calls_tools: whether the server calls tools of its own between the pieces: the client does not see those calls.
    """
    head = _head("chat.completion.chunk", name)
    calls: list[bytes] = []
    finish, began = None, False
    try:
        async with answer as stream:
            async for piece in stream:
                if not began:
                    began = True
                    yield _chunk(head, _FIRST_DELTA)
                if delta := _delta(piece):
                    if finish is not None:  # another round: the calls of the last one were the server's own
                        calls, finish = [], None
                    line = _chunk(head, delta, piece)
                    if calls_tools and piece.tool_calls:
                        calls.append(line)
                    else:
                        yield line
                finish = piece.finish_reason or finish
        reply = stream.reply
        for line in calls if began else [_chunk(head, _FIRST_DELTA)]:
            yield line
        yield _chunk(head, {}, finish=finish or reply.finish_reason or "stop")
        if with_usage:
            yield json_event(head | {"choices": [], "usage": usage_of(reply.usage)})
        yield DONE
    except Exception as error:
        if not began:
            raise
        yield error_event(error)


def _head(kind: str, name: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{fresh_id()}", "object": kind, "created": int(time.time()), "model": name}


def _chunk(
    head: dict[str, Any], delta: dict[str, Any], piece: Piece | None = None, *, finish: str | None = None
) -> bytes:
    raw = getattr(piece, "raw", None)
    sent = raw.choices[0] if raw is not None and getattr(raw, "choices", None) else None
    logprobs = to_json(getattr(sent, "logprobs", None))
    return json_event(head | {"choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]})


def _delta(piece: Piece) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if piece.content:
        delta["content"] = piece.content
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.tool_calls:
        delta["tool_calls"] = [{"index": number} | to_json(call) for number, call in enumerate(piece.tool_calls)]
    return delta


def _choice(choice: Any, number: int) -> dict[str, Any]:
    fields = to_json(choice)
    message = {name: value for name, value in (fields.get("message") or {}).items() if value not in (None, [], {})}
    message.pop("provider_specific_fields", None)
    return {
        "index": fields.get("index", number),
        "message": {"role": "assistant", "content": None, "refusal": None} | message,
        "logprobs": fields.get("logprobs"),
        "finish_reason": fields.get("finish_reason") or "stop",
    }


def to_json(value: Any) -> Any:
    """Return LiteLLM's objects, or their stand-ins in tests, as JSON, without None values."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    return to_json(vars(value))
