"""Structured output: what the provider is sent about the format of an answer, and parsing the answer."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from llmkit.core.params import check_value
from llmkit.errors import InvalidRequestError

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
    """Check that a schema is valid and refers only to itself, before an answer is paid for. Nothing is fetched.

    Raises:
        InvalidRequestError: it says what is wrong.
    """
    body = schema if isinstance(schema, dict) else _model_schema(schema)
    check_value(body, "schema")
    from jsonschema import SchemaError
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        _validator(body).check_schema(body)
    except SchemaError as error:
        raise InvalidRequestError(f"schema is no JSON schema: {error.json_path}: {error.message}") from error
    resolver = Registry().resolver_with_root(Resource.from_contents(body, default_specification=DRAFT202012))
    for reference in _references(body):
        if not reference.startswith("#"):
            raise InvalidRequestError(f"schema refers to {reference!r}; only what stands in it can be referred to")
        if _has_names(body):
            continue  # what it means depends on where it stands
        try:
            resolver.lookup(reference)
        except (Unresolvable, LookupError, ValueError, TypeError) as error:
            raise InvalidRequestError(f"schema refers to {reference!r}, which it does not have") from error


def _validator(schema: Any) -> Any:
    """Return a validator for the schema that fetches nothing."""
    import jsonschema
    from referencing import Registry

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return kind(schema, registry=Registry())


def _has_names(body: Any) -> bool:
    inner = body.values() if isinstance(body, dict) else body if isinstance(body, list) else ()
    return any((isinstance(item, dict) and "$id" in item) or _has_names(item) for item in inner)


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
    """Return the answer as an instance of the class, or as validated JSON.

    Raises:
        ValueError: the text is not JSON or does not fit; the message says where.
    """
    from pydantic import ValidationError

    fenced = _FENCE.match(text)
    body = fenced[1] if fenced else text
    try:
        data = json.loads(body, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(schema, dict):
        try:
            return schema.model_validate_json(body)
        except ValidationError as error:
            raise ValueError(complaints(error)) from error
    import jsonschema
    from referencing.exceptions import Unresolvable

    try:
        wrong = jsonschema.exceptions.best_match(_validator(schema).iter_errors(data))
    except Unresolvable as error:  # a reference within the schema that leads nowhere
        raise ValueError(f"the schema refers to {error.ref!r}, which it does not have") from error
    if wrong:
        raise ValueError(f"{wrong.json_path}: {wrong.message}")
    return data


def _finite(number: str) -> float:
    if not math.isfinite(found := float(number)):
        raise ValueError(f"{number} is no number that JSON has")
    return found


def complaints(error: Any) -> str:
    """Return what pydantic says is wrong, in one line and without its advertisement."""
    lines = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in error.errors())
    return "; ".join(lines)


def _model_schema(schema: Any) -> dict[str, Any]:
    make = getattr(schema, "model_json_schema", None)
    if not isinstance(schema, type) or make is None:
        raise InvalidRequestError(f"schema must be a pydantic class or a JSON schema, not {type(schema).__name__}")
    body: dict[str, Any] = make()
    return body
