"""The OpenAPI document, made from the operations and the models of their bodies."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

import llmkit
from llmkit.serve.body import JSON
from llmkit.serve.errors import ErrorAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from llmkit.serve.routes.operations import Operation

_SCHEMAS = "#/components/schemas/"
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_TEXT = {"type": "string"}


def openapi(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document of the operations that have a tag."""
    shown = [operation for operation in operations if operation.tag]
    bodies = [operation.body for operation in shown if operation.body is not None]
    kinds: list[type[BaseModel]] = [*dict.fromkeys(bodies), ErrorAnswer]
    _, schemas = models_json_schema([(kind, "validation") for kind in kinds], ref_template=_SCHEMAS + "{model}")
    paths: dict[str, Any] = {}
    for operation in shown:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _described(operation)
    about = {"title": "llmkit", "version": llmkit.__version__, "summary": "Presets and models by OpenAI's protocol."}
    return {"openapi": "3.1.0", "info": about, "paths": paths, "components": {"schemas": schemas["$defs"]}}


def _described(operation: Operation) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "object"}} if kind == JSON else {} for kind in operation.returns}
    done = {"description": "What was asked for.", **({"content": content} if content else {})}
    refused = {"description": "An error in OpenAI's shape.", "content": {JSON: {"schema": _of(ErrorAnswer)}}}
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": (inspect.getdoc(operation.endpoint) or "").partition("\n")[0],
        "operationId": f"{operation.tag}_{operation.name}",
        "responses": {
            **{str(status): done for status in operation.statuses},
            **{str(status): refused for status in operation.refusals},
        },
    }
    if parameters := [
        *({"name": n, "in": "path", "required": True, "schema": _TEXT} for n in _PARAMETER.findall(operation.path)),
        *({"name": n, "in": "header", "description": d, "schema": _TEXT} for n, d in operation.headers.items()),
    ]:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {operation.sent_as: {"schema": _of(operation.body)}}}
    return described


def _of(kind: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS + kind.__name__}
