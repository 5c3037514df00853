"""Files that only the user can read and can have written: keys, routes that were learned, where a process is."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NEVER_WAIT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def text_of(path: Path) -> str | None:
    """Return the text of a file that belongs to the user and is closed to everybody else, or None."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | _NEVER_WAIT), encoding="utf-8") as file:
            state = os.fstat(file.fileno())
            is_own = not hasattr(os, "getuid") or (state.st_uid == os.getuid() and not state.st_mode & 0o077)
            return file.read() if is_own and stat.S_ISREG(state.st_mode) else None
    except (OSError, UnicodeDecodeError):
        return None


def write(path: Path, text: str) -> None:
    """Write a file that only the user can read; a reader sees the old text or the new one."""
    import tempfile  # 5 ms, and few write

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    number, new = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its mode is 0600
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        Path(new).replace(path)
    except OSError:
        Path(new).unlink(missing_ok=True)
        raise


@contextmanager
def locked(lock: Path, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock, which is released even if the process dies; *on_wait* is called if another one has it."""
    import filelock  # 10 ms, and few lock

    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        on_wait()
        held.acquire()
    try:
        yield
    finally:
        held.release()
