"""What was made of a content, such as a file's bytes, so that it is made once: JSON, in files that only the user sees.

Nothing is believed that somebody else can have written, that is damaged, or that another llmkit has made; and nothing
is kept that has a secret in it. What cannot be kept is made again: a full disk or a read-only home is no error.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.config import private, secrets
from llmkit.config.folders import data_dir

if TYPE_CHECKING:
    from collections.abc import Callable

_Made = TypeVar("_Made")
_MOST, _LONGEST = 200, 100_000  # files, and characters of one


def recall(kind: str, content: bytes, read: Callable[[Any], _Made]) -> _Made | None:
    """Return what *read* makes of that which was kept of a content, or None; *kind* says what was made of it."""
    try:
        file = _file(kind, content)
        seal, _, text = (private.text_of(file) or "").partition("\n")
        return read(json.loads(text)) if seal == _seal(file, text) else None
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError):  # no home, or another shape
        return None


def keep(kind: str, content: bytes, made: Any) -> None:
    """Keep what was made of a content, if it is plain data, which JSON returns as it is."""
    try:
        text = json.dumps(made)
        if len(text) > _LONGEST or json.loads(text) != made or secrets.masked(made) != made:
            return
        file = _file(kind, content)
        private.write(file, f"{_seal(file, text)}\n{text}")
        _tidy_up(file.parent)
    except (OSError, RuntimeError, TypeError, ValueError):
        return


def _tidy_up(folder: Path) -> None:
    """Remove the oldest files if there are too many, those that a killed process has left among them."""
    with os.scandir(folder) as entries:
        ours = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
    files = sorted(ours, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns)
    for file in files[:-_MOST]:
        Path(file.path).unlink(missing_ok=True)


def _file(kind: str, content: bytes) -> Path:
    return data_dir() / "remembered" / _digest(f"{_makers()}\n{kind}\n".encode() + content)


def _seal(file: Path, text: str) -> str:
    """Return what the file's first line has to be, so that a damaged one is seen, and one under another's name."""
    return _digest(f"{file.name}\n{text}".encode())


def _digest(content: bytes) -> str:
    import hashlib  # 3 ms, and a question without files needs none

    return hashlib.sha256(content).hexdigest()


@cache
def _makers() -> str:
    """Return what the result depends on besides the content: the code that makes it, by place, size and time."""
    own = Path(__file__).parent
    paths = [*sorted(own.glob("*.py")), *sorted(own.with_name("presets").glob("*.py"))]
    specs = [PathFinder.find_spec(name) for name in ("pydantic", "yaml")]
    paths += [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]
    states = [(path, path.stat()) for path in paths]
    return "\n".join([sys.version, *(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states)])
