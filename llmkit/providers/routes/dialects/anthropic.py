"""Anthropic's messages: the bodies of requests, and LiteLLM's rules for answers, each compared with it.

What LiteLLM would repair or translate on the way (empty texts, names and ids with odd characters, schemas with rules
that Anthropic does not know) is not written here but handed to LiteLLM.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llmkit.core.completion import FINISH_REASONS, Chunk, Completion
from llmkit.providers.routes import features
from llmkit.providers.routes.behaviour import HEADERS, KEPT, WRITTEN
from llmkit.providers.routes.dialects import UnfamiliarError
from llmkit.providers.routes.dialects.anthropic_messages import conversation
from llmkit.providers.routes.dialects.anthropic_params import written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmkit.core.types import Request
    from llmkit.providers.routes.behaviour import Behaviour

PATH, CONVERSATION = "/v1/messages", "messages"
_ROOM = 4096
"""The tokens that are left for the answer beside those for thinking, where the request sets no limit."""
_UNASKED = {"name": "dummy_tool", "input_schema": {"type": "object", "properties": {}}, "type": "custom"}
_UNASKED_TOOLS = [{**_UNASKED, "description": "This is a dummy tool call"}]
"""Anthropic wants tools where the conversation has calls; LiteLLM sends this one where the request has none."""
_OWN_HEADERS = re.compile("anthropic-|authorization|x-api-key", re.IGNORECASE)
_TOOLS = frozenset({"tool_use", "server_tool_use"})
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})


def body(behaviour: Behaviour, model: str, request: Request, *, stream: bool) -> dict[str, Any]:
    """Return the body of a request that a route covers.

    Raises:
        UnfamiliarError: LiteLLM would change something in it.
    """
    made = {"model": behaviour.model.format(model), **conversation(request.messages)}
    if {"thinking", "reasoning_effort"} <= request.params.keys():
        raise UnfamiliarError
    for name, value in sorted(request.params.items(), key=lambda item: item[0] == "parallel_tool_calls"):
        effect = behaviour.effects[features.of_param(name, value)]
        new: dict[str, Any] = {}
        if effect.startswith(WRITTEN):
            new = json.loads(effect)
        elif effect.startswith(KEPT):
            new = written(name, value, made)
        elif (effect == HEADERS and any(map(_OWN_HEADERS.match, value))) or (name == "metadata" and "user_id" in value):
            raise UnfamiliarError
        if new.keys() & made.keys() and name != "parallel_tool_calls":  # LiteLLM decides which one counts
            raise UnfamiliarError
        made |= new
    if "tools" not in made and any(message.get("tool_calls") is not None for message in request.messages):
        made["tools"] = _UNASKED_TOOLS
    budget = (made.get("thinking") or {}).get("budget_tokens")
    if budget is not None:
        made.setdefault("max_tokens", budget + _ROOM)
    return {**behaviour.added, **made, **(behaviour.stream_added if stream else {})}


def completion_of(body: Any, habits: Sequence[str]) -> Completion:  # noqa: ARG001 - all providers are read alike
    """Return a whole answer.

    Raises:
        UnfamiliarError: it is written in an unknown way.
    """
    if not isinstance(body, dict) or not {"content", "model", "stop_reason", "usage"} <= body.keys():
        raise UnfamiliarError
    blocks, reason = body["content"], body["stop_reason"]
    if not isinstance(blocks, list) or not all(isinstance(block, dict) and "type" in block for block in blocks):
        raise UnfamiliarError
    choice = {"message": _message(blocks), "finish_reason": FINISH_REASONS.get(reason, reason)}
    return Completion.of(
        {"id": body.get("id"), "model": body["model"], "choices": [choice], "usage": usage_of(body["usage"])}
    )


class Reader:
    """Reads the events of one stream."""

    def __init__(self, habits: Sequence[str]) -> None:  # noqa: ARG002 - all providers are read alike
        self._read = {
            "message_start": self._started,
            "content_block_start": self._opened,
            "content_block_delta": self._added,
            "content_block_stop": self._closed,
            "message_delta": self._ended,
        }
        self._head: dict[str, Any] = {}
        self._counts: dict[str, Any] = {}
        self._kind = ""  # of the block that is open
        self._tool = -1
        self._arguments: list[str] = []

    def chunks(self, event: Any) -> Iterable[Chunk]:
        """Return what an event, as decoded JSON, adds to the answer.

        Raises:
            UnfamiliarError: it is written in an unknown way.
        """
        try:
            read = self._read.get(event["type"])
            return () if read is None else read(event)
        except (AttributeError, KeyError, TypeError) as error:
            raise UnfamiliarError from error

    def _started(self, event: Mapping[str, Any]) -> Iterable[Chunk]:
        message = event["message"]
        self._head = {"id": message.get("id"), "model": message.get("model")}
        return self._chunk({}, counts=message.get("usage"))

    def _opened(self, event: Mapping[str, Any]) -> Iterable[Chunk]:
        block = event["content_block"]
        self._kind, self._arguments = block["type"], []
        if self._kind == "text":
            return self._chunk({"content": block["text"]})
        if self._kind in _TOOLS:
            self._tool += 1
            return self._chunk({"tool_calls": [self._call("", id=block["id"], name=block["name"])]})
        if self._kind == "redacted_thinking":
            return self._chunk({"thinking_blocks": [{"type": self._kind, "data": block["data"]}]})
        return ()

    def _added(self, event: Mapping[str, Any]) -> Iterable[Chunk]:
        delta = event["delta"]
        if "text" in delta:
            return self._chunk({"content": delta["text"]})
        if "partial_json" in delta:
            self._arguments.append(delta["partial_json"])
            return self._chunk({"tool_calls": [self._call(delta["partial_json"])]}) if self._kind in _TOOLS else ()
        thought, signature = delta.get("thinking"), delta.get("signature")
        if not thought and not signature:
            return ()
        block = {"type": "thinking", "thinking": thought or "", **({"signature": signature} if signature else {})}
        return self._chunk({"reasoning_content": thought or "", "thinking_blocks": [block]})

    def _closed(self, _: Mapping[str, Any]) -> Iterable[Chunk]:
        is_empty = self._kind in _TOOLS and bool(self._arguments) and not any(self._arguments)
        self._kind = ""
        return self._chunk({"tool_calls": [self._call("{}")]}) if is_empty else ()

    def _ended(self, event: Mapping[str, Any]) -> Iterable[Chunk]:
        reason = event["delta"].get("stop_reason")
        return self._chunk({}, FINISH_REASONS.get(reason, reason), event.get("usage"))

    def _call(self, arguments: str, **named: str) -> dict[str, Any]:
        function = {"name": named.get("name"), "arguments": arguments}
        return {"index": self._tool, "id": named.get("id"), "type": "function", "function": function}

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None, counts: Any = None) -> Iterable[Chunk]:
        usage = None
        if counts is not None:
            self._counts |= counts
            usage = usage_of(self._counts)
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return (Chunk.of({**self._head, "choices": choices, "usage": usage}),)


def usage_of(sent: Any) -> Mapping[str, Any]:
    """Return the provider's counts in OpenAI's words: a prompt includes what was read from the cache and written to it.

    Raises:
        UnfamiliarError: they are written in an unknown way.
    """
    if not isinstance(sent, dict):
        raise UnfamiliarError
    rounds = [each for each in sent.get("iterations") or () if isinstance(each, dict)] or [sent]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    plain, read, kept, answer = (sum(_count(each, name) for each in rounds) for name in names)
    prompt, thought = plain + read + kept, _thought(rounds) or _thought([sent])
    return {
        **{name: sent[name] for name in _BESIDE if sent.get(name)},
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": kept,
        "prompt_tokens_details": {
            "cached_tokens": read,
            "cache_creation_tokens": kept,
            "cache_creation_token_details": sent.get("cache_creation"),
        },
        "completion_tokens_details": {"reasoning_tokens": min(thought, answer)},
    }


_BESIDE = ("inference_geo", "iterations", "server_tool_use", "service_tier", "speed")
"""What a price may depend on."""


def _thought(rounds: Sequence[Mapping[str, Any]]) -> int:
    details = [each.get("output_tokens_details") for each in rounds]
    counts = [_count(each, "thinking_tokens") if isinstance(each, dict) else 0 for each in details]
    return max(0, sum(counts)) if all(isinstance(each, dict) for each in details) else 0


def _count(sent: Mapping[str, Any], name: str) -> int:
    value = sent.get(name)
    return int(value) if isinstance(value, int | float) else 0


def _message(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the message that an answer's blocks are."""
    try:
        texts = [block["text"] for block in blocks if block["type"] == "text"]
        calls = [_called(block) for block in blocks if block["type"] in _TOOLS]
    except (KeyError, TypeError) as error:
        raise UnfamiliarError from error
    if not all(isinstance(text, str) for text in texts):
        raise UnfamiliarError
    thoughts = [block for block in blocks if block["type"] in _THOUGHTS]
    message: dict[str, Any] = {"content": "".join(texts) or None, "tool_calls": calls}
    if thoughts:
        reasoning = "".join(block.get("thinking") or "" for block in thoughts)
        message |= {"thinking_blocks": thoughts, "reasoning_content": reasoning}
    return message


def _called(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": json.dumps(block["input"])}
    return {"id": block["id"], "type": "function", "function": function}
