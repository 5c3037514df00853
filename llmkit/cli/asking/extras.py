"""What few questions have: a schema, tools, a preset to write, a request to look at."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.cli.terminal import is_asked
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

_HEADERS = {"extra_headers", "headers"}
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_FIELD = re.compile(r"(?P<name>[A-Za-z_]\w*)(?:\s+(?P<type>\w+))?(?:\s*:\s*(?P<text>.+))?")
_BLOCK = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n`]*\n(?P<code>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)


def schema_of(text: str) -> dict[str, Any]:
    """Return the JSON Schema that a text is, that a file of this name has, or that is meant by `name, age int`.

    Fields are separated by commas, or by lines where they are described: `name: as in the passport`.
    """
    written = text.strip()
    if not written.startswith("{"):
        try:
            written = Path(text).read_text(encoding="utf-8").strip() if _is_file(text) else written
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"--schema {text}: cannot be read: {error}") from error
    if not written.startswith("{"):
        return _of_fields(written)
    try:
        schema: dict[str, Any] = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"--schema is no JSON: {error}") from error
    return schema


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null byte
        return False


def _of_fields(text: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for part in filter(str.strip, text.split("\n" if "\n" in text else ",")):
        field = _FIELD.fullmatch(part.strip())
        kind = field and (field["type"] or "str")
        if field is None or kind not in _TYPES:
            known = "str, int, float or bool"
            raise InvalidRequestError(
                f"--schema: {part.strip()!r} is no field; write a name and {known}, or name a file"
            )
        described = {"description": field["text"].strip()} if field["text"] else {}
        properties[field["name"]] = {"type": _TYPES[kind], **described}
    if not properties:
        raise InvalidRequestError("--schema is empty")
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def tools_of(names: Iterable[str]) -> list[Callable[..., Any]]:
    """Return the functions of `FILE.py:function`, or all public ones of `FILE.py`.

    At a terminal the user is asked before each call.
    """
    return [_asked_for(function) for name in names for function in _functions(name)]


def _functions(name: str) -> list[Callable[..., Any]]:
    path, _, wanted = name.rpartition(":") if ":" in name and not name.endswith(".py") else (name, "", "")
    module = _loaded(Path(path))
    if not wanted:
        found: list[Callable[..., Any]] = [
            value
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
        ]
        if not found:
            raise InvalidRequestError(f"-T {name}: there is no public function in it")
        return found
    function = getattr(module, wanted, None)
    if not callable(function):
        raise InvalidRequestError(f"-T {name}: there is no function {wanted} in {path}")
    return [function]


def _loaded(file: Path) -> ModuleType:
    if not file.is_file():
        raise InvalidRequestError(f"-T {file}: no such file; write FILE.py, or FILE.py:function")
    spec = importlib.util.spec_from_file_location(f"llmkit_tools_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InvalidRequestError(f"-T {file}: this is no Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InvalidRequestError(f"-T {file}: {type(error).__name__}: {error}") from error
    return module


def _asked_for(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that asks the user before it runs, if there is one to ask."""

    @functools.wraps(function)
    def asking(*args: Any, **kwargs: Any) -> Any:
        arguments = inspect.signature(function).bind(*args, **kwargs).arguments  # in their order
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        if is_asked(f"the model calls {function.__name__}({given}); run it?") is False:
            return "the user does not allow this call"
        try:
            return function(*args, **kwargs)
        except SystemExit as end:  # its code would be taken for one of llmkit's own
            why = "" if end.code is None else f": {end.code}"
            raise SystemExit(f"llmkit: the tool {function.__name__} ended the program{why}") from None

    return asking


def code_in(text: str) -> str:
    """Return the first block of code of an answer, or all of it if it has none."""
    block = _BLOCK.search(text)
    return block["code"].rstrip("\n") if block else text


def save(name: str, chosen: dict[str, Any], options: dict[str, Any]) -> None:
    """Write what a question says besides its text to a new preset, and print its path on stderr."""
    from llmkit.cli.setup.presets import write_new

    own = {"api_key", "attachments", "budget", "ledger", "schema", "timeout", "tools", "variables"}
    preset = chosen["preset"]
    data: dict[str, Any] = {
        "extends": preset.name if preset is not None else None,
        "model": chosen["model"],
        "system": chosen["system"],
        "params": {key: value for key, value in options.items() if key not in own} or None,
        "schema": options.get("schema"),
        "timeout": options.get("timeout"),
        "variables": options.get("variables"),
    }
    print(write_new(name, {key: value for key, value in data.items() if value is not None}), file=sys.stderr)


def print_dry_run(prompt: str, chosen: dict[str, Any], options: dict[str, Any], *, whole: bool) -> None:
    """Print the request that a question would send, without secrets, and what it would cost, as JSON."""
    import llmkit
    from llmkit.config.secrets import KEY, masked
    from llmkit.prepare import prepare
    from llmkit.providers.routes.table import table

    given = {**options, "ledger": False}
    turn = prepare(prompt, chosen["model"], chosen["preset"], chosen["system"], given)
    request = turn.plan_for(turn.messages).routes[0][0]
    route = table().route_of(request.model)
    sent = route.request(request, stream=not whole) if route is not None else None
    if sent is not None:
        headers = {name: value if name == "content-type" else KEY for name, value in sent.headers}
        shown: dict[str, Any] = {"method": sent.method, "url": sent.url, "headers": headers}
        shown["body"] = json.loads(sent.body)
    else:
        shown = {"model": request.model, "api_base": request.api_base, "messages": list(request.messages)}
        hidden = dict.fromkeys(_HEADERS & request.params.keys(), KEY)
        shown["params"] = {**request.params, **hidden}
    quote = llmkit.quote(prompt, **chosen, **given)
    print(json.dumps(masked({"request": shown, "quote": asdict(quote)}), indent=2, ensure_ascii=False, default=str))
