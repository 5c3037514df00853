"""Presets: what a call shall be, in a YAML file, chosen by name.

A preset named `brief` is the first `brief.yaml` found in the folders of `folders()`. A name with a path separator
or ending in `.yaml` is the path of the file itself.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmkit import _yaml
from llmkit.config import config_dir
from llmkit.errors import PresetError, UnknownPresetError
from llmkit.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUFFIX = ".yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RetryKeys(_Strict):
    """How often a call is sent; see `llmkit.Retry`."""

    tries: int = Field(default=3, ge=1)
    delay_s: float = Field(default=0.5, ge=0)
    backoff: float = Field(default=2.0, ge=1)
    max_delay_s: float = Field(default=8.0, ge=0)
    deadline_s: float | None = Field(default=None, gt=0)
    jitter: bool | None = None
    max_retry_after_s: float = Field(default=60.0, ge=0)


class Params(BaseModel):
    """What goes to the provider beside the messages; keys that are not listed go as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = None
    stop: str | list[str] | None = None


class Preset(_Strict):
    """One preset.

    Attributes:
        name: what it is chosen by: the file's name without its ending.
        model: LiteLLM's `provider/model`, or `local/smollm2`; None for the default one.
        system: the system message.
        params: what goes to the provider beside the messages.
        timeout: seconds for one answer.
        retry: how often a call is sent.
    """

    name: str = Field(default="", exclude=True)
    description: str = ""
    model: str | None = None
    system: str | None = None
    params: Params = Params()
    timeout: float | None = Field(default=None, gt=0)
    retry: RetryKeys | None = None

    def set_params(self) -> dict[str, Any]:
        """Return the parameters that the preset sets."""
        return self.params.model_dump(exclude_unset=True)

    def retry_policy(self) -> Retry | None:
        """Return the retries the preset asks for, None when it asks for none."""
        return None if self.retry is None else Retry(**self.retry.model_dump())


def folders() -> list[Path]:
    """Return the folders that are searched, in order; the first that has the name wins.

    `LLMKIT_PRESETS`, `presets/` of the folder the user stands in or of one above it up to the project's root,
    `presets/` in the user's configuration folder, and the presets that llmkit ships.
    """
    given = [Path(item).expanduser() for item in os.environ.get("LLMKIT_PRESETS", "").split(os.pathsep) if item]
    return [*given, *_of_project(), config_dir() / "presets", shipped()]


def shipped() -> Path:
    """Return the folder of the presets that come with llmkit."""
    package = Path(__file__).parent
    packed = package / "_presets"
    return packed if packed.is_dir() else package.parent / "presets"


def load(name: str) -> Preset:
    """Return the preset called *name*.

    Raises:
        UnknownPresetError: no folder has it; near names are named.
        PresetError: the file is wrong; file, line, column and key are named.
    """
    return _read(find(name))


def find(name: str) -> Path:
    """Return the file of the preset called *name*."""
    if os.sep in name or name.endswith(_SUFFIX):
        path = Path(name).expanduser()
        if path.is_file():
            return path
        raise UnknownPresetError(f"no preset file {name}")
    for folder in folders():
        path = folder / f"{name}{_SUFFIX}"
        if path.is_file():
            return path
    known = sorted({path.stem for path in files()})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
    raise UnknownPresetError(f"no preset is called {name!r}; {advice}")


def files() -> Iterator[Path]:
    """Yield every preset file that can be chosen by name; of two with one name the one that wins."""
    seen: set[str] = set()
    for folder in folders():
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            if path.stem not in seen:
                seen.add(path.stem)
                yield path


def _of_project() -> list[Path]:
    """Return the nearest `presets/` at or above the working directory, not above the root of its project."""
    for folder in (here := Path.cwd(), *here.parents):
        if (folder / "presets").is_dir():
            return [folder / "presets"]
        if any((folder / mark).exists() for mark in (".git", "pyproject.toml")):
            break
    return []


def _read(path: Path) -> Preset:
    try:
        document = _yaml.load(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(f"{path}: {error}") from error
    except _yaml.YamlError as error:
        raise PresetError(str(error)) from error
    if "name" in document.data:
        line, column = document.places["name",]
        raise PresetError(f"{path}:{line}:{column}: a preset's name is its file's name; leave 'name' out")
    try:
        return Preset(name=path.stem, **document.data)
    except ValidationError as error:
        raise PresetError("\n".join(_complaint(path, document, item) for item in error.errors())) from error


def _complaint(path: Path, document: _yaml.Document, item: Any) -> str:
    """Say in one line what is wrong and where."""
    location = tuple(item["loc"])
    place = next(
        (document.places[location[:end]] for end in range(len(location), 0, -1) if location[:end] in document.places),
        (1, 1),
    )
    key = ".".join(map(str, location))
    if item["type"] == "extra_forbidden":
        model = {"retry": RetryKeys}.get(str(location[0]), Preset) if len(location) > 1 else Preset
        known = [field for field in model.model_fields if field != "name"]
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
        return f"{path}:{place[0]}:{place[1]}: unknown key {key!r}; {advice}"
    return f"{path}:{place[0]}:{place[1]}: {key}: {item['msg']}, not {item['input']!r}"
