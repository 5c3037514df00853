"""A backend that plays a script: no key, no network, no waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from llmkit.core.completion import Choice, ChoiceMessage
from llmkit.core.engine import Backend
from llmkit.core.types import Piece, Reply, Request, Usage
from llmkit.errors import IncompleteStreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

Entry: TypeAlias = "Reply | str | Exception | Sequence[str | Piece | Exception]"
"""One entry of a script: an answer, an error to raise, or the pieces of a stream."""


def reply(text: str = "ok", *, finish_reason: str = "stop", usage: Usage | None = None, **message: Any) -> Reply:
    """Return a Reply like a provider's; *message* adds fields to `choices[0].message`."""
    choice = Choice(message=ChoiceMessage(content=text, **message), finish_reason=finish_reason)
    counted = usage or Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
    return Reply(text=text, model="scripted", finish_reason=finish_reason, usage=counted, choices=(choice,))


class ScriptedBackend(Backend):
    """A backend that plays a script instead of calling a provider.

    Attributes:
        requests: what was sent, in order.
        sleeps: the waits that were requested, in seconds; none is waited.
        closed: how many streams were closed.
    """

    def __init__(self, *script: Entry) -> None:
        """Take the answers to the first, second, … request; a further request is an error of the test."""
        self.script = list(script)
        self.requests: list[Request] = []
        self.sleeps: list[float] = []
        self.closed = 0

    def send(self, request: Request) -> Reply:
        """Return or raise the next entry."""
        entry = self._next(request)
        if isinstance(entry, Reply):
            return entry
        return reply(entry if isinstance(entry, str) else "".join(map(str, entry)))

    async def asend(self, request: Request) -> Reply:
        """Return or raise the next entry."""
        return self.send(request)

    def open(self, request: Request) -> ScriptedSource:
        """Return the next entry as a stream; a text comes word by word."""
        entry = self._next(request)
        text = entry.text if isinstance(entry, Reply) else entry
        if isinstance(text, str):
            words = text.split(" ")
            pieces: Sequence[str | Piece | Exception] = [words[0], *(f" {word}" for word in words[1:])]
            pieces = [*pieces, Piece(finish_reason="stop")]
        else:
            pieces = text
        return ScriptedSource(self, pieces, entry if isinstance(entry, Reply) else None)

    async def aopen(self, request: Request) -> ScriptedSource:
        """Return the next entry as a stream."""
        return self.open(request)

    def sleep(self, seconds: float) -> None:
        """Record the wait."""
        self.sleeps.append(seconds)

    async def asleep(self, seconds: float) -> None:
        """Record the wait."""
        self.sleeps.append(seconds)

    def _next(self, request: Request) -> Any:
        self.requests.append(request)
        if not self.script:
            raise AssertionError(f"request number {len(self.requests)} came, and the script has no more entries")
        entry = self.script.pop(0)
        if isinstance(entry, Exception):
            raise entry
        return entry


class ScriptedSource:
    """The stream of a `ScriptedBackend`, for sync and async loops."""

    def __init__(
        self, backend: ScriptedBackend, pieces: Sequence[str | Piece | Exception], whole: Reply | None
    ) -> None:
        self.complete = False
        self._backend = backend
        self._pieces = iter(pieces)
        self._whole = whole
        self._text = ""

    def next(self) -> Piece | None:
        """Return the next piece; a script without a finish reason is a stream that is cut."""
        for entry in self._pieces:
            if isinstance(entry, Exception):
                raise entry
            piece = Piece(content=entry) if isinstance(entry, str) else entry
            self._text += piece.content
            self.complete = piece.finish_reason is not None
            return piece
        if not self.complete:
            raise IncompleteStreamError("the stream ended in the middle of the answer", partial=self._text)
        return None

    async def anext(self) -> Piece | None:
        """Return the next piece."""
        return self.next()

    def reply(self) -> Reply:
        """Return what has been played so far."""
        if self._whole is not None and self.complete:
            return self._whole
        return reply(self._text, finish_reason="stop" if self.complete else None)  # type: ignore[arg-type]

    def close(self) -> None:
        """Count the closing."""
        self._backend.closed += 1

    async def aclose(self) -> None:
        """Count the closing."""
        self.close()
