"""OpenAI's parameters in Gemini's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.dialects import UnfamiliarError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONFIG = "generationConfig"
AS_SCHEMA = "response_schema"
"""Where the schema of an answer is sent in the older form, which is the one of tools."""
_NAMES = {
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "n": "candidate_count",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_MODES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_OF_FUNCTIONS = frozenset({"name", "description", "parameters", "strict"})
_REMOVED = frozenset({"strict", "additionalProperties"})
_IN_SCHEMAS = frozenset(
    """
    title description nullable default minItems maxItems required minProperties maxProperties minimum maximum
    minLength maxLength pattern example
    """.split()  # noqa: SIM905 - shorter
)
"""What stays as it is in the older form of a schema; `items`, `properties` and `anyOf` have schemas in them."""
_VALUES = frozenset({"default", "example"})
_ELSEWHERE = frozenset({"type", "format", "properties", "items", *_REMOVED})
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object"})


def written(name: str, value: Any, form: str) -> dict[str, Any]:
    """Return what a parameter adds to a body; *form* is `AS_SCHEMA` where that is how schemas are sent.

    Raises:
        UnfamiliarError: LiteLLM would change something in it.
    """
    if name == "response_format":
        return {CONFIG: _format(value, form)}
    write = _WRITERS.get(name)
    return {CONFIG: {_NAMES.get(name, name): value}} if write is None else write(value)


def _stops(value: Any) -> dict[str, Any]:
    if not isinstance(value, str | list):
        raise UnfamiliarError
    return {CONFIG: {"stop_sequences": [value] if isinstance(value, str) else value}}


def _modalities(value: Any) -> dict[str, Any]:
    if value != ["text"]:
        raise UnfamiliarError
    return {CONFIG: {"responseModalities": ["TEXT"]}}


def _thinking(value: Any) -> dict[str, Any]:
    budget = value.get("budget_tokens")
    if value != {"type": "enabled", "budget_tokens": budget} or type(budget) is not int or budget == 0:
        raise UnfamiliarError
    return {CONFIG: {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": budget}}}


def _tools(value: Any) -> dict[str, Any]:
    return {"tools": [{"function_declarations": [_tool(tool["function"]) for tool in value]}]}


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    if not function.keys() <= _OF_FUNCTIONS or not isinstance(function.get("name"), str):
        raise UnfamiliarError
    made = {"name": function["name"]}
    if function.get("description") is not None:
        made["description"] = function["description"]
    parameters = function.get("parameters")
    if parameters is not None:
        made["parameters"] = _schema(parameters)
    return made


def _choice(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"toolConfig": {"functionCallingConfig": {"mode": _MODES[value]}}}
    names = [value["function"]["name"]]
    return {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowed_function_names": names}}}


def _format(value: Any, form: str) -> dict[str, Any]:
    kind = value.get("type")
    if kind == "text":
        return {"response_mime_type": "text/plain"}
    made: dict[str, Any] = {"response_mime_type": "application/json"}
    if kind == "json_object":
        return made
    schema = value["json_schema"].get("schema")
    if not schema or not isinstance(schema, dict) or "response_schema" in value or _has("strict", schema):
        raise UnfamiliarError  # LiteLLM removes what is called so
    if form == AS_SCHEMA:
        return {**made, AS_SCHEMA: _schema(schema, is_ordered=True)}
    return {**made, "response_json_schema": schema}


def _has(word: str, schema: Any) -> bool:
    """Return whether something in a schema has this name, wherever it stands."""
    if isinstance(schema, dict):
        return word in schema or any(_has(word, each) for each in schema.values())
    return isinstance(schema, list) and any(_has(word, each) for each in schema)


def _schema(schema: Any, *, is_ordered: bool = False) -> dict[str, Any]:
    """Return a schema in the older form; what LiteLLM would have to rebuild for it is LiteLLM's."""
    if not isinstance(schema, dict):
        raise UnfamiliarError
    if "anyOf" in schema:
        return _choices(schema)
    kind = schema.get("type", "object")
    if not isinstance(kind, str) or kind not in _TYPES or (kind != "object" and "properties" in schema):
        raise UnfamiliarError
    made: dict[str, Any] = {"type": kind, **_plain(schema, kind)}
    named = _named(schema["properties"]) if "properties" in schema else None
    if named:
        made["properties"] = {name: _schema(each, is_ordered=is_ordered) for name, each in named.items()}
        if is_ordered:
            made["propertyOrdering"] = list(named)
    elif named is not None:
        made.pop("required", None)
    if kind == "array" or "items" in schema:
        made["items"] = _schema(schema.get("items", {}), is_ordered=is_ordered)
    return made


def _plain(schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return what a schema says besides other schemas."""
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _VALUES and isinstance(value, dict | list):
            raise UnfamiliarError  # LiteLLM would look for schemas in it
        if key in _IN_SCHEMAS or (key == "format" and value in ("enum", "date-time")):
            made[key] = value
        elif key == "enum":
            made |= _values(value, kind)
        elif key not in _ELSEWHERE:
            raise UnfamiliarError
    if made.get("required", ()) is None:
        raise UnfamiliarError
    return made


def _named(properties: Any) -> Mapping[str, Any]:
    """Return the properties of an object; some names LiteLLM would take for something else."""
    if not isinstance(properties, dict) or properties.keys() & _REMOVED:
        raise UnfamiliarError
    return properties


def _values(values: Any, kind: str) -> dict[str, Any]:
    """Return the values that a schema names; Gemini takes them for texts only."""
    if not isinstance(values, list) or not all(isinstance(each, str) and each for each in values):
        raise UnfamiliarError
    return {"enum": values} if kind == "string" else {}


def _choices(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice of schemas; "or null" is a mark of each of them, and so are the title and the description."""
    several = schema["anyOf"]
    if not schema.keys() <= {"anyOf", "title", "description", "default"} or not isinstance(several, list):
        raise UnfamiliarError
    plain = [each for each in several if each != {"type": "null"}]
    if not plain or len(several) - len(plain) > 1 or not all(map(_is_simple, plain)):
        raise UnfamiliarError
    marks = {name: schema[name] for name in ("title", "description") if schema.get(name)}
    if len(plain) < len(several):
        marks["nullable"] = True
    return {"anyOf": [{**_schema(each), **marks} for each in plain]}


def _is_simple(schema: Any) -> bool:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return isinstance(kind, str) and kind in _TYPES and not _has("anyOf", schema)


_WRITERS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "stop": _stops,
    "modalities": _modalities,
    "thinking": _thinking,
    "tools": _tools,
    "tool_choice": _choice,
    "safety_settings": lambda value: {"safetySettings": value},
}
