"""Says on a terminal how much of a long question a model on this machine has read, until it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.types import Piece, Request, Source

LONG = 1000
"""How many tokens make a question long."""


class Reading:
    """A line on a terminal, gone at the end; nothing for a short question, or without a terminal."""

    def __init__(self, request: Request, terminal: TextIO | None) -> None:
        tokens = tokens_in(request)
        self._terminal = terminal if tokens > LONG else None
        self._write(f"llmkit: reading about {tokens:,} tokens")

    def __enter__(self) -> None:
        """Show it."""

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self.end()

    def show(self, progress: Mapping[str, Any]) -> None:
        """Show what llama.cpp says of its progress."""
        self._write(f"llmkit: reading {progress['total']:,} tokens, {progress['processed']:,} so far")

    def end(self) -> None:
        """Take it away; a second time does nothing."""
        self._write("")
        self._terminal = None

    def _write(self, line: str) -> None:
        if self._terminal is not None:
            self._terminal.write(f"\r\x1b[K{line}")
            self._terminal.flush()


class ReadingSource:
    """An open stream; what it says of its progress is shown, and its first word ends that."""

    def __init__(self, source: Source, reading: Reading) -> None:
        self._source, self._reading = source, reading

    def next(self) -> Piece | None:
        """Return the next piece of the answer."""
        while (piece := self._source.next()) is not None and (progress := getattr(piece.raw, "prompt_progress", None)):
            self._reading.show(progress)
        if piece is None or not piece.is_empty:
            self._reading.end()
        return piece

    def close(self) -> None:
        """Close the connection."""
        self._reading.end()
        self._source.close()

    def __getattr__(self, name: str) -> Any:
        """Return all other attributes of the stream."""
        return getattr(self._source, name)


def tokens_in(request: Request) -> int:
    """Return about how many tokens a request has, at four bytes each."""
    return sum(len(text.encode()) for message in request.messages for text in _texts(message.get("content"))) // 4


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [str(part.get("text", "")) for part in content or () if isinstance(part, dict)]
