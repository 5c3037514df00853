"""A conversation in OpenAI's format as Anthropic's: the system's texts apart, and turns of user and assistant."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.dialects import UnfamiliarError
from llmkit.providers.routes.dialects.parts import SYSTEMS, function_of, picture_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ID = re.compile(r"[A-Za-z0-9_-]+")
_OF_THOUGHTS = ({"type", "thinking", "signature"}, {"type", "data"})


def conversation(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the messages as `messages`, and as `system` if there is any.

    Raises:
        UnfamiliarError: LiteLLM would change something in them.
    """
    system: list[Any] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = message["role"]
        if role in SYSTEMS:
            if turns:
                raise UnfamiliarError
            system += _texts(message)
            continue
        who = "assistant" if role == "assistant" else "user"
        blocks = _BLOCKS[role](message)
        if turns and turns[-1]["role"] == who:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": who, "content": blocks})
    _check(turns)
    if turns[-1]["role"] == "assistant":
        for block in turns[-1]["content"]:
            if block["type"] == "text":
                block["text"] = block["text"].rstrip()
    return {"messages": turns, **({"system": system} if system else {})}


def _check(turns: Sequence[Mapping[str, Any]]) -> None:
    """Refuse turns that say nothing, and calls that have one name."""
    for turn in turns:
        calls = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
        if not turn["content"] or len(calls) != len(set(calls)):
            raise UnfamiliarError
    if not turns:
        raise UnfamiliarError


def _said(message: Mapping[str, Any]) -> list[Any]:
    """Return what the user says."""
    content = message["content"]
    return _texts(message) if isinstance(content, str) else [_part(part) for part in content]


def _answered(message: Mapping[str, Any]) -> list[Any]:
    """Return what the assistant thought, said and called, in this order."""
    thoughts = message.get("thinking_blocks") or ()
    if any(set(block) not in _OF_THOUGHTS or not (block.get("signature") or block.get("data")) for block in thoughts):
        raise UnfamiliarError
    texts = _texts(message) if message.get("content") is not None else []
    return [*map(dict, thoughts), *texts, *map(_call, message.get("tool_calls") or ())]


def _resulted(message: Mapping[str, Any]) -> list[Any]:
    """Return what a tool returned."""
    content = message["content"]
    parts = content if isinstance(content, str) else [_part(part) for part in content]
    made = {"type": "tool_result", "tool_use_id": _checked_id(message.get("tool_call_id")), "content": parts}
    return [{**made, **_mark(message)}]


_BLOCKS = {"user": _said, "assistant": _answered, "tool": _resulted}


def _texts(message: Mapping[str, Any]) -> list[Any]:
    content = message["content"]
    if isinstance(content, str):
        return [_text(content, message)]
    if any(part.get("type") != "text" for part in content):
        raise UnfamiliarError
    return [_part(part) for part in content]


def _text(text: Any, marked: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(text, str) or not text.strip():
        raise UnfamiliarError
    return {"type": "text", "text": text, **_mark(marked)}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return _text(part.get("text"), part)
    kind, data = picture_of(part, {"detail"})
    return {"type": "image", "source": {"type": "base64", "media_type": f"image/{kind}", "data": data}, **_mark(part)}


def _mark(marked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mark up to which Anthropic keeps the prompt in its cache, if there is one."""
    if "cache_control" not in marked:
        return {}
    if not isinstance(marked["cache_control"], dict):
        raise UnfamiliarError
    return {"cache_control": marked["cache_control"]}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = function_of(call)
    if call.get("type") != "function":
        raise UnfamiliarError
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError) as error:
        raise UnfamiliarError from error
    if not isinstance(arguments, dict) or not isinstance(function.get("name"), str):
        raise UnfamiliarError
    return {"type": "tool_use", "id": _checked_id(call.get("id")), "name": function["name"], "input": arguments}


def _checked_id(value: Any) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value) or value.startswith("srvtoolu_"):
        raise UnfamiliarError
    return value
