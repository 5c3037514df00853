"""A model.py as a chat: messages in, replies and pieces out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llmkit.serve.hosted.results import Texts
from llmkit.types import Piece, Reply, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from llmkit.serve.hosted.host import Host
    from llmkit.serve.served import Caller
    from llmkit.types import Message


class HostStream:
    """The answer of a `Host` in pieces, as `llmkit.astream` gives it."""

    def __init__(self, host: Host, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> None:
        self._host = host
        self._asked = (messages, params, caller)
        self._reply: Reply | None = None
        self._pieces = self._read()

    @property
    def reply(self) -> Reply:
        """The whole answer after the end; what had arrived, without a finish reason, of one that was left early.

        Raises:
            RuntimeError: while pieces are still to come.
        """
        if self._reply is None:
            raise RuntimeError("the reply of a stream is known when the stream has ended or is closed")
        return self._reply

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Return the iterator over the pieces."""
        return self._pieces

    async def aclose(self) -> None:
        """Close the generator and settle `reply`."""
        await self._pieces.aclose()
        if self._reply is None:  # it was never iterated
            self._reply = built(self._host.name, "", None)

    async def _read(self) -> AsyncGenerator[Piece, None]:
        messages, params, caller = self._asked
        account, result = await self._host.begin(payload(messages, params), None, caller)
        parts: list[str] = []
        try:
            async for text in result if isinstance(result, Texts) else _one(await self._host.text(result)):
                account.note_piece()
                parts.append(text)
                yield Piece(content=text)
            self._reply = await self._host.reply(messages, "".join(parts), account, result)
            yield Piece(finish_reason="stop")
        except GeneratorExit:
            await account.end(Usage(), whole=False)
            raise
        except BaseException as error:
            await account.end(error)
            raise
        finally:
            if self._reply is None:
                self._reply = built(self._host.name, "".join(parts), None)
            if isinstance(result, Texts):
                await result.aclose()


async def _one(text: str) -> AsyncIterator[str]:
    if text:
        yield text


def payload(messages: Sequence[Message], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return messages in the form a model.py knows: the last question, the system's text, and all of them."""
    system = [_said(each) for each in messages if each["role"] in {"system", "developer"}]
    asked = next((_said(each) for each in reversed(messages) if each["role"] == "user"), "")
    context = {"system_context": "\n\n".join(system)} if system else {}
    return {**params, "user_prompt": asked, **context, "messages": [dict(each) for each in messages]}


def _said(message: Message) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def counted(model: str, messages: Sequence[Message], text: str) -> Usage:
    """Count tokens as for a model that nobody knows. Of pictures the text is counted only: nothing is fetched."""
    from llmkit._litellm import count_text

    prompt, completion = sum(count_text(model, _said(message)) for message in messages), count_text(model, text)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def built(name: str, text: str, finish_reason: str | None, raw: Any = None) -> Reply:
    """Return a reply with a text."""
    said = SimpleNamespace(role="assistant", content=text, tool_calls=None)
    choice = SimpleNamespace(index=0, message=said, finish_reason=finish_reason)
    message = {"role": "assistant", "content": text}
    return Reply(
        text=text, model=name, name=name, finish_reason=finish_reason, choices=(choice,), messages=(message,), raw=raw
    )
