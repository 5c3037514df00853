"""Checks the values of a preset, with pydantic: what is wrong, each with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llmkit.config import secrets
from llmkit.config.hints import near
from llmkit.core.params import ELSEWHERE, slip
from llmkit.errors import PresetError
from llmkit.presets.layers import nested, place_of, version_of
from llmkit.presets.model import Example, Keys, Limits, PresetFile, RetryKeys, Version
from llmkit.presets.preset import Preset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from llmkit.presets.values import FlatPreset, Key

_RATIO_TOLERANCE = 1e-6
_PARTS: Mapping[str, type[BaseModel]] = {"retry": RetryKeys, "limits": Limits, "examples": Example, "versions": Version}


def check(leaves: FlatPreset, path: str) -> PresetFile:
    """Return the validated file.

    Raises:
        PresetError: something is wrong; one line for each fault, with its place and the key that was probably meant.
    """
    complaints = [*_strange(leaves), *_slips(leaves), *_open_secrets(leaves)]
    try:
        words = {key: leaf for key, leaf in leaves.items() if isinstance(key[0], str) and key != ("name",)}
        file = PresetFile(**nested(words))
    except ValidationError as error:
        complaints += [_complaint(leaves, path, item) for item in error.errors()]
        raise PresetError("\n".join(complaints)) from error
    complaints += _wrong_ratios(leaves, file)
    if complaints:
        raise PresetError("\n".join(complaints))
    return file


def preset(leaves: FlatPreset, name: str, number: int | None) -> Preset:
    """Return the preset of validated values, in one of its versions."""
    return Preset(**nested(version_of(leaves, number)), name=name, version=number)


def _complaint(leaves: FlatPreset, path: str, item: Any) -> str:
    """Return in one line what is wrong and where."""
    location = tuple(part for part in item["loc"] if part in _spoken(leaves) or isinstance(part, int))
    location = location if item["type"] not in {"extra_forbidden", "missing"} else tuple(item["loc"])
    where = place_of(leaves, location) or path
    key = ".".join(map(str, location))
    if item["type"] == "extra_forbidden":
        above = next((part for part in reversed(location[:-1]) if part in _PARTS), None)
        known = [field.alias or name for name, field in _PARTS.get(above or "", PresetFile).model_fields.items()]
        return f"{where}: unknown key {key!r}; {near(str(location[-1]), known)}"
    if item["type"] == "missing":
        return f"{where}: {key} is missing"
    return f"{where}: {key}: {item['msg']}, not {secrets.masked(item['input'], str(location[-1]))!r}"


def _spoken(leaves: FlatPreset) -> set[Any]:
    """Return every key in the file; pydantic puts the names of types between them."""
    return {part for key in leaves for part in key}


def _strange(leaves: FlatPreset) -> list[str]:
    """Return a line for each key that cannot be one."""
    faults = [
        f"{place}: unknown key {key[0]!r}; the keys of a preset are words"
        for key, (_, place) in leaves.items()
        if not isinstance(key[0], str)
    ]
    if ("name",) in leaves:
        faults.append(f"{leaves['name',][1]}: a preset's name is its file's name; leave 'name' out")
    return faults


def _parameter(key: Key) -> Key:
    """Return the part of a key below `params`, or () if it is not a parameter."""
    if key[:1] == ("params",):
        return key[1:]
    return key[3:] if key[:1] == ("versions",) and key[2:3] == ("params",) else ()


def _slips(leaves: FlatPreset) -> list[str]:
    """Return a line for each parameter that is nearly a known one; other unknown ones are the provider's own."""
    faults = []
    for key, (_, place) in leaves.items():
        if not (below := _parameter(key)):
            continue
        name = below[0]
        whole = ".".join(map(str, key[: len(key) - len(below) + 1]))
        if advice := ELSEWHERE.get(name):
            faults.append(f"{place}: {whole} is no parameter: {advice}")
        elif meant := slip(str(name)):
            faults.append(f"{place}: unknown key {whole!r}; did you mean {meant!r}?")
        elif name in set(Keys.model_fields) - {"description", "tools"}:  # those are parameters too
            faults.append(f"{place}: {name!r} stands beside 'params', not in it")
    return faults


def _open_secrets(leaves: FlatPreset) -> list[str]:
    """Return a line for each secret in a file, among the parameters and the tools."""
    faults = []
    for key, (value, place) in leaves.items():
        beside = key[2:] if key[0] == "versions" else key
        if place.line and beside[:1] in {("params",), ("tools",)} and _has_secret(str(key[-1]), value):
            advice = "a secret never stands in a file; ${NAME} is an environment variable"
            faults.append(f"{place}: {'.'.join(map(str, key))}: {advice}")
    return faults


def _has_secret(name: str, value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_secret(str(inner), item) for inner, item in value.items())
    if isinstance(value, list):
        return any(_has_secret(name, item) for item in value)
    return isinstance(value, str) and secrets.is_secret(name, value)


def _wrong_ratios(leaves: FlatPreset, file: PresetFile) -> list[str]:
    ratios = [version.ratio for version in file.versions.values()]
    if not any(ratio is not None for ratio in ratios):
        return []
    total = sum(ratio or 0.0 for ratio in ratios)
    if abs(total - 1) <= _RATIO_TOLERANCE:
        return []
    return [f"{place_of(leaves, ('versions',))}: versions: the ratios sum to {total:g}, not to 1"]
