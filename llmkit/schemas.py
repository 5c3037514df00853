"""Structured output: what the provider is told about the shape of an answer, and reading the answer back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llmkit.errors import InvalidRequestError
from llmkit.params import check_value

if TYPE_CHECKING:
    from collections.abc import Iterator

_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


def response_format(schema: Any) -> dict[str, Any]:
    """Return the OpenAI-style `response_format` for a pydantic class or a JSON schema.

    Raises:
        InvalidRequestError: *schema* is neither.
    """
    body = schema if isinstance(schema, dict) else _model_schema(schema)
    name = re.sub(r"\W", "_", str(body.get("title") or "response"))
    return {"type": "json_schema", "json_schema": {"name": name, "schema": body}}


def check(schema: Any) -> None:
    """Refuse what is no schema, or refers to one elsewhere, before an answer is paid for.

    Raises:
        InvalidRequestError: it says what is wrong.
    """
    body = schema if isinstance(schema, dict) else _model_schema(schema)
    check_value(body, "schema")
    import jsonschema

    try:
        jsonschema.validators.validator_for(body, jsonschema.Draft202012Validator).check_schema(body)
    except jsonschema.SchemaError as error:
        raise InvalidRequestError(f"schema is no JSON schema: {error.json_path}: {error.message}") from error
    for reference in _references(body):
        if not reference.startswith("#"):
            raise InvalidRequestError(f"schema refers to {reference!r}; only what stands in it can be referred to")


def _references(body: Any) -> Iterator[str]:
    if isinstance(body, dict):
        for key, value in body.items():
            if key in {"$ref", "$dynamicRef"} and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(body, list):
        for item in body:
            yield from _references(item)


def parse(schema: Any, text: str) -> Any:
    """Return the answer as an instance of the class, or as checked JSON.

    Raises:
        ValueError: the text is no JSON or does not fit; the message says where.
    """
    fenced = _FENCE.match(text)
    body = fenced[1] if fenced else text
    if not isinstance(schema, dict):
        return schema.model_validate_json(body)
    import jsonschema
    import referencing.exceptions

    found = json.loads(body)
    try:
        jsonschema.validate(found, schema)
    except jsonschema.ValidationError as error:
        raise ValueError(f"{error.json_path}: {error.message}") from error
    except referencing.exceptions.Unresolvable as error:  # one within the schema that leads nowhere
        raise ValueError(f"the schema refers to {error.ref!r}, which it does not have") from error
    return found


def _model_schema(schema: Any) -> dict[str, Any]:
    make = getattr(schema, "model_json_schema", None)
    if not isinstance(schema, type) or make is None:
        raise InvalidRequestError(f"schema must be a pydantic class or a JSON schema, not {type(schema).__name__}")
    body: dict[str, Any] = make()
    return body
