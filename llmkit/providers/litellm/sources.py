"""LiteLLM's open streams, read piece by piece, with blocking calls or with awaits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Piece, Reply
from llmkit.errors import IncompleteStreamError, ProviderError
from llmkit.providers.litellm.chunks import Chunks, no_tokens, read_chat

if TYPE_CHECKING:
    from llmkit.providers.litellm.attempt import Attempt


class _LiteLLMSource:
    """What the sync and the async source share: the chunks so far, and the reply made of them."""

    def __init__(self, attempt: Attempt, wrapper: Any) -> None:
        self.complete = False
        self._attempt = attempt
        self._wrapper = wrapper
        wrapper.count_prompt_tokens = no_tokens
        self._chunks = Chunks()
        self._whole: Any = None  # the answer of a provider that does not stream

    def _take(self, chunk: Any) -> Piece:
        """Record a chunk and return it as a piece."""
        self._chunks.add(chunk)
        choice = chunk.choices[0] if chunk.choices else None
        delta = getattr(choice, "delta", None)
        content = getattr(delta, "content", None) or ""
        if content and self._attempt.first_token_s is None:
            self._attempt.first_token_s = time.monotonic() - self._attempt.started
        return Piece(
            content=content,
            reasoning=getattr(delta, "reasoning_content", None) or "",
            tool_calls=getattr(delta, "tool_calls", None) or (),
            finish_reason=getattr(choice, "finish_reason", None) if self._has_ended() else None,
            index=getattr(choice, "index", 0) or 0,
            raw=chunk,
        )

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
            self._whole = read_chat(attempt.wire)
            if self._whole is None:
                raise attempt.translated(ValueError("no stream"))
            self.complete = True
            choice = self._whole.choices[0]
            return Piece(
                content=choice.message.content or "",
                reasoning=getattr(choice.message, "reasoning_content", None) or "",
                tool_calls=choice.message.tool_calls or (),
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
        if self._whole is not None:
            return self._attempt.reply(self._whole, complete=True)
        raw = self._chunks.response(self._attempt.request)
        reported = any(getattr(chunk, "usage", None) for chunk in self._wrapper.chunks)
        return self._attempt.reply(raw, reported=reported, complete=self.complete)


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
