"""LiteLLM's open streams, read piece by piece, with blocking calls or with awaits."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Piece, Reply
from llmkit.errors import IncompleteStreamError, ProviderError
from llmkit.providers.completion import Chunk, Chunks, merged
from llmkit.providers.litellm.attempt import completion_of

if TYPE_CHECKING:
    from llmkit.providers.completion import Completion
    from llmkit.providers.litellm.attempt import Attempt


class _LiteLLMSource:
    """What the sync and the async source share: the chunks so far, and the reply made of them."""

    def __init__(self, attempt: Attempt, wrapper: Any) -> None:
        self.complete = False
        self._attempt = attempt
        self._wrapper = wrapper
        wrapper.count_prompt_tokens = _no_tokens
        self._chunks = Chunks()
        self._whole: Completion | None = None  # the answer of a provider that does not stream

    def _take(self, raw: Any) -> Piece:
        """Record a chunk and return it as a piece."""
        chunk = Chunk.of(raw.model_dump())
        self._chunks.add(chunk)
        piece = piece_of(chunk)
        if piece.content:
            self._attempt.begun()
        return piece if self._has_ended() else replace(piece, finish_reason=None)

    def _has_ended(self) -> bool:
        """Return whether the provider itself said why the answer ended; LiteLLM makes it up if it did not."""
        wrapper = self._wrapper
        return wrapper.received_finish_reason is not None or wrapper.intermittent_finish_reason is not None

    def _end(self) -> Piece | None:
        """Accept the end of the stream only if the provider sent one.

        A body that is not an event stream is read as a whole answer, and returned as one last piece.
        """
        if self.complete:
            return None
        attempt = self._attempt
        if attempt.wire.fault is not None:
            raise attempt.translated(attempt.wire.fault, self._chunks.text)
        if self._has_ended():
            self.complete = True
            return None
        if attempt.wire.parts and not self._chunks.text:
            raw = attempt.read_chat()
            if raw is None:
                raise attempt.translated(ValueError("no stream"))
            self._whole = completion_of(raw)
            self.complete = True
            choice = self._whole.choices[0]
            message = choice.message
            return Piece(
                content=message.content or "",
                reasoning=message.reasoning_content or "",
                tool_calls=message.tool_calls or (),
                finish_reason=choice.finish_reason,
                raw=self._whole,
            )
        where = "in the middle of the answer" if self._chunks.text else "before the answer began"
        raise IncompleteStreamError(
            f"the stream ended {where}",
            provider=attempt.provider,
            model=attempt.request.model,
            partial=self._chunks.text,
            elapsed_s=time.monotonic() - attempt.started,
        )

    def _failed(self, error: Exception) -> ProviderError:
        return self._attempt.translated(error, self._chunks.text)

    def reply(self) -> Reply:
        """Return what has arrived so far as one reply."""
        completion = self._whole
        if completion is None:  # LiteLLM makes up the usage of its last chunk; the provider's is on its way here
            sent = [usage.model_dump() for each in self._wrapper.chunks if (usage := getattr(each, "usage", None))]
            completion = replace(self._chunks.whole(), usage=reduce(merged, sent) if sent else None)
        return self._attempt.reply(completion, completion.model_dump(), complete=self.complete)


def piece_of(chunk: Chunk) -> Piece:
    """Return what a chunk adds to the first of its answers."""
    if not chunk.choices:
        return Piece(raw=chunk)
    choice = chunk.choices[0]
    return Piece(
        content=choice.delta.content or "",
        reasoning=choice.delta.reasoning_content or "",
        tool_calls=choice.delta.tool_calls or (),
        finish_reason=choice.finish_reason,
        index=choice.index,
        raw=chunk,
    )


def _no_tokens() -> int:
    """Return a prompt count for streams without usage: to count it itself, LiteLLM would fetch images."""
    return 0


class BlockingSource(_LiteLLMSource):
    """An open stream, read with blocking calls."""

    def next(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            chunk = next(self._wrapper, None)
        except Exception as error:
            if self._attempt.wire.fault is None and self._attempt.wire.parts:
                return self._end()  # LiteLLM stumbles over bodies that are not streams
            raise self._failed(error) from error
        return self._end() if chunk is None else self._take(chunk)

    def close(self) -> None:
        """Close the connection."""
        if self._attempt.wire.close is not None:
            self._attempt.wire.close()


class AwaitedSource(_LiteLLMSource):
    """An open stream, read with awaits."""

    async def anext(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            chunk = await anext(self._wrapper, None)
        except Exception as error:
            if self._attempt.wire.fault is None and self._attempt.wire.parts:
                return self._end()  # LiteLLM stumbles over bodies that are not streams
            raise self._failed(error) from error
        return self._end() if chunk is None else self._take(chunk)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._attempt.wire.close is not None:
            self._attempt.wire.close()
