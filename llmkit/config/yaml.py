"""YAML with positions: the data, and for each key its line and column. The only reader of YAML.

A file may come from anybody: its size, depth and number of values are limited before anything is built. What a preset
or the settings say is remembered by the content, so that PyYAML is imported for a new one only.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from llmkit.config import remembered
from llmkit.config.documents import MOST_BYTES, MOST_DEPTH, MOST_NODES, SIZE, Document, Places, YamlError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "MOST_BYTES",
    "MOST_DEPTH",
    "MOST_NODES",
    "Document",
    "Places",
    "YamlError",
    "decoded",
    "document",
    "load",
    "load_file",
    "read",
]


def read(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        FileNotFoundError: there is none.
        YamlError: it cannot be read, is not a file, or is too large.
    """
    try:
        # Opening a pipe would block; checking its kind first could still open another one.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:  # noqa: PTH123
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise YamlError(f"{path}: this is no file with text in it")
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, YamlError):
            raise
        raise YamlError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MOST_BYTES:
        raise YamlError(f"{path}: more than {SIZE}")
    return content


def load_file(path: Path) -> Document:
    """Return the parsed content of a file.

    Raises:
        FileNotFoundError: there is none.
        YamlError: as `read` and `load`.
    """
    return load(decoded(read(path), str(path)), str(path))


def document(content: bytes, name: str) -> Document:
    """Return the content of a preset or of the settings, parsed or remembered; *name* is the file's, for messages.

    Raises:
        YamlError: as `decoded` and `load`.
    """
    if (kept := remembered.recall("yaml", content, _of_json)) is not None:
        return kept
    made = load(decoded(content, name), name)
    places = [[list(path), *place] for path, place in made.places.items()]
    remembered.keep("yaml", content, [_paired(made.data), places])
    return made


def decoded(content: bytes, name: str) -> str:
    """Return the text of a file's content.

    Raises:
        YamlError: it is not UTF-8; the line is named.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlError(f"{name}:{line}: this is no UTF-8 text") from error


def load(text: str, name: str) -> Document:
    """Return *text* parsed; *name* is the file's, for messages. Empty text is an empty mapping.

    Raises:
        YamlError: broken YAML, a duplicate key, something that is not a mapping, or too much of it.
    """
    from llmkit.config import parser  # 12 ms

    return parser.load(text, name)


def _paired(value: Any) -> Any:
    """Return a value for JSON, which has texts as keys only: a mapping with others is a list of pairs under ""."""
    if isinstance(value, dict):
        if all(isinstance(key, str) and key for key in value):
            return {key: _paired(item) for key, item in value.items()}
        return {"": [[key, _paired(item)] for key, item in value.items()]}
    return [_paired(item) for item in value] if isinstance(value, list) else value


def _of_json(kept: Any) -> Document:
    data, places = kept
    return Document(dict(_mapped(data)), {tuple(path): (line, column) for path, line, column in places})


def _mapped(value: Any) -> Any:
    """Return the value that `_paired` was given."""
    if isinstance(value, dict):
        pairs = value[""] if "" in value else value.items()
        return {key: _mapped(item) for key, item in pairs}
    return [_mapped(item) for item in value] if isinstance(value, list) else value
