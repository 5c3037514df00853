"""Python functions as tools: JSON schemas from type hints, and calls with a model's arguments."""

from __future__ import annotations

import inspect
import json
import pkgutil
import typing
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from llmkit.core import schemas
from llmkit.core.params import check_value
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of a call.

    Attributes:
        schemas: the OpenAI-style schemas sent to the provider.
        functions: the Python functions among them, by name.
    """

    schemas: Sequence[Mapping[str, Any]]
    functions: Mapping[str, Callable[..., Any]]


NO_TOOLS = Toolbox((), {})


def toolbox(tools: Any) -> Toolbox:
    """Return a toolbox: functions, or their names, are described by hints and docstring, mappings are kept as they are.

    One of them is taken as a list of one.

    Raises:
        InvalidRequestError: a tool is neither, or has the name of another; its index is named.
    """
    if callable(tools) or isinstance(tools, str | dict):
        tools = [tools]
    if not isinstance(tools, Iterable):
        raise InvalidRequestError(f"tools must be a list of functions or mappings, not {type(tools).__name__}")
    schemas: list[Mapping[str, Any]] = []
    functions: dict[str, Callable[..., Any]] = {}
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if isinstance(tool, str):
            tool = _imported(tool, index)  # noqa: PLW2901
        if callable(tool):
            schema = describe(tool)
            functions[schema["function"]["name"]] = tool
            schemas.append(schema)
        elif isinstance(tool, dict):
            check_value(tool, f"tool {index}")
            schemas.append(tool)
        else:
            raise InvalidRequestError(f"tool {index} is neither a function nor a mapping but {type(tool).__name__}")
        function = schemas[-1].get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            continue
        if name in names:  # whose call would it be
            raise InvalidRequestError(f"tool {index} has the name {name!r} of another tool; each needs its own")
        names.add(name)
    return Toolbox(schemas, functions)


def _imported(name: str, index: int) -> Any:
    """Return the function named `module:function`."""
    if ":" not in name:
        raise InvalidRequestError(f"tool {index}: {name!r} is no function; name one as module:function")
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidRequestError(f"tool {index}: {name!r} cannot be imported: {error}") from error


def describe(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the OpenAI-style schema of a function, from its name, docstring and type hints."""
    name = getattr(function, "__name__", type(function).__name__)
    parameters = _arguments(function, name)[0].model_json_schema()
    parameters.pop("title", None)
    for entry in parameters.get("properties", {}).values():
        entry.pop("title", None)
    description = inspect.getdoc(function) or name
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def read_arguments(function: Callable[..., Any], text: str) -> dict[str, Any]:
    """Return the keyword arguments for *function* from a model's JSON, checked and converted by its type hints.

    Raises:
        ValueError: the text is not JSON, or does not fit.
    """
    name = getattr(function, "__name__", type(function).__name__)
    from pydantic import ValidationError

    model, names = _arguments(function, name)
    try:
        checked = model.model_validate(json.loads(text or "{}"))
    except RecursionError:
        raise ValueError("they are nested too deeply") from None
    except ValidationError as error:
        raise ValueError(schemas.complaints(error)) from error
    return {names[field]: getattr(checked, field) for field in checked.model_fields_set}


def result_text(result: Any) -> str:
    """Return the text that answers a tool call: strings as they are, an exception with its class, the rest as JSON."""
    if isinstance(result, BaseException):
        return f"error: {type(result).__name__}: {result}"
    if isinstance(result, str):
        return result
    try:
        return json.dumps(result, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return str(result)


def _plain(value: Any) -> Any:
    """Return what JSON can say of an object: the fields of a pydantic model or a dataclass, else its text."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return str(value)


def _arguments(function: Callable[..., Any], name: str) -> tuple[Any, Mapping[str, str]]:
    """Return a pydantic model of the function's parameters, and the parameter of each field.

    The fields have names of their own, since a model cannot have any: `schema`, `model_config` and `_a` are parameters.
    """
    from pydantic import ConfigDict, create_model
    from pydantic.errors import PydanticUserError

    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    names: dict[str, str] = {}
    described: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        field = f"field{len(names)}"
        names[field] = parameter.name
        described[field] = (hints.get(parameter.name, Any), default)
    config = ConfigDict(extra="forbid", alias_generator=names.__getitem__)
    try:
        return create_model(name, __config__=config, **described), names
    except (PydanticUserError, NameError) as error:
        raise InvalidRequestError(f"the tool {name} cannot be described: {error}") from error
