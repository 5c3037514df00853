"""LiteLLM's open streams, read piece by piece, with blocking calls or with awaits."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from llmkit.core.completion import FINISH_REASONS, Chunk, Completion, merged
from llmkit.providers.chunk_source import ChunkSource
from llmkit.providers.litellm.attempt import as_counted, completion_of
from llmkit.providers.routes.dialects import ANTHROPIC, GEMINI, UnfamiliarError, dialect_of, gemini

if TYPE_CHECKING:
    from llmkit.core.completion import ChunkChoice
    from llmkit.core.types import Piece
    from llmkit.providers.litellm.attempt import Attempt


_ENDLESS = "Stream ended before a finish_reason was received"


class _LiteLLMSource(ChunkSource):
    """What the sync and the async source share."""

    _attempt: Attempt

    def __init__(self, attempt: Attempt, wrapper: Any) -> None:
        super().__init__(attempt)
        self._wrapper = wrapper
        wrapper.count_prompt_tokens = _no_tokens

    def has_ended(self) -> bool:
        """Return whether the provider itself said why the answer ended; LiteLLM makes it up if it did not."""
        wrapper = self._wrapper
        if self._attempt.wire.is_familiar:
            return super().has_ended()
        return wrapper.received_finish_reason is not None or wrapper.intermittent_finish_reason is not None

    def whole_answer(self) -> Completion | None:
        """Return the answer in a body that is no stream, or None if it cannot be read."""
        raw, wire = self._attempt.read_chat(), self._attempt.wire
        if raw is not None or wire.failed_status is not None:
            return None if raw is None else completion_of(raw)
        for name in (ANTHROPIC, GEMINI):
            with contextlib.suppress(UnfamiliarError):
                return dialect_of(name).completion_of(wire.data, ())
        return None

    def so_far(self) -> Completion:
        """Return the answer so far, with the provider's own counts: those of LiteLLM's last chunk may be made up."""
        sent = [
            counts.model_dump(exclude_none=True)
            for each in self._wrapper.chunks
            if (counts := getattr(each, "usage", None))
        ]
        usage = as_counted(reduce(merged, sent), self._attempt.wire.counts) if sent else None
        made, body = super().so_far(), self._attempt.wire.data  # of Google's answers that are no streams
        named = gemini.model_of(body) if isinstance(body, dict) else None
        return replace(made, usage=usage, model=named or made.model)

    def read(self, chunk: Any) -> Piece:
        """Record a chunk of LiteLLM's and return what it adds, as a piece."""
        made = Chunk.of(chunk.model_dump())
        return self.take(replace(made, choices=tuple(map(self._in_the_providers_word, made.choices))))

    def _in_the_providers_word(self, choice: ChunkChoice) -> ChunkChoice:
        """Return a choice that says why it ended as the provider said: LiteLLM makes "stop" of an unknown word."""
        reason = self._attempt.wire.finish_reason
        known = choice.finish_reason != "stop" or not reason or reason in FINISH_REASONS
        return choice if known else replace(choice, finish_reason=reason)

    def _stumbled(self, error: Exception) -> bool:
        """Return whether LiteLLM failed over a body that is no stream or, as since 1.110, over a stream that is cut."""
        wire = self._attempt.wire
        return wire.fault is None and (bool(wire.parts) or _ENDLESS in str(error))


class BlockingSource(_LiteLLMSource):
    """An open stream, read with blocking calls."""

    def next(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            chunk = next(self._wrapper, None)
        except Exception as error:
            if self._stumbled(error):
                return self.end()
            raise self.failed(error) from error
        return self.end() if chunk is None else self.read(chunk)


class AwaitedSource(_LiteLLMSource):
    """An open stream, read with awaits."""

    async def anext(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            chunk = await anext(self._wrapper, None)
        except Exception as error:
            if self._stumbled(error):
                return self.end()
            raise self.failed(error) from error
        return self.end() if chunk is None else self.read(chunk)


def _no_tokens() -> int:
    """Return a prompt count for streams without usage: to count it itself, LiteLLM would fetch images."""
    return 0
