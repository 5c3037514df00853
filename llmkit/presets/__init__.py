"""Presets: the settings of a call, in a YAML file, chosen by name.

A preset named `brief` is the first `brief.yaml` found in the folders of `folders()`; `brief@2` is its version 2. A
name with a path separator or ending in `.yaml` is the path of the file itself.

In a command, one that is found only because it came with the current folder is not trusted: see `trust`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import remembered
from llmkit.config.preset_folders import (
    SUFFIXES,
    files,
    find,
    folders,
    is_path,
    names,
    own_folder,
    shipped,
    usual_folder,
)
from llmkit.errors import InvalidRequestError, PresetError, UnknownPresetError
from llmkit.presets import layers, untrusted
from llmkit.presets.preset import Preset, of_state, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.config.trust import Claim
    from llmkit.presets.model import PresetFile
    from llmkit.presets.values import SourceLocation

__all__ = [
    "SUFFIXES",
    "Explained",
    "Preset",
    "changed",
    "check",
    "claims",
    "explain",
    "files",
    "find",
    "folders",
    "is_path",
    "json_schema",
    "load",
    "names",
    "of_somebody",
    "own_folder",
    "peek",
    "shipped",
    "usual_folder",
]

DEPLOY, LATEST = "deploy", "latest"
SCHEMA_FILE = "preset.schema.json"


@dataclass(frozen=True, slots=True)
class Explained:
    """One final value of a preset: its dotted key, the value, and the file and line it came from."""

    key: str
    value: Any
    place: SourceLocation


def load(name: str, version: int | str | None = None) -> Preset:
    """Return the preset called *name*.

    Args:
        name: the name, the name and a version as in `brief@2`, or the path of a file.
        version: its number, "latest", or "deploy" (the default): drawn by the ratios, the latest if there are none.

    Raises:
        UnknownPresetError: no folder has it, or it has no such version; similar names are listed.
        PresetError: the file is wrong; file, line, column and key are named. In a command: it came with the folder,
            has more than texts and numbers, and is not trusted.
    """
    name, read = _located(name, version)
    untrusted.cleared(read.source, named=is_path(name))
    return read.preset()


def peek(name: str | Path, version: int | str | None = None) -> Preset:
    """Return a preset to look at, not to call with; *name* may be the path of its file."""
    return _located(name, version)[1].preset()


def explain(name: str, version: int | str | None = None) -> list[Explained]:
    """Return every final value of a preset with the file and line it came from. Arguments as for `load`."""
    _, read = _located(name, version)
    return [
        Explained(".".join(map(str, key)), value, place)
        for key, (value, place) in layers.version_of(read.source.leaves, read.number).items()
    ]


def changed(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """Return a preset with *changes* applied, keys as in a file (LWE's sections too); the original is not changed.

    Raises:
        PresetError: a key is unknown or a value out of range; it is named.
    """
    if not isinstance(changes, dict):
        raise InvalidRequestError(f"what changes in a preset is a mapping, not {changes!r}")
    given = layers.given(changes, "overrides")
    for word in ("extends", "versions"):
        if any(key[0] == word for key in given):
            raise PresetError(f"overrides: {word!r} stands in a preset's file only")
    leaves = layers.merge(layers.given(preset.as_dict(), f"preset {preset.name!r}"), given)
    from llmkit.presets import checks

    checks.check(leaves, "overrides")
    return checks.preset(leaves, preset.name, preset.version)


def check(path: Path) -> PresetFile:
    """Read one preset file with all it extends.

    Raises:
        PresetError: it is wrong; the message has one line for each fault.
    """
    from llmkit.presets import checks

    return checks.check(untrusted.read(path).leaves, str(path))


def claims(path: Path) -> list[Claim]:
    """Return what a preset's file needs the user's trust for, and after it the same for each preset it falls back on.

    The first claim covers all of them together. Nothing is imported.

    Raises:
        PresetError: the file is wrong.
    """
    from llmkit.presets import checks

    source = untrusted.read(path)
    checks.check(source.leaves, str(path))
    return untrusted.of(source)


def of_somebody(snapshot: Mapping[str, Any]) -> tuple[Preset, list[str]]:
    """Return somebody else's preset reduced to texts and numbers, and the keys that are left out."""
    kept, lost = untrusted.without(Preset(**snapshot).as_dict())
    return Preset(**kept), lost


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a preset's file, for editors."""
    from llmkit.presets.model import PresetFile

    made = PresetFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


class _Read:
    """A preset's file as it was read, which is valid, and the number of the version that is wanted, or None.

    What pydantic made of its values is remembered by all of them, whichever files they stand in.
    """

    def __init__(self, source: untrusted.Source, version: int | str) -> None:
        self.source = source
        self._values = repr([(key, value) for key, (value, _) in source.leaves.items()]).encode()
        self._states = remembered.recall("preset", self._values, _states)
        if self._states is None:
            from llmkit.presets import checks

            checks.check(source.leaves, str(source.path))
        self.number = _number(source.path.stem, layers.ratios(source.leaves), version)

    def preset(self) -> Preset:
        """Return the preset."""
        name, number, states = self.source.path.stem, self.number, self._states or {}
        if str(number) in states:
            return of_state(states[str(number)], name, number)
        from llmkit.presets import checks

        made = checks.preset(self.source.leaves, name, number)
        remembered.keep("preset", self._values, {**states, str(number): state_of(made)})
        return made


def _states(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of a preset's versions by their numbers, if that is what was kept."""
    return {number: {part: dict(state[part]) for part in ("values", "data")} for number, state in kept.items()}


def _located(name: str | Path, version: int | str | None) -> tuple[str, _Read]:
    """Return the name without its version, and the preset's file as read."""
    if isinstance(name, str):
        bare, at, wanted = name.rpartition("@")
        if at and version is None and bare and os.sep not in wanted and "/" not in wanted:
            name, version = bare, int(wanted) if wanted.isdecimal() else wanted
    source = untrusted.read(name if isinstance(name, Path) else find(name))
    return str(name), _Read(source, DEPLOY if version is None else version)


def _number(name: str, ratios: Mapping[int, float], wanted: int | str) -> int | None:
    """Return the number of the requested version, or None if the preset has no versions."""
    if wanted == DEPLOY and any(ratios.values()):
        import random

        return random.choices(list(ratios), list(ratios.values()))[0]  # noqa: S311
    if wanted in {DEPLOY, LATEST}:
        return max(ratios, default=None)
    if wanted not in ratios:
        known = ", ".join(map(str, sorted(ratios))) or "none"
        raise UnknownPresetError(f"preset {name!r} has no version {wanted!r}; it has: {known}")
    return int(wanted)
