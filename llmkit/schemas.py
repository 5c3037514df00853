"""Structured output: what the provider is told about the shape of an answer, and reading the answer back."""

from __future__ import annotations

import json
import re
from typing import Any

from llmkit.errors import InvalidRequestError

_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


def response_format(schema: Any) -> dict[str, Any]:
    """Return the OpenAI-style `response_format` for a pydantic class or a JSON schema.

    Raises:
        InvalidRequestError: *schema* is neither.
    """
    body = schema if isinstance(schema, dict) else _model_schema(schema)
    name = re.sub(r"\W", "_", str(body.get("title") or "response"))
    return {"type": "json_schema", "json_schema": {"name": name, "schema": body}}


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

    found = json.loads(body)
    try:
        jsonschema.validate(found, schema)
    except jsonschema.ValidationError as error:
        raise ValueError(f"{error.json_path}: {error.message}") from error
    except jsonschema.SchemaError as error:
        raise InvalidRequestError(f"schema is no JSON schema: {error.message}") from error
    return found


def _model_schema(schema: Any) -> dict[str, Any]:
    make = getattr(schema, "model_json_schema", None)
    if not isinstance(schema, type) or make is None:
        raise InvalidRequestError(f"schema must be a pydantic class or a JSON schema, not {type(schema).__name__}")
    body: dict[str, Any] = make()
    return body
