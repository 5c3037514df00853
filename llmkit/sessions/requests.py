"""One request of `ApiBackend`: what is sent, what came of it, and the answer as a triple."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.config.hints import near
from llmkit.core.tool_loop import answer
from llmkit.core.tools import NO_TOOLS
from llmkit.core.types import Invoke
from llmkit.errors import InvalidRequestError, LlmkitError
from llmkit.prepare import prepare
from llmkit.presets import Preset
from llmkit.sessions.run import trimmed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Flow, Message, Piece, Reply, Usage
    from llmkit.money.account import UsageTracker
    from llmkit.sessions.conversations import Conversation, Conversations

OVERRIDES = (
    "system_message",
    "preset",
    "activate_preset",
    "preset_overrides",
    "title",
    "stream",
    "print_stream",
    "stream_callback",
    "files",
)
"""The keys of `request_overrides`."""
_TITLE = "Give this conversation a title of at most six words. Answer with the title only."
_LONGEST_TITLE = 80


class Answer(NamedTuple):
    """The outcome of a request.

    Attributes:
        success: whether there is an answer.
        response: its text; the parsed object if the preset has a schema, or the calls if the program is to call a
            tool. None, or the text that had arrived, if there is no answer.
        message: which model answered, or why there is no answer and what to do.
    """

    success: bool
    response: Any
    message: str


@dataclass(frozen=True, slots=True)
class BackendUsage:
    """Tokens and price of the last call, and of all calls of a backend."""

    last: Usage
    total: Usage


@dataclass
class BackendRequest:
    """One request of `ApiBackend` on its way.

    Attributes:
        messages: the new messages.
        history: the messages before them.
        preset: the preset to call, its variables filled in.
        model: the model to call.
        system: the system message, or nothing.
        limit: how many tokens are sent at most.
        title: the title that the conversation gets.
        emit: receives the pieces, or None if the answer comes whole.
        conversation: the conversation that the answer is added to.
        activate: the preset that is active from now on, if it can be used.
        text: what has arrived of a stream.
    """

    messages: Sequence[Message]
    history: Sequence[Message]
    preset: Preset | None
    model: str
    system: Sequence[Message]
    limit: int | None
    title: str | None
    emit: Callable[[str], Any] | None
    conversation: Conversation
    activate: Preset | None = None
    text: str = ""

    def turn(self, ledger: Any, account: UsageTracker) -> Flow[Turn]:
        """Return the turn to send, with as much of the history as fits."""
        sent = [*self.system, *self.history, *self.messages]
        if self.limit is not None:
            sent = yield from trimmed(sent, self.model, self.limit)
        options = {"ledger": ledger, "session": self.conversation.id}
        turn = prepare(sent, self.model, self.preset, None, options)
        return replace(turn, plan=replace(turn.plan, account=account))

    def give(self, take: Callable[..., Any], piece: Piece) -> Invoke | None:
        """Return the step that passes the text of a piece to *emit*, with *take*."""
        self.text += piece.content
        return Invoke(take, (self.emit, piece.content)) if piece.content else None

    def finish(self, reply: Reply, turn: Turn | None) -> Flow[list[str]]:
        """Add the turn to the conversation, and a title if it needs one; return warnings about that.

        *turn* is used to ask for a title, unless it is None.
        """
        if self.emit is print_piece and not self.text.endswith("\n"):
            print_piece("\n")
        conversation = self.conversation
        first = not conversation.messages
        conversation.messages += [*self.messages, *reply.messages]
        if self.title is not None:
            conversation.title = self.title
        elif first and conversation.title is None and turn is not None:
            try:
                conversation.title = yield from titled(turn, conversation.messages)
            except LlmkitError as error:
                return [f"no title: {error}"]
        return []

    def store(self, conversations: Conversations, reply: Reply, url: str | None) -> Flow[list[str]]:
        """Store the conversation; return warnings about that."""
        preset = (self.preset or Preset()).changed(
            model=self.model, system=self.system[0]["content"] if self.system else None
        )
        try:
            lost = yield Invoke(conversations.store, (self.conversation, preset, reply, url))
        except LlmkitError as error:
            return [f"not in the store: {error}"]
        return [f"the store does not keep {key}, a secret" for key in lost]


def take(emit: Any, text: str) -> Any:
    """Pass a piece to whatever receives the pieces; an awaitable result is awaited by the driver."""
    return emit(text)


async def atake(emit: Any, text: str) -> None:
    """Pass a piece on, on the event loop."""
    result = emit(text)
    if inspect.isawaitable(result):
        await result


def titled(turn: Turn, messages: Sequence[Message]) -> Flow[str]:
    """Return a title from the model in use, and no other."""
    messages = [*messages, {"role": "user", "content": _TITLE}]
    reply = yield from answer(replace(turn, messages=messages, schema=None, toolbox=NO_TOOLS))
    return reply.text.strip().strip('"').splitlines()[0][:_LONGEST_TITLE] if reply.text.strip() else ""


def checked(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *overrides*, or raise an InvalidRequestError that names the unknown one."""
    for name in overrides:
        if name not in OVERRIDES:
            raise InvalidRequestError(f"unknown request override {name!r}; {near(str(name), OVERRIDES)}")
    return overrides


def emitter(wanted: Mapping[str, Any], *, streaming: bool) -> Callable[[str], Any] | None:
    """Return the receiver of a stream's pieces, or None if the answer comes whole."""
    callback = wanted.get("stream_callback")
    if not (streaming or wanted.get("stream") or wanted.get("print_stream") or callback):
        return None
    if callback is not None:
        if not callable(callback):
            raise InvalidRequestError(f"stream_callback must be a function, not {callback!r}")
        emit: Callable[[str], Any] = callback
        return emit
    return print_piece if streaming or wanted.get("print_stream") else _nothing


def print_piece(text: str) -> None:
    """Print a piece of an answer as it arrives."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _nothing(_: str) -> None:
    pass
