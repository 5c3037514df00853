"""Where preset files are looked for, and which there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.config.folders import config_dir
from llmkit.errors import InvalidRequestError, UnknownPresetError

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIXES = (".yaml", ".yml")


def folders() -> list[Path]:
    """Return the folders that are searched, in order; the first that has the name wins.

    `LLMKIT_PRESETS`, `presets/` in the current folder or one above it up to the project's root,
    `presets/` in the user's configuration folder, and the presets that llmkit ships.
    """
    return [*_named(), *_of_project(), own_folder(), shipped()]


def shipped() -> Path:
    """Return the folder of the presets that come with llmkit."""
    package = Path(__file__).parent.parent
    packed = package / "_presets"
    return packed if packed.is_dir() else package.parent / "presets"


def own_folder() -> Path:
    """Return the folder of the user's own presets; it need not exist."""
    return config_dir() / "presets"


def usual_folder() -> Path:
    """Return the folder for a new preset: the project's, where the user stands in one with presets, else the user's."""
    return next(iter(_of_project()), own_folder())


def find(name: str, *, beside: Path | None = None, but: tuple[Path, ...] = ()) -> Path:
    """Return the file of the preset called *name*.

    Args:
        name: the name or a path; a relative path is looked for next to *beside*, if that is given.
        beside: the file that names it.
        but: files to skip unless there is no other: a preset may extend the one it hides.
    """
    if not isinstance(name, str):
        raise InvalidRequestError(f"a preset is chosen by its name, a text, not {name!r}")
    if is_path(name):
        path = (beside.parent if beside else Path()) / os.path.expanduser(name)  # noqa: PTH111 - a path with an unknown user is no error here
        if os.path.lexists(path):
            return path
        raise UnknownPresetError(f"no preset file {name}")
    if candidates := every(name):
        real = (path for path in candidates if Path(os.path.realpath(path)) not in but)
        return next(real, candidates[0])
    import difflib

    known = names()
    meant = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(meant)}?" if meant else f"there are: {', '.join(known)}"
    raise UnknownPresetError(f"no preset is called {name!r}; {advice}")


def every(name: str) -> list[Path]:
    """Return the files of all presets with a name; the first wins and hides the others."""
    return [path for folder in folders() if (path := files_in(folder).get(name)) is not None]


def files() -> Iterator[Path]:
    """Yield every preset file that can be chosen by name; of two with the same name, the one that wins."""
    seen: set[str] = set()
    for folder in folders():
        for name, path in files_in(folder).items():
            if name not in seen:
                seen.add(name)
                yield path


def names() -> list[str]:
    """Return the names of all presets that can be chosen, sorted."""
    return sorted(path.stem for path in files() if "@" not in path.stem)


def came_along(path: Path) -> bool:
    """Return whether a file found by name is there only because it came with the user's folder."""
    if path.parent not in _of_project():
        return False
    chosen = {os.path.realpath(folder) for folder in (*_named(), own_folder(), shipped())}
    return os.path.realpath(path.parent) not in chosen


def is_path(name: str) -> bool:
    """Return whether a name is the path of a file."""
    return os.sep in name or "/" in name or name.lower().endswith(SUFFIXES)


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by the names of their presets, without subfolders and hidden files."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entry.name for entry in entries if not _is_folder(entry))
    except OSError:
        return {}
    paths: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for name in listed:
            stem, ending = os.path.splitext(name)  # noqa: PTH122 - it is not a path yet
            if ending.lower() == suffix and not name.startswith("."):
                paths.setdefault(stem, folder / name)
    return dict(sorted(paths.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links is reported when it is read
        return False


def _named() -> list[Path]:
    named = os.environ.get("LLMKIT_PRESETS", "").split(os.pathsep)
    return [Path(os.path.expanduser(item)) for item in named if item]  # noqa: PTH111 - a path with an unknown user is no error here


def _of_project() -> list[Path]:
    """Return the nearest `presets/` at or above the working directory, not above the root of its project."""
    try:
        here = Path.cwd()
    except OSError:  # it was deleted
        return []
    for folder in (here, *here.parents):
        if os.path.isdir(folder / "presets"):  # noqa: PTH112 - one that may not be read counts as none
            return [folder / "presets"]
        if any(os.path.exists(folder / mark) for mark in (".git", "pyproject.toml")):  # noqa: PTH110
            break
    return []
