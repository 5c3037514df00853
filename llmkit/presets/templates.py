"""Prompt files: Jinja texts with variables and a front matter in YAML.

    ---
    description: Explain a word.
    preset: brief
    variables: {word: null, language: English}
    overrides: {preset_overrides: {params: {temperature: 0}}}
    ---
    Explain "{{ word }}" in {{ language }}.

`variables` have defaults, null if a value must be given; keys that are not listed here are variables too, as in
LWE's templates, and `request_overrides` is another name of `overrides`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import trust, yaml
from llmkit.errors import ConfigError, InvalidRequestError
from llmkit.presets import untrusted
from llmkit.presets.rendering import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", re.DOTALL)
SUFFIXES = (".md", ".j2", ".txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A prompt file.

    Attributes:
        name: the file's name without its ending.
        text: the text below the front matter.
        description: one line for people.
        preset: the preset to call, or None for the default one.
        variables: the defaults of its variables, None for those that need a value.
        overrides: settings that differ from the preset's.
    """

    name: str
    text: str
    description: str
    preset: str | None
    variables: Mapping[str, Any]
    overrides: Mapping[str, Any]

    def render(self, variables: Mapping[str, Any] | None = None) -> str:
        """Return the prompt.

        Raises:
            ConfigError: a variable has no value; it is named.
        """
        values = {name: value for name, value in self.variables.items() if value is not None}
        return render(self.text, {**values, **(variables or {})}, f"template {self.name!r}")


def load(name: str | Path, folders: Sequence[Path] = (), *, came_along: Sequence[Path] = ()) -> Template:
    """Return a prompt file: a path, or a name (with or without its ending) in one of *folders*.

    In a command, one that is found by name in the working directory or in a folder of *came_along* is not trusted.

    Raises:
        ConfigError: there is none, or its front matter is wrong.
        PresetError: it has more than texts, and is not trusted.
    """
    path = _find(name, folders)
    read = _read(path)
    if trust.watching() and not _is_path(name) and path.parent in {Path(), *came_along}:
        trust.clear(_claims(path, read))
    return read.template


def claims(path: Path) -> list[trust.Claim]:
    """Return what a prompt file needs the user's trust for, and after it the same for its preset.

    Raises:
        ConfigError: it cannot be read, or its front matter is wrong.
    """
    return _claims(path, _read(path))


@dataclass(frozen=True, slots=True)
class _File:
    template: Template
    document: yaml.Document
    content: bytes


def _read(path: Path) -> _File:
    try:
        content = yaml.read(path)
        text = yaml.decoded(content, str(path))
        matter = _FRONT_MATTER.match(text)
        document = yaml.load("\n" + (matter[1] or "") if matter else "", str(path))  # the first line is the mark
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YamlError as error:
        raise ConfigError(str(error)) from error
    return _File(_template(path, dict(document.data), text[matter.end() :] if matter else text), document, content)


def _template(path: Path, data: dict[str, Any], text: str) -> Template:
    preset, variables = data.pop("preset", None), data.pop("variables", None) or {}
    overrides = data.pop("overrides", None) or data.pop("request_overrides", None) or {}
    for key, value, kind in (("variables", variables, dict), ("overrides", overrides, dict)):
        if not isinstance(value, kind):
            raise ConfigError(f"{path}: {key} must be a mapping, not {value!r}")
    if preset is not None and not isinstance(preset, str):
        raise ConfigError(f"{path}: preset must be a name, not {preset!r}")
    return Template(
        name=path.stem,
        text=text,
        description=str(data.pop("description", None) or ""),
        preset=preset,
        overrides=overrides,
        variables={**data, **variables},
    )


def _claims(path: Path, read: _File) -> list[trust.Claim]:
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay
    wants = {"preset": read.template.preset, **read.template.overrides}
    return untrusted.of_template(path, wants, read.document.places, read.content)


def _is_path(name: str | Path) -> bool:
    text = str(name)
    return isinstance(name, Path) or os.sep in text or "/" in text or text.endswith(SUFFIXES)


def _find(name: str | Path, folders: Sequence[Path]) -> Path:
    given = Path(os.path.expanduser(name))  # noqa: PTH111 - a path with an unknown user is no error here
    candidates = [given, *(folder / f"{name}{suffix}" for folder in folders for suffix in ("", *SUFFIXES))]
    for path in candidates:
        if os.path.lexists(path) and not os.path.isdir(path):  # noqa: PTH112 - a path that may not be read is reported later
            return path
    raise ConfigError(f"no template {str(name)!r}; looked in {', '.join(map(str, [Path.cwd(), *folders]))}")


def pairs(given: Sequence[str]) -> dict[str, str]:
    """Return the variables of a command line, each given as `name=value`."""
    split = [item.partition("=") for item in given]
    for name, equals, _ in split:
        if not equals or not name:
            raise InvalidRequestError(f"a variable is given as name=value, not {name!r}")
    return {name: value for name, _, value in split}
