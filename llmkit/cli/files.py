"""Files that a command makes: each is written whole, or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator


def write(text: str, file: str, *, option: str) -> None:
    """Write a text as UTF-8, in the place of what there is; a device or a pipe is written to, not replaced.

    Args:
        text: the text.
        file: the path.
        option: what the path was given with, for the message.

    Raises:
        InvalidRequestError: it cannot be written.
    """
    with _told(file, option):
        path = Path(file)
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        with _beside(path) as new:
            new.write_text(text, encoding="utf-8", newline="\n")
            new.replace(path.resolve())


def create(text: str, path: Path, *, option: str) -> None:
    """Write a text as UTF-8 to a file that is not there yet, and make its folders.

    Raises:
        InvalidRequestError: it cannot be written, or is there.
    """
    with _told(str(path), option):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                path.unlink()  # a part of it would be in the way of the next try
                raise


def check(file: str, *, option: str) -> None:
    """Raise now what `write` would; a file that is there stays as it is."""
    with _told(file, option):
        path = Path(file)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with _beside(path) as new:
            new.touch()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder; what is there afterwards is deleted."""
    new = path.resolve().with_name(f".llmkit-{os.getpid()}.new")
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def _told(file: str, option: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"{option} {file!r} cannot be written: {reason}") from error
