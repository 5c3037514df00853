"""OpenAI's parameters in Anthropic's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.dialects import UnfamiliarError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_OF_FUNCTIONS = frozenset({"name", "description", "parameters", "strict"})
_OF_PARAMETERS = ("type", "properties", "additionalProperties", "required", "$defs", "strict")
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_ADAPTIVE = (
    {"type": "adaptive"},
    {"type": "adaptive", "display": "summarized"},
    {"type": "adaptive", "display": "omitted"},
)
_IN_SCHEMAS = frozenset({"type", "title", "description", "enum", "const", "default", "format", "required"})
"""What stays as it is in the schema of an answer."""


def written(name: str, value: Any, made: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a parameter adds to a body; *made* is what is in it so far.

    Raises:
        UnfamiliarError: LiteLLM would change something in it.
    """
    if name == "parallel_tool_calls":
        choice = made.get("tool_choice", {"type": "auto"})
        flag = {} if choice["type"] == "none" else {"disable_parallel_tool_use": not value}
        return {"tool_choice": {**choice, **flag}}
    write = _WRITERS.get(name)
    return {name: value} if write is None else write(value)


def _limit(value: Any) -> dict[str, Any]:
    if not isinstance(value, int):
        raise UnfamiliarError
    return {"max_tokens": value}


def _stops(value: Any) -> dict[str, Any]:
    several = [value] if isinstance(value, str) else list(value)
    if not several or not all(isinstance(each, str) and each.strip() for each in several):
        raise UnfamiliarError
    return {"stop_sequences": several}


def _user(value: str) -> dict[str, Any]:
    """Return whom a request is for, if that is neither an address nor a number, which Anthropic does not want."""
    if "@" in value or not any(letter.isalpha() for letter in value):
        raise UnfamiliarError
    return {"metadata": {"user_id": value}}


def _tools(value: Any) -> dict[str, Any]:
    made = [_tool(tool) for tool in value]
    if len({tool["name"] for tool in made}) != len(made):
        raise UnfamiliarError
    return {"tools": made}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    name, told = function.get("name"), function.get("description")
    schema = function.get("parameters", {})
    if not function.keys() <= _OF_FUNCTIONS or not isinstance(schema, dict):
        raise UnfamiliarError
    if not isinstance(name, str) or not _NAME.fullmatch(name) or schema.keys() & {"definitions", "components"}:
        raise UnfamiliarError
    parameters = {"properties": {}, **schema, "type": "object"}
    made = {"name": name, "input_schema": {key: parameters[key] for key in _OF_PARAMETERS if key in parameters}}
    mark = tool.get("cache_control")
    if mark is not None and not isinstance(mark, dict):
        raise UnfamiliarError
    described = {} if told is None else {"description": told}
    return {**made, "type": "custom", **described, **({} if mark is None else {"cache_control": mark})}


def _choice(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"tool_choice": {"type": _CHOICES[value]}}
    function = value.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UnfamiliarError
    return {"tool_choice": {"type": "tool", "name": name}}


def _thinking(value: Any) -> dict[str, Any]:
    budget = value.get("budget_tokens")
    is_enabled = value == {"type": "enabled", "budget_tokens": budget} and type(budget) is int
    if not is_enabled and value not in _ADAPTIVE:
        raise UnfamiliarError
    return {"thinking": value}


def _format(value: Any) -> dict[str, Any]:
    schema = value["json_schema"].get("schema") if value.get("type") == "json_schema" else None
    if not isinstance(schema, dict):
        raise UnfamiliarError
    return {"output_format": {"type": "json_schema", "schema": _schema(schema)}}


def _schema(schema: Any) -> dict[str, Any]:
    """Return a schema in which objects have nothing but what they name; those with other rules are LiteLLM's."""
    if not isinstance(schema, dict) or not _has_plain_choices(schema):
        raise UnfamiliarError
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _IN_SCHEMAS:
            made[key] = value
        elif key == "properties" and isinstance(value, dict):
            made[key] = {name: _schema(each) for name, each in value.items()}
        elif key == "items":
            made[key] = _schema(value)
        elif key == "anyOf" and isinstance(value, list):
            made[key] = [_schema(each) for each in value]
        elif key != "additionalProperties":
            raise UnfamiliarError
        else:
            made[key] = value
    return made | ({"additionalProperties": False} if schema.get("type") == "object" else {})


def _has_plain_choices(schema: Mapping[str, Any]) -> bool:
    """Return whether the values that a schema names, if it does, are texts of a type that says so."""
    values = schema.get("enum", [])
    are_texts = isinstance(values, list) and all(isinstance(each, str) for each in values)
    return are_texts and ("enum" not in schema or schema.get("type", "string") == "string")


_WRITERS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "max_tokens": _limit,
    "max_completion_tokens": _limit,
    "stop": _stops,
    "user": _user,
    "tools": _tools,
    "tool_choice": _choice,
    "thinking": _thinking,
    "response_format": _format,
}
