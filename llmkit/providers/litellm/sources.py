"""LiteLLM's open streams, read piece by piece, with blocking calls or with awaits."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from llmkit.providers.chunk_source import ChunkSource
from llmkit.providers.completion import Chunk, Completion, merged
from llmkit.providers.litellm.attempt import completion_of

if TYPE_CHECKING:
    from llmkit.core.types import Piece
    from llmkit.providers.litellm.attempt import Attempt


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
        if self._attempt.wire.has_choices:
            return super().has_ended()
        return wrapper.received_finish_reason is not None or wrapper.intermittent_finish_reason is not None

    def whole_answer(self) -> Completion | None:
        """Return the answer in a body that is no stream, or None if it cannot be read."""
        raw = self._attempt.read_chat()
        return None if raw is None else completion_of(raw)

    def so_far(self) -> Completion:
        """Return the answer so far, with the provider's own counts: those of LiteLLM's last chunk may be made up."""
        sent = [
            counts.model_dump(exclude_none=True)
            for each in self._wrapper.chunks
            if (counts := getattr(each, "usage", None))
        ]
        return replace(super().so_far(), usage=reduce(merged, sent) if sent else None)

    def _stumbled(self) -> bool:
        """Return whether LiteLLM failed over a body that is no stream."""
        return self._attempt.wire.fault is None and bool(self._attempt.wire.parts)


class BlockingSource(_LiteLLMSource):
    """An open stream, read with blocking calls."""

    def next(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            chunk = next(self._wrapper, None)
        except Exception as error:
            if self._stumbled():
                return self.end()
            raise self.failed(error) from error
        return self.end() if chunk is None else self.take(Chunk.of(chunk.model_dump()))


class AwaitedSource(_LiteLLMSource):
    """An open stream, read with awaits."""

    async def anext(self) -> Piece | None:
        """Return the next piece; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            chunk = await anext(self._wrapper, None)
        except Exception as error:
            if self._stumbled():
                return self.end()
            raise self.failed(error) from error
        return self.end() if chunk is None else self.take(Chunk.of(chunk.model_dump()))


def _no_tokens() -> int:
    """Return a prompt count for streams without usage: to count it itself, LiteLLM would fetch images."""
    return 0
