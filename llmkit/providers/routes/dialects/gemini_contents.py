"""A conversation in OpenAI's format as Gemini's: the system's texts apart, and turns of user and model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.dialects import UnfamiliarError
from llmkit.providers.routes.dialects.parts import SYSTEMS, function_of, picture_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BY_ID = "__thought__"
"""What follows it in the id of a call is the signature of the thoughts that led to the call."""
_UNSIGNED = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
"""Google's word for a call of which the thoughts are not known."""
_PICTURES = frozenset({"png", "jpeg", "gif", "webp"})
_WHO = {"user": "user", "assistant": "model", "tool": "function"}


def conversation(messages: Sequence[Mapping[str, Any]], *, with_ids: bool, with_system: bool) -> dict[str, Any]:
    """Return the messages as `contents`, and as `system_instruction` if there is any.

    *with_ids* calls have their ids, and a signature; without *with_system* the system speaks as the user.

    Raises:
        UnfamiliarError: LiteLLM would change something in them.
    """
    system: list[Any] = []
    turns: list[tuple[str, list[Any]]] = []
    write = _Writer(with_ids=with_ids)
    for message in messages:
        role = message["role"]
        if role in SYSTEMS and with_system:
            system.append({"text": "".join(_texts(message))})
            continue
        who = _WHO["user" if role in SYSTEMS else role]
        parts = write.parts(who, message)
        if not turns or turns[-1][0] != who:
            turns.append((who, []))
        turns[-1][1].extend(parts)
    contents = [_turn(who, parts) for who, parts in turns]
    if not contents:
        raise UnfamiliarError
    return {"contents": contents, **({"system_instruction": {"parts": system}} if system else {})}


def _turn(who: str, parts: list[Any]) -> dict[str, Any]:
    """Return what one says without a break; LiteLLM sends each of the same calls once, and nothing without a text."""
    calls = [part["function_call"] for part in parts if "function_call" in part]
    if not parts or any(call in calls[:at] for at, call in enumerate(calls)):
        raise UnfamiliarError
    silent = who == "user" and not any("text" in part for part in parts)
    return {"role": "model" if who == "model" else "user", "parts": [*parts, *([{"text": " "}] if silent else [])]}


class _Writer:
    """Writes the parts of messages, in the order of a conversation."""

    def __init__(self, *, with_ids: bool) -> None:
        self._with_ids = with_ids
        self._names: dict[str, str] = {}  # of the functions that were called last, by the ids of the calls

    def parts(self, who: str, message: Mapping[str, Any]) -> list[Any]:
        """Return the parts of a message."""
        if who == "function":
            return [{"function_response": self._result(message)}]
        return self._answered(message) if who == "model" else _said(message)

    def _answered(self, message: Mapping[str, Any]) -> list[Any]:
        """Return what the model thought, said and called, in this order."""
        thought, calls = message.get("reasoning_content"), message.get("tool_calls") or ()
        parts: list[Any] = [] if thought is None else [{"thought": True, "text": thought}]
        if message.get("content") is not None:
            parts += [{"text": text} for text in _texts(message)]
        if calls:
            self._names = {}
        parts += [self._call(call, is_first=at == 0) for at, call in enumerate(calls)]
        if not parts:
            raise UnfamiliarError
        return parts

    def _call(self, call: Mapping[str, Any], *, is_first: bool) -> dict[str, Any]:
        function, identity = function_of(call), call.get("id")
        name, given = function.get("name"), function.get("arguments")
        if not isinstance(identity, str):
            raise UnfamiliarError
        if not name or not isinstance(name, str) or not given or not isinstance(given, str):
            raise UnfamiliarError
        try:
            made = {"name": name, "args": json.loads(given)}
        except ValueError as error:
            raise UnfamiliarError from error
        self._names[identity] = name
        plain, _, signature = identity.partition(BY_ID)
        if self._with_ids:
            signature = signature or (_UNSIGNED if is_first else "")
            made |= {"id": plain} if plain else {}
        return {"function_call": made, **({"thoughtSignature": signature} if signature else {})}

    def _result(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a function returned."""
        identity, content = message.get("tool_call_id"), "".join(_texts(message))
        if not isinstance(identity, str) or content[:5].lower() == "data:":
            raise UnfamiliarError
        name, plain = self._names.get(identity) or message.get("name"), identity.partition(BY_ID)[0]
        if not name or not isinstance(name, str):
            raise UnfamiliarError
        made = {"name": name, "response": _response(content)}
        return {**made, "id": plain} if self._with_ids and plain else made


def _response(content: str) -> Any:
    if content.strip().startswith("{"):
        try:
            return json.loads(content)
        except ValueError:
            pass
    return {"content": content}


def _said(message: Mapping[str, Any]) -> list[Any]:
    """Return what the user says."""
    content = message["content"]
    if isinstance(content, str):
        return [{"text": content}]
    parts = [_part(part) for part in content]
    if not parts:
        raise UnfamiliarError
    return parts


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        if not part["text"] or not isinstance(part["text"], str):
            raise UnfamiliarError
        return {"text": part["text"]}
    kind, data = picture_of(part)
    if kind not in _PICTURES:
        raise UnfamiliarError
    return {"inline_data": {"mime_type": f"image/{kind}", "data": data}}


def _texts(message: Mapping[str, Any]) -> list[str]:
    """Return the texts of a message that has nothing else."""
    content = message.get("content")
    texts = [content] if isinstance(content, str) else [part.get("text") for part in content or ()]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UnfamiliarError
    return texts
