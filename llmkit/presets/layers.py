"""Merges preset files into one set of values, each with its location: `extends`, versions, and errors with their place.

The values of a preset are kept flat: (key, key, …) to the value and its location. A file's values override
those of the file it extends, a version's override both.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from llmkit.config import yaml
from llmkit.errors import PresetError
from llmkit.presets import lwe
from llmkit.presets.values import SourceLocation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmkit.presets.values import FlatPreset, Key

Finder: TypeAlias = "Callable[[str, Path, tuple[Path, ...]], Path]"
"""Finds the file of a preset that another one extends: its name, the other's file, and the files on the way."""

NEAR = 0.82  # top_k is 0.8 of top_p and another thing; temprature is 0.95 of temperature and a slip
_MOST_FILES = 64
_OFTEN = frozenset({"description", "model", "system", "params", "extends", "metadata", "model_customizations"})


class PresetReader:
    """Reads a preset file with all it extends.

    Attributes:
        contents: the files' bytes, in order; each is read once, so the values are made of exactly these.
    """

    def __init__(self, find: Finder) -> None:
        self._find = find
        self._known: dict[Path, bytes] = {}
        self._reads = 0

    @property
    def contents(self) -> list[bytes]:
        """The files' bytes, in order."""
        return list(self._known.values())

    def read(self, path: Path, chain: tuple[Path, ...] = ()) -> FlatPreset:
        """Return the flat values of a preset file, over those of all it extends.

        Raises:
            PresetError: a file is wrong or missing, or presets extend each other in a circle.
        """
        path, real = Path(os.path.abspath(path)), Path(os.path.realpath(path))  # noqa: PTH100 - as the user knows it
        if real in chain:
            circle = " → ".join(item.stem for item in (*chain[chain.index(real) :], real))
            raise PresetError(f"{path}: extends goes in a circle: {circle}")
        own = self._own(path)
        extends, place = own.pop(("extends",), ([], SourceLocation(str(path))))
        parents = [extends] if isinstance(extends, str) else extends
        if not isinstance(parents, list) or not all(isinstance(name, str) for name in parents):
            raise PresetError(f"{place}: extends must be the name of a preset or a list of names, not {extends!r}")
        merged: FlatPreset = {}
        for name in parents:
            try:
                parent = self._find(name, real, (*chain, real))
            except PresetError as error:
                raise PresetError(f"{place}: extends: {error}") from error
            merged = merge(merged, self.read(parent, (*chain, real)))
        merged = merge(merged, own)
        if len(merged) > yaml.MOST_NODES:
            raise PresetError(f"{path}: more than {yaml.MOST_NODES:,} values with all it extends")
        return merged

    def _own(self, path: Path) -> FlatPreset:
        self._reads += 1
        if self._reads > _MOST_FILES:
            raise PresetError(f"{path}: it and what it extends are more than {_MOST_FILES} files")
        try:
            if path not in self._known:
                self._known[path] = yaml.read(path)
            document = yaml.document(self._known[path], str(path))
        except FileNotFoundError as error:
            raise PresetError(f"{path}: {error.strerror}") from error
        except yaml.YamlError as error:
            raise PresetError(str(error)) from error
        if _is_foreign(document.data):
            keys = ", ".join(map(str, list(document.data)[:3]))
            raise PresetError(f"{path}:1:1: this is no preset: it has {keys}, and no key of one")
        leaves = {
            key: (value, SourceLocation(str(path), *document.places.get(key, (1, 1))))
            for key, value in flat(document.data).items()
        }
        return lwe.translated(leaves) if lwe.is_lwe(document.data) else leaves


def _is_foreign(data: Mapping[Any, Any]) -> bool:
    """Return whether a file is another program's: none of its keys is one of ours, or nearly."""
    if len(data) < 2 or _OFTEN & data.keys():  # noqa: PLR2004
        return False
    import difflib

    from llmkit.presets.model import PresetFile

    known = [*(field.alias or name for name, field in PresetFile.model_fields.items()), *_OFTEN]
    return not any(difflib.get_close_matches(str(key), known, n=1, cutoff=NEAR) for key in data)


def flat(data: Mapping[Any, Any], above: Key = ()) -> dict[Key, Any]:
    """Return the flat values of nested mappings; lists and empty mappings are values."""
    if len(above) > yaml.MOST_DEPTH:
        raise PresetError(f"{above[0]}: nested more than {yaml.MOST_DEPTH} levels deep")
    leaves: dict[Key, Any] = {}
    for key, value in data.items():
        here = (*above, key)
        if value is None and above == ("versions",):
            value = {}  # noqa: PLW2901 - a version that changes nothing
        leaves |= flat(value, here) if isinstance(value, dict) and value else {here: value}
    return leaves


def given(data: Mapping[str, Any], where: str) -> FlatPreset:
    """Return the flat values of a mapping given in code."""
    leaves = {key: (value, SourceLocation(where)) for key, value in flat(data).items()}
    return lwe.translated(leaves) if lwe.is_lwe(data) else leaves


def merge(below: FlatPreset, above: FlatPreset) -> FlatPreset:
    """Return *below* overridden by *above*: mappings are merged, everything else is replaced."""
    inner = _above(below)
    new = {key: leaf for key, leaf in above.items() if leaf[0] != {} or not (key in below or key in inner)}
    mappings = _above(new)
    kept = {
        key: leaf
        for key, leaf in below.items()
        if key not in mappings and not any(key[:end] in new for end in range(1, len(key) + 1))
    }
    return {**kept, **new}


def _above(leaves: FlatPreset) -> set[Key]:
    """Return the keys of the mappings that contain the values."""
    return {key[:end] for key in leaves for end in range(1, len(key))}


def values_of(leaves: FlatPreset, name: str) -> list[Any]:
    """Return the items of a list in a preset and in all of its versions."""
    lists = (
        value for key, (value, _) in leaves.items() if key == (name,) or (key[0] == "versions" and key[2:] == (name,))
    )
    return [item for value in lists if isinstance(value, list) for item in value]


def nested(leaves: FlatPreset) -> dict[Any, Any]:
    """Return the nested data of flat values."""
    data: dict[Any, Any] = {}
    for key, (value, _) in leaves.items():
        if value is None and not {"variables", "schema"} & set(key[:-1]):
            continue  # as if it were not there
        inner = data
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = value
    return data


def version_of(leaves: FlatPreset, number: int | None) -> FlatPreset:
    """Return the values overridden by those of one version, and without the versions."""
    base = {key: leaf for key, leaf in leaves.items() if key[0] != "versions"}
    chosen = {key[2:]: leaf for key, leaf in leaves.items() if key[:2] == ("versions", number)}
    return merge(base, {key: leaf for key, leaf in chosen.items() if key and key != ("ratio",)})


def ratios(leaves: FlatPreset) -> dict[int, float]:
    """Return the numbers of a valid file's versions with their ratios, 0 where none is set."""
    numbers = dict.fromkeys(key[1] for key in leaves if key[0] == "versions" and len(key) > 1)
    return {number: leaves.get(("versions", number, "ratio"), (None, None))[0] or 0.0 for number in numbers}


def place_of(leaves: FlatPreset, key: Key) -> SourceLocation | None:
    """Return where a key is, or else the mapping around it or a key inside it."""
    for end in range(len(key), 0, -1):
        if location := next((place for other, (_, place) in leaves.items() if other[:end] == key[:end]), None):
            return location
    return None
