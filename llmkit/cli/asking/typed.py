"""What is typed at a prompt: lines with editing and a history, and texts of many lines."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BLOCK = '"""'
_REMEMBERED = 1000


class Typed:
    """Reads what is typed, and remembers it.

    Args:
        history: the file of what was typed before, or None to remember nothing.
    """

    def __init__(self, history: Path | None) -> None:
        self._asks = sys.stdin.isatty()
        self._history, self._readline = history, _readline() if self._asks else None
        if self._readline is not None and history is not None:
            _recall(self._readline, history)

    def read(self) -> str | None:
        """Return the next text, or None at the end."""
        try:
            line = self._line("> ")
            if line.startswith(_BLOCK):
                return "\n".join(self._block(line[len(_BLOCK) :]))
            while line.endswith("\\"):
                line = f"{line[:-1]}\n{self._line('. ')}"
        except EOFError:
            if self._asks:
                print()
            return None
        except UnicodeDecodeError:
            raise InvalidRequestError("stdin is not text") from None
        return line

    def _block(self, first: str) -> Iterable[str]:
        """Yield the lines up to the closing marks."""
        line = first
        while not line.endswith(_BLOCK):
            if line:
                yield line
            line = self._line(". ")
        yield line[: -len(_BLOCK)]

    def _line(self, prompt: str) -> str:
        line = input(prompt if self._asks else "")
        append = getattr(self._readline, "append_history_file", None)  # libedit has none
        if line.strip() and append is not None and self._history is not None:
            with contextlib.suppress(OSError):  # at once, so that a killed chat leaves neither gaps nor other files
                append(1, self._history)
        return line


def _recall(readline: Any, file: Path) -> None:
    """Read what was typed before, and forget what is old."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT, 0o600))
        readline.read_history_file(file)
        if readline.get_current_history_length() > 2 * _REMEMBERED:
            readline.set_history_length(_REMEMBERED)
            readline.write_history_file(file)


def _readline() -> Any:
    """Return Python's `readline`, or None where there is none."""
    try:
        import readline
    except ImportError:  # Windows
        return None
    return readline
