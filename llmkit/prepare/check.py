"""Checks a preset for what can never work, before any call and without running anything of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.config import EMBEDDED_MODEL
from llmkit.core import schemas
from llmkit.errors import ConfigError, InvalidRequestError, PresetError, UnknownProviderError
from llmkit.prepare import prepare
from llmkit.presets import checks, layers, modules, peek, rendering, untrusted
from llmkit.providers import own
from llmkit.providers.deployments import LITELLM_NAMES
from llmkit.providers.litellm import catalogue, sdk
from llmkit.providers.model_info import full_name
from llmkit.providers.names import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmkit.presets import Preset
    from llmkit.presets.values import FlatPreset


def faults(path: Path) -> list[str]:
    """Return what is wrong with a preset's file, one line for each fault with its place. Nothing is imported or run."""
    try:
        leaves = untrusted.read(path).leaves
        file = checks.check(leaves, str(path))
    except PresetError as error:
        return str(error).splitlines()
    lines: dict[str, None] = {}
    for number in file.versions or [None]:
        lines |= dict.fromkeys(_of_version(layers.version_of(leaves, number)))
    return list(lines)


def usable(preset: Preset, model: str) -> None:
    """Raise the errors that a call with a preset would raise before it is sent; its tools are imported.

    Raises:
        LlmkitError: a variable, a fallback, a tool or a provider is missing, or the schema is invalid.
    """
    preset = preset.filled()
    turn = prepare("?", preset.model or model, preset, None, {})
    for request in (request for route in turn.plan.routes for request in route):
        if complaint := _of_model(request.model, dict(request.params)):
            raise UnknownProviderError(complaint, model=request.model)


def _of_version(leaves: FlatPreset) -> Iterator[str]:
    values = layers.nested(leaves)
    variables = values.get("variables") or {}
    for key, (value, place) in leaves.items():
        complaints: Iterator[str] = iter(())
        if key[0] in {"system", "model", "params", "examples"}:
            complaints = _of_texts(value, set(variables))
        elif key == ("fallbacks",):
            complaints = filter(None, map(_of_fallback, value))
        elif key == ("tools",):
            complaints = filter(None, (modules.fault(tool) for tool in value if isinstance(tool, str)))
        for complaint in complaints:
            yield f"{place}: {'.'.join(map(str, key))}: {complaint}"
    if values.get("schema"):
        try:
            schemas.check(values["schema"])
        except InvalidRequestError as error:
            yield f"{layers.place_of(leaves, ('schema',))}: {error}"
    if values.get("model") and (complaint := _of_filled_model(values)):
        yield f"{layers.place_of(leaves, ('model',))}: model: {complaint}"


def _of_texts(value: Any, variables: set[str]) -> Iterator[str]:
    if isinstance(value, str) and (complaint := rendering.fault(value, variables)):
        yield complaint
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _of_texts(item, variables)


def _of_filled_model(values: dict[str, Any]) -> str:
    if not rendering.is_plain(values["model"]):
        return ""  # what would be calculated is not known
    defaults = {name: value for name, value in (values.get("variables") or {}).items() if value is not None}
    try:
        model = rendering.fill(values["model"], defaults, "", environment=True)
    except ConfigError:
        return ""  # what will be filled in is not known
    return _of_model(model, values.get("params") or {})


def _of_model(model: str, params: dict[str, Any]) -> str:
    try:
        provider, slash, name = full_name(model).partition("/")
    except InvalidRequestError as error:
        return str(error)
    if provider == "local" and slash:
        known = f"local/{name}" == EMBEDDED_MODEL or name.endswith(".gguf")
        return "" if known else f"there is no local model {name!r}; there are: smollm2, and .gguf files by their path"
    if params.get("custom_llm_provider") or (params.get("api_base") and not slash):
        return ""
    if provider in PROVIDERS or provider in LITELLM_NAMES or own(provider) if slash else sdk.is_known(model):
        return ""
    return catalogue.unknown(model)


def _of_fallback(name: str) -> str:
    if "/" in name or ":" in name:
        return _of_model(name, {})
    try:
        peek(name)
    except PresetError as error:
        return str(error).splitlines()[0]
    return ""
