"""A model.py as a chat: messages in, replies out."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from llmkit.core.completion import Choice, ChoiceMessage
from llmkit.core.types import Piece, Reply, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from llmkit.core.types import Message


def payload(messages: Sequence[Message], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return messages in the form a model.py expects: the last question, the system message, and all of them."""
    system = [_text(message) for message in messages if message["role"] in {"system", "developer"}]
    prompt = next((_text(message) for message in reversed(messages) if message["role"] == "user"), "")
    context = {"system_context": "\n\n".join(system)} if system else {}
    return {**params, "user_prompt": prompt, **context, "messages": [dict(message) for message in messages]}


def _text(message: Message) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def count_tokens(model: str, messages: Sequence[Message], text: str) -> Usage:
    """Count tokens as for an unknown model. Of images only the text is counted: nothing is fetched."""
    from llmkit.providers.tokens import count_text

    prompt, completion = sum(count_text(model, _text(message)) for message in messages), count_text(model, text)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def reply_of(name: str, text: str, finish_reason: str | None, raw: Any = None) -> Reply:
    """Return a reply with a text."""
    choice = Choice(message=ChoiceMessage(content=text), finish_reason=finish_reason)
    messages = ({"role": "assistant", "content": text},)
    return Reply(
        text=text, model=name, name=name, finish_reason=finish_reason, choices=(choice,), messages=messages, raw=raw
    )


class HostStream:
    """The answer of a model.py in pieces, like that of `llmkit.astream`.

    Args:
        name: of the model.
        source: yields the pieces, and after them the whole reply.
    """

    def __init__(self, name: str, source: AsyncGenerator[Piece | Reply, None]) -> None:
        self._name = name
        self._reply: Reply | None = None
        self._text = ""
        self._pieces = self._read(source)

    @property
    def reply(self) -> Reply:
        """The complete reply after the end; after leaving early, what had arrived, without a finish reason."""
        return self._reply or reply_of(self._name, self._text, None)

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Return the iterator over the pieces."""
        return self._pieces

    async def aclose(self) -> None:
        """Close the source."""
        await self._pieces.aclose()

    async def _read(self, source: AsyncGenerator[Piece | Reply, None]) -> AsyncGenerator[Piece, None]:
        async with contextlib.aclosing(source):
            async for item in source:
                if isinstance(item, Reply):
                    self._reply = item
                else:
                    self._text += item.content
                    yield item
        yield Piece(finish_reason="stop")
