"""What a request has that matters to a route: its features, short texts such as `temperature=low` or `role:system`.

A route says for each feature what becomes of it. A request with a feature that is not in the route takes LiteLLM's way,
so whatever has no name here is given one that no route has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.core.params import MOST_STOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmkit.core.types import Request

UNKNOWN = "unknown"
"""A feature that no route has."""
_MESSAGE_KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_OF_TOOLS = frozenset({"tool_choice", "parallel_tool_calls"})
_CALL, _FUNCTION = frozenset({"id", "type", "function"}), frozenset({"name", "arguments"})
_TEXTS = frozenset({"type", "text"})
_BESIDE = ("cache_control", "reasoning_content", "thinking_blocks")
"""What only some protocols have a place for in a message."""
_SYSTEMS = frozenset({"system", "developer"})
_PICTURES = frozenset({"type", "image_url"})


def of_request(request: Request, *, stream: bool) -> list[str]:
    """Return the features of a request, in no order."""
    found = [of_param(name, value) for name, value in request.params.items()]
    found += of_messages(request.messages)
    if stream:
        found.append("stream")
    if "tools" not in request.params and _OF_TOOLS & request.params.keys():
        found.append(UNKNOWN)
    return found


def of_param(name: str, value: Any) -> str:
    """Return the feature that a parameter with this value is."""
    label = _LABELS[name](value) if name in _LABELS else _TYPES.get(type(value), UNKNOWN)
    return f"{name}={label}"


_TYPES: Mapping[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "text",
    list: "list",
    tuple: "list",
    dict: "object",
}


def _number(value: Any) -> str:
    """Return which part of the usual range a number is in: some providers treat 0, or more than 1, in another way."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNKNOWN
    if value in {0, 1}:
        return "zero" if value == 0 else "one"
    return "low" if 0 < value < 1 else "high" if value > 1 else "negative"


def _count(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return UNKNOWN
    return "one" if value == 1 else "many" if value > 1 else UNKNOWN


def _word(value: Any) -> str:
    return value if isinstance(value, str) else UNKNOWN


def _format(value: Any) -> str:
    if not isinstance(value, dict):
        return UNKNOWN
    schema = value.get("json_schema")
    if value.get("type") == "json_schema" and isinstance(schema, dict):
        return "json_schema_strict" if schema.get("strict") else "json_schema"
    return value["type"] if value in ({"type": "text"}, {"type": "json_object"}) else UNKNOWN


def _tools(value: Any) -> str:
    if not isinstance(value, list | tuple) or not value:
        return UNKNOWN
    known = {"type", "function", "cache_control"}
    plain = all(isinstance(tool, dict) and tool.get("type") == "function" and tool.keys() <= known for tool in value)
    if not plain or any(not isinstance(tool.get("function"), dict) for tool in value):
        return UNKNOWN
    if any("cache_control" in tool for tool in value):
        return "cached"
    schemas = [tool["function"].get("parameters") or {} for tool in value]
    if any(not isinstance(schema, dict) or "$schema" in schema or "$id" in schema for schema in schemas):
        return UNKNOWN  # some providers are sent none of these
    return "strict" if any("strict" in tool["function"] for tool in value) else "functions"


def _tool_choice(value: Any) -> str:
    if isinstance(value, dict):
        named = value.get("function")
        plain = value.keys() == {"type", "function"} and isinstance(named, dict) and named.keys() == {"name"}
        return "function" if plain and value["type"] == "function" else UNKNOWN
    return _word(value)


def _thinking(value: Any) -> str:
    if not isinstance(value, dict):
        return UNKNOWN
    return "adaptive" if value.get("type") == "adaptive" else "object"


def _headers(value: Any) -> str:
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        return UNKNOWN
    names = {name.lower() for name in value}
    is_plain = len(names) == len(value) and not names & _HEADERS and all(text.isascii() for text in value.values())
    return "object" if is_plain else UNKNOWN


def _beside(value: Any) -> str:
    return "object" if isinstance(value, dict) and not value.keys() & _OWN else UNKNOWN


def _stop(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "list" if len(value) <= MOST_STOPS and all(isinstance(each, str) for each in value) else UNKNOWN
    return "text" if isinstance(value, str) else UNKNOWN


_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "content-type", "host", "content-length"})
_OWN = frozenset({"model", "messages", "stream", "stream_options", "tools"})
_LABELS: Mapping[str, Callable[[Any], str]] = {
    "extra_headers": _headers,
    "extra_body": _beside,
    "stop": _stop,
    "stream_options": lambda value: "usage" if value == {"include_usage": True} else UNKNOWN,
    "temperature": _number,
    "top_p": _number,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "n": _count,
    "response_format": _format,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": lambda value: str(value).lower() if isinstance(value, bool) else UNKNOWN,
    "logprobs": lambda value: str(value).lower() if isinstance(value, bool) else UNKNOWN,
    "api_version": _word,
    "base_model": lambda value: "text" if isinstance(value, str) else UNKNOWN,
    "reasoning_effort": _word,
    "thinking": _thinking,
    "verbosity": _word,
    "service_tier": _word,
}


def of_messages(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the features of a conversation."""
    found: set[str] = set()
    before = ""
    for message in messages:
        role = message.get("role")
        found.add(f"role:{role}")
        if "content" in message:
            _of_content(message["content"], str(role), found)
        else:
            found.add(f"missing:{role}")
        if calls := message.get("tool_calls"):
            found.add("tool_calls" if _are_plain(calls) else UNKNOWN)
        if message.get("name") is not None:
            found.add(f"name:{role}")
        found.update(f"{name}:{role}" for name in _BESIDE if name in message)
        if not message.keys() <= {*_MESSAGE_KEYS, *_BESIDE}:
            found.add(UNKNOWN)
        if role in _SYSTEMS:
            found.add(
                "two systems" if before in {"system", "developer"} else "late system" if before else "system first"
            )
        elif role == before and role != "tool":
            found.add(f"twice:{role}")
        elif not before and role == "assistant":
            found.add("answer first")
        before = str(role)
    if before == "assistant":
        found.add("answer last")
    return list(found)


def _are_plain(calls: Any) -> bool:
    """Return whether tool calls have what OpenAI's have and nothing else."""
    return isinstance(calls, list | tuple) and all(
        isinstance(call, dict)
        and call.keys() == _CALL
        and call["type"] == "function"
        and isinstance(call["function"], dict)
        and call["function"].keys() == _FUNCTION
        and all(isinstance(each, str) for each in (call["id"], *call["function"].values()))
        for call in calls
    )


def _of_content(content: Any, role: str, found: set[str]) -> None:
    if isinstance(content, str):
        if not content:
            found.add(f"empty:{role}")
    elif content is None:
        found.add(f"null:{role}")
    elif isinstance(content, list | tuple):
        found.update(f"{_part(part)}:{role}" for part in content)
    else:
        found.add(UNKNOWN)


def _part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and part.keys() == _TEXTS:
        return "text"
    if kind == "image_url" and part.keys() == _PICTURES:
        picture = part["image_url"]
        if not isinstance(picture, dict):
            return "picture as text"
        url = picture.get("url")
        scheme = "data" if isinstance(url, str) and url.startswith("data:") else "link"
        return f"picture {scheme} with {'+'.join(sorted(picture))}"
    return f"{kind} with {'+'.join(sorted(part))}" if isinstance(kind, str) else UNKNOWN
