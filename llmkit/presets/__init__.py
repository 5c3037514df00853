"""Presets: what a call shall be, in a YAML file, chosen by name.

A preset named `brief` is the first `brief.yaml` found in the folders of `folders()`; `brief@2` is its version 2. A
name with a path separator or ending in `.yaml` is the path of the file itself.
"""

from __future__ import annotations

import difflib
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit import config
from llmkit.errors import InvalidRequestError, PresetError, UnknownPresetError
from llmkit.presets import _layers
from llmkit.presets._layers import near
from llmkit.presets._model import Keys, Params, Preset, PresetFile, RetryKeys, Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmkit.presets._layers import Leaves, Place

__all__ = [
    "Explained",
    "Keys",
    "Params",
    "Preset",
    "PresetFile",
    "RetryKeys",
    "Version",
    "changed",
    "check",
    "explain",
    "files",
    "find",
    "folders",
    "json_schema",
    "load",
    "names",
    "near",
    "own_folder",
    "shipped",
]

DEPLOY, LATEST = "deploy", "latest"
SCHEMA_FILE = "preset.schema.json"
_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class Explained:
    """One final value of a preset: its dotted key, the value, and the file and line it came from."""

    key: str
    value: Any
    place: Place


def load(name: str, version: int | str | None = None) -> Preset:
    """Return the preset called *name*.

    Args:
        name: the name, the name and a version as in `brief@2`, or the path of a file.
        version: its number, "latest", or "deploy" (the default): drawn by the ratios, the latest where there are none.

    Raises:
        UnknownPresetError: no folder has it, or it has no such version; near names are named.
        PresetError: the file is wrong; file, line, column and key are named.
    """
    name, leaves, number = _resolved(name, version)
    return _layers.preset(leaves, name, number)


def explain(name: str, version: int | str | None = None) -> list[Explained]:
    """Return every final value of a preset with the file and line it came from. Arguments as for `load`."""
    _, leaves, number = _resolved(name, version)
    return [
        Explained(".".join(map(str, key)), value, place)
        for key, (value, place) in _layers.version_of(leaves, number).items()
    ]


def changed(preset: Preset, changes: Mapping[str, Any]) -> Preset:
    """Return a preset with *changes* laid over it, keys as in a file (LWE's sections too); nothing else is changed.

    Raises:
        PresetError: a key is unknown or a value out of range; it is named.
    """
    if not isinstance(changes, dict):
        raise InvalidRequestError(f"what changes in a preset is a mapping, not {changes!r}")
    given = _layers.given(changes, "overrides")
    for word in ("extends", "versions"):
        if any(key[0] == word for key in given):
            raise PresetError(f"overrides: {word!r} stands in a preset's file only")
    leaves = _layers.over(_layers.given(preset.as_dict(), f"preset {preset.name!r}"), given)
    _layers.check(leaves, "overrides")
    return _layers.preset(leaves, preset.name, None).model_copy(update={"version": preset.version})


def folders() -> list[Path]:
    """Return the folders that are searched, in order; the first that has the name wins.

    `LLMKIT_PRESETS`, `presets/` of the folder the user stands in or of one above it up to the project's root,
    `presets/` in the user's configuration folder, and the presets that llmkit ships.
    """
    given = [Path(item).expanduser() for item in os.environ.get("LLMKIT_PRESETS", "").split(os.pathsep) if item]
    return [*given, *_of_project(), own_folder(), shipped()]


def shipped() -> Path:
    """Return the folder of the presets that come with llmkit."""
    package = Path(__file__).parent.parent
    packed = package / "_presets"
    return packed if packed.is_dir() else package.parent / "presets"


def own_folder() -> Path:
    """Return the folder of the user's own presets; it need not exist."""
    return config.config_dir() / "presets"


def find(name: str, *, beside: Path | None = None, but: tuple[Path, ...] = ()) -> Path:
    """Return the file of the preset called *name*.

    Args:
        name: the name or a path; a relative path is looked for beside this file, where that is given.
        beside: the file that names it.
        but: files that are passed over, unless there is no other: a preset may extend the one it hides.
    """
    if os.sep in name or "/" in name or name.endswith(_SUFFIX):
        path = (beside.parent if beside else Path()) / Path(name).expanduser()
        if path.is_file():
            return path.resolve() if beside else path
        raise UnknownPresetError(f"no preset file {name}")
    candidates = [path for folder in folders() if (path := folder / f"{name}{_SUFFIX}").is_file()]
    if candidates:
        return next((path for path in candidates if path not in but), candidates[0])
    known = names()
    meant = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(meant)}?" if meant else f"there are: {', '.join(known)}"
    raise UnknownPresetError(f"no preset is called {name!r}; {advice}")


def files() -> Iterator[Path]:
    """Yield every preset file that can be chosen by name; of two with one name the one that wins."""
    seen: set[str] = set()
    for folder in folders():
        for path in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda path: path.stem):
            if path.stem not in seen:
                seen.add(path.stem)
                yield path


def names() -> list[str]:
    """Return the names of all presets that can be chosen, sorted."""
    return sorted({path.stem for path in files()})


def check(path: Path) -> PresetFile:
    """Read one preset file with all it extends.

    Raises:
        PresetError: it is wrong; a line for each thing.
    """
    return _read(path)[1]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a preset's file, for editors."""
    made = PresetFile.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _resolved(name: str, version: int | str | None) -> tuple[str, Leaves, int | None]:
    bare, at, wanted = name.rpartition("@")
    if at and version is None and bare and os.sep not in wanted:
        name, version = bare, int(wanted) if wanted.isdecimal() else wanted
    path = find(name)
    leaves, file = _read(path)
    return path.stem, leaves, _number(path.stem, file, DEPLOY if version is None else version)


def _number(name: str, file: PresetFile, wanted: int | str) -> int | None:
    """Return the number of the version that is wanted, None where a preset has no versions."""
    if wanted == DEPLOY and any(version.ratio for version in file.versions.values()):
        numbers = list(file.versions)
        return random.choices(numbers, [file.versions[number].ratio or 0.0 for number in numbers])[0]  # noqa: S311
    if wanted in {DEPLOY, LATEST}:
        return max(file.versions, default=None)
    if wanted not in file.versions:
        known = ", ".join(map(str, sorted(file.versions))) or "none"
        raise UnknownPresetError(f"preset {name!r} has no version {wanted!r}; it has: {known}")
    return int(wanted)


def _read(path: Path) -> tuple[Leaves, PresetFile]:
    leaves = _layers.read(path, lambda name, beside, but: find(name, beside=beside, but=but))
    return leaves, _layers.check(leaves, str(path))


def _of_project() -> list[Path]:
    """Return the nearest `presets/` at or above the working directory, not above the root of its project."""
    for folder in (here := Path.cwd(), *here.parents):
        if (folder / "presets").is_dir():
            return [folder / "presets"]
        if any((folder / mark).exists() for mark in (".git", "pyproject.toml")):
            break
    return []
