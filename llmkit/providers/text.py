"""The base of providers that take text and answer text over HTTP, and that LiteLLM does not know."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.core.completion import Choice, ChoiceMessage, Completion
from llmkit.core.engine import Backend, adrive, drive
from llmkit.core.params import encodable
from llmkit.core.types import Piece
from llmkit.errors import BadRequestError, IncompleteStreamError
from llmkit.providers.attempt import Attempt
from llmkit.providers.prompt import Prompt
from llmkit.providers.transport.client import http

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.types import Flow, Message, Reply, Request
    from llmkit.providers.transport.client import TextStream

NOT_SENT = frozenset({"drop_params", "user", "stream_options"})
"""Parameters that are meant for LiteLLM, or for nobody here."""


class TextAnswer(NamedTuple):
    """A whole answer: its text, why it ended, and the provider's token counts, or None if it gives none."""

    text: str
    finish_reason: str = "stop"
    counts: Mapping[str, Any] | None = None


class TextProvider(Backend):
    """Sends through the flows of a subclass."""

    @abstractmethod
    def whole(self, request: Request) -> Flow[TextAnswer]:
        """Send *request* and return the whole answer."""

    @abstractmethod
    def opened(self, request: Request) -> Flow[TextStream]:
        """Send *request* and return its open stream."""

    def send(self, request: Request) -> Reply:
        """Send once."""
        attempt = Attempt(request)
        with attempt.errors():
            return _reply(attempt, drive(self.whole(request), http()))

    async def asend(self, request: Request) -> Reply:
        """Async version of `send`."""
        attempt = Attempt(request)
        with attempt.errors():
            return _reply(attempt, await adrive(self.whole(request), http()))

    def open(self, request: Request) -> TextSource:
        """Open a stream."""
        attempt = Attempt(request)
        with attempt.errors():
            return TextSource(attempt, drive(self.opened(request), http()))

    async def aopen(self, request: Request) -> TextSource:
        """Async version of `open`."""
        attempt = Attempt(request)
        with attempt.errors():
            return TextSource(attempt, await adrive(self.opened(request), http()))


class TextSource:
    """An open stream of text, read with blocking calls or with awaits."""

    def __init__(self, attempt: Attempt, stream: TextStream) -> None:
        self.complete = False
        self._attempt, self._stream = attempt, stream

    def next(self) -> Piece | None:
        """Return the next piece, or None after the last."""
        return self._piece(self._stream.next())

    async def anext(self) -> Piece | None:
        """Return the next piece, or None after the last."""
        return self._piece(await self._stream.anext())

    def reply(self) -> Reply:
        """Return what has arrived."""
        answer = TextAnswer(self._stream.pieces.text, "stop" if self.complete else "")
        return _reply(self._attempt, answer, complete=self.complete)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    def _piece(self, text: str | None) -> Piece | None:
        if text is not None:
            return Piece(content=text)
        if self.complete:
            return None
        if not self._stream.pieces.text:
            raise IncompleteStreamError("the stream ended without an answer", model=self._attempt.request.model)
        self.complete = True
        return Piece(finish_reason="stop")


def text_of(message: Message) -> str:
    """Return a message's text, or raise an error if it has other parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    if any(part.get("type") != "text" for part in content):
        raise BadRequestError("this endpoint takes text only, no pictures, sound or files")
    return "".join(part["text"] for part in content)


def prompt_of(request: Request) -> Prompt:
    """Return the messages of a chat as a prompt: the system message, the earlier messages, and the last user's.

    Raises:
        BadRequestError: it is not a chat, has tools, or does not end with a user's message.
    """
    if request.kind != "chat":
        raise BadRequestError(f"{request.model} answers chats only, not {request.kind}", model=request.model)
    if request.params.get("tools") or request.params.get("functions"):
        raise BadRequestError(f"{request.model} knows no tools", model=request.model)
    *before, last = request.messages
    if last["role"] != "user":
        raise BadRequestError(f"{request.model} answers a user's message, not one of {last['role']}")
    system = [text_of(message) for message in before if message["role"] in {"system", "developer"}]
    history = [message for message in before if message["role"] in {"user", "assistant"}]
    return Prompt(
        data=text_of(last),
        context="\n".join(system) if system else None,
        history=[{"role": message["role"], "content": text_of(message)} for message in history],
        params={key: value for key, value in request.params.items() if key not in NOT_SENT},
    )


def _reply(attempt: Attempt, answer: TextAnswer, *, complete: bool = True) -> Reply:
    choice = Choice(message=ChoiceMessage(content=encodable(answer.text)), finish_reason=answer.finish_reason or None)
    completion = Completion(model=attempt.request.model, choices=(choice,), usage=answer.counts)
    return attempt.reply(completion, completion.model_dump(), complete=complete)
