"""Says on a terminal how much of a long question a model on this machine has read, until it answers.

llama.cpp tells it of each request under way; of several that are, this shows the longest.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from llmkit.core.types import Piece, Request, Source
    from llmkit.providers.local.address import LocalServer

LONG = 1000
"""How many tokens make a question long, estimated at four bytes each."""
_EVERY_S = 0.5


class Reading:
    """A line on a terminal while a long question is being read; for a short one, or without a terminal, nothing."""

    def __init__(self, request: Request, server: LocalServer, terminal: TextIO | None) -> None:
        tokens = _tokens_in(request)
        self._said = f"llmkit: reading about {tokens:,} tokens"
        self._server = server
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if terminal is not None and tokens > LONG:
            self._thread = threading.Thread(target=self._show, args=(terminal,), name="llmkit-reading", daemon=True)
            self._thread.start()

    def __enter__(self) -> None:
        """Show the line from the beginning on."""

    def __exit__(self, *_: object) -> None:
        """Take the line away."""
        self.end()

    def end(self) -> None:
        """Take the line away; a second time does nothing."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _show(self, terminal: TextIO) -> None:
        line = self._said
        while not self._over.is_set():
            terminal.write(f"\r{line}")
            terminal.flush()
            self._over.wait(_EVERY_S)
            read = max((slot["n_prompt_tokens_processed"] for slot in self._server.busy_slots() or ()), default=0)
            line = f"{self._said}, {read:,} so far" if read else line
        terminal.write("\r\x1b[K")
        terminal.flush()


class ReadingSource:
    """An open stream whose first word ends a `Reading`."""

    def __init__(self, source: Source, reading: Reading) -> None:
        self._source, self._reading = source, reading

    def next(self) -> Piece | None:
        """Return the next piece."""
        piece = None
        try:
            piece = self._source.next()
        finally:
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


def _tokens_in(request: Request) -> int:
    """Return about how many tokens a request has."""
    return sum(len(text.encode()) for message in request.messages for text in _texts(message.get("content"))) // 4


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [str(part.get("text", "")) for part in content or () if isinstance(part, dict)]
