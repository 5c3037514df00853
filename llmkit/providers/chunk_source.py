"""An open stream of chunks: what has arrived, whether its end is one, and the reply made of it, on every way."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from llmkit.core.completion import Chunks
from llmkit.core.params import Halves
from llmkit.core.types import Piece, Reply
from llmkit.errors import IncompleteStreamError, ProviderError

if TYPE_CHECKING:
    from llmkit.core.completion import Chunk, Completion
    from llmkit.providers.attempt import Attempt


class ChunkSource:
    """What all open streams share: the chunks so far, and the reply made of them.

    Attributes:
        complete: whether the provider itself ended the answer.
    """

    def __init__(self, attempt: Attempt) -> None:
        self.complete = False
        self._attempt = attempt
        self._chunks = Chunks()
        self._halves: defaultdict[tuple[int, str], Halves] = defaultdict(Halves)
        self._whole: Completion | None = None  # the answer of a provider that does not stream

    def has_ended(self) -> bool:
        """Return whether the provider itself said why the answer ended."""
        return bool(self._attempt.wire.finish_reason)

    def whole_answer(self) -> Completion | None:
        """Return the answer in a body that is no stream, or None if it cannot be read."""
        raise NotImplementedError

    def so_far(self) -> Completion:
        """Return the answer so far."""
        return self._chunks.whole()

    def take(self, chunk: Chunk) -> Piece:
        """Record a chunk and return what it adds, as a piece."""
        self._chunks.add(chunk)
        if not chunk.choices:
            return Piece(raw=chunk)
        choice = chunk.choices[0]
        delta = choice.delta
        if delta.content:
            self._attempt.begun()
        content, reasoning = delta.content or "", delta.reasoning_content or ""
        if self._halves or not (content.isascii() and reasoning.isascii()):
            at, is_last = choice.index, bool(choice.finish_reason)
            content = self._halves[at, "content"].joined(content, last=is_last) if content or is_last else ""
            reasoning = self._halves[at, "reasoning"].joined(reasoning, last=is_last) if reasoning or is_last else ""
        return Piece(
            content=content,
            reasoning=reasoning,
            tool_calls=delta.tool_calls or (),
            finish_reason=choice.finish_reason if self.has_ended() else None,
            index=choice.index,
            raw=chunk,
        )

    def end(self) -> Piece | None:
        """Accept the end of the stream only if the provider sent one.

        A body that is not an event stream is read as a whole answer, and returned as one last piece.
        """
        if self.complete:
            return None
        attempt = self._attempt
        if attempt.wire.fault is not None:
            raise attempt.translated(attempt.wire.fault, self._chunks.text)
        if attempt.wire.parts and not self._chunks.text:
            return self._taken_whole()
        if self.has_ended():
            self.complete = True
            return None
        where = "in the middle of the answer" if self._chunks.text else "before the answer began"
        raise IncompleteStreamError(
            f"the stream ended {where}",
            provider=attempt.provider,
            model=attempt.request.model,
            partial=self._chunks.text,
            elapsed_s=time.monotonic() - attempt.started,
        )

    def _taken_whole(self) -> Piece:
        self._whole = self.whole_answer()
        if self._whole is None or not self._whole.choices:
            raise self._attempt.translated(ValueError("no stream"))
        self.complete = True
        choice = self._whole.choices[0]
        return Piece(
            content=choice.message.content or "",
            reasoning=choice.message.reasoning_content or "",
            tool_calls=choice.message.tool_calls or (),
            finish_reason=choice.finish_reason,
            raw=self._whole,
        )

    def failed(self, error: Exception) -> ProviderError:
        """Return llmkit's error for one of the stream, with the text so far."""
        return error if isinstance(error, ProviderError) else self._attempt.translated(error, self._chunks.text)

    def reply(self) -> Reply:
        """Return what has arrived so far as one reply."""
        completion = self._whole or self.so_far()
        if self._attempt.wire.model:
            completion = replace(completion, model=self._attempt.wire.model)
        raw = completion.model_dump(exclude_none=True) if self._whole is None else self._attempt.wire.data
        return self._attempt.reply(completion, raw, complete=self.complete)

    def close(self) -> None:
        """Close the connection."""
        if self._attempt.wire.close is not None:
            self._attempt.wire.close()

    async def aclose(self) -> None:
        """Close the connection."""
        self.close()
