"""What an untrusted preset needs trust for, together with everything it extends and falls back on."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import preset_folders as folders
from llmkit.config import trust
from llmkit.errors import PresetError
from llmkit.presets import layers, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmkit.config import yaml
    from llmkit.presets.values import FlatPreset

_MOST_REACHED = 64
_PLAIN_OVERRIDES: Mapping[str, type] = {
    "system_message": str,
    "title": str,
    "activate_preset": bool,
    "stream": bool,
    "print_stream": bool,
}


@dataclass(frozen=True, slots=True)
class Source:
    """A preset's file as it was read.

    Attributes:
        path: the file.
        leaves: its flat values.
        contents: the bytes that those were read from.
        strangers: files it extends by name that are found only because they came with the user's folder.
    """

    path: Path
    leaves: FlatPreset
    contents: Sequence[bytes]
    strangers: Sequence[Path] = ()


def read(path: Path) -> Source:
    """Return a preset's file with all it extends.

    Raises:
        PresetError: a file is wrong or missing.
    """
    if "@" in path.stem:
        raise PresetError(f"{path}: a preset's name has no @ in it, which is for versions")
    strangers = []

    def find(name: str, beside: Path, but: tuple[Path, ...]) -> Path:
        file = folders.find(name, beside=beside, but=but)
        own = os.path.realpath(file.parent) == str(beside.parent)  # who trusts a file trusts it to know its neighbours
        if trust.watching() and not own and not folders.is_path(name) and folders.came_along(file):
            strangers.append(file)
        return file

    reader = layers.PresetReader(find)
    return Source(path, reader.read(path), reader.contents, strangers)


def cleared(source: Source, *, named: bool) -> None:
    """Go on only if the user trusts the files that came with the folder: the preset, or one it extends.

    Args:
        source: the preset.
        named: whether the user gave its path.

    Raises:
        PresetError: it is not trusted; the command to trust it is named.
    """
    if not trust.watching():
        return
    came_along = not named and folders.came_along(source.path)
    for path in [*([source.path] if came_along else ()), *source.strangers]:
        _tell_what_it_hides(path)
    if came_along or source.strangers:
        claims = of(source)
        trust.clear(claims)
        if claims[0].code:
            from llmkit.presets import modules

            modules.pin(claims[0].code)


def _tell_what_it_hides(path: Path) -> None:
    hidden = folders.every(path.stem)[1:]
    if hidden:
        whose = "the one of llmkit" if hidden[0].parent == folders.shipped() else str(hidden[0])
        trust.tell(f"the preset {path.stem!r} is {path}, which hides {whose}")


def of(source: Source) -> list[trust.Claim]:
    """Return the claim of a preset and its fallbacks together, and after it the claim of each fallback.

    Nothing is imported.
    """
    others = [other for other in _sources(_named(source)) if other.path != source.path]
    return [_claim(source, others), *(_claim(other, []) for other in others if folders.came_along(other.path))]


def without(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return somebody else's preset as far as it may be used, and the keys that are left out.

    Nobody is asked, and no fallback is looked up by name: here it would be another preset.
    """
    leaves = layers.given(data, "")
    wrong = {key[:2] if key[0] == "params" else key[:1] for key in plain.beyond(leaves)}
    if any("/" not in str(name) for name in layers.values_of(leaves, "fallbacks")):
        wrong.add(("fallbacks",))
    kept = {key: leaf for key, leaf in leaves.items() if not any(key[:end] in wrong for end in (1, 2))}
    return layers.nested(kept), sorted(_dotted(key) for key in wrong)


def of_template(path: Path, overrides: Mapping[str, Any], places: yaml.Places, content: bytes) -> list[trust.Claim]:
    """Return the claim of a prompt file and its preset together, and after it that of the preset."""
    wants, others = [], []
    for key, value in overrides.items():
        spot = places.get(("overrides", key)) or places.get(("request_overrides", key)) or places.get((key,), (1, 1))
        place = f"{path}:{spot[0]}:{spot[1]}"
        if key == "preset" and isinstance(value, str) and not folders.is_path(value):
            others += _sources([value])
        elif key == "preset_overrides" and isinstance(value, dict):
            given = plain.beyond(layers.given(value, place))
            wants += [trust.Want(f"preset_overrides.{_dotted(name)}", each, place) for name, (each, _) in given.items()]
        elif value is not None and not isinstance(value, _PLAIN_OVERRIDES.get(key, ())):
            wants.append(trust.Want(key, value, place))
    claim = _claim(Source(path, {}, [content]), others)
    claim = replace(claim, wants=[*wants, *claim.wants])
    return [claim, *(_claim(other, []) for other in others if folders.came_along(other.path))]


def _sources(names: Sequence[str]) -> list[Source]:
    """Return presets by name, and those that they fall back on."""
    sources: dict[Path, Source] = {}
    pending = list(names)
    while pending and len(sources) < _MOST_REACHED:
        try:
            other = read(folders.find(pending.pop().partition("@")[0]))
        except PresetError:
            continue  # it is reported when it is called
        if other.path not in sources:
            sources[other.path] = other
            pending += _named(other)
    return list(sources.values())


def _named(source: Source) -> list[str]:
    names = layers.values_of(source.leaves, "fallbacks")
    return [name for name in names if isinstance(name, str) and "/" not in name and ":" not in name]


def _claim(source: Source, others: Sequence[Source]) -> trust.Claim:
    every = [source, *others]
    wants = list(_wants(source, ""))
    wants += [want for other in others for want in _wants(other, f"{other.path.stem}: ")]
    tools = [tool for part in every for tool in layers.values_of(part.leaves, "tools") if isinstance(tool, str)]
    code: Mapping[str, Any] = {}
    if tools:
        from llmkit.presets import modules

        code = modules.beside(tools, Path(os.path.abspath(source.path)).parent.parent)  # noqa: PTH100 - links stay
    contents = [("preset", content) for part in every for content in part.contents]
    contents += [(f"module {name}", module.content) for name, module in sorted(code.items())]
    through = tuple(path for part in every for path in part.strangers)
    return trust.Claim(source.path, wants, contents, code, through)


def _wants(source: Source, above: str) -> Iterator[trust.Want]:
    """Yield what only a trusted preset may say, each item of a list by itself."""
    for key, (value, place) in plain.beyond(source.leaves).items():
        for item in value if isinstance(value, list) else [value]:
            yield trust.Want(above + _dotted(key), item, str(place))


def _dotted(key: Any) -> str:
    return ".".join(map(str, key))
