"""Structured output: what the provider is told about the shape of an answer, and reading the answer back."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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
    if complaint := fault(body):
        raise InvalidRequestError(f"schema: {complaint}")
    name = re.sub(r"\W", "_", str(body.get("title") or "response"))
    return {"type": "json_schema", "json_schema": {"name": name, "schema": body}}


def parse(schema: Any, text: str) -> Any:
    """Return the answer as an instance of the class, or as checked JSON.

    Raises:
        ValueError: the text is no JSON or does not fit; the message says where.
    """
    fenced = _FENCE.match(text)
    body = fenced[1] if fenced else text
    from pydantic import ValidationError

    if not isinstance(schema, dict):
        try:
            return schema.model_validate_json(body)
        except ValidationError as error:
            raise ValueError(complaints(error)) from error
    import jsonschema
    from referencing.exceptions import Unresolvable

    found = json.loads(body)
    try:
        wrong = jsonschema.exceptions.best_match(_validator(schema).iter_errors(found))
    except Unresolvable as unknown:
        raise InvalidRequestError(f"schema: it refers to something that is not in it: {unknown}") from unknown
    if wrong:
        raise ValueError(f"{wrong.json_path}: {wrong.message}")
    return found


def complaints(error: Any) -> str:
    """Return what pydantic says is wrong, in one line and without its advertisement."""
    told = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in error.errors())
    return "; ".join(told)


def fault(schema: Any) -> str:
    """Say why a JSON schema is none, or can never be checked; "" where it is right. Nothing is ever fetched for it."""
    try:
        return _fault(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"


@lru_cache(maxsize=64)
def _fault(text: str) -> str:
    from jsonschema import SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    schema = json.loads(text)
    validator = _validator(schema)
    try:
        validator.check_schema(schema)
    except SchemaError as error:
        return f"this is no JSON schema, {error.json_path.replace('$', 'schema', 1)}: {error.message}"
    if _has_names(schema):
        return ""  # what a reference in it means depends on where it stands
    resolver = Registry().resolver_with_root(_resource(schema))
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (Unresolvable, LookupError, ValueError, TypeError):
            return f"{reference!r} leads nowhere in it, and nothing is fetched"
    return ""


def _validator(schema: Any) -> Any:
    """Return what checks data against a schema, and fetches nothing."""
    import jsonschema
    from referencing import Registry

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return kind(schema, registry=Registry())


def _resource(schema: Any) -> Any:
    from referencing import Resource
    from referencing.jsonschema import DRAFT202012

    return Resource.from_contents(schema, default_specification=DRAFT202012)


def _has_names(schema: Any) -> bool:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return any((isinstance(each, dict) and "$id" in each) or _has_names(each) for each in inner)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (schema[key] for key in ("$ref", "$dynamicRef") if isinstance(schema.get(key), str))
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _references(each)


def _model_schema(schema: Any) -> dict[str, Any]:
    make = getattr(schema, "model_json_schema", None)
    if not isinstance(schema, type) or make is None:
        raise InvalidRequestError(f"schema must be a pydantic class or a JSON schema, not {type(schema).__name__}")
    body: dict[str, Any] = make()
    return body
